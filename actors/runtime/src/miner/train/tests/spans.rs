//! Where a step's time went: what is told of it, and that what is back is applied while the rest is on its way.

use super::*;

/// Of two bundles: its middle layer's gradients are more than one alone.
fn wide(dir: &Path, info: &DatasetInfo, clip_norm: Option<f32>) -> Plan {
    let mut plan = plan(dir, info, 3e-3);
    plan.model.layers = vec![
        Layer::linear(1024),
        Layer::Relu {},
        Layer::linear(300),
        Layer::Relu {},
        Layer::linear(10),
    ];
    plan.train.clip_norm = clip_norm;
    (plan.train.epochs, plan.train.global_batch) = (1, 240);
    plan.train.checkpoint_steps = 1;
    plan
}

fn stages(timeline: &[Span]) -> Vec<Stage> {
    timeline.iter().map(|span| span.stage).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_go_around_and_are_applied_one_after_the_other() {
    use Stage::{Apply, Compute, Confirm, Ring};
    let (dir, info) = digits();
    for clip_norm in [None, Some(1.0)] {
        let heard = group(2, || wide(dir.path(), &info, clip_norm)).await;
        assert_eq!(heard[0].checkpoints, heard[1].checkpoints);
        assert_eq!(heard[0].checkpoints.len(), 6);
        assert!(!heard[0].timelines.is_empty());
        for timeline in &heard[0].timelines {
            let expected = [Compute, Ring, Apply, Ring, Apply, Confirm];
            assert_eq!(stages(timeline), expected);
            let [compute, first, early, second, late, confirm] = timeline[..] else {
                unreachable!("six, as above")
            };
            assert!(
                first.begin_us <= compute.end_us(),
                "leaves while it computes"
            );
            assert!(first.begin_us <= second.begin_us && first.end_us() <= second.end_us());
            for (ring, apply) in [(first, early), (second, late)] {
                assert!(compute.end_us() <= apply.begin_us && ring.end_us() <= apply.begin_us);
            }
            assert!(early.end_us() <= late.begin_us && late.end_us() <= confirm.begin_us);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_nothing_goes_around() {
    let (dir, info) = digits();
    let heard = group(1, || wide(dir.path(), &info, None)).await;
    for timeline in &heard[0].timelines {
        let expected = [Stage::Compute, Stage::Apply, Stage::Confirm];
        assert_eq!(stages(timeline), expected);
    }
}
