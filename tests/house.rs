//! The rules of the house that a machine can check, on the sources as text.
//!
//! Each rule is a function from sources to offenders, one line each, so that every
//! rule is itself tested here on sources that break it. `src/lib.rs` says the rules
//! in words.
#![expect(clippy::expect_used, reason = "a test that meets the unexpected should stop right there")]
#![expect(clippy::disallowed_methods, reason = "the environment says where the clients and cargo's index are")]

#[path = "house/rules.rs"]
mod rules;
#[path = "house/source.rs"]
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

use rules::*;
use source::Source;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file that git knows or would add, with its path below the root.
fn files() -> Vec<(String, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let paths = String::from_utf8(listed.stdout).expect("paths are text");
    let read = |path: &str| Some((path.to_owned(), std::fs::read_to_string(root().join(path)).ok()?));
    paths.split('\0').filter(|path| !path.is_empty()).filter_map(read).collect()
}

fn sources() -> Vec<Source> {
    let rust = |path: &str| Path::new(path).extension().is_some_and(|extension| extension == "rs");
    let found: Vec<Source> = files().iter().filter(|(path, _)| rust(path)).map(|(path, text)| Source::new(path, text)).collect();
    assert!(found.iter().any(|source| source.path == "src/lib.rs"), "no sources found");
    found
}

#[track_caller]
fn none(offenders: &[String]) {
    assert!(offenders.is_empty(), "{} offenders:\n{}\n", offenders.len(), offenders.join("\n"));
}

#[test]
fn rule_1_imports_point_down() {
    none(&imports_point_down(&sources()));
}

#[test]
fn rule_2_formats_do_no_io() {
    none(&formats_do_no_io(&sources()));
}

#[test]
fn rule_3_one_line_registers_an_ecosystem() {
    none(&one_line_registers(&sources()));
}

#[test]
fn rule_3_nothing_else_names_an_ecosystem() {
    none(&nobody_names_an_ecosystem(&sources()));
}

#[test]
fn every_module_says_what_it_is() {
    none(&modules_say_what_they_are(&sources()));
}

#[test]
fn every_name_says_something() {
    none(&names_say_something(&sources()));
}

#[test]
fn unsafe_code_stays_in_its_leaves() {
    none(&unsafe_stays_in_leaves(&sources()));
}

#[test]
fn no_code_is_unfinished_or_switched_off() {
    none(&nothing_is_unfinished(&sources()));
}

#[test]
fn public_registries_are_named_in_the_example_config_alone() {
    let hosts = public_hosts();
    assert!(!hosts.is_empty(), "no client told its registry; tests/run --install brings npm");
    none(&nothing_holds(&files(), &hosts, "config.toml.example", "a public registry"));
}

#[test]
fn no_path_of_the_build_machine_is_written_down() {
    none(&nothing_holds(&files(), &machine_paths(root()), "", "a path of the build machine"));
}

