//! What every route of an ecosystem asks of its caller, in words of its own.
//!
//! An ecosystem says it in a file beside its routes, apart from the code that asks for
//! the rights. The server's tests send each row as every kind of caller and compare the
//! answers with the model of rights; a route without a row fails there.

use crate::http::Method;

/// What an ecosystem says.
pub struct Table {
    /// The names of its routes; each has a row.
    pub routes: Vec<&'static str>,
    /// The name of the route that a request takes.
    pub route: fn(&Request) -> &'static str,
    /// A package's whole name.
    pub name: fn(&str) -> String,
    /// What publishes a package of the organisation `acme`.
    pub publish: fn(&Known<'_>) -> Vec<Request>,
    /// What publishes one that has its rights from the repository `acme/web`, where there is such a thing.
    pub publish_in_repository: Option<fn(&Known<'_>) -> Vec<Request>>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// What requests are made from.
pub struct Known<'a> {
    /// The package's name as it was written by its people, without what makes it whole.
    pub name: &'a str,
    /// How often the package was changed.
    pub generation: u64,
    /// A token of the user `own`.
    pub token: &'a str,
}

/// A request, below the mount.
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path with its query.
    pub target: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub fn get(target: impl Into<String>) -> Self {
        Self { method: Method::GET, target: target.into(), body: Vec::new() }
    }

    /// A request with a body.
    pub fn put(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { method: Method::PUT, target: target.into(), body: body.into() }
    }

    /// A request with a body.
    pub fn post(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { method: Method::POST, target: target.into(), body: body.into() }
    }

    /// A request with a body, most of which are empty.
    pub fn delete(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { method: Method::DELETE, target: target.into(), body: body.into() }
    }
}

/// One request, and what is expected of it.
pub struct Row {
    /// What it asks of its caller.
    pub needs: Needs,
    /// Who would own the package if there were none of its name and the request made one.
    pub makes: Option<Maker>,
    /// Members of the answer that are new each time it is given.
    pub new: &'static [&'static str],
    /// The status if all is well.
    pub status: u16,
    /// The request, of a package.
    pub request: Box<dyn Fn(&Known<'_>) -> Request>,
}

impl Row {
    /// A row that makes nothing.
    pub fn new(needs: Needs, status: u16, request: impl Fn(&Known<'_>) -> Request + 'static) -> Self {
        Self { needs, makes: None, new: &[], status, request: Box::new(request) }
    }

    /// The request makes a package where there is none.
    #[must_use]
    pub fn making(mut self, maker: Maker) -> Self {
        self.makes = Some(maker);
        self
    }

    /// The answer is JSON, and has members that are new each time.
    #[must_use]
    pub fn with_new(mut self, members: &'static [&'static str]) -> Self {
        self.new = members;
        self
    }
}

/// What a row asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Nothing; the package's name is in the answer for those who may read it.
    Listed,
    /// To be signed in.
    Token,
    /// To be signed in; the package's name is in the answer for those who may read it.
    TokenListed,
    /// To be signed in, and the right to read the package.
    TokenToRead,
    /// These rights on the package, the first that is missing being answered.
    Rights(&'static [&'static str]),
}

/// Where a package is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// In `acme`.
    Organisation,
    /// In the repository `acme/web`.
    Repository,
    /// Under whoever asks.
    Asker,
}

/// Names the variants of an ecosystem's routes. One that is left out does not compile.
macro_rules! routes {
    ($($route:ident),* $(,)?) => {
        const ROUTES: &[&str] = &[$(stringify!($route)),*];

        fn name_of(route: &Route) -> &'static str {
            match route {
                $(Route::$route { .. } => stringify!($route),)*
            }
        }
    };
}

pub(crate) use routes;
