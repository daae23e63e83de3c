//! A NuGet feed over the wire, hosted: pushing, every document, unlisting, refusals, and who sees what.

use std::io::{Cursor, Write as _};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::harness::{Answer, Authority, Caller, Package, Server, Setup, Token, exchange, gunzip, until};
use crate::rest::check;

/// A PNG as far as anyone looks.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\nan icon";

pub(crate) fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

pub(crate) fn nuspec(id: &str, version: &str, more: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><package xmlns=\"http://schemas.microsoft.com/packaging/2013/05/nuspec.xsd\"><metadata>\
         <id>{id}</id><version>{version}</version><authors>Ann, Bob</authors><description>The {id}</description>{more}</metadata></package>"
    )
}

/// A package with further elements of its nuspec.
pub(crate) fn nupkg(id: &str, version: &str, more: &str) -> Vec<u8> {
    let nuspec = nuspec(id, version, more);
    zip(&[(&format!("{id}.nuspec"), nuspec.as_bytes()), ("lib/netstandard2.0/x.dll", format!("{id} {version}").as_bytes())])
}

/// A form of one file, as clients send it.
fn form(bytes: &[u8]) -> Vec<u8> {
    let head = "--b-1\r\nContent-Type: application/octet-stream\r\nContent-Disposition: form-data; name=package; \
                filename=package.nupkg; filename*=utf-8''package.nupkg\r\n\r\n";
    [head.as_bytes(), bytes, b"\r\n--b-1--\r\n"].concat()
}

const FORM: &str = "multipart/form-data; boundary=\"b-1\"";

pub(crate) async fn push(caller: &Caller, tree: &str, bytes: &[u8]) -> Answer {
    caller.ask("PUT", &format!("/nuget{tree}/package/")).header("content-type", FORM).body(form(bytes)).send().await
}

/// Pushes a package with nothing but these.
pub(crate) async fn publish(caller: &Caller, tree: &str, id: &str, version: &str) {
    push(caller, tree, &nupkg(id, version, "")).await.expect(201);
}

pub(crate) async fn hosting(setup: Setup) -> (Server, Token) {
    let server = setup.start().await;
    let token = server.publisher("ann").await;
    (server, token)
}

/// A document, unpacked if it came packed.
pub(crate) async fn read(caller: &Caller, path: &str) -> Value {
    let answer = caller.get(path).send().await.expect(200);
    let bytes = if answer.header("content-encoding") == "gzip" { gunzip(&answer.body) } else { answer.body.clone() };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{path}: {error}: {}", String::from_utf8_lossy(&bytes)))
}

pub(crate) async fn versions(caller: &Caller, tree: &str, id: &str) -> Vec<String> {
    let list = read(caller, &format!("/nuget{tree}/download/{id}/index.json")).await;
    list["versions"].as_array().unwrap().iter().map(|version| version.as_str().unwrap().to_owned()).collect()
}

/// The entries of a registration whose pages are all in it.
pub(crate) fn entries(registration: &Value) -> Vec<&Value> {
    let pages = registration["items"].as_array().unwrap().iter();
    pages.flat_map(|page| page["items"].as_array().expect("an inline page")).map(|leaf| &leaf["catalogEntry"]).collect()
}

fn sha512(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    base64::engine::general_purpose::STANDARD.encode(sha2::Sha512::digest(bytes))
}

