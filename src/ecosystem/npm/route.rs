//! npm's request paths, as typed requests.
//!
//! One package name arrives in four spellings: `@scope%2fname`, `@scope%2Fname`,
//! `@scope/name` and `%40scope%2fname`. All are cut at raw slashes, decoded once,
//! and joined again here, so that every handler, the access check and every cache
//! see one name. Source: the npm registry API as npm, yarn, pnpm and bun call it.

use crate::error::{Error, Result, Subject};
use crate::http::{Method, path};
use crate::name::PackageName;

/// A request that npm's clients make.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the path's own parts")]
pub enum Route {
    /// `GET /<p>`: the packument.
    Packument { name: PackageName },
    /// `GET /<p>/<version or tag>`: one version's manifest.
    Manifest { name: PackageName, wanted: String },
    /// `GET /<p>/-/<file>`: a tarball.
    Tarball { name: PackageName, file: String },
    /// `GET /download/<p>/<version>/<hex>`: a tarball by the address GitHub Packages writes.
    Download { name: PackageName, version: String, hex: String },
    /// `PUT /<p>`: publish, or a change without attachments; `PUT /<p>/-rev/<rev>`: the same with a revision.
    Put { name: PackageName, revision: Option<String> },
    /// `PUT /<p>/<tag>`: the old way to set a dist-tag.
    PutTagOld { name: PackageName, tag: String },
    /// `DELETE /<p>/-rev/<rev>`: unpublish the package.
    Unpublish { name: PackageName, revision: String },
    /// `DELETE /<p>/-/<file>/-rev/<rev>`: the last step of unpublishing a version.
    UnpublishFile { name: PackageName, file: String },
    /// `GET /-/package/<p>/dist-tags`.
    Tags { name: PackageName },
    /// `PUT` or `POST /-/package/<p>/dist-tags/<tag>`.
    PutTag { name: PackageName, tag: String },
    /// `DELETE /-/package/<p>/dist-tags/<tag>`.
    DeleteTag { name: PackageName, tag: String },
    /// `GET /-/package/<p>/visibility`.
    Visibility { name: PackageName },
    /// `POST /-/package/<p>/access`.
    SetAccess { name: PackageName },
    /// `GET /-/package/<p>/collaborators`.
    Collaborators { name: PackageName },
    /// `GET /-/v1/search`.
    Search,
    /// `GET /-/ping`.
    Ping,
    /// `GET /-/whoami`.
    Whoami,
    /// `GET /-/npm/v1/user`.
    Profile,
    /// `GET /-/user/org.couchdb.user:<name>`.
    User { login: String },
    /// `PUT /-/user/org.couchdb.user:<name>`: legacy login.
    Login { login: String },
    /// `DELETE /-/user/token/<token>`: log out.
    Logout { token: String },
    /// `GET /-/npm/v1/keys`: signing keys.
    Keys,
    /// `GET /-/npm/v1/attestations/<p>@<version>`.
    Attestations { name: PackageName, version: String },
    /// `POST /-/npm/v1/security/advisories/bulk`.
    AuditBulk,
    /// `POST /-/npm/v1/security/audits` and `…/audits/quick`.
    Audit,
    /// `GET /-/_view/starredByUser`.
    Starred,
    /// `PUT` or `DELETE /-/user/v1/star`: pnpm's star.
    Star,
}

