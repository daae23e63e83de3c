//! HTTP at the level of bytes: the rows HT of the catalogue, by name.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Exchange, Package, Server, Setup, exchange};
use crate::npm_refusals::peak_kilobytes;
use crate::npm_wire::{at, hosting, publish};

/// Sends bytes and expects every answer to be one of `statuses`, as many answers as `count` at most, and no sign of a second request.
async fn check(server: &Server, what: &str, bytes: &[u8], statuses: &[u16], count: usize) -> Exchange {
    let got = exchange(server.port(), bytes).await;
    assert!(got.statuses.iter().all(|status| statuses.contains(status)), "{what}: {:?}, wanted some of {statuses:?}", got.statuses);
    assert!(got.statuses.len() <= count, "{what}: {} answers", got.statuses.len());
    assert!(!got.statuses.is_empty() || got.closed, "{what}: no answer and no end");
    assert_eq!(server.caller().get("/-/health").send().await.status, 200, "{what}: others are served");
    got
}

/// A request that would tell that it was smuggled: it answers 200, all others here do not.
const SMUGGLED: &str = "GET /npm/-/ping HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn ht01_ht02_ht03_framing_in_two_minds() {
    let server = Setup::default().start().await;
    let put = |headers: &str, body: &str| format!("PUT /npm/x HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}").into_bytes();
    let get10 = format!("POST /npm/x HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}");
    let zero = format!("0\r\n\r\n{SMUGGLED}");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("CL then TE", put("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &zero)),
        ("TE then CL", put("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &zero)),
        ("two CLs", put("Content-Length: 0\r\nContent-Length: 44\r\n", SMUGGLED)),
        ("a list of CLs", put("Content-Length: 5, 6\r\n", SMUGGLED)),
        ("+5", put("Content-Length: +5\r\n", SMUGGLED)),
        ("0x5", put("Content-Length: 0x5\r\n", SMUGGLED)),
        ("TE chunked, x", put("Transfer-Encoding: chunked, x\r\n", &zero)),
        ("TE twice", put("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", &zero)),
        ("TE on HTTP/1.0", get10.into_bytes()),
    ];
    for (what, bytes) in cases {
        let got = check(&server, what, &bytes, &[400, 401, 404, 411, 501], 1).await;
        assert!(got.closed, "{what}: the connection stays open");
    }
    server.finish().await;
}

#[tokio::test]
async fn ht04_chunks_that_lie() {
    let server = Setup::default().start().await;
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(65_536));
    for body in ["10000000000000000\r\nx", "-1\r\nx", "5\nhello\r\n0\r\n\r\n", "zz\r\n", long.as_str(), "5\r\nhelloXX0\r\n\r\n"] {
        let bytes = format!("PUT /npm/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let got = check(&server, "a chunk that lies", bytes.as_bytes(), &[400, 401, 404, 413], 1).await;
        assert!(got.closed, "{body:.20}: the connection stays open");
    }
    server.finish().await;
}

#[tokio::test]
async fn ht05_bad_bytes_in_a_head() {
    let server = Setup::default().start().await;
    let heads: [&[u8]; 7] = [
        b"GET /npm/-/ping HTTP/1.1\rHost: x\r\n\r\n",
        b"GET /npm/-/ping HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        b"GET /npm/-/ping HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        b"GET /npm/-/ping HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /npm/-/ping HTTP/1.1\r\nHost: x\r\nBad Name: x\r\n\r\n",
        b"GET /npm/-/p\x01ing HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for head in heads {
        check(&server, &String::from_utf8_lossy(head), head, &[400, 404], 1).await;
    }
    server.finish().await;
}

#[tokio::test]
async fn ht06_one_answer_per_request() {
    let server = Setup::default().start().await;
    for method in ["GET", "HEAD", "DELETE"] {
        let bytes = format!("{method} /npm/-/none HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{SMUGGLED}{SMUGGLED}", SMUGGLED.len());
        let got = exchange(server.port(), bytes.as_bytes()).await;
        assert!(got.statuses.len() <= 2 && got.statuses.first().is_some_and(|status| *status >= 400), "{method}: {:?}", got.statuses);
        assert!(got.statuses.len() < 2 || got.statuses[1] == 200, "{method}: the body was not skipped: {:?}", got.statuses);
    }
    let pipelined = exchange(server.port(), SMUGGLED.repeat(20).as_bytes()).await;
    assert_eq!(pipelined.statuses, [200; 20]);
    server.finish().await;
}

#[tokio::test]
async fn ht07_it_is_no_forward_proxy() {
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let target = trap.local_addr().unwrap();
    let server = Setup::default().start().await;
    for bytes in [
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"),
        format!("GET http://{target}/npm/x HTTP/1.1\r\nHost: {target}\r\n\r\n"),
        format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        "GET /npm/none HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n".into(),
        "GET /npm/none HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
            .into(),
    ] {
        check(&server, &bytes, bytes.as_bytes(), &[400, 404, 405, 421, 426, 501], 1).await;
    }
    assert!(trap.accept().is_err(), "it dialled");
    server.finish().await;
}

#[tokio::test]
async fn ht08_links_are_built_from_the_config() {
    let (server, token) = hosting().await;
    publish(&server.caller_with(&token), &Package::new("@alice/tool", "1.0.0")).await;
    server.cli(&["package", "visibility", "npm", "@alice/tool", "public"]).await;
    for headers in [
        "Host: evil.example\r\n",
        "Host: x\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nForwarded: host=evil.example\r\n",
    ] {
        let bytes = format!("GET /npm/@alice%2ftool HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        let got = check(&server, headers, bytes.as_bytes(), &[200, 400, 404, 421], 1).await;
        assert!(!String::from_utf8_lossy(&got.responses[0].1).contains("evil.example"), "{headers}");
    }
    for head in ["Host: a\r\nHost: b\r\n", ""] {
        let bytes = format!("GET /npm/@alice%2ftool HTTP/1.1\r\n{head}\r\n");
        check(&server, "two hosts or none", bytes.as_bytes(), &[400], 1).await;
    }
    server.finish().await;
}

#[tokio::test]
async fn ht09_ht10_paths_out_of_the_tree() {
    let server = Setup::default().start().await;
    let paths = [
        "/npm/%2e%2e/%2e%2e/etc/passwd",
        "/npm/..%2f..%2fstate.redb",
        "/npm/%2F%2F../x",
        "/npm/..%5c..%5cx",
        "/npm/%252e%252e%252fx",
        "/npm/%c0%ae%c0%ae/x",
        "/npm/x/-/..%2f..%2fadmin-token",
        "/npm/x/-/%2e%2e",
        "/../admin-token",
        "/npm/../../admin-token",
        "/npm/x%00y",
        "/npm/x%0d%0aSet-Cookie:%20a=b",
        "/npm/x?y=%0d%0aSet-Cookie:%20a=b",
        "/npm/-/v1/search?text=%00%0d%0aX:y",
        "/npm/x/-/x%0d%0aA:b-1.0.0.tgz",
        "/npm/%ff%fe",
        "/-/%2e%2e/admin-token",
        "//",
        "/npm/%",
    ];
    for path in paths {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let got = check(&server, path, bytes.as_bytes(), &[200, 400, 404], 1).await;
        let search = path.contains("search") || path.contains('?');
        assert!(search || got.statuses != [200], "{path}: {:?}", got.responses);
        let head = got.responses[0].0.to_ascii_lowercase();
        assert!(!head.contains("set-cookie") && !head.contains("\r\nx:") && !head.contains("\r\na:"), "{path}: {head}");
        assert!(!String::from_utf8_lossy(&got.responses[0].1).contains("pkh_"), "{path}");
    }
    server.finish().await;
}

#[tokio::test]
async fn ht11_heads_without_measure() {
    let server = Setup::default().start().await;
    let before = peak_kilobytes(server.pid());
    let long = format!("GET /npm/{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(65_536));
    check(&server, "a long address", long.as_bytes(), &[400, 404, 414, 431], 1).await;
    let many = (0..10_000).map(|n| format!("X-{n}: y")).collect::<Vec<_>>().join("\r\n") + "\r\n";
    check(&server, "many headers", format!("GET /npm/x HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes(), &[400, 431], 1).await;
    let query = "a=b&".repeat(2000);
    check(
        &server,
        "many parameters",
        format!("GET /npm/-/v1/search?{query} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
        &[200, 400, 414, 431],
        1,
    )
    .await;
    for length in ["9223372036854775808", "18446744073709551616", "99999999999999999999999999"] {
        let bytes = format!("PUT /npm/x HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nx");
        check(&server, length, bytes.as_bytes(), &[400, 401, 404, 413], 1).await;
    }
    let grown = peak_kilobytes(server.pid()) - before;
    assert!(grown < 64 << 10, "memory grew by {grown} kB");
    server.finish().await;
}

#[tokio::test]
async fn ht12_ht13_ranges() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let package = Package::with("@alice/tool", "1.0.0", json!({}), 5000);
    publish(&caller, &package).await;
    let path = format!("/npm{}", package.path());
    let whole = &package.tarball;
    let many = format!("bytes={}", (0..1000).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(","));
    for range in [
        many.as_str(),
        "bytes=5-1",
        "bytes=0-1,1-2",
        "bytes=99999999-",
        "bytes=-0",
        "lines=1-2",
        "bytes=18446744073709551616-",
        "bytes=0-18446744073709551616",
    ] {
        let answer = caller.get(&path).header("range", range).send().await;
        match answer.status {
            200 => assert!(answer.body == *whole, "{range:.30}"),
            206 => assert!(
                answer.body.len() <= whole.len() && whole.windows(answer.body.len().max(1)).any(|part| part == answer.body),
                "{range:.30}"
            ),
            status => assert_eq!(status, 416, "{range:.30}"),
        }
    }
    let etag = caller.get(&path).send().await.header("etag").to_owned();
    let both = caller.get(&path).header("if-none-match", &etag).header("range", "bytes=0-1").send().await;
    assert_eq!(both.status, 304, "RFC 9110, 13.2.2: If-None-Match comes first");
    server.finish().await;
}

#[tokio::test]
async fn ht14_ht15_bodies_that_are_refused_before_they_come() {
    let (server, token) = hosting().await;
    let head = |more: &str| {
        let path = at("@alice/tool");
        format!("PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n{more}\r\n", token.text)
    };
    let got = check(
        &server,
        "Expect with a body too large",
        head("Content-Length: 99999999999\r\nExpect: 100-continue\r\n").as_bytes(),
        &[413],
        1,
    )
    .await;
    assert!(got.responses.iter().all(|(head, _)| !head.starts_with("HTTP/1.1 100")), "it asked for the body");
    assert!(String::from_utf8_lossy(&got.responses[0].1).contains("\"error\""), "413 in npm's shape");
    let caller = server.caller_with(&token);
    let answer = caller.ask("PUT", &at("@alice/tool")).header("content-encoding", "gzip, gzip, gzip").body("x").send().await;
    assert!(matches!(answer.status, 400 | 415), "{}", answer.status);
    server.finish().await;
}

#[tokio::test]
async fn ht16_slow_callers_are_cut_off_and_keep_nobody_waiting() {
    let server = Setup::default().server("header_seconds = 1\nbody_seconds = 1").start().await;
    let mut streams = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        let start = if n % 2 == 0 {
            "GET /npm/x HTTP/1.1\r\nHost: x\r\nX: "
        } else {
            "PUT /npm/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
        };
        stream.write_all(start.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    let started = tokio::time::Instant::now();
    assert_eq!(server.caller().get("/-/health").send().await.status, 200);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    for mut stream in streams {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a slow caller is never cut off");
    }
    server.finish().await;
}

#[tokio::test]
async fn http2_answers_as_http1_does() {
    let (server, token) = hosting().await;
    let package = Package::with("@alice/tool", "1.0.0", json!({}), 100_000);
    publish(&server.caller_with(&token), &package).await;
    let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let url = format!("{}/npm{}", server.origin(), package.path());
    let answer = http.get(&url).bearer_auth(&token.text).send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 200));
    assert!(answer.bytes().await.unwrap() == package.tarball);
    server.finish().await;
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn ht17_ht18_floods_of_frames_end_the_connection() {
    let server = Setup::default().start().await;
    let before = peak_kilobytes(server.pid());
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
    // :method GET, :scheme http, :path /, all from the static table (RFC 7541, appendix A).
    let fields = [0x82, 0x86, 0x84];
    let reset: Vec<u8> =
        (0..50_000u32).flat_map(|n| [frame(1, 5, 2 * n + 1, &fields), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()).collect();
    let continuation = [frame(1, 1, 1, &fields), (0..20_000).flat_map(|_| frame(9, 0, 1, &[0x40, 1, b'a', 1, b'b'])).collect()].concat();
    let empty = [frame(1, 4, 1, &fields), (0..200_000).flat_map(|_| frame(0, 0, 1, &[])).collect()].concat();
    let pings: Vec<u8> = (0..100_000).flat_map(|_| frame(6, 0, 0, &[0; 8])).collect();
    let settings: Vec<u8> = (0..100_000).flat_map(|_| frame(4, 0, 0, &[0, 3, 0, 0, 0, 1])).collect();
    for (what, flood) in
        [("rapid reset", reset), ("CONTINUATION", continuation), ("empty DATA", empty), ("PING", pings), ("SETTINGS", settings)]
    {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        let flooding = async {
            stream.write_all(&preface).await?;
            stream.write_all(&flood).await
        };
        // Ended by the server, or read to the end: both are fine, hanging or growing is not.
        let _ = tokio::time::timeout(Duration::from_secs(10), flooding).await;
        let started = tokio::time::Instant::now();
        assert_eq!(server.caller().get("/-/health").send().await.status, 200, "{what}");
        assert!(started.elapsed() < Duration::from_secs(1), "{what}: others wait {:?}", started.elapsed());
    }
    let grown = peak_kilobytes(server.pid()) - before;
    assert!(grown < 128 << 10, "memory grew by {grown} kB");
    server.finish().await;
}

#[tokio::test]
async fn an_ecosystem_answers_on_a_host_of_its_own() {
    let server = Setup::default().server("hosts = \"packages.test\"").start().await;
    let token = server.publisher("alice").await;
    publish(&server.caller_with(&token), &Package::new("@alice/tool", "1.0.0")).await;
    server.cli(&["package", "visibility", "npm", "@alice/tool", "public"]).await;
    let host = format!("npm.packages.test:{}", server.port());
    let bytes = format!("GET /@alice%2ftool HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let got = exchange(server.port(), bytes.as_bytes()).await;
    assert_eq!(got.statuses, [200]);
    let text = String::from_utf8_lossy(&got.responses[0].1).into_owned();
    assert!(text.contains(&format!("http://{host}/@alice/tool/-/tool-1.0.0.tgz")), "{text}");
    server.finish().await;
}