#[tokio::test]
async fn a_pushed_package_is_in_every_document() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    let more = "<title>The hammer</title><tags>nails wood</tags><license type=\"expression\">MIT</license><projectUrl>https://acme.example</projectUrl>\
        <icon>icon.png</icon><readme>docs\\readme.md</readme><dependencies><group targetFramework=\"net8.0\"><dependency id=\"Base\" version=\"1.0\"/>\
        </group></dependencies><packageTypes><packageType name=\"DotnetTool\"/></packageTypes>";
    let nuspec = nuspec("Acme.Tool", "1.0-Beta", more);
    let package =
        zip(&[("acme.tool.nuspec", nuspec.as_bytes()), ("icon.png", PNG), ("docs/readme.md", b"# Tool"), ("tools/net8.0/any/t.dll", b"x")]);
    push(&ann, "", &package).await.expect(201);
    assert_eq!(versions(&ann, "", "acme.tool").await, ["1.0.0-beta"]);

    let base = "/nuget/download/acme.tool/1.0.0-beta";
    let got = ann.get(&format!("{base}/acme.tool.1.0.0-beta.nupkg")).send().await.expect(200);
    assert_eq!((got.header("content-type"), got.header("content-encoding"), &got.body), ("application/octet-stream", "", &package));
    for other in [
        "/nuget/download/Acme.Tool/1.0-BETA/Acme.Tool.1.0.0-Beta.nupkg",
        "/nuget/download/ACME.TOOL/1.0.0.0-beta/acme.tool.1.0.0.0-beta.nupkg",
        "/nuget/download/acme.tool/1.0.0-beta+sha/acme.tool.1.0.0-beta.nupkg",
        "/nuget/ann/download/acme.tool/1.0.0-beta/acme.tool.1.0.0-beta.nupkg",
        "/_registry/nuget/ann/download/acme.tool/1.0.0-beta/acme.tool.1.0.0-beta.nupkg",
    ] {
        assert_eq!(ann.get(other).send().await.expect(200).body, package, "{other}");
    }
    let head = ann.ask("HEAD", &format!("{base}/acme.tool.1.0.0-beta.nupkg")).send().await.expect(200);
    assert_eq!((head.header("content-length"), head.header("etag")), (package.len().to_string().as_str(), got.header("etag")));
    assert!(head.header("cache-control").contains("immutable") && head.body.is_empty());
    assert_eq!(ann.get(&format!("{base}/acme.tool.1.0.0-beta.nupkg.sha512")).send().await.expect(200).text(), sha512(&package));
    for (file, media_type, body) in [
        ("acme.tool.nuspec", "application/xml", nuspec.as_bytes()),
        ("icon", "image/png", PNG),
        ("readme", "text/markdown; charset=utf-8", b"# Tool"),
    ] {
        let got = ann.get(&format!("{base}/{file}")).send().await.expect(200);
        assert_eq!((got.header("content-type"), got.header("x-content-type-options"), got.body.as_slice()), (media_type, "nosniff", body));
    }
    ann.get(&format!("{base}/license")).send().await.expect(404);

    let registration = read(&ann, "/nuget/registration-gz-semver2/acme.tool/index.json").await;
    let entry = entries(&registration)[0];
    let address = |rest: &str| json!(format!("{}/nuget{rest}", server.origin()));
    for (name, value) in [
        ("id", json!("Acme.Tool")),
        ("version", json!("1.0.0-Beta")),
        ("title", json!("The hammer")),
        ("authors", json!("Ann, Bob")),
        ("tags", json!(["nails", "wood"])),
        ("licenseExpression", json!("MIT")),
        ("listed", json!(true)),
        ("packageTypes", json!([{ "name": "DotnetTool" }])),
        ("packageHash", json!(sha512(&package))),
        ("iconUrl", address("/download/acme.tool/1.0.0-beta/icon")),
        ("readmeUrl", address("/download/acme.tool/1.0.0-beta/readme")),
        ("packageContent", address("/download/acme.tool/1.0.0-beta/acme.tool.1.0.0-beta.nupkg")),
    ] {
        assert_eq!(entry[name], value, "{name}");
    }
    assert!(entry["published"].as_str().unwrap().ends_with("+00:00"), "{entry}");
    let needs = json!([{ "targetFramework": "net8.0", "dependencies": [
        { "id": "Base", "range": "[1.0.0, )", "registration": address("/registration-gz-semver2/base/index.json") }] }]);
    assert_eq!(entry["dependencyGroups"], needs);
    // Every address of ours in it leads somewhere.
    for pointer in ["/@id", "/items/0/items/0/@id", "/items/0/items/0/catalogEntry/@id", "/items/0/@id", "/items/0/items/0/packageContent"]
    {
        let path = registration.pointer(pointer).unwrap().as_str().unwrap().strip_prefix(&server.origin()).unwrap();
        ann.get(path).send().await.expect(200);
    }
    let leaf = read(&ann, "/nuget/registration/acme.tool/1.0.0-beta.json").await;
    assert_eq!((&leaf["listed"], &leaf["registration"]), (&json!(true), &address("/registration/acme.tool/index.json")));
    assert_eq!(
        read(&ann, leaf["catalogEntry"].as_str().unwrap().strip_prefix(&server.origin()).unwrap()).await["packageSize"],
        package.len()
    );

    let shown = check(&ann, "GET /users/ann/packages/nuget/ACME.tool", 200).await;
    assert_eq!((&shown["name"], &shown["package_type"], &shown["visibility"]), (&json!("Acme.Tool"), &json!("nuget"), &json!("private")));
    let listed = check(&ann, "GET /users/ann/packages/nuget/Acme.Tool/versions", 200).await;
    assert_eq!((&listed[0]["name"], &listed[0]["license"]), (&json!("1.0.0-beta"), &json!("MIT")));
    assert_eq!((&listed[0]["description"], &listed[0]["download_count"]), (&json!("The Acme.Tool"), &json!(7)));
    server.finish().await;
}

