//! Signing in: the challenge, the token service, and every form that credentials come in.

use std::time::Duration;

use serde_json::Value;

use super::{Repository, hosting, refused, repository};
use crate::harness::{Answer, Blob, Caller, Image, Package, Server, Setup, Token};
use crate::npm_wire::{base64_of, publish};

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64_of(&format!("{user}:{password}")))
}

/// A request for a token, with credentials in its header.
async fn ask(server: &Server, query: &str, credentials: Option<&str>) -> Answer {
    let request = server.caller().get(&format!("/v2/token?service=x&{query}"));
    match credentials {
        Some(credentials) => request.header("authorization", credentials).send().await,
        None => request.send().await,
    }
}

/// A form for a token.
async fn post(server: &Server, form: &str) -> Answer {
    let request = server.caller().ask("POST", "/v2/token").header("content-type", "application/x-www-form-urlencoded");
    request.body(form.as_bytes()).send().await
}

/// Someone with a session, and what it was granted.
#[track_caller]
fn session(server: &Server, answer: &Answer) -> (Caller, String) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((answer.header("cache-control"), answer.header("content-type")), ("no-store", "application/json"));
    let body = answer.json();
    assert_eq!((&body["token"], &body["token_type"]), (&body["access_token"], &Value::from("Bearer")));
    assert!(body["expires_in"].as_u64().unwrap() >= 60 && body["issued_at"].as_str().unwrap().ends_with('Z'), "{body}");
    (Caller::new(&server.origin(), body["token"].as_str()), body["scope"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_base_challenges_who_brings_nothing_and_takes_every_form_of_a_token() {
    let (server, token) = hosting().await;
    let challenge = format!("Bearer realm=\"{0}/v2/token\",service=\"127.0.0.1:{1}\"", server.origin(), server.port());
    for path in ["/v2/", "/v2"] {
        let answer = server.caller().get(path).send().await;
        refused(&answer, 401, "UNAUTHORIZED");
        assert_eq!(answer.header("www-authenticate"), challenge);
    }
    let text = &token.text;
    let forms = [
        basic("alice", text),
        basic("whoever", text),
        basic(text, ""),
        basic(text, "x-oauth-basic"),
        format!("Bearer {text}"),
        format!("bearer {text}"),
        format!("Bearer {}", base64_of(text)),
    ];
    for form in &forms {
        let answer = server.caller().get("/v2/").header("authorization", form).send().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "{}"), "{form}");
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
        let answer = server.caller().ask("POST", "/v2/alice/app/blobs/uploads/").header("authorization", form).send().await;
        assert_eq!(answer.status, 202, "{form}");
    }
    let wrong = [basic("alice", "pkh_000000000000000000000000000000000000"), "Bearer pks_AAAA".into(), "Bearer x".into()];
    for form in wrong {
        let answer = server.caller().get("/v2/").header("authorization", &form).send().await;
        refused(&answer, 401, "UNAUTHORIZED");
        assert_eq!(answer.header("www-authenticate"), format!("{challenge},error=\"invalid_token\""));
    }
    server.finish().await;
}

