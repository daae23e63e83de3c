//! Log lines: formatted where they arise, written by a thread of their own.
//!
//! A line costs its request a few hundred nanoseconds of formatting and a copy into
//! a buffer. One thread hands the buffer to the operating system: at once when it
//! was idle, every 20 ms under load, so that a thousand lines are one call. Nothing
//! that serves ever waits for whoever reads the log. When that one falls so far
//! behind that the buffer is full, lines are dropped and counted in
//! `packhouse_log_dropped_lines_total`.
//!
//! What is buffered is written out at a stop and before the message of a panic. A
//! kill that cannot be caught loses the last 20 ms.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::METRICS;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result, Subject};

/// Pause between two writes while lines keep coming.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for the last lines to be written.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How lines look.
    pub format: Format,
    /// What is logged: a level, or a filter such as `info,packhouse::upstream=debug`.
    pub level: String,
    /// Memory for lines that wait to be written; further ones are dropped and counted.
    pub buffer_limit_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Text, level: "info".to_owned(), buffer_limit_bytes: 8 << 20 }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The process's log. Dropping it writes what is buffered and ends the thread.
pub struct Log(Arc<Lines>);

/// The one log of the process, as the metrics are one set: lines come from everywhere.
static LOG: OnceLock<(Format, Arc<Lines>)> = OnceLock::new();

/// Starts the log on standard error, for `tracing`'s events and for [`entry`].
///
/// # Errors
/// For a filter that is none, and when the process has a log already.
pub fn start(config: &Config) -> Result<Log> {
    let filter = EnvFilter::try_new(&config.level).map_err(|error| Error::invalid(Subject::Config, format!("log.level: {error}")))?;
    let lines = Arc::new(Lines::new(config.buffer_limit_bytes));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_timer(Stamp).with_writer(Whole(Arc::clone(&lines)));
    let builder = builder.with_ansi(io::stderr().is_terminal());
    let started = match config.format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Text => builder.try_init(),
    };
    started.map_err(|error| Error::internal(Subject::Config, error))?;
    let writing = Arc::clone(&lines);
    let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || writing.write_to(io::stderr()));
    thread.map_err(|error| Error::internal(Subject::Config, error))?;
    // A second log was refused above.
    let _ = LOG.set((config.format, Arc::clone(&lines)));
    let at_panic = Arc::clone(&lines);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        at_panic.flush();
        usual(panic);
    }));
    Ok(Log(lines))
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Logs an event that happens so often that it does not go through `tracing`. The line looks as one of its own.
/// The caller has asked [`tracing::enabled!`] whether it is wanted.
pub fn entry(target: &str, message: &str, fields: impl FnOnce(&mut Entry<'_>)) {
    thread_local! {
        static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let Some((format, lines)) = LOG.get() else { return };
    LINE.with_borrow_mut(|line| {
        line.clear();
        format_entry(line, *format, Clock::system().now(), (target, message), fields);
        lines.push(line);
        line.shrink_to(64 << 10);
    });
}

fn format_entry(line: &mut Vec<u8>, format: Format, now: Timestamp, (target, message): (&str, &str), fields: impl FnOnce(&mut Entry<'_>)) {
    match format {
        Format::Text => {
            stamp(now, |text| line.extend_from_slice(text));
            // Writing to memory cannot fail, here and below.
            let _ = write!(line, "  INFO {target}: {message}");
            fields(&mut Entry { line, format });
        }
        Format::Json => {
            line.extend_from_slice(b"{\"timestamp\":\"");
            stamp(now, |text| line.extend_from_slice(text));
            line.extend_from_slice(b"\",\"level\":\"INFO\"");
            let mut entry = Entry { line, format };
            entry.text("message", message);
            fields(&mut entry);
            entry.text("target", target);
            line.push(b'}');
        }
    }
    line.push(b'\n');
}

/// The fields of a line in the making.
pub struct Entry<'a> {
    line: &'a mut Vec<u8>,
    format: Format,
}

impl Entry<'_> {
    /// A text, quoted in every format.
    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            self.line.push(b'"');
            self.line.extend_from_slice(value.as_bytes());
            self.line.push(b'"');
            return;
        }
        let _ = match self.format {
            Format::Text => write!(self.line, "{value:?}"),
            Format::Json => serde_json::to_writer(&mut *self.line, value).map_err(io::Error::from),
        };
    }

    /// A word of our own, without quotes in text.
    pub fn word(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let _ = match self.format {
            Format::Text => write!(self.line, "{value}"),
            Format::Json => write!(self.line, "\"{value}\""),
        };
    }

    /// A number or a truth value.
    pub fn plain(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let _ = write!(self.line, "{value}");
    }

    fn name(&mut self, name: &str) {
        match self.format {
            Format::Text => {
                self.line.push(b' ');
                self.line.extend_from_slice(name.as_bytes());
                self.line.push(b'=');
            }
            Format::Json => {
                self.line.extend_from_slice(b",\"");
                self.line.extend_from_slice(name.as_bytes());
                self.line.extend_from_slice(b"\":");
            }
        }
    }
}

