//! What comes from upstreams: names, freshness, tokens, faults, and what is never kept.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Repository, next, refused, texts};
use crate::harness::{Blob, Caller, Fault, INDEX, Image, MANIFEST, Server, Setup, Upstream, exchange, until};
use crate::npm_wire::base64_of;

const MISS: &str = "fwd=uri-miss; stored";
const REVALIDATED: &str = "fwd=stale; fwd-status=304";
const STALE: &str = "hit; detail=stale-if-error";

/// Every question is asked anew.
const ALWAYS: &str = "fresh_seconds = 0\nstale_while_revalidate_seconds = 0\nnegative_seconds = 0\nretries = 0";

/// A mirror of this upstream, which clients know as `hub.test`.
fn mirroring(upstream: &Upstream, more: &str) -> Setup {
    let hosts = "hosts = [\"hub.test\", \"index.hub.test\"]\nnamespace = \"library\"\nmirrors = [\"mirror.test\"]\n";
    Setup::default().upstream_of("container", "hub", &upstream.url(), &format!("{hosts}{more}"))
}

/// A server, its upstream with `acme/app:v1`, and that image as anybody sees it.
async fn mirror(engine: &str) -> (Upstream, Server, Image, Repository) {
    let upstream = Upstream::start();
    let image = Image::new("upstream");
    upstream.image("acme/app", &image, "v1");
    let server = mirroring(&upstream, "").engine(engine).start().await;
    let repository = Repository::new(&server.caller(), "hub.test/acme/app");
    (upstream, server, image, repository)
}

/// How often the upstream was asked, by method, and for what.
fn asked(upstream: &Upstream) -> Vec<String> {
    upstream.requests().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
}

/// A request with a host of its own.
async fn at(server: &Server, host: &str, line: &str) -> (u16, String, Vec<u8>) {
    let bytes = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let got = exchange(server.port(), bytes.as_bytes()).await;
    let (head, body) = got.responses.into_iter().next().unwrap();
    (got.statuses[0], head, body)
}

#[tokio::test]
async fn each_way_to_name_an_upstreams_image_leads_to_the_same() {
    let (upstream, server, image, repository) = mirror("").await;
    let single = Image::new("official");
    upstream.image("library/debian", &single, "12");
    let paths = [
        "/v2/hub.test/acme/app/manifests/v1",
        "/v2/index.hub.test/acme/app/manifests/v1",
        "/v2/127.0.0.1/acme/app/manifests/v1",
        "/v2/acme/app/manifests/v1?ns=hub.test",
        "/v2/acme/app/manifests/v1?ns=index.hub.test",
    ];
    for path in paths {
        let answer = repository.caller.get(path).send().await;
        assert_eq!((answer.status, answer.header("oci-namespace")), (200, "hub.test"), "{path}: {}", answer.text());
        assert!(answer.body == image.manifest.bytes, "{path}");
        assert_eq!((answer.header("content-type"), answer.header("docker-content-digest")), (MANIFEST, image.digest()));
    }
    let (status, _, body) = at(&server, "mirror.test", "GET /v2/acme/app/manifests/v1").await;
    assert!(status == 200 && body == image.manifest.bytes);
    assert_eq!(upstream.count("/v2/acme/app/manifests/v1"), 1, "one name, one question");
    for path in ["/v2/hub.test/debian/manifests/12", "/v2/hub.test/library/debian/manifests/12", "/v2/debian/manifests/12?ns=hub.test"] {
        assert!(repository.caller.get(path).send().await.body == single.manifest.bytes, "{path}");
    }
    assert!(at(&server, "mirror.test:99", "GET /v2/debian/manifests/12").await.2 == single.manifest.bytes);
    assert_eq!(upstream.count("/v2/library/debian/manifests/12"), 1);
    server.finish().await;
}

