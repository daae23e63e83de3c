//! How often a package or a version was downloaded: in sum, and by day or week.
//!
//! GitHub's API has this for clones of a repository alone; the shape is that one's.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::packages::{Found, find};
use super::refusal::{Outcome, Refusal};
use super::{Call, shown, versions, view};
use crate::usage::{Day, Days};

/// Days that are shown where a request does not say which.
const SHOWN_DAYS: u64 = 30;

pub(super) async fn of_package(call: Call<'_>) -> Outcome {
    let found = find(&call, crate::access::Action::Read).await?;
    respond(&call, &found, None).await
}

pub(super) async fn of_version(call: Call<'_>) -> Outcome {
    let found = find(&call, crate::access::Action::Read).await?;
    let version = versions::readable(&call, &found).await?;
    respond(&call, &found, Some(&version.number)).await
}

async fn respond(call: &Call<'_>, found: &Found, number: Option<&str>) -> Outcome {
    let (days, step) = (days(call)?, step(call)?);
    let downloads = call.registry.catalog().downloads();
    let package = found.head.package.id;
    let by_day = downloads.by_day(package, number, days).await?;
    let mut steps: BTreeMap<Day, u64> = BTreeMap::new();
    for (day, count) in by_day {
        *steps.entry(step(day)).or_default() += count;
    }
    let items: Vec<Value> = steps.iter().map(|(day, count)| json!({ "timestamp": view::instant(day.start()), "count": count })).collect();
    Ok(shown(&json!({
        "total_count": downloads.total(package, number).await?,
        "count": steps.values().sum::<u64>(),
        "downloads": items,
    })))
}

/// The days between `since` and `until`; the last thirty where nothing is said.
fn days(call: &Call<'_>) -> Outcome<Days> {
    let read = |name: &str| match call.query(name) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|why| Refusal::invalid(format!("Invalid argument: {name}: {why}."))),
    };
    let last: Day = read("until")?.unwrap_or_else(|| Day::of(call.registry.clock().now()));
    let first = read("since")?.unwrap_or_else(|| last.before(SHOWN_DAYS - 1));
    Ok(Days { first, last })
}

/// What a day is counted under.
fn step(call: &Call<'_>) -> Outcome<fn(Day) -> Day> {
    match call.query("per").as_deref() {
        None | Some("day") => Ok(|day| day),
        Some("week") => Ok(Day::monday),
        Some(_) => Err(Refusal::invalid("Invalid argument: per is one of day, week.")),
    }
}
