//! Webhooks from outside: set up over the API, told of by real publishes, received on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Authority, Caller, Client, Fault, Image, Package, Project, Server, Setup, Token, Tool, Upstream, clients, until,
};
use crate::oci::Repository;
use crate::rest::{ask, check, publish};
use crate::rest_clients::{node_with, run};
use crate::{maven_wire, nuget_wire, rubygems_wire};

/// What the tests may send to, and pauses that do not keep them waiting.
const LOOPBACK: &str = "[webhook]\nallow_private = [\"127.0.0.1/32\"]\nretries = 1000\nretry_seconds = 1\nretry_limit_seconds = 1\n";

/// Whoever is told: at `/hook`, and wherever else a test says.
struct Receiver(Upstream);

/// What it was told.
struct Told {
    event: String,
    guid: String,
    body: Value,
}

impl Told {
    /// Event, action and version in one text.
    fn short(&self) -> String {
        let package = &self.body[&self.event];
        let version = package["package_version"]["version"].as_str().unwrap_or("-");
        format!("{} {} {version}", self.event, self.body["action"].as_str().unwrap_or("-"))
    }

    /// Whether it is an event of a package of a type, by the type's name in any case.
    fn is_of(&self, event: &str, kind: &str) -> bool {
        self.event == event && self.body[event]["package_type"].as_str().is_some_and(|said| said.eq_ignore_ascii_case(kind))
    }
}

impl Receiver {
    fn start() -> Self {
        let receiver = Upstream::start();
        receiver.file("/hook", "text/plain", "taken");
        Self(receiver)
    }

    fn url(&self) -> String {
        format!("{}/hook", self.0.url())
    }

    /// Everything that came to a path, in its order.
    fn at(&self, path: &str) -> Vec<Told> {
        let requests = self.0.requests().into_iter().filter(|seen| seen.path == path);
        requests
            .map(|seen| Told {
                event: seen.header("x-github-event").expect("an event").to_owned(),
                guid: seen.header("x-github-delivery").expect("a GUID").to_owned(),
                body: serde_json::from_slice(&seen.body).expect("JSON"),
            })
            .collect()
    }

    /// Waits until so many requests came to `/hook`; gives them all.
    async fn told(&self, count: usize) -> Vec<Told> {
        until("deliveries", || self.0.count("/hook") >= count).await;
        self.at("/hook")
    }
}

/// A server with the organisation `acme` and its private repository `web`, whose owner is `ann`.
async fn hosting_with(setup: Setup) -> (Server, Token) {
    let server = setup.start().await;
    server.user("ann").await;
    server.cli(&["org", "add", "acme", "--owner", "ann"]).await;
    server.cli(&["repo", "add", "acme/web", "--visibility", "private"]).await;
    let scopes = ["read:packages", "write:packages", "delete:packages", "repo", "user", "admin:org", "admin:org_hook"];
    let token = server.token("ann", &scopes).await;
    (server, token)
}

async fn hosting() -> (Server, Token) {
    hosting_with(Setup::default().more(LOOPBACK)).await
}

/// Sets a webhook of acme up, which hears of packages under their newer name, and waits for its ping.
async fn hook(caller: &Caller, receiver: &Receiver, more: Value) -> u64 {
    let mut config = json!({ "url": receiver.url(), "content_type": "json" });
    for (name, value) in more.as_object().expect("members") {
        config[name] = value.clone();
    }
    let pings = receiver.0.count("/hook");
    let id = make(caller, &json!({ "name": "web", "events": ["package"], "config": config })).await;
    until("the ping", || receiver.0.count("/hook") > pings).await;
    receiver.0.forget();
    id
}

