//! A small disk of the test's own: a file system in memory that can be filled to its last byte.
//!
//! It is mounted in a mount namespace that one process holds, so that nobody else sees
//! it, and it is gone with that process, however the test ends. The test itself reaches
//! the files through the process's view of the tree (`/proc/…/root`).

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The file system and the process that holds it.
pub(crate) struct Disk {
    holder: Child,
    pid: u32,
}

impl Disk {
    /// Mounts `megabytes` at `place`, which is made.
    ///
    /// Panics where mounting is not permitted, and says what is needed: a test that passed
    /// without its disk would have shown nothing.
    pub(super) async fn mount(place: &Path, megabytes: u32) -> Self {
        std::fs::create_dir_all(place).expect("a folder");
        let script = "mount -t tmpfs -o size=\"$1\"m,mode=0700 packhouse-test \"$0\" && echo mounted && exec sleep 900";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(place).arg(megabytes.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut holder = command.spawn().unwrap_or_else(|error| panic!("unshare (util-linux) does not start: {error}"));
        let mut line = String::new();
        let read = BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).await;
        assert!(
            read.is_ok() && line.trim() == "mounted",
            "this test needs a file system of its own: run it as root (CAP_SYS_ADMIN) where `unshare --mount` and `mount -t tmpfs` are permitted"
        );
        let pid = holder.id().expect("it runs");
        Self { holder, pid }
    }

    /// A program that runs in `folder` and sees the disk. Arguments of the program follow.
    pub(super) fn command(&self, program: &str, folder: &Path) -> Command {
        assert_eq!(self.holder.id(), Some(self.pid), "the disk is gone");
        let mut command = Command::new("nsenter");
        // Entering the namespace moves to its root.
        let script = "cd \"$0\" && exec \"$@\"";
        command.args(["--mount", "--target"]).arg(self.pid.to_string()).args(["--", "sh", "-c", script]).arg(folder).arg(program);
        command
    }

    /// How the test reaches a path on the disk.
    pub(super) fn seen_from_here(&self, path: &Path) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(path.strip_prefix("/").unwrap_or(path))
    }
}
