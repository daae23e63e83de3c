//! Images over GitHub's API: what a version is, what labels say, what goes and comes back together.

use serde_json::{Value, json};

use super::{Repository, refused, texts};
use crate::harness::{Answer, Caller, Image, Server, Setup, exchange};
use crate::rest::{ask, check};

/// A server, Alice's token for everything, and her repository `alice/app`.
async fn hosting() -> (Server, Repository) {
    hosting_with(Setup::default()).await
}

async fn hosting_with(setup: Setup) -> (Server, Repository) {
    let server = setup.start().await;
    server.user("alice").await;
    let token = server.token("alice", &["read:packages", "write:packages", "delete:packages", "repo"]).await;
    let repository = Repository::new(&server.caller_with(&token), "alice/app");
    (server, repository)
}

/// The versions that are live or deleted, by digest, with their ids and tags.
async fn versions(caller: &Caller, state: &str) -> Vec<(String, u64, Vec<String>)> {
    let list = check(caller, &format!("GET /user/packages/container/app/versions?per_page=100&state={state}"), 200).await;
    let version = |item: &Value| {
        assert_eq!(item["metadata"]["package_type"], "container");
        (item["name"].as_str().unwrap().to_owned(), item["id"].as_u64().unwrap(), texts(&item["metadata"]["container"]["tags"]))
    };
    list.as_array().unwrap().iter().map(version).collect()
}

async fn id_of(caller: &Caller, state: &str, digest: &str) -> u64 {
    versions(caller, state).await.iter().find(|(name, ..)| name == digest).unwrap_or_else(|| panic!("no {digest}")).1
}

/// What a version's path is asked to do.
async fn act(caller: &Caller, line: &str, state: &str, digest: &str) -> Answer {
    let (method, rest) = line.split_once(' ').unwrap_or((line, ""));
    let id = id_of(caller, state, digest).await;
    ask(caller, &format!("{method} /user/packages/container/app/versions/{id}{rest}"), None).await
}

async fn there(repository: &Repository, images: &[&Image]) -> Vec<bool> {
    let mut found = Vec::new();
    for image in images {
        found.push(repository.head(&format!("manifests/{}", image.digest())).await.status == 200);
    }
    found
}

#[tokio::test]
async fn a_version_is_a_manifest_with_its_tags_and_what_its_labels_say() {
    let (server, repository) = hosting().await;
    let labels = json!({
        "org.opencontainers.image.description": "from a label",
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
    });
    let first = Image::with("first", &labels, &json!({}));
    let said = json!({ "annotations": { "org.opencontainers.image.description": "from an annotation" } });
    let second = Image::with("second", &labels, &said);
    let index = Image::index(&[first.clone(), second.clone()], &json!({}));
    repository.push_untagged(&first).await;
    repository.push_untagged(&second).await;
    repository.push(&index, "v1").await;
    repository.push(&index, "latest").await;
    let found = versions(&repository.caller, "active").await;
    let expected = [(&index, vec!["latest", "v1"]), (&second, vec![]), (&first, vec![])];
    assert_eq!(found.len(), 3);
    for ((name, _, tags), (image, expected)) in found.iter().zip(expected) {
        assert_eq!((name.as_str(), tags.iter().map(String::as_str).collect::<Vec<_>>()), (image.digest(), expected));
    }
    let version = act(&repository.caller, "GET", "active", first.digest()).await.json();
    assert_eq!((&version["description"], &version["license"]), (&json!("from a label"), &json!("MIT OR Apache-2.0")));
    let version = act(&repository.caller, "GET", "active", second.digest()).await.json();
    assert_eq!(version["description"], "from an annotation");
    let package = check(&repository.caller, "GET /user/packages/container/app", 200).await;
    assert_eq!((&package["version_count"], &package["package_type"]), (&json!(3), &json!("container")));
    assert_eq!(check(&repository.caller, "GET /users/alice/packages/docker/app", 200).await["id"], package["id"]);
    let deep = Repository::new(&repository.caller, "alice/app/deep/er");
    deep.push(&first, "v1").await;
    for name in ["app%2Fdeep%2Fer", "app/deep/er"] {
        assert_eq!(check(&repository.caller, &format!("GET /user/packages/container/{name}"), 200).await["name"], "app/deep/er");
    }
    // Each pull of a manifest is a download of that version.
    repository.get("manifests/v1").await;
    repository.head("manifests/v1").await;
    let version = act(&repository.caller, "GET", "active", index.digest()).await.json();
    assert_eq!(version["download_count"], 1, "{version}");
    server.finish().await;
}

