//! A member's state on its way to a newcomer: whole and in order, or not at all.

use bytes::Bytes;
use cryptomind_protocol::follow::{Follow, Piece};
use cryptomind_protocol::frame::ALPN_FOLLOW;
use cryptomind_protocol::{ErrorBody, TaskId};
use tokio::time::timeout;

use super::{NETWORK, SOON, address, key, loopback, node};
use crate::ring::{Follower, Following, GivenUp, Heard, RingSocket};
use crate::{Endpoint, Limits};

const FOLLOW: Follow = Follow {
    task: TaskId::new([5; 16]),
    attempt: 3,
};
const MOST: usize = 1 << 20;
/// More than what is on its way at once.
const LARGE: usize = 64 << 20;

fn socket(n: u8) -> RingSocket {
    RingSocket::bind(loopback(), key(n), NETWORK).unwrap()
}

/// A member, and a newcomer that it knows.
fn two() -> (RingSocket, RingSocket) {
    let (member, newcomer) = (socket(0), socket(1));
    member.know([address(node(1), newcomer.local_addr())]);
    newcomer.know([address(node(0), member.local_addr())]);
    (member, newcomer)
}

async fn followed(member: &mut RingSocket) -> Follower {
    match timeout(SOON, member.hear()).await.unwrap() {
        Heard::Follower(follower) => follower,
        Heard::Word(from, _) => panic!("{from} talks"),
    }
}

async fn linked(member: &mut RingSocket, newcomer: &RingSocket) -> (Follower, Following) {
    let guide = newcomer.guide();
    let (follower, following) =
        tokio::join!(followed(member), guide.follow(node(0), FOLLOW, LARGE));
    (follower, following.unwrap())
}

async fn next(following: &mut Following) -> Result<(Piece, Vec<u8>), ErrorBody> {
    let passed = timeout(SOON, following.next()).await.unwrap();
    passed.map(|passed| (passed.piece, passed.bytes))
}

const fn committed(step: u64, newest: u64) -> Piece {
    Piece::Committed { step, newest }
}

#[tokio::test]
async fn pieces_come_whole_and_in_order() {
    let (mut member, newcomer) = two();
    let (mut follower, mut following) = linked(&mut member, &newcomer).await;
    assert_eq!((follower.node(), follower.follow()), (node(1), FOLLOW));
    let state = Bytes::from((0..MOST).map(|at| at as u8).collect::<Vec<_>>());
    let bytes = state.len() as u64;
    let sums = Piece::Sums {
        step: 8,
        samples: 10,
        values: 3,
    };
    let pieces = [
        (Piece::State { step: 7, bytes }, state.clone()),
        (sums, Bytes::from_static(&[1; 12])),
        (committed(8, 8), Bytes::new()),
    ];
    follower.give(7, state).unwrap();
    for (piece, bytes) in pieces.clone().into_iter().skip(1) {
        follower.pass(piece, bytes).unwrap();
    }
    follower.end();
    let pieces = pieces.into_iter().chain([(Piece::End {}, Bytes::new())]);
    for (piece, bytes) in pieces {
        assert_eq!(next(&mut following).await.unwrap(), (piece, bytes.to_vec()));
    }
    assert!(next(&mut following).await.is_err(), "that was the last one");
}

/// How far it is behind, it learns when a piece leaves and not when it was made.
#[tokio::test]
async fn what_waited_says_how_far_the_member_is_by_then() {
    let (mut member, newcomer) = two();
    let (mut follower, mut following) = linked(&mut member, &newcomer).await;
    follower.give(0, Bytes::from(vec![0; LARGE])).unwrap();
    for step in 1..=20 {
        follower.pass(committed(step, step), Bytes::new()).unwrap();
    }
    next(&mut following).await.unwrap();
    for step in 1..=20 {
        let (piece, _) = next(&mut following).await.unwrap();
        assert_eq!(piece, committed(step, 20));
    }
}

#[tokio::test]
async fn a_member_that_breaks_off_is_no_end() {
    let (mut member, newcomer) = two();
    let (follower, mut following) = linked(&mut member, &newcomer).await;
    follower.pass(committed(8, 8), Bytes::new()).unwrap();
    assert!(next(&mut following).await.is_ok());
    drop(follower);
    assert!(next(&mut following).await.is_err());
    let (follower, mut following) = linked(&mut member, &newcomer).await;
    drop(member);
    drop(follower);
    assert!(next(&mut following).await.is_err());
}

