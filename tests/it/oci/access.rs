//! What nobody learns or gets without the right: the rows AZ of the catalogue, and where clients reach the registry.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Repository, hosting, refused, repository, texts};
use crate::auth::same;
use crate::harness::{Answer, Blob, Caller, Image, MANIFEST, Server, Setup, exchange};

/// A server with Alice's private `alice/app`, what is in it, Alice's sight of it and a stranger's.
async fn with_private() -> (Server, Image, Repository, Repository) {
    let (server, alices) = repository().await;
    let image = Image::new("private");
    alices.push(&image, "v1").await;
    let bob = server.publisher("bob").await;
    let bobs = Repository::new(&server.caller_with(&bob), "alice/app");
    (server, image, alices, bobs)
}

/// An answer with one name in place of another, so that it can be held against what is said of the other.
fn renamed(answer: &Answer, from: &str, to: &str) -> Answer {
    let replaced = |text: &str| text.replace(from, to);
    let headers = answer.headers.iter().map(|(name, value)| {
        let value = value.to_str().map(replaced).unwrap_or_default();
        (name.clone(), value.parse().unwrap())
    });
    let (headers, body) = (headers.collect(), replaced(&answer.text()).into_bytes());
    Answer { status: answer.status, headers, body, cut: answer.cut }
}