#[tokio::test]
async fn a_namespace_is_looked_up_and_never_dialled() {
    let (upstream, server, image, repository) = mirror("").await;
    let inside = Upstream::start();
    inside.image("acme/app", &image, "v1");
    let elsewhere = inside.url().replace("http://", "");
    for namespace in ["evil.test", &elsewhere, &format!("http%3A%2F%2F{elsewhere}%2F"), "", "hub.test.evil.test", "169.254.169.254"] {
        let answer = repository.caller.get(&format!("/v2/acme/app/manifests/v1?ns={namespace}")).send().await;
        refused(&answer, 404, "NAME_UNKNOWN");
    }
    assert!(inside.requests().is_empty() && upstream.requests().is_empty());
    // Our own name is no upstream's, and what is hosted is nobody else's.
    let token = server.publisher("alice").await;
    let own = Repository::new(&server.caller_with(&token), "alice/app");
    own.push(&image, "v1").await;
    let host = format!("127.0.0.1:{}", server.port());
    assert!(own.get(&format!("manifests/v1?ns={host}")).await.body == image.manifest.bytes);
    assert_eq!(own.get("manifests/v1?ns=hub.test").await.status, 404);
    assert_eq!(upstream.count("/v2/alice/app/manifests/v1"), 1);
    server.finish().await;
}

#[tokio::test]
async fn an_upstreams_repository_takes_nothing() {
    let (upstream, server, image, _) = mirror("").await;
    let token = server.publisher("alice").await;
    let repository = Repository::new(&server.caller_with(&token), "hub.test/acme/app");
    let answers = [
        repository.ask("POST", "blobs/uploads/").send().await,
        repository.ask("POST", &format!("blobs/uploads/?mount={}&from=alice/app", image.blobs[0].digest)).send().await,
        repository.put(&image, "v2").await,
        repository.delete("manifests/v1").await,
        repository.delete(&format!("blobs/{}", image.blobs[0].digest)).await,
    ];
    for answer in &answers {
        refused(answer, 405, "UNSUPPORTED");
    }
    // Nor is one to be mounted from.
    let own = Repository::new(&repository.caller, "alice/app");
    let answer = own.ask("POST", &format!("blobs/uploads/?mount={}&from=hub.test/acme/app", image.blobs[0].digest)).send().await;
    assert_eq!(answer.status, 202);
    let (status, ..) = at(&server, "mirror.test", "GET /v2/_catalog").await;
    assert_eq!(status, 405);
    assert!(upstream.requests().is_empty());
    server.finish().await;
}

#[tokio::test]
async fn a_tag_is_asked_for_by_head_and_fetched_anew_only_when_it_moved() {
    let (upstream, server, image, repository) = mirror(ALWAYS).await;
    assert_eq!(repository.get("manifests/v1").await.verdict(), MISS);
    upstream.forget();
    for _ in 0..3 {
        assert_eq!(repository.get("manifests/v1").await.verdict(), REVALIDATED);
    }
    assert_eq!(asked(&upstream), vec!["HEAD /v2/acme/app/manifests/v1"; 3]);
    let moved = Image::new("moved");
    upstream.image("acme/app", &moved, "v1");
    upstream.forget();
    assert!(repository.get("manifests/v1").await.body == moved.manifest.bytes);
    assert_eq!(asked(&upstream), ["HEAD /v2/acme/app/manifests/v1", "GET /v2/acme/app/manifests/v1"]);
    // What the tag pointed at is still there by its digest, and so is what it points at now, without a question.
    upstream.forget();
    for image in [&image, &moved] {
        let answer = repository.get(&format!("manifests/{}", image.digest())).await;
        assert!(answer.verdict() == "hit" && answer.body == image.manifest.bytes);
        assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
    }
    assert!(upstream.requests().is_empty());
    // An upstream without the header, or without HEAD, is asked with GET.
    upstream.without_validators();
    upstream.forget();
    assert_eq!(repository.get("manifests/v1").await.status, 200);
    assert_eq!(asked(&upstream), ["HEAD /v2/acme/app/manifests/v1", "GET /v2/acme/app/manifests/v1"]);
    upstream.fault("/v2/acme/app/manifests/v1", Fault::Status(405), 1);
    assert_eq!(repository.get("manifests/v1").await.status, 200);
    server.finish().await;
}