#[tokio::test]
async fn the_service_index_names_what_is_there_at_the_address_that_was_used() {
    let authority = Authority::new();
    let setup = Setup::default().tls(&authority.sign()).server("trusted_proxies = [\"127.0.0.1/32\"]");
    let (server, token) = hosting(setup).await;
    let ann = server.caller_with(&token);
    publish(&ann, "", "a", "1.0").await;
    let seen = async |tree: &str, headers: &[(&str, &str)]| {
        let ask = ann.get(&format!("/nuget{tree}/index.json"));
        let ask = headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
        ask.send().await.expect(200).json()
    };
    let index = seen("", &[]).await;
    let resources = index["resources"].as_array().unwrap();
    let find = |name: &str| {
        resources.iter().find(|one| one["@type"] == name).unwrap_or_else(|| panic!("{name}"))["@id"].as_str().unwrap().to_owned()
    };
    for name in [
        "PackageBaseAddress/3.0.0",
        "RegistrationsBaseUrl",
        "RegistrationsBaseUrl/3.0.0-beta",
        "RegistrationsBaseUrl/3.0.0-rc",
        "RegistrationsBaseUrl/3.4.0",
        "RegistrationsBaseUrl/3.6.0",
        "RegistrationsBaseUrl/Versioned",
        "SearchQueryService",
        "SearchQueryService/3.0.0-beta",
        "SearchQueryService/3.0.0-rc",
        "SearchQueryService/3.4.0",
        "SearchQueryService/3.5.0",
        "SearchQueryService/Versioned",
        "SearchAutocompleteService",
        "SearchAutocompleteService/3.0.0-beta",
        "SearchAutocompleteService/3.0.0-rc",
        "SearchAutocompleteService/3.5.0",
        "SearchAutocompleteService/Versioned",
        "PackagePublish/2.0.0",
        "SymbolPackagePublish/4.9.0",
        "VulnerabilityInfo/6.7.0",
        "ReadmeUriTemplate/6.13.0",
    ] {
        assert!(find(name).starts_with(&format!("{}/nuget/", server.origin())), "{name}");
    }
    assert!(!index.to_string().contains("RepositorySignatures") && index["version"].is_string());
    // What is named answers.
    for (name, below) in [
        ("PackageBaseAddress/3.0.0", "a/index.json"),
        ("RegistrationsBaseUrl", "a/index.json"),
        ("RegistrationsBaseUrl/3.4.0", "a/index.json"),
        ("RegistrationsBaseUrl/Versioned", "a/index.json"),
        ("SearchQueryService", "?q=a"),
        ("SearchAutocompleteService", "?q=a"),
        ("VulnerabilityInfo/6.7.0", ""),
    ] {
        let path = format!("{}{below}", find(name).strip_prefix(&server.origin()).unwrap());
        ann.get(&path).send().await.expect(200);
    }
    // Behind a proxy that says so.
    let forwarded = [("x-forwarded-proto", "https"), ("x-forwarded-host", "packages.example:8443"), ("x-forwarded-prefix", "/pkg")];
    assert!(seen("/ann", &forwarded).await.to_string().contains("\"https://packages.example:8443/pkg/nuget/ann/download/\""));
    let list = ann.get("/nuget/registration/a/index.json");
    let list = forwarded.iter().fold(list, |ask, (name, value)| ask.header(name, value)).send().await.expect(200).text();
    assert!(list.contains("https://packages.example:8443/pkg/nuget/download/a/1.0.0/") && !list.contains("http://"), "{list}");
    server.finish().await;
}

#[tokio::test]
async fn every_form_of_a_push_is_taken() {
    let (server, token) = hosting(Setup::default()).await;
    let anyone = server.caller();
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("anyone:{}", token.text)));
    let key = ("x-nuget-apikey", token.text.clone());
    let bearer = ("authorization", format!("Bearer {}", token.text));
    let cases = [
        ("PUT", "/nuget/package/", key.clone(), true),
        ("PUT", "/nuget/package", ("x-nuget-apikey", format!("Bearer {}", token.text)), true),
        ("POST", "/nuget/ann/package/", bearer.clone(), true),
        ("PUT", "/nuget/ann/", ("authorization", basic), true),
        ("PUT", "/nuget/api/v2/package/", key.clone(), false),
        ("PUT", "/nuget/ann/api/v2/package", bearer, false),
    ];
    for (number, (method, path, (name, value), wrapped)) in cases.into_iter().enumerate() {
        let bytes = nupkg("tool", &format!("1.{number}"), "");
        let ask = anyone.ask(method, path).header(name, &value);
        let ask = if wrapped { ask.header("content-type", FORM).body(form(&bytes)) } else { ask.body(bytes) };
        let answer = ask.send().await;
        assert_eq!(answer.status, 201, "{method} {path}: {}", answer.text());
    }
    // As the client sends it: chunked, without a length.
    let body = form(&nupkg("tool", "2.0", ""));
    let mut request = format!(
        "PUT /nuget/package/ HTTP/1.1\r\nHost: x\r\nX-NuGet-ApiKey: {}\r\nX-NuGet-Protocol-Version: 4.1.0\r\nContent-Type: {FORM}\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        token.text
    )
    .into_bytes();
    for chunk in body.chunks(100) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(exchange(server.port(), &request).await.statuses, [201]);
    let ann = server.caller_with(&token);
    assert_eq!(versions(&ann, "", "tool").await, ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "2.0.0"]);
    // A wrong key is refused, wherever it is; without one the client is asked for a password.
    for (name, value) in [("x-nuget-apikey", "az"), ("authorization", "Basic YTpi")] {
        let answer = anyone.ask("PUT", "/nuget/package/").header(name, value).body(nupkg("tool", "3.0", "")).send().await.expect(401);
        assert!(answer.header("www-authenticate").starts_with("Basic realm="));
    }
    assert!(push(&anyone, "", b"").await.expect(401).header("www-authenticate").starts_with("Basic "));
    // The key is a key to nothing but this.
    anyone.get("/npm/-/whoami").header("x-nuget-apikey", &token.text).send().await.expect(401);
    server.finish().await;
}

