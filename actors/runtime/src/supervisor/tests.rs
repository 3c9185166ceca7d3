use std::sync::Mutex;

use super::*;

/// Counts; what it counted lies outside it, as redb does.
struct Counter;

#[derive(Clone, Default)]
struct Stored(Arc<Mutex<Vec<u64>>>);

enum CounterMsg {
    Add(u64),
    Total(RpcReplyPort<u64>),
    Hang(RpcReplyPort<u64>),
    Panic,
}

impl Actor for Counter {
    type Msg = CounterMsg;
    type State = (Stored, u64);
    type Arguments = (Stored, Arc<Mutex<bool>>);

    async fn pre_start(
        &self,
        _: ActorRef<CounterMsg>,
        (stored, broken): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        if *broken.lock().unwrap() {
            return Err("the disk is gone".into());
        }
        let total = stored.0.lock().unwrap().iter().sum();
        Ok((stored, total))
    }

    async fn handle(
        &self,
        _: ActorRef<CounterMsg>,
        message: CounterMsg,
        (stored, total): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CounterMsg::Add(n) => {
                stored.0.lock().unwrap().push(n);
                *total += n;
            }
            CounterMsg::Total(reply) => reply.send(*total)?,
            CounterMsg::Hang(_reply) => std::future::pending().await,
            CounterMsg::Panic => panic!("planted"),
        }
        Ok(())
    }
}

const LIMIT: Duration = Duration::from_secs(1);

struct World {
    tree: Tree,
    counter: Handle<CounterMsg>,
    stored: Stored,
    broken: Arc<Mutex<bool>>,
}

async fn world() -> World {
    let (seat, counter) = seat("counter");
    let (stored, broken) = (Stored::default(), Arc::new(Mutex::new(false)));
    let arguments = (stored.clone(), Arc::clone(&broken));
    let child = Child::new(seat, move || (Counter, arguments.clone()));
    let tree = Tree::start(Limits::default(), vec![child]).await.unwrap();
    World {
        tree,
        counter,
        stored,
        broken,
    }
}

async fn total(counter: &Handle<CounterMsg>) -> Result<u64, ErrorBody> {
    counter.call(CounterMsg::Total, LIMIT).await
}

#[tokio::test(start_paused = true)]
async fn a_killed_child_comes_back_with_its_state() {
    let w = world().await;
    w.counter.cast(CounterMsg::Add(2)).unwrap();
    w.counter.cast(CounterMsg::Add(3)).unwrap();
    assert_eq!(total(&w.counter).await.unwrap(), 5);
    let before = w.counter.actor().unwrap();
    before.kill();
    let after = w.counter.successor(Some(&before)).await.unwrap();
    assert_ne!(before, after);
    assert_eq!(total(&w.counter).await.unwrap(), 5);
    w.tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_during_the_restart_is_answered() {
    let w = world().await;
    let before = w.counter.actor().unwrap();
    let hanging = tokio::spawn({
        let counter = w.counter.clone();
        async move { counter.call(CounterMsg::Hang, LIMIT).await }
    });
    tokio::task::yield_now().await;
    before.kill_and_wait(None).await.unwrap();
    for answer in [hanging.await.unwrap(), total(&w.counter).await] {
        let error = answer.unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.retry_after_ms),
            ("restarting", Some(200))
        );
    }
    w.counter.successor(Some(&before)).await.unwrap();
    assert_eq!(total(&w.counter).await.unwrap(), 0);
    w.tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn too_slow_an_answer_is_overdue() {
    let w = world().await;
    let error = w.counter.call(CounterMsg::Hang, LIMIT).await.unwrap_err();
    assert_eq!(error.code, "overdue");
    w.counter.actor().unwrap().kill();
    w.tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deaths_beyond_the_window_fail_upward() {
    let w = world().await;
    for _ in 0..Limits::default().restarts {
        let before = w.counter.actor().unwrap();
        w.counter.cast(CounterMsg::Panic).unwrap();
        w.counter.successor(Some(&before)).await.unwrap();
    }
    w.counter.cast(CounterMsg::Panic).unwrap();
    let reason = w.tree.failed().await;
    assert!(
        reason.contains("counter") && reason.contains("planted"),
        "{reason}"
    );
    assert!(w.counter.cast(CounterMsg::Add(1)).is_err());
}

#[tokio::test(start_paused = true)]
async fn deaths_far_apart_are_forgiven() {
    let w = world().await;
    for _ in 0..3 * Limits::default().restarts {
        let before = w.counter.actor().unwrap();
        before.kill();
        w.counter.successor(Some(&before)).await.unwrap();
        tokio::time::sleep(Limits::default().window / 4).await;
    }
    assert_eq!(total(&w.counter).await.unwrap(), 0);
    w.tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_cannot_start_again_fails_upward() {
    let w = world().await;
    *w.broken.lock().unwrap() = true;
    w.counter.actor().unwrap().kill();
    let reason = w.tree.failed().await;
    assert!(reason.contains("the disk is gone"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_tree_whose_child_cannot_start_says_which() {
    let (seat, _counter) = seat("counter");
    let arguments = (Stored::default(), Arc::new(Mutex::new(true)));
    let child = Child::new(seat, move || (Counter, arguments.clone()));
    let error = Tree::start(Limits::default(), vec![child])
        .await
        .unwrap_err();
    assert!(
        error.message.contains("the counter cannot start"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn stopping_works_off_the_queue() {
    let w = world().await;
    (1..=100).for_each(|n| w.counter.cast(CounterMsg::Add(n)).unwrap());
    w.tree.stop().await;
    assert_eq!(w.stored.0.lock().unwrap().iter().sum::<u64>(), 5050);
    assert!(total(&w.counter).await.is_err());
}
