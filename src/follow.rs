//! Following a task: its events as sentences, its progress as a bar with a loss curve.
//!
//! On a terminal the curve and the bar stay at the bottom and sentences scroll above them; elsewhere
//! there are plain lines, a progress line every tenth of the way. In JSON every event is a line.
//! Where it is asked for, the newest step's timeline takes the curve's place, and follows progress lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cryptomind_protocol::audit::Part;
use cryptomind_protocol::task::{Activity, Event, Latency, Member, Metrics, TaskEvent, TaskState};
use cryptomind_protocol::timeline::Span;
use cryptomind_protocol::{Amount, NodeAddress, NodeId};
use indicatif::ProgressBar;

use crate::command::serve;
use crate::output::{Output, Tone, printable};
use crate::{chart, timeline};

const CURVE_WIDTH: usize = 56;
const CURVE_HEIGHT: usize = 6;
/// Older points are thinned out beyond this.
const MOST_POINTS: usize = 4096;

/// What is on the screen of one task.
pub struct Follow {
    output: Output,
    bar: Option<ProgressBar>,
    points: Vec<chart::Point>,
    /// The newest one; nothing where it is not asked for.
    timeline: Option<Vec<Span>>,
    tenth: u64,
    indent: &'static str,
    /// What miners that prepare did before.
    before: BTreeMap<NodeId, Activity>,
}

impl Follow {
    /// Nothing is drawn before the first event.
    pub fn new(output: Output) -> Self {
        Self {
            output,
            bar: None,
            points: Vec::new(),
            timeline: None,
            tenth: 0,
            indent: "",
            before: BTreeMap::new(),
        }
    }

    /// Indents every sentence, as a part of a longer story.
    pub fn indented(mut self, indent: &'static str) -> Self {
        self.indent = indent;
        self
    }

    /// Shows where the last step's time went, in place of the loss curve.
    pub fn with_timeline(mut self, is_asked: bool) -> Self {
        self.timeline = is_asked.then(Vec::new);
        self
    }

    /// Shows one event.
    pub fn show(&mut self, event: &TaskEvent) -> std::io::Result<()> {
        if self.output.is_json() {
            return self.output.json_line(event);
        }
        if let Event::Progress {
            step,
            total_steps,
            loss,
            samples_per_s,
            ref timeline,
        } = event.event
        {
            self.points.push(chart::Point { step, value: loss });
            self.thin();
            self.keep(timeline);
            let is_said = self.progress(step, total_steps, loss, samples_per_s)?;
            return match is_said {
                true => self.say_timeline(timeline),
                false => Ok(()),
            };
        }
        if matches!(event.event, Event::Stored { .. } | Event::Settled { .. }) {
            self.finish();
        }
        match sentence(&self.without_preparing(&event.event)) {
            Some((tone, text)) => self.say(tone, &text),
            None => Ok(()),
        }
    }

    /// Preparing lasts a moment: what counts is that mining gave way to training.
    fn without_preparing(&mut self, event: &Event) -> Event {
        let mut event = event.clone();
        if let Event::Activity { node, from, to, .. } = &mut event {
            if *to == Activity::Preparing {
                self.before.entry(*node).or_insert(*from);
            } else if *from == Activity::Preparing {
                *from = self.before.remove(node).unwrap_or(*from);
            }
        }
        event
    }