async fn make(caller: &Caller, body: &Value) -> u64 {
    let made = ask(caller, "POST /orgs/acme/hooks", Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["id"].as_u64().expect("an id")
}

/// The newest deliveries of a webhook, once `done` says of the newest what a test waits for.
async fn deliveries(caller: &Caller, hook: u64, done: impl Fn(&Value) -> bool) -> Vec<Value> {
    deliveries_until(caller, hook, |list| list.first().is_some_and(&done)).await
}

/// As [`deliveries`], once `done` says of all of them what a test waits for.
async fn deliveries_until(caller: &Caller, hook: u64, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let list = check(caller, &format!("GET /orgs/acme/hooks/{hook}/deliveries"), 200).await;
        let list = list.as_array().expect("a list").clone();
        if done(&list) {
            return list;
        }
        assert!(tokio::time::Instant::now() < end, "waited in vain for a delivery: {list:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn whole(caller: &Caller, hook: u64, delivery: &Value) -> Value {
    check(caller, &format!("GET /orgs/acme/hooks/{hook}/deliveries/{}", delivery["id"]), 200).await
}

#[tokio::test]
async fn a_publish_of_real_npm_is_told_and_signed() {
    let (server, token) = hosting().await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    let body = json!({
        "name": "web",
        "events": ["package", "registry_package"],
        "config": { "url": receiver.url(), "content_type": "json", "secret": "between-us" },
    });
    let id = make(&ann, &body).await;
    let ping = &receiver.told(1).await[0];
    assert_eq!((ping.event.as_str(), &ping.body["hook_id"]), ("ping", &json!(id)));
    assert_eq!((&ping.body["organization"]["login"], &ping.body["sender"]["login"]), (&json!("acme"), &json!("ann")));
    assert_eq!(ping.body["hook"]["config"]["secret"], "********");

    let project = Project::of(Tool::Npm, &json!({ "name": "@acme/hello", "version": "1.0.0", "description": "says hello" }));
    let npm = Client::new(Tool::Npm, &server.registry(), Some(&token.text));
    npm.run(project.path(), &["publish"]).await.ok();
    let told = receiver.told(3).await;
    assert_eq!(told.iter().skip(1).map(Told::short).collect::<Vec<_>>(), ["package published 1.0.0", "registry_package published 1.0.0"]);
    let package = &told[1].body["package"];
    assert_eq!((&package["name"], &package["owner"]["login"], &package["package_type"]), (&json!("hello"), &json!("acme"), &json!("npm")));
    assert_eq!((&package["description"], &told[1].body["sender"]["login"]), (&json!("says hello"), &json!("ann")));
    assert_eq!(package, &told[2].body["registry_package"]);
    // What the payload says where the file is, is where it is.
    let file = &package["package_version"]["package_files"][0];
    let path = file["download_url"].as_str().and_then(|url| url.strip_prefix(&server.origin())).expect("an address of ours").to_owned();
    let tarball = ann.get(&path).send().await;
    assert_eq!((tarball.status, json!(tarball.body.len())), (200, file["size"].clone()));

    for seen in receiver.0.requests() {
        assert_eq!((seen.method.as_str(), seen.header("content-type")), ("POST", Some("application/json")));
        assert_eq!((seen.header("x-github-hook-id"), seen.header("accept")), (Some(id.to_string().as_str()), Some("*/*")));
        assert_eq!(seen.header("x-github-hook-installation-target-type"), Some("organization"));
        assert!(seen.header("user-agent").is_some_and(|agent| agent.starts_with("GitHub-Hookshot/")));
        assert!(seen.header("x-hub-signature").is_some_and(|text| text.len() == 5 + 40 && text.starts_with("sha1=")));
        assert!(seen.header("x-hub-signature-256").is_some_and(|text| text.len() == 7 + 64 && text.starts_with("sha256=")));
        assert!(seen.header("authorization").is_none());
    }
    // The secret is in no answer, no line and no metric.
    let newest = &deliveries(&ann, id, |newest| newest["event"] == "registry_package").await[0];
    let mut said = whole(&ann, id, newest).await.to_string();
    for below in ["", &format!("/{id}"), &format!("/{id}/config"), &format!("/{id}/deliveries")] {
        said += &check(&ann, &format!("GET /orgs/acme/hooks{below}"), 200).await.to_string();
    }
    said += &server.caller().get("/-/metrics").send().await.text();
    assert!(said.contains("packhouse_webhook_deliveries_total{event=\"package\",outcome=\"delivered\"} 1"), "{said}");
    assert!(!said.contains("between-us") && !server.log().contains("between-us"));
    assert!(server.log().contains("packhouse::webhook"), "{}", server.log());
    server.finish().await;
}

#[tokio::test]
async fn a_form_holds_the_payload_and_old_events_are_told_on_request() {
    let (server, token) = hosting().await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    receiver.0.file("/form", "text/plain", "");
    let form = json!({ "name": "web", "events": ["package"], "config": { "url": format!("{}/form", receiver.0.url()) } });
    make(&ann, &form).await;
    hook(&ann, &receiver, json!({ "package_actions": ["published", "deleted", "restored"] })).await;
    publish(&server, &token, "@acme/tool", "1.0.0").await;
    publish(&server, &token, "@acme/tool", "1.1.0").await;
    let version = check(&ann, "GET /orgs/acme/packages/npm/tool/versions", 200).await[0]["id"].clone();
    check(&ann, &format!("DELETE /orgs/acme/packages/npm/tool/versions/{version}"), 204).await;
    check(&ann, &format!("POST /orgs/acme/packages/npm/tool/versions/{version}/restore"), 204).await;
    check(&ann, "DELETE /orgs/acme/packages/npm/tool", 204).await;
    let told = receiver.told(5).await;
    let expected = ["published 1.0.0", "published 1.1.0", "deleted 1.1.0", "restored 1.1.0", "deleted -"];
    assert_eq!(told.iter().map(Told::short).collect::<Vec<_>>(), expected.map(|text| format!("package {text}")));
    until("the forms", || receiver.0.count("/form") >= 2).await;
    for seen in receiver.0.requests().iter().filter(|seen| seen.path == "/form") {
        assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
        let (name, value) = url::form_urlencoded::parse(&seen.body).next().expect("a field");
        let payload: Value = serde_json::from_str(&value).expect("JSON");
        assert_eq!((&*name, &payload["package"]["name"]), ("payload", &json!("tool")));
    }
    server.finish().await;
}

/// What the payload says where a file is, is where it is, in every ecosystem that is told of.
#[tokio::test]
async fn a_maven_deploy_is_told_with_its_files() {
    let (server, token) = hosting().await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    let web = json!({ "events": ["package"], "config": { "url": receiver.url(), "content_type": "json" } });
    assert_eq!(ask(&ann, "POST /repos/acme/web/hooks", Some(&web)).await.status, 201);
    let pom = "<project><modelVersion>4.0.0</modelVersion><groupId>com.acme</groupId><artifactId>lib</artifactId><version>1.0</version>\
               <description>a library</description></project>";
    let folder = "/maven/acme/web/com/acme/lib/1.0";
    for (file, bytes) in [("lib-1.0.pom", pom), ("lib-1.0.jar", "PK\u{3}\u{4}")] {
        let deployed = ann.ask("PUT", &format!("{folder}/{file}")).body(bytes).send().await;
        assert!([200, 201].contains(&deployed.status), "{file}: {} {}", deployed.status, deployed.text());
    }
    // The ping, and one event for each file that came.
    let told = receiver.told(3).await;
    let last = &told[2].body;
    let package = &last["package"];
    assert_eq!(
        (&package["package_type"], &package["name"], &package["description"]),
        (&json!("maven"), &json!("com.acme.lib"), &json!("a library"))
    );
    assert_eq!((&last["repository"]["full_name"], &last["sender"]["login"]), (&json!("acme/web"), &json!("ann")));
    assert_eq!(package["package_version"]["installation_command"], "mvn dependency:get -Dartifact=com.acme:lib:1.0");
    let files = package["package_version"]["package_files"].as_array().expect("files");
    assert_eq!(files.len(), 2);
    for file in files {
        let path = file["download_url"].as_str().and_then(|url| url.strip_prefix(&server.origin())).expect("an address of ours").to_owned();
        let answer = ann.get(&path).send().await;
        assert_eq!((answer.status, json!(answer.body.len())), (200, file["size"].clone()), "{path}");
    }
    server.finish().await;
}

/// Of every ecosystem, what is told with all that a version can say of itself is in the shape that GitHub documents.
#[tokio::test]
async fn what_is_told_of_every_ecosystem_fits_githubs_schemas() {
    let (server, token) = hosting().await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    let events =
        json!({ "name": "web", "events": ["package", "registry_package"], "config": { "url": receiver.url(), "content_type": "json" } });
    make(&ann, &events).await;
    let more = json!({ "repository": "acme/web", "bin": "index.js", "dependencies": { "base": "1" } });
    let package = Package::with("@acme/tool", "1.0.0", more, 0);
    ann.put("/npm/@acme%2ftool", &package.publish("latest")).send().await.expect(201);
    let more = "<description>a library</description><licenses><license><name>MIT</name></license></licenses><dependencies><dependency>\
                <groupId>g</groupId><artifactId>a</artifactId><version>1</version></dependency></dependencies>";
    let pom = maven_wire::pom("com.acme", "lib", "1.0", more);
    ann.ask("PUT", "/maven/acme/web/com/acme/lib/1.0/lib-1.0.pom").body(pom).send().await.expect(201);
    let more = "homepage: https://tool.example\nmetadata:\n  source_code_uri: https://code.example/acme/web\ndependencies:\n\
                - !ruby/object:Gem::Dependency\n  name: rack\n  requirement: !ruby/object:Gem::Requirement\n    requirements:\n    - - \">=\"\n\
                \u{20}     - !ruby/object:Gem::Version\n        version: '2'\n  type: :runtime\n";
    ann.ask("POST", "/rubygems/acme/api/v1/gems").body(rubygems_wire::gem("tool", "1.0", more)).send().await.expect(200);
    let more = "<title>T</title><license type=\"expression\">MIT</license><projectUrl>https://tool.example</projectUrl><tags>a b</tags>\
                <repository type=\"git\" url=\"https://code.example/acme/web\" branch=\"main\" commit=\"abc\"/>\
                <packageTypes><packageType name=\"DotnetTool\"/></packageTypes><dependencies><group targetFramework=\"net6.0\">\
                <dependency id=\"Base\" version=\"1.0\"/></group><group targetFramework=\"netstandard2.0\"/></dependencies>";
    nuget_wire::push(&ann, "/acme", &nuget_wire::nupkg("Acme.Tool", "1.0.0", more)).await.expect(201);
    let labels = json!({ "org.opencontainers.image.source": "https://packages.test/acme/web" });
    Repository::new(&ann, "acme/web/app").push(&Image::with("one", &labels, &json!({})), "v1").await;

    let types = ["npm", "maven", "rubygems", "nuget", "container"];
    let missing = || {
        let told = receiver.at("/hook");
        types.iter().any(|kind| !["package", "registry_package"].iter().all(|event| told.iter().any(|told| told.is_of(event, kind))))
    };
    until("every event", || !missing()).await;
    let told: Vec<Value> = receiver.at("/hook").into_iter().map(|told| json!([told.event, told.body])).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let payloads = folder.path().join("payloads.json");
    std::fs::write(&payloads, json!(told).to_string()).expect("payloads");
    let folder_of = |name: &str| clients().join(name).join("package.json").display().to_string();
    let environment = [("SCHEMAS", folder_of("webhooks-schemas")), ("AJV", folder_of("ajv")), ("PAYLOADS", payloads.display().to_string())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let script = concat!(include_str!("webhook_clients/schemas.mjs"), include_str!("webhook_clients/validate.mjs"));
    let printed = run(&clients().join("bin/node"), &["--input-type=module", "--eval", script], &environment).await;
    let said: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("no JSON ({error}): {printed}"));
    assert_eq!(said, json!({ "checked": told.len(), "wrong": [] }));
    server.finish().await;
}

/// An image for several platforms is one publish to who asks for whole ones, whose images came before it.
#[tokio::test]
async fn an_image_is_told_with_its_tag_and_its_parts_only_on_request() {
    let (server, token) = hosting().await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    hook(&ann, &receiver, json!({ "package_grouping": "publish" })).await;
    let repository = Repository::new(&ann, "acme/web/app");
    let labels = json!({ "org.opencontainers.image.source": "https://packages.test/acme/web" });
    let images = ["one", "two"].map(|seed| Image::with(seed, &labels, &json!({})));
    for image in &images {
        repository.push_untagged(image).await;
    }
    let index = Image::index(&images, &json!({ "annotations": { "org.opencontainers.image.description": "for all" } }));
    repository.push(&index, "v1").await;
    repository.push(&images[0], "amd64").await;
    let told = receiver.told(2).await;
    assert_eq!(
        told.iter().map(Told::short).collect::<Vec<_>>(),
        [format!("package published {}", index.digest()), format!("package updated {}", images[0].digest())]
    );
    let package = &told[0].body["package"];
    assert_eq!((&package["name"], &package["package_type"]), (&json!("web/app"), &json!("CONTAINER")));
    assert_eq!((&package["description"], &told[0].body["repository"]["full_name"]), (&json!("for all"), &json!("acme/web")));
    let version = &package["package_version"];
    assert_eq!(version["container_metadata"]["tag"], json!({ "name": "v1", "digest": index.digest() }));
    assert_eq!(version["installation_command"], format!("docker pull 127.0.0.1:{}/acme/web/app:v1", server.port()));
    let path = version["package_files"][0]["download_url"].as_str().and_then(|url| url.strip_prefix(&server.origin())).unwrap().to_owned();
    assert!(ann.get(&path).send().await.body == index.manifest.bytes);
    let layers = &told[1].body["package"]["package_version"]["container_metadata"]["manifest"]["layers"];
    assert_eq!(layers.as_array().unwrap().len(), 2);
    server.finish().await;
}

#[tokio::test]
async fn a_kill_between_commit_and_delivery_loses_nothing() {
    let (mut server, token) = hosting().await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    hook(&ann, &receiver, json!({})).await;
    // Nobody answers, so nothing can have been delivered when the server dies.
    receiver.0.stop();
    publish(&server, &token, "@acme/tool", "1.0.0").await;
    server.kill().await;
    receiver.0.start_again();
    server.start_again().await;
    assert_eq!(receiver.told(1).await[0].short(), "package published 1.0.0");

    // The receiver has it, but the server never hears that: it is sent again, as the same.
    receiver.0.forget();
    receiver.0.fault("/hook", Fault::Hold, 1);
    publish(&server, &token, "@acme/tool", "1.1.0").await;
    publish(&server, &token, "@acme/tool", "1.2.0").await;
    receiver.0.held(1).await;
    server.kill().await;
    receiver.0.release();
    server.start_again().await;
    let told = receiver.told(3).await;
    assert_eq!(
        told.iter().map(Told::short).collect::<Vec<_>>(),
        ["1.1.0", "1.1.0", "1.2.0"].map(|text| format!("package published {text}"))
    );
    assert_eq!((told[0].guid == told[1].guid, told[1].guid == told[2].guid), (true, false));
    server.finish().await;
}

#[tokio::test]
async fn kills_at_any_instant_lose_no_delivery() {
    let (mut server, token) = hosting().await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    hook(&ann, &receiver, json!({})).await;
    let mut acked = BTreeSet::new();
    for round in 1..=5 {
        let (server_of_round, token) = (server.caller_with(&token), token.clone());
        let publishing = tokio::spawn(publish_until_killed(server_of_round, token, round));
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(50..400))).await;
        server.kill().await;
        acked.extend(publishing.await.expect("it ends"));
        server.start_again().await;
    }
    assert!(!acked.is_empty(), "nothing was published");
    let versions = || -> BTreeMap<String, BTreeSet<String>> {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for told in receiver.at("/hook") {
            versions
                .entry(told.body["package"]["package_version"]["version"].as_str().expect("a version").into())
                .or_default()
                .insert(told.guid);
        }
        versions
    };
    until("every acked version to be told", || acked.iter().all(|version| versions().contains_key(version))).await;
    for (version, guids) in versions() {
        assert_eq!(guids.len(), 1, "{version} was told under {guids:?}");
    }
    server.finish().await;
}

