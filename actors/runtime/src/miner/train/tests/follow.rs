//! A newcomer's thread takes the state of a member that trains, and is one of them from a step's end on, bit for bit.

use std::sync::mpsc as std_mpsc;

use cryptomind_net::ring::{Follower, Guide, Heard as AtSocket};
use cryptomind_protocol::NodeAddress;
use cryptomind_protocol::follow::{Follow, Piece};

use super::*;

const FOLLOW: Follow = Follow {
    task: TaskId::new([1; 16]),
    attempt: 1,
};
/// Of any piece here.
const MOST: usize = 1 << 20;

/// A member of a group, on its thread.
struct Member {
    trainer: Trainer,
    calls: Arc<AtomicBool>,
    followers: std_mpsc::Sender<Follower>,
    _stay: watch::Sender<bool>,
}

async fn members(plan: impl Fn() -> Plan, world: u32) -> Vec<Member> {
    let mut members = Vec::new();
    for (ring, rank) in rings(world).await.into_iter().zip(0..) {
        let trainer = started(plan()).await;
        members.push(trains(trainer, ring, rank, world));
    }
    members
}

fn trains(trainer: Trainer, ring: Ring, rank: u32, world: u32) -> Member {
    let (mut leg, stay) = leg(ring, rank, world);
    let (followers, arriving) = std_mpsc::channel();
    leg.followers = Followers::new(arriving);
    let calls = Arc::clone(&leg.calls);
    trainer.train(leg);
    Member {
        trainer,
        calls,
        followers,
        _stay: stay,
    }
}

/// A socket of a member's, one of a newcomer's, and the way from this to that.
async fn sockets() -> (RingSocket, RingSocket, Guide) {
    let local = (Ipv4Addr::LOCALHOST, 0).into();
    let bind = |n| RingSocket::bind(local, key(n), GenesisHash::new([1; 32])).unwrap();
    let (member, newcomer) = (bind(8), bind(9));
    let at = |n, socket: &RingSocket| NodeAddress {
        node: NodeId::of_key(&key(n).public()),
        host: Ipv4Addr::LOCALHOST.to_string(),
        port: socket.local_addr().port(),
    };
    member.know([at(9, &newcomer)]);
    newcomer.know([at(8, &member)]);
    let guide = newcomer.guide();
    (member, newcomer, guide)
}

/// Has a thread follow a member, over real sockets.
async fn follow(newcomer: &Trainer, member: &Member) {
    let (mut socket, own, guide) = sockets().await;
    let arrives = async {
        match socket.hear().await {
            AtSocket::Follower(follower) => follower,
            AtSocket::Word(from, _) => panic!("{from} talks"),
        }
    };
    let of = NodeId::of_key(&key(8).public());
    let (follower, following) = tokio::join!(arrives, guide.follow(of, FOLLOW, MOST));
    member.followers.send(follower).unwrap();
    let mut following = following.unwrap();
    let (pieces, taken) = mpsc::channel(4);
    newcomer.follow(7, taken);
    tokio::spawn(async move {
        let _held = (socket, own);
        while let Ok(passed) = following.next().await
            && pieces.send(passed).await.is_ok()
        {}
    });
}

/// Where a thread stands at rest.
async fn stands(trainer: &mut Trainer) -> (u64, Hash) {
    trainer.save();
    match next(trainer).await {
        Event::Checkpoint {
            step, fingerprint, ..
        } => (step, fingerprint),
        _ => panic!("it rests"),
    }
}