#[tokio::test]
async fn what_is_no_sound_package_is_refused_in_words() {
    let (server, token) =
        hosting(Setup::default().registry("publish_limit_bytes = 60000\narchive_entries = 50\narchive_unpacked_bytes = 500000")).await;
    let ann = server.caller_with(&token);
    publish(&ann, "", "Taken", "1.0").await;
    let spec = |id: &str, version: &str| nuspec(id, version, "");
    let of = |id: &str, version: &str| nupkg(id, version, "");
    let many: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let noise = Package::with("noise", "1.0.0", json!({}), 70_000).tarball;
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("no archive", b"nonsense".to_vec(), 400),
        ("no nuspec", zip(&[("x", b"")]), 400),
        ("two nuspecs", zip(&[("a.nuspec", spec("a", "1").as_bytes()), ("b.nuspec", spec("b", "1").as_bytes())]), 400),
        ("a nuspec twice in case", zip(&[("a.nuspec", spec("a", "1").as_bytes()), ("A.nuspec", spec("b", "1").as_bytes())]), 400),
        ("a document type", zip(&[("a.nuspec", b"<!DOCTYPE a [<!ENTITY x 'y'>]><package/>")]), 400),
        ("out of the folder", zip(&[("a.nuspec", spec("a", "1").as_bytes()), ("../x", b"")]), 400),
        ("before the archive", [b"MZ".to_vec(), of("a", "1")].concat(), 400),
        ("behind the archive", [of("a", "1"), b"x".to_vec()].concat(), 400),
        ("cut", of("a", "1")[..200].to_vec(), 400),
        ("an id with a number sign", of("a#b", "1"), 400),
        ("an id with a question mark", of("a?b", "1"), 400),
        ("an id with a slash", zip(&[("a.nuspec", spec("a/b", "1").as_bytes())]), 400),
        ("an escaped id", of("a%23b", "1"), 400),
        ("an id that leads up", zip(&[("a.nuspec", spec("../../a", "1").as_bytes())]), 400),
        ("a long id", of(&"a".repeat(101), "1"), 400),
        ("no version", of("a", "latest"), 400),
        ("a huge number", of("a", "99999999999.0"), 400),
        ("a symbol package", nupkg("a", "1.0", "<packageTypes><packageType name=\"SymbolsPackage\"/></packageTypes>"), 400),
        ("an icon that is missing", nupkg("a", "1.0", "<icon>i.png</icon>"), 400),
        ("a script for an icon", zip(&[("a.nuspec", nuspec("a", "1", "<icon>i.svg</icon>").as_bytes()), ("i.svg", b"<svg/>")]), 400),
        ("a bomb", zip(&[("a.nuspec", spec("a", "1").as_bytes()), ("zeros", &[0; 600_000])]), 413),
        ("many entries", zip(&many), 413),
        ("too large", zip(&[("a.nuspec", spec("a", "1").as_bytes()), ("noise", &noise)]), 413),
        ("nothing", Vec::new(), 400),
        ("a taken version", of("taken", "1.0"), 409),
        ("the same in four parts", of("Taken", "1.0.0.0"), 409),
        ("the same with metadata", of("TAKEN", "1.0+other"), 409),
    ];
    for (what, bytes, status) in cases {
        let answer = push(&ann, "", &bytes).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert!(answer.header("content-type").starts_with("text/plain") && !answer.text().contains('<'), "{what}: {}", answer.text());
        assert_eq!(answer.header("x-nuget-warning"), answer.text().trim(), "{what}: the client shows it");
    }
    let raw = async |content_type: &'static str, body: Vec<u8>| {
        ann.ask("PUT", "/nuget/package/").header("content-type", content_type).body(body).send().await.expect(400).text()
    };
    let package = of("a", "1.0");
    assert!(raw("multipart/form-data", form(&package)).await.contains("boundary"));
    assert!(raw(FORM, b"--b-1\r\n\r\n".to_vec()).await.contains("breaks off"));
    let thousand = [&b"--b-1\r\n\r\nx\r\n".repeat(1000)[..], b"--b-1--"].concat();
    raw(FORM, thousand).await;
    assert!(raw(FORM, [&b"--b-1\r\n\r\n\r\n".repeat(1000)[..], b"--b-1--"].concat()).await.contains("too many parts"));
    let two = String::from_utf8_lossy(&form(b"one")).replacen("\r\n--b-1--", "\r\n--b-1\r\n\r\ntwo\r\n--b-1--", 1).into_bytes();
    assert!(raw(FORM, two).await.contains("more than one file"));
    let path = String::from_utf8_lossy(&form(b"one")).replacen("filename=package.nupkg", "filename=\"../../x.nupkg\"", 1).into_bytes();
    assert!(raw(FORM, path).await.contains("path"));
    // The reason is in the status line too, where clients read it.
    let request = format!("PUT /nuget/package/ HTTP/1.1\r\nHost: x\r\nX-NuGet-ApiKey: {}\r\nContent-Length: 1\r\n\r\nx", token.text);
    let said = exchange(server.port(), request.as_bytes()).await;
    assert!(said.responses[0].0.starts_with("HTTP/1.1 400 this is no zip archive"), "{}", said.responses[0].0);
    ann.get("/nuget/download/a/index.json").send().await.expect(404);
    server.finish().await;
}

