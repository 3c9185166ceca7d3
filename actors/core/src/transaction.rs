//! Transactions: the checks that need no more than the transaction, the account's key and the block's time.
//!
//! [`open`] proves the signature and reads the payload, once, at the edge: a [`Verified`] transaction is what all
//! others handle. [`Verified::check`] holds it against the account's present key and the block time. Whether its
//! id was seen before, whether the money is there, whether the name is free comes after.

use cryptomind_protocol::genesis::FeeTable;
use cryptomind_protocol::key::{Hash, Nonce};
use cryptomind_protocol::transaction::{Action, MAX_VALIDITY_MS, Outcome, Transaction};
use cryptomind_protocol::{
    AccountId, Amount, ErrorBody, ErrorClass, GenesisHash, ItemId, PublicKey, Signed, TaskId,
    Timestamp,
};

/// The version of transactions that this software carries out.
pub const VERSION: u8 = 1;

/// A transaction whose signature is its signer's. Only [`open`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    signed: Signed,
    transaction: Transaction,
}

/// Verifies a signed transaction for this network and reads it. Codes: `bad_signature`, `weak_key`,
/// `malformed_transaction`, `transaction_too_large`, `unsupported_version`.
pub fn open(signed: Signed, network: &GenesisHash) -> Result<Verified, ErrorBody> {
    let transaction: Transaction = signed.verify(network).map_err(unverified)?;
    check_version(transaction.version)?;
    Ok(Verified {
        signed,
        transaction,
    })
}

fn unverified(error: cryptomind_protocol::signed::VerifyError) -> ErrorBody {
    use cryptomind_protocol::signed::VerifyError;
    match &error {
        VerifyError::TooLarge { .. } => ErrorBody::user("transaction_too_large", &error),
        VerifyError::WeakKey => ErrorBody::auth("weak_key", &error)
            .with_help("make a key with `cryptomind key new`: never use one that others gave you"),
        VerifyError::Signature => ErrorBody::auth("bad_signature", &error)
            .with_help("sign with the account's key, for the network that `network.status` names"),
        VerifyError::Payload(_) => ErrorBody::user("malformed_transaction", &error),
    }
}

fn check_version(version: u8) -> Result<(), ErrorBody> {
    if version == VERSION {
        return Ok(());
    }
    let message = format!("a transaction of version {version}: this network speaks {VERSION}");
    Err(ErrorBody::user("unsupported_version", message).with_help("update the client"))
}

impl Verified {
    /// As it was signed.
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// As it was signed, for the chain.
    pub fn into_signed(self) -> Signed {
        self.signed
    }

    /// What it says.
    pub const fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Whose it claims to be: [`Verified::check`] holds it against the signer.
    pub const fn account(&self) -> AccountId {
        self.transaction.account
    }

    /// The client's id of it.
    pub const fn id(&self) -> Nonce {
        self.transaction.id
    }

    /// Hash of the signed bytes: other bytes under the same id are a conflict.
    pub fn payload_hash(&self) -> Hash {
        Hash::of(&self.signed.payload)
    }

    /// Checks that `owner`, the account of the signing key, is the one it claims, and that the block time is within
    /// its validity. Codes: `wrong_account`, `key_retired`, `transaction_expired`, `validity_too_long`.
    pub fn check(&self, owner: Option<AccountId>, time: Timestamp) -> Result<(), ErrorBody> {
        check_owner(&self.transaction.account, owner)?;
        check_validity(self.transaction.valid_until, time)
    }

    /// What carrying it out costs, where its account agreed to as much. Code: `fee_above_max`.
    pub fn fee(&self, table: &FeeTable) -> Result<Amount, ErrorBody> {
        let (fee, most) = (table.of(&self.transaction.action), self.transaction.max_fee);
        if fee <= most {
            return Ok(fee);
        }
        let message = format!("the network charges {fee} for this, the transaction allows {most}");
        let error = ErrorBody::new(ErrorClass::Funds, "fee_above_max", message);
        Err(error.with_help(format!("set max_fee to {fee} or more and sign again")))
    }

    /// What its account is told, once it is carried out.
    pub fn outcome(&self, faucet: Amount) -> Outcome {
        let (account, id) = (&self.transaction.account, self.transaction.id.as_bytes());
        match &self.transaction.action {
            Action::Register { nickname } => Outcome::Registered {
                nickname: nickname.clone(),
            },
            Action::Faucet {} => Outcome::Moved { amount: faucet },
            Action::Send { amount, .. } => Outcome::Moved { amount: *amount },
            Action::Publish { .. } => Outcome::Published {
                item: ItemId::of_transaction(account, id),
            },
            Action::Post { spec } => Outcome::Posted {
                task: TaskId::of_transaction(account, id),
                held: spec.max_cost,
            },
            Action::Cancel { task } => Outcome::Cancelling { task: *task },
            Action::Rate { task, .. } => Outcome::Rated { task: *task },
            Action::RotateKey { key, .. } => Outcome::Rotated { key: *key },
            Action::Delegate {
                node,
                role,
                expires,
            } => Outcome::Delegated {
                node: *node,
                role: *role,
                expires: *expires,
            },
            Action::Revoke { node } => Outcome::Revoked { node: *node },
        }
    }
}

