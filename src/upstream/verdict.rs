//! What happened on the way to an answer, in one word.
//!
//! The same word is the `Cache-Status` header (RFC 9211), the log field and the
//! metric label, so that a test, an operator and a client see the same thing.

use crate::http::HeaderValue;

/// Where an answer came from and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Published here.
    Hosted,
    /// Cached and fresh.
    Hit,
    /// Fetched from the upstream for this request.
    Miss,
    /// Fetched from the upstream for another request at the same time.
    Joined,
    /// Cached, and confirmed by the upstream for this request.
    Revalidated,
    /// Cached and past its lifetime; it is being confirmed in the background.
    StaleUpdating,
    /// Cached and past its lifetime; the upstream failed to answer.
    StaleError,
    /// Cached and past its lifetime; the upstream is not asked: offline by configuration.
    StaleOffline,
    /// Passed through without being kept: the disk is full.
    PassedThrough,
}

impl Verdict {
    /// The word for logs and metric labels.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hosted => "hosted",
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Joined => "joined",
            Self::Revalidated => "revalidated",
            Self::StaleUpdating => "stale-updating",
            Self::StaleError => "stale-error",
            Self::StaleOffline => "stale-offline",
            Self::PassedThrough => "passed-through",
        }
    }

    /// The value of `Cache-Status`.
    #[must_use]
    pub const fn header(self) -> HeaderValue {
        match self {
            Self::Hosted => const { HeaderValue::from_static("packhouse; detail=hosted") },
            Self::Hit => const { HeaderValue::from_static("packhouse; hit") },
            Self::Miss => const { HeaderValue::from_static("packhouse; fwd=uri-miss; stored") },
            Self::Joined => const { HeaderValue::from_static("packhouse; fwd=uri-miss; collapsed; stored") },
            Self::Revalidated => const { HeaderValue::from_static("packhouse; fwd=stale; fwd-status=304") },
            Self::StaleUpdating => const { HeaderValue::from_static("packhouse; hit; detail=stale-while-revalidate") },
            Self::StaleError => const { HeaderValue::from_static("packhouse; hit; detail=stale-if-error") },
            Self::StaleOffline => const { HeaderValue::from_static("packhouse; hit; detail=offline") },
            Self::PassedThrough => const { HeaderValue::from_static("packhouse; fwd=uri-miss") },
        }
    }
}
