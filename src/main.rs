//! Hands over to the command line and turns its result into an exit code.

use std::process::ExitCode;

use packhouse::cli::{ClientLines, Parts};
use packhouse::format::BaseUrl;
use packhouse::{app, ecosystem};

/// Several threads allocate buffers that others free; the system's allocator locks more for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    packhouse::cli::run(std::env::args_os(), Parts { serve: app::serve, ecosystems, clients, upkeep: app::upkeep })
}

fn ecosystems() -> Vec<&'static str> {
    ecosystem::ALL.iter().map(|ecosystem| ecosystem.info().name).collect()
}

fn clients(name: &str, base: &BaseUrl) -> Option<Vec<ClientLines>> {
    let line =
        |snippet: ecosystem::Snippet| ClientLines { client: format!("{} ({})", snippet.client, snippet.place), lines: snippet.lines };
    Some(ecosystem::find(name)?.clients(base).into_iter().map(line).collect())
}
