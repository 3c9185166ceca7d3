//! Members of a group die, or stop, at every point of a run: the others go on with the same step, with the same bits.
//!
//! Each miner is a process of its own, and sends itself the signal (see `rehearsal.rs` of the miner). One member dies at a point of a
//! step; or one more while the group forms again, with the coordinator there, or stopped before the first one dies. `cargo test` has one
//! rank a point. `DEATHS=all cargo test -p cryptomind --test it deaths` has groups of two, three and four, with every rank at every point of a
//! step, and nothing else on the machine: there it has to be within the limits alone.
//!
//! How long survivors may be without a step, and one step: [`RECOVERY`] a death, for each may have to be found out by its silence, and
//! [`UNANSWERED`] more where the coordinator is away; [`ABSENCE`] where only the coordinator can miss it, by its connection: before its first ring, and after its last.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cryptomind_core::member::ORDER_LIMIT_MS;
use cryptomind_protocol::ItemId;
use cryptomind_protocol::task::{Event, TaskState};
use cryptomind_sdk::Client;

use crate::nodes::{publish_free_digits, training, within};
use crate::processes::{Network, TURN};

/// From a death to the next commit of all others, without the step itself.
const RECOVERY: Duration = Duration::from_secs(2);
/// Where the coordinator is away, members give it so long each time before they agree by themselves.
const UNANSWERED: Duration = Duration::from_millis(ORDER_LIMIT_MS);
/// What it may take beyond where other tests have the same two cores: a machine that is held up proves nothing.
pub(crate) const SLACK: Duration = Duration::from_secs(2);
/// Until the coordinator gives up whose connection is silent: until it takes that for broken, and as long again.
const ABSENCE: Duration = Duration::from_secs(20);
/// Steps of an epoch.
pub(crate) const EPOCH: u64 = 45;
/// Committed steps from which on somebody may die.
const FROM: u64 = 60;
/// The same where the coordinator is to be away by then: it hears of the first step, and a watcher of that.
const FROM_AWAY: u64 = 600;
/// Points of a step.
const POINTS: [&str; 5] = [
    "computing",
    "summing",
    "applying",
    "confirming",
    "committed",
];
/// Points of a group that forms again, with the coordinator; and what attempt a member is in that comes there.
const REGROUPING: [(&str, u32); 3] = [("resting", 1), ("told", 1), ("joining", 2)];
/// The same without it.
const SUCCESSION: [(&str, u32); 5] = [
    ("resting", 1),
    ("told", 1),
    ("voted", 1),
    ("decided", 2),
    ("joining", 2),
];
const SIGNALS: [&str; 2] = ["kill", "stop"];
/// How often files are looked at.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Who shall do what where.
#[derive(Debug, Clone, Copy)]
struct Death {
    attempt: u32,
    rank: u32,
    point: &'static str,
    signal: &'static str,
}

impl Death {
    /// In the first attempt.
    const fn at(point: &'static str, rank: u32, signal: &'static str) -> Self {
        Self {
            attempt: 1,
            rank,
            point,
            signal,
        }
    }

    fn cue(&self, from: u64) -> String {
        let Self {
            attempt,
            rank,
            point,
            signal,
        } = self;
        let from = match self.is_before_the_first_ring() {
            true => 0,
            // Whoever dies next may not have heard that the step was confirmed after which the first one died.
            false => from - u64::from(!POINTS.contains(point)),
        };
        format!("{attempt} {rank} {point} {from} {signal}\n")
    }

    fn is_before_the_first_ring(&self) -> bool {
        self.attempt == 1 && matches!(self.point, "preparing" | "joining")
    }

    /// How long it may take until the others are over it.
    fn limit(&self) -> Duration {
        match self.is_before_the_first_ring() || self.point == "storing" {
            true => ABSENCE + RECOVERY,
            false => RECOVERY,
        }
    }
}

/// What happens to a group.
#[derive(Debug, Clone)]
struct Case {
    world: u32,
    deaths: Vec<Death>,
    /// Whether the coordinator is stopped, from the first news of progress until the survivors are over it.
    is_away: bool,
}

impl Case {
    const fn of(world: u32, deaths: Vec<Death>) -> Self {
        Self {
            world,
            deaths,
            is_away: false,
        }
    }

