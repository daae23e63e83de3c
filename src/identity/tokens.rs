//! Making, listing and revoking tokens.

use super::accounts::expect_user;
use super::journal::Told;
use super::record::Token;
use super::tables::{self, ACCOUNTS, TOKEN_USES, TOKENS, TOKENS_OF};
use super::token::{Scopes, TokenHash, TokenText};
use super::{Identity, TRIES, contended};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result, Subject};
use crate::event::{AccountDeed, Particulars};
use crate::package::{AccountId, TokenId};
use crate::store::Batch;
use crate::store::table::{Key, Stored};

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What the user calls it, at most 200 bytes.
    pub note: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// The instant from which it is refused; `None` for never.
    pub expires_at: Option<Timestamp>,
}

const NOTE_LONGEST: usize = 200;

impl Identity {
    /// Makes a token. Its text is returned this once and kept nowhere.
    ///
    /// # Errors
    /// `NotFound` when there is no such user, `Invalid` for an organisation, a long note or an expiry in the past,
    /// `Conflict` when the user has too many live tokens.
    pub async fn mint_token(&self, user: AccountId, new: NewToken) -> Result<(Token, TokenText)> {
        self.mint(user, None, new).await
    }

    /// Makes a token on the strength of another of the same user: with no scope that
    /// one lacks, and no later end. Where the other is revoked at the same moment, there is no token.
    ///
    /// # Errors
    /// As [`Identity::mint_token`]; `Forbidden` for a scope the other lacks, `Invalid` for a later end,
    /// `Unauthenticated` when the other does not hold any more.
    pub async fn mint_token_by(&self, user: AccountId, by: TokenId, new: NewToken) -> Result<(Token, TokenText)> {
        self.mint(user, Some(by), new).await
    }

    async fn mint(&self, user: AccountId, by: Option<TokenId>, new: NewToken) -> Result<(Token, TokenText)> {
        if new.note.len() > NOTE_LONGEST || new.note.chars().any(char::is_control) {
            return Err(Error::invalid(Subject::Token, "a token's note has at most 200 bytes and no control characters"));
        }
        if new.expires_at.is_some_and(|end| end <= self.clock.now()) {
            return Err(Error::invalid(Subject::Token, "a token expires in the future"));
        }
        for _ in 0..TRIES {
            let account = self.live(user).await?;
            expect_user(&account.value)?;
            let mut batch = Batch::new();
            ACCOUNTS.unchanged(&mut batch, tables::account(user), &account);
            if let Some(by) = by {
                self.expect_minter(&mut batch, user, by, &new).await?;
            }
            self.make_room(&mut batch, user).await?;
            let minted = self.draft_token(&mut batch, user, new.clone()).await?;
            let told = Told { owner: &account.value, deed: AccountDeed::TokenMinted, about: about(&minted.0) };
            if self.commit_told(batch, [told]).await? {
                return Ok(minted);
            }
        }
        Err(contended(Subject::Token))
    }

