//! The dotnet SDK and nuget.exe against the server: pack, push, restore, run, unlist, and all of it again with the upstream gone.

use std::path::Path;

use tempfile::TempDir;

use crate::harness::{Ran, Server, Setup, Token, clients, run};
use crate::nuget_wire::{hosting, nupkg, push, versions};

/// The clients with a home, settings and a folder of packages of their own.
struct DotNet {
    home: TempDir,
}

impl DotNet {
    /// Pointed at a tree of the server and nowhere else, with a token as the password or none.
    fn new(server: &Server, tree: &str, password: Option<&str>) -> Self {
        let home = TempDir::with_prefix("packhouse-dotnet-").expect("a folder");
        let credentials = password.map_or_else(String::new, |password| {
            format!(
                "<packageSourceCredentials><packhouse><add key=\"Username\" value=\"token\"/>\
                 <add key=\"ClearTextPassword\" value=\"{password}\"/></packhouse></packageSourceCredentials>"
            )
        });
        let text = format!(
            "<configuration><packageSources><clear/><add key=\"packhouse\" value=\"{}\"/></packageSources>{credentials}</configuration>",
            source(server, tree)
        );
        // The SDK and nuget.exe look at different places.
        for folder in [".nuget/NuGet", ".config/NuGet"] {
            std::fs::create_dir_all(home.path().join(folder)).expect("a folder");
            std::fs::write(home.path().join(folder).join("NuGet.Config"), &text).expect("settings");
        }
        Self { home }
    }

    async fn client(&self, program: &str, folder: &Path, arguments: &[&str]) -> Ran {
        let home = |name: &str| self.home.path().join(name).display().to_string();
        let environment = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin".into()),
            ("HOME", home("")),
            ("TMPDIR", home("")),
            ("NUGET_PACKAGES", home("packages")),
            ("DOTNET_CLI_HOME", home("")),
            ("DOTNET_CLI_TELEMETRY_OPTOUT", "1".into()),
            ("DOTNET_SKIP_FIRST_TIME_EXPERIENCE", "1".into()),
            ("DOTNET_NOLOGO", "1".into()),
            ("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1".into()),
            // Nothing may outlive the test.
            ("MSBUILDDISABLENODEREUSE", "1".into()),
            ("UseSharedCompilation", "false".into()),
            ("LANG", "C.UTF-8".into()),
        ];
        run(&clients().join("bin").join(program), arguments, folder, &environment).await
    }

    async fn dotnet(&self, folder: &Path, arguments: &[&str]) -> Ran {
        self.client("dotnet", folder, arguments).await
    }

    /// Mono falls over once in a hundred runs, whatever it runs: then it is run once more.
    async fn nuget(&self, arguments: &[&str]) -> Ran {
        let mut all = arguments.to_vec();
        all.push("-NonInteractive");
        let ran = self.client("nuget", self.home.path(), &all).await;
        if ran.said("Native Crash Reporting") || ran.code > 128 {
            return self.client("nuget", self.home.path(), &all).await;
        }
        ran
    }
}

fn source(server: &Server, tree: &str) -> String {
    format!("{}/nuget{tree}/index.json", server.origin())
}

/// A library that says its version, packed by the SDK, and the folder with its packages.
async fn pack(dotnet: &DotNet, id: &str, version: &str, more: &str) -> TempDir {
    let folder = TempDir::with_prefix("packhouse-lib-").expect("a folder");
    let project = format!(
        "<Project Sdk=\"Microsoft.NET.Sdk\"><PropertyGroup><TargetFramework>netstandard2.1</TargetFramework><PackageId>{id}</PackageId>\
         <Version>{version}</Version><Authors>Ann</Authors><Description>The {id}</Description><PackageLicenseExpression>MIT</PackageLicenseExpression>\
         <RootNamespace>Acme</RootNamespace><AssemblyName>{id}</AssemblyName></PropertyGroup>{more}</Project>"
    );
    std::fs::write(folder.path().join("lib.csproj"), project).expect("a project");
    let class = id.replace('.', "");
    let code = format!(
        "namespace Acme {{ public static class {class} {{ public static string Says() {{ return \"this is {id} {version}\"; }} }} }}"
    );
    std::fs::write(folder.path().join("Lib.cs"), code).expect("a class");
    dotnet.dotnet(folder.path(), &["pack", "lib.csproj", "-o", "out", "--nologo"]).await.ok();
    folder
}

