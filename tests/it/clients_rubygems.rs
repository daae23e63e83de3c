//! `gem` and Bundler against the server: build, push, install, yank, and all of it again with the upstream gone.

use std::path::Path;

use tempfile::TempDir;

use crate::harness::{Ran, Server, Setup, Token, clients, run};

/// Which tools: those of the distribution, or newer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Usual,
    Newer,
}

/// A Ruby with a home, gems and settings of its own.
struct Ruby {
    age: Age,
    home: TempDir,
    token: Option<String>,
}

impl Ruby {
    fn new(age: Age, token: Option<&Token>) -> Self {
        let home = TempDir::with_prefix("packhouse-ruby-").expect("a folder");
        Self { age, home, token: token.map(|token| token.text.clone()) }
    }

    async fn run(&self, program: &str, folder: &Path, arguments: &[&str]) -> Ran {
        let home = |name: &str| self.home.path().join(name).display().to_string();
        let mut environment = vec![
            ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", home("gems/bin"))),
            ("HOME", home("")),
            ("GEM_HOME", home("gems")),
            ("GEM_PATH", format!("{}:/usr/share/rubygems-integration/all", home("gems"))),
            ("GEM_SPEC_CACHE", home("specs")),
            ("BUNDLE_USER_HOME", home("bundle")),
            ("LANG", "C.UTF-8".into()),
        ];
        if let Some(token) = &self.token {
            environment.push(("GEM_HOST_API_KEY", token.clone()));
            environment.push(("BUNDLE_127__0__0__1", format!("token:{token}")));
        }
        let program = match self.age {
            Age::Newer if program != "ruby" => clients().join("bin").join(format!("{program}-newer")),
            _ => Path::new("/usr/bin").join(program),
        };
        run(&program, arguments, folder, &environment).await
    }

    /// What a gem that is installed here says.
    async fn says(&self, name: &str) -> Ran {
        self.run("ruby", self.home.path(), &["-e", &format!("require '{name}'; puts {}::SAYS", capital(name))]).await
    }
}

fn capital(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
}

/// Builds a gem with the real tool, and gives its file.
async fn build(ruby: &Ruby, name: &str, version: &str, more: &str) -> (TempDir, String) {
    let folder = TempDir::with_prefix("packhouse-gem-").expect("a folder");
    std::fs::create_dir(folder.path().join("lib")).expect("a folder");
    std::fs::write(
        folder.path().join(format!("lib/{name}.rb")),
        format!("module {}\n  SAYS = 'this is {name} {version}'\nend\n", capital(name)),
    )
    .expect("a file");
    let spec = format!(
        "Gem::Specification.new do |s|\n  s.name = '{name}'\n  s.version = '{version}'\n  s.summary = 'The {name}'\n  s.authors = ['Ann']\n\
         s.license = 'MIT'\n  s.homepage = 'https://acme.example'\n  s.files = ['lib/{name}.rb']\n  s.required_ruby_version = '>= 2.5'\n  {more}\nend\n"
    );
    std::fs::write(folder.path().join(format!("{name}.gemspec")), spec).expect("a specification");
    ruby.run("gem", folder.path(), &["build", &format!("{name}.gemspec")]).await.ok();
    let files = std::fs::read_dir(folder.path()).expect("a folder");
    let names = files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned());
    let file = names.into_iter().find(|file| file.strip_suffix(".gem").is_some()).expect("a gem");
    (folder, file)
}

async fn push(ruby: &Ruby, server: &Server, owner: &str, (folder, file): &(TempDir, String)) -> Ran {
    ruby.run("gem", folder.path(), &["push", file, "--host", &format!("{}/rubygems/{owner}", server.origin())]).await
}

/// A project with a Gemfile.
fn project(source: &str, gems: &str) -> TempDir {
    let folder = TempDir::with_prefix("packhouse-project-").expect("a folder");
    std::fs::write(folder.path().join("Gemfile"), format!("source '{source}'\n{gems}\n")).expect("a Gemfile");
    folder
}

#[tokio::test]
async fn gem_pushes_installs_lists_and_yanks() {
    pushes_installs_lists_and_yanks(Age::Usual).await;
}

#[tokio::test]
async fn a_newer_gem_pushes_installs_lists_and_yanks() {
    pushes_installs_lists_and_yanks(Age::Newer).await;
}

#[tokio::test]
async fn bundler_installs_locks_and_installs_again_without_the_upstream() {
    installs_locks_and_installs_again(Age::Usual).await;
}

#[tokio::test]
async fn a_newer_bundler_locks_checksums_and_installs_again_without_the_upstream() {
    installs_locks_and_installs_again(Age::Newer).await;
}

