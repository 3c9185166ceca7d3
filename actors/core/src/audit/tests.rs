use cryptomind_protocol::SecretKey;
use cryptomind_protocol::audit::Commitment;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::model::{Gpt, Layer, Loss};

use super::*;

const HERE: GenesisHash = GenesisHash::new([1; 32]);
const TASK: TaskId = TaskId::new([2; 16]);

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn node(n: u8) -> NodeId {
    NodeId::of_key(&key(n).public())
}

fn said() -> Commitments {
    let commitment = Commitment {
        loss: 0.5,
        samples: 10,
        roots: None,
    };
    Commitments {
        version: VERSION,
        task: TASK,
        attempt: 3,
        rank: 0,
        first: 1,
        steps: vec![commitment; 4],
    }
}

fn with(change: impl FnOnce(&mut Commitments)) -> Signed {
    let mut said = said();
    change(&mut said);
    Signed::sign(&said, &HERE, &key(1))
}

fn opened(signed: Signed) -> Result<Opened, Refusal> {
    open(signed, &HERE, node(1), (TASK, 3))
}

#[test]
fn what_the_node_signed_for_this_attempt_is_let_in() {
    let signed = with(|_| ());
    let (commitments, proof) = opened(signed.clone()).unwrap().into_parts();
    assert_eq!((commitments, proof), (said(), signed));
    opened(with(|said| said.steps = vec![said.steps[0]; MAX_STEPS])).unwrap();
}

#[test]
fn what_another_signed_or_nobody_is_refused() {
    let by_another = Signed::sign(&said(), &HERE, &key(2));
    assert_eq!(opened(by_another), Err(Refusal::OtherNode));
    let elsewhere = Signed::sign(&said(), &GenesisHash::new([9; 32]), &key(1));
    assert!(matches!(opened(elsewhere), Err(Refusal::Forged(_))));
    for byte in 0..with(|_| ()).payload.len() {
        let mut changed = with(|_| ());
        changed.payload[byte] ^= 1;
        let refused = opened(changed);
        assert_eq!(refused, Err(Refusal::Forged(VerifyError::Signature)));
    }
}

#[test]
fn what_is_about_something_else_is_refused() {
    let other_task = with(|said| said.task = TaskId::new([8; 16]));
    assert!(matches!(
        opened(other_task),
        Err(Refusal::OtherAttempt { attempt: 3, .. })
    ));
    let other_attempt = with(|said| said.attempt = 2);
    assert!(matches!(
        opened(other_attempt),
        Err(Refusal::OtherAttempt { attempt: 2, .. })
    ));
    assert_eq!(
        opened(with(|said| said.version = 2)),
        Err(Refusal::Version(2))
    );
}

#[test]
fn no_steps_too_many_and_impossible_ones_are_refused() {
    let cases = [
        with(|said| said.steps.clear()),
        with(|said| said.steps = vec![said.steps[0]; MAX_STEPS + 1]),
        with(|said| said.first = 0),
        with(|said| said.first = u64::MAX),
    ];
    for signed in cases {
        let refused = opened(signed).unwrap_err();
        assert!(matches!(refused, Refusal::Steps { .. }), "{refused}");
        assert!(!ErrorBody::from(refused).help.unwrap().is_empty());
    }
}

#[test]
fn a_loss_that_is_no_number_is_refused() {
    for loss in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let refused = opened(with(|said| said.steps[3].loss = loss));
        assert_eq!(refused, Err(Refusal::Loss));
    }
    opened(with(|said| said.steps[3].loss = -0.0)).unwrap();
}

#[test]
fn more_bytes_than_any_such_payload_has_are_not_read() {
    let mut roots = said().steps[0];
    roots.roots = Some(cryptomind_protocol::audit::Roots {
        gradients: Hash::of(b"g"),
        parameters: Hash::of(b"p"),
    });
    let signed = with(|said| said.steps = vec![roots; 400]);
    let too_large = opened(signed).unwrap_err();
    assert!(matches!(
        too_large,
        Refusal::Forged(VerifyError::TooLarge { .. })
    ));
}

fn steps(model: &ModelSpec, global_batch: u32, world: u32) -> Vec<u64> {
    let train = TrainSpec {
        global_batch,
        checkpoint_steps: 25,
        ..TrainSpec::default()
    };
    let named = RootSteps::new(model, &train, world, 43);
    (1..=43).filter(|step| named.contains(*step)).collect()
}

#[test]
fn little_work_names_roots_every_few_steps_much_work_at_each() {
    let small = ModelSpec {
        input: vec![64],
        layers: vec![Layer::linear(32), Layer::Relu {}, Layer::linear(10)],
        loss: Loss::default(),
    };
    assert_eq!(steps(&small, 32, 1), [10, 20, 25, 30, 40, 43]);
    assert_eq!(steps(&small, 32, 4), [10, 20, 25, 30, 40, 43]);
    let language = ModelSpec::gpt(Gpt {
        vocabulary: 65,
        context: 256,
        width: 384,
        heads: 6,
        blocks: 6,
        dropout_ppm: 0,
    });
    assert_eq!(steps(&language, 64, 1).len(), 43);
}
