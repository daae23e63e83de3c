//! Every metric, the notes that become a request's log line, and the log itself.
//!
//! One line per request says who asked for what, where the answer came from, how
//! many bytes left and how long it took. It never holds a token, nor a name that
//! the caller was told does not exist.

use std::fmt::Display;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::name::PackageName;

pub mod log;

/// Notes about one request, taken on the way down and written once at the end.
#[derive(Default)]
pub struct Trace {
    notes: Mutex<Notes>,
}

/// Requests sent to upstreams on behalf of one request. Clones share the count.
///
/// It follows the work and not the call: a task that fetches for a request is given
/// the request's count with [`Tries::counting`].
#[derive(Clone, Debug, Default)]
pub struct Tries(Arc<AtomicU32>);

tokio::task_local! {
    static TRIES: Tries;
}

impl Tries {
    /// The count of the work that is going on in this task.
    #[must_use]
    pub fn current() -> Self {
        TRIES.try_with(Self::clone).unwrap_or_default()
    }

    /// Does work whose upstream requests count here.
    pub fn counting<T>(self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        TRIES.scope(self, work)
    }

    /// Adds one.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a [`Trace`] holds.
#[derive(Default)]
pub struct Notes {
    /// The ecosystem that answered.
    pub ecosystem: Option<&'static str>,
    /// The caller, shown as `login#token-id`.
    pub caller: Option<Arc<dyn Display + Send + Sync>>,
    /// The canonical package name, once the caller may know of it.
    pub package: Option<PackageName>,
    /// The file or version.
    pub item: Option<Arc<str>>,
    /// Where the answer came from, in one word.
    pub verdict: Option<&'static str>,
    /// The error's kind and its causes, for the log alone.
    pub error: Option<String>,
}

impl Trace {
    /// Takes a note.
    pub fn note(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The notes, once all are taken.
    #[must_use]
    pub fn into_notes(self) -> Notes {
        self.notes.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process's metrics.
pub struct Metrics {
    registry: Registry,
    requests: ByPair,
    verdicts: ByPair,
    bytes_sent: IntCounter,
    bytes_fetched: IntCounter,
    upstream_requests: IntCounterVec,
    deliveries: IntCounterVec,
    seconds: Histogram,
    connections: IntGauge,
    cached_bytes: IntGauge,
    cached_blobs: IntGauge,
    free_bytes: IntGauge,
    cold_reads: IntCounter,
    dropped_lines: IntCounter,
}

/// Counters by two labels, of which there are few and always the same words. Each is looked up by its labels' hash once, and by
/// where the words stand from then on: a hit counts twice, and that was one of its thirty parts.
struct ByPair {
    all: IntCounterVec,
    found: ArcSwap<Vec<(Pair, IntCounter)>>,
}

type Pair = [&'static str; 2];

/// Most pairs that are found so.
const PAIRS: usize = 64;

impl From<IntCounterVec> for ByPair {
    fn from(all: IntCounterVec) -> Self {
        Self { all, found: ArcSwap::default() }
    }
}

impl ByPair {
    fn add(&self, first: &'static str, second: &'static str) {
        let is_it = |pair: &Pair| std::ptr::eq(pair[0], first) && std::ptr::eq(pair[1], second);
        let found = self.found.load();
        if let Some((_, counter)) = found.iter().find(|(pair, _)| is_it(pair)) {
            return counter.inc();
        }
        let counter = self.all.with_label_values(&[first, second]);
        counter.inc();
        if found.len() < PAIRS {
            // Somebody else's may be lost here and is then found the next time.
            self.found.store(Arc::new(found.iter().cloned().chain([([first, second], counter)]).collect()));
        }
    }
}

/// The process's metrics. One set per process: counters are added to from everywhere and read in one place.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| kept(&registry, IntCounter::new(name, help));
        let counters = |name: &str, help: &str, labels: &[&str]| kept(&registry, IntCounterVec::new(Opts::new(name, help), labels));
        let gauge = |name: &str, help: &str| kept(&registry, IntGauge::new(name, help));
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
        let seconds = HistogramOpts::new("packhouse_request_seconds", "Time from a request's head to its answer's head").buckets(buckets);
        Self {
            requests: counters("packhouse_requests_total", "Requests answered", &["ecosystem", "status"]).into(),
            verdicts: counters("packhouse_cache_total", "Answers by where they came from", &["ecosystem", "verdict"]).into(),
            bytes_sent: counter("packhouse_sent_bytes_total", "Bytes of bodies sent to clients"),
            bytes_fetched: counter("packhouse_fetched_bytes_total", "Bytes of bodies received from upstreams"),
            upstream_requests: counters("packhouse_upstream_requests_total", "Requests sent to upstreams", &["upstream", "status"]),
            deliveries: counters("packhouse_webhook_deliveries_total", "Tries to deliver to webhooks", &["event", "outcome"]),
            seconds: kept(&registry, Histogram::with_opts(seconds)),
            connections: gauge("packhouse_connections", "Open client connections"),
            cached_bytes: gauge("packhouse_cached_bytes", "Bytes of cached blobs"),
            cached_blobs: gauge("packhouse_cached_blobs", "Cached blobs"),
            free_bytes: gauge("packhouse_disk_free_bytes", "Free space on the data folder's disk"),
            cold_reads: counter("packhouse_cold_reads_total", "Reads of stored files that had to wait for the disk"),
            dropped_lines: counter("packhouse_log_dropped_lines_total", "Log lines dropped because nobody read them in time"),
            registry,
        }
    }

    /// Counts an answered request. `since` is the time from its head to its answer's head.
    pub fn answered(&self, notes: &Notes, status: u16, since: Duration) {
        let ecosystem = notes.ecosystem.unwrap_or("none");
        self.requests.add(ecosystem, status_class(status));
        if let Some(verdict) = notes.verdict {
            self.verdicts.add(ecosystem, verdict);
        }
        self.seconds.observe(since.as_secs_f64());
    }

    /// Counts bytes sent to a client.
    pub fn sent(&self, bytes: u64) {
        self.bytes_sent.inc_by(bytes);
    }

    /// Counts bytes received from an upstream.
    pub fn fetched(&self, bytes: u64) {
        self.bytes_fetched.inc_by(bytes);
    }

    /// Counts a request sent to an upstream; `status` is `None` when no answer came.
    pub fn asked_upstream(&self, upstream: &str, status: Option<u16>) {
        self.upstream_requests.with_label_values(&[upstream, status.map_or("none", status_class)]).inc();
    }

    /// Counts what became of a try to tell a webhook of an event.
    pub fn told(&self, event: &str, outcome: &'static str) {
        self.deliveries.with_label_values(&[event, outcome]).inc();
    }

    /// Counts an opened (`1`) or closed (`-1`) client connection.
    pub fn connection(&self, change: i64) {
        self.connections.add(change);
    }

    /// Sets what the blobs take.
    pub fn blobs(&self, count: u64, bytes: u64, free: u64) {
        let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.cached_blobs.set(whole(count));
        self.cached_bytes.set(whole(bytes));
        self.free_bytes.set(whole(free));
    }

    /// Counts reads of stored files that had to wait for the disk.
    pub fn cold_reads(&self, reads: u64) {
        self.cold_reads.inc_by(reads);
    }

    /// Counts log lines that were not written.
    pub fn dropped_lines(&self, lines: u64) {
        self.dropped_lines.inc_by(lines);
    }

    #[cfg(test)]
    fn dropped_lines_so_far(&self) -> u64 {
        self.dropped_lines.get()
    }

    /// All metrics in Prometheus' text form.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        // Encoding into memory fails only for a metric without a name.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}

/// Takes a metric into the registry.
fn kept<M: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    #[expect(clippy::expect_used, reason = "names and labels are the constants above; a bad one fails in every run")]
    let metric = metric.expect("a metric's name and labels are well formed");
    // Registering fails for a name used twice, which the same holds for; the metric still counts.
    let _ = registry.register(Box::new(metric.clone()));
    metric
}

fn status_class(status: u16) -> &'static str {
    match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_text() {
        METRICS.answered(&Notes { ecosystem: Some("test"), verdict: Some("hit"), ..Notes::default() }, 200, Duration::from_millis(3));
        let text = METRICS.text();
        assert!(text.contains("packhouse_requests_total{ecosystem=\"test\",status=\"2xx\"} 1"), "{text}");
        assert!(text.contains("packhouse_cache_total{ecosystem=\"test\",verdict=\"hit\"} 1"));
    }
}