#[tokio::test]
async fn unlisting_hides_and_takes_nothing_away() {
    let (mut server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    for version in ["1.0", "1.1", "2.0-rc.1"] {
        publish(&ann, "", "Acme.Tool", version).await;
    }
    let unlist = async |caller: &Caller, path: &'static str| caller.ask("DELETE", &format!("/nuget{path}")).send().await;
    unlist(&ann, "/package/acme.tool/9.0").await.expect(404);
    unlist(&ann, "/package/nothing/1.0").await.expect(404);
    unlist(&ann, "/package/acme.tool/latest").await.expect(400);
    unlist(&server.caller(), "/package/Acme.Tool/1.1.0").await.expect(401);
    let reader = server.token("ann", &["read:packages", "write:packages"]).await;
    unlist(&server.caller_with(&reader), "/package/Acme.Tool/1.1.0").await.expect(403);
    let bob = server.publisher("bob").await;
    unlist(&server.caller_with(&bob), "/package/Acme.Tool/1.1.0").await.expect(404);
    assert_eq!(unlist(&ann, "/package/Acme.Tool/1.1.0.0").await.status, 204);
    assert_eq!(unlist(&ann, "/ann/api/v2/package/acme.tool/1.1").await.status, 204, "it may be asked twice");
    // Pinned builds go on, also after a restart.
    server.stop().await;
    server.start_again().await;
    let ann = server.caller_with(&token);
    assert_eq!(versions(&ann, "", "acme.tool").await, ["1.0.0", "1.1.0", "2.0.0-rc.1"]);
    ann.get("/nuget/download/acme.tool/1.1.0/acme.tool.1.1.0.nupkg").send().await.expect(200);
    let registration = read(&ann, "/nuget/registration-gz-semver2/acme.tool/index.json").await;
    let shown: Vec<(&str, bool)> =
        entries(&registration).iter().map(|entry| (entry["version"].as_str().unwrap(), entry["listed"].as_bool().unwrap())).collect();
    assert_eq!(shown, [("1.0.0", true), ("1.1.0", false), ("2.0.0-rc.1", true)]);
    assert!(entries(&registration)[1]["published"].as_str().unwrap().starts_with("1900-01-01T"));
    let found = async |query: &'static str| read(&ann, &format!("/nuget/{query}")).await;
    let hit = found("query?q=acme").await;
    assert_eq!((&hit["data"][0]["version"], hit["data"][0]["versions"].as_array().unwrap().len()), (&json!("1.0.0"), 1));
    assert_eq!(found("autocomplete?id=acme.tool").await["data"], json!(["1.0.0"]));
    assert_eq!(found("autocomplete?id=Acme.Tool&prerelease=true&semVerLevel=2.0.0").await["data"], json!(["1.0.0", "2.0.0-rc.1"]));
    let rest = check(&ann, "GET /users/ann/packages/nuget/acme.tool/versions", 200).await;
    let unlisted: Vec<bool> = rest.as_array().unwrap().iter().map(|version| version["unlisted"] == true).collect();
    assert_eq!(unlisted, [false, true, false], "the API shows it, and still has it: {rest}");
    // The number stays used, and deleting for good is the API's.
    assert!(push(&ann, "", &nupkg("Acme.Tool", "1.1", "")).await.expect(409).text().contains("before"));
    let relisted = ann.ask("POST", "/nuget/package/Acme.Tool/1.1").send().await;
    assert_eq!(relisted.status, 200);
    assert_eq!(found("query?q=acme").await["data"][0]["version"], "1.1.0");
    until("the log", || ["unlisted", "relisted"].iter().all(|deed| server.log().contains(&format!("deed=\"{deed}\"")))).await;
    let id = rest[1]["id"].as_u64().unwrap();
    check(&ann, &format!("DELETE /users/ann/packages/nuget/acme.tool/versions/{id}"), 204).await;
    assert_eq!(versions(&ann, "", "acme.tool").await, ["1.0.0", "2.0.0-rc.1"]);
    ann.get("/nuget/download/acme.tool/1.1.0/acme.tool.1.1.0.nupkg").send().await.expect(404);
    push(&ann, "", &nupkg("Acme.Tool", "1.1", "")).await.expect(409);
    ann.ask("POST", "/nuget/package/Acme.Tool/1.1").send().await.expect(404);
    server.finish().await;
}

#[tokio::test]
async fn long_lists_come_in_pages_and_older_clients_see_what_they_can_read() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    for number in 0..128 {
        publish(&ann, "", "many", &format!("1.{number}.0")).await;
    }
    publish(&ann, "", "many", "2.0.0-rc.1+build").await;
    let needs = "<dependencies><dependency id=\"x\" version=\"1.0.0-a.1\"/></dependencies>";
    push(&ann, "", &nupkg("many", "2.1.0", needs)).await.expect(201);
    for (hive, count, coding) in [("registration", 128, ""), ("registration-gz", 128, "gzip"), ("registration-gz-semver2", 130, "gzip")] {
        let path = format!("/nuget/{hive}/many/index.json");
        // Whatever the client says it takes: it chose the hive by that.
        for accept in ["gzip", "identity"] {
            let answer = ann.get(&path).header("accept-encoding", accept).send().await.expect(200);
            assert_eq!(answer.header("content-encoding"), coding, "{hive}");
        }
        let index = read(&ann, &path).await;
        let pages = index["items"].as_array().unwrap();
        assert_eq!(index["count"], pages.len());
        let mut seen = Vec::new();
        for page in pages {
            assert!(page.get("items").is_none());
            let page = read(&ann, page["@id"].as_str().unwrap().strip_prefix(&server.origin()).unwrap()).await;
            let leaves = page["items"].as_array().unwrap();
            assert!(leaves.len() <= 64 && page["count"] == leaves.len());
            let version = |leaf: &Value| leaf["catalogEntry"]["version"].as_str().unwrap().split('+').next().unwrap().to_owned();
            assert_eq!(
                (page["lower"].as_str().unwrap(), page["upper"].as_str().unwrap()),
                (&*version(&leaves[0]), &*version(leaves.last().unwrap()))
            );
            seen.extend(leaves.iter().map(version));
        }
        assert_eq!(seen.len(), count, "{hive}");
        assert_eq!((seen[2].as_str(), seen[10].as_str()), ("1.2.0", "1.10.0"), "in the order of versions");
    }
    ann.get("/nuget/registration/many/2.1.0.json").send().await.expect(404);
    ann.get("/nuget/registration-gz-semver2/many/2.1.0.json").send().await.expect(200);
    ann.get("/nuget/registration/many/page/1.0.0/1.5.0.json").send().await.expect(404);
    let shown = read(&ann, "/nuget/query?q=many").await;
    assert_eq!(shown["data"][0]["version"], "1.127.0");
    assert_eq!(read(&ann, "/nuget/query?q=many&semVerLevel=2.0.0").await["data"][0]["version"], "2.1.0");
    // A changed package changes its tags.
    let etag = |answer: &Answer| answer.header("etag").to_owned();
    let before = ann.get("/nuget/download/many/index.json").send().await;
    assert_eq!(ann.get("/nuget/download/many/index.json").header("if-none-match", &etag(&before)).send().await.status, 304);
    publish(&ann, "", "many", "3.0").await;
    let after = ann.get("/nuget/download/many/index.json").header("if-none-match", &etag(&before)).send().await.expect(200);
    assert!(etag(&after) != etag(&before) && after.header("cache-control") == "private, no-cache");
    server.finish().await;
}

