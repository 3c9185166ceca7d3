//! What a training holds of memory: no more than was said, and nothing new after the first steps.

use super::layers::{classed, dropping, images, pooled, sequences};
use super::*;
use crate::engine::{Cpu, Engine};

/// Samples of a step: growing, falling, and in the end the most. In other orders kernels divide their work otherwise.
const SIZES: [u32; 8] = [5, 9, 2, 33, 1, 32, 8, 40];
const STEPS: usize = 300;

fn pass(network: &mut Network, parameters: &[f32], data: &Samples, size: u32, number: u64) {
    let mut arena = vec![0.0; parameters.len()];
    let batch: Vec<u32> = (0..size).collect();
    let step = Step {
        parameters,
        data,
        batch: &batch,
        seed: 1,
        number,
    };
    assert!(network.gradients(step, &mut arena, &mut |_| ()).is_ok());
}

#[test]
fn buffers_stay_as_they_are_and_within_the_estimate() {
    for model in [images(), sequences(), pooled(), mixed()].map(dropping) {
        let data = classed(&model, 40);
        let parameters = crate::initial::parameters(&model, 1);
        for threads in [1, 3] {
            let mut network = Network::new(&model, threads).unwrap();
            let mut sizes = SIZES.iter().copied().cycle();
            let mut steps = 0..STEPS as u64;
            for (size, number) in sizes.by_ref().take(SIZES.len()).zip(steps.by_ref()) {
                pass(&mut network, &parameters, &data, size, number);
            }
            let held = network.held_bytes();
            for (size, number) in sizes.zip(steps) {
                pass(&mut network, &parameters, &data, size, number);
                assert_eq!(
                    network.held_bytes(),
                    held,
                    "step {number} of {size} samples"
                );
            }
            let engine = Cpu::with_threads(threads);
            let estimate = engine.supports(&model, &adamw(), 40).unwrap();
            let said = (estimate.batch_bytes + estimate.scratch_bytes) as usize;
            assert!(held <= said, "{held} are held, {said} were said");
            assert!(said <= held + held / 2, "{held} are held, {said} were said");
        }
    }
}

/// Steps of the sizes that come in a training: the last batch of an epoch is smaller.
#[test]
fn a_larger_batch_takes_no_more_than_it_needs() {
    let model = dropping(sequences());
    let data = classed(&model, 33);
    let parameters = crate::initial::parameters(&model, 1);
    let mut network = Network::new(&model, 1).unwrap();
    for size in [32, 33] {
        pass(&mut network, &parameters, &data, size, 0);
    }
    let said = network.batch_bytes(33) + network.scratch_bytes(33);
    let held = network.held_bytes();
    assert!(held as u64 <= said, "{held} are held, {said} were said");
}

#[test]
fn arenas_are_what_was_said() {
    let data = samples(40, 6, 4);
    for rule in every_rule() {
        let mut session = Session::with_threads(&mixed(), &rule, 1).unwrap();
        step(&mut session, &data, &[1, 2]);
        let checkpoint = session.checkpoint();
        session.restore(&checkpoint).unwrap();
        step(&mut session, &data, &[1, 2]);
        let held = |state: &State| {
            let moments = state.moments.iter().map(Vec::capacity).sum::<usize>();
            state.parameters.capacity() + moments
        };
        let values = held(&session.committed) + held(&session.shadow);
        let bytes = (values + session.gradients.capacity()) * size_of::<f32>();
        assert_eq!(bytes as u64, Session::memory_bytes(&mixed(), &rule));
    }
}
