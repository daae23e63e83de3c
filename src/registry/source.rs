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

    /// The upstreams that may be asked.
    #[must_use]
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        match self {
            Self::Proxied(upstreams) | Self::Merged(_, upstreams) => upstreams,
            Self::Hosted(_) | Self::Nowhere => &[],
        }
    }
}
