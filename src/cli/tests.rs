//! Every command against the API's table, and against a served API.

use std::sync::Arc;

use clap::CommandFactory as _;

use super::*;
use crate::api::{ENDPOINTS, socket::Socket, tests::over};
use crate::http::path;
use crate::registry::fixture::fixture;

const PARTS: Parts = Parts {
    serve: |_| Ok(()),
    ecosystems: || vec!["one", "two"],
    clients: |name, base| Some(vec![ClientLines { client: format!("{name} client"), lines: format!("registry={}/", base.as_str()) }]),
    upkeep: |_, work| Ok(serde_json::json!({ "offline": format!("{work:?}") })),
};

fn parse(line: &str) -> Arguments {
    Arguments::try_parse_from(std::iter::once("packhouse").chain(line.split(' '))).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn the_arguments_are_consistent_and_all_have_help() {
    fn walk(command: &clap::Command) {
        assert!(command.get_name() == "help" || command.get_about().is_some(), "{}", command.get_name());
        command.get_subcommands().for_each(walk);
    }
    let command = Arguments::command();
    command.clone().debug_assert();
    walk(&command);
}

/// Every command, with the request it makes, which is in the API's own table.
#[test]
fn every_command_asks_an_endpoint_that_exists() {
    let lines = [
        ("status", "GET /status"),
        ("audit", "GET /audit?limit=1000"),
        ("audit --owner acme --after 7", "GET /audit?limit=1000&owner=acme&after=7"),
        ("audit --package pie @acme/tool", "GET /audit?limit=1000&ecosystem=pie&name=%40acme%2Ftool"),
        ("user list", "GET /users"),
        ("user show Ann", "GET /users/Ann"),
        ("user add ann --email a@b --admin", "POST /users"),
        ("user change ann --rename anna --admin false", "PATCH /users/ann"),
        ("user disable ann", "PATCH /users/ann"),
        ("user enable ann", "PATCH /users/ann"),
        ("user delete a/b", "DELETE /users/a%2Fb"),
        ("org list", "GET /orgs"),
        ("org show acme", "GET /orgs/acme"),
        ("org add acme --owner ann", "POST /orgs"),
        ("org rename acme emca", "PATCH /orgs/acme"),
        ("org delete acme", "DELETE /orgs/acme"),
        ("org members acme", "GET /orgs/acme/members"),
        ("org add-member acme ann --role owner", "PUT /orgs/acme/members/ann"),
        ("org remove-member acme ann", "DELETE /orgs/acme/members/ann"),
        ("team list acme", "GET /orgs/acme/teams"),
        ("team add acme core", "POST /orgs/acme/teams"),
        ("team delete acme core", "DELETE /orgs/acme/teams/core"),
        ("team members acme core", "GET /orgs/acme/teams/core/members"),
        ("team add-member acme core ann", "PUT /orgs/acme/teams/core/members/ann"),
        ("team remove-member acme core ann", "DELETE /orgs/acme/teams/core/members/ann"),
        ("repo list acme", "GET /repos/acme"),
        ("repo show acme/web", "GET /repos/acme/web"),
        ("repo add acme/web --visibility internal", "POST /repos/acme"),
        ("repo visibility acme/web public", "PATCH /repos/acme/web"),
        ("repo delete acme/web", "DELETE /repos/acme/web"),
        ("repo roles acme/web", "GET /repos/acme/web/roles"),
        ("repo grant acme/web team:core maintain", "PUT /repos/acme/web/roles/team:core"),
        ("repo withdraw acme/web user:ann", "DELETE /repos/acme/web/roles/user:ann"),
        ("token list ann", "GET /users/ann/tokens"),
        ("token add ann --scopes read:packages,repo --expires-in 30", "POST /users/ann/tokens"),
        ("token revoke ann 7", "DELETE /users/ann/tokens/7"),
        ("reserve list", "GET /reservations"),
        ("reserve add one @acme/* --owner acme --merge", "PUT /reservations/one/@acme%2F*"),
        ("reserve remove one @acme/*", "DELETE /reservations/one/@acme%2F*"),
        ("package list one", "GET /packages/one"),
        ("package show one @acme/tool", "GET /packages/one/@acme%2Ftool"),
        ("package visibility one tool public", "PATCH /packages/one/tool"),
        ("package delete one tool", "DELETE /packages/one/tool"),
        ("package delete one tool 1.0.0+b", "DELETE /packages/one/tool/versions/1.0.0+b"),
        ("package restore one tool 1.0.0", "POST /packages/one/tool/versions/1.0.0/restore"),
        ("package link one tool acme/web --inherit", "PATCH /packages/one/tool"),
        ("package unlink one tool", "PATCH /packages/one/tool"),
        ("package role one tool user:ann write", "PUT /packages/one/tool/roles/user:ann"),
        ("package role one tool user:ann none", "DELETE /packages/one/tool/roles/user:ann"),
        ("fsck", "POST /fsck"),
        ("gc", "POST /gc"),
    ];
    for (line, expected) in lines {
        let ask = ask::ask(parse(line).command).unwrap();
        assert_eq!(format!("{} {}", ask.method, ask.path), expected, "{line}");
        let path = ask.path.split('?').next().unwrap_or_default();
        let segments = path::segments(path).unwrap();
        let fits = |template: &str| {
            let parts: Vec<_> = template.trim_start_matches('/').split('/').collect();
            parts.len() == segments.len() && parts.iter().zip(&segments).all(|(part, segment)| part.starts_with('{') || part == segment)
        };
        assert!(ENDPOINTS.iter().any(|endpoint| endpoint.method == ask.method && fits(endpoint.path)), "{line}");
    }
}

#[test]
fn a_repository_is_named_with_its_owner() {
    for wrong in ["web", "/web", "acme/", "a/b/c"] {
        let error = ask::ask(parse(&format!("repo show {wrong}")).command).unwrap_err();
        assert!(error.message().contains("expected OWNER/REPO"), "{wrong}");
    }
}

#[test]
fn clients_are_pointed_at_the_address_they_can_reach() {
    let at = |text: &str| origin(&Config::parse(text, "x").unwrap());
    assert_eq!(at(""), "http://127.0.0.1:8080");
    assert_eq!(at("public_url = \"https://packages.example/\""), "https://packages.example");
    assert_eq!(at("[server]\nlisten = [\"0.0.0.0:80\"]"), "http://localhost");
    assert_eq!(at("[server]\nlisten = [\"[::1]:81\"]"), "http://[::1]:81");

    let config = Config::parse("", "x").unwrap();
    assert_eq!(clients(&config, PARTS, Some("two")).unwrap(), "# two client\nregistry=http://127.0.0.1:8080/two/\n\n");
    assert_eq!(clients(&config, PARTS, None).unwrap().matches("registry=").count(), 2);
    assert!(clients(&config, PARTS, Some("three")).unwrap_err().message().contains("expected one of one, two"));
}

/// The commands against a served API.
#[test]
fn commands_reach_the_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("packhouse.toml");
    std::fs::write(&file, format!("data_dir = {:?}", folder.path().display().to_string())).unwrap();
    let run = |line: &str| {
        let mut arguments = parse(line);
        arguments.config = Some(file.clone());
        execute(arguments, PARTS).map_err(|error| error.message().to_owned())
    };

    let error = run("user list").unwrap_err();
    assert!(error.starts_with("no server is running") && error.contains("packhouse serve"), "{error}");
    assert!(run("gc").unwrap().contains("\"offline\": \"Gc\""));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let engine = runtime.block_on(fixture());
    let ecosystem = crate::ecosystem::ALL[0].info().name;
    let socket = runtime.block_on(Socket::bind(&folder.path().join("admin.sock"))).unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let serving = runtime.spawn(socket.serve(Arc::new(over(&engine)), stopped));

    assert_eq!(run("user add ann").unwrap(), "user ann made\n");
    assert_eq!(run("user add ann").unwrap_err(), "the login is taken");
    for index in 0..120 {
        run(&format!("user add u{index}")).unwrap();
    }
    assert_eq!(run("user list").unwrap().lines().count(), 122);
    assert_eq!(serde_json::from_str::<Value>(&run("user list --json").unwrap()).unwrap().as_array().unwrap().len(), 121);
    assert!(run("token add ann --scopes read:packages,repo").unwrap().starts_with("pkh_"));
    assert!(run("token add ann --scopes everything").unwrap_err().contains("a scope is one of read:packages"));
    assert!(run("token list ann").unwrap().contains("read:packages,repo"));
    let reserved = run(&format!("reserve add {ecosystem} @acme/* --owner ann")).unwrap();
    assert_eq!(reserved, format!("@acme/* in {ecosystem} belongs to ann\n"));
    assert!(run("package list one").unwrap_err().contains("there is no ecosystem"));
    assert_eq!(run(&format!("package list {ecosystem}")).unwrap().lines().count(), 1);
    assert!(run("fsck").unwrap().contains("\"clean\": true"));
    assert!(run("gc").unwrap().contains("waited"));
    assert_eq!(run("user show nobody").unwrap_err(), "there is no account nobody");

    stop.send(true).unwrap();
    runtime.block_on(serving).unwrap();
}

#[test]
fn a_wrong_configuration_stops_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("packhouse.toml");
    std::fs::write(&file, "lisen = 3").unwrap();
    for line in ["serve", "check-config", "clients", "user list", "fsck"] {
        let arguments = Arguments { config: Some(file.clone()), ..parse(line) };
        let error = execute(arguments, PARTS).unwrap_err();
        assert!(error.message().contains(":1:1: unknown key \"lisen\" at the top"), "{line}: {error}");
    }
    std::fs::write(&file, "").unwrap();
    let fine = execute(Arguments { config: Some(file.clone()), ..parse("check-config") }, PARTS).unwrap();
    assert_eq!(fine, format!("{} is fine\n", file.display()));
}
