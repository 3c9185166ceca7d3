//! What is kept of progress: each event without the timeline, and the newest timeline once.

use cryptomind_protocol::timeline::{Span, Stage};

use super::*;

fn progress(step: u64, us: u64) -> Report {
    let span = Span {
        stage: Stage::Compute,
        begin_us: 0,
        us,
    };
    Report::Progress {
        step,
        loss: 1.0,
        samples_per_s: 1,
        timeline: vec![span],
    }
}

#[test]
fn the_newest_timeline_is_kept_once() {
    let mut world = World::new();
    world.match_three();
    for (step, us) in [(1, 10), (2, 20), (3, 30)] {
        let input = Input::Reported {
            node: node(1),
            attempt: world.run.attempt,
            report: progress(step, us),
            stored_by: None,
        };
        let mut run = world.run.clone();
        let effects = run.apply(input.clone(), &Surroundings::default(), world.now);
        let [Effect::Tell { event, .. }] = &effects[..] else {
            panic!("{effects:?}");
        };
        assert!(
            matches!(event, Event::Progress { timeline, .. } if timeline.is_empty()),
            "{event:?}"
        );
        world.feed(input);
        let kept: Vec<u64> = world.run.timeline.iter().map(|span| span.us).collect();
        assert_eq!((world.run.progress_step, kept), (step, vec![us]));
    }
    // Old news, and that of another rank.
    world.report(1, progress(2, 99));
    world.report(2, progress(5, 99));
    assert_eq!(world.run.timeline[0].us, 30);
}