/// The newest connection of a newcomer counts: those before it take nothing more.
#[tokio::test]
async fn a_newcomer_follows_once_at_a_time() {
    let (mut member, newcomer) = two();
    let (_first, mut before) = linked(&mut member, &newcomer).await;
    let (second, mut after) = linked(&mut member, &newcomer).await;
    assert!(next(&mut before).await.is_err());
    second.pass(committed(8, 8), Bytes::new()).unwrap();
    assert!(next(&mut after).await.is_ok());
}

/// Its member never waits for it, and holds no more than so much.
#[tokio::test]
async fn a_newcomer_that_reads_nothing_is_passed_no_more() {
    let (mut member, newcomer) = two();
    let (mut follower, following) = linked(&mut member, &newcomer).await;
    let large = Bytes::from(vec![0; LARGE]);
    let sums = Piece::Sums {
        step: 1,
        samples: 1,
        values: LARGE as u64 / 4,
    };
    follower.give(0, large.clone()).unwrap();
    let passed = (0..8).map_while(|_| follower.pass(sums, large.clone()).ok());
    let passed = passed.count();
    assert!((2..8).contains(&passed), "{passed} of 64 MiB");
    let behind = follower.pass(sums, large.clone());
    assert_eq!(behind, Err(GivenUp::Behind));
    follower.give(2, large).expect("a state takes it further");
    drop(following);
    let gone = async {
        while follower.give(3, Bytes::new()) != Err(GivenUp::Gone) {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn strangers_do_not_follow() {
    let (member, stranger) = (socket(0), socket(2));
    stranger.know([address(node(0), member.local_addr())]);
    match stranger.guide().follow(node(0), FOLLOW, MOST).await {
        Ok(mut taken) => assert!(next(&mut taken).await.is_err()),
        Err(refused) => assert_ne!(refused.code, "member_not_found"),
    }
    let unknown = stranger.guide().follow(node(1), FOLLOW, MOST).await;
    assert_eq!(unwrap_err(unknown).code, "member_not_found");
}

fn unwrap_err(following: Result<Following, ErrorBody>) -> ErrorBody {
    following.err().unwrap()
}

/// What a false member sends is refused before memory is taken for it.
#[tokio::test]
async fn what_is_no_piece_or_too_large_is_refused() {
    let own = key(0);
    let alpns = &[ALPN_FOLLOW];
    let endpoint = Endpoint::serve(loopback(), own, NETWORK, alpns, Limits::default()).unwrap();
    let newcomer = socket(1);
    newcomer.know([address(node(0), endpoint.local_addr())]);
    let bytes = MOST as u64 + 1;
    let too_large = Piece::State { step: 1, bytes };
    let too_many = Piece::Sums {
        step: 1,
        samples: 1,
        values: u64::MAX,
    };
    for (piece, code) in [
        (too_large, "frame_too_large"),
        (too_many, "frame_too_large"),
    ] {
        let sends = async {
            let caller = endpoint.accept().await.unwrap().establish().await.unwrap();
            let mut stream = caller.open_uni().await.unwrap();
            stream.frame(&piece).await.unwrap();
            (caller, stream)
        };
        let guide = newcomer.guide();
        let (_held, following) = tokio::join!(sends, guide.follow(node(0), FOLLOW, MOST));
        let error = next(&mut following.unwrap()).await.unwrap_err();
        assert_eq!(error.code, code);
    }
    let sends = async {
        let caller = endpoint.accept().await.unwrap().establish().await.unwrap();
        let mut stream = caller.open_uni().await.unwrap();
        stream.bytes(&[0, 0, 0, 2, 0xff, 0xff]).await.unwrap();
        (caller, stream)
    };
    let guide = newcomer.guide();
    let (_held, following) = tokio::join!(sends, guide.follow(node(0), FOLLOW, MOST));
    let error = next(&mut following.unwrap()).await.unwrap_err();
    assert_eq!(error.code, "malformed_frame");
}
