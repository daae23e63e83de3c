//! What npm's routes ask of their callers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::hosted;
use super::route::{self, Route};
use crate::digest::Digest;
use crate::ecosystem::rights::{Known, Maker, Needs, Request, Row, Table, routes};

routes![
    Packument,
    Manifest,
    Tarball,
    Download,
    Put,
    PutTagOld,
    Unpublish,
    UnpublishFile,
    Tags,
    PutTag,
    DeleteTag,
    Visibility,
    SetAccess,
    Collaborators,
    Search,
    Ping,
    Whoami,
    Profile,
    User,
    Login,
    Logout,
    Keys,
    Attestations,
    AuditBulk,
    Audit,
    Starred,
    Star,
];

const READ: Needs = Needs::Rights(&["read"]);
const WRITE: Needs = Needs::Rights(&["read", "write"]);
const DELETE: Needs = Needs::Rights(&["read", "delete"]);
const ADMIN: Needs = Needs::Rights(&["read", "admin"]);

pub(super) fn table() -> Table {
    Table {
        routes: ROUTES.to_vec(),
        route: |request| {
            let path = request.target.split('?').next().unwrap();
            name_of(&route::parse(&request.method, path).unwrap())
        },
        name: |name| format!("@acme/{name}"),
        publish: |known| vec![publish(known, "1.0.0"), publish(known, "1.1.0"), star(known, "own")],
        publish_in_repository: None,
        rows: [reads(), writes(), people(), lists()].into_iter().flatten().collect(),
    }
}

fn reads() -> Vec<Row> {
    let get = |path: &'static str| {
        Row::new(READ, 200, move |known: &Known<'_>| {
            let hex = Digest::sha256(&tarball(known.name, "1.0.0")).hex();
            Request::get(path.replace("NAME", known.name).replace("HEX", &hex))
        })
    };
    [
        "/@acme%2fNAME",
        "/@acme/NAME/1.0.0",
        "/@acme/NAME/next",
        "/@acme/NAME/-/NAME-1.0.0.tgz",
        "/download/@acme/NAME/1.0.0/HEX",
        "/-/package/@acme%2fNAME/dist-tags",
        "/-/package/@acme%2fNAME/visibility",
        "/-/npm/v1/attestations/@acme%2fNAME@1.0.0",
    ]
    .map(get)
    .into()
}