/// Gives the instant in RFC 3339. Dates are worked out once a second.
fn stamp(now: Timestamp, take: impl FnOnce(&[u8])) {
    thread_local! {
        static SECOND: Cell<(i64, [u8; 24])> = const { Cell::new((i64::MIN, [0; 24])) };
    }
    let (second, millis) = (now.as_secs(), now.as_millis().rem_euclid(1000));
    let (known, mut text) = SECOND.get();
    if known != second {
        let whole = now.to_string();
        if whole.len() != text.len() {
            return take(whole.as_bytes());
        }
        text.copy_from_slice(whole.as_bytes());
    }
    for (place, divisor) in [(20, 100), (21, 10), (22, 1)] {
        text[place] = b'0' + u8::try_from(millis / divisor % 10).unwrap_or(0);
    }
    SECOND.set((second, text));
    take(&text);
}

/// The present time, for `tracing`'s lines.
struct Stamp;

impl FormatTime for Stamp {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        write!(out, "{}", Clock::system().now())
    }
}

/// Lines that wait to be written.
struct Lines {
    limit_bytes: usize,
    state: Mutex<State>,
    /// Wakes the thread.
    arrived: Condvar,
    /// Wakes who waits for the last lines.
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread is at a write.
    writing: bool,
    /// The thread sleeps until a line comes.
    idle: bool,
    /// Somebody waits for the last lines.
    hurry: bool,
    closed: bool,
}

impl State {
    fn is_done(&self) -> bool {
        self.waiting.is_empty() && !self.writing
    }
}