/// The package in a folder, below that.
fn packed(folder: &TempDir) -> String {
    let files = std::fs::read_dir(folder.path().join("out")).expect("a folder");
    let mut names = files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned());
    format!("out/{}", names.find(|name| name.strip_suffix(".nupkg").is_some()).expect("a package"))
}

/// A program that says what these say.
fn program(references: &[(&str, &str)], says: &str) -> TempDir {
    let folder = TempDir::with_prefix("packhouse-app-").expect("a folder");
    let references: Vec<String> =
        references.iter().map(|(id, version)| format!("<PackageReference Include=\"{id}\" Version=\"{version}\"/>")).collect();
    let references = references.concat();
    let project = format!(
        "<Project Sdk=\"Microsoft.NET.Sdk\"><PropertyGroup><OutputType>Exe</OutputType><TargetFramework>netcoreapp3.1</TargetFramework>\
         <RestorePackagesWithLockFile>true</RestorePackagesWithLockFile></PropertyGroup><ItemGroup>{references}</ItemGroup></Project>"
    );
    std::fs::write(folder.path().join("app.csproj"), project).expect("a project");
    std::fs::write(
        folder.path().join("App.cs"),
        format!("class App {{ static void Main() {{ System.Console.WriteLine(Acme.{says}.Says()); }} }}"),
    )
    .expect("a class");
    folder
}

async fn push_with(dotnet: &DotNet, server: &Server, folder: &TempDir, token: &Token, more: &[&str]) -> Ran {
    let (source, file) = (source(server, "/ann"), packed(folder));
    let mut all = vec!["nuget", "push", &file, "--source", &source, "--api-key", &token.text];
    all.extend(more);
    dotnet.dotnet(folder.path(), &all).await
}

