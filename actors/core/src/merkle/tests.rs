use cryptomind_protocol::codec;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// `HASH(prefix || parts)`.
fn hash(parts: &[&[u8]]) -> Hash {
    Hash::of(&parts.concat())
}

/// The largest power of two smaller than n: "k < n <= 2k".
fn split(n: usize) -> usize {
    let mut k = 1;
    while 2 * k < n {
        k *= 2;
    }
    k
}

/// `MTH(D[n])`, read off RFC 6962, §2.1.
fn reference_root(d: &[Vec<u8>]) -> Hash {
    match d {
        [] => hash(&[]),
        [only] => hash(&[&[0], only]),
        _ => {
            let (left, right) = d.split_at(split(d.len()));
            let (left, right) = (reference_root(left), reference_root(right));
            hash(&[&[1], left.as_bytes(), right.as_bytes()])
        }
    }
}

/// `PATH(m, D[n])`, read off RFC 6962, §2.1.1.
fn reference_path(m: usize, d: &[Vec<u8>]) -> Vec<Hash> {
    if d.len() == 1 {
        return Vec::new();
    }
    let k = split(d.len());
    let (left, right) = d.split_at(k);
    let (mut path, other) = match m < k {
        true => (reference_path(m, left), right),
        false => (reference_path(m - k, right), left),
    };
    path.push(reference_root(other));
    path
}

/// On which side the neighbours lie on the way up: all that `count` changes about how a path is judged.
fn sides(m: usize, n: usize) -> Vec<bool> {
    if n == 1 {
        return Vec::new();
    }
    let k = split(n);
    let mut sides = match m < k {
        true => sides(m, k),
        false => sides(m - k, n - k),
    };
    sides.push(m < k);
    sides
}

/// n different leaves of different lengths, the first one empty.
fn leaves(n: usize) -> Vec<Vec<u8>> {
    (0..n).map(|i| vec![i as u8; i]).collect()
}

#[test]
fn roots_and_paths_are_the_rfcs_for_every_size() {
    for n in 0..=130 {
        let d = leaves(n);
        let top = root(&d);
        assert_eq!(top, reference_root(&d), "{n}");
        for (m, leaf) in d.iter().enumerate() {
            let path = path(&d, m as u64);
            assert_eq!(path.0, reference_path(m, &d), "{m} of {n}");
            assert!(path.leads(&top, leaf, m as u64, n as u64), "{m} of {n}");
        }
    }
}

