//! The accounts that post control tasks: keys in files, in a folder of their own.
//!
//! They are accounts like others. On a development network each takes test money when it runs out; on a main one the
//! operator sends them what they need, best from several sources: who looks at the chain can see where money came from.

use std::path::Path;

use cryptomind_config::key;
use cryptomind_core::dice::Dice;
use cryptomind_protocol::genesis::{Genesis, NetworkKind};
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::transaction::{Action, Transaction};
use cryptomind_protocol::{AccountId, ErrorBody, SecretKey, Signed, Timestamp};

/// How long what they sign is valid, milliseconds.
const VALID_MS: u64 = 60_000;

/// Those accounts.
#[derive(Clone)]
pub struct Purse {
    keys: Vec<SecretKey>,
}

impl Purse {
    /// So many accounts, whose keys lie in `folder` or are made there. Nothing where there are to be none.
    ///
    /// # Errors
    /// Where the folder or a key cannot be read or made.
    pub fn open(folder: &Path, count: u32) -> Result<Option<Self>, ErrorBody> {
        if count == 0 {
            return Ok(None);
        }
        let cannot = |e| ErrorBody::user("data_dir", format!("{}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(cannot)?;
        let mut keys = Vec::new();
        for number in 1..=count {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(ErrorBody::internal)?;
            let file = folder.join(format!("account-{number}.key"));
            keys.push(key::read_or_create(&file, seed)?);
        }
        Ok(Some(Self { keys }))
    }

    /// Whose they are.
    pub fn accounts(&self) -> Vec<AccountId> {
        self.keys.iter().map(account).collect()
    }

    /// One of them, by lot.
    pub(super) fn some(&self, dice: &mut Dice) -> &SecretKey {
        &self.keys[dice.below(self.keys.len() as u64) as usize]
    }

    /// That of an account.
    pub(super) fn key_of(&self, of: &AccountId) -> Option<&SecretKey> {
        self.keys.iter().find(|key| account(key) == *of)
    }
}

/// The account of a key that was never rotated.
pub(super) fn account(key: &SecretKey) -> AccountId {
    AccountId::of_key(&key.public())
}

/// Signs for one of them.
pub(super) fn sign(
    key: &SecretKey,
    genesis: &Genesis,
    action: Action,
    now: Timestamp,
) -> Result<Signed, ErrorBody> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(ErrorBody::internal)?;
    let transaction = Transaction {
        version: 1,
        id: Nonce::new(id),
        account: account(key),
        valid_until: now.plus_ms(VALID_MS),
        max_fee: genesis.fees.of(&action),
        action,
    };
    Ok(Signed::sign(&transaction, &genesis.hash(), key))
}

/// Whether accounts can help themselves to test money here.
pub(super) fn has_test_money(genesis: &Genesis) -> bool {
    genesis.kind == NetworkKind::Development && !genesis.faucet.is_zero()
}