    /// The rank after `then` dies in a step; while the group forms again without it, `then` does.
    fn twice(
        world: u32,
        then: u32,
        (point, attempt): (&'static str, u32),
        signal: &'static str,
    ) -> Self {
        let first = (then + 1) % world;
        // Ranks close up.
        let rank = match attempt {
            2 if then > first => then - 1,
            _ => then,
        };
        let second = Death {
            attempt,
            ..Death::at(point, rank, signal)
        };
        Self::of(world, vec![Death::at("computing", first, "kill"), second])
    }

    fn without_coordinator(self) -> Self {
        Self {
            is_away: true,
            ..self
        }
    }

    fn from(&self) -> u64 {
        match self.is_away {
            true => FROM_AWAY,
            false => FROM,
        }
    }

    fn epochs(&self) -> u32 {
        match self.is_away {
            true => 24,
            false => 4,
        }
    }

    fn steps(&self) -> u64 {
        EPOCH * u64::from(self.epochs())
    }

    /// How long after the first death all survivors are at it again, without the step itself.
    fn limit(&self) -> Duration {
        let slack = if is_all() { Duration::ZERO } else { SLACK };
        let away = if self.is_away {
            UNANSWERED
        } else {
            Duration::ZERO
        };
        let deaths = self.deaths.iter().map(|death| death.limit() + away);
        deaths.sum::<Duration>() + slack
    }

    /// Whether no step is left to the survivors.
    fn is_at_the_end(&self) -> bool {
        self.deaths.iter().any(|death| death.point == "storing")
    }
}

/// One commit of a member's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) ms: u64,
    pub(crate) attempt: u32,
    pub(crate) step: u64,
    pub(crate) print: String,
}

/// What a member noted of a task.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    pub(crate) commits: Vec<Commit>,
    /// When it sent itself its signal.
    pub(crate) at: Option<u64>,
    /// Where.
    point: String,
}

