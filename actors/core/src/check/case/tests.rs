use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn node(number: u8) -> NodeId {
    NodeId::new([number; 32])
}

fn owner(number: u8) -> AccountId {
    AccountId::new([number; 20])
}

fn of(number: u8, answer: Answer) -> Witness {
    Witness {
        node: node(number),
        owner: owner(number),
        answer,
    }
}

fn other(number: u8) -> Answer {
    Answer::Other([number; 32])
}

#[test]
fn the_expected_answer_is_right_at_once() {
    let mut case = Case::open();
    let nobody = Next::Ask {
        apart_from: Vec::new(),
    };
    assert_eq!(case.next(), nobody);
    let found = case.hear(of(1, Answer::Expected));
    assert_eq!(found, [Finding::Right(node(1))]);
    assert_eq!(case.next(), Next::Closed);
    assert!(!case.is_withdrawn());
}

#[test]
fn another_answer_is_wrong_once_another_owner_comes_to_the_expected_one() {
    let mut case = Case::open();
    assert_eq!(case.hear(of(2, other(7))), []);
    assert_eq!(case.doubted().collect::<Vec<_>>(), [owner(2)]);
    assert_eq!(case.hear(of(1, other(7))), []);
    let apart_from = vec![owner(1), owner(2)];
    assert_eq!(case.next(), Next::Ask { apart_from });
    let found = case.hear(of(3, Answer::Expected));
    let expected = [
        Finding::Right(node(3)),
        Finding::Wrong(node(2)),
        Finding::Wrong(node(1)),
    ];
    assert_eq!(found, expected);
    assert_eq!(case.next(), Next::Closed);
    assert_eq!(case.doubted().count(), 0);
    assert_eq!(
        case.hear(of(4, other(1))),
        [],
        "after the end nobody is heard"
    );
}

#[test]
fn an_owner_cannot_confirm_what_speaks_against_itself_or_for_it() {
    let mut case = Case::open();
    case.hear(of(1, other(7)));
    let second_node = Witness {
        node: node(9),
        ..of(1, Answer::Expected)
    };
    assert_eq!(case.hear(second_node), []);
    assert!(matches!(case.next(), Next::Ask { .. }));
}

#[test]
fn where_five_come_to_something_else_our_own_answer_is_withdrawn() {
    let mut case = Case::open();
    for number in 0..5 {
        assert!(!case.is_withdrawn());
        assert_eq!(case.hear(of(number, other(1))), []);
    }
    assert!(case.is_withdrawn());
    assert_eq!(case.next(), Next::Closed);
    assert_eq!(case.hear(of(6, Answer::Expected)), [], "it is too late");
    assert!(case.is_withdrawn());
}

/// The rules once more, from all that was said, without a state.
fn naive(said: &[Witness]) -> (Vec<Finding>, bool) {
    let mut heard: Vec<Witness> = Vec::new();
    for witness in said {
        let expected = heard.iter().any(|w| w.answer == Answer::Expected);
        let owners: BTreeSet<_> = heard.iter().map(|w| w.owner).collect();
        if !expected && heard.len() < 5 && !owners.contains(&witness.owner) {
            heard.push(*witness);
        }
    }
    let right = heard.iter().find(|w| w.answer == Answer::Expected);
    let Some(right) = right else {
        return (Vec::new(), heard.len() == 5);
    };
    let mut findings = vec![Finding::Right(right.node)];
    for witness in &heard {
        let wrong = Finding::Wrong(witness.node);
        if witness.node != right.node && !findings.contains(&wrong) {
            findings.push(wrong);
        }
    }
    (findings, false)
}

fn any_witness() -> impl Strategy<Value = Witness> {
    // Few of each, so that nodes and owners come again.
    let answer = prop_oneof![Just(Answer::Expected), (0u8..3).prop_map(other)];
    (0u8..8, 0u8..8, answer).prop_map(|(n, o, answer)| Witness {
        node: node(n),
        owner: owner(o),
        answer,
    })
}

proptest! {
    #[test]
    fn it_finds_what_the_rules_say(said in prop::collection::vec(any_witness(), 0..12)) {
        let mut case = Case::open();
        let found: Vec<_> = said.iter().flat_map(|witness| case.hear(*witness)).collect();
        let (expected, withdrawn) = naive(&said);
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(case.is_withdrawn(), withdrawn);
        let closed = withdrawn || !found.is_empty();
        prop_assert_eq!(case.next() == Next::Closed, closed);
        let bytes = cryptomind_protocol::codec::encode(&case);
        prop_assert_eq!(cryptomind_protocol::codec::decode::<Case>(&bytes).unwrap(), case);
    }

    #[test]
    fn nobody_is_blamed_for_a_right_answer_or_twice_or_on_one_word(
        said in prop::collection::vec(any_witness(), 0..12)
    ) {
        let mut case = Case::open();
        let mut blamed = BTreeSet::new();
        for witness in &said {
            let before = case.clone();
            for finding in case.hear(*witness) {
                let Finding::Wrong(node) = finding else { continue };
                prop_assert!(blamed.insert(node), "twice");
                prop_assert_ne!(node, witness.node);
                let mine = before.witnesses.iter().find(|w| w.node == node).unwrap();
                prop_assert_ne!(mine.answer, Answer::Expected);
                prop_assert_ne!(mine.owner, witness.owner, "another owner's word");
                prop_assert_eq!(witness.answer, Answer::Expected);
            }
        }
        if let Next::Ask { apart_from } = case.next() {
            let owners: BTreeSet<_> = case.witnesses.iter().map(|w| w.owner).collect();
            prop_assert_eq!(apart_from, owners.into_iter().collect::<Vec<_>>());
        }
    }
}