async fn publish_until_killed(caller: Caller, _token: Token, round: usize) -> Vec<String> {
    let mut acked = Vec::new();
    for n in 0..1000 {
        let package = Package::new("@acme/tool", &format!("{round}.{n}.0"));
        match caller.put("/npm/@acme%2ftool", &package.publish("latest")).try_send().await {
            Some(Answer { status: 201, cut: false, .. }) => acked.push(package.version),
            _ => return acked,
        }
    }
    acked
}

#[tokio::test]
async fn a_redelivery_is_the_same_again() {
    let (server, token) = hosting().await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    let id = hook(&ann, &receiver, json!({ "secret": "k" })).await;
    publish(&server, &token, "@acme/tool", "1.0.0").await;
    receiver.told(1).await;
    let first = deliveries(&ann, id, |newest| newest["event"] == "package").await[0].clone();
    assert_eq!((&first["status"], &first["status_code"], &first["redelivery"]), (&json!("OK"), &json!(200), &json!(false)));
    let again = ask(&ann, &format!("POST /orgs/acme/hooks/{id}/deliveries/{}/attempts", first["id"]), None).await;
    assert_eq!((again.status, again.json()), (202, json!({})));
    receiver.told(2).await;
    let requests = receiver.0.requests();
    assert_eq!(requests[0].body, requests[1].body);
    for name in ["x-github-delivery", "x-hub-signature-256", "x-github-event"] {
        assert_eq!(requests[0].header(name), requests[1].header(name), "{name}");
    }
    let second = deliveries(&ann, id, |newest| newest["redelivery"] == true).await[0].clone();
    assert_eq!((&second["guid"], second["id"] == first["id"]), (&first["guid"], false));
    let second = whole(&ann, id, &second).await;
    assert_eq!((&second["response"]["payload"], &second["request"]["payload"]["action"]), (&json!("taken"), &json!("published")));
    assert_eq!(second["request"]["headers"]["X-GitHub-Delivery"], first["guid"]);
    server.finish().await;
}

