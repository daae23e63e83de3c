//! Counts of downloads, and what they keep from being deleted.

use std::time::Duration;

use serde_json::json;

use super::{World, world};
use crate::name::PackageName;

const PACKAGE: &str = "/orgs/acme/packages/npm/tool";

impl World {
    async fn download(&self, number: &str, times: u64) {
        let name = PackageName::new("@acme/tool").unwrap();
        let catalog = self.engine.registry.catalog();
        let package = catalog.head("npm", &name).await.unwrap().unwrap().package.id;
        let count = catalog.downloads().count(package, number);
        (0..times).for_each(|_| count.add());
        catalog.downloads().flush().await.unwrap();
    }
}

#[tokio::test]
async fn counts_are_shown_in_sum_by_day_and_by_week() {
    let w = world().await;
    // A Tuesday, and the Monday after.
    w.download("1.0.0", 2).await;
    w.download("1.1.0", 3).await;
    w.advance(Duration::from_secs(6 * 86_400));
    w.download("1.1.0", 5).await;
    let all = w.check("rea", &format!("GET {PACKAGE}/downloads"), "", 200).await;
    let days = json!([{ "timestamp": "2023-11-14T00:00:00Z", "count": 5 }, { "timestamp": "2023-11-20T00:00:00Z", "count": 5 }]);
    assert_eq!(all, json!({ "total_count": 10, "count": 10, "downloads": days }));
    let weeks = w.check("rea", &format!("GET {PACKAGE}/downloads?per=week"), "", 200).await;
    assert_eq!((&weeks["downloads"][0]["timestamp"], &weeks["downloads"][1]["count"]), (&json!("2023-11-13T00:00:00Z"), &json!(5)));
    let version = format!("{PACKAGE}/versions/{}", w.version("acme"));
    let late = w.check("rea", &format!("GET {version}/downloads?since=2023-11-15&until=2023-11-30"), "", 200).await;
    assert_eq!((&late["total_count"], &late["count"]), (&json!(8), &json!(5)));
    let none = w.check("rea", &format!("GET {version}/downloads?since=2023-11-30&until=2023-11-15"), "", 200).await;
    assert_eq!(none, json!({ "total_count": 8, "count": 0, "downloads": [] }));
    assert_eq!(w.check("rea", &format!("GET {PACKAGE}"), "", 200).await["download_count"], 10);
    assert_eq!(w.check("rea", &format!("GET {PACKAGE}/versions"), "", 200).await[1]["download_count"], 2);
    for wrong in ["per=year", "since=yesterday", "until=2023-02-30"] {
        w.check("rea", &format!("GET {PACKAGE}/downloads?{wrong}"), "", 400).await;
    }
}

#[tokio::test]
async fn what_others_depend_on_stays() {
    let w = world().await;
    w.download("1.1.0", 5000).await;
    w.check("adm", &format!("PATCH {PACKAGE}"), r#"{"visibility":"public"}"#, 200).await;
    let version = format!("{PACKAGE}/versions/{}", w.version("acme"));
    // Exactly at the limit it may still go.
    w.check("adm", &format!("DELETE {version}"), "", 204).await;
    w.check("adm", &format!("POST {version}/restore"), "", 204).await;
    w.download("1.1.0", 1).await;
    let refused = w.check("adm", &format!("DELETE {version}"), "", 400).await;
    let words = "Publicly visible package versions with more than 5000 downloads cannot be deleted. Contact an administrator of this server for further assistance.";
    assert_eq!(refused["message"], words);
    let refused = w.check("site", &format!("DELETE {PACKAGE}"), "", 400).await;
    assert!(refused["message"].as_str().unwrap().starts_with("Publicly visible packages with more than 5000 downloads"), "{refused}");
    // The other version nobody needs.
    let versions = w.check("adm", &format!("GET {PACKAGE}/versions"), "", 200).await;
    w.check("adm", &format!("DELETE {PACKAGE}/versions/{}", versions[1]["id"]), "", 204).await;
}

#[tokio::test]
async fn what_is_not_public_goes_whatever_its_downloads() {
    let w = world().await;
    w.download("1.1.0", 9000).await;
    w.check("adm", &format!("DELETE {PACKAGE}/versions/{}", w.version("acme")), "", 204).await;
    w.check("adm", &format!("DELETE {PACKAGE}"), "", 204).await;
}
