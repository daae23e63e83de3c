//! Webhooks as they are managed: GitHub's shapes, its refusals, and no secret in any answer.

use serde_json::json;

use super::{World, world};
use crate::api::rest::*;
use crate::package::{HookId, Visibility};
use crate::webhook::{Draft, Exchange, Try};

const WEB: &str = "/repos/acme/web/hooks";

fn id(world: &World) -> u64 {
    world.hooks["repository"].0
}

#[tokio::test]
async fn a_repositorys_webhook_looks_as_on_github() {
    let w = world().await;
    let body = r#"{"config":{"url":"https://example.org/x","content_type":"json","secret":"s3cret-key","insecure_ssl":0},"events":["push","package"]}"#;
    let made = w.check("adm", &format!("POST {WEB}"), body, 201).await;
    let url = format!("http://h/api/v3/repos/acme/web/hooks/{}", made["id"]);
    let expected = json!({
        "type": "Repository",
        "id": made["id"],
        "name": "web",
        "active": true,
        "events": ["push", "package"],
        "config": { "url": "https://example.org/x", "content_type": "json", "insecure_ssl": "0", "secret": "********" },
        "updated_at": "2023-11-14T22:13:20Z",
        "created_at": "2023-11-14T22:13:20Z",
        "url": url,
        "ping_url": format!("{url}/pings"),
        "deliveries_url": format!("{url}/deliveries"),
        "test_url": format!("{url}/tests"),
        "last_response": { "code": null, "status": "unused", "message": null },
    });
    assert_eq!(made, expected);
    let hook = format!("{WEB}/{}", made["id"]);
    assert_eq!(w.check("own", &format!("GET {hook}"), "", 200).await, expected);
    let listed = w.check("own", &format!("GET {WEB}?per_page=1&page=2"), "", 200).await;
    assert_eq!(listed, json!([expected]));
    let first = w.check("own", &format!("GET {WEB}/{}", id(&w)), "", 200).await;
    assert_eq!(first["last_response"], json!({ "code": 200, "status": "active", "message": "OK" }));
    w.check("adm", &format!("DELETE {hook}"), "", 204).await;
    w.check("adm", &format!("GET {hook}"), "", 404).await;
    w.check("adm", &format!("DELETE {hook}"), "", 404).await;
}

