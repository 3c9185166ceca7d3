//! Transactions: the checks that need nothing but the transaction itself.
//!
//! The door runs them before a transaction reaches any actor. What needs state comes after: whether its
//! id was seen before, whether the money is there, whether the name is free.

use cryptomind_protocol::transaction::{MAX_VALIDITY_MS, Transaction};
use cryptomind_protocol::{AccountId, ErrorBody, GenesisHash, PublicKey, Signed, Timestamp};

/// The version of transactions that this software carries out.
pub const VERSION: u8 = 1;

/// Verifies a signed transaction for this network, reads it and checks it. Codes beyond those of
/// [`check`]: `bad_signature`, `malformed_transaction`, `transaction_too_large`.
pub fn open(
    signed: &Signed,
    network: &GenesisHash,
    now: Timestamp,
) -> Result<Transaction, ErrorBody> {
    let transaction = signed.verify(network).map_err(unverified)?;
    check(&transaction, &signed.signer, now)?;
    Ok(transaction)
}

fn unverified(error: cryptomind_protocol::signed::VerifyError) -> ErrorBody {
    use cryptomind_protocol::signed::VerifyError;
    match &error {
        VerifyError::TooLarge { .. } => ErrorBody::user("transaction_too_large", &error),
        VerifyError::Signature => ErrorBody::auth("bad_signature", &error)
            .with_help("sign with the account's key, for the network that `network.status` names"),
        VerifyError::Payload(_) => ErrorBody::user("malformed_transaction", &error),
    }
}

/// Checks a transaction whose signature by `signer` was verified. Codes: `unsupported_version`,
/// `wrong_account`, `transaction_expired`, `validity_too_long`.
pub fn check(
    transaction: &Transaction,
    signer: &PublicKey,
    now: Timestamp,
) -> Result<(), ErrorBody> {
    check_version(transaction.version)?;
    check_account(&transaction.account, signer)?;
    check_validity(transaction.valid_until, now)
}

fn check_version(version: u8) -> Result<(), ErrorBody> {
    if version == VERSION {
        return Ok(());
    }
    let message = format!("a transaction of version {version}: this network speaks {VERSION}");
    Err(ErrorBody::user("unsupported_version", message).with_help("update the client"))
}

fn check_account(account: &AccountId, signer: &PublicKey) -> Result<(), ErrorBody> {
    let signers = AccountId::of_key(signer);
    if *account == signers {
        return Ok(());
    }
    let message = format!("the transaction is of {account}, its signature of {signers}");
    Err(ErrorBody::auth("wrong_account", message).with_help("sign with the account's own key"))
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
    use cryptomind_protocol::key::Nonce;
    use cryptomind_protocol::transaction::Action;

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
            action: Action::Faucet {},
        }
    }

    fn code(change: impl Fn(&mut Transaction)) -> String {
        let mut t = transaction();
        change(&mut t);
        let signed = Signed::sign(&t, &NETWORK, &key());
        match open(&signed, &NETWORK, NOW) {
            Ok(opened) => {
                assert_eq!(opened, t);
                "ok".into()
            }
            Err(error) => error.code,
        }
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
    fn what_was_not_signed_so_is_refused() {
        let mut signed = Signed::sign(&transaction(), &NETWORK, &key());
        let elsewhere = GenesisHash::new([2; 32]);
        assert_eq!(
            open(&signed, &elsewhere, NOW).unwrap_err().code,
            "bad_signature"
        );
        signed.payload[3] ^= 1;
        assert_eq!(
            open(&signed, &NETWORK, NOW).unwrap_err().code,
            "bad_signature"
        );
        signed.payload = vec![0; 1 << 20];
        let code = open(&signed, &NETWORK, NOW).unwrap_err().code;
        assert_eq!(code, "transaction_too_large");
    }
}