#[tokio::test]
async fn a_label_links_the_repository_and_a_first_push_takes_its_roles() {
    let (server, repository) = hosting().await;
    for name in ["web", "other"] {
        assert_eq!(ask(&repository.caller, "POST /user/repos", Some(&json!({ "name": name, "private": true }))).await.status, 201);
    }
    let bob = server.publisher("bob").await;
    let bobs = Repository::new(&server.caller_with(&bob), "alice/app");
    let path = "PUT /repos/alice/web/collaborators/bob";
    assert_eq!(ask(&repository.caller, path, Some(&json!({ "permission": "pull" }))).await.status, 204);
    let source = |name: &str| json!({ "org.opencontainers.image.source": format!("https://packages.test/alice/{name}") });
    repository.push(&Image::with("linked", &source("web"), &json!({})), "v1").await;
    let package = check(&repository.caller, "GET /user/packages/container/app", 200).await;
    assert_eq!(package["repository"]["full_name"], "alice/web");
    assert_eq!(bobs.head("manifests/v1").await.status, 200, "who reads the repository reads the image");
    refused(&bobs.ask("POST", "blobs/uploads/").send().await, 403, "DENIED");
    // A later label moves no link, and a link that is made later gives nobody a role.
    repository.push(&Image::with("moved", &source("other"), &json!({})), "v2").await;
    assert_eq!(check(&repository.caller, "GET /user/packages/container/app", 200).await["repository"]["full_name"], "alice/web");
    let late = Repository::new(&repository.caller, "alice/late");
    late.push(&Image::new("plain"), "v1").await;
    late.push(&Image::with("late", &source("web"), &json!({})), "v2").await;
    let package = check(&repository.caller, "GET /user/packages/container/late", 200).await;
    assert_eq!(package["repository"]["full_name"], "alice/web");
    assert_eq!(Repository::new(&bobs.caller, "alice/late").head("manifests/v1").await.status, 404);
    // An index brings its annotation after its images.
    let parts = Repository::new(&repository.caller, "alice/parts");
    let child = Image::new("child");
    parts.push_untagged(&child).await;
    parts.push(&Image::index(&[child], &json!({ "annotations": source("web") })), "v1").await;
    assert_eq!(Repository::new(&bobs.caller, "alice/parts").head("manifests/v1").await.status, 200);
    // Nobody links to a repository that is not his to write to.
    let taken = Repository::new(&bobs.caller, "bob/app");
    taken.push(&Image::with("bob", &source("web"), &json!({})), "v1").await;
    assert!(check(&bobs.caller, "GET /users/bob/packages/container/app", 200).await["repository"].is_null());
    server.finish().await;
}

