//! Large stored files over plain HTTP/1, which the kernel sends from the file: right to the byte however they are asked for.

use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Caller, Package, Server, Setup, Token, exchange};
use crate::npm_wire::publish;

/// More than two parts, and no round number.
const LENGTH: usize = 5_300_000;

async fn with_packages(server: &str, lengths: &[usize]) -> (Server, Caller, Token, Vec<Package>) {
    let server = Setup::default().server(server).start().await;
    let token = server.publisher("alice").await;
    let caller = server.caller_with(&token);
    let package = |(at, length): (usize, &usize)| Package::with(&format!("@alice/file{at}"), "1.0.0", json!({}), *length);
    let packages: Vec<Package> = lengths.iter().enumerate().map(package).collect();
    for package in &packages {
        assert!(publish(&caller, package).await.status < 300);
    }
    (server, caller, token, packages)
}

/// A request as a client would write it.
fn request(method: &str, package: &Package, token: &Token, more: &str) -> String {
    format!("{method} /npm{} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{more}\r\n", package.path(), token.text)
}

async fn connect(server: &Server, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads what is left of an answer and gives its body.
async fn body_of(stream: &mut TcpStream, mut got: Vec<u8>) -> Vec<u8> {
    let _ = stream.read_to_end(&mut got).await;
    let head = got.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    got.split_off(head)
}

/// Waits for the line of a download that holds all these texts: a line is written when its request is over.
async fn told(server: &Server, texts: &[&str]) {
    let is_told = || server.log().lines().any(|line| line.contains("method=GET") && texts.iter().all(|text| line.contains(text)));
    for _ in 0..200 {
        if is_told() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no line with {texts:?}:\n{}", server.log());
}

#[tokio::test]
async fn every_byte_is_right_in_every_range_and_order() {
    let (server, caller, token, packages) = with_packages("", &[LENGTH, 300_000, 30_000]).await;
    let [large, middling, small] = &packages[..] else { panic!("three") };
    for package in &packages {
        let path = format!("/npm{}", package.path());
        for _ in 0..4 {
            assert!(caller.get(&path).send().await.expect(200).body == package.tarball);
        }
        let length = package.tarball.len();
        for (first, last) in
            [(0, 0), (0, length - 1), (1, 2_097_151), (2_097_151, 2_097_152), (2_097_152, 4_194_303), (length - 1, length - 1)]
        {
            if first < length {
                let answer = caller.get(&path).header("range", &format!("bytes={first}-{last}")).send().await.expect(206);
                assert!(answer.body == package.tarball[first..length.min(last + 1)], "{first}-{last} of {length}");
            }
        }
        let head = caller.ask("HEAD", &path).send().await.expect(200);
        assert_eq!((head.header("content-length"), head.body.len()), (&*length.to_string(), 0));
    }
    // All at once on one connection, the answers one behind the other.
    let part = "range: bytes=2000000-2100000\r\n";
    let asked = [(large, ""), (small, ""), (large, part), (middling, ""), (large, ""), (small, "connection: close\r\n")];
    let requests: String = asked.iter().map(|(package, more)| request("GET", package, &token, more)).collect();
    let got = exchange(server.port(), requests.as_bytes()).await;
    assert_eq!(got.statuses, [200, 200, 206, 200, 200, 200]);
    for ((package, more), (_, body)) in asked.iter().zip(&got.responses) {
        let expected = if *more == part { &package.tarball[2_000_000..=2_100_000] } else { &package.tarball[..] };
        assert!(body == expected, "{} {more}", package.name);
    }
    server.finish().await;
}

#[tokio::test]
async fn many_readers_fast_and_slow_get_every_byte() {
    let (server, _, token, packages) = with_packages("", &[LENGTH]).await;
    let package = &packages[0];
    let asked = request("GET", package, &token, "connection: close\r\n");
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..6 {
        let mut stream = connect(&server, &asked).await;
        readers.spawn(async move {
            let (mut got, mut chunk) = (Vec::new(), vec![0; 300_000]);
            for _ in 0..reader * 3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let count = stream.read(&mut chunk).await.unwrap();
                got.extend_from_slice(&chunk[..count]);
            }
            body_of(&mut stream, got).await
        });
    }
    while let Some(body) = readers.join_next().await {
        assert!(body.unwrap() == package.tarball);
    }
    server.finish().await;
}

#[tokio::test]
async fn a_file_may_go_or_be_cut_short_while_it_is_read() {
    let (server, caller, token, packages) = with_packages("", &[40_000_000, 40_000_001]).await;
    let asked = |package| request("GET", package, &token, "connection: close\r\n");
    let file = |package: &Package| {
        let name = hex::encode(Sha256::digest(&package.tarball));
        server.data().join("blobs/sha256").join(&name[..2]).join(name)
    };
    let first = async |package| {
        let mut stream = connect(&server, &asked(package)).await;
        let mut got = vec![0; 100_000];
        stream.read_exact(&mut got).await.unwrap();
        (stream, got)
    };
    let (mut stream, got) = first(&packages[0]).await;
    std::fs::remove_file(file(&packages[0])).unwrap();
    assert!(body_of(&mut stream, got).await == packages[0].tarball, "who has it open reads it whole");
    caller.get(&format!("/npm{}", packages[0].path())).send().await.expect(500);

    let (mut stream, got) = first(&packages[1]).await;
    std::fs::OpenOptions::new().write(true).open(file(&packages[1])).unwrap().set_len(50_000).unwrap();
    let body = body_of(&mut stream, got).await;
    assert!(body.len() < packages[1].tarball.len(), "it cannot be whole");
    assert!(body[..50_000] == packages[1].tarball[..50_000]);
    told(&server, &["file1-1.0.0.tgz", "cut=true"]).await;
    caller.get(&format!("/npm{}", packages[1].path())).send().await.expect(500);
    server.finish().await;
}

#[tokio::test]
async fn the_log_tells_who_got_all_and_who_left() {
    let (server, caller, token, packages) = with_packages("write_seconds = 1", &[40_000_000]).await;
    let package = &packages[0];
    let path = format!("/npm{}", package.path());
    assert!(caller.get(&path).send().await.expect(200).body == package.tarball);
    told(&server, &[&format!("bytes={} cut=false", package.tarball.len())]).await;
    // One that takes nothing is cut off, and its line says so.
    let mut stuck = connect(&server, &request("GET", package, &token, "connection: close\r\n")).await;
    told(&server, &["cut=true"]).await;
    let body = body_of(&mut stuck, Vec::new()).await;
    assert!(body.len() < package.tarball.len() && body == package.tarball[..body.len()]);
    server.finish().await;
}

#[tokio::test]
async fn a_stop_lets_a_download_end_whole() {
    let (mut server, _, token, packages) = with_packages("", &[40_000_000]).await;
    let mut stream = connect(&server, &request("GET", &packages[0], &token, "")).await;
    let mut got = vec![0; 100_000];
    stream.read_exact(&mut got).await.unwrap();
    let (body, status) = tokio::join!(body_of(&mut stream, got), server.stop());
    assert!(body == packages[0].tarball);
    assert!(status.success());
    server.start_again().await;
    server.finish().await;
}
