//! Rings over real sockets: right sums, and every fault named.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cryptomind_protocol::frame::{ALPN_MEMBER, ALPN_RING};
use cryptomind_protocol::ring::{EVICT_MS, Link, Wire};
use cryptomind_protocol::succession::{Ballot, Message, Word};
use cryptomind_protocol::{NodeId, TaskId};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use futures_util::future::join_all as all;

use super::{NETWORK, SOON, address, key, loopback, node};
use crate::ring::{Buffer, Heard, Profile, Ring, RingError, RingPlan, RingSocket};
use crate::{Connection, Endpoint, Limits};

const TASK: TaskId = TaskId::new([5; 16]);
/// Within this, all members must know of a member that fell silent.
const NOTICED: Duration = Duration::from_millis(2_500);

fn socket(rank: usize) -> RingSocket {
    RingSocket::bind(loopback(), key(rank as u8), NETWORK).unwrap()
}

fn sockets(world: usize) -> Vec<RingSocket> {
    (0..world).map(socket).collect()
}

/// The plan of rank 0; the others differ in rank.
fn plan(sockets: &[RingSocket]) -> RingPlan {
    RingPlan {
        task: TASK,
        attempt: 1,
        rank: 0,
        members: (0..sockets.len()).map(|rank| node(rank as u8)).collect(),
        addresses: sockets
            .iter()
            .map(|socket| socket.local_addr().to_string())
            .collect(),
        wire: Wire::F32,
        profile: None,
        limit: SOON,
    }
}

fn for_rank(plan: &RingPlan, rank: usize) -> RingPlan {
    RingPlan {
        rank: rank as u32,
        ..plan.clone()
    }
}

async fn join_all(sockets: &[RingSocket], plan: &RingPlan) -> Vec<Ring> {
    let mut rings = Vec::new();
    let joins = sockets
        .iter()
        .enumerate()
        .map(|(rank, socket)| socket.join(for_rank(plan, rank)));
    for ring in all(joins).await {
        rings.push(ring.unwrap());
    }
    rings
}

fn values(rank: usize, len: usize) -> Vec<f32> {
    (0..len)
        .map(|at| ((rank * 7919 + at * 104_729) % 1009) as f32 * 0.37 - 150.0)
        .collect()
}

/// The sum in the order that the schedule promises.
fn promised(world: usize, len: usize) -> Vec<u32> {
    let inputs: Vec<_> = (0..world).map(|rank| values(rank, len)).collect();
    let mut sums = vec![0; len];
    for (segment, cut) in (0..).zip(cryptomind_core::ring::segments(len, world)) {
        for at in cut {
            let ranks = (1..=world).map(|step| (segment + step) % world);
            let sum = ranks.map(|rank| inputs[rank][at]).reduce(|a, b| a + b);
            sums[at] = sum.unwrap().to_bits();
        }
    }
    sums
}

/// Sums in the exact format.
async fn sum(ring: &Ring, values: Vec<f32>) -> Result<Vec<f32>, RingError> {
    let summed = ring.sum(Wire::F32, Buffer::of(values)).await;
    summed.map(|buffer| buffer.values)
}

async fn leave_all(rings: Vec<Ring>) {
    all(rings.into_iter().map(Ring::leave)).await;
}

#[tokio::test]
async fn every_world_sums_right_and_bit_equal() {
    for world in 1..=4 {
        let sockets = sockets(world);
        let rings = join_all(&sockets, &plan(&sockets)).await;
        for len in [0, 1, 2, 3, 5, 1_000, 300_007] {
            let sums = rings.iter().enumerate();
            let sums = sums.map(|(rank, ring)| sum(ring, values(rank, len)));
            let expected = promised(world, len);
            for summed in all(sums).await {
                let bits: Vec<_> = summed.unwrap().iter().map(|v| v.to_bits()).collect();
                assert_eq!(bits, expected, "{world} ranks, {len} values");
            }
        }
        let sent: Vec<_> = rings.iter().map(|ring| ring.sent().frame_bytes).collect();
        assert!(
            sent.iter().all(|bytes| (*bytes > 0) == (world > 1)),
            "{sent:?}"
        );
        leave_all(rings).await;
    }
}

