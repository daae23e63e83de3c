//! Real clients and a real registry behind tokens, with this server between them; the registry comes and goes.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Repository;
use crate::harness::{Blob, Dock, Image, PASSWORD, Registry, Server, Setup, until};

/// A server that mirrors a registry as `hub.test`.
async fn mirroring(registry: &Registry, engine: &str) -> Server {
    let own = "hosts = [\"hub.test\"]\nnamespace = \"library\"\nmirrors = [\"mirror.test\"]\ntoken_hosts = [\"127.0.0.1\"]\n\
               username = \"robot\"\npassword_file = \"robots-password\"\n";
    let setup = Setup::default().upstream_of("container", "hub", &registry.url(), own).secret_file("robots-password", PASSWORD);
    setup.engine(engine).start().await
}

/// Puts an image of two platforms, with an image of its own, into the registry.
async fn publish(registry: &Registry, name: &str) -> (Image, Vec<Image>) {
    let repository = Repository::new(&registry.caller(name), name);
    let images = vec![Image::new(&format!("{name} one")), Image::new(&format!("{name} two"))];
    for image in &images {
        for blob in &image.blobs {
            upload(&repository, blob).await;
        }
        assert_eq!(repository.put(image, image.digest()).await.status, 201);
    }
    let index = Image::index(&images, &json!({}));
    assert_eq!(repository.put(&index, "v1").await.status, 201);
    assert_eq!(repository.put(&images[0], "single").await.status, 201);
    (index, images)
}

/// Uploads as the registry wants it: its places are addresses with a query.
async fn upload(repository: &Repository, blob: &Blob) {
    let opened = repository.ask("POST", "blobs/uploads/").send().await;
    assert_eq!(opened.status, 202, "{}", opened.text());
    let place = opened.header("location");
    let path = place.split_once("://").map_or(place, |(_, rest)| &rest[rest.find('/').unwrap()..]);
    let put = repository.caller.ask("PUT", &format!("{path}&digest={}", blob.digest)).header("content-type", "application/octet-stream");
    let answer = put.body(blob.bytes.clone()).send().await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

#[tokio::test]
async fn what_a_real_registry_has_is_pulled_and_stays_when_it_is_gone() {
    let mut registry = Registry::start().await;
    let (index, images) = publish(&registry, "acme/app").await;
    let server =
        mirroring(&registry, "fresh_seconds = 0\nstale_while_revalidate_seconds = 0\nnegative_seconds = 0\nbreaker_failures = 1000").await;
    let repository = Repository::new(&server.caller(), "hub.test/acme/app");
    let whole = async || {
        assert!(repository.get("manifests/v1").await.body == index.manifest.bytes);
        for image in &images {
            assert!(repository.get(&format!("manifests/{}", image.digest())).await.body == image.manifest.bytes);
            for blob in &image.blobs {
                assert!(repository.get(&format!("blobs/{}", blob.digest)).await.body == blob.bytes);
            }
        }
    };
    whole().await;
    assert_eq!(registry.tokens(), 1, "one token for one repository");
    assert_eq!(repository.tags().await, ["single", "v1"]);
    assert_eq!(repository.get("manifests/none").await.status, 404);
    let referrers = repository.get(&format!("referrers/{}", index.digest())).await;
    assert_eq!((referrers.status, &referrers.json()["manifests"]), (200, &json!([])), "it knows no such list");
    // A tag that moved is seen; what it pointed at stays.
    let owner = Repository::new(&registry.caller("acme/app"), "acme/app");
    assert_eq!(owner.put(&images[1], "single").await.status, 201);
    assert!(repository.get("manifests/single").await.body == images[1].manifest.bytes);
    registry.stop().await;
    whole().await;
    assert!(repository.get("manifests/single").await.body == images[1].manifest.bytes);
    assert_eq!(repository.get("manifests/other").await.status, 502);
    registry.start_again().await;
    assert_eq!(repository.get("manifests/other").await.status, 404);
    whole().await;
    server.finish().await;
}

#[tokio::test]
async fn a_registry_that_is_killed_during_a_pull_and_comes_back_costs_no_byte() {
    let mut registry = Registry::start().await;
    let large = Blob::noise("large", 96 << 20);
    upload(&Repository::new(&registry.caller("acme/app"), "acme/app"), &large).await;
    let server = mirroring(&registry, "retries = 12\nbreaker_failures = 1000").await;
    // A reader that takes a part, waits until the registry is gone and back, and reads on.
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let request = format!("GET /v2/hub.test/acme/app/blobs/{} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", large.digest);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = vec![0; 1 << 20];
    stream.read_exact(&mut got).await.unwrap();
    registry.stop().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    registry.start_again().await;
    stream.read_to_end(&mut got).await.unwrap();
    let start = memchr::memmem::find(&got, b"\r\n\r\n").unwrap() + 4;
    assert!(got.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&got[..200]));
    assert_eq!(got.len() - start, large.bytes.len());
    assert!(got[start..] == large.bytes);
    // Without the cut there are three: the challenge, the token, the layer.
    let tries = |log: &str| {
        let line = log.lines().find(|line| line.contains(&large.digest) && line.contains("upstream_tries="))?;
        line.split_once("upstream_tries=")?.1.split(' ').next()?.parse::<u32>().ok()
    };
    until("the request's line", || tries(&server.log()).is_some()).await;
    assert!(tries(&server.log()) > Some(3), "the registry was done before it was killed");
    let again = Repository::new(&server.caller(), "hub.test/acme/app").get(&format!("blobs/{}", large.digest)).await;
    assert!(again.body == large.bytes);
    server.cli(&["fsck"]).await;
    server.finish().await;
}

