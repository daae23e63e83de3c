//! TLS: the handshake, HTTP/2 by ALPN, addresses, and certificates that change while the server runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Authority, Client, Fault, Identity, Package, Project, Server, Setup, Tool, Upstream, until};
use crate::npm_wire::publish;

/// A caller that trusts this authority and no other.
fn trusting(authority: &Authority) -> reqwest::ClientBuilder {
    let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([root]).timeout(Duration::from_secs(30))
}

/// An upstream with one package, a server before it that speaks TLS, and its authority.
async fn with_tls(package: &Package, server: &str) -> (Upstream, Server, Authority) {
    let authority = Authority::new();
    let upstream = Upstream::with(std::slice::from_ref(package));
    let server = Setup::default().upstream(&upstream).tls(&authority.sign()).server(server).start().await;
    (upstream, server, authority)
}

#[tokio::test]
async fn npm_installs_over_tls_and_trusts_only_the_right_authority() {
    let package = Package::with("dep", "1.0.0", json!({}), 100_000);
    let (_upstream, server, authority) = with_tls(&package, "").await;
    let registry = format!("{}/npm/", server.tls_origin());
    let trust = |authority: &Authority, name: &str| -> PathBuf {
        let file = server.folder().join(name);
        std::fs::write(&file, authority.pem()).unwrap();
        file
    };
    let right = Client::new(Tool::Npm, &registry, None).with_setting(&format!("cafile={}", trust(&authority, "ca.pem").display()));
    let project = Project::depending_on(Tool::Npm, &["dep@1.0.0"]);
    right.run(project.path(), &["install"]).await.ok();
    assert_eq!(project.installed("dep"), "1.0.0");
    assert!(project.read("package-lock.json").contains(&format!("{registry}dep/-/dep-1.0.0.tgz")), "the lock file names what was used");

    let wrong = Client::new(Tool::Npm, &registry, None)
        .with_setting(&format!("cafile={}", trust(&Authority::new(), "other.pem").display()))
        .with_setting("fetch-retries=0");
    let refused = Project::depending_on(Tool::Npm, &["dep@1.0.0"]);
    wrong.run(refused.path(), &["install"]).await.fails_with(&["certificate", "CERT", "issuer"]);
    server.finish().await;
}

#[tokio::test]
async fn alpn_gives_http2_and_http1_and_addresses_of_the_origin_used() {
    let package = Package::with("dep", "1.0.0", json!({}), 500_000);
    let (_upstream, server, authority) = with_tls(&package, "").await;
    let both = trusting(&authority).build().unwrap();
    let old = trusting(&authority).http1_only().build().unwrap();
    for (http, version) in [(&both, reqwest::Version::HTTP_2), (&old, reqwest::Version::HTTP_11)] {
        let answer = http.get(format!("{}/npm/dep", server.tls_origin())).send().await.unwrap();
        assert_eq!((answer.version(), answer.status().as_u16()), (version, 200));
        let document: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let address = document["versions"]["1.0.0"]["dist"]["tarball"].as_str().unwrap().to_owned();
        assert_eq!(address, format!("{}/npm/dep/-/dep-1.0.0.tgz", server.tls_origin()));
        assert!(http.get(&address).send().await.unwrap().bytes().await.unwrap() == package.tarball);
        // A body would be an error of the protocol here, which HTTP/2's clients tell of.
        let head = http.head(&address).send().await.unwrap();
        assert_eq!(head.status(), 200);
        assert_eq!(head.headers()["content-length"], package.tarball.len().to_string());
        assert!(head.bytes().await.unwrap().is_empty());
        assert_eq!(http.head(format!("{}/npm/none", server.tls_origin())).send().await.unwrap().bytes().await.unwrap().len(), 0);
    }
    let plain = server.caller().packument("dep").await;
    assert_eq!(plain["versions"]["1.0.0"]["dist"]["tarball"], json!(format!("{}dep/-/dep-1.0.0.tgz", server.registry())));
    let stranger = trusting(&Authority::new()).build().unwrap();
    assert!(stranger.get(format!("{}/npm/dep", server.tls_origin())).send().await.is_err(), "a wrong authority is no trust");
    let http10 = crate::harness::exchange(server.tls_port(), b"GET /npm/dep HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(http10.statuses.is_empty() && http10.closed, "no plain HTTP on the TLS port: {:?}", http10.statuses);
    server.finish().await;
}

/// The certificate that a new handshake gets.
async fn shown(server: &Server) -> Vec<u8> {
    let http = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).tls_info(true).build().unwrap();
    let answer = http.get(format!("{}/-/health", server.tls_origin())).send().await.unwrap();
    answer.extensions().get::<reqwest::tls::TlsInfo>().and_then(|info| info.peer_certificate()).expect("a certificate").to_vec()
}

/// Puts a certificate in place as a renewal tool does.
fn replace(server: &Server, identity: &Identity) {
    for (name, text) in [("key.pem", &identity.key), ("cert.pem", &identity.certificate)] {
        std::fs::write(server.folder().join(name), text).unwrap();
    }
}

