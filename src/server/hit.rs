//! The way of a request that memory can answer: plain functions, and no future.
//!
//! Whatever cannot be answered so, refusals too, goes the ordinary way from its beginning.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::time::Instant;

use super::State;
use super::origin::Origin;
use super::router::{self, Located};
use super::serve::note_caller;
use crate::format::BaseParts;
use crate::http::{HeaderValue, Method, Response, header, request};
use crate::identity::Identified;
use crate::observe::Trace;
use crate::registry::Look;

/// Answers a request if memory holds who asks, what they may, and what they ask for.
pub(super) fn hit(state: &State, parts: &request::Parts, origin: &Origin<'_>, trace: &Trace, started: Instant) -> Option<Response> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    let own_host = state.config.hosts.as_deref().and_then(|base| router::own_host(origin.host, base));
    let Located::Ecosystem(ecosystem, mount, path) = router::locate(own_host, parts.uri.path()) else { return None };
    let info = ecosystem.info();
    if mount.is_empty() && own_host.is_none() {
        // What clients send to the origin's root is seldom asked for.
        return None;
    }
    if !state.enabled.iter().any(|name| name == info.name) {
        return None;
    }
    let now = state.registry.clock().now();
    let key = info.key_header.filter(|_| !info.sessions).and_then(|name| parts.headers.get(name));
    let identity = state.registry.identity();
    let Identified { caller, session } = identity.identify_in_memory(&parts.headers, key, info.sessions, (now, started))?;
    let look = Look {
        registry: &state.registry,
        caller: &caller,
        session: session.as_deref(),
        method: &parts.method,
        path,
        query: parts.uri.query(),
        headers: &parts.headers,
        base: BaseParts(&origin.url, mount),
        host: origin.host,
        trace,
        now,
    };
    // A defect must cost its own request and no other; the ordinary way will say what it was.
    let mut response = catch_unwind(AssertUnwindSafe(|| ecosystem.hit(&look))).ok().flatten()?;
    trace.note(|notes| notes.ecosystem = Some(info.name));
    note_caller(trace, &caller);
    // What says nothing of caches was made for this caller alone.
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(const { HeaderValue::from_static("no-store") });
    Some(response)
}
