//! What the tests are written with: the real server, a scripted upstream, real package clients, and callers of our own.
//!
//! A test starts what it needs, in folders and on ports of its own, so that all tests
//! may run at once. Nothing is skipped: a test that lacks its client fails and says
//! what installs it.

mod caller;
mod certificates;
mod clients;
mod containers;
mod disk;
mod image;
mod package;
mod program;
mod raw;
mod registry;
mod server;
mod tunnel;
mod upstream;

pub(crate) use caller::{Answer, Ask, Caller};
pub(crate) use certificates::{Authority, Identity};
pub(crate) use clients::{Client, Project, Tool, clients};
pub(crate) use containers::{Dock, Engine};
pub(crate) use image::{Blob, EMPTY, INDEX, Image, LAYER, MANIFEST};
pub(crate) use package::{Package, gunzip, integrity, shasum};
pub(crate) use program::{Ran, run};
pub(crate) use raw::{Exchange, exchange};
pub(crate) use registry::{PASSWORD, Registry};
pub(crate) use server::{Server, Setup, Token, files_below};
pub(crate) use tunnel::Tunnel;
pub(crate) use upstream::{Fault, Upstream};

use std::time::Duration;

/// Waits until `done` says so, looking every few milliseconds; panics with `what` after ten seconds.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(tokio::time::Instant::now() < end, "waited ten seconds in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A free port below the range that the system hands to outgoing connections, so that nobody takes it
/// between our looking and the server's binding, nor while the server is down for a restart.
pub(crate) fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 150).expect("below 150") * 100;
    for _ in 0..2000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 15_000 + (own + step) % 17_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 15000 and 32000");
}
