//! What Maven's routes ask of their callers, in each of the trees that a file is in.

use super::route::{self, Target};
use crate::digest::Digest;
use crate::ecosystem::rights::{Known, Maker, Needs, Request, Row, Table};
use crate::http::Method;

const READ: Needs = Needs::Rights(&["read"]);
const WRITE: Needs = Needs::Rights(&["read", "write"]);

/// Where trees begin, and where a package is made that is put into one.
const TREES: [(&str, Maker); 3] = [("", Maker::Asker), ("/acme/*", Maker::Organisation), ("/acme/web", Maker::Repository)];

pub(super) fn table() -> Table {
    Table {
        routes: [name_of(true), name_of(false)].concat(),
        route,
        name: |name| format!("com.acme:{name}"),
        publish: |known| deploy("/acme/*", known),
        publish_in_repository: Some(|known| deploy("/acme/web", known)),
        rows: TREES.into_iter().flat_map(|(tree, maker)| reads(tree).into_iter().chain(writes(tree, maker))).collect(),
    }
}

/// The four things in a tree, under the two methods.
fn name_of(read: bool) -> Vec<&'static str> {
    let names = ["get a file", "get a file's checksum", "get metadata", "get metadata's checksum"];
    let written = ["put a file", "put a file's checksum", "put metadata", "put metadata's checksum"];
    if read { names.into() } else { written.into() }
}

fn route(request: &Request) -> &'static str {
    let segments = route::segments(&request.target).unwrap();
    let below = if segments[0] == "acme" { &segments[2..] } else { &segments };
    let route = route::parse(below).unwrap();
    let place = match route.target {
        Target::File(_) => 0,
        Target::Metadata(_) => 2,
    };
    name_of(request.method == Method::GET)[place + usize::from(route.checksum.is_some())]
}

fn reads(tree: &'static str) -> Vec<Row> {
    let get = |path: &'static str| {
        Row::new(READ, 200, move |known: &Known<'_>| Request::get(format!("{tree}/com/acme/{}", path.replace("NAME", known.name))))
    };
    ["NAME/1.0/NAME-1.0.jar", "NAME/1.0/NAME-1.0.jar.sha1", "NAME/maven-metadata.xml", "NAME/maven-metadata.xml.sha1"].map(get).into()
}

fn writes(tree: &'static str, maker: Maker) -> Vec<Row> {
    let put = |path: &'static str, body: fn(&Known<'_>) -> Vec<u8>| {
        let request = move |known: &Known<'_>| Request::put(format!("{tree}/com/acme/{}", path.replace("NAME", known.name)), body(known));
        Row::new(WRITE, 201, request).making(maker)
    };
    vec![
        put("NAME/2.0/NAME-2.0.pom", |known| pom(known, "2.0")),
        put("NAME/1.0/NAME-1.0.jar.sha256", |_| Digest::sha256(JAR).hex().into()),
        put("NAME/maven-metadata.xml", |known| {
            let text = format!(
                "<metadata><groupId>com.acme</groupId><artifactId>{}</artifactId><versioning><versions><version>1.0</version>\
                 </versions></versioning></metadata>",
                known.name
            );
            text.into()
        }),
        put("NAME/maven-metadata.xml.sha1", |_| "da39a3ee5e6b4b0d3255bfef95601890afd80709".into()),
    ]
}

/// Not an archive; what is no plugin need not be one.
const JAR: &[u8] = b"jar";

fn deploy(tree: &str, known: &Known<'_>) -> Vec<Request> {
    let folder = format!("{tree}/com/acme/{}/1.0/{}-1.0", known.name, known.name);
    vec![Request::put(format!("{folder}.jar"), JAR), Request::put(format!("{folder}.pom"), pom(known, "1.0"))]
}

fn pom(known: &Known<'_>, version: &str) -> Vec<u8> {
    let name = known.name;
    format!("<project><groupId>com.acme</groupId><artifactId>{name}</artifactId><version>{version}</version></project>").into()
}