#[tokio::test]
async fn a_session_is_granted_what_its_user_may_do_of_what_it_asks() {
    let (server, token) = hosting().await;
    let alice = Repository::new(&server.caller_with(&token), "alice/app");
    alice.push(&Image::new("one"), "v1").await;
    let credentials = basic("alice", &token.text);
    let granted = async |query: &str, credentials: Option<&str>| session(&server, &ask(&server, query, credentials).await).1;
    let all = "repository:alice/app:pull,push,delete";
    assert_eq!(granted("scope=repository:alice/app:*", Some(&credentials)).await, all);
    assert_eq!(granted("scope=repository:alice/app:delete,push,pull", Some(&credentials)).await, all);
    assert_eq!(granted("scope=repository:alice/new:pull,push", Some(&credentials)).await, "repository:alice/new:pull,push");
    let two = "repository:alice/app:pull repository:alice/two:pull,push";
    assert_eq!(granted("scope=repository:alice/app:pull&scope=repository:alice/two:pull,push", Some(&credentials)).await, two);
    assert_eq!(granted("scope=repository:alice/app:pull%20repository:alice/two:pull,push", Some(&credentials)).await, two);
    assert_eq!(granted("", Some(&credentials)).await, "");
    assert_eq!(granted("scope=registry:catalog:*", Some(&credentials)).await, "registry:catalog:*");
    // Fewer are no error, for whomever.
    let bob = server.publisher("bob").await;
    let bob = basic("bob", &bob.text);
    let mixed = "scope=repository:alice/app:pull,push&scope=repository:bob/app:pull,push";
    assert_eq!(granted(mixed, Some(&bob)).await, "repository:bob/app:pull,push");
    assert_eq!(granted("scope=repository:alice/app:pull", None).await, "");
    assert_eq!(granted("scope=repository:alice/none:pull", None).await, "", "what is there and what is not read the same");
    let reader = server.token("alice", &["read:packages"]).await;
    let reader = basic("alice", &reader.text);
    assert_eq!(granted("scope=repository:alice/app:*", Some(&reader)).await, "repository:alice/app:pull");
    server.finish().await;
}

#[tokio::test]
async fn a_session_does_what_it_is_for_and_nothing_else() {
    let (server, token) = hosting().await;
    let alice = Repository::new(&server.caller_with(&token), "alice/app");
    let image = Image::new("one");
    alice.push(&image, "v1").await;
    let (caller, _) = session(&server, &ask(&server, "scope=repository:alice/app:pull", Some(&basic("alice", &token.text))).await);
    let pulling = Repository::new(&caller, "alice/app");
    assert_eq!(caller.get("/v2/").send().await.status, 200);
    assert!(pulling.get("manifests/v1").await.body == image.manifest.bytes);
    let too_much = [
        (pulling.ask("POST", "blobs/uploads/").send().await, "repository:alice/app:pull,push"),
        (pulling.put(&image, "v2").await, "repository:alice/app:pull,push"),
        (pulling.delete("manifests/v1").await, "repository:alice/app:delete"),
        (pulling.delete(&format!("blobs/{}", image.blobs[0].digest)).await, "repository:alice/app:delete"),
        (Repository::new(&caller, "alice/new").ask("POST", "blobs/uploads/").send().await, "repository:alice/new:pull,push"),
    ];
    for (answer, scope) in too_much {
        refused(&answer, 401, "UNAUTHORIZED");
        let challenge = answer.header("www-authenticate");
        assert!(challenge.ends_with(&format!("scope=\"{scope}\",error=\"insufficient_scope\"")), "{challenge}");
    }
    // What the user may not do at all is no matter of another token.
    refused(&Repository::new(&caller, "bob/app").ask("POST", "blobs/uploads/").send().await, 403, "DENIED");
    // It is for containers, and opens no other session.
    for path in ["/npm/-/whoami", "/api/v3/user"] {
        assert_eq!(caller.get(path).header("user-agent", "t").send().await.status, 401, "{path}");
    }
    refused(&caller.get("/v2/token?scope=repository:alice/app:push").send().await, 401, "UNAUTHORIZED");
    // Nor does it say whose it is, beyond numbers.
    let text = ask(&server, "scope=repository:alice/app:pull", Some(&basic("alice", &token.text))).await.json();
    let text = text["token"].as_str().unwrap().to_owned();
    let mut forged = text.clone();
    forged.replace_range(8..9, if &text[8..9] == "A" { "B" } else { "A" });
    refused(&Caller::new(&server.origin(), Some(&forged)).get("/v2/").send().await, 401, "UNAUTHORIZED");
    assert!(!text.contains(&token.text));
    server.finish().await;
}

