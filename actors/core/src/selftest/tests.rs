use super::*;
use cryptomind_protocol::SecretKey;
use cryptomind_protocol::selftest::{
    BANDS, Endurance, FILL_LIMIT_MS, Filled, Product, Training, Work,
};
use cryptomind_protocol::speed::Step;

const NETWORK: GenesisHash = GenesisHash::new([7; 32]);
const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

fn key() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

fn node() -> NodeId {
    NodeId::of_key(&key().public())
}

fn report() -> Report {
    let training = |(model, (least, most)): (&str, (f32, f32))| Training {
        model: model.to_owned(),
        loss: (least + most) / 2.0,
    };
    Report {
        version: VERSION,
        node: node(),
        made: NOW,
        release: "1".into(),
        machine: Machine {
            threads: 2,
            devices: vec!["CPU".into()],
            memory_bytes: 1 << 30,
        },
        work: Work {
            challenge: 1,
            products: vec![Product {
                size: 128,
                mflops: 9_000,
                right: true,
            }],
            copy_bytes_per_s: 1 << 30,
            filled: Filled {
                wanted: 1 << 30,
                bytes: 1 << 30,
                ms: 100,
                right: true,
            },
            trainings: BANDS.into_iter().map(training).collect(),
            paces: Vec::new(),
            endurance: Endurance {
                ms: 5_000,
                first_mflops: 8_000,
                last_mflops: 8_000,
            },
            determinism_class: None,
        },
    }
}

fn opened(report: &Report) -> Result<Report, Refusal> {
    let signed = Signed::sign(report, &NETWORK, &key());
    open(Some(&signed), &NETWORK, node(), NOW)
}

#[test]
fn a_right_report_of_its_own_node_lets_it_in() {
    assert_eq!(opened(&report()), Ok(report()));
    let ahead = Report {
        made: NOW.plus_ms(AHEAD_LIMIT_MS),
        ..report()
    };
    assert_eq!(opened(&ahead), Ok(ahead), "clocks differ a little");
    assert_eq!(open(None, &NETWORK, node(), NOW), Err(Refusal::None));
}

#[test]
fn a_report_that_was_changed_or_is_for_another_network_is_none() {
    let mut signed = Signed::sign(&report(), &NETWORK, &key());
    let other = open(Some(&signed), &GenesisHash::new([8; 32]), node(), NOW);
    assert!(matches!(other, Err(Refusal::Forged(_))), "{other:?}");
    let last = signed.payload.len() - 1;
    signed.payload[last] ^= 1;
    let changed = open(Some(&signed), &NETWORK, node(), NOW);
    assert!(matches!(changed, Err(Refusal::Forged(_))), "{changed:?}");
}

#[test]
fn nobody_joins_with_anothers_report() {
    let signed = Signed::sign(&report(), &NETWORK, &key());
    let thief = NodeId::new([9; 32]);
    let shown = open(Some(&signed), &NETWORK, thief, NOW);
    assert_eq!(shown, Err(Refusal::OtherNode));
    let signed_by_thief = Signed::sign(&report(), &NETWORK, &SecretKey::from_seed([2; 32]));
    let shown = open(Some(&signed_by_thief), &NETWORK, node(), NOW);
    assert_eq!(shown, Err(Refusal::OtherNode));
}

#[test]
fn what_is_wrong_says_what_to_type() {
    let change = |change: fn(&mut Report)| {
        let mut report = report();
        change(&mut report);
        let refusal = opened(&report).unwrap_err();
        let body = ErrorBody::from(refusal.clone());
        assert!(body.help.is_some_and(|help| !help.is_empty()));
        (refusal, body.code)
    };
    let wrong = [
        change(|r| r.work.products[0].right = false),
        change(|r| r.work.trainings[1].loss = 0.9),
        change(|r| r.work.trainings[1].loss = f32::NAN),
        change(|r| r.work.trainings[1].model = "other".into()),
        change(|r| r.work.trainings.truncate(2)),
        change(|r| r.work.products.clear()),
        change(|r| r.work.filled.right = false),
        change(|r| r.work.endurance.last_mflops = 0),
    ];
    for (refusal, code) in wrong {
        assert!(matches!(refusal, Refusal::Wrong(_)), "{refusal:?}");
        assert_eq!(code, "computes_wrongly");
    }
    let (refusal, _) = change(|r| r.made = NOW.plus_ms(AHEAD_LIMIT_MS + 3_000));
    assert_eq!(refusal, Refusal::FromTheFuture { ahead_s: 63 });
    assert_eq!(change(|r| r.version = 1).0, Refusal::Version(1));
    let long = change(|r| r.machine.devices = vec!["CPU".into(); 33]);
    assert_eq!(long.0, Refusal::Long);
}

#[test]
fn a_kept_report_holds_until_something_changes() {
    let present = || Present {
        node: node(),
        release: "1".into(),
        machine: report().machine,
        endure_ms: 5_000,
        fill_bytes: (2 << 30) + 1,
        age_limit_ms: 1_000,
    };
    assert_eq!(stale(&report(), &present(), NOW), None);
    assert_eq!(stale(&report(), &present(), NOW.plus_ms(999)), None);
    let old = stale(&report(), &present(), NOW.plus_ms(1_000));
    let early = stale(&report(), &present(), Timestamp::from_ms(1));
    assert!(old.is_some() && early.is_some());
    let changes: [fn(&mut Present); 6] = [
        |p| p.node = NodeId::new([9; 32]),
        |p| p.release = "2".into(),
        |p| p.machine.threads = 1,
        |p| p.machine.memory_bytes *= 2,
        |p| p.endure_ms = 5_001,
        |p| p.fill_bytes += 1,
    ];
    for change in changes {
        let mut changed = present();
        change(&mut changed);
        assert!(stale(&report(), &changed, NOW).is_some(), "{changed:?}");
    }
    let mut short = report();
    short.work.filled.bytes /= 4;
    let most = Present {
        fill_bytes: short.work.filled.wanted,
        ..present()
    };
    assert!(stale(&short, &most, NOW).is_some(), "others needed it then");
    short.work.filled.ms = FILL_LIMIT_MS;
    assert_eq!(stale(&short, &most, NOW), None, "it is not filled faster");
    let mut wrong = report();
    wrong.work.products[0].right = false;
    assert!(stale(&wrong, &present(), NOW).is_some());
}

#[test]
fn what_a_machine_loses_when_it_is_hot_it_does_not_promise() {
    let mut work = report().work;
    work.paces = vec![Pace {
        step: Step {
            flops: 600_000,
            parameters: 1,
        },
        gradients_ns: 500_000,
        update_ns: 100_000,
    }];
    let kept = |ms, last_mflops| {
        let mut work = work.clone();
        (work.endurance.ms, work.endurance.last_mflops) = (ms, last_mflops);
        kept_paces(&work)[0].mflops()
    };
    assert_eq!(kept(60_000, 6_000), 750);
    assert_eq!(
        kept(60_000, 9_000),
        1_000,
        "no machine is faster than it was"
    );
    assert_eq!(kept(200, 6_000), 1_000, "no heat in moments");
}

#[test]
fn no_more_memory_is_claimed_than_was_filled() {
    let filled = 1 << 30;
    assert_eq!(memory(Some(filled + 1), &report()), Some(filled));
    assert_eq!(memory(Some(5), &report()), Some(5));
    assert_eq!(
        memory(None, &report()),
        None,
        "what nobody says counts for the least"
    );
}
