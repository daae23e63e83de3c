//! The dependency trees of real applications from the real registry. `tests/run --online` runs these; nothing else does.
//!
//! The registry's address is asked from npm, never written down. The server reaches it
//! through a forward proxy on loopback, which the test then cuts.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Client, Project, Server, Setup, Tool, Tunnel};

/// npm's built-in default registry.
async fn public_registry() -> String {
    let folder = Project::depending_on(Tool::Npm, &[]);
    let ran = Client::unset(Tool::Npm).run(folder.path(), &["config", "get", "registry"]).await.ok();
    ran.out.trim().to_owned()
}

/// A single page application on Vite and React, with the tools such a project has.
fn vite_react() -> Value {
    json!({
        "name": "spa", "version": "0.0.0", "private": true, "type": "module",
        "dependencies": {
            "react": "^18.3.1", "react-dom": "^18.3.1", "react-router-dom": "^6.26.0", "@tanstack/react-query": "^5.51.0",
            "@mui/material": "^5.16.0", "@emotion/react": "^11.13.0", "@emotion/styled": "^11.13.0", "zustand": "^4.5.0", "axios": "^1.7.0"
        },
        "devDependencies": {
            "vite": "^5.4.0", "@vitejs/plugin-react": "^4.3.0", "typescript": "~5.5.0", "eslint": "^8.57.0", "@typescript-eslint/parser": "^7.18.0",
            "@typescript-eslint/eslint-plugin": "^7.18.0", "eslint-plugin-react-hooks": "^4.6.0", "vitest": "^2.0.0", "jsdom": "^24.1.0",
            "@testing-library/react": "^16.0.0", "@testing-library/dom": "^10.4.0", "tailwindcss": "^3.4.0", "postcss": "^8.4.0", "autoprefixer": "^10.4.0",
            "@types/react": "^18.3.0", "@types/react-dom": "^18.3.0", "storybook": "^8.2.0", "prettier": "^3.3.0"
        }
    })
}

/// A Next.js application.
fn next() -> Value {
    json!({
        "name": "site", "version": "0.1.0", "private": true,
        "dependencies": { "next": "^14.2.0", "react": "^18.3.1", "react-dom": "^18.3.1", "next-auth": "^4.24.0", "@prisma/client": "^5.17.0", "zod": "^3.23.0" },
        "devDependencies": {
            "typescript": "^5.5.0", "@types/node": "^20.14.0", "@types/react": "^18.3.0", "eslint": "^8.57.0", "eslint-config-next": "^14.2.0",
            "jest": "^29.7.0", "jest-environment-jsdom": "^29.7.0", "@testing-library/react": "^16.0.0", "@testing-library/dom": "^10.4.0",
            "tailwindcss": "^3.4.0", "postcss": "^8.4.0", "sass": "^1.77.0"
        }
    })
}

/// A NestJS service.
fn nest() -> Value {
    json!({
        "name": "service", "version": "0.0.1", "private": true,
        "dependencies": {
            "@nestjs/common": "^10.3.0", "@nestjs/core": "^10.3.0", "@nestjs/platform-express": "^10.3.0", "@nestjs/typeorm": "^10.0.0", "@nestjs/config": "^3.2.0",
            "typeorm": "^0.3.20", "pg": "^8.12.0", "reflect-metadata": "^0.2.0", "rxjs": "^7.8.0", "class-validator": "^0.14.0", "class-transformer": "^0.5.0"
        },
        "devDependencies": {
            "@nestjs/cli": "^10.4.0", "@nestjs/schematics": "^10.1.0", "@nestjs/testing": "^10.3.0", "@types/express": "^4.17.0", "@types/jest": "^29.5.0",
            "@types/node": "^20.14.0", "@types/supertest": "^6.0.0", "jest": "^29.7.0", "supertest": "^7.0.0", "ts-jest": "^29.2.0", "ts-loader": "^9.5.0",
            "ts-node": "^10.9.0", "typescript": "^5.5.0", "eslint": "^8.57.0", "prettier": "^3.3.0"
        }
    })
}

/// The lock file with every `resolved` cut down to what follows the registry's address.
fn without_origins(text: &str, registry: &str) -> Value {
    let mut lock: Value = serde_json::from_str(text).expect("a lock file");
    let packages = lock["packages"].as_object_mut().expect("packages");
    for entry in packages.values_mut() {
        if let Some(resolved) = entry["resolved"].as_str() {
            let path = resolved.strip_prefix(registry).unwrap_or_else(|| panic!("{resolved} is not below {registry}"));
            entry["resolved"] = json!(path);
        } else if let Some(entry) = entry.as_object_mut() {
            // Indexing above made a null; npm wrote no such key.
            entry.remove("resolved");
        }
    }
    lock
}

const LOCK_ONLY: [&str; 6] = ["install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
const CLEAN: [&str; 5] = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];

/// What npm's own TLS needs where a company signs the certificates anew.
fn authorities() -> Vec<(&'static str, String)> {
    ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"].into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?))).collect()
}

async fn npm(registry: &str, folder: &Path, arguments: &[&str]) {
    let authorities = authorities();
    let environment: Vec<(&str, &str)> = authorities.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Client::new(Tool::Npm, registry, None).run_with(folder, arguments, &environment).await.ok();
}

/// Locks, compares with the lock npm writes without us, installs, cuts the network, and installs again.
async fn application(manifest: Value) {
    let registry = public_registry().await;
    let tunnel = Tunnel::start();
    let server: Server = Setup::default().upstream_with("public", &registry, "").environment("HTTPS_PROXY", &tunnel.url()).start().await;

    let ours = Project::of(Tool::Npm, &manifest);
    npm(&server.registry(), ours.path(), &LOCK_ONLY).await;
    let theirs = Project::of(Tool::Npm, &manifest);
    npm(&registry, theirs.path(), &LOCK_ONLY).await;
    let lock = ours.read("package-lock.json");
    let (ours_plain, theirs_plain) =
        (without_origins(&lock, &server.registry()), without_origins(&theirs.read("package-lock.json"), &registry));
    let count = ours_plain["packages"].as_object().map_or(0, serde_json::Map::len);
    assert!(count > 300, "only {count} packages: not the tree of a real application");
    assert_eq!(ours_plain, theirs_plain);

    npm(&server.registry(), ours.path(), &CLEAN).await;
    let installed = list(ours.path());
    assert!(tunnel.tried() > 0, "the server did not go through the proxy");
    tunnel.cut();
    ours.forget_install();
    npm(&server.registry(), ours.path(), &CLEAN).await;
    assert_eq!(list(ours.path()), installed);
    // The packuments too: a lock file from nothing, without a network.
    let again = Project::of(Tool::Npm, &manifest);
    npm(&server.registry(), again.path(), &LOCK_ONLY).await;
    assert_eq!(again.read("package-lock.json"), lock);
    server.finish().await;
}

/// Every file below `node_modules` with its length.
fn list(folder: &Path) -> String {
    let found = Command::new("find").args(["node_modules", "-type", "f", "-printf", "%s %p\n"]).current_dir(folder).output().expect("find");
    let mut lines: Vec<&str> =
        std::str::from_utf8(&found.stdout).expect("text").lines().filter(|line| !line.ends_with(".package-lock.json")).collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[tokio::test]
async fn a_vite_and_react_application() {
    application(vite_react()).await;
}

#[tokio::test]
async fn a_next_application() {
    application(next()).await;
}

#[tokio::test]
async fn a_nest_service() {
    application(nest()).await;
}