#[tokio::test]
async fn clients_pull_by_the_upstreams_name() {
    let mut registry = Registry::start().await;
    let (index, _) = publish(&registry, "acme/app").await;
    let server = mirroring(&registry, "").await;
    let dock = Dock::new(&server);
    let image = dock.image("hub.test/acme/app");
    let (tagged, by_digest) = (format!("{image}:v1"), format!("{image}@{}", index.digest()));
    for round in 0..2 {
        for (number, reference) in [&tagged, &by_digest].into_iter().enumerate() {
            let out = format!("oci:{}:v1", dock.at_path(&format!("skopeo{round}{number}")));
            dock.run(&["skopeo", "copy", "--all", "--src-tls-verify=false", &format!("docker://{reference}"), &out]).await.ok();
            dock.run(&["crane", "manifest", reference]).await.ok();
            dock.run(&["oras", "manifest", "fetch", "--plain-http", reference]).await.ok();
        }
        dock.run(&["crane", "validate", "--remote", &format!("{image}:single")]).await.ok();
        let tags = dock.run(&["crane", "ls", &image]).await.ok();
        assert_eq!(tags.out.split_whitespace().collect::<Vec<_>>(), ["single", "v1"]);
        dock.run(&["podman", "pull", "--tls-verify=false", &format!("{image}:single")]).await.ok();
        dock.run(&["podman", "rmi", "--all", "--force"]).await.ok();
        if round == 0 {
            registry.stop().await;
        }
    }
    let (single, other) = (format!("docker://{image}:single"), format!("docker://{image}:other"));
    let push = ["skopeo", "copy", "--dest-tls-verify=false", "--src-tls-verify=false", &single, &other];
    dock.run(&push).await.fails_with(&["unsupported", "405", "cannot be changed"]);
    server.finish().await;
}

#[tokio::test]
async fn docker_uses_it_as_its_mirror() {
    let mut registry = Registry::start().await;
    let (_, images) = publish(&registry, "library/tool").await;
    let server = mirroring(&registry, "").await;
    let dock = Dock::new(&server);
    let mirror = format!("http://mirror.test:{}", server.port());
    let engine = dock.docker(&["--registry-mirror", &mirror]).await;
    let host = format!("unix://{}", engine.socket());
    let docker = async |line: &[&str]| dock.run(&[&["docker", "--host", &host], line].concat()).await;
    let by_digest = format!("tool@{}", images[0].digest());
    for round in 0..2 {
        for reference in ["tool:single", &by_digest] {
            docker(&["pull", reference]).await.ok();
            docker(&["image", "prune", "--all", "--force"]).await.ok();
        }
        if round == 0 {
            registry.stop().await;
        }
    }
    docker(&["pull", "tool:none"]).await.fails_with(&[]);
    engine.stop().await;
    server.finish().await;
}

#[tokio::test]
async fn containerd_and_podman_use_it_as_their_mirror() {
    let mut registry = Registry::start().await;
    let (index, images) = publish(&registry, "acme/app").await;
    let server = mirroring(&registry, "").await;
    let dock = Dock::new(&server);
    std::fs::create_dir_all(dock.path("mirrors/hub.test")).unwrap();
    let hosts = format!("server = \"http://hub.test\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", dock.registry());
    std::fs::write(dock.path("mirrors/hub.test/hosts.toml"), hosts).unwrap();
    let registries = format!(
        "unqualified-search-registries = []\n[[registry]]\nprefix = \"hub.test\"\nlocation = \"hub.test\"\n\
         [[registry.mirror]]\nlocation = \"{}/hub.test\"\ninsecure = true\n",
        dock.registry()
    );
    std::fs::write(dock.path("registries.conf"), registries).unwrap();
    let engine = dock.containerd().await;
    let folder = dock.at_path("mirrors");
    let (single, by_digest) = ("hub.test/acme/app:single".to_owned(), format!("hub.test/acme/app@{}", images[0].digest()));
    for round in 0..2 {
        for reference in [&single, &by_digest] {
            let ctr = ["ctr", "--address", engine.socket(), "images"];
            dock.run(&[&ctr[..], &["pull", "--snapshotter", "native", "--hosts-dir", &folder, reference]].concat()).await.ok();
            dock.run(&[&ctr[..], &["rm", "--sync", reference]].concat()).await.ok();
            dock.run(&["podman", "--registries-conf", &dock.at_path("registries.conf"), "pull", reference]).await.ok();
            dock.run(&["podman", "rmi", "--all", "--force"]).await.ok();
        }
        if round == 0 {
            registry.stop().await;
        }
    }
    assert!(
        server.caller().get(&format!("/v2/acme/app/manifests/{}?ns=hub.test", index.digest())).send().await.status == 502,
        "nobody has asked for it before"
    );
    engine.stop().await;
    server.finish().await;
}
