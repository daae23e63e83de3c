//! The clients of single commands: skopeo, oras, crane, podman, buildah, helm, cosign. Each pushes, pulls by tag and
//! by digest, what is private and what is public, over plain HTTP and over TLS.

use serde_json::{Value, json};

use super::{Repository, repository, texts};
use crate::harness::{Authority, Caller, Dock, Image, Server, Setup, Token};

/// A server, Alice's token for everything, and the ways that clients reach the server by.
pub(super) struct Port {
    pub(super) server: Server,
    pub(super) token: Token,
    pub(super) docks: Vec<Dock>,
}

impl Port {
    pub(super) async fn open() -> Self {
        let authority = Authority::new();
        let server = Setup::default().tls(&authority.sign()).start().await;
        let token = server.publisher("alice").await;
        let docks = vec![Dock::new(&server), Dock::with_tls(&server, &authority)];
        Self { server, token, docks }
    }

    pub(super) fn caller(&self) -> Caller {
        self.server.caller_with(&self.token)
    }

    /// `alice:TOKEN`.
    fn credentials(&self) -> String {
        format!("alice:{}", self.token.text)
    }

    /// Shows one of Alice's images to everyone.
    pub(super) async fn publish(&self, name: &str) {
        let path = format!("/api/v3/user/packages/container/{name}");
        self.caller().ask("PATCH", &path).header("user-agent", "t").json(&json!({ "visibility": "public" })).send().await.expect(200);
    }

