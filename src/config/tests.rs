//! What the example promises, and how wrong files are reported.

use std::collections::BTreeSet;

use super::*;

fn problems(text: &str) -> String {
    Config::parse(text, "packhouse.toml").unwrap_err().message().to_owned()
}

#[test]
fn the_example_says_what_the_code_defaults_to() {
    let example = Config::parse(EXAMPLE, "config.toml.example").unwrap();
    let Config { ecosystem, .. } = &example;
    assert_eq!(Config { ecosystem: BTreeMap::new(), ..example.clone() }, Config::default());
    for ecosystem in ecosystem.values() {
        assert_eq!(Ecosystem { upstream: None, ..ecosystem.clone() }, Ecosystem::default());
        assert!(ecosystem.upstream.is_some(), "it says where names come from, if only that they come from nowhere");
    }
}

#[test]
fn a_file_without_upstreams_gets_those_of_the_example() {
    let example = Config::parse(EXAMPLE, "config.toml.example").unwrap();
    for text in ["", "data_dir = \"packhouse-data\"", "[ecosystem.npm]\nenabled = true"] {
        assert_eq!(Config::parse(text, "x").unwrap(), example, "{text}");
    }
    let none = Config::parse("[ecosystem.npm]\nupstream = []", "x").unwrap();
    assert!(none.ecosystem["npm"].upstreams().is_empty());
    let own = "[[ecosystem.npm.upstream]]\nname = \"own\"\nurl = \"http://127.0.0.1:1/npm/\"";
    let own = Config::parse(own, "x").unwrap();
    assert_eq!(own.ecosystem["npm"].upstreams().len(), 1);
    assert_eq!(own.ecosystem["npm"].upstreams()[0].name, "own");
}

/// serde lists the keys of a section when it meets one that is none; each must be in the example.
#[test]
fn the_example_explains_every_key() {
    let sections = [
        "",
        "server",
        "server.tls",
        "log",
        "blob",
        "store",
        "identity",
        "access",
        "upstream",
        "registry",
        "usage",
        "audit",
        "webhook",
        "ecosystem.npm",
    ];
    let mut checked = 0;
    for section in sections {
        let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        let report = problems(&format!("{header}bogus = 1"));
        let keys = report.split_once("expected one of ").or_else(|| report.split_once("expected ")).unwrap().1.replace(" or ", ", ");
        for key in keys.split(", ") {
            assert!(explained(section, key.trim()), "{section} {key}: {keys}");
            checked += 1;
        }
    }
    let report = problems("[[ecosystem.npm.upstream]]\nname = \"a\"\nurl = \"http://a\"\nbogus = 1");
    for key in report.split_once("expected one of ").unwrap().1.split(", ") {
        // Some keys mean something in one ecosystem alone.
        let sections = ["ecosystem.npm.upstream", "ecosystem.container.upstream"];
        assert!(sections.iter().any(|section| explained(section, key)), "{key}");
        checked += 1;
    }
    assert!(checked > 80, "{checked}");
}

/// Whether the example sets the key in its section, comes to it as a section, or shows it commented out.
fn explained(section: &str, key: &str) -> bool {
    let mut current = "";
    EXAMPLE.lines().any(|line| {
        if let Some(header) = line.strip_prefix('[') {
            current = header.trim_matches(['[', ']']);
            let below =
                if section.is_empty() { current } else { current.strip_prefix(section).map_or("", |rest| rest.trim_start_matches('.')) };
            return below.split('.').next() == Some(key);
        }
        current == section && line.trim_start_matches("# ").strip_prefix(key).is_some_and(|rest| rest.starts_with(" ="))
    })
}