    /// A user's tokens, revoked and expired ones too, in the order they were made.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_tokens(&self, user: AccountId) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        for (_, stored) in self.stored_tokens(user).await? {
            let used = TOKEN_USES.get(&*self.store, tables::token_use(stored.value.id)).await?;
            tokens.push(Token { last_used_at: used.map(|used| used.value), ..stored.value });
        }
        Ok(tokens)
    }

    /// Revokes a user's token. It is refused by this process from the moment this returns.
    ///
    /// # Errors
    /// `NotFound` when the user has no such token.
    pub async fn revoke_token(&self, user: AccountId, id: TokenId) -> Result<()> {
        let absent = || Error::not_found(Subject::Token);
        let hash = TOKENS_OF.get(&*self.store, tables::token_of(user, id)).await?.ok_or_else(absent)?;
        let hash = hash_from(&hash.value)?;
        for _ in 0..TRIES {
            let stored = TOKENS.get(&*self.store, tables::token(hash)).await?.ok_or_else(absent)?;
            if stored.value.revoked {
                return Ok(());
            }
            let owner = self.account(user).await?;
            let told = Told { owner: &owner, deed: AccountDeed::TokenRevoked, about: about(&stored.value) };
            let mut batch = Batch::new();
            TOKENS.unchanged(&mut batch, tables::token(hash), &stored);
            TOKENS.put(&mut batch, tables::token(hash), &Token { revoked: true, ..stored.value })?;
            if self.commit_told(batch, [told]).await? {
                return Ok(());
            }
        }
        Err(contended(Subject::Token))
    }

    /// That a token may make another, now and when the batch is applied.
    async fn expect_minter(&self, batch: &mut Batch, user: AccountId, by: TokenId, new: &NewToken) -> Result<()> {
        let gone = || Error::new(Kind::Unauthenticated, Subject::Token);
        let hash = TOKENS_OF.get(&*self.store, tables::token_of(user, by)).await?.ok_or_else(gone)?;
        let hash = hash_from(&hash.value)?;
        let stored = TOKENS.get(&*self.store, tables::token(hash)).await?.ok_or_else(gone)?;
        let minter = &stored.value;
        if !minter.holds(self.clock.now()) {
            return Err(gone());
        }
        if let Some(scope) = new.scopes.iter().find(|scope| !minter.scopes.allow(*scope)) {
            return Err(Error::forbidden(Subject::Token, format!("the token lacks the scope {}", scope.name())));
        }
        if minter.expires_at.is_some_and(|end| new.expires_at.is_none_or(|new| new > end)) {
            return Err(Error::invalid(Subject::Token, "a token cannot outlive the one that makes it"));
        }
        TOKENS.unchanged(batch, tables::token(hash), &stored);
        Ok(())
    }

    /// Adds a new token's rows to a batch.
    pub(super) async fn draft_token(&self, batch: &mut Batch, user: AccountId, new: NewToken) -> Result<(Token, TokenText)> {
        let text = TokenText::mint()?;
        let token = Token {
            id: TokenId(self.next_id().await?),
            user,
            note: new.note,
            scopes: new.scopes,
            created_at: self.clock.now(),
            expires_at: new.expires_at,
            last_used_at: None,
            revoked: false,
        };
        TOKENS.absent(batch, tables::token(text.hash()));
        TOKENS.put(batch, tables::token(text.hash()), &token)?;
        TOKENS_OF.put(batch, tables::token_of(user, token.id), &hex::encode(text.hash().0))?;
        Ok((token, text))
    }

    /// When a user is at the limit, forgets the tokens that are refused anyway.
    async fn make_room(&self, batch: &mut Batch, user: AccountId) -> Result<()> {
        let tokens = self.stored_tokens(user).await?;
        if tokens.len() < self.config.tokens_per_user {
            return Ok(());
        }
        let now = self.clock.now();
        let mut forgotten = 0;
        for (hash, stored) in tokens.iter().filter(|(_, stored)| !stored.value.holds(now)) {
            TOKENS.unchanged(batch, tables::token(*hash), stored);
            TOKENS.delete(batch, tables::token(*hash));
            TOKENS_OF.delete(batch, tables::token_of(user, stored.value.id));
            TOKEN_USES.delete(batch, tables::token_use(stored.value.id));
            forgotten += 1;
        }
        if forgotten == 0 {
            return Err(Error::new(Kind::Conflict, Subject::Token)
                .saying(format!("a user has at most {} live tokens", self.config.tokens_per_user)));
        }
        Ok(())
    }

    async fn stored_tokens(&self, user: AccountId) -> Result<Vec<(TokenHash, Stored<Token>)>> {
        let rows = TOKENS_OF.scan(&*self.store, Key::new().number(user.0), None, self.config.tokens_per_user).await?;
        let mut tokens = Vec::with_capacity(rows.len());
        for (_, hash) in rows {
            let hash = hash_from(&hash.value)?;
            if let Some(stored) = TOKENS.get(&*self.store, tables::token(hash)).await? {
                tokens.push((hash, stored));
            }
        }
        Ok(tokens)
    }
}

fn about(token: &Token) -> Particulars {
    Particulars { token: Some(token.id), scopes: Some(token.scopes.to_string()), ..Particulars::default() }
}

pub(super) fn hash_from(hex: &str) -> Result<TokenHash> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(hex, &mut bytes).map_err(|error| Error::internal(Subject::Token, error))?;
    Ok(TokenHash(bytes))
}
