//! packhouse: hosts packages and is a pull-through cache of upstream registries, on the same URLs.
//!
//! # Bird's eye
//!
//! A request comes in through `server`, which finds the ecosystem by host or path
//! (`server::router`) and who is asking (`identity`). The ecosystem turns the path
//! into a typed request and asks the `registry` for one of three things: an index
//! document, a file, or a publish. The registry asks `access` for a grant, looks
//! the package up in the `catalog`, and takes bytes from `blob` or, for names that
//! nobody hosts, from `upstream`. What was written is a batch in the `store`.
//!
//! What memory can answer takes a shorter way first, which makes no future: `server::hit` asks the ecosystem, and that
//! looks by `registry::look`. The right is decided by the same function, and whatever it cannot answer goes the way above.
//!
//! # Where things are
//!
//! | module | what it is |
//! |---|---|
//! | `error` | the one error type: condition, subject, message, cause |
//! | `clock`, `digest`, `name` | present time; content digests; names in their one spelling |
//! | `archive`, `xml` | zip archives and XML, within bounds |
//! | `http` | bodies, conditional requests, ranges, negotiation, paths: mostly pure |
//! | `observe` | every metric, and the notes and the writer of the log's lines |
//! | `package` | packages, versions, files, roles as plain data that all formats share |
//! | `rules` | what an owner lays down about a package's tags and versions, as plain data |
//! | `format` | what a format must be able to do: parse, merge, filter, render |
//! | `store` | ordered keys with conditional batches, on redb behind a journal or in memory |
//! | `blob` | files by digest: publish, cache, eviction, sweep, check; growing files that many follow (`blob::spool`); small ones synced together (`journal`) or put in one file (`segment`) |
//! | `event` | the log of what happened to packages and accounts, and the outbox of what is still to be told |
//! | `identity` | users, organisations, teams, repositories, tokens, reserved names |
//! | `usage` | counts of downloads, summed in memory |
//! | `access` | who may do what: one pure function, and the grant that proves it said yes |
//! | `catalog` | hosted packages: looking up, and changes as batches |
//! | `upstream` | upstream registries: guard, breaker, freshness, one fetch for many, resuming |
//! | `webhook` | webhooks, their queues and logs; signed sending past the guard |
//! | `registry` | the engine that all ecosystems share: plan, document, artifact, publish, removal, answers out of memory |
//! | `ecosystem` | the border to the server, and a folder for each ecosystem |
//! | `api` | administration over a local socket, GitHub's REST API (`api::rest`), and who is told of events (`api::webhooks`) |
//! | `server` | listening, TLS, routing by host and path, one request from head to log line, files sent by the kernel |
//! | `jobs` | periodic work as a table; fsck and gc |
//! | `config`, `app`, `cli` | one file checked as a whole; the only wiring; the command line |
//!
//! # Floors
//!
//! The paragraphs of `mod` lines below are floors, lowest first. A module imports
//! only from its own paragraph's modules' submodules and from paragraphs above it
//! in this file. `tests/house.rs` checks that, and the other rules a machine can check:
//!
//! 1. Imports point down.
//! 2. Formats do no IO: in an ecosystem's folder only the files that answer requests may be async. They are named for
//!    what the client does: `mod.rs` (read), `publish.rs`, `upload.rs`, `change.rs`, `account.rs`, `token.rs`, `search.rs`,
//!    `audit.rs`. All others are bytes to types to bytes.
//! 3. One line in `ecosystem::ALL` registers an ecosystem, and nothing outside `ecosystem` names one.
//! 4. Past the package head everything is reached with an `access::Grant`, which only `access` makes.
//! 5. A change of truth is a `store::Batch`, built by plain functions, committed at once.
//! 6. Truth (`state.redb`, `state.journal`, hosted blobs) and cache (`cache.redb`, cached blobs) never share a file.
//! 7. Everything has a limit, named in a `Config` with its unit.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests start tasks and wait as they like"))]

pub mod error;

pub mod archive;
pub mod clock;
pub mod digest;
pub mod name;
pub mod xml;

pub mod http;
pub mod observe;
pub mod rules;

pub mod package;

pub mod format;
pub mod store;

pub mod blob;

pub mod event;

pub mod identity;
pub mod usage;

pub mod access;

pub mod catalog;
pub mod upstream;

pub mod webhook;

pub mod registry;

pub mod ecosystem;

pub mod api;

pub mod jobs;
pub mod server;

pub mod config;

pub mod app;

pub mod cli;