/// On a local network: full frames, and few acknowledgements.
#[tokio::test]
async fn links_fill_frames_and_are_acknowledged_seldom() {
    let own = key(1);
    let limits = Limits::default();
    let server = Endpoint::serve(loopback(), own, NETWORK, &[ALPN_RING], limits).unwrap();
    let to = address(node(1), server.local_addr());
    let dialler = Endpoint::dialler().unwrap();
    let caller = key(2);
    let (dialled, accepted) = tokio::join!(
        dialler.dial_by(&to, ALPN_RING, &caller, Some(Profile::Lan)),
        async { server.accept().await.unwrap().establish().await }
    );
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    let read = tokio::spawn(async move {
        let mut data = accepted.quic().accept_uni().await.unwrap();
        while data.read_chunk(usize::MAX, true).await.unwrap().is_some() {}
        accepted
    });
    let mut data = dialled.quic().open_uni().await.unwrap();
    let block = vec![0; 256 * 1024];
    let mut blocks = 0;
    let write = async {
        while blocks < 64 || dialled.quic().stats().path.current_mtu != 1_472 {
            data.write_all(&block).await.unwrap();
            blocks += 1;
        }
        data.finish().unwrap();
        data.stopped().await.unwrap();
    };
    tokio::time::timeout(SOON, write).await.unwrap();
    let stats = dialled.quic().stats();
    assert_eq!(stats.frame_tx.ack_frequency, 1);
    let (packets, acknowledgements) = (stats.udp_tx.datagrams, stats.frame_rx.acks);
    // Every 64th, and those of the windows' updates.
    assert!(
        acknowledgements * 16 < packets,
        "{acknowledgements} for {packets}"
    );
    // What is not the stream's: flags, id, number, frame and tag, and the handshake.
    let overhead = stats.udp_tx.bytes - blocks * block.len() as u64;
    assert!(
        overhead < 33 * packets,
        "{overhead} bytes in {packets} packets"
    );
    drop(read.await.unwrap());
}

/// Coarse formats: near the exact sum, and the same bits everywhere.
#[tokio::test]
async fn every_wire_format_gives_all_ranks_the_same_bits() {
    for (wire, world) in Wire::ALL
        .into_iter()
        .flat_map(|w| (2..=4).map(move |n| (w, n)))
    {
        let sockets = sockets(world);
        let plan = RingPlan {
            wire,
            ..plan(&sockets)
        };
        let rings = join_all(&sockets, &plan).await;
        for len in [1, 3, 700, 100_003] {
            let sums = rings.iter().enumerate().map(|(rank, ring)| {
                let residual = vec![0.0; len];
                let values = values(rank, len);
                ring.sum(wire, Buffer { values, residual })
            });
            let sums: Vec<Buffer> = all(sums).await.into_iter().map(Result::unwrap).collect();
            for other in &sums[1..] {
                let bits = |buffer: &Buffer| {
                    buffer
                        .values
                        .iter()
                        .map(|v| v.to_bits())
                        .collect::<Vec<_>>()
                };
                assert_eq!(bits(other), bits(&sums[0]), "{wire}, {world} ranks");
            }
            // Sums are below 4 · 223: a part in 128 of that a rounding in bf16, a part in 254 in int8.
            let exact = promised(world, len).into_iter().map(f32::from_bits);
            let furthest = exact
                .zip(&sums[0].values)
                .map(|(exact, sum)| (exact - sum).abs())
                .fold(0.0, f32::max);
            let allowed = match wire {
                Wire::F32 => 0.0,
                Wire::Bf16 => world as f32 * 3.5,
                Wire::Int8 => world as f32 * 3.5,
            };
            assert!(furthest <= allowed, "{wire}: {furthest}");
        }
        leave_all(rings).await;
    }
}

/// Buckets are started one after another, and nobody waits for one before the next.
#[tokio::test]
async fn sums_that_are_started_together_are_done_in_their_order() {
    let sockets = sockets(3);
    let rings = join_all(&sockets, &plan(&sockets)).await;
    let started: Vec<_> = rings
        .iter()
        .map(|ring| {
            let bucket = |at: usize| ring.sum(Wire::F32, Buffer::of(vec![at as f32; 100 * at]));
            (0..20).map(bucket).collect::<Vec<_>>()
        })
        .collect();
    for (at, summing) in started.into_iter().flatten().enumerate() {
        let at = at % 20;
        let summed = summing.await.unwrap().values;
        assert_eq!(summed, vec![3.0 * at as f32; 100 * at]);
    }
    leave_all(rings).await;
}

