//! What is kept of a webhook and of each of its deliveries: plain data.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::error::{Error, Result, Subject};
use crate::event::Deed;
use crate::package::{AccountId, DeliveryId, HookId, PackageId, RepositoryId};

/// What a webhook listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The packages that are linked to a repository.
    Repository(RepositoryId),
    /// All packages of an organisation.
    Organisation(AccountId),
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its id.
    pub id: HookId,
    /// What it listens to.
    pub target: Target,
    /// Who last said where it sends to. It is told only what this user may know.
    pub author: AccountId,
    /// Whether anything is sent.
    pub active: bool,
    /// Names of the events that it wants, or `*` for all, as they were given.
    pub events: Vec<String>,
    /// Where to, and how.
    pub settings: Settings,
    /// The origin by which its author reached this server: what addresses begin with where the operator has not said.
    pub origin: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// The event that stands for all.
pub const EVERYTHING: &str = "*";

impl Hook {
    /// Whether it is to be sent an event of a name.
    #[must_use]
    pub fn wants(&self, event: &str) -> bool {
        self.active && self.events.iter().any(|wanted| wanted == event || wanted == EVERYTHING)
    }
}

/// Where a webhook sends to, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The address that is posted to.
    pub url: String,
    /// The form of the body.
    #[serde(default)]
    pub content_type: ContentType,
    /// The key that bodies are signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Whether the receiver's certificate is taken unseen.
    #[serde(default)]
    pub insecure_ssl: bool,
    /// What of packages is told.
    #[serde(default = "PackageAction::usual")]
    pub actions: BTreeSet<PackageAction>,
    /// Whether parts of a larger publish are left out.
    #[serde(default)]
    pub whole_publishes: bool,
}

impl Settings {
    /// To an address, with nothing else said: a form, unsigned, of what GitHub tells of.
    #[must_use]
    pub fn to(url: String) -> Self {
        Self {
            url,
            content_type: ContentType::default(),
            secret: None,
            insecure_ssl: false,
            actions: PackageAction::usual(),
            whole_publishes: false,
        }
    }
}

/// The form of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentType {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`, the JSON in its field `payload`.
    #[default]
    Form,
}

/// A key to sign with. It must be kept as it is, so it is stored; it is shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A key.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The key itself, to sign with.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What happened to a package, as webhooks tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageAction {
    /// A version was published.
    Published,
    /// A version's metadata, its files or its tags changed.
    Updated,
    /// A version or the package was deleted. GitHub does not tell of it, nor of what follows.
    Deleted,
    /// It was restored.
    Restored,
    /// Others may see the package than before.
    VisibilityChanged,
    /// Its link to a repository changed, or whether it takes its roles from there.
    Linked,
    /// It went to another owner; told to the new one.
    Moved,
}

impl PackageAction {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Published, Self::Updated, Self::Deleted, Self::Restored, Self::VisibilityChanged, Self::Linked, Self::Moved];

    /// What GitHub tells of.
    #[must_use]
    pub fn usual() -> BTreeSet<Self> {
        BTreeSet::from([Self::Published, Self::Updated])
    }

    /// How a deed is told, if it is told at all.
    #[must_use]
    pub const fn of(deed: Deed) -> Option<Self> {
        match deed {
            Deed::Published => Some(Self::Published),
            Deed::Extended | Deed::Deprecated | Deed::Unlisted | Deed::Relisted | Deed::Tagged => Some(Self::Updated),
            Deed::Deleted => Some(Self::Deleted),
            Deed::Restored => Some(Self::Restored),
            Deed::VisibilityChanged => Some(Self::VisibilityChanged),
            Deed::Linked => Some(Self::Linked),
            Deed::Moved => Some(Self::Moved),
            Deed::RolesChanged | Deed::RulesChanged | Deed::Starred => None,
        }
    }

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Restored => "restored",
            Self::VisibilityChanged => "visibility_changed",
            Self::Linked => "linked",
            Self::Moved => "moved",
        }
    }
}

/// One telling of one event to one webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its id. Later deliveries of one webhook have greater ids.
    pub id: DeliveryId,
    /// The webhook.
    pub hook: HookId,
    /// What tells the receiver that it has had this already: the same for every try and every redelivery.
    pub guid: String,
    /// The event's name.
    pub event: String,
    /// What happened, if the event says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The package that it tells of, if it tells of one: who may not know of the package may not see the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageId>,
    /// The repository that it tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryId>,
    /// Whether somebody asked for it and waits to see what becomes of it: it goes first and is tried once.
    #[serde(default)]
    pub by_hand: bool,
    /// Whether it repeats an earlier one.
    #[serde(default)]
    pub redelivery: bool,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// How often it was tried.
    #[serde(default)]
    pub tries: u32,
    /// Whether it is still to be tried.
    pub waiting: bool,
    /// The last try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Try>,
    /// Length of the payload in bytes.
    pub bytes: u64,
}

/// What became of one try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// The answer's status, if there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// What to call the outcome: `OK`, `timed out`.
    pub status: String,
}

impl Try {
    /// Whether the receiver took it.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.code.is_some_and(|code| (200..300).contains(&code))
    }
}

/// The JSON that a delivery sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(Box<RawValue>);

impl Payload {
    /// Takes a text that is JSON.
    ///
    /// # Errors
    /// When it is none, which is a defect of the caller.
    pub fn new(json: String) -> Result<Self> {
        RawValue::from_string(json).map(Self).map_err(|error| Error::internal(Subject::Webhook, error))
    }

    /// The text.
    #[must_use]
    pub fn json(&self) -> &str {
        self.0.get()
    }
}

/// What went over the wire at the last try, besides the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The address that was posted to.
    pub url: String,
    /// The request's headers.
    pub request: Vec<(String, String)>,
    /// The answer's headers.
    #[serde(default)]
    pub response: Vec<(String, String)>,
    /// The beginning of the answer's body.
    #[serde(default)]
    pub body: String,
}

/// A delivery about to be queued.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The webhook.
    pub hook: HookId,
    /// As [`Delivery::event`].
    pub event: &'static str,
    /// As [`Delivery::action`].
    pub action: Option<PackageAction>,
    /// As [`Delivery::package`].
    pub package: Option<PackageId>,
    /// As [`Delivery::repository`].
    pub repository: Option<RepositoryId>,
    /// The JSON to send.
    pub payload: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_wants_what_it_names() {
        let mut hook = Hook {
            id: HookId(1),
            target: Target::Repository(RepositoryId(2)),
            author: AccountId(3),
            active: true,
            events: vec!["push".to_owned(), "package".to_owned()],
            settings: Settings { secret: Some(Secret::new("key")), ..Settings::to("https://example.com/".to_owned()) },
            origin: String::new(),
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        };
        assert!(hook.wants("package") && !hook.wants("registry_package"));
        hook.events = vec![EVERYTHING.to_owned()];
        assert!(hook.wants("registry_package"));
        let text = serde_json::to_string(&hook).unwrap();
        assert_eq!(serde_json::from_str::<Hook>(&text).unwrap(), hook);
        assert!(!format!("{hook:?}").contains("key"), "{hook:?}");
        hook.active = false;
        assert!(!hook.wants("package"));
    }

    #[test]
    fn what_nobody_is_told_of_has_no_action() {
        for deed in [Deed::Starred, Deed::RolesChanged] {
            assert_eq!(PackageAction::of(deed), None);
        }
        assert_eq!(PackageAction::of(Deed::Tagged), Some(PackageAction::Updated));
        for action in PackageAction::ALL {
            assert_eq!(serde_json::to_string(&action).unwrap(), format!("{:?}", action.name()));
        }
    }
}
