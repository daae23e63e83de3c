//! What an operator sees: the config checked, the start, the stop, the reload, and the pages under `/-/`.

use std::process::{Command, Output};

use crate::harness::{Fault, Package, Server, Setup, Upstream, exchange, until};
use crate::npm_wire::{at, hosting, publish};

fn packhouse(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_packhouse")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn a_wrong_config_is_explained() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("site.toml");
    let name = path.to_str().unwrap();
    std::fs::write(folder.path().join("blank"), "\n").unwrap();
    let blank = folder.path().join("blank").display().to_string();
    let upstream = "[[ecosystem.npm.upstream]]\nname = \"a\"\n";
    let wrong = [
        ("listten = []\n".to_owned(), "listten"),
        ("[server]\nlisten = 7\n".into(), "listen"),
        ("[server]\nlisten = [\"nowhere\"]\n".into(), "listen"),
        ("\n= x\n".into(), ":2:"),
        ("public_url = \"ftp://x\"\n".into(), "public_url"),
        (format!("{upstream}url = \"nonsense\"\n"), "url"),
        (format!("{upstream}url = \"http://127.0.0.1:1\"\ntoken_file = \"none-there\"\n"), "none-there"),
        (format!("{upstream}url = \"http://127.0.0.1:1\"\ntoken_file = \"{blank}\"\n"), "token_file"),
        ("[ecosystem.nonesuch]\n".into(), "nonesuch"),
        ("[upstream]\nretries = -1\n".into(), "retries"),
    ];
    for (text, word) in wrong {
        std::fs::write(&path, &text).unwrap();
        let output = packhouse(&["check-config", "--config", name]);
        let said = said(&output);
        assert!(!output.status.success() && said.contains(word) && said.contains("site.toml"), "{text}: {said}");
    }
    let missing = packhouse(&["serve", "--config", folder.path().join("none.toml").to_str().unwrap()]);
    assert!(!missing.status.success() && said(&missing).contains("none.toml"), "{}", said(&missing));
}

#[test]
fn the_example_config_is_right() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml.example");
    let output = packhouse(&["check-config", "--config", example]);
    assert!(output.status.success(), "{}", said(&output));
    let clients = packhouse(&["clients", "--config", example]);
    assert!(clients.status.success() && said(&clients).contains("registry="), "{}", said(&clients));
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let (server, token) = hosting().await;
    let caller = server.caller();
    assert_eq!(caller.get("/-/health").send().await.status, 200);
    assert_eq!(caller.get("/-/ready").send().await.status, 200);
    publish(&server.caller_with(&token), &Package::new("@alice/secret-name", "1.0.0")).await;
    let metrics = caller.get("/-/metrics").send().await;
    assert!(metrics.status == 200 && metrics.header("content-type").starts_with("text/plain"), "{}", metrics.header("content-type"));
    assert!(metrics.text().contains("# TYPE ") && !metrics.text().contains("secret-name"), "AZ03: a private name in the metrics");
    assert_eq!(caller.get("/-/nonesuch").send().await.status, 404);
    assert_eq!(caller.ask("POST", "/-/health").send().await.status / 100, 4);
    server.finish().await;
}

#[tokio::test]
async fn st11_a_second_process_is_refused() {
    let (server, _) = hosting().await;
    let (status, out, err) = server.try_cli(&["serve"]).await;
    assert!(!status.success(), "{out}{err}");
    assert!(format!("{out}{err}").to_lowercase().contains("lock") || err.contains("another"), "{out}{err}");
    assert_eq!(server.caller().get("/-/ready").send().await.status, 200, "the first goes on");
    server.finish().await;
}

