//! The third group of the conformance suite: tags, referrers, and the list of repositories.

use serde_json::{Value, json};

use super::{Repository, next, refused, repository, texts};
use crate::harness::{Answer, Blob, INDEX, Image};

#[tokio::test]
async fn tags_come_in_order_and_in_pages() {
    let (server, repository) = repository().await;
    let image = Image::new("one");
    let mut names: Vec<String> = ["b", "a", "10", "9", "A", "a.1", "a-1", "a_1", "aa", "latest"].map(str::to_owned).to_vec();
    for name in &names {
        repository.push(&image, name).await;
    }
    names.sort();
    assert_eq!(repository.tags().await, names, "in the order of bytes");
    assert_eq!(repository.get("tags/list").await.json()["name"], "alice/app");
    let list = async |query: &str| repository.get(&format!("tags/list?{query}")).await;
    // OC07: every page size gives all of them, each once.
    for size in [1, 3, 9, 10, 11] {
        let (mut path, mut seen) = (Some(format!("/v2/alice/app/tags/list?n={size}")), Vec::new());
        while let Some(page) = path {
            let answer = repository.caller.get(&page).send().await.expect(200);
            let tags = texts(&answer.json()["tags"]);
            assert!(tags.len() <= size);
            seen.extend(tags);
            path = next(&answer);
        }
        assert_eq!(seen, names, "pages of {size}");
    }
    assert_eq!(texts(&list("last=a").await.json()["tags"]), names[4..], "strictly after");
    assert_eq!(texts(&list("last=a%20").await.json()["tags"]), names[4..], "after what is no tag");
    let none = list("n=0").await;
    assert_eq!((none.json()["tags"].clone(), next(&none)), (json!([]), None));
    assert!(next(&list("n=1000000000000").await).is_none());
    for wrong in ["n=-1", "n=x", "n=", "n=1.5", "orderby=size"] {
        refused(&list(wrong).await, 400, "PAGINATION_NUMBER_INVALID");
    }
    server.finish().await;
}

#[tokio::test]
async fn tags_come_in_the_order_of_their_images_too() {
    let (server, repository) = repository().await;
    let images = ["old", "middle", "new"].map(Image::new);
    for (image, tag) in images.iter().zip(["z", "m", "a"]) {
        repository.push(image, tag).await;
    }
    repository.push(&images[0], "again").await;
    for (order, expected) in [("timeasc", ["again", "z", "m", "a"]), ("timedesc", ["a", "m", "z", "again"])] {
        for size in [1, 2, 3, 4, 5] {
            let (mut path, mut seen) = (Some(format!("/v2/alice/app/tags/list?orderby={order}&n={size}")), Vec::new());
            while let Some(page) = path {
                let answer = repository.caller.get(&page).send().await.expect(200);
                seen.extend(texts(&answer.json()["tags"]));
                path = next(&answer);
            }
            assert_eq!(seen, expected, "{order} in pages of {size}");
        }
    }
    server.finish().await;
}