/// Reads the path below the mount.
///
/// # Errors
/// [`Kind::NotFound`](crate::error::Kind::NotFound) for what is no route,
/// [`Kind::Invalid`](crate::error::Kind::Invalid) for a path no route can mean,
/// [`Kind::MethodNotAllowed`](crate::error::Kind::MethodNotAllowed) for a route under another method.
pub fn parse(method: &Method, raw: &str) -> Result<Route> {
    let segments = path::segments(raw).map_err(|_| Error::invalid(Subject::Route, "the path is malformed"))?;
    let parts: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    // npm asks with a doubled slash when its registry setting ends in one.
    let parts = match parts.as_slice() {
        ["", rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    match parts {
        ["-", rest @ ..] => service(method, rest),
        ["download", rest @ ..] if rest.len() >= 3 => download(method, rest),
        all => package(method, all),
    }
}

fn service(method: &Method, parts: &[&str]) -> Result<Route> {
    let get = method == Method::GET || method == Method::HEAD;
    let found = match parts {
        ["ping"] if get => Route::Ping,
        ["whoami"] if get => Route::Whoami,
        ["v1", "search"] if get => Route::Search,
        ["npm", "v1", "user"] if get => Route::Profile,
        ["npm", "v1", "keys"] if get => Route::Keys,
        ["npm", "v1", "attestations", rest @ ..] if get => attestations(rest)?,
        ["npm", "v1", "security", "advisories", "bulk"] if method == Method::POST => Route::AuditBulk,
        ["npm", "v1", "security", "audits"] | ["npm", "v1", "security", "audits", "quick"] if method == Method::POST => Route::Audit,
        ["user", "v1", "star"] if method == Method::PUT || method == Method::DELETE => Route::Star,
        ["user", "token", token] if method == Method::DELETE => Route::Logout { token: (*token).to_owned() },
        ["user", user, ..] if user.starts_with(COUCH_USER) => couch_user(method, parts)?,
        ["_view", "starredByUser"] if get => Route::Starred,
        ["package", rest @ ..] => package_service(method, rest)?,
        _ => return Err(Error::not_found(Subject::Route)),
    };
    Ok(found)
}

const COUCH_USER: &str = "org.couchdb.user:";

fn couch_user(method: &Method, parts: &[&str]) -> Result<Route> {
    let login = parts.get(1).and_then(|user| user.strip_prefix(COUCH_USER)).unwrap_or_default().to_owned();
    match (method, parts.len()) {
        (&Method::GET | &Method::HEAD, 2) => Ok(Route::User { login }),
        // With a revision it is the second try of a client that was told the user exists.
        (&Method::PUT, 2 | 4) => Ok(Route::Login { login }),
        _ => Err(not_allowed()),
    }
}

fn attestations(parts: &[&str]) -> Result<Route> {
    let joined = parts.join("/");
    let (name, version) = joined.rsplit_once('@').ok_or_else(|| Error::not_found(Subject::Route))?;
    Ok(Route::Attestations { name: lenient_name(name)?, version: version.to_owned() })
}

fn package_service(method: &Method, parts: &[&str]) -> Result<Route> {
    let (name, rest) = split_name(parts)?;
    let get = method == Method::GET || method == Method::HEAD;
    match rest {
        ["dist-tags"] if get => Ok(Route::Tags { name }),
        ["dist-tags", tag] if method == Method::PUT || method == Method::POST => Ok(Route::PutTag { name, tag: (*tag).to_owned() }),
        ["dist-tags", tag] if method == Method::DELETE => Ok(Route::DeleteTag { name, tag: (*tag).to_owned() }),
        ["visibility"] if get => Ok(Route::Visibility { name }),
        ["access"] if method == Method::POST => Ok(Route::SetAccess { name }),
        ["collaborators"] if get => Ok(Route::Collaborators { name }),
        _ => Err(Error::not_found(Subject::Route)),
    }
}

fn download(method: &Method, parts: &[&str]) -> Result<Route> {
    let (name, rest) = split_name(parts)?;
    match rest {
        [version, hex] if is_read(method) && hex.len() >= 40 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(Route::Download { name, version: (*version).to_owned(), hex: hex.to_ascii_lowercase() })
        }
        [_, _] if !is_read(method) => Err(not_allowed()),
        _ => Err(Error::not_found(Subject::Route)),
    }
}

fn package(method: &Method, parts: &[&str]) -> Result<Route> {
    let (name, rest) = split_name(parts)?;
    match rest {
        [] if is_read(method) => Ok(Route::Packument { name }),
        [] if method == Method::PUT => Ok(Route::Put { name, revision: None }),
        ["-", file] if is_read(method) => Ok(Route::Tarball { name, file: (*file).to_owned() }),
        // berry's first try and old tools repeat the scope: /@scope/name/-/@scope/name-1.0.0.tgz
        ["-", scope, file] if is_read(method) && scope.starts_with('@') => Ok(Route::Tarball { name, file: (*file).to_owned() }),
        ["-rev", revision] if method == Method::PUT => Ok(Route::Put { name, revision: Some((*revision).to_owned()) }),
        ["-rev", revision] if method == Method::DELETE => Ok(Route::Unpublish { name, revision: (*revision).to_owned() }),
        ["-", file, "-rev", _] if method == Method::DELETE => Ok(Route::UnpublishFile { name, file: (*file).to_owned() }),
        ["-" | "-rev", ..] => Err(not_allowed()),
        [wanted] if is_read(method) => Ok(Route::Manifest { name, wanted: (*wanted).to_owned() }),
        [tag] if method == Method::PUT => Ok(Route::PutTagOld { name, tag: (*tag).to_owned() }),
        [] | [_] => Err(not_allowed()),
        _ => Err(Error::not_found(Subject::Route)),
    }
}

/// Takes the package name off the front, scoped or not, however its slash is written.
fn split_name<'a, 'p>(parts: &'p [&'a str]) -> Result<(PackageName, &'p [&'a str])> {
    match parts {
        [scope, name, rest @ ..] if scope.starts_with('@') && !scope.contains('/') => {
            Ok((lenient_name(&[scope, "/", name].concat())?, rest))
        }
        [name, rest @ ..] => Ok((lenient_name(name)?, rest)),
        [] => Err(Error::not_found(Subject::Route)),
    }
}