#[tokio::test]
async fn search_finds_what_the_caller_may_read_always_in_the_same_order() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    let tool = "<packageTypes><packageType name=\"DotnetTool\"/></packageTypes>";
    for number in 0..30 {
        publish(&ann, "", &format!("Tool.N{number:02}"), "1.0").await;
    }
    push(&ann, "", &nupkg("Tool", "1.0", tool)).await.expect(201);
    push(&ann, "", &nupkg("Other", "1.0", "<tags>tool</tags>")).await.expect(201);
    publish(&ann, "", "Early", "1.0-beta").await;
    let search = async |caller: &Caller, query: &str| read(caller, &format!("/nuget/query?{query}")).await;
    let ids =
        |found: &Value| found["data"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let all = search(&ann, "q=tool&take=1000").await;
    assert_eq!((&all["totalHits"], ids(&all).len(), ids(&all)[0].as_str()), (&json!(32), 32, "Tool"));
    assert_eq!(ids(&all).last().unwrap(), "Other", "ids come before tags");
    let mut pages = Vec::new();
    for skip in (0..40).step_by(7) {
        let page = search(&ann, &format!("q=TOOL&skip={skip}&take=7")).await;
        assert_eq!(page["totalHits"], 32);
        pages.extend(ids(&page));
    }
    assert_eq!(pages, ids(&all));
    assert_eq!(ids(&search(&ann, "").await).len(), 20, "twenty of all");
    assert_eq!(ids(&search(&ann, "q=packageid:tool").await), ["Tool"]);
    assert_eq!(ids(&search(&ann, "packageType=dotnettool").await), ["Tool"]);
    assert_eq!(search(&ann, "q=packageid%3Atool").await["data"][0]["packageTypes"], json!([{ "name": "DotnetTool" }]));
    assert_eq!(search(&ann, "q=early").await["totalHits"], 0);
    assert_eq!(ids(&search(&ann, "q=early&prerelease=true").await), ["Early"]);
    for odd in ["q=%00", "q=tool&skip=-1&take=x", "skip=99999999999999999999", &format!("q={}", "x".repeat(3000)), "q=id:%22"] {
        search(&ann, odd).await;
    }
    assert_eq!(search(&ann, "q=tool&take=0").await["data"], json!([]));
    let hit = &search(&ann, "q=packageid:tool").await["data"][0];
    assert_eq!((&hit["owners"], &hit["authors"], &hit["verified"]), (&json!(["ann"]), &json!(["Ann", "Bob"]), &json!(false)));
    server.cli(&["reserve", "add", "nuget", "Tool*", "--owner", "ann"]).await;
    assert_eq!(search(&ann, "q=packageid:tool").await["data"][0]["verified"], true);
    ann.get("/nuget/download/tool/1.0.0/tool.1.0.0.nupkg").send().await.expect(200);
    let hit = &search(&ann, "q=packageid:tool").await["data"][0];
    assert_eq!((&hit["totalDownloads"], &hit["versions"][0]["downloads"]), (&json!(1), &json!(1)));
    let typed = read(&ann, "/nuget/autocomplete?q=tool.n0&take=3").await;
    assert_eq!((&typed["data"], &typed["totalHits"]), (&json!(["Tool.N00", "Tool.N01", "Tool.N02"]), &json!(10)));
    assert_eq!(read(&ann, "/nuget/autocomplete?id=nothing").await["data"], json!([]));
    // One public package, and the rest is found by nobody else.
    server.cli(&["package", "visibility", "nuget", "tool", "public"]).await;
    let bob = server.caller_with(&server.publisher("bob").await);
    for caller in [&server.caller(), &bob] {
        assert_eq!(ids(&search(caller, "q=tool").await), ["Tool"]);
        assert_eq!(read(caller, "/nuget/autocomplete?q=tool").await["data"], json!(["Tool"]));
        assert_eq!(read(caller, "/nuget/autocomplete?id=other").await["data"], json!([]));
    }
    server.finish().await;
}

