//! Immutable tags, and retention: looked at first, then applied.

use serde_json::{Value, json};

use super::{Repository, hosting, refused, texts};
use crate::harness::{Caller, Image, MANIFEST, Package};
use crate::npm_wire::publish;
use crate::rest::ask;

const RULES: &str = "PUT /user/packages/container/app/rules";
const RETENTION: &str = "POST /user/packages/container/app/retention";

async fn set(caller: &Caller, rules: &Value) {
    let answer = ask(caller, RULES, Some(rules)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn az05_az11_an_immutable_tag_neither_moves_nor_goes() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let repository = Repository::new(&caller, "alice/app");
    let (first, second) = (Image::new("first"), Image::new("second"));
    repository.push(&first, "v1").await;
    repository.push(&first, "latest").await;
    let rules = json!({ "immutable_tags": ["v*", "*-final"], "retention": null });
    set(&caller, &rules).await;
    let shown = ask(&caller, "GET /user/packages/container/app/rules", None).await.json();
    assert_eq!(shown, rules);
    for blob in &second.blobs {
        repository.upload(blob).await;
    }
    let moves = [
        repository.put(&second, "v1").await,
        repository
            .ask("PUT", &format!("manifests/{}?tag=free&tag=v1", second.digest()))
            .header("content-type", MANIFEST)
            .body(second.manifest.bytes.clone())
            .send()
            .await,
        repository.delete("manifests/v1").await,
        repository.delete(&format!("manifests/{}", first.digest())).await,
    ];
    for answer in &moves {
        refused(answer, 403, "DENIED");
        assert!(answer.text().contains("immutable"), "{}", answer.text());
    }
    assert_eq!(repository.tags().await, ["latest", "v1"]);
    assert_eq!(repository.head(&format!("manifests/{}", second.digest())).await.status, 404, "a refused push leaves nothing");
    // The same again is no move; other tags move; new ones of the pattern are set once.
    assert_eq!(repository.put(&first, "v1").await.status, 201);
    repository.push(&second, "latest").await;
    repository.push(&second, "v2").await;
    refused(&repository.put(&first, "v2").await, 403, "DENIED");
    let list = ask(&caller, "GET /user/packages/container/app/versions", None).await.json();
    for version in list.as_array().unwrap() {
        let answer = ask(&caller, &format!("DELETE /user/packages/container/app/versions/{}", version["id"]), None).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
    }
    // Who may administer it can lift the rule.
    set(&caller, &json!({})).await;
    assert_eq!(repository.put(&second, "v1").await.status, 201);
    server.finish().await;
}

#[tokio::test]
async fn rules_are_no_matter_of_one_protocol() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        assert!(publish(&caller, &Package::new("@alice/tool", version)).await.status < 300);
    }
    let tag = async |version: &str| caller.put("/npm/-/package/@alice%2ftool/dist-tags/stable", &json!(version)).send().await.status;
    assert_eq!(tag("1.0.0").await, 201);
    let path = "/user/packages/npm/tool";
    assert_eq!(ask(&caller, &format!("PUT {path}/rules"), Some(&json!({ "immutable_tags": ["stable"] }))).await.status, 200);
    assert_eq!(tag("1.0.0").await, 201);
    assert_eq!(tag("1.1.0").await, 403);
    assert_eq!(caller.ask("DELETE", "/npm/-/package/@alice%2ftool/dist-tags/stable").send().await.status, 403);
    let retention = json!({ "retention": { "keep_last": 0, "delete_untagged_after_days": 0 } });
    let plan = ask(&caller, &format!("POST {path}/retention"), Some(&retention)).await.json();
    assert_eq!((&plan["delete_count"], &plan["versions"][0]["name"]), (&json!(2), &json!("1.1.0")), "the fixed one stays: {plan}");
    let with_mark = json!({ "retention": retention["retention"], "apply": plan["mark"] });
    assert_eq!(ask(&caller, &format!("POST {path}/retention"), Some(&with_mark)).await.status, 200);
    let packument = caller.packument("@alice/tool").await;
    assert_eq!(packument["versions"].as_object().unwrap().keys().collect::<Vec<_>>(), ["1.0.0"]);
    assert_eq!(packument["dist-tags"]["latest"], "1.0.0", "a plain install still finds something");
    server.finish().await;
}

