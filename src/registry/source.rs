//! Which sources a name has.
//!
//! The rules, from the product's plan:
//! - A hosted name is never asked for upstream, from its first publish on, also
//!   after it was deleted: otherwise an outsider could publish it there and be
//!   installed instead (dependency confusion).
//! - A reserved name belongs to its owner from the day it is reserved: hosted or absent.
//! - An owner may opt a reserved pattern into merging; then upstream versions lie
//!   below the hosted ones.
//! - A name that nobody hosts is looked for in the upstreams, in their order.

use std::sync::Arc;

use crate::catalog::Head;
use crate::name::PackageName;
use crate::upstream::Upstream;

/// Where a name's documents and files come from.
#[derive(Clone)]
pub enum Plan {
    /// From here alone.
    Hosted(Arc<Head>),
    /// From the upstreams alone, in this order.
    Proxied(Vec<Arc<Upstream>>),
    /// From here, and what is not here from the upstreams.
    Merged(Arc<Head>, Vec<Arc<Upstream>>),
    /// From nowhere: reserved and not published, or no upstream serves such a name.
    Nowhere,
}

impl Plan {
    /// Applies the rules. `merges` is what the reservation that covers the name says, if there is one.
    #[must_use]
    pub fn new(head: Option<Arc<Head>>, merges: Option<bool>, upstreams: &[Arc<Upstream>], name: &PackageName) -> Self {
        let serving = || upstreams.iter().filter(|upstream| upstream.serves(name)).cloned().collect::<Vec<_>>();
        let live = head.as_ref().is_some_and(|head| head.package.deleted_at.is_none());
        match (head, merges) {
            (Some(head), Some(true)) if live => Self::Merged(head, serving()),
            (Some(head), _) => Self::Hosted(head),
            (None, Some(false)) => Self::Nowhere,
            (None, _) => {
                let upstreams = serving();
                if upstreams.is_empty() { Self::Nowhere } else { Self::Proxied(upstreams) }
            }
        }
    }

    /// The head, if the name is hosted.
    #[must_use]
    pub fn head(&self) -> Option<&Arc<Head>> {
        match self {
            Self::Hosted(head) | Self::Merged(head, _) => Some(head),
            Self::Proxied(_) | Self::Nowhere => None,
        }
    }

    /// The same without the upstreams but one; without that one too where none has the name.
    #[must_use]
    pub fn only(&self, upstream: Option<Arc<Upstream>>) -> Self {
        match (self, upstream) {
            (Self::Merged(head, _), Some(upstream)) => Self::Merged(Arc::clone(head), vec![upstream]),
            (Self::Merged(head, _), None) | (Self::Hosted(head), _) => Self::Hosted(Arc::clone(head)),
            (Self::Proxied(_), Some(upstream)) => Self::Proxied(vec![upstream]),
            (Self::Proxied(_) | Self::Nowhere, _) => Self::Nowhere,
        }
    }

