//! Bytes on a socket, for what no HTTP library would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back on one connection.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// The status of every final response, in order.
    pub(crate) statuses: Vec<u16>,
    /// Head and body of every response, in order.
    pub(crate) responses: Vec<(String, Vec<u8>)>,
    /// Whether the server closed the connection.
    pub(crate) closed: bool,
}

/// Sends bytes and reads responses until the server closes or is silent for a second and a half.
pub(crate) async fn exchange(port: u16, bytes: &[u8]) -> Exchange {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    // A server that refuses early may close while we still write.
    let _ = stream.write_all(bytes).await;
    let mut got = Vec::new();
    let mut chunk = vec![0; 65_536];
    let mut exchange = Exchange::default();
    loop {
        match tokio::time::timeout(Duration::from_millis(1500), stream.read(&mut chunk)).await {
            Err(_) => break,
            Ok(Ok(0) | Err(_)) => {
                exchange.closed = true;
                break;
            }
            Ok(Ok(count)) => got.extend_from_slice(&chunk[..count]),
        }
    }
    let head_only = bytes.starts_with(b"HEAD ");
    let mut rest = got.as_slice();
    while let Some((head, body, after)) = response(rest, head_only && exchange.responses.is_empty()) {
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        if !(100..200).contains(&status) {
            exchange.statuses.push(status);
        }
        exchange.responses.push((head, body));
        rest = after;
    }
    exchange
}

/// The first response in `bytes`, and what follows it.
fn response(bytes: &[u8], head_only: bool) -> Option<(String, Vec<u8>, &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let header = |name: &str| {
        head.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let rest = &bytes[end..];
    let status = head.split(' ').nth(1).unwrap_or_default();
    if head_only || status.starts_with('1') || status == "204" || status == "304" {
        return Some((head, Vec::new(), rest));
    }
    if let Some(length) = header("content-length").and_then(|text| text.parse::<usize>().ok()) {
        let length = length.min(rest.len());
        return Some((head.clone(), rest[..length].to_vec(), &rest[length..]));
    }
    if header("transfer-encoding").is_some() {
        let mut body = Vec::new();
        let mut rest = rest;
        loop {
            let line = rest.windows(2).position(|window| window == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
            body.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
            rest = rest.get(line + 2 + size + 2..)?;
            if size == 0 {
                return Some((head, body, rest));
            }
        }
    }
    Some((head.clone(), rest.to_vec(), &[]))
}
