//! The program from outside: real processes, real sockets, real package clients.
//!
//! One test binary, so that it links once. Each module is a feature.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected should stop right there")]
#![expect(clippy::disallowed_methods, reason = "tests run beside the server, with the machine's own clock, environment and tasks")]

mod clients_npm;
mod harness;
mod harness_checks;
