//! Files that are not what they were: flipped bits, planted links, things that are gone. ST06 and ST12 of the catalogue.

use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Answer, Caller, Package, Server, Setup, Upstream, files_below, until};
use crate::npm_wire::publish;
use crate::proxy::fetch;

/// The file of the blob with these bytes.
fn file_of(server: &Server, bytes: &[u8]) -> PathBuf {
    let name = hex::encode(Sha256::digest(bytes));
    server.data().join("blobs/sha256").join(&name[..2]).join(name)
}

/// Where these bytes are kept: in a file of their own, or among others.
fn spot_of(server: &Server, bytes: &[u8]) -> Option<(PathBuf, usize)> {
    let own = file_of(server, bytes);
    if own.exists() {
        return Some((own, 0));
    }
    files_below(&server.data().join("segments")).into_iter().find_map(|path| {
        let all = std::fs::read(&path).unwrap();
        let at = all.windows(bytes.len()).position(|window| window == bytes)?;
        Some((path, at))
    })
}

fn flip(server: &Server, package: &Package) {
    let (path, at) = spot_of(server, &package.tarball).unwrap_or_else(|| panic!("{} is not kept", package.path()));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at + package.tarball.len() / 2] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Right and whole, or an error that nobody takes for a file.
#[track_caller]
fn right_or_nothing(answer: &Answer, package: &Package) {
    let whole = (200..300).contains(&answer.status) && !answer.cut;
    assert!(!whole || answer.body == package.tarball, "wrong bytes of {} passed for right ones", package.path());
}

/// A server with packages of its own and of an upstream, of every size that is treated differently, all of them read once.
async fn with_six() -> (Upstream, Server, Caller, [Package; 3], [Package; 3]) {
    let make = |name: &str, bytes| Package::with(name, "1.0.0", json!({}), bytes);
    let cached = [make("small", 2000), make("large", 2_500_000), make("middling", 300_000)];
    let hosted = [make("@alice/small", 3000), make("@alice/large", 2_700_000), make("@alice/middling", 400_000)];
    let upstream = Upstream::with(&cached);
    let server = Setup::default().upstream(&upstream).start().await;
    let token = server.publisher("alice").await;
    let caller = server.caller_with(&token);
    for package in &hosted {
        assert!(publish(&caller, package).await.status < 300);
    }
    for package in cached.iter().chain(&hosted) {
        assert!(fetch(&caller, package).await.expect(200).body == package.tarball);
        // The client has all of it a moment before it has its place.
        until("the file to be kept", || spot_of(&server, &package.tarball).is_some()).await;
    }
    (upstream, server, caller, cached, hosted)
}

#[tokio::test]
async fn st06_a_flipped_bit_is_never_served() {
    let (upstream, mut server, caller, cached, hosted) = with_six().await;
    for package in cached.iter().chain(&hosted) {
        flip(&server, package);
    }
    // Once in the running server, where small files are still in memory, and once after a restart.
    for round in 0..2 {
        for package in cached.iter().chain(&hosted) {
            // The connection may break before the head, or after it.
            let part = caller.get(&format!("/npm{}", package.path())).header("range", "bytes=100-199").try_send().await;
            let right = |part: &Answer| part.cut || part.status >= 400 || part.body == package.tarball[100..200];
            assert!(part.as_ref().is_none_or(right), "a wrong part of {}", package.path());
            if let Some(answer) = caller.get(&format!("/npm{}", package.path())).try_send().await {
                right_or_nothing(&answer, package);
            }
        }
        for package in &cached {
            let answer = fetch(&caller, package).await.expect(200);
            assert!(!answer.cut && answer.body == package.tarball, "{} was not fetched again", package.path());
        }
        if round == 0 {
            assert!(server.stop().await.success());
            server.start_again().await;
            for package in &cached {
                flip(&server, package);
            }
        }
    }
    assert!(upstream.count(&cached[1].path()) >= 3, "the large one was fetched again each time");
    for package in &hosted {
        fetch(&caller, package).await.expect(500);
    }
    let (status, out, err) = server.try_cli(&["fsck"]).await;
    assert!(!status.success(), "fsck calls it clean: {out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    for package in &hosted {
        let digest = hex::encode(Sha256::digest(&package.tarball));
        assert!(report["damaged"].to_string().contains(&digest) && report["lost"].to_string().contains(&digest), "{out}");
    }
    for package in &hosted {
        fetch(&caller, package).await.expect(500);
    }
    server.finish().await;
}

#[tokio::test]
async fn st12_planted_links_are_not_followed() {
    let (upstream, mut server, caller, cached, hosted) = with_six().await;
    assert!(server.stop().await.success());
    // Right bytes behind a link are wrong too: what they are tomorrow is somebody else's to say.
    let elsewhere = server.folder().join("elsewhere");
    for package in [&cached[1], &hosted[1]] {
        let path = file_of(&server, &package.tarball);
        std::fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    }
    let gone = file_of(&server, &hosted[0].tarball);
    std::fs::remove_file(&gone).unwrap();
    let secret = server.folder().join("secret");
    std::fs::write(&secret, "canary behind a link").unwrap();
    let planted = file_of(&server, b"canary behind a link");
    std::fs::create_dir_all(planted.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&secret, &planted).unwrap();
    std::fs::write(server.data().join("blobs/stray"), "stray").unwrap();
    server.start_again().await;

    for package in &hosted[..2] {
        fetch(&caller, package).await.expect(500);
    }
    assert!(fetch(&caller, &cached[1]).await.expect(200).body == cached[1].tarball);
    assert_eq!(upstream.count(&cached[1].path()), 2, "the link was followed");
    let (status, out, err) = server.try_cli(&["fsck"]).await;
    assert!(!status.success(), "fsck calls it clean: {out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let foreign = report["foreign"].to_string();
    for name in [planted.file_name().unwrap().to_str().unwrap(), "stray", &hex::encode(Sha256::digest(&hosted[1].tarball))] {
        assert!(foreign.contains(name), "{name} is not reported: {out}");
    }
    assert!(report["lost"].to_string().contains(gone.file_name().unwrap().to_str().unwrap()), "{out}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "canary behind a link", "what a link leads to is left alone");
    assert!(files_below(&server.data().join("blobs")).iter().all(|path| !path.ends_with("stray")));
    server.finish().await;
}

#[tokio::test]
async fn a_new_upload_heals_a_lost_blob() {
    let (_upstream, mut server, caller, _, hosted) = with_six().await;
    assert!(server.stop().await.success());
    std::fs::remove_file(file_of(&server, &hosted[1].tarball)).unwrap();
    server.start_again().await;
    fetch(&caller, &hosted[1]).await.expect(500);
    let backup = file_of(&server, &hosted[1].tarball);
    std::fs::write(&backup, &hosted[1].tarball).unwrap();
    assert!(fetch(&caller, &hosted[1]).await.expect(200).body == hosted[1].tarball, "a file from a backup is taken");
    server.cli(&["fsck"]).await;
    server.finish().await;
}
