//! Hands over to the command line and turns its result into an exit code.

use std::process::ExitCode;

/// Several threads allocate buffers that others free; the system's allocator locks more for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    packhouse::cli::run(std::env::args_os(), packhouse::cli::unwired())
}
