//! Items: what is published, and what makes it refusable.

use std::fmt::Display;

use cryptomind_protocol::item::{ItemKind, Manifest};
use cryptomind_protocol::task::MAX_NAME_CHARS;
use cryptomind_protocol::{AccountId, ErrorBody, ItemId, Timestamp};
use serde::{Deserialize, Serialize};

/// An item, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// Its id.
    pub item: ItemId,
    /// Whose it is.
    pub owner: AccountId,
    /// What was published.
    pub manifest: Manifest,
    /// When.
    pub published: Timestamp,
    /// How many tasks used it.
    pub uses: u64,
}

pub(super) fn check(manifest: &Manifest) -> Result<(), ErrorBody> {
    let refused = |message: String| Err(ErrorBody::user("bad_manifest", message));
    if let Err(error) = manifest.check() {
        return refused(error.to_string());
    }
    if let ItemKind::Dataset(info) = &manifest.kind {
        let most = info.train_samples.max(info.test_samples);
        if most > u32::MAX.into() {
            let limit = u32::MAX;
            return refused(format!(
                "kind.dataset: {most} samples in a split: at most {limit} are possible"
            ));
        }
    }
    Ok(())
}

pub(super) fn check_kind(kind: Option<&str>) -> Result<(), ErrorBody> {
    match kind {
        None | Some("dataset" | "model") => Ok(()),
        Some(other) => {
            let message = format!("`{}` is no kind of item", shortened(other));
            Err(ErrorBody::user("unknown_kind", message).with_help("ask for `dataset` or `model`"))
        }
    }
}

/// `name-number`, cut so that it still is a name.
pub(super) fn numbered(name: &str, number: u64) -> String {
    let suffix = format!("-{number}");
    let kept = MAX_NAME_CHARS - suffix.len();
    let stem: String = name.chars().take(kept).collect();
    format!("{stem}{suffix}")
}

/// What a user wrote, short enough for a message.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

pub(super) fn exists(nickname: &str, name: &str, existing: &ItemId) -> ErrorBody {
    let message = format!("{nickname}/{name} exists already: it is {existing}");
    ErrorBody::user("item_exists", message).with_help("publish it under another name")
}

pub(super) fn not_found(what: impl Display) -> ErrorBody {
    let message = format!("the catalog has no item {what}");
    ErrorBody::not_found("item", message)
        .with_help("list what there is: `cryptomind dataset ls`, `cryptomind model ls`")
}

pub(super) fn not_named() -> ErrorBody {
    let message = "neither an id nor a path was given";
    ErrorBody::user("item_not_named", message).with_help("give an id or `nickname/name`")
}

pub(super) fn not_allowed(path: &str) -> ErrorBody {
    let message = format!("{path} may be used by its owner alone");
    ErrorBody::auth("item_not_allowed", message).with_help("ask its owner to publish it for others")
}