/// Hosts of the public registries, asked from the clients on this machine. They are never written down, here least of all.
fn public_hosts() -> Vec<String> {
    let clients = std::env::var_os("PACKHOUSE_CLIENTS_DIR").map_or_else(|| root().join("tests/.clients"), PathBuf::from);
    let ours = clients.join("bin/npm");
    let npm = if ours.exists() { ours } else { "npm".into() };
    let bare = std::env::temp_dir();
    let told = [
        // The built-in default, not what this machine's user has set.
        run(Command::new(npm).args(["config", "get", "registry"]).current_dir(&bare).env("HOME", &bare).env_remove("NPM_CONFIG_REGISTRY")),
        run(Command::new("python3").args(["-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"])),
        std::fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default(),
        cargo_indexes(),
    ];
    let mut hosts: Vec<String> = told.iter().flat_map(|text| hosts_in(text)).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

fn run(command: &mut Command) -> String {
    command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Cargo keeps one folder per sparse index, called by its host and a hash.
fn cargo_indexes() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let folders = home.and_then(|home| std::fs::read_dir(home.join("registry/index")).ok()).into_iter().flatten().flatten();
    let host = |name: &str| name.rsplit_once('-').map_or(String::new(), |(host, _)| format!("https://{host}/\n"));
    folders.map(|folder| host(&folder.file_name().to_string_lossy())).collect()
}

/// Hosts of the addresses in a text; loopback and bare names are nobody's registry.
fn hosts_in(text: &str) -> Vec<String> {
    let host = |rest: &str| rest.split(['/', ':', ' ', '\n', '"']).next().unwrap_or("").to_owned();
    let found = text.split("://").skip(1).map(host);
    found.filter(|host| host.contains('.') && host.contains(|character: char| character.is_ascii_alphabetic())).collect()
}

/// The folder of this checkout and, where it says more than a system folder would, the folder around it.
fn machine_paths(checkout: &Path) -> Vec<String> {
    let mut paths = vec![checkout.display().to_string()];
    let plain = ["/", "/tmp", "/home", "/root", "/src", "/opt"];
    if let Some(around) = checkout.parent().map(|path| path.display().to_string()).filter(|path| !plain.contains(&path.as_str())) {
        paths.push(format!("{around}/"));
    }
    paths
}

/// The rules on sources that break them: a rule that cannot fail is none.
mod the_rules_bite {
    use super::*;

    const MAP: (&str, &str) =
        ("src/lib.rs", "//! m\n\npub mod low;\npub mod side;\n\npub mod mid;\n\npub mod ecosystem;\n\npub mod top;\n");

    #[track_caller]
    fn check(rule: fn(&[Source]) -> Vec<String>, files: &[(&str, &str)], expected: &[&str]) {
        let sources: Vec<Source> = [MAP].iter().chain(files).map(|(path, text)| Source::new(path, text)).collect();
        let found = rule(&sources);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} should start with {expected}");
        }
    }

    #[test]
    fn floors_are_paragraphs() {
        let floors = floors(&[Source::new(MAP.0, MAP.1)]);
        let floor = |name: &str| floors.iter().find(|(module, _)| module == name).map(|(_, floor)| *floor);
        assert_eq!(floor("low"), floor("side"));
        assert!(floor("low") < floor("mid") && floor("mid") < floor("top"));
    }

    #[test]
    fn imports_up_and_sideways() {
        let bad = "//! m\nuse crate::low::A;\nuse crate::{\n    mid::B,\n    top::{C, D},\n};\nfn f() { crate::side::g(); }\n// crate::top\nconst S: &str = \"crate::top\";\n";
        check(imports_point_down, &[("src/mid/inner.rs", bad)], &["src/mid/inner.rs:5: `mid` imports `top`"]);
        check(
            imports_point_down,
            &[("src/low.rs", "use crate::low::X;\nuse crate::side::Y;\nuse crate::mid::Z;\nuse crate::gone::Z;\n")],
            &["src/low.rs:2: `low` imports `side` of its own", "src/low.rs:3: `low` imports `mid` from", "src/low.rs:4: `crate::gone`"],
        );
        check(imports_point_down, &[("src/strange.rs", "//! m\n")], &["src/strange.rs: the module `strange`"]);
    }

    #[test]
    fn imports_by_super() {
        let text = "use super::top::X;\n#[cfg(test)]\nmod tests {\n    use super::*;\n    use super::super::top::X;\n}\n";
        check(imports_point_down, &[("src/mid.rs", text)], &["src/mid.rs:1: `super`", "src/mid.rs:5: `super`"]);
        check(imports_point_down, &[("src/mid/inner.rs", "use super::X;\nuse super::super::top;\n")], &["src/mid/inner.rs:2: `super`"]);
    }

    #[test]
    fn formats() {
        let text = "use crate::error::E;\nuse crate::mid::M;\nasync fn f() {}\n#[cfg(test)]\nmod tests {\n    async fn g() {}\n}\n";
        let expected = ["src/ecosystem/pie/crust.rs:3: a format does no IO", "src/ecosystem/pie/crust.rs:2: a format imports `mid`"];
        check(formats_do_no_io, &[("src/ecosystem/pie/crust.rs", text), ("src/ecosystem/pie/publish.rs", text)], &expected);
    }

    #[test]
    fn ecosystem_names() {
        let pie = ("src/ecosystem/pie/mod.rs", "//! m\n");
        let all = ("src/ecosystem/mod.rs", "pub static ALL: &[&dyn Ecosystem] = &[&pie::Pie];\n");
        check(one_line_registers, &[pie, all], &[]);
        check(one_line_registers, &[pie, ("src/ecosystem/mod.rs", "")], &["src/ecosystem/mod.rs: `ALL` names `pie` 0 times"]);
        let text = "use crate::ecosystem::pie;\nlet a = \"pie\";\nlet b = \"/pie/x\";\nlet c = \"magpie\"; // pie::\n#[cfg(test)]\nmod tests { const P: &str = \"pie\"; }\n";
        check(
            nobody_names_an_ecosystem,
            &[pie, ("src/top.rs", text)],
            &["src/top.rs:1: the path", "src/top.rs:2: a string", "src/top.rs:3: a"],
        );
    }

    #[test]
    fn texts_and_names() {
        check(modules_say_what_they_are, &[("src/top.rs", "// no\n")], &["src/top.rs: does not open"]);
        let text = "mod helpers;\nstruct CacheManager;\nstruct Information;\nenum PackageInfo {}\n";
        let expected = ["src/utils.rs: nothing", "src/utils.rs:1: nothing", "src/utils.rs:2: nothing", "src/utils.rs:4: nothing"];
        check(names_say_something, &[("src/utils.rs", text)], &expected);
    }

    #[test]
    fn unsafe_and_unfinished() {
        let text =
            "// unsafe\nfn f() { unsafe { g() } }\nfn g() { todo!() }\n#[ignore]\nfn h() { let s = r#\"dbg!\"#; let c = '\"'; dbg!(s) }\n";
        check(unsafe_stays_in_leaves, &[("src/top.rs", text)], &["src/top.rs:2"]);
        check(
            nothing_is_unfinished,
            &[("src/top.rs", text)],
            &["src/top.rs:3: `todo!`", "src/top.rs:4: `#[ignore`", "src/top.rs:5: `dbg!`"],
        );
    }

    #[test]
    fn hosts_and_paths() {
        assert_eq!(
            hosts_in("URIs: http://deb.example/debian\nx http://127.0.0.1:1/ https://a.b.example:8/c"),
            ["deb.example", "a.b.example"]
        );
        let files = [("a.md".to_owned(), "one\nsee deb.example/x\n".to_owned()), ("but".to_owned(), "deb.example".to_owned())];
        assert_eq!(nothing_holds(&files, &["deb.example".into()], "but", "host"), ["a.md:2: host: deb.example"]);
        assert_eq!(machine_paths(Path::new("/srv/builds/packhouse")), ["/srv/builds/packhouse", "/srv/builds/"]);
        assert_eq!(machine_paths(Path::new("/tmp/packhouse")), ["/tmp/packhouse"]);
    }

    #[test]
    fn sources_are_taken_apart() {
        let source = Source::new(
            "src/x.rs",
            "let a = b\"x\\\"y\"; /* \"no\" /* in */ */ let l: &'static str = r##\"q\"#\"##; let c = '\\'';\n\"é\"",
        );
        let strings: Vec<&str> = source.strings.iter().map(|(_, string)| string.as_str()).collect();
        assert_eq!(strings, ["x\\\"y", "q\"#", "é"]);
        assert_eq!(source.code.len(), source.text.len());
        assert!(source.code.contains("let l: &'static str") && !source.code.contains("in"));
    }
}