#[tokio::test]
async fn the_rank_that_sends_what_is_no_number_is_named_by_all() {
    for (wire, bad) in [
        (Wire::F32, f32::NAN),
        (Wire::Bf16, f32::INFINITY),
        (Wire::Int8, f32::NAN),
    ] {
        let sockets = sockets(3);
        let plan = RingPlan {
            wire,
            ..plan(&sockets)
        };
        let rings = join_all(&sockets, &plan).await;
        let sums = rings.iter().enumerate().map(|(rank, ring)| {
            let mut values = values(rank, 3_000);
            if rank == 1 {
                values.fill(bad);
            }
            ring.sum(wire, Buffer::of(values))
        });
        for summed in all(sums).await {
            let error = summed.unwrap_err();
            assert_eq!(error.suspect(), Some(node(1)), "{wire}: {error}");
        }
    }
}

#[tokio::test]
async fn a_sum_that_overflows_is_nobodys_fault_and_all_know_who_found_it() {
    let sockets = sockets(3);
    let rings = join_all(&sockets, &plan(&sockets)).await;
    // One value in all: it grows too large where the second of three adds its own.
    let sums = rings.iter().map(|ring| sum(ring, vec![f32::MAX]));
    let errors: Vec<_> = all(sums)
        .await
        .into_iter()
        .map(Result::unwrap_err)
        .collect();
    let RingError::Overflow { rank, node: found } = errors[0].clone() else {
        panic!("{errors:?}");
    };
    assert_eq!(found, node(rank as u8));
    for error in errors {
        assert_eq!(error, RingError::Overflow { rank, node: found });
        assert_eq!(error.suspect(), None);
    }
}