#[tokio::test]
async fn a_tag_is_fresh_for_a_while_and_head_is_get() {
    let (upstream, server, image, repository) = mirror("").await;
    let head = repository.head("manifests/v1").await;
    let get = repository.get("manifests/v1").await;
    assert_eq!((get.verdict(), head.status), ("hit", 200));
    for name in ["content-length", "content-type", "docker-content-digest", "etag", "cache-control", "oci-namespace"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    assert!(head.body.is_empty() && get.body == image.manifest.bytes);
    assert_eq!(upstream.requests().len(), 1);
    let again = repository.ask("GET", "manifests/v1").header("if-none-match", image.digest()).send().await;
    assert_eq!(again.status, 304);
    let refused_type = repository.ask("GET", "manifests/v1").header("accept", INDEX).send().await;
    refused(&refused_type, 404, "MANIFEST_UNKNOWN");
    let accept = upstream.requests()[0].header("accept").unwrap().to_owned();
    assert!(accept.contains(MANIFEST) && accept.contains(INDEX) && accept.contains("docker.distribution.manifest.list.v2"));
    server.finish().await;
}

#[tokio::test]
async fn what_is_kept_is_served_whatever_happens_to_the_upstream() {
    let (upstream, server, image, repository) = mirror(&format!("{ALWAYS}\nbreaker_failures = 1000")).await;
    repository.get("manifests/v1").await;
    for blob in &image.blobs {
        assert!(repository.get(&format!("blobs/{}", blob.digest)).await.body == blob.bytes);
    }
    let path = "/v2/acme/app/manifests/v1";
    let wait = vec![("Retry-After", "0".to_owned())];
    for fault in
        [Fault::Status(500), Fault::Status(502), Fault::StatusWith(429, wait), Fault::Status(403), Fault::Status(401), Fault::Portal]
    {
        upstream.always(path, fault.clone());
        let answer = repository.get("manifests/v1").await;
        assert!(answer.status == 200 && answer.body == image.manifest.bytes, "{fault:?}: {}", answer.text());
        assert_eq!(answer.verdict(), STALE, "{fault:?}");
        upstream.heal(path);
    }
    upstream.stop();
    assert_eq!(repository.get("manifests/v1").await.verdict(), STALE);
    for blob in &image.blobs {
        let answer = repository.get(&format!("blobs/{}", blob.digest)).await;
        assert!(answer.verdict() == "hit" && answer.body == blob.bytes);
    }
    assert_eq!(repository.get("manifests/none").await.status, 502, "what is not known is not absent either");
    upstream.start_again();
    // Only the upstream's own word takes a tag away, not what it points at.
    upstream.remove_file(path);
    refused(&repository.get("manifests/v1").await, 404, "MANIFEST_UNKNOWN");
    assert_eq!(repository.get(&format!("manifests/{}", image.digest())).await.status, 200);
    server.finish().await;
}

#[tokio::test]
async fn nothing_is_kept_or_sent_that_its_digest_does_not_prove() {
    let (upstream, server, image, repository) = mirror(ALWAYS).await;
    let layer = &image.blobs[1];
    let (manifest, blob) = (format!("/v2/acme/app/manifests/{}", image.digest()), format!("/v2/acme/app/blobs/{}", layer.digest));
    for fault in [Fault::Flipped, Fault::Padded, Fault::Empty, Fault::Portal, Fault::Short, Fault::CutAfter(10)] {
        upstream.fault(&manifest, fault.clone(), 1);
        let answer = repository.get(&format!("manifests/{}", image.digest())).await;
        assert!(answer.status >= 500, "{fault:?}: {} {}", answer.status, answer.text());
        upstream.fault(&blob, fault.clone(), 1);
        let answer = repository.get(&format!("blobs/{}", layer.digest)).await;
        assert!(answer.status >= 500 || answer.cut, "{fault:?}: {} {}", answer.status, answer.text());
    }
    // A tag whose body is not what its own header names.
    let lie = vec![("Docker-Content-Digest", Blob::new("other").digest)];
    upstream.without_validators();
    upstream.fault("/v2/acme/app/manifests/v1", Fault::Extra(lie), 1);
    assert_eq!(repository.get("manifests/v1").await.status, 502);
    server.cli(&["fsck"]).await;
    assert!(repository.get(&format!("manifests/{}", image.digest())).await.body == image.manifest.bytes);
    let answer = repository.get(&format!("blobs/{}", layer.digest)).await;
    assert!(answer.verdict() == MISS && answer.body == layer.bytes);
    // A content that is not asked for by SHA-256 is proven all the same.
    let strong = Blob::sha512("strong");
    upstream.file(&format!("/v2/acme/app/blobs/{}", strong.digest), "application/octet-stream", strong.bytes.clone());
    assert!(repository.get(&format!("blobs/{}", strong.digest)).await.body == strong.bytes);
    let forged = Blob::sha512("forged");
    upstream.file(&format!("/v2/acme/app/blobs/{}", forged.digest), "application/octet-stream", "other");
    assert_eq!(repository.get(&format!("blobs/{}", forged.digest)).await.status, 502);
    server.finish().await;
}

#[tokio::test]
async fn one_question_for_many_callers_who_follow_a_layer_while_it_arrives() {
    let (upstream, server, image, repository) = mirror("").await;
    let large = Blob::noise("large", 3 << 20);
    let path = format!("/v2/acme/app/blobs/{}", large.digest);
    upstream.file(&path, "application/octet-stream", large.bytes.clone());
    upstream.fault("/v2/acme/app/manifests/v1", Fault::Hold, 1);
    upstream.fault(&path, Fault::HoldAfter(1 << 20), 1);
    let get = |path: String| {
        let repository = repository.clone();
        tokio::spawn(async move { repository.get(&path).await })
    };
    let tags: Vec<_> = (0..10).map(|_| get("manifests/v1".into())).collect();
    upstream.held(1).await;
    upstream.release();
    for tag in tags {
        assert!(tag.await.unwrap().body == image.manifest.bytes);
    }
    let layers: Vec<_> = (0..10).map(|_| get(format!("blobs/{}", large.digest))).collect();
    upstream.held(1).await;
    // A range of it joins them too; its last byte comes when the whole is proven.
    let part = repository.ask("GET", &format!("blobs/{}", large.digest)).header("range", "bytes=10-99").send();
    let (part, ()) = tokio::join!(part, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        upstream.release();
    });
    assert_eq!((part.status, part.header("content-range")), (206, format!("bytes 10-99/{}", large.bytes.len()).as_str()));
    assert!(part.body == large.bytes[10..100]);
    for layer in layers {
        assert!(layer.await.unwrap().body == large.bytes);
    }
    assert_eq!((upstream.count("/v2/acme/app/manifests/v1"), upstream.count(&path)), (1, 1), "{:?}", upstream.requests());
    server.finish().await;
}

