//! The command line: starts the server, or asks the running one over its socket.
//!
//! Commands that administer are pure up to the request they make
//! (`ask`): a test checks each against the API's own table. `--json` prints the
//! answer as it came, for scripts; else tables and short lines for people. What
//! belongs on a terminal goes to standard output, what went wrong to standard
//! error. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;

use crate::config::Config;
use crate::error::{Error, Kind, Result, Subject};
use crate::format::BaseUrl;
use crate::jobs::Upkeep;

mod admin;
mod ask;
mod commands;
mod show;
#[cfg(test)]
mod tests;

use commands::Command;

/// What the command line calls and does not know: the parts above the modules it may name.
#[derive(Clone, Copy)]
pub struct Parts {
    /// Runs the server until it is told to stop.
    pub serve: fn(Config) -> Result<()>,
    /// The ecosystems there are.
    pub ecosystems: fn() -> Vec<&'static str>,
    /// What points each client of an ecosystem at a base address; `None` for an ecosystem that does not exist.
    pub clients: fn(&str, &BaseUrl) -> Option<Vec<ClientLines>>,
    /// Checks or cleans the data folder while no server runs; returns the report.
    pub upkeep: fn(&Config, Upkeep) -> Result<Value>,
}

/// How one client is pointed at this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLines {
    /// The client, and the file or shell the lines go to: `npm (.npmrc)`.
    pub client: String,
    /// The lines.
    pub lines: String,
}

#[derive(Parser)]
#[command(name = "packhouse", version, about = "Hosts packages and is a pull-through cache of the upstream registries, on the same URLs")]
struct Arguments {
    /// Configuration file [default: $PACKHOUSE_CONFIG, else ./packhouse.toml, else built in]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Runs the command that the arguments name.
pub fn run(arguments: impl IntoIterator<Item = OsString>, parts: Parts) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too; clap knows which stream and code they want.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match execute(arguments, parts) {
        Ok(text) => {
            // A reader that has seen enough closes the pipe; that is no failure.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            for line in error.message().lines() {
                let _ = writeln!(std::io::stderr().lock(), "error: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Does what the command says; the text is for standard output.
fn execute(arguments: Arguments, parts: Parts) -> Result<String> {
    let config = Config::load(arguments.config.as_deref())?;
    match arguments.command {
        Command::Serve => (parts.serve)(config).map(|()| String::new()),
        Command::CheckConfig => {
            let origin = config.file.as_ref().map_or_else(|| "the built-in configuration".to_owned(), |file| file.display().to_string());
            Ok(format!("{origin} is fine\n"))
        }
        Command::Clients { ecosystem } => clients(&config, parts, ecosystem.as_deref()),
        Command::Fsck => upkeep(&config, parts, Upkeep::Fsck),
        Command::Gc => upkeep(&config, parts, Upkeep::Gc),
        command => {
            let ask = ask::ask(command)?;
            let answer = block_on(admin::send(&config.admin_socket(), &ask))?;
            Ok(show::show(&ask.show, &answer, arguments.json))
        }
    }
}

/// What points each client at this server, for one ecosystem or all.
fn clients(config: &Config, parts: Parts, ecosystem: Option<&str>) -> Result<String> {
    let origin = origin(config);
    let mut text = String::new();
    let known = (parts.ecosystems)();
    for name in known.iter().filter(|name| ecosystem.is_none_or(|wanted| wanted == **name)) {
        let base = BaseUrl::new(&format!("{origin}/{name}"));
        for ClientLines { client, lines } in (parts.clients)(name, &base).unwrap_or_default() {
            // Writing to a string cannot fail.
            let _ = write!(text, "# {client}\n{}\n\n", lines.trim_end());
        }
    }
    match ecosystem {
        Some(wanted) if !known.contains(&wanted) => {
            let known = known.join(", ");
            Err(Error::not_found(Subject::Route).saying(format!("there is no ecosystem {wanted:?}, expected one of {known}")))
        }
        _ => Ok(text),
    }
}

/// Where clients on this machine reach the server: the configured address, else the first that is listened on.
fn origin(config: &Config) -> String {
    if let Some(url) = &config.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let server = &config.server;
    let plain = server.listen.first().map(|address| ("http", 80, *address));
    let (scheme, standard, address) = plain.or_else(|| server.tls.listen.first().map(|address| ("https", 443, *address))).unwrap_or((
        "http",
        80,
        SocketAddr::from(([127, 0, 0, 1], 8080)),
    ));
    let host = match address {
        _ if address.ip().is_unspecified() => "localhost".to_owned(),
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    };
    if address.port() == standard { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{}", address.port()) }
}

/// By the running server if there is one, else on the folder itself.
fn upkeep(config: &Config, parts: Parts, work: Upkeep) -> Result<String> {
    let report = match block_on(admin::send(&config.admin_socket(), &ask::upkeep(work))) {
        Err(error) if admin::is_absent(&error) => (parts.upkeep)(config, work)?,
        answer => answer?,
    };
    let text = show::show(&show::Show::Json, &report, true);
    if report["clean"] == Value::Bool(false) {
        // The report is the result also when it is a bad one; the exit code is for scripts.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        return Err(Error::new(Kind::Conflict, Subject::Blob).saying("the data folder is not clean; the report says what was found"));
    }
    Ok(text)
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::new(Kind::Unavailable, Subject::Request).because(error))?.block_on(work)
}
