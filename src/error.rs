//! The one error type of the crate.
//!
//! An [`Error`] names a condition ([`Kind`]) and the thing it concerns
//! ([`Subject`]); it does not know any transport. Each ecosystem turns the pair
//! into its protocol's own words, so the same cause reads `BLOB_UNKNOWN` to a
//! container client and `{"error": …}` to npm. The message is written for the
//! client; the source is for the log and never leaves the server.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// What went wrong, seen from the caller's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request breaks a rule of the protocol or of names. Never retried.
    Invalid,
    /// No credentials, or credentials that do not hold.
    Unauthenticated,
    /// Known caller, missing right, on a thing the caller may know of.
    Forbidden,
    /// Absent, or hidden from this caller: the two are told apart nowhere.
    NotFound,
    /// The method is not offered at this place.
    MethodNotAllowed,
    /// The body is in a form that is not taken here.
    UnsupportedMedia,
    /// The state of the thing does not allow it: version exists, revision is stale.
    Conflict,
    /// The request is well formed but contradicts itself or its payload.
    Unprocessable,
    /// A size limit was passed.
    TooLarge,
    /// The account has no storage left.
    OverQuota,
    /// Too many requests, or too many at once.
    TooMany,
    /// The thing exists and is held back by policy.
    Withheld,
    /// An upstream failed or sent something that cannot be trusted.
    BadUpstream,
    /// This server cannot answer now: draining, disk full, store stopped.
    Unavailable,
    /// The client took longer than its time-out.
    TimedOut,
    /// A defect of this server.
    Internal,
}

/// What the condition concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each name is the field's own word")]
pub enum Subject {
    Route,
    Request,
    Owner,
    Repository,
    Team,
    Package,
    Version,
    File,
    Tag,
    Manifest,
    Blob,
    Upload,
    Digest,
    Token,
    Account,
    Webhook,
    Upstream,
    Store,
    Config,
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A condition, its subject, and what may be said about it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    subject: Subject,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a message of its own; [`Error::message`] then gives a plain default.
    #[must_use]
    pub fn new(kind: Kind, subject: Subject) -> Self {
        Self(Box::new(Inner { kind, subject, message: Cow::Borrowed(""), retry_after: None, source: None }))
    }

    /// The request breaks a rule; `message` says which and what was expected.
    #[must_use]
    pub fn invalid(subject: Subject, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Invalid, subject).saying(message)
    }

    /// The thing is absent, or hidden from this caller.
    #[must_use]
    pub fn not_found(subject: Subject) -> Self {
        Self::new(Kind::NotFound, subject)
    }

    /// The state of the thing does not allow the change.
    #[must_use]
    pub fn conflict(subject: Subject, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Conflict, subject).saying(message)
    }

    /// A known caller lacks a right on something the caller may know of.
    #[must_use]
    pub fn forbidden(subject: Subject, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Forbidden, subject).saying(message)
    }

    /// A defect of this server. `message` goes to the log only: see [`Error::message`].
    #[must_use]
    pub fn internal(subject: Subject, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Kind::Internal, subject).because(source)
    }

    /// Sets the message for the client. It must hold no secret and no name the caller may not know.
    #[must_use]
    pub fn saying(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Sets the cause, for the log.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Sets when the caller may try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The same error once more, for another caller that waited for the same work.
    /// The causes are kept as text.
    #[must_use]
    pub fn repeat(&self) -> Self {
        let mut causes = String::new();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            if !causes.is_empty() {
                causes.push_str(": ");
            }
            causes.push_str(&cause.to_string());
            source = cause.source();
        }
        let Inner { kind, subject, message, retry_after, .. } = &*self.0;
        let copy = Inner { kind: *kind, subject: *subject, message: message.clone(), retry_after: *retry_after, source: None };
        let copy = Self(Box::new(copy));
        if causes.is_empty() { copy } else { copy.because(causes) }
    }

    /// The condition.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What the condition concerns.
    #[must_use]
    pub fn subject(&self) -> Subject {
        self.0.subject
    }

    /// When the caller may try again, if that is known.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The text for the client: what was set, or a plain phrase for the kind.
    #[must_use]
    pub fn message(&self) -> &str {
        if !self.0.message.is_empty() {
            return &self.0.message;
        }
        match self.0.kind {
            Kind::Invalid => "invalid request",
            Kind::Unauthenticated => "authentication required",
            Kind::Forbidden => "permission denied",
            Kind::NotFound => "not found",
            Kind::MethodNotAllowed => "method not allowed",
            Kind::UnsupportedMedia => "unsupported media type",
            Kind::Conflict => "conflict",
            Kind::Unprocessable => "unprocessable request",
            Kind::TooLarge => "too large",
            Kind::OverQuota => "storage quota exceeded",
            Kind::TooMany => "too many requests",
            Kind::Withheld => "withheld by policy",
            Kind::BadUpstream => "upstream failed",
            Kind::Unavailable => "temporarily unavailable",
            Kind::TimedOut => "request timed out",
            Kind::Internal => "internal error",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}: {}", self.0.kind, self.0.subject, self.message())?;
        let mut source = self.0.source.as_deref().map(|source| source as &dyn std::error::Error);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
