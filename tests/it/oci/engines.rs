//! Docker's engine and containerd, as they run in production.

use serde_json::Value;

use super::clients::Port;
use crate::harness::{Dock, Engine, Image};

/// Runs `docker` on an engine.
async fn docker(dock: &Dock, engine: &Engine, line: &[&str]) -> String {
    let host = format!("unix://{}", engine.socket());
    let ran = dock.run(&[&["docker", "--host", &host], line].concat()).await;
    assert_eq!(ran.code, 0, "docker {}: {}{}\n{}", line.join(" "), ran.out, ran.err, engine.log());
    ran.out
}

#[tokio::test]
async fn docker_builds_pushes_and_pulls() {
    let port = Port::open().await;
    for (number, dock) in port.docks.iter().enumerate() {
        let engine = dock.docker(&[]).await;
        let host = format!("unix://{}", engine.socket());
        let name = format!("docker{number}");
        let image = dock.image(&format!("alice/{name}"));
        let login = ["docker", "--host", &host, "login", dock.registry(), "-u", "alice", "--password-stdin"];
        dock.run_with(&login, "pkh_wrong").await.fails_with(&["unauthorized", "denied"]);
        dock.run_with(&login, &port.token.text).await.ok();
        std::fs::create_dir(dock.path("context")).unwrap();
        std::fs::write(dock.path("context/filler"), vec![7; 3 << 20]).unwrap();
        std::fs::write(dock.path("context/Dockerfile"), "FROM scratch\nCOPY filler /filler\nLABEL a=b\n").unwrap();
        docker(dock, &engine, &["build", "-t", &format!("{image}:v1"), "context"]).await;
        docker(dock, &engine, &["tag", &format!("{image}:v1"), &format!("{image}:v2")]).await;
        docker(dock, &engine, &["push", "--all-tags", &image]).await;
        // Layers that are there are mounted into another repository.
        let second = dock.image(&format!("alice/{name}-two:v1"));
        docker(dock, &engine, &["tag", &format!("{image}:v1"), &second]).await;
        assert!(docker(dock, &engine, &["push", &second]).await.contains("Mounted from"), "{}", engine.log());
        let digest = port.manifest(&name, "v2").await.1;
        let references = [format!("{image}:v2"), format!("{image}@{digest}")];
        for reference in &references {
            docker(dock, &engine, &["image", "prune", "--all", "--force"]).await;
            docker(dock, &engine, &["pull", reference]).await;
        }
        docker(dock, &engine, &["image", "prune", "--all", "--force"]).await;
        docker(dock, &engine, &["logout", dock.registry()]).await;
        let pull = ["docker", "--host", &host, "pull", &references[0]];
        dock.run(&pull).await.fails_with(&["unauthorized", "denied", "no basic auth"]);
        port.publish(&name).await;
        dock.run(&pull).await.ok();
        let inspected: Value = serde_json::from_str(&docker(dock, &engine, &["inspect", &references[0]]).await).unwrap();
        assert_eq!(inspected[0]["Config"]["Labels"]["a"], "b");
        engine.stop().await;
    }
    port.server.finish().await;
}

#[tokio::test]
async fn containerd_pushes_and_pulls() {
    let port = Port::open().await;
    for (number, dock) in port.docks.iter().enumerate() {
        let engine = dock.containerd().await;
        let name = format!("containerd{number}");
        let image = dock.image(&format!("alice/{name}"));
        let (tagged, credentials) = (format!("{image}:v1"), format!("alice:{}", port.token.text));
        let ctr = async |line: &[&str]| dock.run(&[&["ctr", "--address", engine.socket()], line].concat()).await;
        let way: &[&str] = if dock.is_tls() { &[] } else { &["--plain-http"] };
        let source = Image::new(&name);
        let layout = dock.layout("layout", &[&source]);
        let archive = dock.at_path("image.tar");
        dock.run(&["skopeo", "copy", &format!("oci:{layout}:v1"), &format!("oci-archive:{archive}:v1")]).await.ok();
        ctr(&["images", "import", "--snapshotter", "native", "--base-name", &image, &archive]).await.ok();
        ctr(&[&["images", "push", "--user", &credentials], way, &[&tagged]].concat()).await.ok();
        let (bytes, digest) = port.manifest(&name, "v1").await;
        assert!(bytes == source.manifest.bytes);
        let pull = async |reference: &str, credentials: &[&str]| {
            ctr(&["images", "rm", reference]).await;
            ctr(&[&["images", "pull", "--snapshotter", "native"], credentials, way, &[reference]].concat()).await
        };
        let by_digest = format!("{image}@{digest}");
        for reference in [&tagged, &by_digest] {
            pull(reference, &["--user", &credentials]).await.ok();
            pull(reference, &[]).await.fails_with(&["401", "authorization failed", "unauthorized"]);
        }
        port.publish(&name).await;
        pull(&tagged, &[]).await.ok();
        engine.stop().await;
    }
    port.server.finish().await;
}
