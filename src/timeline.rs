//! A step's timeline as bars of text, a span a line.

use cryptomind_protocol::timeline::{MAX_SPANS, Span, Stage};

/// A line without its bar: what it is of, when it begins, how long it takes.
const AROUND: usize = 39;
/// A bar is at least so wide, and at most.
const WIDTHS: (usize, usize) = (20, 120);

/// The spans, in the order given, as lines of at most `width` characters where that is 59 or more.
pub fn draw(spans: &[Span], width: usize) -> Vec<String> {
    let spans = &spans[..spans.len().min(MAX_SPANS)];
    let end_us = spans.iter().map(Span::end_us).max().unwrap_or_default();
    let width = width.saturating_sub(AROUND).clamp(WIDTHS.0, WIDTHS.1);
    let line = |(index, span): (usize, &Span)| {
        let before = spans[..index].iter();
        let earlier = before.filter(|s| s.stage == span.stage).count();
        let is_one = spans.iter().filter(|s| s.stage == span.stage).count() == 1;
        let name = match is_one {
            true => span.stage.to_string(),
            false => format!("{} {}", span.stage, earlier + 1),
        };
        let (bar, begin, took) = (bar(span, end_us, width), ms(span.begin_us), ms(span.us));
        format!("{name:<8.8} {bar} at {begin:>9.9} for {took:>9.9} ms")
    };
    spans.iter().enumerate().map(line).collect()
}

/// At its place on the way from the step's begin to its end; at least one character.
fn bar(span: &Span, end_us: u64, width: usize) -> String {
    let place = |us: u64| (us as f64 / end_us.max(1) as f64 * width as f64).round() as usize;
    let from = place(span.begin_us).min(width - 1);
    let to = place(span.end_us()).clamp(from + 1, width);
    let block = match span.stage {
        Stage::Compute => "█",
        Stage::Ring => "▒",
        Stage::Apply => "▓",
        Stage::Confirm => "░",
    };
    let (gap, rest) = (" ".repeat(from), " ".repeat(width - to));
    format!("{gap}{}{rest}", block.repeat(to - from))
}

/// Milliseconds with a digit for each microsecond.
fn ms(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(stage: Stage, begin_us: u64, us: u64) -> Span {
        Span {
            stage,
            begin_us,
            us,
        }
    }

    #[test]
    fn spans_lie_where_they_were_in_time() {
        let spans = [
            span(Stage::Compute, 0, 10_000),
            span(Stage::Ring, 5_000, 7_000),
            span(Stage::Apply, 12_000, 1_000),
            span(Stage::Ring, 10_000, 5_000),
            span(Stage::Apply, 15_000, 10),
            span(Stage::Confirm, 16_000, 4_000),
        ];
        let lines = draw(&spans, 59);
        assert_eq!(
            lines,
            [
                "compute  ██████████           at     0.000 for    10.000 ms",
                "ring 1        ▒▒▒▒▒▒▒         at     5.000 for     7.000 ms",
                "apply 1              ▓        at    12.000 for     1.000 ms",
                "ring 2             ▒▒▒▒▒      at    10.000 for     5.000 ms",
                "apply 2                 ▓     at    15.000 for     0.010 ms",
                "confirm                  ░░░░ at    16.000 for     4.000 ms",
            ]
        );
        assert!(
            draw(&spans, 100)
                .iter()
                .all(|line| line.chars().count() <= 100)
        );
        assert_eq!(draw(&spans, 0), lines, "no narrower");
    }

    #[test]
    fn whatever_a_member_says_is_drawn() {
        assert!(draw(&[], 80).is_empty());
        let absurd = [
            span(Stage::Ring, u64::MAX, u64::MAX),
            span(Stage::Apply, 0, 0),
            span(Stage::Compute, u64::MAX, 0),
        ];
        let lines = draw(&absurd.repeat(99), 80);
        assert_eq!(lines.len(), MAX_SPANS);
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
        assert!(!draw(&[span(Stage::Ring, 0, 0)], 80)[0].is_empty());
    }
}
