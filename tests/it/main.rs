//! The program from outside: real processes, real sockets, real package clients.
//!
//! One test binary, so that it links once. Each module is a feature.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected should stop right there")]
#![expect(clippy::disallowed_methods, reason = "tests run beside the server, with the machine's own clock, environment and tasks")]

mod audit;
mod auth;
mod clients_maven;
mod clients_npm;
mod clients_nuget;
mod clients_rubygems;
mod damage;
mod disk;
mod faults;
mod harness;
mod harness_checks;
mod http;
mod large_files;
mod limits;
mod maven_wire;
mod npm_refusals;
mod npm_wire;
mod nuget_upstream;
mod nuget_wire;
mod oci;
mod online;
mod operation;
mod proxy;
mod proxy_faults;
mod rest;
mod rest_clients;
mod rubygems_wire;
mod stampede;
mod tls;
mod upkeep;
mod webhooks;
