//! What one caller may take from all others: connections, guesses, time. EX01, HT16 and AU14 of the catalogue.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Caller, Package, Setup};
use crate::npm_wire::{at, hosting, publish};

/// Waits until `/-/health` is answered; gives how long that took.
async fn served_again(caller: &Caller, most: Duration) -> Duration {
    let started = tokio::time::Instant::now();
    loop {
        if caller.get("/-/health").send_once().await {
            return started.elapsed();
        }
        assert!(started.elapsed() < most, "nobody is served after {:?}", started.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn ex01_idle_connections_are_shed() {
    let server = Setup::default().server("max_connections = 40\nheader_seconds = 1").start().await;
    // Nothing at all, the beginning of a request, the beginning of HTTP/2.
    let starts: [&[u8]; 3] = [b"", b"GET / HTTP/1.1\r\nHost", b"PRI * HTTP/2.0\r\n"];
    let mut held = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        let _ = stream.write_all(starts[n % 3]).await;
        held.push(stream);
    }
    let waited = served_again(&server.caller(), Duration::from_secs(5)).await;
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    for mut stream in held {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "an idle connection is never cut off");
    }
    server.finish().await;
}

#[tokio::test]
async fn ht16_a_client_that_never_reads_is_cut_off() {
    let server = Setup::default().server("write_seconds = 1").start().await;
    let token = server.publisher("alice").await;
    let package = Package::with("@alice/tool", "1.0.0", json!({}), 12 << 20);
    assert!(publish(&server.caller_with(&token), &package).await.status < 300);
    let head = format!("GET /npm{} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", package.path(), token.text);
    let mut deaf = Vec::new();
    for _ in 0..50 {
        let socket = TcpSocket::new_v4().unwrap();
        // So that the kernels' buffers do not swallow the file.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(([127, 0, 0, 1], server.port()).into()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        deaf.push(stream);
    }
    let whole = server.caller_with(&token).get(&format!("/npm{}", package.path())).send().await.expect(200);
    assert!(whole.body == package.tarball, "others are served meanwhile");
    let open = || async {
        let metrics = server.caller().get("/-/metrics").send().await.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("packhouse_connections ")).map(str::to_owned);
        line.and_then(|text| text.parse::<usize>().ok()).expect("a count of connections")
    };
    let end = tokio::time::Instant::now() + Duration::from_secs(15);
    while open().await > 10 {
        assert!(tokio::time::Instant::now() < end, "{} connections are still open", open().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for mut stream in deaf {
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got).await;
        assert!(got.len() < package.tarball.len(), "it got everything");
    }
    server.finish().await;
}

/// Asks who a token is from an address of its own.
async fn whoami(origin: &str, from: [u8; 4], token: &str) -> (u16, bool) {
    let http = reqwest::Client::builder().no_proxy().local_address(Some(from.into())).build().unwrap();
    let answer = http.get(format!("{origin}/npm/-/whoami")).bearer_auth(token).send().await.unwrap();
    (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
}

#[tokio::test]
async fn au14_guessing_ends_in_a_wait_for_the_guesser_alone() {
    let server = Setup::default().server("wrong_tokens_per_minute = 5").start().await;
    let alice = server.publisher("alice").await;
    let origin = server.origin();
    let guess = |n: usize| format!("pkh_{n:036}");
    for n in 0..5 {
        assert_eq!(whoami(&origin, [127, 0, 0, 2], &guess(n)).await, (401, false));
    }
    for n in 5..20 {
        assert_eq!(whoami(&origin, [127, 0, 0, 2], &guess(n)).await, (429, true), "the guess is not even looked at");
    }
    assert_eq!(whoami(&origin, [127, 0, 0, 3], &alice.text).await.0, 200, "others are fine");
    assert_eq!(whoami(&origin, [127, 0, 0, 3], &guess(1)).await.0, 401, "others may be wrong once, too");
    assert_eq!(whoami(&origin, [127, 0, 0, 2], &alice.text).await.0, 200, "who holds a token is no guesser");
    // No header makes somebody another.
    let http = reqwest::Client::builder().no_proxy().local_address(Some([127, 0, 0, 2].into())).build().unwrap();
    let ask = http.get(format!("{origin}/npm/-/whoami")).bearer_auth(guess(99)).header("x-forwarded-for", "10.9.9.9");
    assert_eq!(ask.header("forwarded", "for=10.9.9.9").send().await.unwrap().status(), 429);
    server.finish().await;
}

#[tokio::test]
async fn ht22_head_is_get_without_its_body_and_options_does_nothing() {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    let package = Package::with("@alice/tool", "1.0.0", json!({}), 100_000);
    assert!(publish(&caller, &package).await.status < 300);
    let before = caller.packument("@alice/tool").await;
    let tarball = format!("/npm{}", package.path());
    for path in [&at("@alice/tool"), "/npm/@alice/tool/1.0.0", &tarball, "/npm/-/whoami", "/npm/-/ping", "/npm/@alice%2fnone", "/-/health"]
    {
        let (get, head) = (caller.get(path).send().await, caller.ask("HEAD", path).send().await);
        assert_eq!((get.status, head.body.len()), (head.status, 0), "{path}");
        for name in ["content-type", "etag", "cache-control", "content-length", "cache-status", "vary"] {
            assert_eq!(get.header(name), head.header(name), "{path}: {name}");
        }
        let options = caller.ask("OPTIONS", path).send().await;
        assert!(
            (400..500).contains(&options.status) && options.header("access-control-allow-origin").is_empty(),
            "{path}: {}",
            options.status
        );
    }
    assert_eq!(caller.packument("@alice/tool").await, before);
    server.finish().await;
}