/// What nobody reads yet must not take the room of the pings: one member comes a while after the other, which has sent all
/// that the windows hold by then.
#[tokio::test]
async fn a_member_may_come_late_to_a_large_sum() {
    let sockets = sockets(2);
    let rings = join_all(&sockets, &plan(&sockets)).await;
    let len = 5_000_000;
    let early = sum(&rings[1], vec![1.0; len]);
    let late = async {
        // That this much time passes is the case: longer than a silent neighbour is waited for.
        tokio::time::sleep(Duration::from_millis(EVICT_MS + 1_000)).await;
        sum(&rings[0], vec![2.0; len]).await
    };
    let (early, late) = tokio::join!(early, late);
    assert!(early.unwrap().iter().all(|sum| *sum == 3.0));
    assert!(late.unwrap().iter().all(|sum| *sum == 3.0));
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error() {
    let first = socket(0);
    let again = RingSocket::bind(first.local_addr(), key(1), NETWORK);
    assert_eq!(again.err().unwrap().code, "cannot_bind");
}

#[tokio::test]
async fn a_format_that_was_not_planned_is_refused() {
    let sockets = sockets(3);
    let rings = join_all(&sockets, &plan(&sockets)).await;
    for summed in all(rings
        .iter()
        .map(|ring| ring.sum(Wire::Int8, Buffer::of(vec![1.0]))))
    .await
    {
        let error = summed.unwrap_err();
        assert!(
            matches!(error, RingError::Plan { .. } | RingError::GaveUp { .. }),
            "{error}"
        );
    }
    let owed_too_much = Buffer {
        values: vec![1.0],
        residual: vec![0.0; 2],
    };
    let error = rings[0].sum(Wire::F32, owed_too_much).await.unwrap_err();
    assert!(
        matches!(error, RingError::Plan { .. } | RingError::GaveUp { .. }),
        "{error}"
    );
}

/// Each member leaves as soon as it has its own sum: what it sent last must still arrive.
#[tokio::test]
async fn leaving_right_after_a_sum_takes_nothing_from_the_others() {
    let sockets = sockets(3);
    let mut plan = plan(&sockets);
    for attempt in 1..=5 {
        plan.attempt = attempt;
        let rings = join_all(&sockets, &plan).await;
        let calls = rings.into_iter().enumerate().map(async |(rank, ring)| {
            let done = sum(&ring, values(rank, 50_000)).await;
            ring.leave().await;
            done
        });
        for done in all(calls).await {
            done.unwrap();
        }
    }
}

#[tokio::test]
async fn a_barrier_waits_for_the_last_member() {
    let sockets = sockets(3);
    for last in 0..3 {
        let entered = Arc::new(AtomicUsize::new(0));
        let (go, gone) = oneshot::channel::<()>();
        let mut gone = Some(gone);
        let mut members = JoinSet::new();
        let again = join_again(&sockets, last).await;
        for (rank, ring) in again.into_iter().enumerate() {
            let entered = entered.clone();
            let wait = (rank == last).then(|| gone.take().unwrap());
            members.spawn(async move {
                if let Some(wait) = wait {
                    wait.await.unwrap();
                }
                entered.fetch_add(1, Ordering::SeqCst);
                ring.barrier().await.unwrap();
                assert_eq!(
                    entered.load(Ordering::SeqCst),
                    3,
                    "rank {rank} passed early"
                );
                ring
            });
        }
        while entered.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        // Both others have entered. Traffic of a whole ping interval passes before the last one may go.
        assert!(
            tokio::time::timeout(Duration::from_millis(300), members.join_next())
                .await
                .is_err()
        );
        go.send(()).unwrap();
        members.join_all().await;
    }
}

async fn join_again(sockets: &[RingSocket], attempt: usize) -> Vec<Ring> {
    let mut plan = plan(sockets);
    plan.attempt = 10 + attempt as u32;
    join_all(sockets, &plan).await
}

/// In a ring of `world`, rank 1 freezes while the others sum `len` values. All must name it, in time.
async fn others_name_a_frozen_member(world: usize, len: usize) {
    let sockets = sockets(world);
    let mut rings = join_all(&sockets, &plan(&sockets)).await;
    let _frozen = rings.remove(1);
    // Its sockets stay open and it says nothing more, as if its machine had lost power.
    sockets[1].freeze();
    let since = Instant::now();
    let others = (0..world).filter(|rank| *rank != 1).zip(rings);
    let calls = others.map(async |(rank, ring)| {
        let error = sum(&ring, values(rank, len)).await.unwrap_err();
        let noticed = since.elapsed();
        // And from then on at once.
        assert_eq!(sum(&ring, vec![]).await, Err(error.clone()));
        assert_eq!(ring.barrier().await, Err(error.clone()));
        (error, noticed)
    });
    for (error, noticed) in all(calls).await {
        assert_eq!(error.suspect(), Some(node(1)), "{error}");
        assert!(noticed < NOTICED, "{noticed:?}: {error}");
    }
}

#[tokio::test]
async fn all_others_name_a_member_that_fell_silent_while_they_read() {
    others_name_a_frozen_member(4, 100).await;
}

/// Far more than all windows take: the rank before the silent one is blocked in its write.
#[tokio::test]
async fn all_others_name_a_member_that_fell_silent_while_they_write() {
    others_name_a_frozen_member(3, 12_000_000).await;
}

#[tokio::test]
async fn a_member_that_leaves_is_known_at_once_and_under_no_suspicion() {
    let sockets = sockets(4);
    let mut rings = join_all(&sockets, &plan(&sockets)).await;
    let leaver = rings.remove(2);
    let since = Instant::now();
    let calls = rings.iter().map(async |ring| {
        let error = sum(ring, vec![1.0; 64]).await.unwrap_err();
        (error, since.elapsed())
    });
    let (ended, ()) = tokio::join!(all(calls), leaver.leave());
    for (error, noticed) in ended {
        assert!(matches!(error, RingError::Left { rank: 2, .. }), "{error}");
        assert_eq!(error.suspect(), None);
        assert!(noticed < Duration::from_millis(1_400), "{noticed:?}");
    }
}

#[tokio::test]
async fn members_that_disagree_are_out_of_step_and_never_summed() {
    let sockets = sockets(3);
    let rings = join_all(&sockets, &plan(&sockets)).await;
    let calls = rings.iter().zip([30, 30, 33]);
    let ended = all(calls.map(|(ring, len)| sum(ring, vec![1.0; len]))).await;
    assert!(ended.iter().all(Result::is_err), "{ended:?}");
    let out_of_step = |done: &Result<_, RingError>| matches!(done, Err(RingError::OutOfStep { expected, got, .. }) if expected.values != got.values);
    assert!(ended.iter().any(out_of_step), "{ended:?}");
}

#[tokio::test]
async fn a_barrier_does_not_pass_for_a_sum() {
    let sockets = sockets(2);
    let mut rings = join_all(&sockets, &plan(&sockets)).await;
    let (second, first) = (rings.pop().unwrap(), rings.pop().unwrap());
    let (sum, barrier) = tokio::join!(sum(&first, vec![]), second.barrier());
    assert!(sum.is_err() && barrier.is_err());
    let mut ended = [sum.map(drop), barrier].into_iter();
    assert!(ended.any(|done| matches!(done, Err(RingError::OutOfStep { .. }))));
}

#[tokio::test]
async fn a_sum_that_nobody_waits_for_is_done_all_the_same() {
    let sockets = sockets(2);
    let rings = join_all(&sockets, &plan(&sockets)).await;
    drop(rings[0].sum(Wire::F32, Buffer::of(vec![1.0; 8])));
    assert_eq!(sum(&rings[1], vec![2.0; 8]).await, Ok(vec![3.0; 8]));
    leave_all(rings).await;
}

#[tokio::test]
async fn a_dropped_ring_is_a_member_that_left() {
    let sockets = sockets(2);
    let mut rings = join_all(&sockets, &plan(&sockets)).await;
    let (second, first) = (rings.pop().unwrap(), rings.pop().unwrap());
    let under_way = first.sum(Wire::F32, Buffer::of(vec![1.0; 8]));
    drop(first);
    assert_eq!(under_way.await, Err(RingError::Ended));
    let error = second.barrier().await;
    assert!(
        matches!(error, Err(RingError::Left { rank: 0, .. })),
        "{error:?}"
    );
}

/// What a ring socket says to whoever dials it with `link` and this key.
async fn knock(
    at: std::net::SocketAddr,
    who: NodeId,
    as_key: u8,
    link: &Link,
) -> Option<Connection> {
    let dialler = Endpoint::dialler().unwrap();
    let to = address(who, at);
    let connection = dialler.dial(&to, ALPN_RING, &key(as_key)).await.ok()?;
    let mut data = connection.open_uni().await.unwrap();
    data.frame(link).await.unwrap();
    std::mem::forget(data); // Keeps the stream open: the stranger stays as long as it may.
    Some(connection)
}

#[tokio::test]
async fn strangers_are_refused_and_disturb_nobody() {
    let sockets = sockets(3);
    let plan = plan(&sockets);
    let rings = join_all(&sockets, &plan).await;
    let link = |attempt, rank| Link {
        task: TASK,
        attempt,
        rank,
    };
    // At rank 0, whose rank before is 2: a stranger; a member that is no neighbour; the right one once more; an old attempt.
    let cases = [
        (77, link(1, 2)),
        (1, link(1, 1)),
        (2, link(1, 2)),
        (2, link(0, 2)),
    ];
    for (as_key, link) in cases {
        let knocking = knock(sockets[0].local_addr(), node(0), as_key, &link).await;
        let reason = knocking.unwrap().closed().await;
        assert!(reason.contains("no neighbour"), "{reason}");
        for done in all(rings.iter().map(|ring| sum(ring, vec![1.0; 7]))).await {
            assert_eq!(done, Ok(vec![3.0; 7]));
        }
    }
}

/// Else whoever dials again and again would hold more and more of a member's memory.
#[tokio::test]
async fn a_link_that_comes_to_nothing_is_closed_once_its_rank_dials_again() {
    /// Sooner than a link is given up that never pings.
    const AT_ONCE: Duration = Duration::from_secs(1);
    let (dialler, sockets) = (Mute::bind(0), sockets(2));
    let link = Link {
        task: TASK,
        attempt: 1,
        rank: 0,
    };
    let knocking = || knock(sockets[1].local_addr(), node(1), 0, &link);
    let closed = async |connection: Connection| {
        let closed = tokio::time::timeout(AT_ONCE, connection.closed());
        closed.await.expect("closed at once")
    };
    let joining = sockets[1].join(for_rank(&plan(&sockets), 1));
    let knocks = async {
        // It does not ping, so it becomes no link.
        let first = knocking().await.unwrap();
        let second = dialler.make(&sockets[1]).await;
        closed(first).await;
        // The second one is a link, and stands: nobody is waited for any more.
        let refused = closed(knocking().await.unwrap()).await;
        assert!(refused.contains("no neighbour"), "{refused}");
        second
    };
    tokio::select! {
        _ = joining => panic!("nobody has joined it"),
        _second = knocks => {}
    }
}

/// Its pings may stand behind its data, on a path whose queue is long.
#[tokio::test]
async fn who_sends_data_that_nobody_reads_yet_is_not_silent() {
    let (talker, sockets) = (Mute::bind(0), sockets(3));
    let join = sockets[1].join(for_rank(&plan(&sockets), 1));
    let talks = async {
        let (connection, _streams) = talker.make(&sockets[1]).await;
        let mut other = connection.open_uni().await.unwrap();
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let begin = Instant::now();
        while begin.elapsed() < NOTICED {
            tick.tick().await;
            other.bytes(&[0; 100]).await.unwrap();
        }
        Instant::now()
    };
    let (joined, until) = tokio::join!(join, talks);
    let (error, noticed) = (joined.err().unwrap(), until.elapsed());
    assert_eq!(error.suspect(), Some(node(0)), "{error}");
    assert!(noticed < NOTICED, "{noticed:?}");
}

#[tokio::test]
async fn a_neighbour_that_dials_before_the_plan_is_known_is_let_in_later() {
    let sockets = sockets(2);
    let plan = plan(&sockets);
    let (joined, waiting) = oneshot::channel::<()>();
    let early = async {
        let join = sockets[0].join(for_rank(&plan, 0));
        tokio::pin!(join);
        // Long enough to be at the other's door.
        let waited = tokio::time::timeout(Duration::from_millis(300), &mut join).await;
        assert!(waited.is_err());
        joined.send(()).unwrap();
        join.await
    };
    let late = async {
        waiting.await.unwrap();
        sockets[1].join(for_rank(&plan, 1)).await
    };
    let (early, late) = tokio::join!(early, late);
    assert!(early.is_ok() && late.is_ok());
}

#[tokio::test]
async fn who_does_not_come_is_named() {
    let sockets = sockets(3);
    let plan = RingPlan {
        limit: Duration::from_millis(700),
        ..plan(&sockets)
    };
    let joins = (0..2).map(|rank| sockets[rank].join(for_rank(&plan, rank)));
    for (rank, joined) in all(joins).await.into_iter().enumerate() {
        let error = joined.err().unwrap();
        assert_eq!(error.suspect(), Some(node(2)), "rank {rank}: {error}");
    }
}

/// A neighbour that has a link and then says nothing more, while its connection stands.
struct Mute {
    at: Endpoint,
    rank: u32,
}

impl Mute {
    fn bind(rank: u32) -> Self {
        let alpns = &[ALPN_RING];
        let at = Endpoint::serve(
            loopback(),
            key(rank as u8),
            NETWORK,
            alpns,
            Limits::default(),
        );
        let at = at.unwrap();
        Self { at, rank }
    }

    /// Takes the link of the rank before. Returns it, and what keeps it open.
    async fn take(&self) -> (Connection, impl Sized + use<>) {
        let connection = self.at.accept().await.unwrap().establish().await.unwrap();
        let link = connection.accept_uni().await.unwrap();
        let pings = self.ping(&connection).await;
        (connection, (link, pings))
    }

    /// Makes a link with the rank ahead. Returns it, and what keeps it open.
    async fn make(&self, to: &RingSocket) -> (Connection, impl Sized + use<>) {
        let as_key = self.rank as u8;
        let link = Link {
            task: TASK,
            attempt: 1,
            rank: self.rank,
        };
        let ahead = node(as_key + 1);
        let knocking = knock(to.local_addr(), ahead, as_key, &link).await;
        let connection = knocking.unwrap();
        let pings = self.ping(&connection).await;
        let yes = connection.accept_uni().await.unwrap();
        (connection, (pings, yes))
    }

    /// The one ping that opens the stream.
    async fn ping(&self, connection: &Connection) -> impl Sized + use<> {
        let mut pings = connection.open_uni().await.unwrap();
        pings.bytes(&[0]).await.unwrap();
        pings
    }
}

/// Others are still fetching data, but who has come already is watched: all that have links name it.
#[tokio::test]
async fn who_falls_silent_while_others_have_not_come_is_named() {
    let (mute, sockets) = (Mute::bind(2), sockets(4));
    let mut plan = plan(&sockets);
    plan.addresses[2] = mute.at.local_addr().to_string();
    let joins = [0, 1].map(|rank| sockets[rank].join(for_rank(&plan, rank)));
    let mute = async { (mute.take().await, Instant::now()) };
    let (joined, (_link, since)) = tokio::join!(all(joins), mute);
    let noticed = since.elapsed();
    for joined in joined {
        let error = joined.err().unwrap();
        assert_eq!(error.suspect(), Some(node(2)), "{error}");
    }
    assert!(noticed < NOTICED, "{noticed:?}");
}

#[tokio::test]
async fn who_called_and_fell_silent_is_named_by_who_waits_for_another() {
    let (mute, sockets) = (Mute::bind(0), sockets(3));
    let join = sockets[1].join(for_rank(&plan(&sockets), 1));
    let mute = async {
        let link = mute.make(&sockets[1]).await;
        (link, Instant::now())
    };
    let (joined, (_link, since)) = tokio::join!(join, mute);
    let (error, noticed) = (joined.err().unwrap(), since.elapsed());
    assert_eq!(error.suspect(), Some(node(0)), "{error}");
    assert!(noticed < NOTICED, "{noticed:?}");
}

#[tokio::test]
async fn members_with_links_wait_for_who_comes_late() {
    let sockets = sockets(3);
    let plan = plan(&sockets);
    let early = [0, 1].map(|rank| sockets[rank].join(for_rank(&plan, rank)));
    let late = async {
        // That this much time passes is the case: longer than a silent neighbour is waited for.
        tokio::time::sleep(Duration::from_millis(EVICT_MS + 500)).await;
        sockets[2].join(for_rank(&plan, 2)).await
    };
    let (early, late) = tokio::join!(all(early), late);
    let rings: Vec<_> = early
        .into_iter()
        .chain([late])
        .map(Result::unwrap)
        .collect();
    leave_all(rings).await;
}

#[tokio::test]
async fn who_gives_up_joining_is_known_at_once_and_under_no_suspicion() {
    let sockets = sockets(3);
    let plan = plan(&sockets);
    let mute = Mute::bind(2);
    let plan_of_1 = RingPlan {
        addresses: vec![
            plan.addresses[0].clone(),
            plan.addresses[1].clone(),
            mute.at.local_addr().to_string(),
        ],
        ..for_rank(&plan, 1)
    };
    let leaver = sockets[1].join(plan_of_1);
    let leaver = async {
        tokio::select! {
            _ = leaver => unreachable!("rank 0 has not come"),
            link = mute.take() => link,
        }
    };
    // Whoever takes the link as rank 2 learns that rank 1 is gone.
    let (connection, _streams) = leaver.await;
    tokio::time::timeout(SOON, connection.closed())
        .await
        .unwrap();
    // And who comes now finds it past this ring.
    let error = sockets[0].join(plan).await.err().unwrap();
    assert!(matches!(error, RingError::Left { rank: 1, .. }), "{error}");
}

#[tokio::test]
async fn another_node_at_the_next_address_is_refused() {
    let sockets = sockets(3);
    let mut plan = plan(&sockets);
    plan.addresses[1] = plan.addresses[2].clone();
    let error = sockets[0].join(plan).await.err().unwrap();
    assert!(
        matches!(error, RingError::Broken { rank: 1, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_plan_without_sense_is_refused_before_anything_is_dialled() {
    let sockets = sockets(2);
    let mut plan = plan(&sockets);
    plan.addresses[1] = "nowhere".into();
    let error = sockets[0].join(plan).await.err().unwrap();
    assert!(matches!(error, RingError::Plan { .. }), "{error}");
}

fn word(round: u32) -> Word {
    Word {
        task: TASK,
        attempt: 1,
        message: Message::Prepare {
            ballot: Ballot { round, rank: 0 },
        },
    }
}

async fn hear(socket: &mut RingSocket) -> (NodeId, Word) {
    match tokio::time::timeout(SOON, socket.hear()).await.unwrap() {
        Heard::Word(from, word) => (from, word),
        Heard::Follower(follower) => panic!("{} follows", follower.node()),
    }
}

#[tokio::test]
async fn members_talk_over_their_ring_sockets_while_their_ring_works() {
    let mut sockets = sockets(3);
    let plan = plan(&sockets);
    let addresses: Vec<_> = (0..3)
        .map(|n| address(node(n), sockets[usize::from(n)].local_addr()))
        .collect();
    sockets
        .iter()
        .for_each(|socket| socket.know(addresses.clone()));
    let rings = join_all(&sockets, &plan).await;
    let sums = rings.iter().map(|ring| sum(ring, vec![1.0; 100_000]));
    for (from, to) in [(0, 1), (0, 2), (2, 0), (1, 0)] {
        sockets[from].tell(node(to as u8), word(1 + from as u32));
        assert_eq!(
            hear(&mut sockets[to]).await,
            (node(from as u8), word(1 + from as u32))
        );
    }
    for summed in all(sums).await {
        assert_eq!(summed.unwrap()[0], 3.0);
    }
    // In order, over one stream.
    (10..20).for_each(|round| sockets[0].tell(node(1), word(round)));
    for round in 10..20 {
        assert_eq!(hear(&mut sockets[1]).await, (node(0), word(round)));
    }
    leave_all(rings).await;
}

#[tokio::test]
async fn strangers_and_what_is_no_word_are_not_heard() {
    let mut here = socket(0);
    let at = address(node(0), here.local_addr());
    let (friend, stranger) = (socket(1), socket(2));
    here.know([address(node(1), friend.local_addr())]);
    for socket in [&friend, &stranger] {
        socket.know([at.clone()]);
    }
    stranger.tell(node(0), word(1));
    let dialler = Endpoint::dialler().unwrap();
    for nonsense in [&[0, 0, 0, 2, 0xff, 0xff][..], &[0xff; 4]] {
        let connection = dialler.dial(&at, ALPN_MEMBER, &key(1)).await.unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        stream.bytes(nonsense).await.unwrap();
        tokio::time::timeout(SOON, connection.closed())
            .await
            .unwrap();
    }
    let reason = match dialler.dial(&at, ALPN_MEMBER, &key(2)).await {
        Ok(taken) => tokio::time::timeout(SOON, taken.closed()).await.unwrap(),
        Err(refused) => refused.message,
    };
    assert!(reason.contains("no neighbour"), "{reason}");
    friend.tell(node(0), word(2));
    assert_eq!(hear(&mut here).await, (node(1), word(2)));
}

/// One who talks without end waits until it is heard, and keeps nobody else from being heard.
#[tokio::test]
async fn one_that_talks_without_end_waits() {
    let mut here = socket(0);
    let (loud, quiet) = (socket(1), socket(2));
    let at = address(node(0), here.local_addr());
    here.know([1, 2].map(|n| address(node(n), "127.0.0.1:9".parse().unwrap())));
    quiet.know([at.clone()]);
    let dialler = Endpoint::dialler().unwrap();
    let connection = dialler.dial(&at, ALPN_MEMBER, &key(1)).await.unwrap();
    let mut stream = connection.open_uni().await.unwrap();
    let talking = tokio::spawn(async move {
        while stream.frame(&word(7)).await.is_ok() {}
        drop(connection);
    });
    assert_eq!(hear(&mut here).await, (node(1), word(7)));
    quiet.tell(node(0), word(8));
    while hear(&mut here).await != (node(2), word(8)) {}
    talking.abort();
    drop(loud);
}

/// Who is being dialled does not answer; the socket goes all the same, and its port is free.
#[tokio::test]
async fn a_dial_under_way_does_not_hold_the_port() {
    let here = socket(0);
    let at = here.local_addr();
    let deaf = std::net::UdpSocket::bind(loopback()).unwrap();
    here.know([address(node(1), deaf.local_addr().unwrap())]);
    here.tell(node(1), word(1));
    // The dial is under way once it has sent something.
    let heard = tokio::task::spawn_blocking(move || {
        deaf.set_read_timeout(Some(SOON)).unwrap();
        deaf.recv_from(&mut [0; 2048]).map(|_| deaf)
    });
    let _deaf = heard.await.unwrap().unwrap();
    drop(here);
    let again = async {
        while std::net::UdpSocket::bind(at).is_err() {
            tokio::task::yield_now().await;
        }
    };
    // It is free once peers were told, which has a limit; a dial has a longer one.
    let limit = Duration::from_secs(3);
    tokio::time::timeout(limit, again).await.unwrap();
}