#[tokio::test]
async fn the_first_token_belongs_to_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (server, _) = hosting().await;
    let mode = std::fs::metadata(server.data().join("admin-token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let admin = server.admin();
    assert!(admin.text.starts_with("pkh_") && admin.text.len() == 40, "pkh_ and 36 characters");
    let whoami = server.caller_with(&admin).get("/npm/-/whoami").send().await.expect(200);
    assert_eq!(whoami.json()["username"], "admin");
    server.finish().await;
}

#[tokio::test]
async fn kp11_a_stop_lets_running_answers_end() {
    let package = Package::with("big", "1.0.0", serde_json::json!({}), 3 << 20);
    let upstream = Upstream::with(std::slice::from_ref(&package));
    let mut server = Setup::default().upstream(&upstream).start().await;
    server.caller().packument("big").await;
    upstream.fault(&package.path(), Fault::HoldAfter(1 << 20), 1);
    let download = tokio::spawn(server.caller().get(&format!("/npm{}", package.path())).send());
    upstream.held(1).await;
    let port = server.port();
    let stopping = tokio::spawn(async move { (server.stop().await, server) });
    until("the server to take no more connections", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err()).await;
    upstream.release();
    let answer = download.await.unwrap();
    assert!(answer.status == 200 && !answer.cut && answer.body == package.tarball, "the running download ends whole");
    let (status, mut server) = stopping.await.unwrap();
    assert!(status.success());
    server.start_again().await;
    server.finish().await;
}

/// Rewrites the config file and asks for a reload.
fn reload(server: &Server, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(server.config_path()).unwrap();
    std::fs::write(server.config_path(), change(text)).unwrap();
    server.reload();
}

#[tokio::test]
async fn a_reload_takes_the_new_upstream_and_a_bad_one_changes_nothing() {
    let old = Upstream::with(&[Package::new("dep", "1.0.0")]);
    let new = Upstream::with(&[Package::new("other", "2.0.0")]);
    let server = Setup::default().upstream(&old).start().await;
    server.caller().packument("dep").await;
    let lines = server.log().lines().count();
    reload(&server, |text| text + "\nnonsense = [\n");
    until("a line about the bad config", || server.log().lines().skip(lines).any(|line| line.contains("config"))).await;
    assert_eq!(server.caller().get(&at("dep")).send().await.status, 200);
    reload(&server, |text| text.replace("\nnonsense = [\n", "").replace(&old.url(), &new.url()));
    let caller = server.caller();
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while caller.get(&at("other")).send().await.status != 200 {
        assert!(tokio::time::Instant::now() < end, "the reload is not taken:\n{}", server.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    server.finish().await;
}

#[tokio::test]
async fn rc13_a_reload_hurts_no_request_in_flight() {
    let package = Package::with("dep", "1.0.0", serde_json::json!({}), 2 << 20);
    let old = Upstream::with(std::slice::from_ref(&package));
    let new = Upstream::with(&[Package::new("dep", "2.0.0")]);
    let server = Setup::default().upstream(&old).start().await;
    let caller = server.caller();
    caller.packument("dep").await;
    old.fault(&package.path(), Fault::HoldAfter(1 << 20), 1);
    let download = tokio::spawn(caller.get(&format!("/npm{}", package.path())).send());
    old.held(1).await;
    // Somebody asks all the while, and sees the one configuration or the other.
    let load = tokio::spawn({
        let caller = server.caller();
        async move {
            for _ in 0..400 {
                let listed = caller.packument("dep").await["versions"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
                assert!(listed == ["1.0.0"] || listed == ["2.0.0"], "half a configuration: {listed:?}");
            }
        }
    });
    for round in 0..6 {
        let (from, to) = if round % 2 == 0 { (&old, &new) } else { (&new, &old) };
        let taken = |log: &str| log.matches("configuration reloaded").count();
        let before = taken(&server.log());
        reload(&server, |text| text.replace(&from.url(), &to.url()));
        until("the reload", || taken(&server.log()) > before).await;
    }
    load.await.unwrap();
    old.release();
    let answer = download.await.unwrap();
    assert!(answer.status == 200 && !answer.cut && answer.body == package.tarball, "the running download ends whole");
    server.finish().await;
}

#[tokio::test]
async fn one_line_of_log_per_request_says_what_happened() {
    let upstream = Upstream::with(&[Package::new("dep", "1.0.0")]);
    let server = Setup::default().upstream(&upstream).start().await;
    exchange(server.port(), b"GET /npm/dep?token=canary-in-the-address HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    server.secret("canary-in-the-address");
    until("the request's line", || server.log().lines().any(|line| line.contains("dep") && line.contains("miss"))).await;
    server.finish().await;
}