#[tokio::test]
async fn a_failing_receiver_is_tried_again_in_order_and_holds_nobody_up() {
    let (server, token) = hosting().await;
    let (ann, slow, quick) = (server.caller_with(&token), Receiver::start(), Receiver::start());
    let id = hook(&ann, &slow, json!({})).await;
    hook(&ann, &quick, json!({})).await;
    slow.0.fault("/hook", Fault::Status(503), 1);
    slow.0.fault("/hook", Fault::Hold, 1);
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        publish(&server, &token, "@acme/tool", version).await;
    }
    slow.0.held(1).await;
    assert_eq!(quick.told(3).await.len(), 3);
    slow.0.release();
    let told = slow.told(4).await;
    assert_eq!(
        told.iter().map(Told::short).collect::<Vec<_>>(),
        ["1.0.0", "1.0.0", "1.1.0", "1.2.0"].map(|text| format!("package published {text}"))
    );
    let list = deliveries_until(&ann, id, |list| list.len() == 4 && list[0]["pending"] == false).await;
    assert_eq!(list.iter().take(3).map(|delivery| &delivery["attempts"]).collect::<Vec<_>>(), [1, 1, 2]);
    // What is refused is not tried again.
    slow.0.fault("/hook", Fault::Status(410), 1);
    publish(&server, &token, "@acme/tool", "1.3.0").await;
    let list = deliveries(&ann, id, |newest| newest["status_code"] == 410).await;
    assert_eq!((&list[0]["status"], &list[0]["pending"]), (&json!("Invalid HTTP Response: 410"), &json!(false)));
    server.finish().await;
}

