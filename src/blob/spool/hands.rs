//! The threads that hash and write what is arriving. They stand behind those that answer requests.
//!
//! A fill of 1 GB keeps a core busy for a second. With as many of them as cores, whoever asks for something small would wait for
//! a turn of the scheduler, which is milliseconds long. These threads are nicer by [`NICER`], so an answer goes first; while nobody
//! asks they have the machine as before. A process without privileges cannot take its niceness back, so they are threads of
//! their own, and not those that the rest of the program does its blocking work with.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

/// How much nicer; each step is a tenth less of a core that others want too.
const NICER: i32 = 5;

/// A runtime for its blocking threads alone: nothing drives it, and a thread that has had no work for ten seconds ends.
static HANDS: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let nicer = || {
        // Who may not be nicer works all the same.
        let _ = rustix::process::nice(NICER);
    };
    Builder::new_current_thread().thread_name("spool").on_thread_start(nicer).build().ok()
});

/// Does work on such a thread. What is not begun when the process ends is not done.
pub(super) fn work(work: impl FnOnce() + Send + 'static) {
    match &*HANDS {
        Some(hands) => drop(hands.spawn_blocking(work)),
        None => drop(tokio::task::spawn_blocking(work)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_nicer_and_nobody_else_is() {
        let ours = rustix::process::nice(0).unwrap();
        let (said, hears) = std::sync::mpsc::channel();
        work(move || said.send(rustix::process::nice(0).unwrap()).unwrap());
        assert_eq!(hears.recv().unwrap(), (ours + NICER).min(19));
        assert_eq!(rustix::process::nice(0).unwrap(), ours);
    }
}
