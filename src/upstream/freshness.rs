//! When a cached document may be served, as pure functions.
//!
//! A document that was fetched or confirmed is *fresh* for a configured time and is
//! served without a question. After that there is a span in which it is served at
//! once and confirmed in the background (stale-while-revalidate). After that a
//! client waits for the upstream's word; if the upstream fails, the old document is
//! served all the same for a long span (stale-if-error), because an outage must not
//! stop a build. An absence is remembered too, but only briefly: a package that
//! was just published must not stay hidden.
//!
//! Terms as in RFC 9111 and RFC 5861. Lifetimes come from the configuration, not
//! from the upstream: the public registries send none or contradict themselves.

use std::time::Duration;

use crate::clock::Timestamp;

/// How long things last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Served without asking.
    pub fresh: Duration,
    /// Served at once and confirmed in the background, counted from the end of `fresh`.
    pub while_revalidate: Duration,
    /// Served when the upstream fails, counted from the end of `fresh`.
    pub if_error: Duration,
    /// How long an absence is believed.
    pub negative: Duration,
}

/// What to do with what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Serve it.
    Fresh,
    /// Serve it and confirm it in the background.
    Usable,
    /// Ask the upstream first.
    Expired,
}

/// Judges a document that was last confirmed at `checked_at`.
#[must_use]
pub fn judge(present: bool, checked_at: Timestamp, now: Timestamp, lifetimes: &Lifetimes) -> Judgement {
    // A clock that was set back makes nothing fresh for longer than its lifetime.
    if now < checked_at {
        return Judgement::Expired;
    }
    let age = now.since(checked_at);
    if !present {
        return if age < lifetimes.negative { Judgement::Fresh } else { Judgement::Expired };
    }
    if age < lifetimes.fresh {
        Judgement::Fresh
    } else if age < lifetimes.fresh.saturating_add(lifetimes.while_revalidate) {
        Judgement::Usable
    } else {
        Judgement::Expired
    }
}

/// Whether a document may be served although the upstream failed to confirm it.
#[must_use]
pub fn serves_after_failure(present: bool, checked_at: Timestamp, now: Timestamp, lifetimes: &Lifetimes) -> bool {
    present && now.since(checked_at) < lifetimes.fresh.saturating_add(lifetimes.if_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes {
        fresh: Duration::from_secs(10),
        while_revalidate: Duration::from_secs(5),
        if_error: Duration::from_secs(100),
        negative: Duration::from_secs(3),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn a_document_ages() {
        let check = |age, expected| assert_eq!(judge(true, at(0), at(age), &LIFETIMES), expected, "{age}");
        check(0, Judgement::Fresh);
        check(9, Judgement::Fresh);
        check(10, Judgement::Usable);
        check(14, Judgement::Usable);
        check(15, Judgement::Expired);
        check(-1, Judgement::Expired);
    }

    #[test]
    fn an_absence_is_believed_briefly_and_never_after_a_failure() {
        assert_eq!(judge(false, at(0), at(2), &LIFETIMES), Judgement::Fresh);
        assert_eq!(judge(false, at(0), at(3), &LIFETIMES), Judgement::Expired);
        assert!(!serves_after_failure(false, at(0), at(1), &LIFETIMES));
        assert!(serves_after_failure(true, at(0), at(109), &LIFETIMES));
        assert!(!serves_after_failure(true, at(0), at(110), &LIFETIMES));
    }
}
