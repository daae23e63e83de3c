//! Scopes of the token protocol: which repositories a token is for, and for what.
//!
//! `repository:acme/app:pull,push registry:catalog:*`. Clients ask for them in repeated
//! parameters, in lists with spaces, or not at all. Source: «Token Scope Documentation»
//! of the distribution project.

use std::fmt::Write as _;

use crate::name::PackageName;

/// Most repositories that one request may ask about; further ones are not granted.
pub const SCOPES_LIMIT: usize = 32;

/// What may be done with a repository, or with the list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Pull,
    /// Publish.
    Push,
    /// Delete.
    Delete,
}

impl Access {
    const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    /// The protocol's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

/// What one scope asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Access to a repository.
    Repository(PackageName, Vec<Access>),
    /// The list of repositories.
    Catalog,
}

/// Reads scopes as they come; what is none that is known here is left out.
pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Scope> {
    let mut scopes: Vec<Scope> = Vec::new();
    for text in texts.into_iter().flat_map(|text| text.split(' ')).filter(|text| !text.is_empty()) {
        match parse_one(text) {
            // One that is asked for twice is one.
            Some(Scope::Repository(name, actions)) => {
                let known = scopes.iter_mut().find_map(|scope| match scope {
                    Scope::Repository(known, actions) if *known == name => Some(actions),
                    _ => None,
                });
                match known {
                    Some(known) => known.extend(actions.into_iter().filter(|action| !known.contains(action)).collect::<Vec<_>>()),
                    None => scopes.push(Scope::Repository(name, actions)),
                }
            }
            Some(Scope::Catalog) if !scopes.contains(&Scope::Catalog) => scopes.push(Scope::Catalog),
            _ => {}
        }
        if scopes.len() == SCOPES_LIMIT {
            break;
        }
    }
    scopes
}

/// `TYPE:NAME:ACTIONS`, where a name may hold the colon of a host's port.
fn parse_one(text: &str) -> Option<Scope> {
    let (kind, rest) = text.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    // Some registries have classes of repositories: `repository(plugin)`.
    let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
    match (kind, name) {
        ("registry", "catalog") => Some(Scope::Catalog),
        ("repository", name) => {
            let name = super::route::parse_name(name).ok()?;
            let wanted = |access: &Access| actions.split(',').any(|action| action == access.word() || action == "*");
            Some(Scope::Repository(name, Access::ALL.into_iter().filter(wanted).collect()))
        }
        _ => None,
    }
}

/// Scopes as text, one behind the other; those without any action are left out.
#[must_use]
pub fn write(scopes: &[Scope]) -> String {
    let mut text = String::new();
    for scope in scopes {
        let gap = if text.is_empty() { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = match scope {
            Scope::Repository(_, actions) if actions.is_empty() => Ok(()),
            Scope::Repository(name, actions) => {
                let words: Vec<&str> = actions.iter().map(|action| action.word()).collect();
                write!(text, "{gap}repository:{name}:{}", words.join(","))
            }
            Scope::Catalog => write!(text, "{gap}{CATALOG}"),
        };
    }
    text
}

/// The scope of the list of repositories.
pub const CATALOG: &str = "registry:catalog:*";

/// Whether scopes, as [`write()`] puts them, hold access to a repository. Allocates nothing.
#[must_use]
pub fn allows(scopes: &str, name: &PackageName, access: Access) -> bool {
    scopes.split(' ').any(|scope| {
        let rest = scope.strip_prefix("repository:").and_then(|rest| rest.strip_prefix(name.as_str()));
        rest.and_then(|rest| rest.strip_prefix(':')).is_some_and(|actions| actions.split(',').any(|action| action == access.word()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(texts: &[&str]) -> String {
        write(&parse(texts.iter().copied()))
    }

    #[test]
    fn reads_what_clients_ask_for() {
        assert_eq!(round(&["repository:acme/app:pull,push"]), "repository:acme/app:pull,push");
        assert_eq!(round(&["repository:acme/app:push,pull"]), "repository:acme/app:pull,push");
        assert_eq!(round(&["repository:a/b:pull repository:c/d:pull"]), "repository:a/b:pull repository:c/d:pull");
        assert_eq!(round(&["repository:a/b:pull", "repository:c/d:pull"]), "repository:a/b:pull repository:c/d:pull");
        assert_eq!(round(&["repository:a/b:pull", "repository:a/b:push,pull"]), "repository:a/b:pull,push");
        assert_eq!(round(&["repository:a/b:*"]), "repository:a/b:pull,push,delete");
        assert_eq!(round(&["repository(plugin):a/b:pull"]), "repository:a/b:pull");
        assert_eq!(round(&["registry:catalog:*"]), "registry:catalog:*");
        for odd in ["", " ", "profile", "repository:a/b", "repository:A/B:pull", "repository:a/b:", "x:y:z", "repository:host:80/a/b:pull"]
        {
            assert_eq!(round(&[odd]), "", "{odd}");
        }
    }

    #[test]
    fn many_scopes_are_bounded() {
        let texts: Vec<String> = (0..1000).map(|index| format!("repository:a/b{index}:pull")).collect();
        assert_eq!(parse(texts.iter().map(String::as_str)).len(), SCOPES_LIMIT);
    }

    #[test]
    fn access_is_to_one_name_exactly() {
        let scopes = "repository:acme/app:pull,push repository:acme/ap:delete registry:catalog:*";
        let name = |text: &str| PackageName::new(text).unwrap();
        assert!(allows(scopes, &name("acme/app"), Access::Pull) && allows(scopes, &name("acme/app"), Access::Push));
        assert!(!allows(scopes, &name("acme/app"), Access::Delete));
        assert!(allows(scopes, &name("acme/ap"), Access::Delete) && !allows(scopes, &name("acme/ap"), Access::Pull));
        for other in ["acme/appx", "acme", "catalog", "acme/app/sub"] {
            assert!(!allows(scopes, &name(other), Access::Pull), "{other}");
        }
        assert!(!allows("", &name("acme/app"), Access::Pull));
    }
}
