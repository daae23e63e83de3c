//! Maven and Gradle against the server: build, deploy, resolve, and all of it again with the upstream gone.
//!
//! The upstream is the repository that the distribution's Maven packages make up: its
//! plugins and their thousands of files, with checksums beside them. So every build below
//! fetches all it runs on through the server.

use std::path::Path;

use tempfile::TempDir;

use crate::harness::{Ran, Server, Setup, Token, Upstream, run};
use crate::maven_wire::hosting;

/// Where the distribution keeps its artifacts.
const DISTRIBUTION: &str = "/usr/share/maven-repo";

fn upstream() -> Upstream {
    let folder = Path::new(DISTRIBUTION);
    assert!(folder.exists(), "{DISTRIBUTION} is not there; tests/run --install installs every client");
    let upstream = Upstream::start();
    upstream.folder(folder);
    upstream
}

/// The newest version of an artifact that the distribution has.
fn packaged(path: &str) -> String {
    let folder = Path::new(DISTRIBUTION).join(path);
    let names = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut versions: Vec<String> = names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    versions.retain(|version| version.starts_with(|c: char| c.is_ascii_digit()));
    versions.sort();
    versions.pop().unwrap_or_else(|| panic!("no version of {path}"))
}

/// A Maven with a home and a local repository of its own.
struct Maven {
    home: TempDir,
}

impl Maven {
    /// Everything is read through the server's tree of all, `acme` is deployed to and read as a repository of its own.
    fn new(server: &Server, token: Option<&str>) -> Self {
        let home = TempDir::with_prefix("packhouse-maven-").expect("a folder");
        let credentials = token.map_or_else(String::new, |token| {
            format!("<servers><server><id>acme</id><username>ann</username><password>{token}</password></server></servers>")
        });
        let settings = format!(
            "<settings><interactiveMode>false</interactiveMode><localRepository>{}</localRepository>{credentials}\
             <mirrors><mirror><id>all</id><mirrorOf>*,!acme</mirrorOf><url>{}/maven/</url></mirror></mirrors></settings>",
            home.path().join("repository").display(),
            server.origin()
        );
        std::fs::write(home.path().join("settings.xml"), settings).expect("settings");
        Self { home }
    }

    async fn run(&self, folder: &Path, arguments: &[&str]) -> Ran {
        let settings = self.home.path().join("settings.xml").display().to_string();
        let mut all = vec!["-B", "-ntp", "-e", "-s", &settings, "-gs", &settings];
        all.extend(arguments);
        run(Path::new("/usr/bin/mvn"), &all, folder, &environment(self.home.path())).await
    }
}

fn environment(home: &Path) -> [(&'static str, String); 4] {
    let java = format!("-Duser.home={} -Djava.io.tmpdir={}", home.display(), home.display());
    [
        ("PATH", "/usr/local/bin:/usr/bin:/bin".into()),
        ("HOME", home.display().to_string()),
        ("MAVEN_OPTS", java.clone()),
        ("JAVA_OPTS", java),
    ]
}

/// A library of this version, with the plugin versions that the distribution has.
fn library(server: &Server, version: &str, more: &str) -> TempDir {
    let folder = TempDir::with_prefix("packhouse-project-").expect("a folder");
    let plugin = |name: &str| {
        let version = packaged(&format!("org/apache/maven/plugins/maven-{name}-plugin"));
        format!("<plugin><artifactId>maven-{name}-plugin</artifactId><version>{version}</version></plugin>")
    };
    let plugins = ["clean", "compiler", "deploy", "install", "jar", "resources", "source", "surefire", "dependency"].map(plugin).concat();
    let address = format!("{}/maven/acme/web", server.origin());
    let text = format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>com.acme</groupId><artifactId>tool</artifactId><version>{version}</version>\
         <properties><maven.compiler.source>8</maven.compiler.source><maven.compiler.target>8</maven.compiler.target>\
         <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding></properties>\
         <build><pluginManagement><plugins>{plugins}</plugins></pluginManagement></build>\
         <distributionManagement><repository><id>acme</id><url>{address}</url></repository></distributionManagement>\
         <repositories><repository><id>acme</id><url>{address}</url><snapshots><updatePolicy>always</updatePolicy></snapshots></repository></repositories>\
         {more}</project>"
    );
    std::fs::write(folder.path().join("pom.xml"), text).expect("a POM");
    let sources = folder.path().join("src/main/java");
    std::fs::create_dir_all(&sources).expect("a folder");
    std::fs::write(sources.join("Tool.java"), format!("class Tool {{ String version = \"{version}\"; }}")).expect("a class");
    folder
}

/// An application that needs the library, and the jar of it that was resolved.
async fn resolve(maven: &Maven, server: &Server, version: &str) -> (Ran, Option<Vec<u8>>) {
    let needs = format!(
        "<dependencies><dependency><groupId>com.acme</groupId><artifactId>tool</artifactId><version>{version}</version></dependency></dependencies>"
    );
    let project = library(server, "1", &needs);
    let text =
        std::fs::read_to_string(project.path().join("pom.xml")).expect("a POM").replacen("<artifactId>tool<", "<artifactId>user<", 1);
    std::fs::write(project.path().join("pom.xml"), text).expect("a POM");
    let plugin = packaged("org/apache/maven/plugins/maven-dependency-plugin");
    let goal = format!("org.apache.maven.plugins:maven-dependency-plugin:{plugin}:copy-dependencies");
    let ran = maven.run(project.path(), &["-C", &goal, "-DoutputDirectory=out", "-Dmdep.useBaseVersion=true"]).await;
    (ran, std::fs::read(project.path().join(format!("out/tool-{version}.jar"))).ok())
}