/// A name as upstream registries may hold it: old ones have upper case and `!~'()*`.
///
/// # Errors
/// When it cannot be a package name at all.
pub fn lenient_name(text: &str) -> Result<PackageName> {
    let wrong = || Error::not_found(Subject::Package);
    let (scope, bare) = match text.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').map(|(scope, bare)| (Some(scope), bare)).ok_or_else(wrong)?,
        None => (None, text),
    };
    let fits = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '@'])
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.!~'()*".contains(&byte))
    };
    // A leading dash would be a service route; npm never allowed one.
    if text.len() > 214 || bare.starts_with('-') || !fits(bare) || !scope.is_none_or(fits) {
        return Err(wrong());
    }
    PackageName::new(text).map_err(|_| wrong())
}

/// A name that may be published: the rules for new names.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) with the rule that is broken.
pub fn new_name(name: &PackageName) -> Result<()> {
    let refuse = |rule: &'static str| Err(Error::invalid(Subject::Package, rule));
    let bare = bare(name);
    if name.as_str().bytes().any(|byte| byte.is_ascii_uppercase()) {
        return refuse("a package name holds no capital letters");
    }
    if name.as_str().bytes().any(|byte| b"!~'()*".contains(&byte)) {
        return refuse("a package name holds none of the characters ~'!()*");
    }
    if bare.starts_with(['.', '_', '-']) {
        return refuse("a package name does not begin with '.', '_' or '-'");
    }
    if scope(name).is_none() && (["node_modules", "favicon.ico"].contains(&bare) || CORE_MODULES.contains(&bare)) {
        return refuse("this package name is reserved");
    }
    Ok(())
}

/// A pattern of names to reserve, in lower case as all names are that can be published.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) when no package name fits it: a scope without its slash, say.
pub fn pattern(text: &str) -> Result<String> {
    let pattern = text.to_ascii_lowercase();
    let fits = match pattern.strip_suffix('*') {
        // The rest of a name is a letter, or a letter of the scope and a name.
        Some(start) => ["a", "a/a"].iter().any(|rest| lenient_name(&format!("{start}{rest}")).is_ok()),
        None => lenient_name(&pattern).is_ok(),
    };
    if fits {
        return Ok(pattern);
    }
    Err(Error::invalid(Subject::Package, "no package name fits this pattern; examples: @acme/*, @acme/tool, acme-*"))
}

/// Modules that Node.js itself provides; a package of that name could never be required.
const CORE_MODULES: [&str; 38] = [
    "assert",
    "async_hooks",
    "buffer",
    "child_process",
    "cluster",
    "console",
    "constants",
    "crypto",
    "dgram",
    "diagnostics_channel",
    "dns",
    "domain",
    "events",
    "fs",
    "http",
    "http2",
    "https",
    "inspector",
    "module",
    "net",
    "os",
    "path",
    "perf_hooks",
    "process",
    "querystring",
    "readline",
    "repl",
    "stream",
    "string_decoder",
    "sys",
    "timers",
    "tls",
    "trace_events",
    "tty",
    "url",
    "v8",
    "vm",
    "zlib",
];

/// The scope of a name, without its `@`.
#[must_use]
pub fn scope(name: &PackageName) -> Option<&str> {
    name.as_str().strip_prefix('@')?.split_once('/').map(|(scope, _)| scope)
}

/// The name without its scope.
#[must_use]
pub fn bare(name: &PackageName) -> &str {
    name.as_str().rsplit_once('/').map_or(name.as_str(), |(_, bare)| bare)
}

/// The file name of a version's tarball in our download path.
#[must_use]
pub fn tarball_file(name: &PackageName, version: &str) -> String {
    format!("{}-{version}.tgz", bare(name))
}