/// Hears a thread until it has left its ring, or whom it followed.
async fn left(trainer: &mut Trainer) {
    loop {
        match next(trainer).await {
            Event::Left | Event::Unfollowed(7) => return,
            Event::Done(_) => panic!("it was to leave before the end"),
            Event::Failed(fault) => panic!("{fault:?}"),
            Event::Broken { reason, .. } | Event::Astray(reason) => panic!("{reason}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_has_the_members_bits_where_they_leave_and_trains_on_with_them() {
    let (dir, info) = digits();
    for wire in Wire::ALL {
        let plan = || {
            let mut plan = plan(dir.path(), &info, 3e-3);
            (plan.train.epochs, plan.train.wire) = (400, wire);
            // None is due but at the end.
            plan.train.checkpoint_steps = 1_000_000;
            plan
        };
        let mut members = members(plan, 2).await;
        let mut newcomer = started(plan()).await;
        follow(&newcomer, &members[1]).await;
        let Event::Level { step } = next(&mut newcomer).await else {
            panic!("{wire}: it takes a state, and says no more")
        };
        // It takes steps too.
        while newcomer.committed() <= step {
            drop(next(&mut members[0].trainer).await);
        }
        // One of two: they train on.
        members[0].calls.store(true, Ordering::SeqCst);
        let before = members[0].trainer.committed();
        while members[0].trainer.committed() < before + 3 {
            drop(next(&mut members[0].trainer).await);
        }
        members[1].calls.store(true, Ordering::SeqCst);
        let mut states = Vec::new();
        for member in &mut members {
            left(&mut member.trainer).await;
            states.push(stands(&mut member.trainer).await);
        }
        left(&mut newcomer).await;
        states.push(stands(&mut newcomer).await);
        assert!(
            states.iter().all(|state| *state == states[0]),
            "{wire}: {states:?}"
        );
        // All three, on a ring of their own.
        let threads = members.into_iter().map(|member| member.trainer);
        let mut legs = rings(3).await.into_iter().zip(0..);
        let mut three: Vec<_> = threads
            .chain([newcomer])
            .map(|thread| {
                let (ring, rank) = legs.next().unwrap();
                trains(thread, ring, rank, 3)
            })
            .collect();
        let before = states[0].0;
        while three[0].trainer.committed() < before + 5 {
            drop(next(&mut three[0].trainer).await);
        }
        three
            .iter()
            .for_each(|member| member.calls.store(true, Ordering::SeqCst));
        let mut states = Vec::new();
        for member in &mut three {
            left(&mut member.trainer).await;
            states.push(stands(&mut member.trainer).await);
        }
        assert!(
            states.iter().all(|state| *state == states[0]),
            "{wire}: {states:?}"
        );
    }
}

/// What leads nowhere is said, and the next state counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_that_is_led_astray_begins_anew() {
    let (dir, info) = digits();
    let plan = || plan(dir.path(), &info, 3e-3);
    let mut member = started(plan()).await;
    member.save();
    let Event::Checkpoint { state, .. } = next(&mut member).await else {
        panic!("a checkpoint")
    };
    let state = state.unwrap();
    let (step, bytes) = (0, state.len() as u64);
    let passed = |piece, bytes, ms| Passed {
        piece,
        bytes,
        took: Duration::from_millis(ms),
    };
    // So slowly that it is level by its steps alone.
    let whole = passed(Piece::State { step, bytes }, state.clone(), 10_000);
    let sums = |step, values: usize| {
        let piece = Piece::Sums {
            step,
            samples: 10,
            values: values as u64,
        };
        passed(piece, vec![0; 4 * values], 0)
    };
    let (step, newest) = (1, 1);
    let committed = passed(Piece::Committed { step, newest }, Vec::new(), 0);
    let parameters = 8 * 8 * 16 + 16 + 16 * 10 + 10;
    let mut not_finite = sums(1, parameters);
    not_finite.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let no_state = passed(Piece::State { step: 0, bytes: 3 }, vec![1, 2, 3], 0);
    let astray = [
        sums(2, parameters),
        sums(1, 3),
        not_finite,
        committed.clone(),
        no_state,
    ];
    let mut newcomer = started(plan()).await;
    let (pieces, taken) = mpsc::channel(4);
    newcomer.follow(7, taken);
    for wrong in astray {
        pieces.send(whole.clone()).await.unwrap();
        pieces.send(wrong).await.unwrap();
        assert!(matches!(next(&mut newcomer).await, Event::Astray(_)));
        // Until there is a state again, nothing counts.
        pieces.send(sums(1, parameters)).await.unwrap();
        pieces.send(committed.clone()).await.unwrap();
    }
    for piece in [whole, sums(1, parameters), committed] {
        pieces.send(piece).await.unwrap();
    }
    assert!(matches!(
        next(&mut newcomer).await,
        Event::Level { step: 1 }
    ));
    // One that comes at once says the same by itself.
    let at_once = passed(Piece::State { step: 0, bytes }, state, 1);
    pieces.send(at_once).await.unwrap();
    assert!(matches!(
        next(&mut newcomer).await,
        Event::Level { step: 0 }
    ));
    drop(pieces);
    assert!(matches!(next(&mut newcomer).await, Event::Unfollowed(7)));
    assert_eq!(newcomer.committed(), 0);
}
