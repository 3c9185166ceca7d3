//! Rings over real sockets: right sums, and every fault named.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cryptomind_protocol::frame::ALPN_RING;
use cryptomind_protocol::ring::Link;
use cryptomind_protocol::{NodeId, TaskId};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{NETWORK, SOON, address, key, loopback, node};
use crate::ring::{Ring, RingError, RingPlan, RingSocket};
use crate::{Connection, Endpoint};

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

/// Runs the futures at the same time; results in their order.
async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut running {
            if output.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(context)
            {
                *output = Some(done);
            }
        }
        if running.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
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

async fn leave_all(rings: Vec<Ring>) {
    all(rings.into_iter().map(Ring::leave)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_world_sums_right_and_bit_equal() {
    for world in 1..=4 {
        let sockets = sockets(world);
        let mut rings = join_all(&sockets, &plan(&sockets)).await;
        for len in [0, 1, 2, 3, 5, 1_000, 300_007] {
            let mut buffers: Vec<_> = (0..world).map(|rank| values(rank, len)).collect();
            let calls = rings.iter_mut().zip(&mut buffers);
            for done in all(calls.map(|(ring, buffer)| ring.all_reduce(buffer))).await {
                done.unwrap();
            }
            let expected = promised(world, len);
            for buffer in &buffers {
                let bits: Vec<_> = buffer.iter().map(|value| value.to_bits()).collect();
                assert_eq!(bits, expected, "{world} ranks, {len} values");
            }
        }
        let sent: Vec<_> = rings.iter().map(Ring::sent_bytes).collect();
        assert!(
            sent.iter().all(|bytes| (*bytes > 0) == (world > 1)),
            "{sent:?}"
        );
        leave_all(rings).await;
    }
}

/// Each member leaves as soon as it has its own sum: what it sent last must still arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_right_after_a_sum_takes_nothing_from_the_others() {
    let sockets = sockets(3);
    let mut plan = plan(&sockets);
    for attempt in 1..=5 {
        plan.attempt = attempt;
        let rings = join_all(&sockets, &plan).await;
        let calls = rings.into_iter().enumerate().map(async |(rank, mut ring)| {
            let mut buffer = values(rank, 50_000);
            let done = ring.all_reduce(&mut buffer).await;
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
        for (rank, mut ring) in again.into_iter().enumerate() {
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

/// A member on a thread of its own that can be frozen whole: its sockets stay open and it says nothing more, as if
/// its machine had lost power.
struct Freezable {
    at: std::net::SocketAddr,
    plan: oneshot::Sender<RingPlan>,
    freeze: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Freezable {
    fn start(rank: usize) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (plan, planned) = oneshot::channel();
        let (freeze, frozen) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = socket(rank);
                tell.send(socket.local_addr()).unwrap();
                let plan = planned.await.unwrap();
                let ring = socket.join(for_rank(&plan, rank)).await.unwrap();
                frozen.await.unwrap();
                // Dropping them would say goodbye.
                std::mem::forget((ring, socket));
            });
            // Nobody drives it any more, and its tasks are not dropped either.
            std::mem::forget(runtime);
        });
        Self {
            at: told.recv().unwrap(),
            plan,
            freeze,
            thread,
        }
    }

    fn freeze(freeze: oneshot::Sender<()>, thread: std::thread::JoinHandle<()>) {
        freeze.send(()).unwrap();
        thread.join().unwrap();
    }
}

/// In a ring of `world`, rank 1 freezes while the others sum `len` values. All must name it, in time.
async fn others_name_a_frozen_member(world: usize, len: usize) {
    let Freezable {
        at,
        plan: tell_plan,
        freeze,
        thread,
    } = Freezable::start(1);
    let others: Vec<_> = (0..world).filter(|rank| *rank != 1).collect();
    let sockets: Vec<_> = others.iter().map(|rank| socket(*rank)).collect();
    let address_of = |rank: usize| match others.iter().position(|other| *other == rank) {
        Some(at) => sockets[at].local_addr().to_string(),
        None => at.to_string(),
    };
    let plan = RingPlan {
        task: TASK,
        attempt: 1,
        rank: 0,
        members: (0..world).map(|rank| node(rank as u8)).collect(),
        addresses: (0..world).map(address_of).collect(),
        limit: SOON,
    };
    tell_plan.send(plan.clone()).unwrap();
    let joins = others.iter().zip(&sockets);
    let rings = all(joins.map(|(rank, socket)| socket.join(for_rank(&plan, *rank)))).await;
    Freezable::freeze(freeze, thread);
    let since = Instant::now();
    let calls = others.iter().zip(rings).map(async |(rank, ring)| {
        let mut ring = ring.unwrap();
        let error = ring.all_reduce(&mut values(*rank, len)).await.unwrap_err();
        let noticed = since.elapsed();
        // And from then on at once.
        assert_eq!(ring.all_reduce(&mut []).await, Err(error.clone()));
        assert_eq!(ring.barrier().await, Err(error.clone()));
        (error, noticed)
    });
    for (error, noticed) in all(calls).await {
        assert_eq!(error.suspect(), Some(node(1)), "{error}");
        assert!(noticed < NOTICED, "{noticed:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_others_name_a_member_that_fell_silent_while_they_read() {
    others_name_a_frozen_member(4, 100).await;
}

/// Far more than all windows take: the rank before the silent one is blocked in its write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_others_name_a_member_that_fell_silent_while_they_write() {
    others_name_a_frozen_member(3, 12_000_000).await;
}

#[tokio::test]
async fn a_member_that_leaves_is_known_at_once_and_under_no_suspicion() {
    let sockets = sockets(4);
    let mut rings = join_all(&sockets, &plan(&sockets)).await;
    let leaver = rings.remove(2);
    let since = Instant::now();
    let calls = rings.iter_mut().map(async |ring| {
        let error = ring.all_reduce(&mut [1.0; 64]).await.unwrap_err();
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
    let mut rings = join_all(&sockets, &plan(&sockets)).await;
    let lens = [30, 30, 33];
    let calls = rings.iter_mut().zip(lens);
    let ended =
        all(calls.map(async |(ring, len)| ring.all_reduce(&mut vec![1.0; len]).await)).await;
    assert!(ended.iter().all(Result::is_err), "{ended:?}");
    let out_of_step = |done: &Result<(), RingError>| matches!(done, Err(RingError::OutOfStep { expected, got, .. }) if expected.values != got.values);
    assert!(ended.iter().any(out_of_step), "{ended:?}");
}

#[tokio::test]
async fn a_barrier_does_not_pass_for_a_sum() {
    let sockets = sockets(2);
    let mut rings = join_all(&sockets, &plan(&sockets)).await;
    let (mut second, mut first) = (rings.pop().unwrap(), rings.pop().unwrap());
    let mut nothing = [];
    let (sum, barrier) = tokio::join!(first.all_reduce(&mut nothing), second.barrier());
    assert!(sum.is_err() && barrier.is_err());
    let mut ended = [sum, barrier].into_iter();
    assert!(ended.any(|done| matches!(done, Err(RingError::OutOfStep { .. }))));
}

#[tokio::test]
async fn a_cancelled_call_ends_the_ring() {
    let sockets = sockets(2);
    let mut rings = join_all(&sockets, &plan(&sockets)).await;
    let (mut second, mut first) = (rings.pop().unwrap(), rings.pop().unwrap());
    {
        let mut values = [1.0; 8];
        let mut call = Box::pin(first.all_reduce(&mut values));
        // Polled once, then dropped: the other member has not entered.
        assert!(
            tokio::time::timeout(Duration::ZERO, &mut call)
                .await
                .is_err()
        );
    }
    assert_eq!(first.barrier().await, Err(RingError::Interrupted));
    let error = second
        .all_reduce(&mut [1.0; 8])
        .await
        .and(second.barrier().await);
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
    let mut rings = join_all(&sockets, &plan).await;
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
        let calls = rings.iter_mut().map(async |ring| {
            let mut ones = [1.0; 7];
            ring.all_reduce(&mut ones).await.map(|()| ones)
        });
        for done in all(calls).await {
            assert_eq!(done, Ok([3.0; 7]));
        }
    }
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