/// The version in a tarball's file name, as [`tarball_file`] makes it.
#[must_use]
pub fn version_in_file<'a>(name: &PackageName, file: &'a str) -> Option<&'a str> {
    file.strip_prefix(bare(name))?.strip_prefix('-')?.strip_suffix(".tgz")
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

fn not_allowed() -> Error {
    Error::new(crate::error::Kind::MethodNotAllowed, Subject::Route)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> PackageName {
        PackageName::new(text).unwrap()
    }

    #[test]
    fn every_spelling_is_one_name() {
        for spelling in ["/@acme%2ftool", "/@acme%2Ftool", "/@acme/tool", "/%40acme%2ftool", "/%40acme/tool", "//@acme%2ftool"] {
            assert_eq!(parse(&Method::GET, spelling).unwrap(), Route::Packument { name: name("@acme/tool") }, "{spelling}");
        }
        assert!(parse(&Method::GET, "/@acme%252ftool").is_err(), "a second decoding never happens");
    }

    #[test]
    fn patterns_have_the_spelling_of_names() {
        for (given, expected) in [("@Acme/*", "@acme/*"), ("@acme/Tool", "@acme/tool"), ("Acme-*", "acme-*"), ("@acme*", "@acme*")] {
            assert_eq!(pattern(given).unwrap(), expected);
        }
        for wrong in ["@acme", "@/x", "a/b*", "@acme/tool/*", ".x", "-x*", "a b", "@acme/../*", "", "é*"] {
            assert!(pattern(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tarballs_with_and_without_the_scope_repeated() {
        let expected = Route::Tarball { name: name("@acme/tool"), file: "tool-1.0.0.tgz".into() };
        for spelling in ["/@acme/tool/-/tool-1.0.0.tgz", "/@acme%2ftool/-/tool-1.0.0.tgz", "/@acme/tool/-/@acme/tool-1.0.0.tgz"] {
            assert_eq!(parse(&Method::GET, spelling).unwrap(), expected, "{spelling}");
        }
        assert_eq!(parse(&Method::HEAD, "/a/-/a-1.0.0.tgz").unwrap(), Route::Tarball { name: name("a"), file: "a-1.0.0.tgz".into() });
    }

    #[test]
    fn reads_the_service_routes() {
        assert_eq!(parse(&Method::GET, "/-/ping").unwrap(), Route::Ping);
        assert_eq!(parse(&Method::PUT, "/-/user/org.couchdb.user:bob/-rev/1-x").unwrap(), Route::Login { login: "bob".into() });
        assert_eq!(
            parse(&Method::GET, "/-/npm/v1/attestations/@acme/tool@1.0.0").unwrap(),
            Route::Attestations { name: name("@acme/tool"), version: "1.0.0".into() }
        );
        assert_eq!(
            parse(&Method::DELETE, "/-/package/@acme%2ftool/dist-tags/beta").unwrap(),
            Route::DeleteTag { name: name("@acme/tool"), tag: "beta".into() }
        );
        let hex = "a".repeat(64);
        assert_eq!(
            parse(&Method::GET, &format!("/download/@acme/tool/1.0.0/{hex}")).unwrap(),
            Route::Download { name: name("@acme/tool"), version: "1.0.0".into(), hex }
        );
        assert_eq!(parse(&Method::GET, "/download").unwrap(), Route::Packument { name: name("download") });
        assert!(parse(&Method::GET, "/-/all").is_err());
    }

    #[test]
    fn refuses_traversal_and_nonsense() {
        for wrong in ["/..", "/a/%2e%2e", "/@a%2f..", "/@a/..%2fb", "/@%2fb", "/@a/", "/", "/.hidden", "/a b", "/a/-/x/y/z", "/@@a/b"] {
            assert!(parse(&Method::GET, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn new_names_follow_the_rules() {
        for good in ["tool", "@acme/tool", "a.b_c-d", "@acme/fs"] {
            assert!(new_name(&name(good)).is_ok(), "{good}");
        }
        for wrong in ["Tool", "fs", "node_modules", "_x", "@acme/_x", "a~b", "@acme/.x"] {
            assert!(new_name(&name(wrong)).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics_or_yields_a_dotted_name(path in "[a-z@%2fF./:-]{0,40}") {
            if let Ok(Route::Packument { name }) = parse(&Method::GET, &path) {
                prop_assert!(!name.as_str().split('/').any(|part| part == "." || part == ".."));
            }
        }
    }
}