#[tokio::test]
async fn a_session_carries_no_more_than_its_token_and_ends_with_it() {
    let (server, token) = hosting().await;
    let alice = Repository::new(&server.caller_with(&token), "alice/app");
    alice.push(&Image::new("one"), "v1").await;
    let spare = server.token("alice", &["read:packages", "write:packages"]).await;
    let (caller, scope) = session(&server, &ask(&server, "scope=repository:alice/app:*", Some(&basic("alice", &spare.text))).await);
    assert_eq!(scope, "repository:alice/app:pull,push");
    assert_eq!(Repository::new(&caller, "alice/app").head("manifests/v1").await.status, 200);
    server.revoke(&spare).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(2);
    while Repository::new(&caller, "alice/app").head("manifests/v1").await.status != 401 {
        assert!(tokio::time::Instant::now() < end, "the session outlives its token");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    refused(&caller.get("/v2/").send().await, 401, "UNAUTHORIZED");
    server.finish().await;
}

#[tokio::test]
async fn a_session_ends_in_time_and_with_the_process() {
    let mut server = Setup::default().more("[identity]\nsession_seconds = 1").start().await;
    let token = server.publisher("alice").await;
    let credentials = basic("alice", &token.text);
    let open = async |server: &Server| {
        let answer = ask(server, "", Some(&credentials)).await;
        Caller::new(&server.origin(), answer.json()["token"].as_str())
    };
    let caller = open(&server).await;
    assert_eq!(caller.get("/v2/").send().await.status, 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let answer = caller.get("/v2/").send().await;
    refused(&answer, 401, "UNAUTHORIZED");
    assert!(answer.header("www-authenticate").ends_with("error=\"invalid_token\""));
    let caller = open(&server).await;
    server.kill().await;
    server.start_again().await;
    assert_eq!(caller.get("/v2/").send().await.status, 401);
    assert_eq!(open(&server).await.get("/v2/").send().await.status, 200);
    server.finish().await;
}

#[tokio::test]
async fn anonymous_sessions_read_what_is_public() {
    let (server, repository) = repository().await;
    let image = Image::new("public");
    repository.push(&image, "v1").await;
    server.cli(&["package", "visibility", "container", "alice/app", "public"]).await;
    for credentials in [None, Some("Basic Og==")] {
        let answer = ask(&server, "scope=repository:alice/app:pull,push", credentials).await;
        let (caller, scope) = session(&server, &answer);
        assert_eq!(scope, "repository:alice/app:pull");
        assert_eq!(caller.get("/v2/").send().await.status, 200, "clients go on only after this");
        let anonymous = Repository::new(&caller, "alice/app");
        assert!(anonymous.get("manifests/v1").await.body == image.manifest.bytes);
        assert!(anonymous.get(&format!("blobs/{}", image.blobs[0].digest)).await.body == image.blobs[0].bytes);
        refused(&anonymous.ask("POST", "blobs/uploads/").send().await, 401, "UNAUTHORIZED");
    }
    let stranger = Repository::new(&server.caller(), "alice/app");
    assert!(stranger.get("manifests/v1").await.body == image.manifest.bytes, "public needs no session either");
    server.finish().await;
}

#[tokio::test]
async fn forms_open_sessions_too_and_refresh_tokens_are_the_token_itself() {
    let (server, token) = hosting().await;
    let scope = "service=x&client_id=docker&scope=repository%3Aalice%2Fapp%3Apull%2Cpush";
    let password = format!("grant_type=password&username=alice&password={}&access_type=offline&{scope}", token.text);
    let answer = post(&server, &password).await;
    assert_eq!(session(&server, &answer).1, "repository:alice/app:pull,push");
    assert_eq!(answer.json()["refresh_token"], Value::from(token.text.as_str()));
    let refreshed = post(&server, &format!("grant_type=refresh_token&refresh_token={}&{scope}", token.text)).await;
    let (caller, granted) = session(&server, &refreshed);
    assert_eq!(granted, "repository:alice/app:pull,push");
    assert!(refreshed.json()["refresh_token"].is_null(), "it has one already");
    assert_eq!(Repository::new(&caller, "alice/app").ask("POST", "blobs/uploads/").send().await.status, 202);
    let offline = ask(&server, "offline_token=true", Some(&basic("alice", &token.text))).await;
    assert_eq!(offline.json()["refresh_token"], Value::from(token.text.as_str()));
    assert!(ask(&server, "offline_token=true", None).await.json()["refresh_token"].is_null());
    for wrong in [
        "grant_type=password&username=alice&password=pkh_no",
        "grant_type=refresh_token&refresh_token=x",
        "grant_type=password",
        "grant_type=refresh_token&refresh_token=",
    ] {
        refused(&post(&server, wrong).await, 401, "UNAUTHORIZED");
    }
    refused(&post(&server, "grant_type=client_credentials").await, 400, "UNSUPPORTED");
    refused(&post(&server, "").await, 400, "UNSUPPORTED");
    refused(&post(&server, &"x".repeat(100_000)).await, 413, "SIZE_INVALID");
    refused(&server.caller().ask("DELETE", "/v2/token").send().await, 405, "UNSUPPORTED");
    server.finish().await;
}

/// Someone who tries one token after the other: all ways to sign in count together.
#[tokio::test]
async fn guessing_is_slow_at_the_token_service_too() {
    let server = Setup::default().server("wrong_tokens_per_minute = 6").start().await;
    let token = server.publisher("alice").await;
    for number in 0..3 {
        refused(&ask(&server, "", Some(&basic("alice", &format!("pkh_{number:036}")))).await, 401, "UNAUTHORIZED");
        let form = format!("grant_type=password&username=alice&password=pkh_{number:036}");
        refused(&post(&server, &form).await, 401, "UNAUTHORIZED");
    }
    let answer = ask(&server, "", Some(&basic("alice", "pkh_000000000000000000000000000000000007"))).await;
    refused(&answer, 429, "TOOMANYREQUESTS");
    assert!(answer.header("retry-after").parse::<u32>().is_ok());
    refused(&post(&server, "grant_type=password&username=alice&password=pkh_no").await, 429, "TOOMANYREQUESTS");
    assert_eq!(server.caller_with(&token).get("/v2/").send().await.status, 200, "who has a token goes on");
    server.finish().await;
}

/// Sessions of other packages' clients: nothing but the containers' part takes them.
#[tokio::test]
async fn the_same_token_publishes_everywhere() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    assert!(publish(&caller, &Package::new("@alice/app", "1.0.0")).await.status < 300);
    Repository::new(&caller, "alice/app").push(&Image::new("same name"), "v1").await;
    let both = caller.get("/api/v3/users/alice/packages?package_type=container").header("user-agent", "t").send().await.json();
    assert_eq!((both.as_array().unwrap().len(), &both[0]["name"]), (1, &Value::from("app")));
    server.finish().await;
}

/// Who is limited to reading by the token, not by the package.
#[tokio::test]
async fn a_token_without_the_scope_is_denied_and_not_challenged() {
    let (server, token) = hosting().await;
    let alice = Repository::new(&server.caller_with(&token), "alice/app");
    let image = Image::new("one");
    alice.push(&image, "v1").await;
    let without: Token = server.token("alice", &["read:packages"]).await;
    let reader = Repository::new(&server.caller_with(&without), "alice/app");
    assert_eq!(reader.head("manifests/v1").await.status, 200);
    refused(&reader.ask("POST", "blobs/uploads/").send().await, 403, "DENIED");
    refused(&reader.put(&image, "v2").await, 403, "DENIED");
    refused(&reader.delete("manifests/v1").await, 403, "DENIED");
    refused(&reader.delete(&format!("blobs/{}", Blob::new("x").digest)).await, 403, "DENIED");
    server.finish().await;
}
