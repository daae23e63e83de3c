//! Who acts: known for the length of a request, wherever in its work a change is made.
//!
//! Changes of accounts and packages are made many calls below the place that knows
//! who asked and from where. What the log says of that is no argument of theirs: it
//! must not change what they do, and must not be forgotten by any of them. So it goes
//! with the task that works for the request, like its trace.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::package::{AccountId, TokenId};

/// Who did it, and from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The user; none for the server itself and its operator on the local socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<AccountId>,
    /// The token that was used. Its id, which is safe to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// The client's address, as far as the proxies in front of this server are to be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
}

tokio::task_local! {
    static CURRENT: Actor;
}

impl Actor {
    /// Who the work of this task is done for; this server itself where nobody has said.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.try_with(|actor| *actor).unwrap_or_default()
    }

    /// Does work for this actor.
    pub async fn acting<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }
}
