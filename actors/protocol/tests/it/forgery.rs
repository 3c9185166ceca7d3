//! Signatures that some verifiers accept and others refuse, after "Taming the many EdDSAs" (Chalkias, Garillot,
//! Nikolaenko, 2020), table 5: points of small order, points with a part of small order, second encodings,
//! numbers above the group's order. Verifiers of a chain that differ on one of them split it, so each
//! is refused here, although the equation times eight, which batch verification checks, holds for it.

use cryptomind_protocol::signed::{Payload, VerifyError};
use cryptomind_protocol::transaction::{Action, Transaction};
use cryptomind_protocol::{
    AccountId, Amount, GenesisHash, PublicKey, SecretKey, Signature, Signed, Timestamp, codec,
};
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::traits::IsIdentity;
use curve25519_dalek::{EdwardsPoint, Scalar};
use sha2::{Digest, Sha512};

const NETWORK: GenesisHash = GenesisHash::new([7; 32]);

/// 2²⁵² + 27742317777372353535851937790883648493, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// A key, a signature and what it is over.
struct Case {
    name: &'static str,
    key: [u8; 32],
    r: [u8; 32],
    s: [u8; 32],
    message: Vec<u8>,
}

fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new()
        .chain_update(r)
        .chain_update(key)
        .chain_update(message)
        .finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

impl Case {
    /// `[S]B − R − [k]A`, of whatever can be decoded at all.
    fn rest(&self) -> EdwardsPoint {
        let point = |bytes| CompressedEdwardsY(bytes).decompress().unwrap();
        let k = challenge(&self.r, &self.key, &self.message);
        let s = Scalar::from_bytes_mod_order(self.s);
        EdwardsPoint::mul_base(&s) - point(self.r) - k * point(self.key)
    }

    /// What a batch verifier checks: the rest has small order.
    fn passes_times_eight(&self) -> bool {
        self.rest().is_small_order()
    }

    /// What a verifier of one signature checks: there is no rest.
    fn passes_exactly(&self) -> bool {
        self.rest().is_identity()
    }

    fn signature(&self) -> Signature {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.r);
        bytes[32..].copy_from_slice(&self.s);
        Signature::new(bytes)
    }

    fn verifies(&self) -> bool {
        PublicKey::new(self.key).verify(&self.message, &self.signature())
    }
}

fn secret(n: u64) -> Scalar {
    // Any number will do: these keys guard nothing.
    let mut bytes = [0x5a; 32];
    bytes[0] = n as u8;
    bytes[1] = (n >> 8) as u8;
    bytes[31] = 0x05;
    Scalar::from_bytes_mod_order(bytes)
}

/// `[secret]B`, and a point of small order with it.
fn point(secret: &Scalar, torsion: usize) -> EdwardsPoint {
    EdwardsPoint::mul_base(secret) + EIGHT_TORSION[torsion]
}

/// Signs with the key `[a]B + key_part` and the nonce's point `[b]B + nonce_part`; the point of small order that
/// is left in the equation is `key_part · −k − nonce_part`.
fn signed_by(name: &'static str, key: &EdwardsPoint, r: &EdwardsPoint, b: Scalar) -> Case {
    let (key, r) = (key.compress().to_bytes(), r.compress().to_bytes());
    let message = message();
    let s = b + challenge(&r, &key, &message) * secret(1);
    let s = s.to_bytes();
    Case {
        name,
        key,
        r,
        s,
        message,
    }
}

/// The first of many nonces for which `wanted` holds.
fn search(make: impl Fn(Scalar) -> Case, wanted: impl Fn(&Case) -> bool) -> Case {
    (2..1000).map(|n| make(secret(n))).find(wanted).unwrap()
}

fn transaction() -> Transaction {
    Transaction {
        version: 1,
        id: cryptomind_protocol::key::Nonce::new([1; 16]),
        account: AccountId::new([6; 20]),
        valid_until: Timestamp::from_ms(9),
        max_fee: Amount::ZERO,
        action: Action::Faucet {},
    }
}

/// What a transaction's signature covers.
fn message() -> Vec<u8> {
    let tag = Transaction::TAG;
    let mut message = (tag.len() as u32).to_be_bytes().to_vec();
    message.extend_from_slice(tag.as_bytes());
    message.extend_from_slice(NETWORK.as_bytes());
    message.extend_from_slice(&codec::encode(&transaction()));
    message
}

/// 0 and 1: a key of small order. Nothing but the nonce is signed with.
fn of_weak_keys() -> Vec<Case> {
    let weak = |name, r: EdwardsPoint, s: Scalar| Case {
        name,
        key: EIGHT_TORSION[1].compress().to_bytes(),
        r: r.compress().to_bytes(),
        s: s.to_bytes(),
        message: message(),
    };
    vec![
        weak(
            "0: small key, small R, S = 0",
            EIGHT_TORSION[3],
            Scalar::ZERO,
        ),
        weak("1: small key, mixed R", point(&secret(2), 1), secret(2)),
    ]
}

/// 2, 4 and 5: the key has a part of small order, and the exact equation fails.
fn of_mixed_keys() -> Vec<Case> {
    let key = point(&secret(1), 1);
    let inexact = |case: &Case| !case.passes_exactly();
    let mixed = |b: Scalar| signed_by("4: mixed key, mixed R", &key, &point(&b, 3), b);
    let plain = |b: Scalar| signed_by("5: mixed key, R of the group", &key, &point(&b, 0), b);
    let small = signed_by(
        "2: mixed key, small R",
        &key,
        &EIGHT_TORSION[2],
        Scalar::ZERO,
    );
    vec![small, search(mixed, inexact), search(plain, inexact)]
}