#[tokio::test]
async fn names_of_the_older_registry_hold_their_repository() {
    let (server, repository) = hosting_with(Setup::default().server("hosts = \"packages.test\"")).await;
    assert_eq!(ask(&repository.caller, "POST /user/repos", Some(&json!({ "name": "web" }))).await.status, 201);
    let image = Image::new("legacy");
    for name in ["alice/web/app", "alice/none/app"] {
        let repository = Repository::new(&repository.caller, name);
        for blob in &image.blobs {
            repository.upload(blob).await;
        }
        let host = format!("docker.packages.test:{}", server.port());
        let answer = repository.ask("PUT", "manifests/v1").header("host", &host).header("content-type", image.media_type);
        assert_eq!(answer.body(image.manifest.bytes.clone()).send().await.status, 201);
    }
    let linked =
        async |name: &str| check(&repository.caller, &format!("GET /user/packages/docker/{name}"), 200).await["repository"].clone();
    assert_eq!(linked("web/app").await["full_name"], "alice/web");
    assert!(linked("none/app").await.is_null());
    let bytes = format!("GET /v2/ HTTP/1.1\r\nHost: docker.packages.test:{}\r\nConnection: close\r\n\r\n", server.port());
    assert_eq!(exchange(server.port(), bytes.as_bytes()).await.statuses, [401]);
    server.finish().await;
}

#[tokio::test]
async fn an_index_goes_and_comes_back_with_its_images() {
    let (server, repository) = hosting().await;
    let caller = &repository.caller;
    let images = ["a", "b", "shared"].map(Image::new);
    let [one, two, shared] = &images;
    let index = Image::index(&[one.clone(), two.clone(), shared.clone()], &json!({}));
    let other = Image::index(std::slice::from_ref(shared), &json!({}));
    let about = Image::artifact("sig", "application/vnd.sig", &json!({ "subject": index.descriptor() }));
    let signature = Image::artifact("cosign", "application/vnd.cosign", &json!({}));
    for image in &images {
        repository.push_untagged(image).await;
    }
    repository.push(&index, "v1").await;
    repository.push(&other, "v2").await;
    repository.push_untagged(&about).await;
    repository.push(&signature, &format!("{}.sig", one.digest().replace(':', "-"))).await;
    let all = [one, two, shared, &index, &other, &about, &signature];
    // An image of an index that stays cannot go.
    let answer = act(caller, "DELETE", "active", one.digest()).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains(index.digest()));
    refused(&repository.delete(&format!("manifests/{}", one.digest())).await, 405, "UNSUPPORTED");
    assert_eq!(act(caller, "DELETE", "active", index.digest()).await.status, 204);
    assert_eq!(there(&repository, &all).await, [false, false, true, false, true, false, false]);
    assert_eq!(repository.tags().await, ["v2"]);
    let deleted = versions(caller, "deleted").await;
    assert_eq!(deleted.len(), 5);
    assert_eq!(act(caller, "POST /restore", "deleted", index.digest()).await.status, 204);
    assert_eq!(there(&repository, &all).await, [true; 7]);
    assert_eq!(repository.tags().await, [format!("{}.sig", one.digest().replace(':', "-")), "v1".into(), "v2".into()]);
    for image in all {
        for blob in &image.blobs {
            assert!(repository.get(&format!("blobs/{}", blob.digest)).await.body == blob.bytes);
        }
    }
    let list = repository.get(&format!("referrers/{}", index.digest())).await.json();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    // Through the protocol an index goes alone, and is restored all the same.
    assert_eq!(repository.delete(&format!("manifests/{}", index.digest())).await.status, 202);
    assert_eq!(there(&repository, &all).await, [true, true, true, false, true, true, true]);
    assert_eq!(repository.delete(&format!("manifests/{}", one.digest())).await.status, 202);
    assert_eq!(act(caller, "POST /restore", "deleted", index.digest()).await.status, 204);
    assert_eq!(there(&repository, &all).await, [true; 7]);
    server.finish().await;
}