async fn pushes_installs_lists_and_yanks(age: Age) {
    let server = Setup::default().start().await;
    let token = server.publisher("ann").await;
    let ann = Ruby::new(age, Some(&token));
    let first = build(&ann, "hello", "1.0", "").await;
    assert!(push(&ann, &server, "ann", &first).await.ok().said("Successfully registered gem: hello (1.0)"));
    push(&ann, &server, "ann", &build(&ann, "hello", "1.1", "").await).await.ok();
    push(&ann, &server, "ann", &build(&ann, "hello", "2.0.pre", "").await).await.ok();
    push(&ann, &server, "ann", &build(&ann, "greeter", "0.1", "s.add_runtime_dependency 'hello', '~> 1.0'").await).await.ok();
    // Other bytes of a version are refused with the reason.
    let other = build(&ann, "hello", "1.0", "s.description = 'another'").await;
    push(&ann, &server, "ann", &other).await.fails_with(&["Repushing of gem versions is not allowed"]);

    let source = format!("http://token:{}@127.0.0.1:{}/rubygems/", token.text, server.port());
    let elsewhere = TempDir::new().expect("a folder");
    let user = Ruby::new(age, None);
    user.run("gem", elsewhere.path(), &["install", "greeter", "--clear-sources", "--source", &source, "--no-document"]).await.ok();
    assert!(user.says("hello").await.ok().said("this is hello 1.1"), "the newest release");
    let listed = user.run("gem", elsewhere.path(), &["list", "-r", "--all", "--clear-sources", "--source", &source, "hello"]).await.ok();
    assert!(listed.said("1.1, 1.0"), "{listed:?}");
    let listed = user.run("gem", elsewhere.path(), &["search", "--pre", "--clear-sources", "--source", &source, "hello"]).await.ok();
    assert!(listed.said("2.0.pre"), "{listed:?}");
    // By the older lists, which FIPS machines and old clients read.
    user.run("gem", elsewhere.path(), &["fetch", "hello", "-v", "1.0", "--clear-sources", "--source", &source]).await.ok();
    assert_eq!(
        std::fs::read(elsewhere.path().join("hello-1.0.gem")).expect("fetched"),
        std::fs::read(first.0.path().join(&first.1)).expect("built")
    );
    let owners = ann.run("gem", elsewhere.path(), &["owner", "hello", "--host", &format!("{}/rubygems", server.origin())]).await.ok();
    assert!(owners.said("ann"), "{owners:?}");

    ann.run("gem", elsewhere.path(), &["yank", "hello", "-v", "1.1", "--host", &format!("{}/rubygems", server.origin())]).await.ok();
    let later = Ruby::new(age, None);
    later.run("gem", elsewhere.path(), &["install", "greeter", "--clear-sources", "--source", &source, "--no-document"]).await.ok();
    assert!(later.says("hello").await.ok().said("this is hello 1.0"));
    // Whoever has no token finds nothing.
    let plain = format!("{}/rubygems/", server.origin());
    let (stranger, nowhere) = (Ruby::new(age, None), TempDir::new().expect("a folder"));
    stranger.run("gem", nowhere.path(), &["install", "hello", "--clear-sources", "--source", &plain]).await.fails_with(&["Could not find"]);
    push(&stranger, &server, "ann", &first).await.fails_with(&[]);
    server.finish().await;
}

async fn installs_locks_and_installs_again(age: Age) {
    let above = Setup::default().more("[access]\ndefault_visibility = \"public\"").start().await;
    let maker = above.publisher("maker").await;
    let maker = Ruby::new(age, Some(&maker));
    push(&maker, &above, "maker", &build(&maker, "base", "1.2", "").await).await.ok();
    let setup = Setup::default().upstream_of("rubygems", "above", &format!("{}/rubygems/", above.origin()), "");
    let server = setup.start().await;
    let token = server.publisher("ann").await;
    let ann = Ruby::new(age, Some(&token));
    push(&ann, &server, "ann", &build(&ann, "app", "0.5", "s.add_runtime_dependency 'base', '>= 1'").await).await.ok();

    let source = format!("{}/rubygems/", server.origin());
    let project = project(&source, "gem 'app', '~> 0.1'");
    let user = Ruby::new(age, Some(&token));
    user.run("bundle", project.path(), &["install"]).await.ok();
    if age == Age::Newer {
        user.run("bundle", project.path(), &["lock", "--add-checksums"]).await.ok();
    }
    let lock = std::fs::read_to_string(project.path().join("Gemfile.lock")).expect("a lock file");
    assert_eq!(lock.matches(" sha256=").count(), if age == Age::Newer { 2 } else { 0 }, "{lock}");
    assert!(lock.contains("app (0.5)") && lock.contains("base (1.2)") && lock.contains(&source), "{lock}");
    assert!(!lock.contains(&above.origin()), "{lock}");
    let says = user.run("bundle", project.path(), &["exec", "ruby", "-e", "require 'base'; puts Base::SAYS"]).await.ok();
    assert!(says.said("this is base 1.2"));

    above.finish().await;
    let again = Ruby::new(age, Some(&token));
    again.run("bundle", project.path(), &["install"]).await.ok();
    assert_eq!(std::fs::read_to_string(project.path().join("Gemfile.lock")).expect("a lock file"), lock);
    let stranger = Ruby::new(age, None);
    stranger.run("bundle", project.path(), &["install"]).await.fails_with(&["can no\nlonger be found", "could not find", "Could not find"]);
    let wrong = Ruby { token: Some("pkh_000000000000000000000000000000000000".into()), ..Ruby::new(age, None) };
    let ran = wrong.run("bundle", project.path(), &["install"]).await.fails_with(&[
        "Bad username or password",
        "authentication",
        "Authentication",
    ]);
    assert!(!ran.said("pkh_000000000"), "{ran:?}");
    server.finish().await;
}