#[tokio::test]
async fn an_organisations_webhook_looks_as_on_github() {
    let w = world().await;
    let body = r#"{"name":"web","config":{"url":"https://example.org/x"},"events":["*"],"active":false}"#;
    let made = w.check("own", "POST /orgs/acme/hooks", body, 201).await;
    assert_eq!((&made["type"], &made["active"], &made["events"]), (&json!("Organization"), &json!(false), &json!(["*"])));
    assert_eq!(made["config"], json!({ "url": "https://example.org/x", "content_type": "form", "insecure_ssl": "0" }));
    assert_eq!(made["ping_url"], format!("http://h/api/v3/orgs/acme/hooks/{}/pings", made["id"]));
    assert_eq!((made.get("test_url"), made.get("last_response")), (None, None));
    // A webhook is there under its own target alone.
    w.check("own", &format!("GET {WEB}/{}", made["id"]), "", 404).await;
    w.check("own", &format!("DELETE /orgs/acme/hooks/{}", id(&w)), "", 404).await;
    let nameless = w.check("own", "POST /orgs/acme/hooks", r#"{"config":{"url":"https://example.org/"}}"#, 422).await;
    assert_eq!(nameless["errors"], json!([{ "resource": "Hook", "field": "name", "code": "missing_field" }]));
}

#[tokio::test]
async fn a_config_is_replaced_or_changed_and_its_secret_never_read_back() {
    let w = world().await;
    let hook = format!("{WEB}/{}", id(&w));
    // As it was shown, so that what was not meant to change does not.
    let config = w.check("adm", &format!("GET {hook}/config"), "", 200).await;
    assert_eq!(config["secret"], "********");
    let same = w.check("adm", &format!("PATCH {hook}"), &json!({ "config": config }).to_string(), 200).await;
    assert_eq!(same["config"], config);
    let stored = w.engine.registry.hooks().hook_by_id(HookId(id(&w))).await.unwrap().unwrap();
    assert_eq!(stored.settings.secret.unwrap().expose(), b"hush");

    let changed = w.check("adm", &format!("PATCH {hook}/config"), r#"{"content_type":"json","insecure_ssl":"1"}"#, 200).await;
    assert_eq!(changed, json!({ "url": "https://example.com/", "content_type": "json", "insecure_ssl": "1", "secret": "********" }));
    let replaced = w.check("adm", &format!("PATCH {hook}"), r#"{"config":{"url":"https://example.org/y"}}"#, 200).await;
    assert_eq!(replaced["config"], json!({ "url": "https://example.org/y", "content_type": "form", "insecure_ssl": "0" }));

    let ours = r#"{"package_actions":["deleted","published"],"package_grouping":"publish","secret":"n3w"}"#;
    let ours = w.check("adm", &format!("PATCH {hook}/config"), ours, 200).await;
    assert_eq!((&ours["package_actions"], &ours["package_grouping"]), (&json!(["published", "deleted"]), &json!("publish")));
    assert_eq!(ours["secret"], "********");
    let none = w.check("adm", &format!("PATCH {hook}/config"), r#"{"secret":""}"#, 200).await;
    assert_eq!(none.get("secret"), None);
}

#[tokio::test]
async fn events_are_replaced_added_and_removed() {
    let w = world().await;
    let hook = format!("{WEB}/{}", id(&w));
    let patch = async |body: &str| w.check("adm", &format!("PATCH {hook}"), body, 200).await["events"].clone();
    assert_eq!(patch(r#"{"events":["push","push","package"]}"#).await, json!(["push", "package"]));
    assert_eq!(patch(r#"{"add_events":["registry_package","push"]}"#).await, json!(["push", "package", "registry_package"]));
    assert_eq!(patch(r#"{"remove_events":["push","fork"]}"#).await, json!(["package", "registry_package"]));
    assert_eq!(patch(r#"{"active":false}"#).await, json!(["package", "registry_package"]));
    for body in
        [r#"{"events":[]}"#, r#"{"remove_events":["package","registry_package"]}"#, r#"{"events":["pakcage"]}"#, r#"{"events":"push"}"#]
    {
        let refused = w.check("adm", &format!("PATCH {hook}"), body, 422).await;
        assert_eq!((&refused["errors"][0]["code"], &refused["errors"][0]["field"]), (&json!("invalid"), &json!("events")), "{body}");
    }
}

#[tokio::test]
async fn bad_webhooks_are_refused_in_githubs_words() {
    let w = world().await;
    let post = async |body: serde_json::Value| w.check("adm", &format!("POST {WEB}"), &body.to_string(), 422).await["errors"].clone();
    let with = async |name: &str, value: serde_json::Value| {
        let mut config = json!({ "url": "https://example.org/" });
        config[name] = value;
        post(json!({ "config": config })).await
    };
    assert_eq!(post(json!({})).await, json!([{ "resource": "Hook", "field": "url", "code": "missing_field" }]));
    for address in ["http://localhost/x", "http://127.0.0.1/", "http://[::1]/", "http://2130706433/", "http://169.254.169.254/latest"] {
        let refused = with("url", json!(address)).await;
        assert_eq!((&refused[0]["resource"], &refused[0]["code"]), (&json!("Hook"), &json!("custom")), "{address}");
        assert!(refused[0]["message"].as_str().unwrap().contains("isn't reachable over the public Internet"), "{address}: {refused}");
        assert_eq!(refused[0].get("field"), None);
    }
    for address in
        ["example.org", "ftp://example.org/", "https://a:b@example.org/", "https://example.org/\r\nX: y", "https://example.org:25/"]
    {
        assert_eq!(with("url", json!(address)).await[0]["code"], "custom", "{address}");
    }
    let localhost = "Sorry, the URL host localhost is not supported because it isn't reachable over the public Internet";
    assert_eq!(with("url", json!("http://localhost/")).await[0]["message"], localhost);
    for (name, value) in [
        ("content_type", json!("xml")),
        ("content_type", json!(1)),
        ("insecure_ssl", json!("yes")),
        ("insecure_ssl", json!(2)),
        ("secret", json!({})),
        ("secret", json!("x".repeat(1025))),
        ("package_actions", json!("deleted")),
        ("package_actions", json!(["destroyed"])),
        ("package_grouping", json!("image")),
    ] {
        let refused = with(name, value.clone()).await;
        assert_eq!((&refused[0]["code"], &refused[0]["field"]), (&json!("invalid"), &json!(name)), "{value}");
    }
    for name in ["headers", "username", "password"] {
        assert!(with(name, json!("Host: x")).await[0]["message"].as_str().unwrap().contains(name));
    }
    assert_eq!(post(json!({ "name": "email", "config": { "url": "https://example.org/" } })).await[0]["field"], "name");
    assert_eq!(post(json!({ "config": "https://example.org/" })).await[0]["field"], "config");
    assert_eq!(post(json!({ "active": "yes", "config": { "url": "https://example.org/" } })).await[0]["field"], "active");
    let alike = post(json!({ "config": { "url": "https://example.com/" }, "events": ["package"] })).await;
    assert_eq!(alike, json!([{ "resource": "Hook", "code": "custom", "message": "Hook already exists on this repository" }]));
    for number in 1..20 {
        let body = format!(r#"{{"config":{{"url":"https://example.org/{number}"}}}}"#);
        w.check("adm", &format!("POST {WEB}"), &body, 201).await;
    }
    let many = post(json!({ "config": { "url": "https://example.org/more" } })).await;
    assert!(many[0]["message"].as_str().unwrap().contains("more than 20 hooks"), "{many}");
}

#[tokio::test]
async fn deliveries_are_listed_newest_first_and_repeated_under_the_same_guid() {
    let w = world().await;
    let (hook, first) = w.hooks["repository"];
    let hooks = w.engine.registry.hooks();
    let deliveries = format!("{WEB}/{hook}/deliveries");
    for _ in 0..4 {
        w.check("adm", &format!("POST {WEB}/{hook}/pings"), "", 204).await;
        let due = hooks.due(HookId(hook)).await.unwrap().unwrap();
        let exchange = Exchange {
            url: "https://example.com/".to_owned(),
            request: vec![("X-GitHub-Event".to_owned(), "ping".to_owned())],
            response: vec![("Set-Cookie".to_owned(), "a".to_owned()), ("Set-Cookie".to_owned(), "b".to_owned())],
            body: "no".to_owned(),
        };
        let outcome = Try { at: hooks.clock().now(), millis: 1239, code: Some(500), status: "Invalid HTTP Response: 500".to_owned() };
        hooks.note(&due, outcome, &exchange, false).await.unwrap();
    }
    let answer = w.ask("adm", Method::GET, &format!("{deliveries}?per_page=2"), "").await;
    let page = answer.body.as_array().unwrap().clone();
    assert_eq!(
        (page.len(), &page[0]["event"], &page[0]["status_code"], &page[0]["duration"]),
        (2, &json!("ping"), &json!(500), &json!(1.23))
    );
    assert!(page[0]["id"].as_u64() > page[1]["id"].as_u64());
    let next = format!("<http://h/api/v3{deliveries}?per_page=2&cursor=v1_{}>; rel=\"next\"", page[1]["id"]);
    assert_eq!(answer.header("link"), next);
    let last = w.ask("adm", Method::GET, &format!("{deliveries}?per_page=2&cursor=v1_{}", first + 1), "").await;
    assert_eq!((last.body[0]["id"].as_u64(), last.header("link")), (Some(first), ""));
    for cursor in ["x", "7", "v1_", "v1_-1"] {
        w.check("adm", &format!("GET {deliveries}?cursor={cursor}"), "", 400).await;
    }

    let whole = w.check("adm", &format!("GET {deliveries}/{}", page[0]["id"]), "", 200).await;
    assert_eq!((&whole["request"]["headers"]["X-GitHub-Event"], &whole["request"]["payload"]["hook_id"]), (&json!("ping"), &json!(hook)));
    assert_eq!(whole["response"], json!({ "headers": { "Set-Cookie": "a, b" }, "payload": "no" }));
    assert_eq!(whole["request"]["payload"]["sender"]["login"], "adm");

    w.check("adm", &format!("POST {deliveries}/{}/attempts", page[0]["id"]), "", 202).await;
    let due = hooks.due(HookId(hook)).await.unwrap().unwrap();
    assert_eq!((json!(due.delivery.guid), due.delivery.redelivery), (page[0]["guid"].clone(), true));
    // What was not sent yet is no delivery.
    let listed = w.check("adm", &format!("GET {deliveries}"), "", 200).await;
    assert_eq!(listed[0]["id"], page[0]["id"]);
    w.check("adm", &format!("POST {deliveries}/999999/attempts"), "", 404).await;
    w.check("own", &format!("GET /orgs/acme/hooks/{}/deliveries/{first}", w.hooks["organisation"].0), "", 404).await;
}

/// Somebody else set the webhook up, who may know more.
#[tokio::test]
async fn deliveries_of_packages_that_one_may_not_read_are_not_there() {
    let mut w = World::new(Visibility::Private).await;
    let hook = HookId(id(&w));
    let name = crate::name::PackageName::new("@acme/tool").unwrap();
    let head = w.engine.registry.catalog().head("npm", &name).await.unwrap().unwrap();
    let hooks = w.engine.registry.hooks().clone();
    let draft = Draft { hook, event: "package", action: None, package: Some(head.package.id), repository: None, payload: "{}".to_owned() };
    hooks.tell(&[], vec![draft]).await.unwrap();
    let due = hooks.due(hook).await.unwrap().unwrap();
    let outcome = Try { at: hooks.clock().now(), millis: 1, code: Some(200), status: "OK".to_owned() };
    hooks.note(&due, outcome, &Exchange::default(), false).await.unwrap();
    let (list, one) = (format!("{WEB}/{hook}/deliveries"), format!("{WEB}/{hook}/deliveries/{}", due.delivery.id));
    // A token of webhooks alone is enough.
    let token = w.mint("adm", "read:repo_hook".parse().unwrap()).await;
    let seen = w.ask_with(Some(&token), Method::GET, &list, "", &[]).await;
    assert_eq!((seen.status, seen.body.as_array().unwrap().len()), (200, 2));
    let grant = crate::access::Grant::system(("npm", &name, None));
    w.engine.registry.set_role(&grant, crate::package::Principal::User(w.accounts["adm"]), None).await.unwrap();
    assert_eq!(w.check("adm", &format!("GET {list}"), "", 200).await.as_array().unwrap().len(), 1);
    w.check("adm", &format!("GET {one}"), "", 404).await;
    w.check("adm", &format!("POST {one}/attempts"), "", 404).await;
    assert_eq!(w.check("own", &format!("GET {list}"), "", 200).await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn whoever_says_where_it_goes_answers_for_it() {
    let w = world().await;
    let hooks = w.engine.registry.hooks();
    let author = async || hooks.hook_by_id(HookId(id(&w))).await.unwrap().unwrap().author;
    let hook = format!("{WEB}/{}", id(&w));
    w.check("adm", &format!("PATCH {hook}"), r#"{"active":false,"events":["push"]}"#, 200).await;
    assert_eq!(author().await, w.accounts["own"]);
    w.check("adm", &format!("PATCH {hook}/config"), r#"{"url":"https://example.org/elsewhere"}"#, 200).await;
    assert_eq!(author().await, w.accounts["adm"]);
}

#[tokio::test]
async fn the_audit_log_tells_who_set_it_up() {
    let w = world().await;
    let made = w.check("adm", &format!("POST {WEB}"), r#"{"config":{"url":"https://example.org/"}}"#, 201).await;
    let hook = format!("{WEB}/{}", made["id"]);
    w.check("adm", &format!("PATCH {hook}/config"), r#"{"content_type":"json"}"#, 200).await;
    w.check("adm", &format!("PATCH {hook}/config"), r#"{"content_type":"xml"}"#, 422).await;
    w.check("own", &format!("DELETE {hook}"), "", 204).await;
    let log = w.check("own", "GET /orgs/acme/audit-log", "", 200).await;
    let told: Vec<_> = log.as_array().unwrap().iter().filter(|entry| entry["hook_id"] == made["id"]).collect();
    let said: Vec<_> = told.iter().map(|entry| (entry["action"].as_str().unwrap(), entry["actor"].as_str().unwrap())).collect();
    assert_eq!(said, [("hook.destroy", "own"), ("hook.config_changed", "adm"), ("hook.create", "adm")]);
    assert_eq!((&told[0]["repo"], &told[0]["org"]), (&json!("acme/web"), &json!("acme")));
}
