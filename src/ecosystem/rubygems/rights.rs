//! What RubyGems' routes ask of their callers, in the tree of all and in an owner's.

use std::io::Write as _;

use super::route::{self, Route};
use crate::ecosystem::rights::{Known, Maker, Needs, Request, Row, Table, routes};

routes![
    Front,
    Versions,
    Names,
    Info,
    Gem,
    Quick,
    Specs,
    Dependencies,
    Show,
    ListVersions,
    Latest,
    ShowVersion,
    Search,
    Push,
    Yank,
    Unyank,
    Owners,
    AddOwner,
    RemoveOwner,
    SignIn,
    Profile,
];

const READ: Needs = Needs::Rights(&["read"]);
const WRITE: Needs = Needs::Rights(&["read", "write"]);
const DELETE: Needs = Needs::Rights(&["read", "delete"]);
const ADMIN: Needs = Needs::Rights(&["read", "admin"]);

/// Where trees begin, and who owns what is pushed there.
const TREES: [(&str, Maker); 2] = [("", Maker::Asker), ("/acme", Maker::Organisation)];

pub(super) fn table() -> Table {
    Table {
        routes: ROUTES.to_vec(),
        route: |request| {
            let segments = route::segments(request.target.split('?').next().unwrap()).unwrap();
            let below = segments.strip_prefix(&["acme".to_owned()]).unwrap_or(&segments);
            name_of(&route::parse(&request.method, below).unwrap())
        },
        name: str::to_owned,
        publish: |known| {
            let push = |version| Request::post("/acme/api/v1/gems", gem(known.name, version));
            vec![push("1.0"), push("0.9"), Request::delete("/acme/api/v1/gems/yank", version(known, "0.9"))]
        },
        publish_in_repository: None,
        rows: TREES.into_iter().flat_map(|(tree, maker)| reads(tree).into_iter().chain(writes(tree, maker)).chain(people(tree))).collect(),
    }
}

fn reads(tree: &'static str) -> Vec<Row> {
    let get = |needs, path: &'static str| {
        Row::new(needs, 200, move |known: &Known<'_>| Request::get(format!("{tree}{}", path.replace("NAME", known.name))))
    };
    vec![
        get(Needs::Nothing, "/"),
        get(Needs::Listed, "/versions"),
        get(Needs::Listed, "/names"),
        get(Needs::Listed, "/specs.4.8"),
        get(Needs::Listed, "/api/v1/dependencies?gems=NAME"),
        get(Needs::Listed, "/api/v1/search.json?query=NAME"),
        get(READ, "/info/NAME"),
        get(READ, "/gems/NAME-1.0.gem"),
        get(READ, "/quick/Marshal.4.8/NAME-1.0.gemspec.rz"),
        get(READ, "/api/v1/gems/NAME.json"),
        get(READ, "/api/v1/versions/NAME.json"),
        get(READ, "/api/v1/versions/NAME/latest.json"),
        get(READ, "/api/v2/rubygems/NAME/versions/1.0.json"),
        get(READ, "/api/v1/gems/NAME/owners.yaml"),
    ]
}

fn writes(tree: &'static str, maker: Maker) -> Vec<Row> {
    let owners = move |known: &Known<'_>| format!("{tree}/api/v1/gems/{}/owners", known.name);
    vec![
        Row::new(WRITE, 200, move |known| Request::post(format!("{tree}/api/v1/gems"), gem(known.name, "2.0"))).making(maker),
        Row::new(DELETE, 200, move |known| Request::delete(format!("{tree}/api/v1/gems/yank"), version(known, "1.0"))),
        Row::new(ADMIN, 200, move |known| Request::put(format!("{tree}/api/v1/gems/unyank"), version(known, "0.9"))),
        Row::new(ADMIN, 200, move |known| Request::post(owners(known), "email=wes")),
        Row::new(ADMIN, 200, move |known| Request::delete(owners(known), "email=own")),
    ]
}

fn people(tree: &'static str) -> Vec<Row> {
    let get = |path: &'static str| Row::new(Needs::Token, 200, move |_| Request::get(format!("{tree}{path}")));
    vec![get("/api/v1/api_key"), get("/api/v1/profile/me.yaml")]
}

fn version(known: &Known<'_>, number: &str) -> String {
    format!("gem_name={}&version={number}", known.name)
}

fn gem(name: &str, version: &str) -> Vec<u8> {
    let metadata = format!("--- !ruby/object:Gem::Specification\nname: {name}\nversion: !ruby/object:Gem::Version\n  version: {version}\n");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(metadata.as_bytes()).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    for (file, bytes) in [("metadata.gz", packed.finish().unwrap()), ("data.tar.gz", b"files".to_vec())] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o444);
        archive.append_data(&mut header, file, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}