fn check_owner(account: &AccountId, owner: Option<AccountId>) -> Result<(), ErrorBody> {
    match owner {
        Some(owner) if owner == *account => Ok(()),
        Some(owner) => {
            let message = format!("the transaction is of {account}, its signature of {owner}");
            Err(ErrorBody::auth("wrong_account", message)
                .with_help("sign with the account's own key"))
        }
        None => Err(key_retired(account)),
    }
}

/// The refusal of whoever comes with a key that its account has replaced.
pub fn key_retired(account: &AccountId) -> ErrorBody {
    let message = format!("{account} signs with another key by now: this one was retired");
    ErrorBody::auth("key_retired", message)
        .with_help("use the key file that `cryptomind key rotate` wrote")
}

/// Refuses a rotation to a key that did not consent. Code: `bad_rotation`.
pub fn check_rotation(
    network: &GenesisHash,
    account: &AccountId,
    key: &PublicKey,
    proof: &cryptomind_protocol::Signature,
) -> Result<(), ErrorBody> {
    use cryptomind_protocol::transaction::is_rotation_signed;
    if is_rotation_signed(network, account, key, proof) {
        return Ok(());
    }
    let message = "the new key did not sign its consent, or is a weak one";
    Err(ErrorBody::auth("bad_rotation", message)
        .with_help("`cryptomind key rotate` makes both signatures"))
}

fn check_validity(valid_until: Timestamp, now: Timestamp) -> Result<(), ErrorBody> {
    if valid_until <= now {
        let ago = now.ms_since(valid_until);
        let message = format!("the transaction's validity ended {ago} ms ago");
        return Err(ErrorBody::user("transaction_expired", message)
            .with_help("sign it again; if it just was, set this machine's clock"));
    }
    if valid_until > now.plus_ms(MAX_VALIDITY_MS) {
        let ahead = valid_until.ms_since(now);
        let message = format!("valid for {ahead} ms: at most {MAX_VALIDITY_MS} ms are allowed");
        return Err(ErrorBody::user("validity_too_long", message)
            .with_help("choose an earlier end; if it is not late, set this machine's clock"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::SecretKey;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000);
    const NETWORK: GenesisHash = GenesisHash::new([1; 32]);

    fn key() -> SecretKey {
        SecretKey::from_seed([5; 32])
    }

    fn transaction() -> Transaction {
        Transaction {
            version: VERSION,
            id: Nonce::new([2; 16]),
            account: AccountId::of_key(&key().public()),
            valid_until: NOW.plus_ms(1),
            max_fee: Amount::from_base_units(10),
            action: Action::Send {
                to: AccountId::new([9; 20]),
                amount: Amount::from_base_units(5),
            },
        }
    }

    fn code(change: impl Fn(&mut Transaction)) -> String {
        let mut t = transaction();
        change(&mut t);
        let signed = Signed::sign(&t, &NETWORK, &key());
        let own = AccountId::of_key(&key().public());
        let checked = open(signed, &NETWORK).and_then(|opened| {
            assert_eq!(opened.transaction(), &t);
            opened.check(Some(own), NOW)
        });
        checked.err().map_or("ok".into(), |error| error.code)
    }

    #[test]
    fn each_fault_has_its_code() {
        assert_eq!(code(|_| ()), "ok");
        assert_eq!(code(|t| t.version = 2), "unsupported_version");
        assert_eq!(
            code(|t| t.account = AccountId::new([9; 20])),
            "wrong_account"
        );
        assert_eq!(code(|t| t.valid_until = NOW), "transaction_expired");
        assert_eq!(code(|t| t.valid_until = NOW.plus_ms(MAX_VALIDITY_MS)), "ok");
        let too_long = |t: &mut Transaction| t.valid_until = NOW.plus_ms(MAX_VALIDITY_MS + 1);
        assert_eq!(code(too_long), "validity_too_long");
    }

    #[test]
    fn a_fee_is_agreed_to_in_the_signature() {
        let signed = Signed::sign(&transaction(), &NETWORK, &key());
        let opened = open(signed, &NETWORK).unwrap();
        let table = |units| FeeTable {
            send: Amount::from_base_units(units),
            ..FeeTable::default()
        };
        assert_eq!(opened.fee(&table(10)), Ok(Amount::from_base_units(10)));
        assert_eq!(opened.fee(&table(11)).unwrap_err().code, "fee_above_max");
        assert_eq!(opened.check(None, NOW).unwrap_err().code, "key_retired");
    }

    #[test]
    fn what_was_not_signed_so_is_refused() {
        let mut signed = Signed::sign(&transaction(), &NETWORK, &key());
        let elsewhere = GenesisHash::new([2; 32]);
        let refused = |signed: &Signed, network| open(signed.clone(), network).unwrap_err().code;
        assert_eq!(refused(&signed, &elsewhere), "bad_signature");
        signed.payload[3] ^= 1;
        assert_eq!(refused(&signed, &NETWORK), "bad_signature");
        signed.payload = vec![0; 1 << 20];
        assert_eq!(refused(&signed, &NETWORK), "transaction_too_large");
    }
}
