//! The rows of the table: every endpoint, who may ask for it, with which scopes.

use std::borrow::Cow;

use futures_util::FutureExt as _;

use super::root;
use super::table::{Endpoint, Handler, Need};
use super::{package_access, packages, versions};
use crate::http::Method;
use crate::identity::Scope;

const NONE: &[Scope] = &[];
const READ: &[Scope] = &[Scope::ReadPackages];
const DELETE: &[Scope] = &[Scope::ReadPackages, Scope::DeletePackages];
const WRITE: &[Scope] = &[Scope::ReadPackages, Scope::WritePackages];

/// All rows.
pub(super) fn all() -> Vec<Endpoint> {
    let mut rows = vec![
        row(Method::GET, "/", Need::Anyone, NONE, |call| std::future::ready(Ok(root::index(&call))).boxed()),
        row(Method::GET, "/meta", Need::Anyone, NONE, |_| std::future::ready(Ok(root::meta())).boxed()),
        row(Method::GET, "/versions", Need::Anyone, NONE, |_| std::future::ready(Ok(root::versions())).boxed()),
        row(Method::GET, "/rate_limit", Need::Anyone, NONE, |_| std::future::ready(root::rate_limit()).boxed()),
    ];
    for prefix in ["/orgs/{org}", "/users/{username}", "/user"] {
        owned(&mut rows, prefix);
    }
    rows
}

fn row(method: Method, template: impl Into<Cow<'static, str>>, need: Need, scopes: &'static [Scope], handler: Handler) -> Endpoint {
    Endpoint { method, template: template.into(), need, scopes, handler }
}

/// The rows of an owner's packages, for one way of naming the owner.
fn owned(rows: &mut Vec<Endpoint>, prefix: &str) {
    const PACKAGE: &str = "/packages/{package_type}/{package_name+}";
    const VERSION: &str = "/packages/{package_type}/{package_name+}/versions/{version_id}";
    // Who asks for their own must say who they are; what is public can be read by everyone.
    let readers = if prefix == "/user" { Need::SignedIn } else { Need::Anyone };
    let mut add = |method: Method, below: &str, need: Need, scopes: &'static [Scope], handler: Handler| {
        rows.push(row(method, format!("{prefix}{below}"), need, scopes, handler));
    };
    let package = |below: &str| format!("{PACKAGE}{below}");
    let version = |below: &str| format!("{VERSION}{below}");
    let signed = Need::SignedIn;
    add(Method::GET, "/packages", readers, READ, |call| packages::list(call).boxed());
    add(Method::GET, "/docker/conflicts", readers, READ, |call| packages::conflicts(call).boxed());
    add(Method::GET, PACKAGE, readers, READ, |call| packages::show(call).boxed());
    add(Method::DELETE, PACKAGE, signed, DELETE, |call| packages::delete(call).boxed());
    add(Method::POST, &package("/restore"), signed, WRITE, |call| packages::restore(call).boxed());
    add(Method::GET, &package("/versions"), readers, READ, |call| versions::list(call).boxed());
    add(Method::GET, VERSION, readers, READ, |call| versions::show(call).boxed());
    add(Method::DELETE, VERSION, signed, DELETE, |call| versions::delete(call).boxed());
    add(Method::POST, &version("/restore"), signed, WRITE, |call| versions::restore(call).boxed());
    // What GitHub has no API for.
    add(Method::GET, &version("/files"), readers, READ, |call| versions::files(call).boxed());
    add(Method::PATCH, PACKAGE, signed, WRITE, |call| package_access::change(call).boxed());
    add(Method::PUT, &package("/repository"), signed, WRITE, |call| package_access::link(call).boxed());
    add(Method::DELETE, &package("/repository"), signed, WRITE, |call| package_access::unlink(call).boxed());
    add(Method::GET, &package("/access"), readers, READ, |call| package_access::show_mode(call).boxed());
    add(Method::PUT, &package("/access"), signed, WRITE, |call| package_access::set_mode(call).boxed());
    add(Method::GET, &package("/roles"), signed, WRITE, |call| package_access::roles(call).boxed());
    add(Method::PUT, &package("/roles/users/{login}"), signed, WRITE, |call| package_access::grant_user(call).boxed());
    add(Method::DELETE, &package("/roles/users/{login}"), signed, WRITE, |call| package_access::withdraw_user(call).boxed());
    add(Method::PUT, &package("/roles/teams/{team}"), signed, WRITE, |call| package_access::grant_team(call).boxed());
    add(Method::DELETE, &package("/roles/teams/{team}"), signed, WRITE, |call| package_access::withdraw_team(call).boxed());
    add(Method::GET, &package("/permissions"), signed, READ, |call| package_access::explain(call).boxed());
}