#[tokio::test]
async fn a_private_package_looks_absent() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    publish(&ann, "", "Secret", "1.0").await;
    let stranger = server.publisher("bob").await;
    let (bob, anyone) = (server.caller_with(&stranger), server.caller());
    let paths = [
        "download/secret/index.json",
        "download/secret/1.0.0/secret.1.0.0.nupkg",
        "download/secret/1.0.0/secret.1.0.0.nupkg.sha512",
        "download/secret/1.0.0/secret.nuspec",
        "download/secret/1.0.0/readme",
        "registration/secret/index.json",
        "registration-gz-semver2/secret/index.json",
        "registration-gz/secret/page/1.0.0/1.0.0.json",
        "registration-gz/secret/1.0.0.json",
        "catalog/secret/1.0.0.json",
    ];
    for tree in ["", "/ann"] {
        for path in paths {
            let (there, absent) = (format!("/nuget{tree}/{path}"), format!("/nuget{tree}/{path}").replace("secret", "absent"));
            for caller in [&bob, &anyone] {
                let (one, two) = (caller.get(&there).send().await, caller.get(&absent).send().await);
                let head = |answer: &Answer| answer.headers.keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
                assert_eq!((one.status, one.text(), head(&one)), (two.status, two.text(), head(&two)), "{there}");
            }
            bob.get(&there).send().await.expect(404);
            // Who has no token is asked for one: else a client that has one never sends it.
            assert!(anyone.get(&there).send().await.expect(401).header("www-authenticate").starts_with("Basic "));
        }
    }
    for (method, path) in [("DELETE", "/nuget/package/secret/1.0.0"), ("POST", "/nuget/package/secret/1.0.0")] {
        let (one, two) = (bob.ask(method, path).send().await, bob.ask(method, &path.replace("secret", "absent")).send().await);
        assert_eq!((one.status, one.text().replace("secret", "absent")), (404, two.text()));
    }
    // Where nothing is public a search is answered so too. The service index is not: who pushes with a key reads it without.
    for path in ["/nuget/ann/query", "/nuget/ann/autocomplete"] {
        anyone.get(path).send().await.expect(401);
        ann.get(path).send().await.expect(200);
    }
    anyone.get("/nuget/ann/index.json").send().await.expect(200);
    anyone.get("/nuget/nobody/index.json").send().await.expect(404);
    anyone.get("/nuget/index.json").send().await.expect(200);
    // Another owner's package of the name, which is found in that owner's tree alone.
    publish(&bob, "/bob", "secret", "2.0").await;
    assert_eq!(versions(&bob, "/bob", "secret").await, ["2.0.0"]);
    assert_eq!(versions(&ann, "", "secret").await, ["1.0.0"]);
    bob.get("/nuget/download/secret/index.json").send().await.expect(404);
    push(&bob, "", &nupkg("secret", "3.0", "")).await.expect(403);
    server.cli(&["package", "visibility", "nuget", "secret", "public"]).await;
    assert_eq!(versions(&anyone, "", "secret").await, ["1.0.0"]);
    assert_eq!(read(&anyone, "/nuget/ann/query").await["data"][0]["id"], "Secret");
    anyone.get("/nuget/download/secret/9.0.0/secret.9.0.0.nupkg").send().await.expect(404);
    server.finish().await;
}

