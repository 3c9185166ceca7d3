//! Nicknames: how people call accounts.

use cryptomind_protocol::task::{MAX_NAME_CHARS, is_name};
use cryptomind_protocol::{AccountId, ErrorBody, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ledger::system_names;

/// Names that nobody may take, besides the system accounts' own: they would be mistaken for the network.
const RESERVED: [&str; 2] = ["cryptomind", "admin"];

/// A registered nickname, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nickname {
    /// Whose.
    pub account: AccountId,
    /// It.
    pub nickname: String,
    /// Since when.
    pub registered: Timestamp,
}

pub(super) fn check(nickname: &str) -> Result<(), ErrorBody> {
    if !is_name(nickname) {
        let message = format!("`{}` is not a nickname", super::item::shortened(nickname));
        let help = format!("use 1 to {MAX_NAME_CHARS} lower-case letters, digits, dots and dashes");
        return Err(ErrorBody::user("bad_nickname", message).with_help(help));
    }
    if RESERVED
        .into_iter()
        .chain(system_names())
        .any(|name| name == nickname)
    {
        let message = format!("the nickname `{nickname}` is reserved for the network");
        return Err(ErrorBody::user("nickname_reserved", message).with_help("choose another one"));
    }
    Ok(())
}

/// The system account with this name.
pub(super) fn system(name: &str) -> Option<AccountId> {
    let known = system_names().any(|system| system == name);
    known.then(|| AccountId::of_system(name))
}

/// The name of a system account.
pub(super) fn of_system(account: &AccountId) -> Option<&'static str> {
    system_names().find(|name| AccountId::of_system(name) == *account)
}

pub(super) fn taken(nickname: &str) -> ErrorBody {
    let message = format!("the nickname `{nickname}` belongs to another account");
    ErrorBody::user("nickname_taken", message).with_help("choose another one")
}

pub(super) fn already_registered(nickname: &str) -> ErrorBody {
    let message = format!("this account is registered as `{nickname}`");
    ErrorBody::user("already_registered", message).with_help("an account keeps its nickname")
}

pub(super) fn not_registered() -> ErrorBody {
    let message = "an account publishes under its nickname, and this one has none";
    ErrorBody::user("not_registered", message).with_help("register a nickname first")
}

pub(super) fn not_found(nickname: &str) -> ErrorBody {
    let message = format!("nobody is called `{}`", super::item::shortened(nickname));
    ErrorBody::not_found("account", message)
        .with_help("check the spelling, or give the account's id")
}