#[test]
fn what_the_example_shows_commented_out_is_understood() {
    let shown = EXAMPLE.lines().filter(|line| line.starts_with("# ") && line.contains(" = ")).count();
    let text: Vec<_> = EXAMPLE
        .lines()
        .map(|line| {
            line.strip_prefix("# ").filter(|rest| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))).unwrap_or(line)
        })
        .collect();
    let report = problems(&text.join("\n"));
    // Only the files do not exist, and a token excludes a password.
    let wrong: BTreeSet<_> = report.lines().filter(|line| !line.contains("No such file") && !line.contains("either a token")).collect();
    assert_eq!(wrong, BTreeSet::new());
    assert!(shown >= 10);
}

#[test]
fn an_unknown_key_is_placed_and_the_known_ones_are_named() {
    insta::assert_snapshot!(
        problems("# a comment\n[log]\nlevl = \"info\"\n"),
        @r#"packhouse.toml:3:1: unknown key "levl" in [log], expected one of format, level, buffer_limit_bytes"#
    );
    insta::assert_snapshot!(
        problems("[ecosystem.npm]\nenable = true"),
        @r#"packhouse.toml:2:1: unknown key "enable" in [ecosystem.npm], expected enabled or upstream"#
    );
}

#[test]
fn all_problems_are_reported_at_once_in_order() {
    let text = r#"
public_url = "https://packages.example/npm"
data_dir = 7

[server]
lisen = ["127.0.0.1:8080"]
listen = ["127.0.0.1:8080", "nowhere"]
body_seconds = -1
max_connections = 0
hosts = "https://packages.example"

[access]
default_visibility = "secret"

[identity]
cache_seconds = 3600

[ecosystem.nmp]
enabled = true

[ecosystem.npm]
[[ecosystem.npm.upstream]]
name = "Big"
url = "ftp://example"
[[ecosystem.npm.upstream]]
name = "a"
url = "https://me:secret@example"
include = ["{"]
"#;
    let mut names: Vec<&str> = crate::ecosystem::ALL.iter().map(|ecosystem| ecosystem.info().name).collect();
    names.sort_unstable();
    insta::assert_snapshot!(problems(text).replace(&names.join(", "), "ECOSYSTEMS"), @r#"
    packhouse.toml:2:1: public_url: expected an address without a path, such as https://packages.example
    packhouse.toml:3:12: data_dir: invalid type: integer "7", expected a path
    packhouse.toml:6:1: unknown key "lisen" in [server], expected one of listen, tls, hosts, trusted_proxies, max_connections, header_limit_bytes, max_headers, max_streams, header_seconds, body_seconds, write_seconds, drain_seconds, wrong_tokens_per_minute
    packhouse.toml:7:29: server.listen: expected an address and a port, such as 127.0.0.1:8080 or [::1]:8080
    packhouse.toml:8:16: server.body_seconds: invalid value: integer "-1", expected a whole number, zero or more
    packhouse.toml:9:1: server.max_connections: expected a number above zero
    packhouse.toml:10:1: server.hosts: expected a host name, such as packages.example
    packhouse.toml:13:22: access.default_visibility: unknown value "secret", expected one of "private", "internal", "public"
    packhouse.toml:16:1: identity.cache_seconds: expected at most 60: a revoked token may live on that long
    packhouse.toml:18:12: ecosystem.nmp: there is no such ecosystem, expected ECOSYSTEMS
    packhouse.toml:23:1: ecosystem.npm.upstream.0.name: expected 1 to 64 of lower-case letters, digits, '-', '_' and '.'
    packhouse.toml:24:1: ecosystem.npm.upstream.0.url: expected an address that begins with https:// or http://
    packhouse.toml:27:1: ecosystem.npm.upstream.1.url: an address holds no credentials; use username and password_file, or token_file
    packhouse.toml:28:1: ecosystem.npm.upstream.1.include: "{" is no pattern, expected something like @acme/*
    "#);
}

#[test]
fn a_missing_key_and_a_wrong_shape_are_placed() {
    insta::assert_snapshot!(problems("[[ecosystem.npm.upstream]]\nname = \"a\""), @r#"packhouse.toml:1:1: ecosystem.npm.upstream: missing key "url""#);
    insta::assert_snapshot!(problems("server = 3\nlog = 4"), @r#"
    packhouse.toml:1:10: server: invalid type: integer "3", expected a table
    packhouse.toml:2:7: log: invalid type: integer "4", expected a table
    "#);
    insta::assert_snapshot!(problems("[server.tls]\nlisten = [\"127.0.0.1:8443\"]\ncert_file = \"/nowhere/cert.pem\""), @"
    packhouse.toml:1:9: server.tls.key_file: TLS addresses need a certificate and its key
    packhouse.toml:3:1: server.tls.cert_file: /nowhere/cert.pem: No such file or directory (os error 2)
    ");
}

#[test]
fn grammar_errors_are_placed() {
    insta::assert_snapshot!(problems("data_dir = \"a\"\n[server\nlisten = [\"127.0.0.1:1\"\n"), @"
    packhouse.toml:2:8: unclosed table, expected `]`
    packhouse.toml:3:24: unclosed array, expected `]`
    ");
    assert!(problems("\u{0}").starts_with("packhouse.toml:1:1: "));
}

#[test]
fn blank_secrets_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let text = |file: &Path| {
        format!("[[ecosystem.npm.upstream]]\nname = \"a\"\nurl = \"http://a\"\ntoken_file = {:?}", file.display().to_string())
    };
    for blank in ["", "\n", " \t \n"] {
        std::fs::write(&file, blank).unwrap();
        assert!(problems(&text(&file)).ends_with("the secret is blank"), "{blank:?}");
    }
    std::fs::write(&file, "two\nlines").unwrap();
    assert!(problems(&text(&file)).contains("one line"));
    std::fs::write(&file, "x".repeat(9000)).unwrap();
    assert!(problems(&text(&file)).contains("at most 8192 bytes"));
    std::fs::write(&file, " s3cret\n").unwrap();
    assert!(Config::parse(&text(&file), "x").is_ok());
    assert_eq!(read_secret(&file).unwrap(), "s3cret");
    assert!(problems(&text(&folder.path().join("absent"))).contains("No such file"));
}

#[test]
fn credentials_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "s").unwrap();
    let file = format!("{:?}", file.display().to_string());
    let base = "[[ecosystem.npm.upstream]]\nname = \"a\"\nurl = \"http://a\"\n";
    assert!(Config::parse(&format!("{base}username = \"u\"\npassword_file = {file}"), "x").is_ok());
    for (lines, expected) in [
        ("username = \"u\"".to_owned(), "needs a password_file"),
        (format!("password_file = {file}"), "needs a username"),
        (format!("username = \"u\"\npassword_file = {file}\ntoken_file = {file}"), "either a token"),
        (format!("username = \" \"\npassword_file = {file}"), "without ':'"),
    ] {
        assert!(problems(&format!("{base}{lines}")).contains(expected), "{lines}");
    }
}

#[test]
fn no_text_makes_it_panic() {
    use proptest::prelude::*;
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    let words = prop::sample::select(vec![
        "[server]\n",
        "[ecosystem.npm]\n",
        "[[ecosystem.npm.upstream]]\n",
        "listen",
        " = ",
        "[",
        "]",
        "\"",
        "é",
        "\n",
        "{",
        "}",
        "3",
        "url",
        ".",
        ",",
        "[log]\n",
        "level",
        "\"a\"",
        "\n[",
        "upstream",
        "ecosystem",
        "npm",
        "#",
        "\r",
        "\0",
        "true",
        "= []\n",
        "={x=1}\n",
    ]);
    runner
        .run(&prop::collection::vec(words, 0..40), |parts| {
            let _ = Config::parse(&parts.concat(), "x");
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_named_file_must_be_there() {
    let error = Config::load(Some(Path::new("/nowhere/packhouse.toml"))).unwrap_err();
    assert!(error.message().starts_with("cannot read /nowhere/packhouse.toml"));
}
