//! A forward proxy that can be cut: a real upstream behind it can be taken away and brought back.
//!
//! It understands `CONNECT` alone (RFC 9110, section 9.3.6) and copies bytes, as the
//! proxy of a company does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::free_port;

/// The proxy, on loopback.
pub(crate) struct Tunnel {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cut: AtomicBool,
    tried: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Tunnel {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || connect(&shared, stream));
            }
        });
        Self { port, shared }
    }

    /// What `HTTPS_PROXY` is set to.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends every connection and refuses new ones: the network is cut.
    pub(crate) fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections were asked for, the refused ones too.
    pub(crate) fn tried(&self) -> usize {
        self.shared.tried.load(Ordering::SeqCst)
    }
}

fn connect(shared: &Shared, mut client: TcpStream) -> Option<()> {
    shared.tried.fetch_add(1, Ordering::SeqCst);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let target = target.filter(|_| !shared.cut.load(Ordering::SeqCst)).and_then(|target| TcpStream::connect(target).ok());
    let Some(mut target) = target else {
        let _ = client.write_all(b"HTTP/1.1 502 Cut\r\nContent-Length: 0\r\n\r\n");
        return None;
    };
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    let mut copies = (client.try_clone().ok()?, target.try_clone().ok()?);
    shared.open.lock().unwrap_or_else(PoisonError::into_inner).extend([client.try_clone().ok()?, target.try_clone().ok()?]);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut copies.1, &mut copies.0);
        let _ = copies.0.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut client, &mut target);
    let _ = target.shutdown(Shutdown::Both);
    Some(())
}