#[tokio::test]
async fn dotnet_packs_pushes_restores_runs_and_unlists() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = DotNet::new(&server, "/ann", Some(&token.text));
    let symbols = "<PropertyGroup><IncludeSymbols>true</IncludeSymbols><SymbolPackageFormat>snupkg</SymbolPackageFormat></PropertyGroup>";
    let first = pack(&ann, "Acme.Tool", "1.0.0", symbols).await;
    let pushed = push_with(&ann, &server, &first, &token, &[]).await.ok();
    assert!(pushed.said("Acme.Tool.1.0.0.snupkg") && pushed.said("Your package was pushed."), "{pushed:?}");
    push_with(&ann, &server, &first, &token, &["--no-symbols", "true"]).await.fails_with(&["409 (Acme.Tool 1.0.0 was pushed before"]);
    push_with(&ann, &server, &first, &token, &["--no-symbols", "true", "--skip-duplicate"]).await.ok();
    // With the source's password instead of a key.
    let second = pack(&ann, "Acme.Tool", "1.1.0", "").await;
    ann.dotnet(second.path(), &["nuget", "push", &packed(&second), "--source", "packhouse"]).await.ok();
    let third = pack(&ann, "Acme.Tool", "2.0.0-rc.1", "").await;
    push_with(&ann, &server, &third, &token, &[]).await.ok();
    let need = "<ItemGroup><PackageReference Include=\"acme.tool\" Version=\"[1.0,2.0)\"/></ItemGroup>";
    push_with(&ann, &server, &pack(&ann, "Acme.User", "0.1.0", need).await, &token, &[]).await.ok();
    let wrong = Token { text: "pkh_000000000000000000000000000000000000".into(), ..token.clone() };
    let refused =
        push_with(&DotNet::new(&server, "/ann", None), &server, &second, &wrong, &[]).await.fails_with(&["401 (no valid token came along"]);
    assert!(!refused.said("pkh_0000"), "{refused:?}");

    // The lowest that fits, and the highest where that is asked for.
    for (version, says) in [("1.0.0", "1.0.0"), ("1.*", "1.1.0"), ("2.0.0-*", "2.0.0-rc.1"), ("[1.1.0.0]", "1.1.0")] {
        let app = program(&[("Acme.Tool", version)], "AcmeTool");
        let ran = ann.dotnet(app.path(), &["run"]).await.ok();
        assert!(ran.said(&format!("this is Acme.Tool {says}")), "{version}: {ran:?}");
    }
    let app = program(&[("Acme.User", "0.1.0")], "AcmeTool");
    assert!(ann.dotnet(app.path(), &["run"]).await.ok().said("this is Acme.Tool 1.0.0"), "what is needed comes along");
    let lock = std::fs::read_to_string(app.path().join("packages.lock.json")).expect("a lock file");
    let pinned = program(&[("Acme.Tool", "1.0.0")], "AcmeTool");
    let outdated = async |client: &DotNet| {
        client.dotnet(pinned.path(), &["restore", "--force"]).await.ok();
        client.dotnet(pinned.path(), &["list", "package", "--outdated"]).await.ok()
    };
    assert!(outdated(&ann).await.said("1.1.0"));

    // Unlisted: nobody is told of it any more, and who has pinned it still gets it.
    let delete = async |id: &str, version: &str| {
        let source = source(&server, "/ann");
        let arguments = ["nuget", "delete", id, version, "--source", &source, "--api-key", &token.text, "--non-interactive"];
        ann.dotnet(first.path(), &arguments).await
    };
    delete("Acme.Tool", "1.1.0").await.ok();
    delete("Acme.Tool", "7.0.0").await.fails_with(&["404 (there is no version 7.0.0 of acme.tool)"]);
    // Another home, since a client remembers what it was told for half an hour.
    let fresh = DotNet::new(&server, "/ann", Some(&token.text));
    assert!(outdated(&fresh).await.said("no updates"));
    let exact = program(&[("Acme.Tool", "1.1.0")], "AcmeTool");
    assert!(fresh.dotnet(exact.path(), &["run"]).await.ok().said("this is Acme.Tool 1.1.0"));
    fresh.dotnet(app.path(), &["restore", "--locked-mode", "--force"]).await.ok();
    assert_eq!(std::fs::read_to_string(app.path().join("packages.lock.json")).expect("a lock file"), lock, "the same bytes");

    // Without a password, and with a wrong one, there is one clear error.
    for password in [None, Some("pkh_000000000000000000000000000000000000")] {
        let stranger = DotNet::new(&server, "/ann", password);
        let ran = stranger.dotnet(program(&[("Acme.Tool", "1.0.0")], "AcmeTool").path(), &["restore"]).await;
        ran.fails_with(&["401 (Unauthorized)", "401 (authentication required)", "401 (bad credentials)"]);
    }
    // In the tree of all a private package is found with a password too, which no client sends before it is asked.
    let root = DotNet::new(&server, "", Some(&token.text));
    assert!(root.dotnet(program(&[("Acme.Tool", "1.0.0")], "AcmeTool").path(), &["run"]).await.ok().said("this is Acme.Tool 1.0.0"));
    server.finish().await;
}

#[tokio::test]
async fn a_tool_is_installed_and_run() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = DotNet::new(&server, "/ann", Some(&token.text));
    let folder = TempDir::with_prefix("packhouse-tool-").expect("a folder");
    let project = "<Project Sdk=\"Microsoft.NET.Sdk\"><PropertyGroup><OutputType>Exe</OutputType><TargetFramework>netcoreapp3.1</TargetFramework>\
        <PackAsTool>true</PackAsTool><ToolCommandName>hammer</ToolCommandName><PackageId>Acme.Hammer</PackageId><Version>1.2.3</Version></PropertyGroup></Project>";
    std::fs::write(folder.path().join("tool.csproj"), project).expect("a project");
    std::fs::write(folder.path().join("T.cs"), "class T { static void Main() { System.Console.WriteLine(\"bang\"); } }").expect("a class");
    ann.dotnet(folder.path(), &["pack", "-o", "out"]).await.ok();
    push_with(&ann, &server, &folder, &token, &[]).await.ok();
    let installed = ann.dotnet(folder.path(), &["tool", "install", "acme.hammer", "--tool-path", "tools"]).await.ok();
    assert!(installed.said("version '1.2.3'"), "{installed:?}");
    assert!(folder.path().join("tools/hammer").exists());
    server.finish().await;
}