#[tokio::test]
async fn maven_builds_deploys_and_resolves() {
    let upstream = upstream();
    let (server, token) = hosting(Setup::default().upstream_of("maven", "fake", &upstream.url(), "")).await;
    let maven = Maven::new(&server, Some(&token.text));
    let project = library(&server, "1.0", "");
    maven.run(project.path(), &["deploy"]).await.ok();
    std::fs::write(project.path().join("src/main/java/Tool.java"), "class Tool { int other; }").expect("a class");
    std::fs::remove_dir_all(project.path().join("target")).expect("what was built");
    let again = maven.run(project.path(), &["deploy"]).await.fails_with(&["409"]);
    assert!(again.said("there is such a file already"), "the reason is shown: {again:?}");

    // In a fresh local repository, with checksums enforced, and with the upstream gone.
    let (ran, jar) = resolve(&Maven::new(&server, Some(&token.text)), &server, "1.0").await;
    ran.ok();
    assert!(jar.expect("resolved").starts_with(b"PK"));
    upstream.stop();
    let (ran, jar) = resolve(&Maven::new(&server, Some(&token.text)), &server, "1.0").await;
    ran.ok();
    assert!(jar.is_some());

    for wrong in [None, Some("pkh_000000000000000000000000000000000000")] {
        let (ran, jar) = resolve(&Maven::new(&server, wrong), &server, "1.0").await;
        let ran = ran.fails_with(&["401", "Unauthorized", "authentication"]);
        assert!(jar.is_none() && !ran.said("pkh_0000"), "{ran:?}");
    }
    server.finish().await;
}

#[tokio::test]
async fn maven_counts_the_builds_of_a_private_snapshot() {
    let upstream = upstream();
    let (server, token) = hosting(Setup::default().upstream_of("maven", "fake", &upstream.url(), "")).await;
    for _ in 0..2 {
        let project = library(&server, "2.0-SNAPSHOT", "");
        // Each on a machine of its own: the number of the last build is the server's to know.
        Maven::new(&server, Some(&token.text)).run(project.path(), &["deploy"]).await.ok();
    }
    let ann = server.caller_with(&token);
    let metadata = ann.get("/maven/acme/web/com/acme/tool/2.0-SNAPSHOT/maven-metadata.xml").send().await.expect(200).text();
    assert!(metadata.contains("<buildNumber>2</buildNumber>"), "{metadata}");
    let (ran, jar) = resolve(&Maven::new(&server, Some(&token.text)), &server, "2.0-SNAPSHOT").await;
    ran.ok();
    assert!(jar.is_some());
    server.finish().await;
}

/// Runs Gradle with a build file.
async fn gradle(server: &Server, token: &Token, folder: &Path, build: &str, task: &str) -> Ran {
    let home = TempDir::with_prefix("packhouse-gradle-").expect("a folder");
    let build = build.replace("TREE", &format!("{}/maven/acme/web", server.origin())).replace("TOKEN", &token.text);
    std::fs::write(folder.join("build.gradle"), build).expect("a build");
    std::fs::write(folder.join("settings.gradle"), "rootProject.name = 'tool'\n").expect("settings");
    run(Path::new("/usr/bin/gradle"), &["--no-daemon", "--stacktrace", task], folder, &environment(home.path())).await
}

#[tokio::test]
async fn gradle_publishes_and_resolves() {
    let (server, token) = hosting(Setup::default()).await;
    let project = TempDir::with_prefix("packhouse-project-").expect("a folder");
    let sources = project.path().join("src/main/java");
    std::fs::create_dir_all(&sources).expect("a folder");
    std::fs::write(sources.join("Tool.java"), "class Tool {}").expect("a class");
    let repository = "maven { name = 'acme'; url = 'TREE'; credentials { username = 'ann'; password = 'TOKEN' } }";
    for version in ["1.0", "1.1-SNAPSHOT"] {
        let build = format!(
            "apply plugin: 'java'\napply plugin: 'maven-publish'\ngroup = 'com.acme'\nversion = '{version}'\n\
             publishing {{ publications {{ lib(MavenPublication) {{ from components.java }} }}\n repositories {{ {repository} }} }}\n"
        );
        gradle(&server, &token, project.path(), &build, "publish").await.ok();
    }
    let ann = server.caller_with(&token);
    let versions = ann.get("/maven/acme/web/com/acme/tool/maven-metadata.xml").send().await.expect(200).text();
    assert!(versions.contains("<release>1.0</release>") && versions.contains("1.1-SNAPSHOT"), "{versions}");
    let user = TempDir::with_prefix("packhouse-project-").expect("a folder");
    let build = format!(
        "apply plugin: 'java'\nrepositories {{ {repository} }}\ndependencies {{ compile 'com.acme:tool:1.+' }}\n\
         task fetch(type: Copy) {{ from configurations.compile; into 'out' }}\n"
    );
    gradle(&server, &token, user.path(), &build, "fetch").await.ok();
    let fetched: Vec<_> = std::fs::read_dir(user.path().join("out")).expect("fetched").collect();
    assert_eq!(fetched.len(), 1, "{fetched:?}");
    server.finish().await;
}