/// The digests of a list of referrers, which must be an index.
#[track_caller]
fn digests(answer: &Answer) -> Vec<String> {
    assert_eq!((answer.status, answer.header("content-type")), (200, INDEX), "{}", answer.text());
    let index = answer.json();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(INDEX)));
    index["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

fn about(seed: &str, artifact_type: &str, subject: &Image) -> Image {
    Image::artifact(seed, artifact_type, &json!({ "subject": subject.descriptor(), "annotations": { "seed": seed } }))
}

#[tokio::test]
async fn referrers_are_listed_whether_their_subject_is_there_or_not() {
    let (server, repository) = repository().await;
    let (image, absent) = (Image::new("image"), Image::new("absent"));
    let path = format!("referrers/{}", image.digest());
    assert!(digests(&repository.get(&path).await).is_empty(), "there is no repository yet");
    let mut expected: Vec<Image> = Vec::new();
    for (number, artifact_type) in ["application/vnd.sig", "application/vnd.sbom", "application/vnd.sig"].iter().enumerate() {
        // The first comes before its subject.
        let referrer = about(&format!("referrer {number}"), artifact_type, &image);
        for blob in &referrer.blobs {
            repository.upload(blob).await;
        }
        let answer = repository.put(&referrer, referrer.digest()).await;
        assert_eq!((answer.status, answer.header("oci-subject")), (201, image.digest()));
        expected.push(referrer);
        repository.push(&image, "v1").await;
    }
    let index = Image::index(std::slice::from_ref(&image), &json!({ "subject": image.descriptor(), "annotations": { "seed": "index" } }));
    repository.push_untagged(&index).await;
    repository.push(&about("lonely", "application/vnd.sig", &absent), "tagged").await;
    expected.push(index);
    expected.sort_by(|a, b| a.digest().cmp(b.digest()));
    let answer = repository.get(&path).await;
    assert_eq!(digests(&answer), expected.iter().map(Image::digest).collect::<Vec<_>>());
    assert_eq!(answer.header("oci-filters-applied"), "");
    for (entry, image) in answer.json()["manifests"].as_array().unwrap().iter().zip(&expected) {
        let manifest: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
        assert_eq!(entry["annotations"], manifest["annotations"]);
        assert_eq!((&entry["size"], &entry["mediaType"]), (&json!(image.manifest.bytes.len()), &json!(image.media_type)));
        assert_eq!(entry["artifactType"], manifest["artifactType"], "an index without one has none");
    }
    let filtered = repository.get(&format!("{path}?artifactType=application/vnd.sig")).await;
    assert_eq!((digests(&filtered).len(), filtered.header("oci-filters-applied")), (2, "artifactType"));
    assert!(digests(&repository.get(&format!("{path}?artifactType=none")).await).is_empty());
    assert_eq!(digests(&repository.get(&format!("referrers/{}", absent.digest())).await).len(), 1);
    assert!(digests(&repository.get(&format!("referrers/sha256:{}", "0".repeat(64))).await).is_empty());
    refused(&repository.get("referrers/sha256:short").await, 400, "DIGEST_INVALID");
    // What is deleted is no referrer any more.
    for referrer in expected.iter().filter(|image| image.media_type != INDEX) {
        assert_eq!(repository.delete(&format!("manifests/{}", referrer.digest())).await.status, 202);
    }
    assert_eq!(digests(&repository.get(&path).await).len(), 1);
    server.finish().await;
}

#[tokio::test]
async fn an_image_manifest_without_artifact_type_is_of_its_configs_type() {
    let (server, repository) = repository().await;
    let image = Image::new("image");
    let config = Blob::new("{\"a\":1}");
    let referrer = Image::of(&config, "application/vnd.config", &[], &json!({ "subject": image.descriptor() }));
    repository.push_untagged(&referrer).await;
    let answer = repository.get(&format!("referrers/{}", image.digest())).await;
    assert_eq!(answer.json()["manifests"][0]["artifactType"], "application/vnd.config");
    server.finish().await;
}

#[tokio::test]
async fn what_clients_list_under_the_fallback_tag_is_listed_too() {
    let (server, repository) = repository().await;
    let image = Image::new("image");
    repository.push(&image, "v1").await;
    // As copied from a registry without the list: the referrers' manifests do not say their subject.
    let loose: Vec<Image> = (0..2).map(|number| Image::artifact(&format!("loose {number}"), "a/b", &json!({}))).collect();
    for referrer in &loose {
        repository.push_untagged(referrer).await;
    }
    let known = about("known", "a/b", &image);
    repository.push_untagged(&known).await;
    let fallback = Image::index(&[loose[0].clone(), loose[1].clone(), known.clone()], &json!({}));
    let mut value: Value = serde_json::from_slice(&fallback.manifest.bytes).unwrap();
    value["manifests"][0]["artifactType"] = json!("c/d");
    let fallback = Image { manifest: Blob::new(value.to_string()), ..fallback };
    repository.push(&fallback, &image.digest().replace(':', "-")).await;
    let mut expected = [loose[0].digest(), loose[1].digest(), known.digest()];
    expected.sort_unstable();
    let path = format!("referrers/{}", image.digest());
    assert_eq!(digests(&repository.get(&path).await), expected);
    assert_eq!(digests(&repository.get(&format!("{path}?artifactType=c/d")).await), [loose[0].digest()]);
    let mut pages = Vec::new();
    for last in ["", expected[0], expected[1], expected[2]] {
        pages.push(digests(&repository.get(&format!("{path}?last={last}")).await).len());
    }
    assert_eq!(pages, [3, 2, 1, 0]);
    server.finish().await;
}

#[tokio::test]
async fn repositories_are_listed_to_those_who_may_read_them() {
    let (server, alices) = repository().await;
    let bob = server.publisher("bob").await;
    let bobs = server.caller_with(&bob);
    let (mut names, image) = (Vec::new(), Image::new("one"));
    for index in 0..5 {
        let name = format!("alice/app{index}");
        Repository::new(&alices.caller, &name).push(&image, "v1").await;
        Repository::new(&bobs, &format!("bob/app{index}")).push(&image, "v1").await;
        names.push(name);
    }
    let list = async |query: &str| alices.caller.get(&format!("/v2/_catalog{query}")).send().await;
    assert_eq!(texts(&list("").await.json()["repositories"]), names, "those of others are not there");
    for size in [1, 2, 5] {
        let (mut path, mut seen) = (Some(format!("/v2/_catalog?n={size}")), Vec::new());
        while let Some(page) = path {
            let answer = alices.caller.get(&page).send().await.expect(200);
            seen.extend(texts(&answer.json()["repositories"]));
            path = next(&answer);
        }
        assert_eq!(seen, names, "pages of {size}");
    }
    // OC06
    assert_eq!(list("?n=1000000000000").await.status, 200);
    for wrong in ["?n=-1", "?n=x"] {
        refused(&list(wrong).await, 400, "PAGINATION_NUMBER_INVALID");
    }
    refused(&server.caller().get("/v2/_catalog").send().await, 401, "UNAUTHORIZED");
    let anonymous = server.caller().get("/v2/_catalog").header("authorization", "Bearer pks_anonymous").send().await.expect(200);
    assert_eq!(anonymous.json(), json!({ "repositories": [] }));
    server.finish().await;
}