#[tokio::test]
async fn ht20_a_certificate_changes_under_load_and_a_broken_one_does_not() {
    let package = Package::with("dep", "1.0.0", json!({}), 3 << 20);
    let (upstream, server, authority) = with_tls(&package, "").await;
    let http = trusting(&authority).build().unwrap();
    let address = format!("{}/npm/dep/-/dep-1.0.0.tgz", server.tls_origin());
    let document = format!("{}/npm/dep", server.tls_origin());
    assert_eq!(http.get(&document).send().await.unwrap().status(), 200);
    upstream.fault(&package.path(), Fault::HoldAfter(1 << 20), 1);
    let running = tokio::spawn({
        let (http, address) = (http.clone(), address.clone());
        async move { http.get(&address).send().await.unwrap().bytes().await.unwrap() }
    });
    upstream.held(1).await;

    // Callers that shake hands anew for every request.
    let (going, done) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (going, done, document, pem) = (Arc::clone(&going), Arc::clone(&done), document.clone(), authority.pem().to_owned());
            tokio::spawn(async move {
                while going.load(Ordering::SeqCst) {
                    let root = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
                    let http = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
                    assert_eq!(http.get(&document).send().await.expect("no handshake is dropped").status(), 200);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut before = shown(&server).await;
    for _ in 0..5 {
        let next = authority.sign();
        replace(&server, &next);
        server.reload();
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        while shown(&server).await == before {
            assert!(tokio::time::Instant::now() < end, "the new certificate is not taken:\n{}", server.log());
        }
        assert!(shown(&server).await == next.der);
        before = next.der;
    }
    // Each of these is refused by name, and the certificate in use stays.
    let good = authority.sign();
    let broken = [
        Identity { certificate: "-----BEGIN CERTIFICATE-----\nnonsense\n".into(), ..good.clone() },
        Identity { certificate: String::new(), ..good.clone() },
        Identity { key: authority.sign().key, ..good.clone() },
        Identity { key: "none".into(), ..good },
    ];
    for identity in broken {
        let refused = |log: &str| log.matches("was not reloaded").count();
        let so_far = refused(&server.log());
        replace(&server, &identity);
        server.reload();
        until("a line about the broken certificate", || refused(&server.log()) > so_far).await;
        assert!(shown(&server).await == before, "a broken file changed the certificate");
    }
    upstream.release();
    assert!(running.await.unwrap() == package.tarball, "the running download ends whole");
    going.store(false, Ordering::SeqCst);
    for task in load {
        task.await.unwrap();
    }
    assert!(done.load(Ordering::SeqCst) > 20, "there was no load");
    server.finish().await;
}

#[tokio::test]
async fn ht20_half_handshakes_are_cut_off() {
    let package = Package::new("dep", "1.0.0");
    let (_upstream, server, authority) = with_tls(&package, "header_seconds = 1").await;
    // The beginning of a ClientHello that announces more, a byte of it, and nothing at all.
    let starts: [&[u8]; 3] = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3], &[22], &[]];
    let mut streams = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.tls_port())).await.unwrap();
        stream.write_all(starts[n % 3]).await.unwrap();
        streams.push(stream);
    }
    let http = trusting(&authority).build().unwrap();
    let started = tokio::time::Instant::now();
    assert_eq!(http.get(format!("{}/npm/dep", server.tls_origin())).send().await.unwrap().status(), 200);
    assert!(started.elapsed() < Duration::from_secs(1), "others waited {:?}", started.elapsed());
    for mut stream in streams {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a half handshake is never cut off");
    }
    server.finish().await;
}

#[tokio::test]
async fn kp11_a_stop_ends_a_download_over_tls_whole_and_publishes_too() {
    let package = Package::with("dep", "1.0.0", json!({}), 3 << 20);
    let (upstream, mut server, authority) = with_tls(&package, "drain_seconds = 20").await;
    let http = trusting(&authority).build().unwrap();
    assert_eq!(http.get(format!("{}/npm/dep", server.tls_origin())).send().await.unwrap().status(), 200);
    upstream.fault(&package.path(), Fault::HoldAfter(1 << 20), 1);
    let address = format!("{}/npm/dep/-/dep-1.0.0.tgz", server.tls_origin());
    let running = tokio::spawn(async move { http.get(&address).send().await.unwrap().bytes().await.unwrap() });
    upstream.held(1).await;
    // What holds a connection and asks nothing must not hold up the stop.
    let _idle = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let _half = TcpStream::connect(("127.0.0.1", server.tls_port())).await.unwrap();
    let token = server.publisher("alice").await;
    let (port, caller) = (server.port(), server.caller_with(&token));
    let last = Package::with("@alice/tool", "1.0.0", json!({}), 200_000);
    let published = tokio::spawn({
        let (caller, last) = (caller.clone(), last.clone());
        async move { publish(&caller, &last).await.status }
    });
    let acked = published.await.unwrap();
    let started = tokio::time::Instant::now();
    let stopping = tokio::spawn(async move { (server.stop().await, server) });
    until("the server to take no more connections", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err()).await;
    upstream.release();
    assert!(running.await.unwrap() == package.tarball, "the running download ends whole");
    let (status, mut server) = stopping.await.unwrap();
    assert!(status.success() && acked < 300);
    assert!(started.elapsed() < Duration::from_secs(10), "the stop took {:?}", started.elapsed());
    server.start_again().await;
    let kept = server.caller_with(&token).get(&format!("/npm{}", last.path())).send().await;
    assert!(kept.status == 200 && kept.body == last.tarball, "an acked publish is lost");
    server.finish().await;
}