    /// A heading of one's own among the events.
    pub fn heading(&self, text: &str) -> std::io::Result<()> {
        let line = format!("\n{}", self.output.paint(Tone::Strong, text));
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.say(line)),
            None => self.output.say(line),
        }
    }

    /// A sentence of one's own among the events.
    pub fn say(&self, tone: Tone, text: &str) -> std::io::Result<()> {
        let line = format!(
            "{}{}",
            self.indent,
            self.output.paint(tone, &printable(text))
        );
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.say(line)),
            None => self.output.say(line),
        }
    }

    fn thin(&mut self) {
        if self.points.len() > MOST_POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// Whoever does not say it any more leaves what was said last.
    fn keep(&mut self, timeline: &[Span]) {
        if let Some(newest) = self.timeline.as_mut().filter(|_| !timeline.is_empty()) {
            *newest = timeline.to_vec();
        }
    }

    fn say_timeline(&self, timeline: &[Span]) -> std::io::Result<()> {
        let spans = self.timeline.as_ref().map_or(&[][..], |_| timeline);
        let mut lines = timeline::draw(spans, self.output.width()).into_iter();
        lines.try_for_each(|line| self.say(Tone::Dim, &line))
    }

    /// Whether it is said in a line, not drawn.
    fn progress(&mut self, step: u64, total: u64, loss: f32, speed: u64) -> std::io::Result<bool> {
        if self.output.has_bars() {
            self.draw(step, total, loss, speed);
            return Ok(false);
        }
        let tenth = (step * 10).checked_div(total).unwrap_or_default();
        if tenth > self.tenth || self.points.len() == 1 {
            self.tenth = tenth;
            let line = format!("step {step:>6} of {total}   loss {loss:.4}   {speed} samples/s");
            self.say(Tone::Dim, &line)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn draw(&mut self, step: u64, total: u64, loss: f32, speed: u64) {
        let template = "{msg}\n        {bar:56} {pos}/{len}  {prefix}";
        let (output, picture) = (self.output, self.picture(total));
        let bar = self.bar.get_or_insert_with(|| output.bar(total, template));
        bar.set_length(total);
        bar.set_position(step);
        bar.set_prefix(format!("loss {loss:.4}  {speed} samples/s"));
        bar.set_message(picture.join("\n"));
    }

    /// What stands above the bar. Of a member that does not say its timeline, the curve.
    fn picture(&self, total: u64) -> Vec<String> {
        match &self.timeline {
            Some(spans) if !spans.is_empty() => timeline::draw(spans, self.output.width()),
            _ => chart::draw(&self.points, total, CURVE_WIDTH, CURVE_HEIGHT),
        }
    }

    /// Takes the bar away and leaves the picture, where one was drawn.
    pub fn finish(&mut self) {
        let Some(bar) = self.bar.take() else { return };
        let total = bar.length().unwrap_or_default();
        bar.finish_and_clear();
        for line in self.picture(total) {
            let _ = self.output.say(line);
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// An event for people; progress has its own form, and some say nothing new.
pub fn sentence(event: &Event) -> Option<(Tone, String)> {
    let (tone, text) = match event {
        Event::Progress { .. } | Event::Fetched { bytes: 0, .. } => return None,
        Event::Activity { to, .. } if *to == Activity::Preparing => return None,
        Event::Announced { miners, needed } => {
            let text = format!("announced to {miners} miners; {needed} needed");
            (Tone::Dim, text)
        }
        Event::Offered { name, .. } => (Tone::Dim, format!("{name} is ready")),
        Event::Waiting { reason } => (Tone::Notice, format!("waiting: {reason}")),
        Event::Matched {
            attempt,
            members,
            start_step,
        } => (Tone::Strong, matched(*attempt, members, *start_step)),
        Event::Regroups { reason } => (Tone::Notice, format!("the group pauses: {reason}")),
        Event::Follows { name, level, .. } => (Tone::Notice, follows(name, *level)),
        Event::Activity {
            name,
            from,
            to,
            reason,
            ..
        } => {
            let why = reason.as_ref().map(|r| format!(" ({r})"));
            let why = why.unwrap_or_default();
            (Tone::Notice, format!("{name:<12} {from} → {to}{why}"))
        }
        Event::Fetched { name, bytes, .. } => {
            let bytes = size(*bytes);
            let text = format!("{name:<12} fetched {bytes} and verified every chunk");
            (Tone::Dim, text)
        }
        Event::Checkpoint { step, earned } => {
            let text = format!("checkpoint at step {step} verified: {earned} earned");
            (Tone::Dim, text)
        }
        Event::Serving {
            name,
            address,
            samples,
            latency,
            ..
        } => (Tone::Notice, serving(name, address, *samples, latency)),
        Event::Acknowledged { samples, earned } => {
            let text = format!("{samples} samples acknowledged: {earned} earned");
            (Tone::Dim, text)
        }
        Event::Lost {
            name,
            reason,
            unpaid,
            remaining,
            ..
        } => {
            let text = format!("{name} is lost: {reason}; {}", gone(*remaining, *unpaid));
            (Tone::Bad, text)
        }
        Event::Left {
            name,
            reason,
            unpaid,
            remaining,
            ..
        } => {
            let text = format!("{name} leaves: {reason}; {}", gone(*remaining, *unpaid));
            (Tone::Notice, text)
        }
        Event::Parted {
            name, step, part, ..
        } => {
            let how = parting(*part);
            let text = format!("{name} parts from the others at step {step}: {how}");
            (Tone::Bad, text)
        }
        Event::Stored { files, metrics } => {
            let text = format!("result stored: {} files{}", files.len(), measured(metrics));
            (Tone::Good, text)
        }
        Event::Settled { state, reason, .. } => {
            let tone = match state {
                TaskState::Finished => Tone::Good,
                _ => Tone::Bad,
            };
            (tone, format!("{state}: {reason}"))
        }
    };
    Some((tone, text))
}

fn matched(attempt: u32, members: &[Member], start_step: u64) -> String {
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let text = format!("group of {}: {}", members.len(), names.join(" → "));
    match attempt {
        0..=1 => text,
        _ => format!("{text} (attempt {attempt}, goes on from step {start_step})"),
    }
}

fn follows(name: &str, is_level: bool) -> String {
    let what = match is_level {
        false => "comes, and takes the state from the others while they train",
        true => "has the state, and joins where a step ends",
    };
    format!("{name:<12} {what}")
}

fn serving(name: &str, address: &NodeAddress, samples: u64, latency: &Latency) -> String {
    let text = format!(
        "{name:<12} answers calls at {}; queue {} ms, fetch {} ms, load {} ms",
        address.socket(),
        latency.queue_us / 1000,
        latency.fetch_us / 1000,
        latency.load_us / 1000
    );
    match samples {
        0 => text,
        _ => format!("{text}; goes on after {samples} samples"),
    }
}

/// What the going of a member means to the others, and to it.
fn gone(remaining: u32, unpaid: Amount) -> String {
    format!("{remaining} go on. Not paid to it: {unpaid}, its part since the last checkpoint")
}

/// In what a member parts from its group, for people.
pub fn parting(part: Part) -> String {
    match part {
        Part::Samples => "it did not compute its share of the samples".into(),
        differ => format!("its {differ} differ"),
    }
}

fn measured(metrics: &Metrics) -> String {
    let mut text = String::new();
    if let Some(loss) = metrics.final_loss {
        let _ = write!(text, ", loss {loss:.4}");
    }
    if let Some(accuracy) = metrics.test_accuracy {
        let _ = write!(text, ", test accuracy {accuracy:.4}");
    }
    if let Some(loss) = metrics.test_loss {
        let _ = write!(text, ", test loss {loss:.4}");
    }
    if let Some(latency) = &metrics.latency {
        let _ = write!(text, "; {}", serve::split(latency));
    }
    text
}

/// Bytes for people, in binary units.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity(from: Activity, to: Activity) -> Event {
        Event::Activity {
            node: NodeId::new([1; 32]),
            name: "ann".into(),
            from,
            to,
            reason: None,
        }
    }

    #[test]
    fn preparing_is_no_sentence_of_its_own() {
        let mut follow = Follow::new(Output::new(crate::output::Wish::default()));
        let mut told = |from, to| sentence(&follow.without_preparing(&activity(from, to)));
        assert_eq!(told(Activity::Mining, Activity::Preparing), None);
        let (_, text) = told(Activity::Preparing, Activity::Training).unwrap();
        assert!(text.contains("mining → training"), "{text}");
        let (_, text) = told(Activity::Training, Activity::Mining).unwrap();
        assert!(text.contains("training → mining"), "{text}");
    }

    #[test]
    fn events_read_as_sentences() {
        let node = NodeId::new([1; 32]);
        let (tone, text) = sentence(&Event::Lost {
            node,
            name: "ben".into(),
            reason: "silent for 1500 ms".into(),
            unpaid: Amount::from_base_units(5),
            remaining: 2,
        })
        .unwrap();
        assert_eq!(tone, Tone::Bad);
        assert!(
            text.contains("ben") && text.contains("0.000000005 CTM"),
            "{text}"
        );
    }

    #[test]
    fn sizes_are_readable() {
        let shown = [0, 1023, 1024, 1536, 1 << 20, u64::MAX].map(size);
        assert_eq!(
            shown[..5],
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB"]
        );
    }
}