/// Roots over the first n of [`leaves`], computed with another implementation of the RFC (ct-merkle 0.3.0).
#[test]
fn roots_are_what_another_implementation_says() {
    let golden = [
        (
            0,
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        ),
        (
            1,
            "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        ),
        (
            2,
            "ead50be13aa638b02dcc0fb8fbc89524606ba3eadf6705362ee24a043578e5f1",
        ),
        (
            3,
            "738d1d86d33608cef8e8d2537f5328eff288d77d662d03f39ec35083619e8911",
        ),
        (
            5,
            "9f6874483ff23d14ab04ea93c77d569d486beeb9ce5268cda93ae8778db1d5f3",
        ),
        (
            7,
            "32d4462e5c997d2bf54c77bd296578e3e01e37b0d3bc05da124f95feacf6592c",
        ),
        (
            8,
            "a7deb1d784a598176ca2f3d89a9fdf10c791dc2b7fc8cbb85cbd0a6521b727ee",
        ),
        (
            11,
            "65442948b99d6793f3bca6e2e91c2e267074c5c7000661b5935a20d2305560bc",
        ),
    ];
    for (n, expected) in golden {
        assert_eq!(root(leaves(n)).to_string(), expected, "{n}");
    }
}

#[test]
fn a_path_proves_no_other_place() {
    for n in 1..=40 {
        let d = leaves(n);
        let top = root(&d);
        for (m, leaf) in d.iter().enumerate() {
            let path = path(&d, m as u64);
            for other in (0..2 * n as u64).chain([u64::MAX]) {
                let led = path.leads(&top, leaf, other, n as u64);
                assert_eq!(led, other == m as u64, "{m} of {n} at {other}");
            }
        }
    }
}

#[test]
fn a_count_is_refused_when_the_way_up_would_be_another() {
    for n in 1..=40 {
        let d = leaves(n);
        let top = root(&d);
        for (m, leaf) in d.iter().enumerate() {
            let path = path(&d, m as u64);
            for count in 0..=2 * n {
                let alike = m < count && sides(m, count) == sides(m, n);
                let led = path.leads(&top, leaf, m as u64, count as u64);
                assert_eq!(led, alike, "{m} of {n} as of {count}");
            }
        }
    }
}

#[test]
fn a_path_that_was_changed_anywhere_leads_nowhere() {
    for n in 1..=40 {
        let d = leaves(n);
        let top = root(&d);
        for (m, leaf) in d.iter().enumerate() {
            let whole = path(&d, m as u64);
            let refused = |path: &Path| assert!(!path.leads(&top, leaf, m as u64, n as u64));
            for at in 0..whole.0.len() {
                refused(&Path(whole.0[..at].to_vec()));
                refused(&Path(whole.0[at + 1..].to_vec()));
                let mut flipped = whole.clone();
                let mut bytes = *flipped.0[at].as_bytes();
                bytes[at % 32] ^= 1 << (m % 8);
                flipped.0[at] = Hash::new(bytes);
                refused(&flipped);
            }
            for extra in [top, hash_leaf(leaf), Hash::of(b"")] {
                let mut longer = whole.clone();
                longer.0.push(extra);
                refused(&longer);
                longer.0.rotate_right(1);
                refused(&longer);
            }
        }
    }
}

/// Were leaves and nodes hashed alike, the two hashes below a node would pass for a leaf of a smaller tree.
#[test]
fn an_inner_node_is_no_leaf() {
    let d = leaves(4);
    let top = root(&d);
    let pairs = [[0, 1], [2, 3]].map(|pair| {
        let [left, right] = pair.map(|i| hash_leaf(&d[i]));
        [left.as_bytes().as_slice(), right.as_bytes()].concat()
    });
    assert_ne!(root(&pairs), top);
    let above = Path(vec![root(&d[2..])]);
    assert!(!above.leads(&top, &pairs[0], 0, 2));
    let prefixed = [[NODE].as_slice(), &pairs[0]].concat();
    assert!(!above.leads(&top, &prefixed, 0, 2));
}

/// CVE-2012-2459: Bitcoin pairs the last of an odd row with itself, so two lists share a root.
#[test]
fn a_last_leaf_given_twice_is_another_list() {
    for n in 1..=40 {
        let mut d = leaves(n);
        let before = root(&d);
        d.push(d[n - 1].clone());
        assert_ne!(root(&d), before, "{n}");
    }
}

#[test]
fn absurd_numbers_are_refused_without_a_panic() {
    let d = leaves(3);
    let (top, whole) = (root(&d), path(&d, 2));
    let long = Path(vec![top; MAX_PATH]);
    for index in [0, 1, 2, 3, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        for count in [0, 1, 1 << 63, u64::MAX - 1, u64::MAX] {
            assert!(
                !whole.leads(&top, &d[2], index, count),
                "{index} of {count}"
            );
            assert!(!long.leads(&top, &d[2], index, count), "{index} of {count}");
        }
    }
}

#[test]
fn nothing_is_proven_of_an_empty_list() {
    let empty = Path(Vec::new());
    assert!(!empty.leads(&root([b""; 0]), b"", 0, 0));
}

#[test]
#[should_panic(expected = "leaf 3 of 3")]
fn a_path_from_no_leaf_is_the_callers_fault() {
    path(leaves(3), 3);
}

#[test]
fn a_path_travels_and_has_a_longest_length() {
    let whole = path(leaves(100), 77);
    let bytes = codec::encode(&whole);
    assert_eq!(bytes.len(), 1 + 34 * whole.0.len());
    assert_eq!(codec::decode::<Path>(&bytes), Ok(whole));
    let longest = codec::encode(&vec![Hash::of(b""); MAX_PATH]);
    assert!(codec::decode::<Path>(&longest).is_ok());
    let longer = codec::encode(&vec![Hash::of(b""); MAX_PATH + 1]);
    let refusal = codec::decode::<Path>(&longer).unwrap_err().to_string();
    assert!(refusal.contains("a Merkle path of 65 hashes"), "{refusal}");
}

proptest! {
    /// Leaves that are equal to each other, or empty, as well.
    #[test]
    fn any_leaves_have_the_rfcs_root_and_paths(
        d in vec(vec(0..3_u8, 0..4), 1..70),
        at in any::<prop::sample::Index>(),
    ) {
        let (m, top) = (at.index(d.len()), root(&d));
        prop_assert_eq!(top, reference_root(&d));
        let path = path(&d, m as u64);
        prop_assert_eq!(&path.0, &reference_path(m, &d));
        prop_assert!(path.leads(&top, &d[m], m as u64, d.len() as u64));
    }

    #[test]
    fn another_leaf_is_refused(
        d in vec(vec(any::<u8>(), 1..80), 1..40),
        at in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
    ) {
        let m = at.index(d.len());
        let path = path(&d, m as u64);
        let mut leaf = d[m].clone();
        let bit = bit.index(leaf.len() * 8);
        leaf[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!path.leads(&root(&d), &leaf, m as u64, d.len() as u64));
        prop_assert!(!path.leads(&root(&d), &d[m][1..], m as u64, d.len() as u64));
    }
}