#[tokio::test]
async fn what_was_deleted_can_be_pushed_again() {
    let (server, repository) = hosting().await;
    let caller = &repository.caller;
    let images = ["a", "b"].map(Image::new);
    repository.push(&images[0], "v1").await;
    repository.push(&images[1], "v2").await;
    let before = id_of(caller, "active", images[0].digest()).await;
    assert_eq!(act(caller, "DELETE", "active", images[0].digest()).await.status, 204);
    assert_eq!(repository.head("manifests/v1").await.status, 404);
    repository.push(&images[0], "v3").await;
    assert_eq!(id_of(caller, "active", images[0].digest()).await, before, "it is the same version again");
    assert_eq!(repository.tags().await, ["v2", "v3"], "a push brings the tags it says");
    // The last version goes only with its package.
    assert_eq!(act(caller, "DELETE", "active", images[0].digest()).await.status, 204);
    let answer = act(caller, "DELETE", "active", images[1].digest()).await;
    assert_eq!((answer.status, answer.json()["message"].as_str().unwrap().contains("last version")), (400, true));
    assert_eq!(ask(caller, "DELETE /user/packages/container/app", None).await.status, 204);
    refused(&repository.get("manifests/v2").await, 404, "NAME_UNKNOWN");
    refused(&repository.get(&format!("blobs/{}", images[1].blobs[0].digest)).await, 404, "NAME_UNKNOWN");
    assert_eq!(ask(caller, "POST /user/packages/container/app/restore", None).await.status, 204);
    assert_eq!(there(&repository, &[&images[0], &images[1]]).await, [false, true]);
    assert!(repository.get("manifests/v2").await.body == images[1].manifest.bytes);
    // A name that was deleted begins anew.
    assert_eq!(ask(caller, "DELETE /user/packages/container/app", None).await.status, 204);
    repository.push(&images[1], "new").await;
    assert_eq!(repository.tags().await, ["new"]);
    assert_eq!(there(&repository, &[&images[0], &images[1]]).await, [false, true]);
    server.cli(&["fsck"]).await;
    server.finish().await;
}

#[tokio::test]
async fn an_image_that_was_given_away_keeps_its_name_and_its_content() {
    let (server, repository) = hosting().await;
    let alice = repository.caller.clone();
    server.cli(&["org", "add", "beta", "--owner", "alice"]).await;
    let (first, second) = (Image::new("first"), Image::new("second"));
    repository.push(&first, "v1").await;
    let given = ask(&alice, "POST /user/packages/container/app/transfer", Some(&json!({ "new_owner": "beta" }))).await;
    assert_eq!((given.status, &given.json()["owner"]["login"]), (200, &json!("beta")), "{}", given.text());
    for blob in &first.blobs {
        assert_eq!(repository.get(&format!("blobs/{}", blob.digest)).await.body, blob.bytes);
    }
    repository.push(&second, "v2").await;
    assert_eq!(repository.tags().await, ["v1", "v2"]);
    check(&alice, "GET /user/packages/container/app", 404).await;
    let listed = check(&alice, "GET /orgs/beta/packages?package_type=container", 200).await;
    assert_eq!((&listed[0]["name"], &listed[0]["version_count"]), (&json!("alice/app"), &json!(2)));
    // It is the organisation's: a member's right counts, and who has none sees nothing.
    server.user("bob").await;
    server.cli(&["org", "add-member", "beta", "bob"]).await;
    let bob = Repository::new(&server.caller_with(&server.token("bob", &["read:packages"]).await), "alice/app");
    refused(&bob.get("manifests/v2").await, 404, "NAME_UNKNOWN");
    let role = ask(&alice, "PUT /orgs/beta/packages/container/alice%2Fapp/roles/users/bob", Some(&json!({ "role": "read" }))).await;
    assert_eq!(role.status, 204, "{}", role.text());
    assert_eq!(bob.get("manifests/v2").await.body, second.manifest.bytes);
    check(&alice, "DELETE /orgs/beta/packages/container/alice%2Fapp", 204).await;
    refused(&repository.get("manifests/v1").await, 404, "NAME_UNKNOWN");
    check(&alice, "POST /orgs/beta/packages/container/alice%2Fapp/restore", 204).await;
    assert_eq!(there(&repository, &[&first, &second]).await, [true, true]);
    for blob in &first.blobs {
        assert_eq!(repository.get(&format!("blobs/{}", blob.digest)).await.body, blob.bytes);
    }
    server.finish().await;
}
