//! What NuGet's routes ask of their callers, in the tree of all and in an owner's.

use std::io::{Cursor, Write as _};

use zip::write::{SimpleFileOptions, ZipWriter};

use super::route::{self, Route};
use crate::ecosystem::rights::{Known, Maker, Needs, Request, Row, Table, routes};

routes![
    Index,
    Versions,
    File,
    Registration,
    Page,
    Leaf,
    Entry,
    Search,
    Autocomplete,
    Vulnerabilities,
    VulnerabilityPage,
    Push,
    PushSymbols,
    Unlist,
    Relist,
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
            let push = |version| Request::put("/acme/package", package(known.name, version));
            let symbols = Request::put("/acme/symbolpackage", symbols(known.name, "1.0.0"));
            let unlist = Request::delete(format!("/acme/package/{}/0.9.0", known.name), "");
            vec![push("1.0.0"), push("1.1.0"), push("0.9.0"), symbols, unlist]
        },
        publish_in_repository: None,
        rows: TREES.into_iter().flat_map(|(tree, maker)| reads(tree).into_iter().chain(writes(tree, maker))).collect(),
    }
}

fn reads(tree: &'static str) -> Vec<Row> {
    let get = |needs, path: &'static str| {
        Row::new(needs, 200, move |known: &Known<'_>| Request::get(format!("{tree}{}", path.replace("NAME", known.name))))
    };
    let mut rows = vec![
        get(Needs::Nothing, "/index.json"),
        get(Needs::Nothing, "/vulnerabilities/index.json"),
        get(Needs::Nothing, "/vulnerabilities/base.json"),
        get(Needs::Listed, "/query?q=NAME"),
        get(Needs::Listed, "/autocomplete?q=NAME"),
    ];
    let of_package = [
        "/download/NAME/index.json",
        "/download/NAME/1.0.0/NAME.1.0.0.nupkg",
        "/download/NAME/1.0.0/NAME.1.0.0.nupkg.sha512",
        "/download/NAME/1.0.0/NAME.1.0.0.snupkg",
        "/download/NAME/1.0.0/NAME.nuspec",
        "/download/NAME/1.0.0/readme",
        "/download/NAME/0.9.0/NAME.0.9.0.nupkg",
        "/registration/NAME/index.json",
        "/registration-gz/NAME/index.json",
        "/registration-gz-semver2/NAME/index.json",
        "/registration-gz-semver2/NAME/page/0.9.0/1.1.0.json",
        "/registration-gz-semver2/NAME/1.0.0.json",
        "/catalog/NAME/1.0.0.json",
    ];
    rows.extend(of_package.map(|path| get(READ, path)));
    rows
}

fn writes(tree: &'static str, maker: Maker) -> Vec<Row> {
    let version = move |known: &Known<'_>, number: &str| format!("{tree}/package/{}/{number}", known.name);
    vec![
        Row::new(WRITE, 201, move |known| Request::put(format!("{tree}/package"), package(known.name, "2.0.0"))).making(maker),
        Row::new(WRITE, 201, move |known| Request::put(format!("{tree}/symbolpackage"), symbols(known.name, "1.1.0"))),
        Row::new(DELETE, 204, move |known| Request::delete(version(known, "1.0.0"), "")),
        Row::new(ADMIN, 200, move |known| Request::post(version(known, "0.9.0"), "")),
    ]
}

fn package(id: &str, version: &str) -> Vec<u8> {
    zip(&[(format!("{id}.nuspec"), nuspec(id, version, "<readme>README.md</readme>")), ("README.md".to_owned(), "read".to_owned())])
}

fn symbols(id: &str, version: &str) -> Vec<u8> {
    let kind = "<packageTypes><packageType name=\"SymbolsPackage\"/></packageTypes>";
    zip(&[(format!("{id}.nuspec"), nuspec(id, version, kind)), ("lib/net6.0/a.pdb".to_owned(), "BSJB".to_owned())])
}

fn nuspec(id: &str, version: &str, more: &str) -> String {
    format!(
        "<package><metadata><id>{id}</id><version>{version}</version><authors>a</authors><description>of a</description>{more}</metadata>\
         </package>"
    )
}

fn zip(entries: &[(String, String)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        archive.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}