fn writes() -> Vec<Row> {
    let put = |needs, body: fn(&Known<'_>) -> Value| {
        let request =
            move |known: &Known<'_>| Request::put(format!("/@acme%2f{}/-rev/{}", known.name, revision(known)), body(known).to_string());
        Row::new(needs, 201, request).making(Maker::Organisation)
    };
    vec![
        Row::new(WRITE, 201, |known| publish(known, "2.0.0")).making(Maker::Organisation),
        put(WRITE, |known| json!({ "name": full(known), "versions": { "1.0.0": { "deprecated": "old" }, "1.1.0": {} } })),
        put(Needs::Rights(&["read", "write", "delete"]), |known| json!({ "name": full(known), "versions": { "1.0.0": {} } })),
        put(ADMIN, |known| json!({ "name": full(known), "maintainers": [{ "name": "own" }] })),
        Row::new(Needs::TokenToRead, 201, |known| star(known, "wes")).making(Maker::Organisation),
        Row::new(WRITE, 201, |known| Request::put(format!("/@acme/{}/old", known.name), "\"1.0.0\"")),
        Row::new(WRITE, 201, |known| Request::put(tag(known, "new"), "\"1.0.0\"")),
        Row::new(WRITE, 200, |known| Request::delete(tag(known, "next"), "")),
        Row::new(ADMIN, 200, |known| Request::post(format!("/-/package/{}/access", full(known)), r#"{"access":"public"}"#)),
        Row::new(DELETE, 200, |known| Request::delete(format!("/{}/-rev/{}", full(known), revision(known)), "")),
        Row::new(DELETE, 200, |known| Request::delete(format!("/{}/-/{}-1.0.0.tgz/-rev/1-0", full(known), known.name), "")),
        Row::new(Needs::TokenToRead, 200, |known| Request::put("/-/user/v1/star", json!({ "package": full(known) }).to_string())),
    ]
}

fn people() -> Vec<Row> {
    let login = |password: &str| json!({ "name": "own", "password": password }).to_string();
    vec![
        Row::new(WRITE, 200, |known| Request::get(format!("/-/package/{}/collaborators", full(known)))),
        Row::new(Needs::Token, 200, |_| Request::get("/-/whoami")),
        Row::new(Needs::Token, 200, |_| Request::get("/-/npm/v1/user")),
        Row::new(Needs::Token, 200, |_| Request::get("/-/user/org.couchdb.user:own")),
        // The password is what counts.
        Row::new(Needs::Nothing, 201, move |known| Request::put("/-/user/org.couchdb.user:own", login(known.token))),
        Row::new(Needs::Nothing, 401, move |_| Request::put("/-/user/org.couchdb.user:own", login("guess"))),
        // Nobody's token is not theirs.
        Row::new(Needs::Token, 404, |_| Request::delete("/-/user/token/nobodys", "")),
    ]
}

fn lists() -> Vec<Row> {
    vec![
        Row::new(Needs::Listed, 200, |known| Request::get(format!("/-/v1/search?text={}", known.name))),
        Row::new(Needs::Listed, 200, |_| Request::get("/-/_view/starredByUser?key=%22own%22")),
        Row::new(Needs::Nothing, 200, |_| Request::get("/-/ping")),
        // Hosted packages are not signed by anybody's key, and there is no upstream.
        Row::new(Needs::Nothing, 404, |_| Request::get("/-/npm/v1/keys")),
        Row::new(Needs::Nothing, 200, |known| {
            Request::post("/-/npm/v1/security/advisories/bulk", json!({ full(known): ["1.0.0"] }).to_string())
        }),
        Row::new(Needs::Nothing, 200, |known| {
            let tree = json!({ "requires": { full(known): "1" }, "dependencies": { full(known): { "version": "1.0.0" } } });
            Request::post("/-/npm/v1/security/audits", tree.to_string())
        }),
    ]
}

fn full(known: &Known<'_>) -> String {
    format!("@acme/{}", known.name)
}

fn revision(known: &Known<'_>) -> String {
    hosted::revision(known.generation)
}

fn tag(known: &Known<'_>, tag: &str) -> String {
    format!("/-/package/@acme%2f{}/dist-tags/{tag}", known.name)
}

fn star(known: &Known<'_>, login: &str) -> Request {
    let body = json!({ "_id": full(known), "users": { login: true } });
    Request::put(format!("/@acme%2f{}", known.name), body.to_string())
}

/// A publish, with a bundle that says where it was built.
fn publish(known: &Known<'_>, version: &str) -> Request {
    let tarball = tarball(known.name, version);
    let statement = json!({ "predicateType": "https://slsa.dev/provenance/v1" });
    let bundle = json!({ "dsseEnvelope": { "payload": BASE64.encode(statement.to_string()) } });
    let name = full(known);
    let body = json!({
        "_id": name,
        "name": name,
        "dist-tags": { "latest": version, "next": version },
        "versions": { version: { "name": name, "version": version } },
        "_attachments": {
            format!("{name}-{version}.tgz"): { "data": BASE64.encode(&tarball), "length": tarball.len() },
            format!("{name}-{version}.sigstore"): { "data": bundle.to_string() },
        },
    });
    Request::put(format!("/@acme%2f{}", known.name), body.to_string())
}

fn tarball(name: &str, version: &str) -> Vec<u8> {
    let manifest = json!({ "name": format!("@acme/{name}"), "version": version }).to_string();
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(encoder);
    let mut header = tar::Header::new_gnu();
    header.set_size(manifest.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "package/package.json", manifest.as_bytes()).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}