/// 6 and 7: a right signature with the order added to S, once and as often as 256 bits hold.
fn with_large_s() -> Vec<Case> {
    let right = |name| {
        let key = point(&secret(1), 0);
        signed_by(name, &key, &point(&secret(2), 0), secret(2))
    };
    let mut once = right("6: S above the order");
    once.s = plus_order(&once.s).unwrap();
    let mut often = right("7: S far above the order");
    while let Some(s) = plus_order(&often.s) {
        often.s = s;
    }
    vec![once, often]
}

fn plus_order(s: &[u8; 32]) -> Option<[u8; 32]> {
    let mut sum = [0; 32];
    let mut carry = 0;
    for i in 0..32 {
        let digit = u16::from(s[i]) + u16::from(ORDER[i]) + carry;
        sum[i] = digit as u8;
        carry = digit >> 8;
    }
    (carry == 0).then_some(sum)
}

/// Every second encoding of a point of small order: y + p, or x = 0 with a sign.
fn second_encodings() -> Vec<[u8; 32]> {
    let p_plus = |n: u8, sign: u8| {
        let mut bytes = [0xff; 32];
        bytes[0] = 0xed + n;
        bytes[31] = 0x7f | sign;
        bytes
    };
    let mut one = [0; 32];
    (one[0], one[31]) = (1, 0x80);
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    vec![
        p_plus(0, 0),
        p_plus(0, 0x80),
        p_plus(1, 0),
        p_plus(1, 0x80),
        one,
        minus_one,
    ]
}

/// 8 to 11: R or the key in a second encoding.
fn of_second_encodings() -> Vec<Case> {
    let mut cases = Vec::new();
    for bytes in second_encodings() {
        let key = point(&secret(1), 1).compress().to_bytes();
        let s = challenge(&bytes, &key, &message()) * secret(1);
        cases.push(Case {
            name: "8, 9: mixed key, R small in a second encoding",
            key,
            r: bytes,
            s: s.to_bytes(),
            message: message(),
        });
        cases.push(Case {
            name: "10, 11: key small in a second encoding, mixed R",
            key: bytes,
            r: point(&secret(2), 1).compress().to_bytes(),
            s: secret(2).to_bytes(),
            message: message(),
        });
    }
    cases
}

#[test]
fn what_only_a_batch_accepts_is_refused() {
    let cases = [
        of_weak_keys(),
        of_mixed_keys(),
        with_large_s(),
        of_second_encodings(),
    ];
    for case in cases.into_iter().flatten() {
        assert!(case.passes_times_eight(), "{}", case.name);
        assert!(!case.verifies(), "{}", case.name);
    }
}

/// 3, and an ordinary signature: the exact equation holds, so all verifiers agree. This shows that the cases
/// above are refused for what is wrong with them.
#[test]
fn what_fits_exactly_is_accepted() {
    let key = point(&secret(1), 1);
    let mixed = |b: Scalar| signed_by("3: mixed key, mixed R", &key, &point(&b, 3), b);
    let mixed = search(mixed, Case::passes_exactly);
    let plain = signed_by(
        "plain",
        &point(&secret(1), 0),
        &point(&secret(2), 0),
        secret(2),
    );
    for case in [mixed, plain] {
        assert!(case.passes_exactly() && case.verifies(), "{}", case.name);
    }
}

#[test]
fn a_transaction_says_which_of_both_is_wrong() {
    let verified = |case: &Case| {
        let signed = Signed {
            payload: codec::encode(&transaction()),
            signer: PublicKey::new(case.key),
            signature: case.signature(),
        };
        signed.verify::<Transaction>(&NETWORK)
    };
    for case in of_weak_keys() {
        assert_eq!(verified(&case), Err(VerifyError::WeakKey), "{}", case.name);
    }
    for case in of_mixed_keys().iter().chain(&with_large_s()) {
        assert_eq!(verified(case), Err(VerifyError::Signature), "{}", case.name);
    }
    for case in of_second_encodings() {
        let is_weak = case.name.starts_with("10");
        let expected = if is_weak {
            VerifyError::WeakKey
        } else {
            VerifyError::Signature
        };
        assert_eq!(verified(&case), Err(expected), "{}", case.name);
    }
}

#[test]
fn weak_keys_and_no_keys_are_not_usable() {
    for point in EIGHT_TORSION {
        assert!(!PublicKey::new(point.compress().to_bytes()).is_usable());
    }
    for bytes in second_encodings() {
        assert!(!PublicKey::new(bytes).is_usable(), "{bytes:02x?}");
    }
    // Each y from p to 2²⁵⁵ − 1 is a second encoding; some are points of the full order.
    let mut decoded = 0;
    for n in 0xed..=0xff {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (n, 0x7f);
        let point = CompressedEdwardsY(bytes).decompress();
        decoded += u32::from(point.is_some_and(|point| !point.is_small_order()));
        assert!(!PublicKey::new(bytes).is_usable(), "{n}");
    }
    assert!(decoded > 0);
    // About half of all byte strings are no point.
    let is_point = |n: &u8| CompressedEdwardsY([*n; 32]).decompress().is_some();
    let (points, others): (Vec<u8>, Vec<u8>) = (2..100).partition(is_point);
    assert!(others.len() > 10 && points.len() > 10);
    for n in others {
        assert!(!PublicKey::new([n; 32]).is_usable(), "{n}");
    }
    for n in points {
        assert!(PublicKey::new([n; 32]).is_usable(), "{n}");
        assert!(SecretKey::from_seed([n; 32]).public().is_usable(), "{n}");
    }
}
