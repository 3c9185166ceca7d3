//! A step that is applied part by part, as its sums come back.

use super::layers::images;
use super::*;

/// Every rule, with and without clipping.
fn clipped_or_not() -> Vec<TrainSpec> {
    let rules = every_rule().into_iter().flat_map(|rule| {
        let clip_norm = None;
        [
            TrainSpec {
                clip_norm,
                ..rule.clone()
            },
            rule,
        ]
    });
    rules.collect()
}

/// Ways to divide an arena of this length whose buckets came in this order.
fn divisions(buckets: &[Range<usize>], len: usize) -> Vec<Vec<Range<usize>>> {
    let mut stream = Stream::new("test", 3, "divisions");
    let backwards: Vec<_> = buckets.iter().rev().cloned().collect();
    let mut ends: Vec<usize> = (0..9).map(|_| stream.below(len as u64) as usize).collect();
    ends.extend([0, 1, len - 1, len]);
    ends.sort_unstable();
    // Two ends may be one: some of these are empty.
    let mut odd: Vec<_> = ends.windows(2).map(|w| w[0]..w[1]).collect();
    let last = odd.pop().unwrap();
    stream.shuffle(&mut odd);
    odd.push(last);
    vec![buckets.to_vec(), backwards, odd, vec![0..len]]
}

fn buckets(session: &mut Session, data: &Samples, batch: &[u32]) -> Vec<Range<usize>> {
    let mut buckets = Vec::new();
    let on_bucket = &mut |bucket: crate::Bucket<'_>| buckets.push(bucket.range);
    session.grad_step(data, batch, on_bucket).unwrap();
    buckets
}

/// With running statistics, which follow, and parameters that do not decay.
#[test]
fn parts_lead_to_the_bits_of_the_whole_in_any_order() {
    let cases = [(mixed(), samples(40, 6, 4)), (images(), samples(40, 42, 3))];
    for (model, data) in cases {
        for spec in clipped_or_not() {
            let session = || Session::with_threads(&model, &spec, 2).unwrap();
            let (mut whole, mut probe) = (session(), session());
            let given = buckets(&mut probe, &data, &[0]);
            let ways = divisions(&given, whole.parameter_count());
            let mut sessions: Vec<_> = ways.into_iter().map(|way| (session(), way)).collect();
            for batch in [[1, 2, 3], [4, 5, 6], [7, 8, 9]] {
                whole.grad_step(&data, &batch, &mut |_| ()).unwrap();
                whole.apply(7).unwrap();
                let roots = whole.prepared_roots();
                whole.commit();
                for (session, way) in &mut sessions {
                    session.grad_step(&data, &batch, &mut |_| ()).unwrap();
                    for part in way.iter() {
                        assert!(!session.is_prepared(), "not before the last");
                        session.apply_part(part.clone(), 7).unwrap();
                    }
                    assert_eq!(session.prepared_roots(), roots, "{way:?}");
                    session.commit();
                    assert_eq!(session.fingerprint(), whole.fingerprint(), "{way:?}");
                }
            }
        }
    }
}

/// The ring broke while the sums came: nothing of the half is left.
#[test]
fn a_half_applied_step_can_be_redone_bit_by_bit() {
    let data = samples(40, 6, 4);
    for spec in clipped_or_not() {
        let mut straight = Session::new(&mixed(), &spec).unwrap();
        step(&mut straight, &data, &[1, 2, 3]);
        let before = (straight.fingerprint(), straight.checkpoint());
        step(&mut straight, &data, &[4, 5]);
        for discards in [true, false] {
            let mut session = Session::new(&mixed(), &spec).unwrap();
            step(&mut session, &data, &[1, 2, 3]);
            let given = buckets(&mut session, &data, &[6, 7, 8]);
            session.apply_part(given[0].clone(), 3).unwrap();
            assert!(!session.is_prepared() && session.prepared_roots().is_none());
            session.commit();
            assert_eq!((session.fingerprint(), session.checkpoint()), before);
            if discards {
                session.discard();
            }
            step(&mut session, &data, &[4, 5]);
            assert_eq!(session.fingerprint(), straight.fingerprint());
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused_and_change_nothing() {
    let data = samples(5, 6, 4);
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    let refused = |session: &mut Session, part: Range<usize>, count, says: &str| {
        let error = session.apply_part(part, count).unwrap_err();
        assert!(matches!(error, EngineError::Order(_)), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    refused(&mut session, 0..165, 1, "grad_step first");
    session.grad_step(&data, &[0], &mut |_| ()).unwrap();
    let none = "no such part";
    refused(&mut session, 160..166, 1, none);
    refused(&mut session, usize::MAX - 1..usize::MAX, 1, none);
    refused(&mut session, Range { start: 9, end: 8 }, 1, none);
    refused(&mut session, 0..165, 0, "0 samples");
    session.apply_part(63..133, 2).unwrap();
    refused(&mut session, 132..165, 2, "already");
    refused(&mut session, 133..165, 1, "as many samples");
    refused(&mut session, 133..165, 0, "as many samples");
    assert!(matches!(session.apply(2), Err(EngineError::Order(_))));
    session.apply_part(133..165, 2).unwrap();
    session.apply_part(0..63, 2).unwrap();
    refused(&mut session, 0..0, 2, "prepared already");
    session.commit();
    let mut whole = Session::new(&mixed(), &adamw()).unwrap();
    whole.grad_step(&data, &[0], &mut |_| ()).unwrap();
    whole.apply(2).unwrap();
    whole.commit();
    assert_eq!(session.fingerprint(), whole.fingerprint());
}

#[test]
fn what_is_not_finite_in_a_part_is_refused_with_its_layer() {
    let data = samples(5, 6, 4);
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    let before = session.fingerprint();
    session.grad_step(&data, &[0], &mut |_| ()).unwrap();
    session.gradients()[64] = f32::NAN;
    session.apply_part(133..165, 1).unwrap();
    let error = session.apply_part(63..133, 1).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("step 1: gradient of layer 4"), "{said}");
    assert!(!session.is_prepared());
    assert_eq!(session.fingerprint(), before);
    // All parts anew, once it is a number.
    session.gradients()[64] = 0.0;
    session.apply_part(63..133, 1).unwrap();
    assert!(!session.is_prepared());
    session.apply_part(133..165, 1).unwrap();
    session.apply_part(0..63, 1).unwrap();
    assert!(session.is_prepared());
}