#[tokio::test]
async fn dotnet_restores_through_the_server_and_again_without_the_upstream() {
    let (above, maker) = hosting(Setup::default().more("[access]\ndefault_visibility = \"public\"")).await;
    let builder = DotNet::new(&above, "", Some(&maker.text));
    push_with(&builder, &above, &pack(&builder, "Base", "1.0.0", "").await, &maker, &[]).await.ok();
    let caller = above.caller_with(&maker);
    for number in 1..130 {
        push(&caller, "", &nupkg("Base", &format!("1.{number}.0"), "")).await.expect(201);
    }
    let server = Setup::default().upstream_of("nuget", "above", &source(&above, ""), "").start().await;
    let token = server.publisher("ann").await;
    let ann = DotNet::new(&server, "/ann", Some(&token.text));
    let need = "<ItemGroup><PackageReference Include=\"Base\" Version=\"1.0.0\"/></ItemGroup>";
    push_with(&ann, &server, &pack(&ann, "Ours", "0.5.0", need).await, &token, &[]).await.ok();
    // A package of the upstream's that everybody may read, without a token.
    let anyone = DotNet::new(&server, "", None);
    let plain = program(&[("base", "1.0.0")], "Base");
    assert!(anyone.dotnet(plain.path(), &["run"]).await.ok().said("this is Base 1.0.0"));
    let app = program(&[("Ours", "0.*")], "Base");
    assert!(ann.dotnet(app.path(), &["run"]).await.ok().said("this is Base 1.0.0"));
    let listed = anyone.dotnet(plain.path(), &["list", "package", "--outdated"]).await.ok();
    assert!(listed.said("1.129.0"), "from a page of its own: {listed:?}");
    let lock = std::fs::read_to_string(app.path().join("packages.lock.json")).expect("a lock file");
    assert!(!lock.contains("http"), "{lock}");

    above.finish().await;
    let again = DotNet::new(&server, "/ann", Some(&token.text));
    again.dotnet(app.path(), &["restore", "--locked-mode", "--force"]).await.ok();
    assert!(again.dotnet(app.path(), &["run"]).await.ok().said("this is Base 1.0.0"));
    // What was never fetched is a failure and not an absence.
    let missing = DotNet::new(&server, "", None).dotnet(program(&[("Never.Seen", "1.0.0")], "Base").path(), &["restore"]).await;
    missing.fails_with(&["502", "503"]);
    server.finish().await;
}