#[tokio::test]
async fn retention_is_looked_at_first_and_breaks_no_image() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let repository = Repository::new(&caller, "alice/app");
    let base = Image::new("base");
    repository.push_untagged(&base).await;
    let mut indexes = Vec::new();
    for number in 1..=4 {
        let own = Image::new(&format!("own {number}"));
        repository.push_untagged(&own).await;
        let index = Image::index(&[base.clone(), own.clone()], &json!({}));
        repository.push(&index, &format!("v{number}")).await;
        let signature = Image::artifact(&format!("sig {number}"), "application/vnd.sig", &json!({ "subject": own.descriptor() }));
        repository.push_untagged(&signature).await;
        indexes.push((index, own, signature));
    }
    let orphan = Image::new("orphan");
    repository.push_untagged(&orphan).await;
    assert_eq!(ask(&caller, RETENTION, None).await.status, 422, "there are no rules yet");
    let rules = json!({ "retention": { "keep_last": 1, "keep_tags": ["v2"], "delete_untagged_after_days": 0 } });
    set(&caller, &rules).await;
    let plan = ask(&caller, RETENTION, None).await.json();
    assert_eq!((&plan["applied"], &plan["delete_count"], &plan["keep_count"]), (&json!(false), &json!(7), &json!(7)), "{plan}");
    let names: Vec<&str> = plan["versions"].as_array().unwrap().iter().map(|version| version["name"].as_str().unwrap()).collect();
    for (number, (index, own, signature)) in (1..).zip(&indexes) {
        for image in [index, own, signature] {
            assert_eq!(names.contains(&image.digest()), number % 2 == 1, "{number}");
        }
    }
    assert!(names.contains(&orphan.digest()) && !names.contains(&base.digest()));
    assert_eq!(repository.tags().await.len(), 4, "nothing has gone");
    // Something came in between: what was seen is not what would go.
    let late = Image::new("late");
    repository.push_untagged(&late).await;
    let apply = |mark: &Value| json!({ "apply": mark });
    let answer = ask(&caller, RETENTION, Some(&apply(&plan["mark"]))).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let plan = ask(&caller, RETENTION, None).await.json();
    let answer = ask(&caller, RETENTION, Some(&apply(&plan["mark"]))).await;
    assert_eq!((answer.status, &answer.json()["delete_count"]), (200, &json!(8)), "{}", answer.text());
    assert_eq!(repository.tags().await, ["v2", "v4"]);
    for (number, (index, own, signature)) in (1..).zip(&indexes) {
        for image in [index, own, signature] {
            let status = repository.head(&format!("manifests/{}", image.digest())).await.status;
            assert_eq!(status, if number % 2 == 1 { 404 } else { 200 }, "{number}");
        }
    }
    let again = ask(&caller, RETENTION, None).await.json();
    assert_eq!((&again["delete_count"], &again["versions"]), (&json!(0), &json!([])));
    // What went by mistake comes back whole.
    let list = ask(&caller, "GET /user/packages/container/app/versions?state=deleted&per_page=100", None).await.json();
    let gone = list.as_array().unwrap().iter().find(|version| version["name"] == indexes[0].0.digest()).unwrap();
    let path = format!("POST /user/packages/container/app/versions/{}/restore", gone["id"]);
    assert_eq!(ask(&caller, &path, None).await.status, 204);
    for image in [&indexes[0].0, &indexes[0].1, &indexes[0].2, &base] {
        assert_eq!(repository.head(&format!("manifests/{}", image.digest())).await.status, 200);
    }
    assert_eq!(repository.tags().await, ["v1", "v2", "v4"]);
    server.cli(&["fsck"]).await;
    server.finish().await;
}

#[tokio::test]
async fn bad_rules_are_refused_and_strangers_have_no_say() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    Repository::new(&caller, "alice/app").push(&Image::new("one"), "v1").await;
    for wrong in [
        json!({ "immutable_tags": "v*" }),
        json!({ "immutable_tags": [""] }),
        json!({ "immutable_tags": vec!["x"; 101] }),
        json!({ "retention": { "keep_last": -1 } }),
        json!({ "retention": { "keep_lasts": 1 } }),
    ] {
        for line in [RULES, RETENTION] {
            let answer = ask(&caller, line, Some(&wrong)).await;
            assert_eq!(answer.status, 422, "{line} {wrong}: {}", answer.text());
        }
    }
    let bob = server.caller_with(&server.publisher("bob").await);
    let rules = "/users/alice/packages/container/app/rules";
    assert_eq!(ask(&bob, &format!("GET {rules}"), None).await.status, 404);
    server.cli(&["package", "role", "container", "alice/app", "user:bob", "write"]).await;
    let shown = ask(&bob, &format!("GET {rules}"), None).await.json();
    assert_eq!(texts(&shown["immutable_tags"]), Vec::<String>::new());
    assert_eq!(ask(&bob, &format!("PUT {rules}"), Some(&json!({ "immutable_tags": ["v*"] }))).await.status, 403);
    assert_eq!(ask(&bob, "POST /users/alice/packages/container/app/retention", Some(&json!({ "retention": {} }))).await.status, 403);
    server.finish().await;
}
