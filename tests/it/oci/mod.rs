//! Containers: the distribution specification over the wire, group by group, and the real clients.

mod access;
mod clients;
mod discovery;
mod engines;
mod large;
mod management;
mod mirror;
mod pull;
mod push;
mod relay;
mod rest;
mod rules;
mod token;
mod upkeep;

use serde_json::Value;

use crate::harness::{Answer, Ask, Blob, Caller, Image, Server, Setup, Token};

/// A server that only hosts, and someone who may publish under `alice/`.
pub(crate) async fn hosting() -> (Server, Token) {
    let server = Setup::default().start().await;
    let token = server.publisher("alice").await;
    (server, token)
}

/// A repository as somebody sees it.
#[derive(Clone)]
pub(crate) struct Repository {
    pub(crate) caller: Caller,
    pub(crate) name: String,
}

/// A server, and Alice's repository `alice/app`.
pub(crate) async fn repository() -> (Server, Repository) {
    let (server, token) = hosting().await;
    let caller = server.caller_with(&token);
    (server, Repository::new(&caller, "alice/app"))
}

impl Repository {
    pub(crate) fn new(caller: &Caller, name: &str) -> Self {
        Self { caller: caller.clone(), name: name.into() }
    }

    /// A request for a path below the repository.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask {
        self.caller.ask(method, &format!("/v2/{}/{path}", self.name))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).send().await
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.ask("HEAD", path).send().await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path).send().await
    }

    /// Opens an upload; gives where it is.
    pub(crate) async fn open(&self) -> String {
        let answer = self.ask("POST", "blobs/uploads/").send().await;
        assert_eq!((answer.status, answer.header("range")), (202, "0-0"), "{}", answer.text());
        assert!(!answer.header("docker-upload-uuid").is_empty());
        answer.header("location").to_owned()
    }

    /// Uploads content with `POST` and `PUT`.
    pub(crate) async fn upload(&self, blob: &Blob) {
        let place = self.open().await;
        let answer = self.finish(&place, blob).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// Ends an upload with a `PUT` of all of the content.
    pub(crate) async fn finish(&self, place: &str, blob: &Blob) -> Answer {
        self.caller.ask("PUT", &format!("{place}?digest={}", blob.digest)).body(blob.bytes.clone()).send().await
    }

    /// Sends a manifest.
    pub(crate) async fn put(&self, image: &Image, reference: &str) -> Answer {
        let request = self.ask("PUT", &format!("manifests/{reference}")).header("content-type", image.media_type);
        request.body(image.manifest.bytes.clone()).send().await
    }

    /// Uploads all that an image names, and its manifest under a reference.
    pub(crate) async fn push(&self, image: &Image, reference: &str) {
        for blob in &image.blobs {
            if self.head(&format!("blobs/{}", blob.digest)).await.status == 404 {
                self.upload(blob).await;
            }
        }
        let answer = self.put(image, reference).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.header("docker-content-digest"), image.digest());
    }

    /// As [`Repository::push`], by its digest.
    pub(crate) async fn push_untagged(&self, image: &Image) {
        self.push(image, image.digest()).await;
    }

    /// The tags in one page.
    pub(crate) async fn tags(&self) -> Vec<String> {
        let answer = self.get("tags/list").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        texts(&answer.json()["tags"])
    }
}

/// A list of texts.
#[track_caller]
pub(crate) fn texts(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

/// The path in `Link: <path>; rel="next"`.
pub(crate) fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link");
    if link.is_empty() {
        return None;
    }
    let path = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\"")).expect("a link to the next page");
    assert!(!path.contains(';'), "some clients cut there: {path}");
    Some(path.to_owned())
}

/// Panics unless it is this refusal, in the specification's shape.
#[track_caller]
pub(crate) fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
    let body = answer.json();
    let errors = body["errors"].as_array().unwrap_or_else(|| panic!("no errors: {body}"));
    assert!(errors.len() == 1 && errors[0]["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    assert_eq!(errors[0]["code"], code, "{body}");
}