impl Lines {
    fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, state: Mutex::default(), arrived: Condvar::new(), written: Condvar::new() }
    }

    /// Takes in whole lines, or drops them if there is no room.
    fn push(&self, lines: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + lines.len() > self.limit_bytes || state.closed {
            drop(state);
            return METRICS.dropped_lines(count(lines));
        }
        state.waiting.extend_from_slice(lines);
        let sleeps = std::mem::take(&mut state.idle);
        drop(state);
        if sleeps {
            self.arrived.notify_one();
        }
    }

    /// The thread's work.
    fn write_to(&self, mut out: impl io::Write) {
        let mut batch = Vec::new();
        loop {
            {
                let mut state = self.lock();
                while state.waiting.is_empty() {
                    if state.closed {
                        return;
                    }
                    state.idle = true;
                    state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.idle = false;
                state.writing = true;
                std::mem::swap(&mut state.waiting, &mut batch);
            }
            if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
                METRICS.dropped_lines(count(&batch));
            }
            batch.clear();
            batch.shrink_to(1 << 20);
            let mut state = self.lock();
            state.writing = false;
            self.written.notify_all();
            let pause = self.arrived.wait_timeout_while(state, PAUSE, |state| !state.hurry && !state.closed);
            drop(pause);
        }
    }

    /// Waits a while for what is buffered to be written.
    fn flush(&self) {
        // The thread itself cannot wait for itself.
        if std::thread::current().name() == Some("log") {
            return;
        }
        let mut state = self.lock();
        state.hurry = true;
        self.arrived.notify_all();
        let waited = self.written.wait_timeout_while(state, LAST_WAIT, |state| !state.is_done());
        waited.unwrap_or_else(PoisonError::into_inner).0.hurry = false;
    }

    fn close(&self) {
        self.flush();
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// `tracing` writes each event with one call.
#[derive(Clone)]
struct Whole(Arc<Lines>);

impl io::Write for Whole {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Whole {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that takes nothing before it is let.
    #[derive(Clone, Default)]
    struct Slow(Arc<Gate>);

    #[derive(Default)]
    struct Gate {
        taken: Mutex<(bool, Vec<u8>)>,
        opened: Condvar,
    }

    impl Slow {
        fn open(&self) {
            self.0.taken.lock().unwrap().0 = true;
            self.0.opened.notify_all();
        }

        fn read(&self) -> String {
            String::from_utf8(self.0.taken.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl io::Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut taken = self.0.opened.wait_while(self.0.taken.lock().unwrap(), |(open, _)| !*open).unwrap();
            taken.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_and_the_last_ones_at_the_close() {
        let (lines, out) = (Arc::new(Lines::new(1 << 20)), Slow::default());
        out.open();
        let (writing, writer) = (Arc::clone(&lines), out.clone());
        let thread = std::thread::spawn(move || writing.write_to(writer));
        for number in 0..1000 {
            lines.push(format!("{number}\n").as_bytes());
        }
        lines.close();
        assert_eq!(out.read().lines().count(), 1000);
        assert!(out.read().ends_with("998\n999\n"));
        thread.join().unwrap();
    }

    #[test]
    fn who_does_not_read_holds_nobody_up() {
        let (lines, out) = (Arc::new(Lines::new(100)), Slow::default());
        let (writing, writer) = (Arc::clone(&lines), out.clone());
        let thread = std::thread::spawn(move || writing.write_to(writer));
        let before = METRICS.dropped_lines_so_far();
        for _ in 0..1000 {
            lines.push(b"a line of twenty b.\n");
        }
        // One full buffer may be at the reader and one may wait.
        let dropped = METRICS.dropped_lines_so_far() - before;
        assert!(dropped >= 990, "{dropped}");
        out.open();
        lines.close();
        thread.join().unwrap();
        assert!(!out.read().is_empty() && out.read().len() <= 200);
    }

    fn sample(format: Format) -> String {
        let mut line = Vec::new();
        format_entry(&mut line, format, Timestamp::from_millis(1_700_000_000_045), ("some::target", "said"), |entry| {
            entry.text("plain", "a b");
            entry.text("odd", "a\"\u{1b}é");
            entry.word("word", "GET");
            entry.plain("number", 7);
            entry.plain("truth", true);
        });
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_is_the_same_as_tracing_writes_it() {
        let text = "2023-11-14T22:13:20.045Z  INFO some::target: said plain=\"a b\" odd=\"a\\\"\\u{1b}é\" word=GET number=7 truth=true\n";
        assert_eq!(sample(Format::Text), text);
        let value: serde_json::Value = serde_json::from_str(&sample(Format::Json)).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"timestamp": "2023-11-14T22:13:20.045Z", "level": "INFO", "message": "said", "plain": "a b",
                "odd": "a\"\u{1b}é", "word": "GET", "number": 7, "truth": true, "target": "some::target"})
        );
    }

    #[test]
    fn the_date_follows_the_clock() {
        for millis in [0, 999, 1000, 1_700_000_000_045, 1_700_000_000_046, 1_699_999_999_999] {
            let now = Timestamp::from_millis(millis);
            stamp(now, |text| assert_eq!(std::str::from_utf8(text).unwrap(), now.to_string()));
        }
    }
}
