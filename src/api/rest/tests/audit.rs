//! The audit log as it is read over the API.

use serde_json::{Value, json};

use super::{CLIENT, World, world};
use crate::api::rest::*;

fn actions(log: &Value) -> Vec<&str> {
    log.as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect()
}

/// Follows links of a relation from a page, and gives the ids on each page.
async fn follow(w: &World, start: &str, relation: &str) -> Vec<Vec<String>> {
    let (mut target, mut pages) = (start.to_owned(), Vec::new());
    for _ in 0..50 {
        let answer = w.ask("own", Method::GET, &target, "").await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        let ids = answer.body.as_array().unwrap().iter().map(|entry| entry["_document_id"].as_str().unwrap().to_owned()).collect();
        pages.push(ids);
        let links = answer.header("link").split(", ").find(|link| link.ends_with(&format!("rel=\"{relation}\""))).map(str::to_owned);
        let Some(link) = links else { return pages };
        target = link.split_once('>').unwrap().0.strip_prefix("<http://h/api/v3").unwrap().to_owned();
    }
    panic!("the pages do not end");
}

#[tokio::test]
async fn each_change_is_told_with_who_and_whence() {
    let w = world().await;
    w.check("own", "PUT /orgs/acme/memberships/out", r#"{"role":"member"}"#, 200).await;
    w.check("own", "PUT /orgs/acme/memberships/out", r#"{"role":"member"}"#, 200).await;
    w.check("own", "PUT /orgs/acme/memberships/out", r#"{"role":"admin"}"#, 200).await;
    w.check("own", "PUT /orgs/acme/teams/core/memberships/out", "", 200).await;
    w.check("own", "POST /orgs/acme/repos", r#"{"name":"app","private":true}"#, 201).await;
    w.check("own", "PATCH /repos/acme/app", r#"{"name":"apps","visibility":"internal"}"#, 200).await;
    w.check("own", "PUT /repos/acme/apps/collaborators/rea", r#"{"permission":"push"}"#, 204).await;
    w.check("own", "PUT /orgs/acme/teams/core/repos/acme/apps", r#"{"permission":"pull"}"#, 204).await;
    w.check("own", "DELETE /repos/acme/apps", "", 204).await;
    w.check("own", "DELETE /orgs/acme/members/out", "", 204).await;
    w.check("adm", "PATCH /orgs/acme/packages/npm/tool", r#"{"visibility":"public"}"#, 200).await;
    let log = w.check("own", "GET /orgs/acme/audit-log?per_page=11", "", 200).await;
    assert_eq!(
        actions(&log),
        [
            "packages.package_visibility_changed",
            "org.remove_member",
            "repo.destroy",
            "team.add_repository",
            "repo.add_member",
            "repo.access",
            "repo.rename",
            "repo.create",
            "team.add_member",
            "org.update_member",
            "org.add_member",
        ]
    );
    let own = w.accounts["own"];
    assert_eq!(
        log[10],
        json!({
            "@timestamp": 1_700_000_000_000_u64, "created_at": 1_700_000_000_000_u64, "_document_id": log[10]["_document_id"],
            "action": "org.add_member", "operation_type": "create",
            "actor": "own", "actor_id": own, "actor_ip": CLIENT.to_string(), "token_id": w.ids[&w.tokens["own"]],
            "org": "acme", "org_id": w.accounts["acme"], "user": "out", "user_id": w.accounts["out"], "permission": "member",
        })
    );
    assert_eq!((&log[6]["repo"], &log[6]["old_name"]), (&json!("acme/apps"), &json!("app")));
    assert_eq!((&log[4]["user"], &log[4]["permission"]), (&json!("rea"), &json!("write")));
    assert_eq!((&log[3]["team"], &log[3]["repo"]), (&json!("acme/core"), &json!("acme/apps")));
    assert_eq!((&log[0]["actor"], &log[0]["package"], &log[0]["package_type"]), (&json!("adm"), &json!("@acme/tool"), &json!("npm")));
}

#[tokio::test]
async fn tokens_and_site_admins_leave_traces() {
    let w = world().await;
    let made = w.check("rea", "POST /user/tokens", r#"{"scopes":["read:packages"]}"#, 201).await;
    w.check("rea", &format!("DELETE /user/tokens/{}", made["id"]), "", 204).await;
    let own = w.check("rea", "GET /user/audit-log", "", 200).await;
    assert_eq!(actions(&own)[..2], ["oauth_access.destroy", "oauth_access.create"]);
    assert_eq!((&own[0]["subject_token_id"], &own[0]["token_scopes"]), (&made["id"], &json!("read:packages")));
    assert!(!own.to_string().contains(made["token"].as_str().unwrap()));
    w.check("site", "PUT /users/out/suspended", "", 204).await;
    w.check("site", "PUT /users/rea/site_admin", "", 204).await;
    w.check("site", "PATCH /admin/users/out", r#"{"login":"gone"}"#, 202).await;
    w.check("site", "PUT /admin/reserved-names/npm/@acme%2F*", r#"{"owner":"acme"}"#, 204).await;
    w.check("site", "DELETE /admin/reserved-names/npm/@acme%2F*", "", 204).await;
    let all = w.check("site", "GET /admin/audit-log?per_page=5", "", 200).await;
    assert_eq!(actions(&all), ["reserved_name.destroy", "reserved_name.create", "user.rename", "user.promote", "user.suspend"]);
    assert_eq!((&all[2]["owner"], &all[2]["old_name"]), (&json!("gone"), &json!("out")));
}

#[tokio::test]
async fn the_log_is_searched_and_paged_both_ways() {
    let w = world().await;
    let all = "/orgs/acme/audit-log";
    for (phrase, expected) in [
        ("action:org user:former", vec!["org.remove_member", "org.add_member"]),
        ("action:packages.package_version_published", vec!["packages.package_version_published"; 2]),
        ("action:team -action:team.create", vec!["team.add_member"]),
        ("action:team actor:nobody", vec![]),
        ("operation:remove", vec!["org.remove_member"]),
        ("created:<2023-11-14", vec![]),
        ("web action:repo.create", vec!["repo.create"]),
    ] {
        let query: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("phrase", phrase).finish();
        assert_eq!(actions(&w.check("own", &format!("GET {all}?{query}"), "", 200).await), expected, "{phrase}");
    }
    assert_eq!(w.check("own", &format!("GET {all}?include=git"), "", 200).await, json!([]));
    for wrong in ["phrase=country%3Ade", "order=up", "include=x", "after=x", "after=1&before=2", "phrase=created%3Asoon"] {
        w.check("own", &format!("GET {all}?{wrong}"), "", 400).await;
    }

    let whole = follow(&w, &format!("{all}?per_page=100"), "next").await;
    assert_eq!(whole.len(), 1);
    for phrase in ["", "&phrase=action%3Aorg"] {
        for order in ["desc", "asc"] {
            let pages = follow(&w, &format!("{all}?per_page=3&order={order}{phrase}"), "next").await;
            let mut ids = pages.concat();
            assert!(pages.len() > 2 && pages[..pages.len() - 1].iter().all(|page| page.len() == 3), "{pages:?}");
            assert!(ids.is_sorted_by_key(|id| if order == "asc" { id.parse::<i64>().unwrap() } else { -id.parse::<i64>().unwrap() }));
            // Back from the last page: the same, and it ends at the beginning.
            let last = pages.last().unwrap();
            let back = follow(&w, &format!("{all}?per_page=3&order={order}{phrase}&before={}", last[0]), "prev").await;
            ids.truncate(ids.len() - last.len());
            let mut seen = back.clone();
            seen.reverse();
            assert_eq!(seen.concat(), ids);
        }
    }
}
