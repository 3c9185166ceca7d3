//! Steps of parameters down their gradients: Adam, AdamW and SGD by PyTorch's formulas, each in one
//! pass over the arenas that reads one state and writes the next.

use std::ops::Range;

use super::lanes::{self, on_vectors};
use super::parallel::{self, Rows, each, worth};

/// How much of its distance to a batch's statistic a running one goes, as PyTorch's batch norm.
const FOLLOW: f32 = cryptomind_protocol::model::BATCH_NORM_MOMENTUM;
/// Most gradients whose squares are summed in one go.
const SQUARES_AT_ONCE: usize = 1 << 12;

/// What a step does to values of the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They follow their gradients and decay.
    Decay,
    /// They follow their gradients.
    Plain,
    /// They are running statistics: each goes a tenth of the way to the mean of what lies in the
    /// gradients' place. Not clipped, without moments.
    Follow,
}

/// Neighbours in the arena that are treated alike. Segments in order cover it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where they lie.
    pub range: Range<usize>,
    /// What becomes of them.
    pub kind: Kind,
}

/// The parts of segments that lie within a range of the arena.
fn within(
    segments: &[Segment],
    range: Range<usize>,
) -> impl Iterator<Item = (Kind, Range<usize>)> + '_ {
    let first = segments.partition_point(|segment| segment.range.end <= range.start);
    let (start, end) = (range.start, range.end);
    segments[first..]
        .iter()
        .map(move |s| (s.kind, s.range.start.max(start)..s.range.end.min(end)))
        .take_while(|(_, part)| !part.is_empty())
}

/// The segments of a part of the arena, counted from its beginning.
pub fn part(segments: &[Segment], range: Range<usize>) -> Vec<Segment> {
    let start = range.start;
    let moved = |(kind, part): (Kind, Range<usize>)| Segment {
        range: part.start - start..part.end - start,
        kind,
    };
    within(segments, range).map(moved).collect()
}

/// Values before and after a step.
pub struct Arena<'a> {
    /// Before.
    pub from: &'a [f32],
    /// After.
    pub to: &'a mut [f32],
}

impl<'a> Arena<'a> {
    fn rows(self) -> Rows<'a, f32> {
        assert_eq!(self.from.len(), self.to.len(), "a state has one length");
        Rows::new(self.to, 1)
    }
}

/// What gradient sums are multiplied by.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// To be means over the samples.
    pub mean: f32,
    /// To be means, clipped.
    pub clipped: f32,
}

/// The scalars of a step of Adam or AdamW.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// Of gradient sums.
    pub scale: Scale,
    /// What decoupled decay leaves of a parameter; 1 is all.
    pub keep: f32,
    /// Of a parameter, added to its gradient; 0 is nothing.
    pub coupled: f32,
    /// 1 − β₁.
    pub first: f32,
    /// β₂.
    pub keep_second: f32,
    /// 1 − β₂.
    pub second: f32,
    /// √(1 − β₂ᵗ).
    pub root_bias: f32,
    /// ε.
    pub eps: f32,
    /// Learning rate ÷ (1 − β₁ᵗ).
    pub step_size: f32,
}

/// The scalars of a step of SGD.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// Of gradient sums.
    pub scale: Scale,
    /// Learning rate.
    pub lr: f32,
    /// Momentum.
    pub momentum: f32,
    /// Whether the gradient is taken where momentum would lead.
    pub nesterov: bool,
    /// Of a parameter, added to its gradient; 0 is nothing.
    pub coupled: f32,
}

/// The sum of the squares of all gradients but those of running statistics.
pub fn squares(segments: &[Segment], gradients: &[f32], threads: usize) -> f64 {
    let (len, threads) = (gradients.len(), worth(threads, gradients.len()));
    parallel::sum(threads, len, SQUARES_AT_ONCE, (), |range, ()| {
        on_vectors(
            range,
            #[inline(always)]
            |range| {
                let mut total = 0.0;
                for (kind, part) in within(segments, range) {
                    let g = &gradients[part];
                    if kind != Kind::Follow {
                        total += lanes::wide_sum_pairs(g, g, |a, b| f64::from(a) * f64::from(b));
                    }
                }
                total
            },
        )
    })
}

