//! `key rotate`: another key for the same account.
//!
//! ```text
//! FILE old                      nothing was begun
//! FILE old, FILE.new new        the new key is on the disk; the coordinator may have it or not
//! FILE old, .new, .retired old  the coordinator has it; the old key is kept beside
//! FILE new, .retired old        done
//! ```
//!
//! **Invariant**: at every moment the key that signs for the account is in a file that was synced. Whoever is interrupted
//! calls the command again: it asks the coordinator which of the two keys signs, and goes on from there.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_config::key::{self, KeyFile, KeyFileError};
use cryptomind_protocol::{ErrorBody, ErrorClass, ReceiptId};
use cryptomind_sdk::Client;
use serde_json::json;

use crate::context::Context;

const RETIRED: &str = "retired";
/// More retired keys than an account may have.
const MOST_RETIRED: usize = 1000;

/// Rotates the client's key.
pub async fn run(context: &Context) -> Result<()> {
    let file = context.key_file();
    let new_file = beside(&file, "new");
    let old = key::read_file(&file).map_err(ErrorBody::from)?;
    let begun = match key::read_file(&new_file) {
        Ok(new) => Some(new),
        Err(KeyFileError::Missing { .. }) => None,
        Err(error) => return Err(unusable(&new_file, error).into()),
    };
    let (new, receipt) = match begun {
        Some(new) if signs(context, &new).await? => (new, None),
        Some(new) => {
            let receipt = submit(context, context.client().await?, &new).await?;
            (new, Some(receipt))
        }
        None => {
            let client = context.client().await?;
            let new = KeyFile {
                key: cryptomind_sdk::new_key()?,
                account: client.account_id(),
            };
            key::create_file(&new_file, &new).map_err(ErrorBody::from)?;
            let receipt = submit(context, client, &new).await?;
            (new, Some(receipt))
        }
    };
    let retired = keep(&file, &old)?;
    key::replace(&file, &new_file).map_err(ErrorBody::from)?;
    tell(context, &file, &retired, &new, receipt)
}

/// A file that was cut short was never sent: keys are synced before.
fn unusable(file: &Path, error: KeyFileError) -> ErrorBody {
    let damaged = matches!(error, KeyFileError::Damaged { .. });
    let error = ErrorBody::from(error);
    match damaged {
        true => error.with_help(format!(
            "it was never used: remove {} and rotate again",
            file.display()
        )),
        false => error,
    }
}

/// Whether the account's transactions are signed by `new` already: an earlier rotation was interrupted after that.
async fn signs(context: &Context, new: &KeyFile) -> Result<bool, ErrorBody> {
    let client = Client::connect(context.coordinator()?, new.key.clone()).await?;
    let account = client.account_id();
    client.close().await;
    Ok(account == new.account)
}

async fn submit(context: &Context, client: &Client, new: &KeyFile) -> Result<ReceiptId> {
    let output = context.output;
    output.note(format!("{} gets a new key …", new.account))?;
    let submitted = client.rotate_key(&new.key).await;
    let receipt = submitted.map_err(|error| match error.class {
        ErrorClass::Network => error.with_help(
            "both keys are kept, and one of them signs: call `cryptomind key rotate` again, which finds out",
        ),
        _ => error,
    })?;
    Ok(receipt)
}

/// Keeps a copy of the old key beside the file, under a name that nothing has.
fn keep(file: &Path, old: &KeyFile) -> Result<PathBuf> {
    let names = (1..MOST_RETIRED).map(|number| match number {
        1 => RETIRED.to_owned(),
        _ => format!("{RETIRED}-{number}"),
    });
    for name in names {
        let retired = beside(file, &name);
        match key::create_file(&retired, old) {
            Ok(()) => return Ok(retired),
            // An interrupted rotation kept it already.
            Err(KeyFileError::Exists { .. }) => match key::read(&retired) {
                Ok(kept) if kept.seed() == old.key.seed() => return Ok(retired),
                _ => {}
            },
            Err(error) => return Err(ErrorBody::from(error).into()),
        }
    }
    let message = format!("{} has too many retired keys beside it", file.display());
    Err(ErrorBody::user("too_many_keys", message).into())
}

fn tell(
    context: &Context,
    file: &Path,
    retired: &Path,
    new: &KeyFile,
    receipt: Option<ReceiptId>,
) -> Result<()> {
    let account = new.account;
    let done = json!({
        "account": account, "public_key": new.key.public(), "file": file, "retired": retired,
        "receipt": receipt,
    });
    context.output.value(&done, || {
        format!(
            "{account} signs with another key from now on\nkey      {}\nretired  {}",
            file.display(),
            retired.display()
        )
    })?;
    context.output.note(
        "Back up the new file: whoever has it has the account's money, and the old one is of no use.\n\
         Nodes that work for the account: approve them again with cryptomind miner approve",
    )?;
    Ok(())
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    name.into()
}

/// Whether a file is named as a rotation names the old key's.
pub fn is_retired(file: &Path) -> bool {
    let ending = file
        .extension()
        .map(|ending| ending.to_string_lossy().into_owned());
    ending.is_some_and(|ending| ending == RETIRED || ending.starts_with(&format!("{RETIRED}-")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::{AccountId, SecretKey};

    fn file_of(seed: u8) -> KeyFile {
        let key = SecretKey::from_seed([seed; 32]);
        let account = AccountId::of_key(&key.public());
        KeyFile { key, account }
    }

    #[test]
    fn old_keys_are_kept_once_each_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ada.key");
        let kept = |seed| keep(&file, &file_of(seed)).unwrap();
        let (first, second) = (kept(1), kept(2));
        assert_eq!(first, dir.path().join("ada.key.retired"));
        assert_eq!(second, dir.path().join("ada.key.retired-2"));
        // As after an interruption.
        assert_eq!((kept(1), kept(2)), (first.clone(), second.clone()));
        assert_eq!(key::read(&first).unwrap().seed(), &[1; 32]);
        assert!(is_retired(&first) && is_retired(&second) && !is_retired(&file));
    }
}