#[tokio::test]
async fn az02_a_private_repository_looks_exactly_absent() {
    let (server, image, alices, bobs) = with_private().await;
    let place = alices.open().await;
    let id = place.rsplit('/').next().unwrap();
    let (digest, layer) = (image.digest(), &image.blobs[1].digest);
    let paths = [
        "manifests/v1".to_owned(),
        "manifests/none".into(),
        format!("manifests/{digest}"),
        format!("blobs/{layer}"),
        "tags/list".into(),
        "tags/list?n=1&last=a".into(),
        format!("referrers/{digest}"),
        format!("blobs/uploads/{id}"),
        "blobs/uploads/".into(),
        format!("blobs/uploads/?mount={layer}&from=alice/app"),
        format!("blobs/uploads/?digest={layer}"),
    ];
    let stranger = server.caller();
    for caller in [&stranger, &bobs.caller] {
        for path in &paths {
            for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"] {
                let ask = |name: &str| Repository::new(caller, name).ask(method, path).header("content-type", MANIFEST).body("{}").send();
                let (private, absent) = (ask("alice/app").await, ask("alice/not").await);
                assert!(private.status >= 400 || path.starts_with("referrers"), "{method} {path}: {}", private.status);
                same(&format!("{method} {path}"), &private, &renamed(&absent, "alice/not", "alice/app"));
            }
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn az03_lists_show_nothing_that_is_private() {
    let (server, _, alices, bobs) = with_private().await;
    Repository::new(&bobs.caller, "bob/own").push(&Image::new("bob"), "v1").await;
    let list = async |caller: &Caller| texts(&caller.get("/v2/_catalog?n=1000000000000").send().await.json()["repositories"]);
    assert_eq!(list(&bobs.caller).await, ["bob/own"]);
    assert_eq!(list(&alices.caller).await, ["alice/app"]);
    refused(&bobs.caller.get("/v2/_catalog?n=-1").send().await, 400, "PAGINATION_NUMBER_INVALID");
    let metrics = server.caller().get("/-/metrics").send().await.text();
    assert!(!metrics.contains("alice/app"), "{metrics}");
    server.finish().await;
}

#[tokio::test]
async fn az04_what_was_made_private_is_gone_for_others_at_once() {
    let (server, image, alices, bobs) = with_private().await;
    let visible = async |visibility| {
        server.cli(&["package", "visibility", "container", "alice/app", visibility]).await;
    };
    visible("public").await;
    let stranger = Repository::new(&server.caller(), "alice/app");
    let layer = format!("blobs/{}", image.blobs[1].digest);
    for repository in [&stranger, &bobs] {
        for path in ["manifests/v1", "tags/list", &layer] {
            let answer = repository.get(path).await;
            assert_eq!(answer.status, 200, "{path}");
        }
    }
    let cached = stranger.get(&layer).await;
    assert_eq!(cached.header("cache-control"), "public, max-age=31536000, immutable");
    visible("private").await;
    let end = tokio::time::Instant::now() + Duration::from_secs(1);
    while stranger.head("manifests/v1").await.status == 200 {
        assert!(tokio::time::Instant::now() < end, "it is still public after a second");
    }
    for path in ["manifests/v1", "tags/list", &layer] {
        assert_eq!((stranger.get(path).await.status, bobs.get(path).await.status), (401, 404), "{path}");
    }
    assert!(alices.get(&layer).await.header("cache-control").starts_with("private"));
    server.finish().await;
}

#[tokio::test]
async fn az12_az13_content_is_had_only_through_a_repository_that_holds_it() {
    let (server, image, alices, bobs) = with_private().await;
    let own = Repository::new(&bobs.caller, "bob/app");
    own.push(&Image::new("bob"), "v1").await;
    let secret = &image.blobs[1];
    for query in [
        format!("mount={}&from=alice/app", secret.digest),
        format!("mount={}&from=alice/none", secret.digest),
        format!("mount={}", secret.digest),
    ] {
        let answer = own.ask("POST", &format!("blobs/uploads/?{query}")).send().await;
        assert_eq!((answer.status, answer.header("range")), (202, "0-0"), "{query}: {}", answer.text());
    }
    for digest in [&secret.digest, image.digest()] {
        refused(&own.get(&format!("blobs/{digest}")).await, 404, "BLOB_UNKNOWN");
    }
    refused(&own.get(&format!("manifests/{}", image.digest())).await, 404, "MANIFEST_UNKNOWN");
    // Neither does what Alice sends again, nor what she deletes, open it to Bob.
    alices.upload(secret).await;
    assert_eq!(alices.delete(&format!("manifests/{}", image.digest())).await.status, 202);
    refused(&own.get(&format!("blobs/{}", secret.digest)).await, 404, "BLOB_UNKNOWN");
    // Who has the bytes has them by right of that.
    own.upload(secret).await;
    assert!(own.get(&format!("blobs/{}", secret.digest)).await.body == secret.bytes);
    // And a repository of one's own is no way around either.
    let other = Repository::new(&alices.caller, "alice/other");
    let mounted = other.ask("POST", &format!("blobs/uploads/?mount={}&from=bob/app", secret.digest)).send().await;
    assert_eq!(mounted.status, 202, "alice may not read bob's");
    server.finish().await;
}

#[tokio::test]
async fn az14_a_digest_is_no_content() {
    let (server, image, _, bobs) = with_private().await;
    let own = Repository::new(&bobs.caller, "bob/app");
    let secret = &image.blobs[1];
    let place = own.open().await;
    let claim = Blob { digest: secret.digest.clone(), bytes: Vec::new() };
    refused(&own.finish(&place, &claim).await, 400, "DIGEST_INVALID");
    let answer = own.ask("POST", &format!("blobs/uploads/?digest={}", secret.digest)).send().await;
    assert_eq!(answer.status, 202, "without its bytes it is an upload to go on with");
    let answer = own.ask("POST", &format!("blobs/uploads/?digest={}", secret.digest)).body("other bytes").send().await;
    refused(&answer, 400, "DIGEST_INVALID");
    assert_eq!(own.head(&format!("blobs/{}", secret.digest)).await.status, 404);
    server.finish().await;
}

#[tokio::test]
async fn az15_an_upload_is_its_openers_alone() {
    let (server, token) = hosting().await;
    let alices = Repository::new(&server.caller_with(&token), "alice/app");
    let bob = server.publisher("bob").await;
    // Bob may write to the same repository; the upload is still not his.
    alices.push(&Image::new("one"), "v1").await;
    server.cli(&["package", "role", "container", "alice/app", "user:bob", "admin"]).await;
    let bobs = Repository::new(&server.caller_with(&bob), "alice/app");
    let place = alices.open().await;
    let blob = Blob::new("half and half");
    assert_eq!(alices.caller.ask("PATCH", &place).body(&blob.bytes[..4]).send().await.status, 202);
    let elsewhere = place.replace("alice/app", "alice/other");
    for (caller, place) in [(&bobs.caller, &place), (&alices.caller, &elsewhere)] {
        for method in ["GET", "PATCH", "DELETE"] {
            refused(&caller.ask(method, place).send().await, 404, "BLOB_UPLOAD_UNKNOWN");
        }
        let put = caller.ask("PUT", &format!("{place}?digest={}", blob.digest)).body(&blob.bytes[4..]).send().await;
        refused(&put, 404, "BLOB_UPLOAD_UNKNOWN");
    }
    refused(&server.caller().get(&place).send().await, 401, "UNAUTHORIZED");
    let rest = Blob { bytes: blob.bytes[4..].to_vec(), ..blob.clone() };
    assert_eq!(alices.finish(&place, &rest).await.status, 201, "nobody has touched it");
    assert!(alices.get(&format!("blobs/{}", blob.digest)).await.body == blob.bytes);
    server.finish().await;
}

#[tokio::test]
async fn az16_a_manifest_names_only_what_its_repository_holds() {
    let (server, image, _, bobs) = with_private().await;
    let own = Repository::new(&bobs.caller, "bob/app");
    let config = Blob::new("{}");
    own.upload(&config).await;
    let hidden = Image::of(&config, "application/vnd.x", std::slice::from_ref(&image.blobs[1]), &json!({}));
    let absent = Image::of(&config, "application/vnd.x", &[Blob::noise("never sent", 10)], &json!({}));
    for (image, missing) in [(&hidden, &image.blobs[1]), (&absent, &absent.blobs[1])] {
        let answer = own.put(image, "v1").await;
        refused(&answer, 400, "MANIFEST_BLOB_UNKNOWN");
        assert!(answer.text().contains(&missing.digest));
    }
    let index = Image::index(std::slice::from_ref(&image), &json!({}));
    refused(&own.put(&index, "v1").await, 400, "MANIFEST_BLOB_UNKNOWN");
    // A subject need not be there, so naming one tells nothing; it gives no sight of it.
    let about = Image::artifact("about", "application/vnd.sig", &json!({ "subject": image.descriptor() }));
    own.push(&about, "sig").await;
    refused(&own.get(&format!("manifests/{}", image.digest())).await, 404, "MANIFEST_UNKNOWN");
    let private = Repository::new(&bobs.caller, "alice/app").get(&format!("referrers/{}", image.digest())).await;
    assert_eq!(private.json()["manifests"], json!([]));
    server.finish().await;
}

#[tokio::test]
async fn az06_reading_is_not_changing() {
    let (server, image, alices, bobs) = with_private().await;
    server.cli(&["package", "role", "container", "alice/app", "user:bob", "read"]).await;
    assert!(bobs.get("manifests/v1").await.body == image.manifest.bytes);
    let changes = [
        bobs.ask("POST", "blobs/uploads/").send().await,
        bobs.ask("POST", &format!("blobs/uploads/?mount={}&from=alice/app", image.blobs[1].digest)).send().await,
        bobs.put(&image, "v2").await,
        bobs.put(&image, image.digest()).await,
        bobs.ask("PUT", &format!("manifests/{}?tag=v3", image.digest()))
            .header("content-type", MANIFEST)
            .body(image.manifest.bytes.clone())
            .send()
            .await,
        bobs.delete("manifests/v1").await,
        bobs.delete(&format!("manifests/{}", image.digest())).await,
        bobs.delete(&format!("blobs/{}", image.blobs[1].digest)).await,
    ];
    for answer in &changes {
        refused(answer, 403, "DENIED");
    }
    assert_eq!(alices.tags().await, ["v1"]);
    // The right to write is not the one to delete.
    server.cli(&["package", "role", "container", "alice/app", "user:bob", "write"]).await;
    assert_eq!(bobs.put(&image, "v2").await.status, 201);
    refused(&bobs.delete(&format!("manifests/{}", image.digest())).await, 403, "DENIED");
    server.finish().await;
}

#[tokio::test]
async fn what_the_server_refuses_itself_is_in_the_protocols_words() {
    let server = Setup::default().registry("file_limit_bytes = 1000").start().await;
    let token = server.publisher("alice").await;
    let repository = Repository::new(&server.caller_with(&token), "alice/app");
    for path in ["/v2/alice", "/v2/alice/app/nothing", "/v2/alice/app/blobs", "/v2/x/", "/v2/_nothing"] {
        refused(&repository.caller.get(path).send().await, 404, "NAME_UNKNOWN");
    }
    for (method, path, allowed) in [
        ("POST", "/v2/", "GET, HEAD"),
        ("PUT", "/v2/alice/app/tags/list", "GET, HEAD"),
        ("GET", "/v2/alice/app/blobs/uploads/", "POST"),
        ("POST", "/v2/alice/app/manifests/v1", "GET, HEAD, PUT, DELETE"),
        ("OPTIONS", "/v2/_catalog", "GET, HEAD"),
    ] {
        let answer = repository.caller.ask(method, path).send().await;
        refused(&answer, 405, "UNSUPPORTED");
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
    }
    let place = repository.open().await;
    let large = Blob::noise("large", 1001);
    refused(&repository.finish(&place, &large).await, 413, "SIZE_INVALID");
    let streamed = repository.caller.ask("PATCH", &repository.open().await).stream(&large.bytes, 100).send().await;
    refused(&streamed, 413, "SIZE_INVALID");
    let huge = repository.ask("PUT", "manifests/v1").header("content-type", MANIFEST).body(vec![b' '; 5 << 20]).send().await;
    refused(&huge, 413, "SIZE_INVALID");
    for name in ["Alice/app", "alice//app", "alice/-app", "alice/app.", "alice/a..b", &format!("alice/{}", "x".repeat(260))] {
        let answer = repository.caller.get(&format!("/v2/{name}/tags/list")).send().await;
        refused(&answer, 400, "NAME_INVALID");
    }
    server.finish().await;
}

#[tokio::test]
async fn it_answers_on_hosts_of_its_own() {
    let server = Setup::default().server("hosts = \"packages.test\"").start().await;
    let token = server.publisher("alice").await;
    let repository = Repository::new(&server.caller_with(&token), "alice/app");
    let image = Image::new("one");
    repository.push(&image, "v1").await;
    server.cli(&["package", "visibility", "container", "alice/app", "public"]).await;
    let ask = async |host: &str, path: &str| {
        let host = format!("{host}:{}", server.port());
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let got = exchange(server.port(), bytes.as_bytes()).await;
        (got.statuses[0], String::from_utf8_lossy(&got.responses[0].1).into_owned(), got)
    };
    for host in ["containers.packages.test", "docker.packages.test", "packages.test", "127.0.0.1"] {
        let (status, text, _) = ask(host, "/v2/alice/app/manifests/v1").await;
        assert_eq!(status, 200, "{host}");
        assert!(text.as_bytes() == image.manifest.bytes, "{host}");
        let (status, _, got) = ask(host, "/v2/").await;
        assert_eq!(status, 401, "{host}");
        let head = &got.responses[0].0;
        // The token is had where the client asked, or at the address that the server is configured to have.
        let host = if host == "packages.test" { "127.0.0.1" } else { host };
        let realm = format!("realm=\"http://{host}:{0}/v2/token\",service=\"{host}:{0}\"", server.port());
        assert!(head.contains(&realm), "{head}");
    }
    assert_eq!(ask("npm.packages.test", "/v2/").await.0, 404, "another protocol's host");
    assert_eq!(ask("containers.packages.test", "/npm/x").await.0, 404);
    server.finish().await;
}

#[tokio::test]
async fn a_first_push_is_private_and_its_owners() {
    let (server, image, alices, bobs) = with_private().await;
    let package = alices.caller.get("/api/v3/users/alice/packages/container/app").header("user-agent", "t").send().await.json();
    assert_eq!((&package["visibility"], &package["owner"]["login"]), (&Value::from("private"), &Value::from("alice")));
    refused(&bobs.get("manifests/v1").await, 404, "NAME_UNKNOWN");
    // Nobody publishes under another's name, nor under one that is nobody's.
    for name in ["alice/new", "nobody/app"] {
        let answer = Repository::new(&bobs.caller, name).ask("POST", "blobs/uploads/").send().await;
        refused(&answer, 403, "DENIED");
        refused(&Repository::new(&bobs.caller, name).put(&image, "v1").await, 403, "DENIED");
    }
    refused(&Repository::new(&bobs.caller, "app").put(&image, "v1").await, 400, "NAME_INVALID");
    server.finish().await;
}
