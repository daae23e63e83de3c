//! What the routes of containers ask of their callers.

use serde_json::json;

use super::manifest::OCI_MANIFEST;
use super::route::{self, Route};
use crate::digest::Digest;
use crate::ecosystem::rights::{Known, Maker, Needs, Request, Row, Table, routes};
use crate::http::Method;

routes![Base, Token, Catalog, Blob, Manifest, Tags, Referrers, Uploads, Upload];

const READ: Needs = Needs::Rights(&["read"]);
const WRITE: Needs = Needs::Rights(&["read", "write"]);
const DELETE: Needs = Needs::Rights(&["read", "delete"]);

const CONFIG: &str = "{}";
const LAYER: &str = "layer";
/// What no manifest names.
const SPARE: &str = "spare";

pub(super) fn table() -> Table {
    Table {
        routes: ROUTES.to_vec(),
        route: |request| name_of(&route::parse(&request.method, request.target.split('?').next().unwrap()).unwrap()),
        name: |name| format!("acme/{name}"),
        publish: |known| {
            let contents = [CONFIG, LAYER, SPARE].map(|content| upload(known, content));
            let manifests = ["v1", "v2"].map(|tag| Request::put(at(known, &format!("manifests/{tag}")), manifest(tag)));
            let about = manifest("v1").replacen('{', &format!("{{{},", subject(known)), 1);
            let about = Request::put(at(known, &format!("manifests/{}", digest(&about))), about);
            contents.into_iter().chain(manifests).chain([about]).collect()
        },
        publish_in_repository: None,
        rows: [reads(), writes(), people()].into_iter().flatten().collect(),
    }
}

fn reads() -> Vec<Row> {
    let get = |path: String| Row::new(READ, 200, move |known: &Known<'_>| Request::get(at(known, &path)));
    let digest = digest(&manifest("v1"));
    vec![
        get("manifests/v1".to_owned()),
        get(format!("manifests/{digest}")),
        get(format!("blobs/{}", Digest::sha256(LAYER.as_bytes()))),
        get("tags/list".to_owned()),
        Row::new(Needs::Listed, 200, move |known| Request::get(at(known, &format!("referrers/{digest}")))),
    ]
}

fn writes() -> Vec<Row> {
    let unknown = |method: Method| {
        let request = move |known: &Known<'_>| Request {
            method: method.clone(),
            target: at(known, &format!("blobs/uploads/{:032x}?digest={}", 1, Digest::sha256(&[]))),
            body: Vec::new(),
        };
        // Nobody's upload is none of theirs.
        Row::new(WRITE, 404, request).making(Maker::Organisation)
    };
    let delete = |path: String| Row::new(DELETE, 202, move |known: &Known<'_>| Request::delete(at(known, &path), ""));
    let mut rows = vec![
        Row::new(WRITE, 201, |known| Request::put(at(known, "manifests/new"), manifest("v1"))).making(Maker::Organisation),
        Row::new(WRITE, 202, |known| Request::post(at(known, "blobs/uploads/"), "")).making(Maker::Organisation),
        Row::new(WRITE, 201, |known| upload(known, "more")).making(Maker::Organisation),
        delete("manifests/v1".to_owned()),
        delete(format!("manifests/{}", digest(&manifest("v1")))),
        // What was sent to a repository that is not there yet can be taken back.
        delete(format!("blobs/{}", Digest::sha256(SPARE.as_bytes()))).making(Maker::Organisation),
    ];
    rows.extend([Method::GET, Method::PATCH, Method::PUT, Method::DELETE].map(unknown));
    rows
}

fn people() -> Vec<Row> {
    let sign_in = |password: &str| format!("grant_type=password&service=h&username=own&password={password}");
    vec![
        Row::new(Needs::Token, 200, |_| Request::get("/")),
        Row::new(Needs::TokenListed, 200, |_| Request::get("/_catalog")),
        Row::new(Needs::Listed, 200, |known| Request::get(format!("/token?service=h&scope=repository:acme/{}:pull,push", known.name)))
            .making(Maker::Organisation)
            .with_new(&["token", "access_token"]),
        Row::new(Needs::Nothing, 200, move |known| Request::post("/token", sign_in(known.token))).with_new(&["token", "access_token"]),
        Row::new(Needs::Nothing, 401, move |_| Request::post("/token", sign_in("guess"))),
    ]
}

/// That a manifest is about another, and a word of its own.
fn subject(known: &Known<'_>) -> String {
    let image = manifest("v1");
    format!(
        r#""subject":{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":{}}},"artifactType":"application/{}""#,
        digest(&image),
        image.len(),
        known.name
    )
}

fn at(known: &Known<'_>, path: &str) -> String {
    format!("/acme/{}/{path}", known.name)
}

fn digest(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

fn upload(known: &Known<'_>, content: &str) -> Request {
    Request::post(at(known, &format!("blobs/uploads/?digest={}", digest(content))), content)
}

fn manifest(note: &str) -> String {
    let described =
        |media_type, content: &str| json!({ "mediaType": media_type, "digest": digest(content).to_string(), "size": content.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described("application/vnd.oci.image.config.v1+json", CONFIG),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", LAYER)],
        "annotations": { "note": note },
    });
    manifest.to_string()
}