#[tokio::test]
async fn nuget_pushes_searches_installs_and_deletes() {
    let (above, maker) = hosting(Setup::default().more("[access]\ndefault_visibility = \"public\"")).await;
    push(&above.caller_with(&maker), "", &nupkg("Theirs.Tool", "3.0.0", "")).await.expect(201);
    let server = Setup::default().upstream_of("nuget", "above", &source(&above, ""), "").start().await;
    let token = server.publisher("ann").await;
    let ann = DotNet::new(&server, "/ann", Some(&token.text));
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("tool.nupkg");
    let send = async |client: &DotNet, bytes: &[u8], more: &[&str]| {
        std::fs::write(&file, bytes).expect("a package");
        let (path, source) = (file.display().to_string(), source(&server, "/ann"));
        let mut all = vec!["push", &path, "-Source", &source];
        all.extend(more);
        client.nuget(&all).await
    };
    let key = ["-ApiKey", &token.text];
    for version in ["1.0", "1.1.0", "2.0.0-beta"] {
        send(&ann, &nupkg("Our.Tool", version, "<tags>hammer</tags>"), &key).await.ok();
    }
    send(&ann, &nupkg("Our.Tool", "1.0.0.0", ""), &key).await.fails_with(&["409"]);
    send(&ann, &nupkg("Our.Tool", "1.0.0.0", ""), &["-ApiKey", &token.text, "-SkipDuplicate"]).await.ok();
    let needs =
        "<dependencies><dependency id=\"OUR.TOOL\" version=\"1.0\"/><dependency id=\"theirs.tool\" version=\"[3.0]\"/></dependencies>";
    send(&ann, &nupkg("Our.App", "1.0.0", needs), &key).await.ok();
    // What is wrong is said in words.
    send(&ann, b"nonsense", &key).await.fails_with(&["no zip", "zip", "Zip", "Central Directory"]);
    let wrong = ["-ApiKey", "pkh_000000000000000000000000000000000000"];
    send(&DotNet::new(&server, "/ann", None), &nupkg("Our.Tool", "5.0.0", ""), &wrong).await.fails_with(&["401"]);
    let bob = server.publisher("bob").await;
    let refused = send(&DotNet::new(&server, "/ann", None), &nupkg("Our.Tool", "5.0.0", ""), &["-ApiKey", &bob.text]).await;
    refused.fails_with(&["403 (you do not have permission to publish our.tool)"]);

    let found = ann.nuget(&["search", "tool", "-Source", "packhouse"]).await.ok();
    assert!(found.said("Our.Tool") && found.said("1.1.0") && found.said("Theirs.Tool") && !found.said("2.0.0-beta"), "{found:?}");
    let found = ann.nuget(&["search", "hammer", "-Source", "packhouse", "-PreRelease"]).await.ok();
    assert!(found.said("2.0.0-beta") && !found.said("Theirs.Tool"), "{found:?}");

    let install = async |client: &DotNet, id: &str, more: &[&str]| {
        let out = TempDir::new().expect("a folder");
        let path = out.path().display().to_string();
        let mut all = vec!["install", id, "-OutputDirectory", &path, "-Source", "packhouse", "-NoCache", "-DirectDownload"];
        all.extend(more);
        let ran = client.nuget(&all).await;
        let names = std::fs::read_dir(out.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        (ran, names)
    };
    let (ran, names) = install(&ann, "our.app", &[]).await;
    ran.ok();
    assert_eq!(names, ["Our.App.1.0.0", "Our.Tool.1.0", "Theirs.Tool.3.0.0"]);
    ann.nuget(&["delete", "Our.Tool", "1.1.0", "-Source", &source(&server, "/ann"), "-ApiKey", &token.text]).await.ok();
    let found = ann.nuget(&["search", "our.tool", "-Source", "packhouse"]).await.ok();
    assert!(!found.said("1.1.0"), "{found:?}");
    let (ran, names) = install(&ann, "Our.Tool", &["-Version", "1.1.0"]).await;
    ran.ok();
    assert_eq!(names, ["Our.Tool.1.1.0"], "it is still there for who asks for it");

    // A project's list of packages is restored without the upstream.
    above.finish().await;
    let project = TempDir::new().expect("a folder");
    let list = "<packages><package id=\"Our.Tool\" version=\"1.1.0\"/><package id=\"Theirs.Tool\" version=\"3.0.0\"/></packages>";
    std::fs::write(project.path().join("packages.config"), list).expect("a list");
    let again = DotNet::new(&server, "/ann", Some(&token.text));
    let (list, out) = (project.path().join("packages.config").display().to_string(), project.path().join("out").display().to_string());
    again.nuget(&["restore", &list, "-PackagesDirectory", &out, "-NoCache", "-DirectDownload"]).await.ok();
    assert!(project.path().join("out/Theirs.Tool.3.0.0").exists() && project.path().join("out/Our.Tool.1.1.0").exists());
    let stranger = DotNet::new(&server, "/ann", None);
    let (ran, names) = install(&stranger, "Our.Tool", &[]).await;
    ran.fails_with(&["Unauthorized", "401", "credentials"]);
    assert_eq!(names, [""; 0]);
    let caller = server.caller_with(&token);
    assert_eq!(versions(&caller, "/ann", "our.tool").await, ["1.0.0", "1.1.0", "2.0.0-beta"]);
    server.finish().await;
}