#[tokio::test]
async fn a_layer_that_breaks_off_is_resumed() {
    let (upstream, server, _, repository) = mirror("retries = 3").await;
    let large = Blob::noise("large", 2 << 20);
    let path = format!("/v2/acme/app/blobs/{}", large.digest);
    upstream.file(&path, "application/octet-stream", large.bytes.clone());
    upstream.fault(&path, Fault::CutAfter(700_000), 1);
    let answer = repository.get(&format!("blobs/{}", large.digest)).await;
    assert!(!answer.cut && answer.body == large.bytes);
    let ranges: Vec<Option<String>> = upstream.requests().iter().map(|seen| seen.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=700000-".to_owned())]);
    server.finish().await;
}

#[tokio::test]
async fn who_only_looks_fetches_nothing() {
    let (upstream, server, image, repository) = mirror("").await;
    let layer = &image.blobs[1];
    let path = format!("blobs/{}", layer.digest);
    let head = repository.head(&path).await;
    assert_eq!(asked(&upstream), [format!("HEAD /v2/acme/app/{path}")]);
    let get = repository.get(&path).await;
    for name in ["content-length", "content-type", "docker-content-digest", "etag", "cache-control", "accept-ranges", "oci-namespace"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    upstream.forget();
    assert_eq!((repository.head(&path).await.status, upstream.requests().len()), (200, 0));
    for method in ["GET", "HEAD"] {
        assert_eq!(repository.ask(method, &format!("blobs/{}", Blob::new("none").digest)).send().await.status, 404);
    }
    server.finish().await;
}

#[tokio::test]
async fn tokens_are_had_once_for_each_repository_and_again_when_they_are_refused() {
    let (upstream, server, image, repository) = mirror(ALWAYS).await;
    upstream.want_tokens(None);
    let other = Image::new("other");
    upstream.image("acme/other", &other, "v1");
    let get = |path: String| {
        let repository = repository.clone();
        tokio::spawn(async move { repository.get(&path).await })
    };
    let all: Vec<_> = image.blobs.iter().map(|blob| get(format!("blobs/{}", blob.digest))).chain([get("manifests/v1".into())]).collect();
    for answer in all {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(upstream.count("/token"), 1);
    assert_eq!(Repository::new(&repository.caller, "hub.test/acme/other").get("manifests/v1").await.status, 200);
    let tokens: Vec<String> = upstream.requests().iter().filter(|seen| seen.path == "/token").map(|seen| seen.target.clone()).collect();
    assert_eq!(tokens, ["app", "other"].map(|name| format!("/token?service=told&scope=repository%3Aacme%2F{name}%3Apull")));
    upstream.forget();
    upstream.forget_tokens();
    assert_eq!(repository.get("manifests/v1").await.verdict(), REVALIDATED);
    let expected = ["HEAD /v2/acme/app/manifests/v1", "GET /token", "HEAD /v2/acme/app/manifests/v1"];
    assert_eq!(asked(&upstream), expected, "refused, had anew, and asked again");
    // A token service that fails is no reason to say that nothing is there.
    upstream.forget_tokens();
    upstream.always("/token", Fault::Status(500));
    assert_eq!(repository.get("manifests/v1").await.verdict(), STALE);
    assert_eq!(repository.get("manifests/new").await.status, 502);
    server.finish().await;
}

#[tokio::test]
async fn credentials_go_to_the_registrys_own_token_service_alone() {
    let (upstream, stranger) = (Upstream::start(), Upstream::start());
    let image = Image::new("upstream");
    upstream.image("acme/app", &image, "v1");
    upstream.want_tokens(None);
    stranger.want_tokens(None);
    let password = "secret-of-the-upstream";
    let credentials = "username = \"robot\"\npassword_file = \"upstream-token\"\n";
    let setup = mirroring(&upstream, credentials).engine(ALWAYS).secret_file("upstream-token", password);
    let server = setup.start().await;
    let repository = Repository::new(&server.caller(), "hub.test/acme/app");
    let basic = format!("Basic {}", base64_of(&format!("robot:{password}")));
    assert_eq!(repository.get("manifests/v1").await.status, 200);
    for seen in upstream.requests() {
        let sent = seen.header("authorization");
        assert_eq!(sent == Some(&basic), seen.path == "/token", "{} {sent:?}", seen.path);
    }
    // A registry that was taken over names a service of its own.
    upstream.forget();
    upstream.want_tokens(Some(&format!("{}/token", stranger.url())));
    upstream.forget_tokens();
    let answer = repository.get("manifests/v1").await;
    assert_eq!(answer.verdict(), STALE);
    let seen = stranger.requests();
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.header("authorization").is_none()), "{seen:?}");
    assert!(upstream.requests().iter().all(|seen| seen.header("authorization") != Some(&basic)));
    until("a line that tells the operator", || server.log().contains("token_hosts")).await;
    server.finish().await;
}

#[tokio::test]
async fn a_registry_that_wants_basic_credentials_gets_them() {
    let upstream = Upstream::start();
    let image = Image::new("upstream");
    upstream.image("acme/app", &image, "v1");
    let basic = format!("Basic {}", base64_of("robot:pass-of-basic"));
    upstream.require(&basic);
    upstream.challenge("Basic realm=\"told\"");
    let credentials = "username = \"robot\"\npassword_file = \"upstream-token\"\n";
    let server = mirroring(&upstream, credentials).secret_file("upstream-token", "pass-of-basic").start().await;
    let repository = Repository::new(&server.caller(), "hub.test/acme/app");
    assert!(repository.get("manifests/v1").await.body == image.manifest.bytes);
    assert!(repository.get(&format!("blobs/{}", image.blobs[1].digest)).await.body == image.blobs[1].bytes);
    let refused = upstream.requests().iter().filter(|seen| seen.header("authorization").is_none()).count();
    assert_eq!(refused, 1, "after the first challenge they are sent at once");
    server.finish().await;
}

#[tokio::test]
async fn what_the_upstream_does_not_let_us_have_is_absent_and_not_remembered() {
    let (upstream, server, image, repository) = mirror("negative_seconds = 300").await;
    for status in [401, 403] {
        upstream.always("/v2/acme/app/manifests/v1", Fault::Status(status));
        upstream.always(&format!("/v2/acme/app/blobs/{}", image.blobs[0].digest), Fault::Status(status));
        refused(&repository.get("manifests/v1").await, 404, "MANIFEST_UNKNOWN");
        refused(&repository.get(&format!("blobs/{}", image.blobs[0].digest)).await, 404, "BLOB_UNKNOWN");
        upstream.heal("/v2/acme/app/manifests/v1");
        upstream.heal(&format!("/v2/acme/app/blobs/{}", image.blobs[0].digest));
    }
    assert_eq!(repository.get("manifests/v1").await.status, 200);
    assert_eq!(repository.get(&format!("blobs/{}", image.blobs[0].digest)).await.status, 200);
    // What it says it does not have is believed for a moment.
    for _ in 0..3 {
        refused(&repository.get("manifests/none").await, 404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(upstream.count("/v2/acme/app/manifests/none"), 1);
    // One that asks to be left alone is.
    let wait = vec![("Retry-After", "60".to_owned())];
    upstream.fault("/v2/acme/app/manifests/v2", Fault::StatusWith(429, wait), 1);
    let answer = repository.get("manifests/v2").await;
    refused(&answer, 503, "UNAVAILABLE");
    upstream.forget();
    refused(&repository.get("manifests/v3").await, 503, "UNAVAILABLE");
    assert!(upstream.requests().is_empty());
    assert_eq!(repository.get("manifests/v1").await.status, 200);
    server.finish().await;
}

#[tokio::test]
async fn tags_and_referrers_are_the_upstreams() {
    let (upstream, server, image, repository) = mirror(ALWAYS).await;
    let list = "/v2/acme/app/tags/list";
    upstream.file(list, "application/json", json!({ "name": "acme/app", "tags": ["a", "b"] }).to_string());
    let more = vec![("Link", format!("<{list}?n=2&last=b>; rel=\"next\""))];
    upstream.always(list, Fault::Extra(more));
    let answer = repository.get("tags/list?n=2").await;
    assert_eq!((answer.json()["name"].as_str(), texts(&answer.json()["tags"])), (Some("hub.test/acme/app"), vec!["a".into(), "b".into()]));
    assert_eq!(next(&answer).as_deref(), Some("/v2/hub.test/acme/app/tags/list?n=2&last=b"));
    let targets: Vec<String> = upstream.requests().iter().map(|seen| seen.target.clone()).collect();
    assert_eq!(targets, ["/v2/acme/app/tags/list?n=2"]);
    upstream.heal(list);
    upstream.file(list, "application/json", json!({ "name": "acme/app", "tags": null }).to_string());
    let last = repository.get("tags/list?n=2&last=b").await;
    assert_eq!((texts(&last.json()["tags"]).len(), next(&last)), (0, None));
    refused(&repository.get("tags/list?n=-1").await, 400, "PAGINATION_NUMBER_INVALID");
    refused(&repository.get("tags/list?last=no/tag").await, 400, "TAG_INVALID");
    refused(&Repository::new(&repository.caller, "hub.test/no/such").get("tags/list").await, 404, "NAME_UNKNOWN");

    let entry = |kind: &str| {
        let about = Image::artifact(kind, kind, &json!({ "subject": image.descriptor() }));
        let mut descriptor = about.descriptor();
        descriptor["artifactType"] = json!(kind);
        descriptor
    };
    let index = |entries: &[Value]| json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string();
    let path = format!("/v2/acme/app/referrers/{}", image.digest());
    let ours = format!("referrers/{}", image.digest());
    upstream.file(&path, INDEX, index(&[entry("application/vnd.sig"), entry("application/vnd.sbom")]));
    let all = repository.get(&ours).await;
    assert_eq!((all.status, all.header("content-type"), all.json()["manifests"].as_array().unwrap().len()), (200, INDEX, 2));
    let some = repository.get(&format!("{ours}?artifactType=application/vnd.sig")).await;
    assert_eq!((some.json()["manifests"].as_array().unwrap().len(), some.header("oci-filters-applied")), (1, "artifactType"));
    // Without the list there may be the one that clients keep; without either there are none.
    upstream.remove_file(&path);
    let tag = format!("/v2/acme/app/manifests/{}", image.digest().replace(':', "-"));
    upstream.file(&tag, INDEX, index(&[entry("application/vnd.sig")]));
    assert_eq!(repository.get(&ours).await.json()["manifests"].as_array().unwrap().len(), 1);
    for fault in [Fault::Status(405), Fault::Portal] {
        upstream.always(&path, fault);
        assert_eq!(repository.get(&ours).await.json()["manifests"].as_array().unwrap().len(), 1);
        upstream.heal(&path);
    }
    upstream.remove_file(&tag);
    assert_eq!(repository.get(&ours).await.json()["manifests"], json!([]));
    // Not to know is not the same as none.
    let unknown = Blob::new("unknown").digest;
    for status in [500, 403] {
        upstream.always(&format!("/v2/acme/app/referrers/{unknown}"), Fault::Status(status));
        let answer = repository.get(&format!("referrers/{unknown}")).await;
        assert_eq!(answer.status, 502, "{}", answer.text());
        upstream.heal(&format!("/v2/acme/app/referrers/{unknown}"));
    }
    server.finish().await;
}

#[tokio::test]
async fn a_mirror_for_those_with_a_token_asks_for_it() {
    let upstream = Upstream::start();
    let image = Image::new("upstream");
    upstream.image("acme/app", &image, "v1");
    let server = mirroring(&upstream, "").more("[access]\nanonymous_proxy = false").start().await;
    let answer = server.caller().get("/v2/hub.test/acme/app/manifests/v1").send().await;
    refused(&answer, 401, "UNAUTHORIZED");
    assert!(answer.header("www-authenticate").ends_with("scope=\"repository:hub.test/acme/app:pull\""));
    assert_eq!(at(&server, "mirror.test", "GET /v2/").await.0, 401);
    server.user("reader").await;
    let token = server.token("reader", &["read:packages"]).await;
    let credentials = format!("Basic {}", base64_of(&format!("reader:{}", token.text)));
    let asked = server.caller().get("/v2/token?scope=repository:hub.test/acme/app:pull,push").header("authorization", &credentials);
    let session = asked.send().await.expect(200).json();
    assert_eq!(session["scope"], "repository:hub.test/acme/app:pull");
    let caller = Caller::new(&server.origin(), session["token"].as_str());
    let answer = caller.get("/v2/hub.test/acme/app/manifests/v1").send().await;
    assert!(answer.body == image.manifest.bytes);
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    assert!(upstream.requests().iter().all(|seen| seen.header("authorization").is_none()), "ours is not theirs");
    server.finish().await;
}

#[tokio::test]
async fn an_open_mirror_wants_no_token_at_all() {
    let (_upstream, server, ..) = mirror("").await;
    assert_eq!(at(&server, "mirror.test", "GET /v2/").await.0, 200);
    assert_eq!(at(&server, "elsewhere.test", "GET /v2/").await.0, 401);
    server.finish().await;
}

#[tokio::test]
async fn offline_serves_what_is_kept_and_asks_nobody() {
    let (upstream, mut server, image, repository) = mirror(ALWAYS).await;
    repository.get("manifests/v1").await;
    // A stop waits until what came whole is recorded.
    repository.get(&format!("blobs/{}", image.blobs[1].digest)).await;
    assert!(server.stop().await.success());
    let config = std::fs::read_to_string(server.config_path()).unwrap().replace("[upstream]\n", "[upstream]\noffline = true\n");
    std::fs::write(server.config_path(), config).unwrap();
    server.start_again().await;
    upstream.forget();
    assert_eq!(repository.get("manifests/v1").await.verdict(), "hit; detail=offline");
    let by_digest = repository.get(&format!("manifests/{}", image.digest())).await;
    assert!(by_digest.verdict() == "hit" && by_digest.body == image.manifest.bytes);
    assert!(repository.get(&format!("blobs/{}", image.blobs[1].digest)).await.body == image.blobs[1].bytes);
    refused(&repository.get("manifests/none").await, 503, "UNAVAILABLE");
    assert_eq!(repository.head(&format!("blobs/{}", image.blobs[0].digest)).await.status, 503);
    assert!(upstream.requests().is_empty());
    server.finish().await;
}

/// A cache that may be dropped at any time: what is evicted is fetched again, also what a tag is known to point at.
#[tokio::test]
async fn what_was_evicted_is_fetched_again() {
    let upstream = Upstream::start();
    let image = Image::of(&Blob::new("{}"), "a/b", &[Blob::noise("layer", 300_000)], &json!({}));
    upstream.image("acme/app", &image, "v1");
    let server = mirroring(&upstream, "").blob("lease_seconds = 1\ncache_limit_bytes = 1").start().await;
    let repository = Repository::new(&server.caller(), "hub.test/acme/app");
    for _ in 0..3 {
        assert!(repository.get("manifests/v1").await.body == image.manifest.bytes);
        assert!(repository.get(&format!("manifests/{}", image.digest())).await.body == image.manifest.bytes);
        for blob in &image.blobs {
            assert!(repository.get(&format!("blobs/{}", blob.digest)).await.body == blob.bytes);
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
        server.cli(&["gc"]).await;
    }
    assert!(upstream.count(&format!("/v2/acme/app/blobs/{}", image.blobs[1].digest)) > 1, "nothing was evicted");
    server.finish().await;
}

#[tokio::test]
async fn blobs_elsewhere_are_followed_without_the_token() {
    let (upstream, storage) = (Upstream::start(), Upstream::start());
    let image = Image::new("upstream");
    upstream.image("acme/app", &image, "v1");
    upstream.want_tokens(None);
    let layer = &image.blobs[1];
    storage.file("/stored", "application/octet-stream", layer.bytes.clone());
    upstream.want_tokens(None);
    let server = mirroring(&upstream, "").start().await;
    let repository = Repository::new(&server.caller(), "hub.test/acme/app");
    assert_eq!(repository.get("manifests/v1").await.status, 200);
    upstream.always(&format!("/v2/acme/app/blobs/{}", layer.digest), Fault::Redirect(format!("{}/stored", storage.url())));
    assert!(repository.get(&format!("blobs/{}", layer.digest)).await.body == layer.bytes);
    assert!(storage.requests().iter().all(|seen| seen.header("authorization").is_none()));
    server.finish().await;
}