impl Trail {
    pub(crate) fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let mut trail = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let ms = words[1].parse().unwrap();
            match words[0] {
                "at" => (trail.at, trail.point) = (Some(ms), words[3].to_owned()),
                _ => trail.commits.push(Commit {
                    ms,
                    attempt: words[2].parse().unwrap(),
                    step: words[3].parse().unwrap(),
                    print: words[4].to_owned(),
                }),
            }
        }
        trail
    }

    pub(crate) fn steps(&self) -> Vec<u64> {
        self.commits.iter().map(|c| c.step).collect()
    }

    /// The usual time from one commit to the next.
    pub(crate) fn step_ms(&self) -> u64 {
        let pairs = self.commits.windows(2);
        let mut times: Vec<_> = pairs.map(|pair| pair[1].ms - pair[0].ms).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// When it committed its next step after that moment.
    fn goes_on_at(&self, after: u64) -> Option<u64> {
        self.commits.iter().map(|c| c.ms).find(|ms| *ms > after)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

/// A group that is put through cases, one after another.
struct Stage {
    network: Network,
    client: Client,
    digits: ItemId,
}

impl Stage {
    async fn set(world: u8) -> Self {
        let network = Network::rehearsing(world).await;
        let client = network.client(60, "ada").await;
        let digits = publish_free_digits(&client, network.dir.path()).await;
        Self {
            network,
            client,
            digits,
        }
    }

    /// Puts the group through a case, and gives the longest time that a survivor was without a step. Nothing where not everybody came to
    /// where it was to die: of the whole matrix, for a group that forms again may do so in more than one way.
    async fn play(&mut self, case: &Case) -> Option<u64> {
        let cues = case.deaths.iter().map(|death| death.cue(case.from()));
        self.network.rehearse(&cues.collect::<String>());
        let spec = training(self.digits, case.world, case.epochs());
        let (task, _) = self.client.post(spec).await.unwrap();
        let mut watch = self.client.watch(task, 0);
        let (mut groups, mut last, mut away_at) = (Vec::new(), None, None);
        loop {
            let what = format!("{case:?}: what follows {last:?}");
            let Some(event) = within(&what, watch.next()).await else {
                break;
            };
            let event = event.unwrap().event;
            if let Event::Matched { members, .. } = &event {
                groups.push(members.len());
            }
            if matches!(event, Event::Progress { .. }) && case.is_away && away_at.is_none() {
                self.network.stop_coordinator();
                away_at = Some(now_ms());
                within("they go on by themselves", self.all_go_on(case)).await;
                self.network.continue_coordinator();
            }
            last = Some(event);
        }
        let ended_at = now_ms();
        let view = self.client.task(task).await.unwrap();
        assert_eq!(view.state, TaskState::Finished, "{case:?}: {}", view.reason);
        let trails = self.trails();
        let died = trails.iter().filter(|trail| trail.at.is_some()).count();
        if is_all() && died < case.deaths.len() {
            self.set_again(case, &trails).await;
            return None;
        }
        let survivors = case.world as usize - case.deaths.len();
        assert_eq!(groups.first(), Some(&(case.world as usize)), "{case:?}");
        assert_eq!(groups.last(), Some(&survivors), "{case:?}: {groups:?}");
        assert!(groups.is_sorted_by(|a, b| a > b), "{case:?}: {groups:?}");
        let gap = check(case, &trails, ended_at);
        let first = trails.iter().filter_map(|t| t.at).min();
        assert!(away_at < first, "{case:?}: it was away before");
        self.set_again(case, &trails).await;
        Some(gap)
    }

    /// Whoever died is there again.
    async fn set_again(&mut self, case: &Case, trails: &[Trail]) {
        for (miner, trail) in trails.iter().enumerate().filter(|(_, t)| t.at.is_some()) {
            let mut deaths = case.deaths.iter();
            let death = deaths.find(|death| death.point == trail.point).unwrap();
            self.network.revive(miner, death.signal == "stop").await;
        }
        within("all are free again", self.network.all_free(&self.client)).await;
    }

    fn trails(&self) -> Vec<Trail> {
        let trails = self.network.trails().map(|file| Trail::read(&file));
        trails.collect()
    }

    /// Waits until all have died that shall, and the others train: their files alone tell, for the coordinator is away.
    async fn all_go_on(&self, case: &Case) {
        loop {
            // Nothing tells of a line in a file; whoever waits has a limit.
            tokio::time::sleep(LOOK_AGAIN).await;
            let trails = self.trails();
            let died = trails.iter().filter_map(|t| t.at);
            if died.clone().count() < case.deaths.len() {
                continue;
            }
            let last = died.max().unwrap_or_default();
            let mut survivors = trails.iter().filter(|t| t.at.is_none());
            if survivors.all(|t| t.goes_on_at(last).is_some()) {
                return;
            }
        }
    }
}

/// All that have the same key have the same bits.
fn agree<'a>(
    case: &Case,
    commits: impl Iterator<Item = &'a Commit>,
    key: impl Fn(&Commit) -> (u32, u64),
) {
    let mut prints: BTreeMap<(u32, u64), &str> = BTreeMap::new();
    for commit in commits {
        let first = prints.entry(key(commit)).or_insert(&commit.print);
        assert_eq!(*first, commit.print, "{case:?}: {commit:?}");
    }
}

/// No step is lost, each has the same bits everywhere, and the survivors are soon at it again.
fn check(case: &Case, trails: &[Trail], ended_at: u64) -> u64 {
    let died = trails.iter().filter_map(|t| t.at).collect::<Vec<_>>();
    assert_eq!(died.len(), case.deaths.len(), "{case:?}: each once");
    let (first, last) = (*died.iter().min().unwrap(), *died.iter().max().unwrap());
    // A step that only the dead one committed is computed anew by the others, in a smaller group: with other bits.
    let of_attempt = |commit: &Commit| (commit.attempt, commit.step);
    agree(case, trails.iter().flat_map(|t| &t.commits), of_attempt);
    let survivors = || trails.iter().filter(|t| t.at.is_none());
    let of_step = |commit: &Commit| (0, commit.step);
    agree(case, survivors().flat_map(|t| &t.commits), of_step);
    let mut longest = 0;
    for trail in survivors() {
        let all: Vec<_> = (1..=case.steps()).collect();
        assert_eq!(trail.steps(), all, "{case:?}");
        let goes_on_at = match case.is_at_the_end() {
            true => ended_at,
            false => trail.goes_on_at(last).expect("it goes on"),
        };
        let (gap, step) = (goes_on_at - first, trail.step_ms());
        let limit = case.limit().as_millis() as u64 + step;
        assert!(gap <= limit, "{case:?}: {gap} ms, and a step takes {step}");
        longest = longest.max(gap);
    }
    longest
}

pub(crate) fn is_all() -> bool {
    std::env::var("DEATHS").is_ok_and(|which| which == "all")
}

/// Who dies again and again gets no more work: so the stage is set anew now and then.
const DEATHS_A_STAGE: usize = 3;
/// How often a case may not come about.
const MAX_MISSED: usize = 3;

#[allow(clippy::print_stdout, reason = "the whole matrix is read by people")]
async fn play_all(cases: impl IntoIterator<Item = Case>) {
    let mut stage: Option<(Stage, u32, usize)> = None;
    let mut cases: VecDeque<_> = cases.into_iter().collect();
    let mut missed = 0;
    while let Some(case) = cases.pop_front() {
        let deaths = case.deaths.len();
        let fits = |(_, world, died): &(Stage, u32, usize)| {
            *world == case.world && died + deaths <= DEATHS_A_STAGE
        };
        let (mut here, died) = match stage.take().filter(fits) {
            Some((here, _, died)) => (here, died),
            None => (Stage::set(case.world as u8).await, 0),
        };
        let gap = here.play(&case).await;
        stage = Some((here, case.world, died + deaths));
        match gap {
            Some(gap) => println!("{case:?}: {gap} ms"),
            None => {
                missed += 1;
                println!("{case:?}: it did not come about");
                assert!(missed <= MAX_MISSED, "{missed} cases did not come about");
                cases.push_front(case);
            }
        }
    }
}

/// Of a point, with all ranks and signals.
fn all_of(point: &'static str, world: u32) -> impl Iterator<Item = Case> {
    let both =
        move |rank| SIGNALS.map(|signal| Case::of(world, vec![Death::at(point, rank, signal)]));
    (0..world).flat_map(both)
}

fn step_points(worlds: std::ops::RangeInclusive<u32>) -> impl Iterator<Item = Case> {
    let points = worlds.flat_map(|world| POINTS.map(|point| (world, point)));
    points.flat_map(|(world, point)| all_of(point, world))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survivors_finish_the_same_step_whatever_the_other_was_at() {
    let _turn = TURN.lock().await;
    if is_all() {
        return play_all(step_points(2..=4)).await;
    }
    let ranks = (0..3).cycle();
    let kills = POINTS.into_iter().zip(ranks);
    let kills = kills.map(|(point, rank)| Case::of(3, vec![Death::at(point, rank, "kill")]));
    let stop = Case::of(3, vec![Death::at("summing", 1, "stop")]);
    play_all([stop].into_iter().chain(kills)).await;
}

/// The coordinator lets those go on that are left, also where that is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_death_while_the_group_forms_again_costs_no_step_either() {
    let _turn = TURN.lock().await;
    if is_all() {
        let points = (3..=4).flat_map(|world| REGROUPING.map(|point| (world, point)));
        let ranks =
            points.flat_map(|(world, point)| (0..world).map(move |then| (world, then, point)));
        let cases = ranks.flat_map(|(world, then, point)| {
            SIGNALS.map(|signal| Case::twice(world, then, point, signal))
        });
        return play_all(cases).await;
    }
    let resting = Case::twice(3, 1, REGROUPING[0], "kill");
    play_all([resting, Case::twice(3, 2, REGROUPING[2], "stop")]).await;
}

/// Three are left of five, or two of the three that the members of four agreed on: a majority.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_death_while_the_members_agree_costs_no_step_either() {
    let _turn = TURN.lock().await;
    let case = |point: (&'static str, u32), then, signal| {
        // Before they have agreed, the first attempt's members count.
        let world = if point.1 == 1 { 5 } else { 4 };
        Case::twice(world, then, point, signal).without_coordinator()
    };
    if is_all() {
        // The first rank calls the ballot, and tells and votes without a word.
        let ranks = SUCCESSION
            .into_iter()
            .flat_map(|point| [2, 3].map(|then| (point, then)));
        let cases = ranks.flat_map(|(point, then)| SIGNALS.map(|signal| case(point, then, signal)));
        return play_all(cases).await;
    }
    play_all([case(SUCCESSION[3], 2, "kill")]).await;
}

/// Nobody else can know of it. Where the first rank dies with the result, the next one delivers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dies_before_the_first_ring_or_after_the_last_is_missed_by_the_coordinator() {
    let _turn = TURN.lock().await;
    let storing = |world, signal| Case::of(world, vec![Death::at("storing", 0, signal)]);
    if is_all() {
        let cases = (2..=4).flat_map(|world| {
            let before = ["preparing", "joining"].into_iter();
            let before = before.flat_map(move |point| all_of(point, world));
            before.chain(SIGNALS.map(|signal| storing(world, signal)))
        });
        return play_all(cases).await;
    }
    play_all([storing(3, "kill")]).await;
}