/// A step of Adam or AdamW. `moments`: the running means of gradients and of their squares.
pub fn adam(
    step: &Adam,
    segments: &[Segment],
    gradients: &[f32],
    parameters: Arena<'_>,
    moments: [Arena<'_>; 2],
    threads: usize,
) {
    let [first, second] = moments;
    let (p, m, v) = (parameters.from, first.from, second.from);
    let parts = (parameters.rows(), first.rows(), second.rows());
    let threads = worth(threads, p.len());
    each(threads, p.len(), parts, |range, next| {
        on_vectors(
            (range, next.0.values, next.1.values, next.2.values),
            #[inline(always)]
            |(range, p_next, m_next, v_next)| {
                for (kind, part) in within(segments, range.clone()) {
                    let here = part.start - range.start..part.end - range.start;
                    let (g, p) = (&gradients[part.clone()], &p[part.clone()]);
                    let (m, v) = (&m[part.clone()], &v[part]);
                    let p_next = &mut p_next[here.clone()];
                    let (m_next, v_next) = (&mut m_next[here.clone()], &mut v_next[here]);
                    if kind == Kind::Follow {
                        m_next.copy_from_slice(m);
                        v_next.copy_from_slice(v);
                        follow(step.scale.mean, g, p, p_next);
                    } else {
                        let step = step.of(kind);
                        adam_values(&step, g, (p, p_next), (m, m_next), (v, v_next));
                    }
                }
            },
        );
    });
}

impl Adam {
    #[inline(always)]
    fn of(&self, kind: Kind) -> Self {
        match kind {
            Kind::Decay => *self,
            Kind::Plain | Kind::Follow => Self {
                keep: 1.0,
                coupled: 0.0,
                ..*self
            },
        }
    }
}

#[inline(always)]
fn adam_values(
    s: &Adam,
    gradients: &[f32],
    (parameters, next): (&[f32], &mut [f32]),
    (m, m_next): (&[f32], &mut [f32]),
    (v, v_next): (&[f32], &mut [f32]),
) {
    // Equal lengths said once: the loop below then needs no bounds checks and runs on vectors.
    let n = next.len();
    let (gradients, parameters) = (&gradients[..n], &parameters[..n]);
    let (m, v) = (&m[..n], &v[..n]);
    let (m_next, v_next) = (&mut m_next[..n], &mut v_next[..n]);
    for i in 0..n {
        let g = gradients[i] * s.scale.clipped + parameters[i] * s.coupled;
        let first = m[i] + (g - m[i]) * s.first;
        let second = v[i] * s.keep_second + g * g * s.second;
        let denominator = second.sqrt() / s.root_bias + s.eps;
        m_next[i] = first;
        v_next[i] = second;
        next[i] = parameters[i] * s.keep - s.step_size * (first / denominator);
    }
}

/// A step of SGD. `buffer`: the running sum of gradients, where there is momentum.
pub fn sgd(
    step: &Sgd,
    segments: &[Segment],
    gradients: &[f32],
    parameters: Arena<'_>,
    buffer: Option<Arena<'_>>,
    threads: usize,
) {
    let p = parameters.from;
    let threads = worth(threads, p.len());
    let Some(buffer) = buffer else {
        each(threads, p.len(), parameters.rows(), |range, next| {
            on_vectors(
                (range, next.values),
                #[inline(always)]
                |(range, next)| {
                    for (kind, part) in within(segments, range.clone()) {
                        let here = part.start - range.start..part.end - range.start;
                        let (g, p) = (&gradients[part.clone()], &p[part]);
                        match kind {
                            Kind::Follow => follow(step.scale.mean, g, p, &mut next[here]),
                            _ => sgd_values(&step.of(kind), g, p, &mut next[here]),
                        }
                    }
                },
            );
        });
        return;
    };
    let b = buffer.from;
    each(
        threads,
        p.len(),
        (parameters.rows(), buffer.rows()),
        |range, next| {
            on_vectors(
                (range, next.0.values, next.1.values),
                #[inline(always)]
                |(range, p_next, b_next)| {
                    for (kind, part) in within(segments, range.clone()) {
                        let here = part.start - range.start..part.end - range.start;
                        let g = &gradients[part.clone()];
                        let (p, b) = (&p[part.clone()], &b[part]);
                        let (p_next, b_next) = (&mut p_next[here.clone()], &mut b_next[here]);
                        if kind == Kind::Follow {
                            b_next.copy_from_slice(b);
                            follow(step.scale.mean, g, p, p_next);
                        } else {
                            momentum_values(&step.of(kind), g, (p, p_next), (b, b_next));
                        }
                    }
                },
            );
        },
    );
}

impl Sgd {
    #[inline(always)]
    fn of(&self, kind: Kind) -> Self {
        match kind {
            Kind::Decay => *self,
            Kind::Plain | Kind::Follow => Self {
                coupled: 0.0,
                ..*self
            },
        }
    }
}

#[inline(always)]
fn sgd_values(s: &Sgd, gradients: &[f32], parameters: &[f32], next: &mut [f32]) {
    let n = next.len();
    let (gradients, parameters) = (&gradients[..n], &parameters[..n]);
    for i in 0..n {
        let g = gradients[i] * s.scale.clipped + parameters[i] * s.coupled;
        next[i] = parameters[i] - s.lr * g;
    }
}

#[inline(always)]
fn momentum_values(
    s: &Sgd,
    gradients: &[f32],
    (parameters, next): (&[f32], &mut [f32]),
    (buffer, buffer_next): (&[f32], &mut [f32]),
) {
    let n = next.len();
    let (gradients, parameters) = (&gradients[..n], &parameters[..n]);
    let (buffer, buffer_next) = (&buffer[..n], &mut buffer_next[..n]);
    for i in 0..n {
        let g = gradients[i] * s.scale.clipped + parameters[i] * s.coupled;
        let b = s.momentum * buffer[i] + g;
        let direction = if s.nesterov { g + s.momentum * b } else { b };
        buffer_next[i] = b;
        next[i] = parameters[i] - s.lr * direction;
    }
}

#[inline(always)]
fn follow(mean: f32, sums: &[f32], values: &[f32], next: &mut [f32]) {
    let n = next.len();
    let (sums, values) = (&sums[..n], &values[..n]);
    for i in 0..n {
        next[i] = values[i] + FOLLOW * (sums[i] * mean - values[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{same_bits, values};

    fn segment(range: Range<usize>, kind: Kind) -> Segment {
        Segment { range, kind }
    }

    fn mixed(len: usize) -> Vec<Segment> {
        let (a, b) = (len / 3, len / 2);
        vec![
            segment(0..a, Kind::Decay),
            segment(a..b, Kind::Follow),
            segment(b..b + 1, Kind::Plain),
            segment(b + 1..len, Kind::Decay),
        ]
    }

    #[test]
    fn parts_of_segments_are_found() {
        let segments = mixed(12);
        let found = |range| within(&segments, range).collect::<Vec<_>>();
        let all = [
            (Kind::Decay, 0..4),
            (Kind::Follow, 4..6),
            (Kind::Plain, 6..7),
            (Kind::Decay, 7..12),
        ];
        assert_eq!(found(0..12), all);
        assert_eq!(found(1..3), [(Kind::Decay, 1..3)]);
        assert_eq!(found(5..7), [(Kind::Follow, 5..6), (Kind::Plain, 6..7)]);
        assert_eq!(found(12..12), []);
        let moved = [segment(0..1, Kind::Follow), segment(1..4, Kind::Plain)];
        let four = [segment(0..6, Kind::Follow), segment(6..12, Kind::Plain)];
        assert_eq!(part(&four, 5..9), moved);
        assert_eq!(part(&four, 0..12), four);
        assert_eq!(part(&four, 9..9), []);
        assert_eq!(within(&[], 0..0).count(), 0);
    }

    #[test]
    fn squares_are_those_of_what_descends() {
        for len in [12, 5000, 100_003] {
            let (g, segments) = (values("g", len), mixed(len));
            let square = |i: usize| f64::from(g[i]) * f64::from(g[i]);
            let want: f64 = (0..len)
                .filter(|i| !(len / 3..len / 2).contains(i))
                .map(square)
                .sum();
            let got = squares(&segments, &g, 1);
            assert!((got - want).abs() <= 1e-12 * want, "{got} for {want}");
            for threads in [2, 3, 7] {
                assert_eq!(squares(&segments, &g, threads).to_bits(), got.to_bits());
            }
        }
        let large = [f32::MAX; 9];
        let sum = squares(&[segment(0..9, Kind::Plain)], &large, 1);
        assert_eq!(sum.sqrt() as f32, f32::INFINITY);
        assert!(sum.is_finite());
    }

    const SCALE: Scale = Scale {
        mean: 0.25,
        clipped: 0.125,
    };

    #[test]
    fn steps_have_the_same_bits_on_any_number_of_threads() {
        const LEN: usize = 70_001;
        let segments = mixed(LEN);
        let [g, p, m] = ["g", "p", "m"].map(|name| values(name, LEN));
        let v: Vec<f32> = m.iter().map(|m| m * m).collect();
        let step = Adam {
            scale: SCALE,
            keep: 0.99,
            coupled: 0.01,
            first: 0.1,
            keep_second: 0.999,
            second: 0.001,
            root_bias: 0.5,
            eps: 1e-8,
            step_size: 1e-2,
        };
        same_bits(|threads| {
            let mut to = vec![f32::NAN; 3 * LEN];
            let (p_to, rest) = to.split_at_mut(LEN);
            let (m_to, v_to) = rest.split_at_mut(LEN);
            let arena = |from, to| Arena { from, to };
            let moments = [arena(&m[..], m_to), arena(&v[..], v_to)];
            let parameters = Arena { from: &p, to: p_to };
            adam(&step, &segments, &g, parameters, moments, threads);
            to
        });
        for nesterov in [false, true] {
            let step = Sgd {
                scale: SCALE,
                lr: 0.1,
                momentum: 0.9,
                nesterov,
                coupled: 0.01,
            };
            same_bits(|threads| {
                let mut to = vec![f32::NAN; 3 * LEN];
                let (p_to, rest) = to.split_at_mut(LEN);
                let (b_to, plain_to) = rest.split_at_mut(LEN);
                let arena = |to| Arena { from: &p[..], to };
                let buffer = Arena { from: &m, to: b_to };
                sgd(&step, &segments, &g, arena(p_to), Some(buffer), threads);
                sgd(&step, &segments, &g, arena(plain_to), None, threads);
                to
            });
        }
    }
}
