//! Any program, run to its end: with an empty environment but for what the test gives it, and for a bounded time.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The longest a program may run.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs a program in a folder.
pub(crate) async fn run(program: &Path, arguments: &[&str], folder: &Path, environment: &[(&str, String)]) -> Ran {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    assert!(program.exists(), "{name} is not installed; tests/run --install installs every client");
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env_clear().envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
    execute(command, &format!("{name} {}", arguments.join(" ")), &[]).await
}

/// Runs a command with some input, in a process group of its own, which is killed when it takes too long. `line` is how it
/// is called in reports.
pub(super) async fn execute(mut command: Command, line: &str, input: &[u8]) -> Ran {
    let line = line.to_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(mut pipe) = child.stdin.take() {
        // Who needs no input may be gone already.
        let _ = pipe.write_all(input).await;
    }
    let Ok(output) = tokio::time::timeout(LIMIT, child.wait_with_output()).await else {
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        return Ran { code: -1, out: String::new(), err: format!("killed after {LIMIT:?}"), line };
    };
    let output = output.expect("it ran");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr), line }
}

/// What a client did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code; -1 when it was killed.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
    line: String,
}

impl Ran {
    /// Panics with everything it printed unless it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{} failed:\n{}\n{}", self.line, self.out, self.err);
        self
    }

    /// Panics unless it failed and said `words`.
    #[track_caller]
    pub(crate) fn fails_with(self, words: &[&str]) -> Self {
        assert_ne!(self.code, 0, "{} should have failed:\n{}\n{}", self.line, self.out, self.err);
        assert!(
            words.is_empty() || words.iter().any(|word| self.said(word)),
            "{} said none of {words:?}:\n{}\n{}",
            self.line,
            self.out,
            self.err
        );
        self
    }

    /// Whether it printed this anywhere.
    pub(crate) fn said(&self, word: &str) -> bool {
        self.out.contains(word) || self.err.contains(word)
    }
}