#[tokio::test]
async fn where_packages_are_public_an_absent_name_is_just_absent() {
    let (server, token) = hosting(Setup::default().more("[access]\ndefault_visibility = \"public\"")).await;
    publish(&server.caller_with(&token), "/ann", "open", "1.0").await;
    let anyone = server.caller();
    // A client with other sources besides goes on with those; an owner's tree asks first.
    for (tree, status) in [("", 404), ("/ann", 401)] {
        anyone.get(&format!("/nuget{tree}/download/absent/index.json")).send().await.expect(status);
        assert_eq!(versions(&anyone, tree, "open").await, ["1.0.0"]);
        assert_eq!(read(&anyone, &format!("/nuget{tree}/query?q=open")).await["totalHits"], 1);
    }
    server.finish().await;
    // Nor is anybody asked where nobody can have a token.
    let alone = Setup::default().start().await;
    alone.caller().get("/nuget/download/absent/index.json").send().await.expect(404);
    alone.finish().await;
}

#[tokio::test]
async fn symbols_belong_to_a_version_that_is_there() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    let symbols = |version: &str, pdb: &[u8]| {
        let nuspec = nuspec("Tool", version, "<packageTypes><packageType name=\"SymbolsPackage\"/></packageTypes>");
        zip(&[("Tool.nuspec", nuspec.as_bytes()), ("lib/netstandard2.0/Tool.pdb", pdb)])
    };
    let send = async |caller: &Caller, bytes: &[u8]| {
        caller.ask("PUT", "/nuget/symbolpackage/").header("content-type", FORM).body(form(bytes)).send().await
    };
    send(&ann, &symbols("1.0", b"pdb")).await.expect(404);
    publish(&ann, "", "Tool", "1.0").await;
    send(&server.caller(), &symbols("1.0", b"pdb")).await.expect(401);
    let bob = server.publisher("bob").await;
    send(&server.caller_with(&bob), &symbols("1.0", b"pdb")).await.expect(404);
    send(&ann, &nupkg("Tool", "1.0", "")).await.expect(400);
    let file = symbols("1.0.0.0", b"pdb");
    send(&ann, &file).await.expect(201);
    for again in [&file, &symbols("1.0", b"other")] {
        assert!(send(&ann, again).await.expect(409).header("x-nuget-warning").contains("symbols already"));
    }
    send(&ann, &symbols("2.0", b"pdb")).await.expect(404);
    assert_eq!(ann.get("/nuget/download/tool/1.0.0/tool.1.0.0.snupkg").send().await.expect(200).body, file);
    assert_eq!(versions(&ann, "", "tool").await, ["1.0.0"]);
    until("the log", || server.log().contains("deed=\"extended\"")).await;
    server.finish().await;
}

#[tokio::test]
async fn a_package_is_linked_to_the_repository_it_names() {
    let (server, token) = crate::rest::hosting(&[]).await;
    let ann = server.caller_with(&token);
    server.cli(&["repo", "add", "acme/web"]).await;
    let repository = |address: &str| format!("<repository type=\"git\" url=\"{address}\" commit=\"abc\"/>");
    let linked = push(&ann, "/acme", &nupkg("Acme.Web", "1.0", &repository("https://code.example/Acme/Web.git"))).await.expect(201);
    assert_eq!(linked.header("x-nuget-warning"), "");
    let package = check(&ann, "GET /orgs/acme/packages/nuget/Acme.Web", 200).await;
    assert_eq!(package["repository"]["full_name"], "acme/web");
    // One that cannot be linked is said to be so, and a stranger's is nobody's business.
    let missing = push(&ann, "/acme", &nupkg("Acme.Api", "1.0", &repository("https://code.example/acme/none"))).await.expect(201);
    assert!(missing.header("x-nuget-warning").contains("not linked"), "{}", missing.header("x-nuget-warning"));
    let other = push(&ann, "/acme", &nupkg("Acme.Cli", "1.0", &repository("https://code.example/other/none"))).await.expect(201);
    assert_eq!(other.header("x-nuget-warning"), "");
    assert_eq!(check(&ann, "GET /orgs/acme/packages/nuget/acme.cli", 200).await.get("repository"), None);
    push(&ann, "/nobody", &nupkg("x", "1.0", "")).await.expect(404);
    server.finish().await;
}

#[tokio::test]
async fn nothing_is_known_to_be_wrong_with_what_is_hosted_alone() {
    let (server, token) = hosting(Setup::default()).await;
    let ann = server.caller_with(&token);
    let index = read(&ann, "/nuget/vulnerabilities/index.json").await;
    assert_eq!((index.as_array().unwrap().len(), &index[0]["@name"]), (1, &json!("base")));
    let page = index[0]["@id"].as_str().unwrap().strip_prefix(&server.origin()).unwrap();
    assert_eq!(ann.get(page).send().await.expect(200).text(), "{}");
    ann.get("/nuget/vulnerabilities/other.json").send().await.expect(404);
    for (method, path) in [("GET", "/nuget/package/"), ("PUT", "/nuget/query"), ("DELETE", "/nuget/index.json"), ("GET", "/nuget/")] {
        ann.ask(method, path).send().await.expect(405);
    }
    for path in ["/nuget/v3/index.json", "/nuget/download/a%2523b/index.json", "/nuget/download/a%23b/index.json", "/nuget/query/x"] {
        ann.get(path).send().await.expect(404);
    }
    server.finish().await;
}
