//! The audit log from outside: whose address it has, what it is written as, what outlives a crash.

use serde_json::{Value, json};

use crate::harness::{Caller, Server, Setup, Token, until};
use crate::rest::{ask, check, publish};

const SCOPES: [&str; 7] = ["read:packages", "write:packages", "delete:packages", "repo", "user", "admin:org", "read:audit_log"];

async fn hosting(setup: Setup) -> (Server, Token) {
    let server = setup.start().await;
    server.user("ann").await;
    server.cli(&["org", "add", "acme", "--owner", "ann"]).await;
    let token = server.token("ann", &SCOPES).await;
    (server, token)
}

/// Makes a repository through a proxy that says who asked it, and gives the address in the log.
async fn address_after(caller: &Caller, name: &str, forwarded: &[&str]) -> Value {
    let mut request = caller.ask("POST", "/api/v3/orgs/acme/repos").header("user-agent", "t").json(&json!({ "name": name }));
    for value in forwarded {
        request = request.header("x-forwarded-for", value);
    }
    let answer = request.send().await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let log = check(caller, "GET /orgs/acme/audit-log?phrase=action:repo.create&per_page=1", 200).await;
    assert_eq!(log[0]["repo"], format!("acme/{name}"));
    log[0]["actor_ip"].clone()
}

#[tokio::test]
async fn the_address_is_the_clients_as_far_as_proxies_are_trusted() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    assert_eq!(address_after(&ann, "plain", &[]).await, "127.0.0.1");
    assert_eq!(address_after(&ann, "lied", &["203.0.113.9"]).await, "127.0.0.1");
    server.finish().await;

    let (server, token) = hosting(Setup::default().server("trusted_proxies = [\"127.0.0.0/8\", \"198.51.100.0/24\"]")).await;
    let ann = server.caller_with(&token);
    assert_eq!(address_after(&ann, "near", &[]).await, "127.0.0.1");
    assert_eq!(address_after(&ann, "far", &["203.0.113.9, 198.51.100.7"]).await, "203.0.113.9");
    // What a client writes itself stands before what the proxy adds.
    assert_eq!(address_after(&ann, "liar", &["6.6.6.6, 203.0.113.9"]).await, "203.0.113.9");
    assert_eq!(address_after(&ann, "six", &["2001:db8::7"]).await, "2001:db8::7");
    server.finish().await;
}

#[tokio::test]
async fn every_deed_is_one_json_line_and_an_entry_that_survives_a_crash() {
    let (mut server, token) = hosting(Setup::default().more("[log]\nformat = \"json\"")).await;
    let ann = server.caller_with(&token);
    publish(&server, &token, "@acme/tool", "1.0.0").await;
    let made = ask(&ann, "POST /user/tokens", Some(&json!({ "scopes": ["repo"] }))).await.json();
    server.secret(made["token"].as_str().expect("a token"));
    // Lines are written by a thread of their own.
    until("the last deed is logged", || server.log().matches("oauth_access.create").count() == 2).await;
    let printed = server.log();
    let lines: Vec<Value> = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect();
    let told: Vec<&Value> = lines.iter().filter(|line| line["target"] == "packhouse::audit").collect();
    let of = |deed: &str| told.iter().find(|line| line["deed"] == deed);
    for deed in ["user.create", "org.create", "oauth_access.create", "published"] {
        assert!(of(deed).is_some(), "{deed} is in no line of {told:#?}");
    }
    let text = of("published").expect("a line").to_string();
    assert!(text.contains("127.0.0.1") && text.contains("@acme/tool") && text.contains("1.0.0"), "{text}");

    server.kill().await;
    server.start_again().await;
    let own = check(&ann, "GET /user/audit-log", 200).await;
    assert_eq!((&own[0]["action"], &own[0]["actor"]), (&json!("oauth_access.create"), &json!("ann")));
    let log = check(&ann, "GET /orgs/acme/audit-log", 200).await;
    assert_eq!(
        (&log[0]["action"], &log[0]["version"], &log[0]["actor_ip"]),
        (&json!("packages.package_version_published"), &json!("1.0.0"), &json!("127.0.0.1"))
    );
    // The operator acts over the socket and is nobody's account.
    assert_eq!((&log[1]["action"], &log[1]["user"], log[1].get("actor")), (&json!("org.create"), &json!("ann"), None));
    let printed = server.cli(&["audit", "--owner", "acme"]).await;
    assert!(printed.contains("org.create") && printed.contains("user=ann") && printed.contains("@acme/tool"), "{printed}");
    server.finish().await;
}