    /// The upstreams that may be asked.
    #[must_use]
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        match self {
            Self::Proxied(upstreams) | Self::Merged(_, upstreams) => upstreams,
            Self::Hosted(_) | Self::Nowhere => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::identity::NewUser;
    use crate::name::OwnerName;
    use crate::registry::fixture;
    use crate::upstream::UpstreamConfig;
    use crate::upstream::config::{Config, Credentials, ProxyEnvironment};

    fn upstream(name: &str, include: &[&str], exclude: &[&str]) -> Arc<Upstream> {
        let list = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let own = UpstreamConfig {
            name: name.to_owned(),
            url: "http://upstream.invalid/".to_owned(),
            username: None,
            password_file: None,
            token_file: None,
            fresh_seconds: None,
            include: list(include),
            exclude: list(exclude),
            hosts: Vec::new(),
            mirrors: Vec::new(),
            namespace: None,
            token_hosts: Vec::new(),
            proxy_url: None,
            ca_files: Vec::new(),
        };
        let upstream = Upstream::new(&own, &Config::default(), Credentials::default(), &ProxyEnvironment::default(), Clock::system());
        Arc::new(upstream.unwrap())
    }

    async fn heads() -> (Arc<Head>, Arc<Head>) {
        let f = fixture::fixture().await;
        let ann = NewUser { login: OwnerName::new("ann").unwrap(), email: None, site_admin: false };
        let ann = f.identity.create_user(ann).await.unwrap().id;
        for name in ["live", "deleted"] {
            f.publish("npm", name, ann, "1.0.0").await.unwrap();
        }
        let deleted = PackageName::new("deleted").unwrap();
        f.registry.delete_package(&crate::access::Grant::system(("npm", &deleted, None))).await.unwrap();
        let head = async |name: &PackageName| f.registry.catalog().head("npm", name).await.unwrap().unwrap();
        (head(&PackageName::new("live").unwrap()).await, head(&deleted).await)
    }

    #[tokio::test]
    async fn each_rule_for_each_kind_of_name() {
        let (live, deleted) = heads().await;
        let all = [upstream("one", &[], &[]), upstream("two", &[], &[])];
        let name = PackageName::new("@acme/tool").unwrap();
        let said = |plan: &Plan| {
            let what = match plan {
                Plan::Hosted(_) => "hosted",
                Plan::Proxied(_) => "proxied",
                Plan::Merged(..) => "merged",
                Plan::Nowhere => "nowhere",
            };
            assert_eq!(plan.head().is_some(), ["hosted", "merged"].contains(&what));
            (what, plan.upstreams().len())
        };
        // Head, what the reservation says of merging, and the plan with two upstreams and with none.
        let table = [
            (None, None, ("proxied", 2), ("nowhere", 0)),
            (None, Some(false), ("nowhere", 0), ("nowhere", 0)),
            (None, Some(true), ("proxied", 2), ("nowhere", 0)),
            (Some(&live), None, ("hosted", 0), ("hosted", 0)),
            (Some(&live), Some(false), ("hosted", 0), ("hosted", 0)),
            (Some(&live), Some(true), ("merged", 2), ("merged", 0)),
            // Deleted, and so never anybody else's, even where the owner merges.
            (Some(&deleted), None, ("hosted", 0), ("hosted", 0)),
            (Some(&deleted), Some(false), ("hosted", 0), ("hosted", 0)),
            (Some(&deleted), Some(true), ("hosted", 0), ("hosted", 0)),
        ];
        for (index, (head, merges, with, without)) in table.into_iter().enumerate() {
            assert_eq!(said(&Plan::new(head.cloned(), merges, &all, &name)), with, "row {index}");
            assert_eq!(said(&Plan::new(head.cloned(), merges, &[], &name)), without, "row {index}");
        }
    }

    #[tokio::test]
    async fn a_plan_can_be_narrowed_to_one_upstream() {
        let (live, _) = heads().await;
        let (one, two) = (upstream("one", &[], &[]), upstream("two", &[], &[]));
        let both = vec![Arc::clone(&one), Arc::clone(&two)];
        let names = |plan: Plan| plan.upstreams().iter().map(|upstream| upstream.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(Plan::Proxied(both.clone()).only(Some(two.clone()))), ["two"]);
        assert!(matches!(Plan::Proxied(both.clone()).only(None), Plan::Nowhere));
        let merged = Plan::Merged(Arc::clone(&live), both);
        assert_eq!(names(merged.only(Some(one.clone()))), ["one"]);
        assert!(matches!(merged.only(None), Plan::Hosted(_)));
        assert!(matches!(Plan::Hosted(live).only(Some(one)), Plan::Hosted(_)));
        assert!(matches!(Plan::Nowhere.only(Some(two)), Plan::Nowhere));
    }

    #[test]
    fn an_address_is_below_the_configured_one_or_that_one_or_whole() {
        let upstream = upstream("one", &[], &[]);
        let address = |path: &str| upstream.address(path).map(String::from).unwrap();
        assert_eq!(address("a/b?c"), "http://upstream.invalid/a/b?c");
        assert_eq!(address(""), "http://upstream.invalid/");
        assert_eq!(address("https://files.invalid/a"), "https://files.invalid/a");
        assert!(upstream.address("https://").is_err());
    }

    #[test]
    fn an_upstream_is_asked_only_for_names_it_serves() {
        let all = [upstream("acme", &["@acme/*"], &[]), upstream("rest", &[], &["@acme/*", "secret"])];
        for (name, expected) in [("@acme/tool", &["acme"][..]), ("left-pad", &["rest"]), ("secret", &[])] {
            let plan = Plan::new(None, None, &all, &PackageName::new(name).unwrap());
            let asked: Vec<&str> = plan.upstreams().iter().map(|upstream| upstream.name()).collect();
            assert_eq!(asked, expected, "{name}");
            assert_eq!(matches!(plan, Plan::Nowhere), expected.is_empty(), "{name}");
        }
    }
}