    /// The manifest that the server has, with its digest.
    pub(super) async fn manifest(&self, name: &str, tag: &str) -> (Vec<u8>, String) {
        let answer = Repository::new(&self.caller(), &format!("alice/{name}")).get(&format!("manifests/{tag}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let digest = answer.header("docker-content-digest").to_owned();
        (answer.body, digest)
    }
}

#[tokio::test]
async fn skopeo() {
    let port = Port::open().await;
    let credentials = port.credentials();
    for (number, dock) in port.docks.iter().enumerate() {
        let name = format!("skopeo{number}");
        let images = [Image::new(&format!("{name} a")), Image::new(&format!("{name} b"))];
        let index = Image::index(&images, &json!({}));
        let layout = dock.layout("layout", &[&images[0], &images[1], &index]);
        let certs = dock.at_path("certs");
        let to: &[&str] = if dock.is_tls() { &["--dest-cert-dir", &certs] } else { &["--dest-tls-verify=false"] };
        let from: &[&str] = if dock.is_tls() { &["--src-cert-dir", &certs] } else { &["--src-tls-verify=false"] };
        let plain: &[&str] = if dock.is_tls() { &["--cert-dir", &certs] } else { &["--tls-verify=false"] };
        let (source, target) = (format!("oci:{layout}:v1"), format!("docker://{}:v1", dock.image(&format!("alice/{name}"))));
        let copy = [&["skopeo", "copy", "--all", "--dest-creds", &credentials], to, &[&source, &target]].concat();
        dock.run(&copy).await.ok();
        dock.run(&copy).await.ok();
        let (bytes, digest) = port.manifest(&name, "v1").await;
        assert!(bytes == index.manifest.bytes && digest == index.digest());
        let by_digest = format!("docker://{}@{digest}", dock.image(&format!("alice/{name}")));
        for (round, wanted) in [&target, &by_digest].into_iter().enumerate() {
            let out = format!("oci:{}:v1", dock.at_path(&format!("private{round}")));
            dock.run(&[&["skopeo", "copy", "--all", "--src-creds", &credentials], from, &[wanted, &out]].concat()).await.ok();
            let refused = format!("oci:{}:v1", dock.at_path("refused"));
            dock.run(&[&["skopeo", "copy", "--all"], from, &[wanted, &refused]].concat()).await.fails_with(&["unauthorized"]);
        }
        port.publish(&name).await;
        let out = format!("oci:{}:v1", dock.at_path("public"));
        dock.run(&[&["skopeo", "copy", "--all"], from, &[&target, &out]].concat()).await.ok();
        let inspected = dock.run(&[&["skopeo", "inspect", "--raw"], plain, &[&target]].concat()).await.ok();
        assert!(inspected.out.as_bytes() == index.manifest.bytes);
        let repository = format!("docker://{}", dock.image(&format!("alice/{name}")));
        let tags = dock.run(&[&["skopeo", "list-tags"], plain, &[&repository]].concat()).await.ok();
        assert_eq!(texts(&serde_json::from_str::<Value>(&tags.out).unwrap()["Tags"]), ["v1"]);
        dock.run(&[&["skopeo", "delete", "--creds", &credentials], plain, &[&target]].concat()).await.ok();
        dock.run(&[&["skopeo", "inspect"], plain, &[&target]].concat()).await.fails_with(&["manifest unknown", "not found"]);
        // The schema of Docker's own is kept as such.
        let single = dock.layout("single", &[&images[0]]);
        let converted = format!("docker://{}:docker", dock.image(&format!("alice/{name}")));
        let source = format!("oci:{single}:v1");
        dock.run(&[&["skopeo", "copy", "--format", "v2s2", "--dest-creds", &credentials], to, &[&source, &converted]].concat()).await.ok();
        let manifest: Value = serde_json::from_slice(&port.manifest(&name, "docker").await.0).unwrap();
        assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    }
    port.server.finish().await;
}

#[tokio::test]
async fn oras() {
    let port = Port::open().await;
    for (number, dock) in port.docks.iter().enumerate() {
        let name = format!("oras{number}");
        let image = dock.image(&format!("alice/{name}"));
        let tagged = format!("{image}:v1");
        let ca = dock.at_path("certs/ca.crt");
        let way: &[&str] = if dock.is_tls() { &["--ca-file", &ca] } else { &["--plain-http"] };
        let oras = async |line: &[&str]| dock.run(&[&["oras"], line, way].concat()).await;
        oras(&["login", dock.registry(), "-u", "alice", "-p", "pkh_wrong"]).await.fails_with(&["401", "credential"]);
        oras(&["login", dock.registry(), "-u", "alice", "-p", &port.token.text]).await.ok();
        std::fs::write(dock.path("hello.txt"), "hello").unwrap();
        std::fs::write(dock.path("sbom.json"), "{}").unwrap();
        oras(&["push", &tagged, "--artifact-type", "application/vnd.hello", "hello.txt:text/plain"]).await.ok();
        oras(&["attach", &tagged, "--artifact-type", "application/vnd.sbom", "sbom.json:application/json"]).await.ok();
        oras(&["attach", &tagged, "--artifact-type", "application/vnd.sig", "--annotation", "a=b", "hello.txt"]).await.ok();
        let found = oras(&["discover", "--format", "json", &tagged]).await.ok();
        let found: Value = serde_json::from_str(&found.out).unwrap();
        assert_eq!(found["referrers"].as_array().unwrap().len(), 2, "{found}");
        let filtered = oras(&["discover", "--format", "json", "--artifact-type", "application/vnd.sbom", &tagged]).await.ok();
        assert_eq!(serde_json::from_str::<Value>(&filtered.out).unwrap()["referrers"].as_array().unwrap().len(), 1);
        assert_eq!(oras(&["repo", "tags", &image]).await.ok().out.trim(), "v1", "no fallback tag was made");
        let digest = port.manifest(&name, "v1").await.1;
        for (round, wanted) in [tagged.clone(), format!("{image}@{digest}")].iter().enumerate() {
            let out = dock.at_path(&format!("out{round}"));
            oras(&["pull", wanted, "-o", &out]).await.ok();
            assert_eq!(std::fs::read_to_string(format!("{out}/hello.txt")).unwrap(), "hello");
        }
        let copy = dock.image(&format!("alice/{name}-copy"));
        let both: &[&str] =
            if dock.is_tls() { &["--from-ca-file", &ca, "--to-ca-file", &ca] } else { &["--from-plain-http", "--to-plain-http"] };
        dock.run(&[&["oras", "cp", "-r", &tagged, &format!("{copy}:v1")], both].concat()).await.ok();
        let copied = oras(&["discover", "--format", "json", &format!("{copy}:v1")]).await.ok();
        assert_eq!(serde_json::from_str::<Value>(&copied.out).unwrap()["referrers"].as_array().unwrap().len(), 2);
        oras(&["manifest", "delete", "--force", &format!("{copy}:v1")]).await.ok();
        oras(&["manifest", "fetch", &format!("{copy}:v1")]).await.fails_with(&["not found"]);
        oras(&["logout", dock.registry()]).await;
        dock.run(&["oras", "logout", dock.registry()]).await;
        oras(&["pull", &tagged, "-o", &dock.at_path("refused")]).await.fails_with(&["401", "authentication required", "basic credential"]);
        port.publish(&name).await;
        oras(&["pull", &tagged, "-o", &dock.at_path("public")]).await.ok();
    }
    port.server.finish().await;
}

#[tokio::test]
async fn crane() {
    let port = Port::open().await;
    for (number, dock) in port.docks.iter().enumerate() {
        let name = format!("crane{number}");
        let image = dock.image(&format!("alice/{name}"));
        let (tagged, other) = (format!("{image}:v1"), format!("{image}-two:v1"));
        let crane = async |line: &[&str]| dock.run(&[&["crane"], line].concat()).await;
        crane(&["auth", "login", dock.registry(), "-u", "alice", "-p", &port.token.text]).await.ok();
        let source = Image::new(&name);
        let layout = dock.layout("layout", &[&source]);
        crane(&["push", &layout, &tagged]).await.ok();
        let digest = crane(&["digest", &tagged]).await.ok().out.trim().to_owned();
        assert_eq!(digest, source.digest());
        assert_eq!(crane(&["ls", &image]).await.ok().out.trim(), "v1");
        crane(&["validate", "--remote", &tagged]).await.ok();
        crane(&["validate", "--remote", &format!("{image}@{digest}")]).await.ok();
        // A copy mounts what is there.
        crane(&["copy", &tagged, &other]).await.ok();
        assert_eq!(port.manifest(&format!("{name}-two"), "v1").await.1, digest);
        crane(&["tag", &tagged, "v2"]).await.ok();
        let catalog = crane(&["catalog", dock.registry()]).await.ok();
        assert!(catalog.said(&format!("alice/{name}-two")), "{}", catalog.out);
        std::fs::write(dock.path("layer.tar"), vec![0; 1024]).unwrap();
        crane(&["append", "-b", &tagged, "-f", &dock.at_path("layer.tar"), "-t", &format!("{image}:v3")]).await.ok();
        crane(&["validate", "--remote", &format!("{image}:v3")]).await.ok();
        crane(&["delete", &format!("{image}@{}", port.manifest(&name, "v3").await.1)]).await.ok();
        assert_eq!(crane(&["ls", &image]).await.ok().out.split_whitespace().collect::<Vec<_>>(), ["v1", "v2"]);
        crane(&["auth", "logout", dock.registry()]).await.ok();
        crane(&["manifest", &tagged]).await.fails_with(&["UNAUTHORIZED"]);
        port.publish(&name).await;
        crane(&["validate", "--remote", &tagged]).await.ok();
        let new = dock.layout("new", &[&Image::new(&format!("{name} new"))]);
        crane(&["push", &new, &format!("{image}:v9")]).await.fails_with(&["UNAUTHORIZED"]);
    }
    port.server.finish().await;
}

#[tokio::test]
async fn podman() {
    let port = Port::open().await;
    for (number, dock) in port.docks.iter().enumerate() {
        let name = format!("podman{number}");
        let image = dock.image(&format!("alice/{name}"));
        let certs = dock.at_path("certs");
        let way: Vec<&str> = if dock.is_tls() { vec!["--cert-dir", &certs] } else { vec!["--tls-verify=false"] };
        let podman = async |verb: &[&str], line: &[&str]| dock.run(&[&["podman"], verb, &way, line].concat()).await;
        podman(&["login"], &["-u", "alice", "-p", "pkh_wrong", dock.registry()]).await.fails_with(&["invalid username/password"]);
        dock.run_with(&[&["podman", "login"], &way[..], &["-u", "alice", "--password-stdin", dock.registry()]].concat(), &port.token.text)
            .await
            .ok();
        let layout = dock.layout("layout", &[&Image::new(&name)]);
        let archive = dock.at_path("image.tar");
        dock.run(&["skopeo", "copy", &format!("oci:{layout}:v1"), &format!("oci-archive:{archive}:v1")]).await.ok();
        dock.run(&["podman", "load", "-i", &archive]).await.ok();
        let id = dock.run(&["podman", "images", "-q"]).await.ok().out.trim().to_owned();
        podman(&["push"], &[&id, &format!("docker://{image}:v1")]).await.ok();
        let (_, digest) = port.manifest(&name, "v1").await;
        // An index made here, of an image that is there.
        dock.run(&["podman", "manifest", "create", "multi"]).await.ok();
        podman(&["manifest", "add"], &["multi", &format!("docker://{image}@{digest}")]).await.ok();
        podman(&["manifest", "push"], &["--all", "multi", &format!("docker://{image}:multi")]).await.ok();
        let index: Value = serde_json::from_slice(&port.manifest(&name, "multi").await.0).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
        dock.run(&["podman", "rmi", "--all", "--force"]).await.ok();
        podman(&["pull"], &[&format!("{image}:v1")]).await.ok();
        dock.run(&["podman", "rmi", "--all", "--force"]).await.ok();
        podman(&["pull"], &[&format!("{image}@{digest}")]).await.ok();
        if !dock.is_tls() {
            // A search knows no folder of certificates.
            let found = podman(&["search"], &[&format!("{}/{name}", dock.registry())]).await.ok();
            assert!(found.said(&format!("alice/{name}")), "{}", found.out);
        }
        dock.run(&["podman", "logout", dock.registry()]).await.ok();
        dock.run(&["podman", "rmi", "--all", "--force"]).await.ok();
        podman(&["pull"], &[&format!("{image}:v1")]).await.fails_with(&["unauthorized"]);
        port.publish(&name).await;
        podman(&["pull"], &[&format!("{image}:v1")]).await.ok();
    }
    port.server.finish().await;
}

#[tokio::test]
async fn buildah() {
    let port = Port::open().await;
    let credentials = port.credentials();
    for (number, dock) in port.docks.iter().enumerate() {
        let name = format!("buildah{number}");
        let image = dock.image(&format!("alice/{name}:v1"));
        let certs = dock.at_path("certs");
        let way: Vec<&str> = if dock.is_tls() { vec!["--cert-dir", &certs] } else { vec!["--tls-verify=false"] };
        std::fs::create_dir(dock.path("context")).unwrap();
        std::fs::write(dock.path("context/hello"), "hello").unwrap();
        let text = "FROM scratch\nCOPY hello /hello\nLABEL org.opencontainers.image.description=\"built here\"\n";
        std::fs::write(dock.path("context/Containerfile"), text).unwrap();
        dock.run(&["buildah", "bud", "-t", "built", "context"]).await.ok();
        let target = format!("docker://{image}");
        dock.run(&[&["buildah", "push", "--creds", &credentials], &way[..], &["built", &target]].concat()).await.ok();
        // A build on top of what was pushed.
        std::fs::write(dock.path("context/Containerfile"), format!("FROM {image}\nCOPY hello /again\n")).unwrap();
        dock.run(&["buildah", "rmi", "--all", "--force"]).await.ok();
        dock.run(&[&["buildah", "bud", "--creds", &credentials], &way[..], &["-t", "second", "context"]].concat()).await.ok();
        let second = format!("docker://{}", dock.image(&format!("alice/{name}:v2")));
        dock.run(&[&["buildah", "push", "--creds", &credentials], &way[..], &["second", &second]].concat()).await.ok();
        let manifest: Value = serde_json::from_slice(&port.manifest(&name, "v2").await.0).unwrap();
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
        port.publish(&name).await;
        dock.run(&["buildah", "rmi", "--all", "--force"]).await.ok();
        dock.run(&[&["buildah", "pull"], &way[..], &[&image]].concat()).await.ok();
        let package = port.caller().get(&format!("/api/v3/user/packages/container/{name}/versions")).header("user-agent", "t").send().await;
        let described: Vec<_> = package.json().as_array().unwrap().iter().map(|version| version["description"].clone()).collect();
        assert!(described.contains(&json!("built here")), "{described:?}");
    }
    port.server.finish().await;
}

#[tokio::test]
async fn helm() {
    let port = Port::open().await;
    for (number, dock) in port.docks.iter().enumerate() {
        let name = format!("chart{number}");
        let ca = dock.at_path("certs/ca.crt");
        let way: Vec<&str> = if dock.is_tls() { vec!["--ca-file", &ca] } else { vec!["--plain-http"] };
        let login: Vec<&str> = if dock.is_tls() { vec!["--ca-file", &ca] } else { vec![] };
        let login = [&["helm", "registry", "login", dock.registry(), "-u", "alice", "--password-stdin"], &login[..]].concat();
        dock.run_with(&login, "pkh_wrong").await.fails_with(&["401", "unauthorized", "denied"]);
        dock.run_with(&login, &port.token.text).await.ok();
        dock.run(&["helm", "create", &name]).await.ok();
        dock.run(&["helm", "package", &name, "--version", "1.2.3+build"]).await.ok();
        let (archive, charts) = (format!("{name}-1.2.3+build.tgz"), format!("oci://{}", dock.image("alice/charts")));
        dock.run(&[&["helm", "push", &archive, &charts], &way[..]].concat()).await.ok();
        let chart = format!("{charts}/{name}");
        std::fs::create_dir(dock.path("pulled")).unwrap();
        dock.run(&[&["helm", "pull", &chart, "--version", "1.2.3+build", "-d", "pulled"], &way[..]].concat()).await.ok();
        let (sent, got) = (std::fs::read(dock.path(&archive)).unwrap(), std::fs::read(dock.path("pulled").join(&archive)).unwrap());
        assert!(sent == got);
        let shown = dock.run(&[&["helm", "show", "chart", &chart, "--version", "1.2.3+build"], &way[..]].concat()).await.ok();
        assert!(shown.said(&format!("name: {name}")));
        // A plus is no part of a tag.
        assert_eq!(port.manifest(&format!("charts/{name}"), "1.2.3_build").await.0[0], b'{');
        dock.run(&["helm", "registry", "logout", dock.registry()]).await.ok();
        dock.run(&[&["helm", "pull", &chart, "--version", "1.2.3+build", "-d", "tmp"], &way[..]].concat())
            .await
            .fails_with(&["401", "unauthorized"]);
        port.publish(&format!("charts%2f{name}")).await;
        dock.run(&[&["helm", "pull", &chart, "--version", "1.2.3+build", "-d", "tmp"], &way[..]].concat()).await.ok();
    }
    port.server.finish().await;
}

#[tokio::test]
async fn cosign() {
    let port = Port::open().await;
    for (number, dock) in port.docks.iter().enumerate() {
        let name = format!("cosign{number}");
        let image = Image::new(&name);
        Repository::new(&port.caller(), &format!("alice/{name}")).push(&image, "v1").await;
        let reference = format!("{}@{}", dock.image(&format!("alice/{name}")), image.digest());
        dock.run_with(&["cosign", "login", dock.registry(), "-u", "alice", "--password-stdin"], &port.token.text).await.ok();
        dock.run(&["cosign", "generate-key-pair"]).await.ok();
        let way: &[&str] = if dock.is_tls() { &[] } else { &["--allow-http-registry"] };
        let sign = ["cosign", "sign", "--yes", "--key", "cosign.key", "--tlog-upload=false", "--use-signing-config=false"];
        dock.run(&[&sign, way, &[&reference]].concat()).await.ok();
        let verify = ["cosign", "verify", "--key", "cosign.pub", "--insecure-ignore-tlog"];
        dock.run(&[&verify, way, &[&reference]].concat()).await.ok();
        let repository = Repository::new(&port.caller(), &format!("alice/{name}"));
        let referrers = repository.get(&format!("referrers/{}", image.digest())).await.json();
        assert_eq!(referrers["manifests"].as_array().unwrap().len(), 1, "{referrers}");
        // Older ones put the signature under a tag made of the image's digest.
        dock.run(&[&sign, way, &["--new-bundle-format=false", &reference]].concat()).await.ok();
        assert_eq!(repository.tags().await, [format!("{}.sig", image.digest().replace(':', "-")), "v1".to_owned()]);
        dock.run(&[&verify, way, &["--new-bundle-format=false", &reference]].concat()).await.ok();
        dock.run(&["cosign", "generate-key-pair", "--output-key-prefix", "other"]).await.ok();
        let wrong = ["cosign", "verify", "--key", "other.pub", "--insecure-ignore-tlog"];
        dock.run(&[&wrong, way, &[&reference]].concat()).await.fails_with(&[]);
        port.publish(&name).await;
        std::fs::remove_file(dock.path(".docker/config.json")).unwrap();
        dock.run(&[&verify, way, &[&reference]].concat()).await.ok();
    }
    port.server.finish().await;
}

/// A client that brings nothing is told to sign in, and one that signs in with nothing stays a stranger.
#[tokio::test]
async fn empty_credentials_are_none() {
    let (server, repository) = repository().await;
    repository.push(&Image::new("one"), "v1").await;
    let ask = async |credentials: &str| server.caller().get("/v2/").header("authorization", credentials).send().await;
    assert_eq!(ask("Basic Og==").await.status, 401);
    assert!(!ask("Basic Og==").await.header("www-authenticate").contains("error"), "that is no bad token");
    assert!(ask("Basic eDp5").await.header("www-authenticate").contains("error=\"invalid_token\""));
    server.finish().await;
}