#[tokio::test]
async fn wh03_a_redirect_is_not_followed() {
    let (server, token) = hosting().await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    let id = hook(&ann, &receiver, json!({})).await;
    for (status, version) in [(301, "1.0.0"), (307, "1.1.0"), (308, "1.2.0")] {
        let elsewhere = vec![("Location", format!("{}/elsewhere", receiver.0.url()))];
        receiver.0.fault("/hook", Fault::StatusWith(status, elsewhere), 1);
        publish(&server, &token, "@acme/tool", version).await;
        deliveries(&ann, id, |newest| newest["status_code"] == status && newest["pending"] == false).await;
    }
    assert_eq!(receiver.0.count("/elsewhere"), 0);
    server.finish().await;
}

#[tokio::test]
async fn wh05_what_hangs_drips_or_never_ends_is_left() {
    let limits = format!("{LOOPBACK}answer_seconds = 1\nanswer_limit_bytes = 1000\n").replace("retries = 1000", "retries = 0");
    let (server, token) = hosting_with(Setup::default().more(&limits)).await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    let id = hook(&ann, &receiver, json!({})).await;
    receiver.0.file("/hook", "text/plain", "x".repeat(5000));
    // The ping is the first.
    for (told, (version, fault, code, status)) in (2..).zip([
        ("1.0.0", Some(Fault::Hang), 0, "timed out"),
        ("1.1.0", Some(Fault::Drip(Duration::from_millis(300))), 0, "timed out"),
        ("1.2.0", Some(Fault::Endless), 200, "OK"),
        ("1.3.0", None, 200, "OK"),
    ]) {
        if let Some(fault) = fault {
            receiver.0.fault("/hook", fault, 1);
        }
        publish(&server, &token, "@acme/tool", version).await;
        let newest = deliveries_until(&ann, id, |list| list.len() == told).await;
        let newest = whole(&ann, id, &newest[0]).await;
        assert_eq!((&newest["status_code"], &newest["status"]), (&json!(code), &json!(status)), "{version}: {newest}");
        if code == 200 {
            assert_eq!(newest["response"]["payload"].as_str().map(str::len), Some(1000), "{version}");
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn wh01_nothing_inside_is_sent_to_unless_the_operator_says_so() {
    let (mut server, token) = hosting_with(Setup::default()).await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    let post = async |url: String| ask(&ann, "POST /orgs/acme/hooks", Some(&json!({ "name": "web", "config": { "url": url } }))).await;
    for url in [receiver.url(), receiver.url().replace("127.0.0.1", "localhost"), receiver.url().replace("127.0.0.1", "2130706433")] {
        let refused = post(url.clone()).await;
        assert_eq!((refused.status, &refused.json()["errors"][0]["code"]), (422, &json!("custom")), "{url}");
    }
    // Allowed, and no longer: what was set up meanwhile is not sent to either.
    let config = std::fs::read_to_string(server.config_path()).expect("a config");
    let restart = async |server: &mut Server, more: &str| {
        assert!(server.stop().await.success());
        std::fs::write(server.config_path(), format!("{config}\n{more}")).expect("a config");
        server.start_again().await;
    };
    restart(&mut server, LOOPBACK).await;
    let id = hook(&ann, &receiver, json!({})).await;
    restart(&mut server, "[webhook]\nretries = 0\n").await;
    publish(&server, &token, "@acme/tool", "1.0.0").await;
    let list = deliveries(&ann, id, |newest| newest["event"] == "package").await;
    assert_eq!((&list[0]["status"], &list[0]["status_code"]), (&json!("the address is not public"), &json!(0)));
    assert!(receiver.0.requests().is_empty());
    server.finish().await;
}

#[tokio::test]
async fn wh07_whoever_loses_the_right_is_told_nothing_more() {
    let (server, token) = hosting().await;
    let (ann, receiver) = (server.caller_with(&token), Receiver::start());
    server.user("bob").await;
    server.cli(&["org", "add-member", "acme", "bob"]).await;
    let scopes = ["admin:repo_hook"];
    let bob = server.caller_with(&server.token("bob", &scopes).await);
    let grant = |role: &str| json!({ "permission": role });
    let granted = ask(&ann, "PUT /repos/acme/web/collaborators/bob", Some(&grant("admin"))).await;
    assert_eq!(granted.status, 204, "{}", granted.text());
    let body = json!({ "events": ["package"], "config": { "url": receiver.url(), "content_type": "json" } });
    let made = ask(&bob, "POST /repos/acme/web/hooks", Some(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    receiver.told(1).await;

    publish(&server, &token, "@acme/tool", "1.0.0").await;
    let link = json!({ "repository": "acme/web" });
    assert_eq!(ask(&ann, "PUT /orgs/acme/packages/npm/tool/repository", Some(&link)).await.status, 200);
    assert_eq!(ask(&ann, "PUT /orgs/acme/packages/npm/tool/access", Some(&json!({ "mode": "inherit" }))).await.status, 200);
    publish(&server, &token, "@acme/tool", "1.1.0").await;
    let told = receiver.told(2).await;
    assert_eq!((told[1].short().as_str(), &told[1].body["repository"]["full_name"]), ("package published 1.1.0", &json!("acme/web")));

    check(&ann, "DELETE /repos/acme/web/collaborators/bob", 204).await;
    publish(&server, &token, "@acme/tool", "1.2.0").await;
    // Another one of the same repository, by somebody who may, is told after it.
    let body = json!({ "events": ["package"], "config": { "url": format!("{}?ann", receiver.url()), "content_type": "json" } });
    assert_eq!(ask(&ann, "POST /repos/acme/web/hooks", Some(&body)).await.status, 201);
    receiver.told(3).await;
    publish(&server, &token, "@acme/tool", "1.3.0").await;
    let told = receiver.told(4).await;
    let seen: Vec<(String, bool)> =
        told.iter().zip(receiver.0.requests()).map(|(told, seen)| (told.short(), seen.target.ends_with("?ann"))).collect();
    assert_eq!(seen[2..], [("ping - -".to_owned(), true), ("package published 1.3.0".to_owned(), true)]);
    check(&bob, "GET /repos/acme/web/hooks", 404).await;
    server.finish().await;
}

#[tokio::test]
async fn certificates_are_checked_unless_the_webhook_says_otherwise() {
    let authority = Authority::new();
    // Any server that speaks TLS will do: that it answers at all is what matters.
    let other = Setup::default().tls(&authority.sign()).start().await;
    let (server, token) = hosting().await;
    let ann = server.caller_with(&token);
    let url = format!("{}/hook", other.tls_origin());
    for (insecure, code, status) in [("0", 0, "peer certificate cannot be authenticated"), ("1", 404, "Invalid HTTP Response: 404")] {
        let config = json!({ "url": url, "content_type": if insecure == "1" { "json" } else { "form" }, "insecure_ssl": insecure });
        let id = make(&ann, &json!({ "name": "web", "config": config })).await;
        let list = deliveries(&ann, id, |_| true).await;
        assert_eq!((&list[0]["status_code"], &list[0]["status"]), (&json!(code), &json!(status)));
    }
    server.finish().await;

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority.pem()).expect("a certificate");
    let (server, token) = hosting_with(Setup::default().more(&format!("{LOOPBACK}ca_files = [{:?}]\n", file.display().to_string()))).await;
    let ann = server.caller_with(&token);
    let id = make(&ann, &json!({ "name": "web", "config": { "url": url } })).await;
    assert_eq!(deliveries(&ann, id, |_| true).await[0]["status_code"], 404);
    server.finish().await;
    other.finish().await;
}

/// Octokit sets it up, Octokit's receiver checks each signature and GitHub's own schemas each payload; npm publishes in between.
#[tokio::test]
async fn octokit_manages_receives_and_verifies() {
    let (server, token) = hosting().await;
    let ann = server.caller_with(&token);
    let folders = [("WEBHOOKS", "octokit-webhooks"), ("SCHEMAS", "webhooks-schemas"), ("AJV", "ajv")];
    let script = node_with(
        concat!(include_str!("webhook_clients/schemas.mjs"), include_str!("webhook_clients/receive.mjs")),
        &server,
        &token.text,
        &folders,
    );
    let publishing = async {
        // The script has deleted the organisation's webhook again when it is ready to be told.
        until("the script's webhooks", || server.log().contains("DELETE path=\"/api/v3/orgs/acme/hooks/")).await;
        let manifest = json!({ "name": "@acme/hello", "version": "1.0.0", "repository": "acme/web", "bin": "index.js", "license": "MIT" });
        let project = Project::of(Tool::Npm, &manifest);
        let npm = Client::new(Tool::Npm, &server.registry(), Some(&token.text));
        npm.run(project.path(), &["publish"]).await.ok();
        npm.run(project.path(), &["dist-tag", "add", "@acme/hello@1.0.0", "beta"]).await.ok();
    };
    let (said, ()) = tokio::join!(script, publishing);
    assert_eq!((&said["errors"], &said["problems"]), (&json!([]), &json!([])), "{said}");
    assert_eq!(said["made"], json!([201, "Repository", "********"]));
    assert_eq!((&said["ping"], &said["again"], &said["wrong"]), (&json!(true), &json!([422, "custom"]), &json!([422, "custom"])));
    assert_eq!(said["events"], json!(["package", "registry_package"]));
    assert_eq!(
        (&said["config"], &said["read"], &said["pinged"], &said["tested"]),
        (&json!("1"), &json!("********"), &json!(204), &json!(204))
    );
    assert_eq!((&said["organisation"], &said["deleted_organisation"]), (&json!([["Organization", false]]), &json!(204)));
    assert_eq!((&said["package"], &said["updated"]), (&json!(["hello", "1.0.0", "acme/web"]), &json!("1.0.0")));
    assert_eq!((&said["command"], &said["metadata"]), (&json!("npm install @acme/hello@1.0.0"), &json!("1.0.0")));
    let received = ["ping", "ping", "package.published", "registry_package.published", "package.updated", "registry_package.updated"];
    assert_eq!(said["received"].as_array().expect("a list")[..6], received.map(Value::from));
    let listed =
        ["registry_package.updated", "package.updated", "registry_package.published", "package.published", "ping.null", "ping.null"];
    assert_eq!((&said["deliveries"], &said["ok"]), (&json!(listed), &json!(true)));
    assert_eq!((&said["redelivered"], &said["same"], &said["signed"]), (&json!(202), &json!(true), &json!(true)));
    assert_eq!((&said["deleted"], &said["gone"]), (&json!(204), &json!([404, null])));
    check(&ann, "GET /repos/acme/web/hooks", 200).await;
    server.finish().await;
}

#[tokio::test]
async fn gh_sets_one_up() {
    let (server, token) = hosting().await;
    let receiver = Receiver::start();
    let host = format!("127.0.0.1:{}", server.port());
    let environment = [("GH_HOST", host.as_str()), ("GH_ENTERPRISE_TOKEN", token.text.as_str()), ("GH_NO_UPDATE_NOTIFIER", "1")];
    let (hooks, url) = (format!("{}/api/v3/orgs/acme/hooks", server.origin()), format!("config[url]={}", receiver.url()));
    let fields = ["-f", "name=web", "-F", "active=true", "-f", "events[]=package", "-f", &url, "-f", "config[content_type]=json"];
    let arguments: Vec<&str> =
        ["api", &hooks].into_iter().chain(fields).chain(["-f", "config[secret]=of gh", "--jq", ".config.secret"]).collect();
    assert_eq!(run(Path::new("/usr/bin/gh"), &arguments, &environment).await.trim(), "********");
    assert_eq!(receiver.told(1).await[0].event, "ping");
    assert!(receiver.0.requests()[0].header("x-hub-signature-256").is_some());
    server.finish().await;
}

#[tokio::test]
async fn pygithub_manages_webhooks() {
    let (server, token) = hosting().await;
    let receiver = Receiver::start();
    let program = clients().join("pygithub/bin/python");
    let (api, url) = (format!("{}/api/v3", server.origin()), receiver.url());
    let environment = [("API", api.as_str()), ("TOKEN", token.text.as_str()), ("RECEIVER", &url)];
    let printed = run(&program, &["-c", include_str!("webhook_clients/manage.py")], &environment).await;
    let said: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("no JSON ({error}): {printed}"));
    assert_eq!(said["made"], json!(["web", true, ["package"], "********"]));
    assert_eq!(
        (&said["edited"], &said["added"]),
        (&json!([false, ["package", "registry_package"]]), &json!(["package", "registry_package", "push"]))
    );
    assert_eq!((&said["listed"], &said["organization"], &said["left"]), (&json!([true]), &json!([["*"]]), &json!([0, 0])));
    assert!(said["deliveries"].as_array().is_some_and(|list| list.iter().all(|event| event == "ping")), "{said}");
    assert_eq!(said["refused"], json!([422, "url"]));
    server.finish().await;
}
