//! With real processes: every command is a shell script that says in files what it does.

use std::fs;
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::supervisor::{Child, Handle, Limits, Tree, seat};

/// Polls what another process does; a test hangs no longer than this.
const PATIENCE: Duration = Duration::from_secs(30);

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begin.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct World {
    dir: TempDir,
    tree: Tree,
    idle: Handle<IdleMsg>,
    held: Arc<AtomicBool>,
}

impl World {
    async fn start(script: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("cd {} || exit 9\n{script}", dir.path().display());
        let command = ["sh", "-c", &script].map(String::from).to_vec();
        let mut settings = Settings::new(command, dir.path());
        change(&mut settings);
        let held = Arc::clone(&settings.held);
        let (seat, idle) = seat("idle command");
        let child = Child::new(seat, move || (Idle, settings.clone()));
        let tree = Tree::start(Limits::default(), vec![child]).await.unwrap();
        Self {
            dir,
            tree,
            idle,
            held,
        }
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.dir.path().join(file)).ok()
    }

    /// The process ids that the script has written into these files, one each.
    fn pids(&self, files: &[&str]) -> Vec<i32> {
        let pid = |file: &&str| self.read(file)?.strip_suffix('\n')?.parse().ok();
        files.iter().map(|file| until(file, || pid(file))).collect()
    }

    async fn stop(&self) -> Stopped {
        self.idle
            .call(IdleMsg::Stop, PATIENCE)
            .await
            .unwrap()
            .unwrap()
    }

    async fn status(&self) -> IdleStatus {
        self.idle.call(IdleMsg::Status, PATIENCE).await.unwrap()
    }

    async fn until_status(&self, what: &str, wanted: impl Fn(&IdleStatus) -> bool) -> IdleStatus {
        let begin = Instant::now();
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "never {what}: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Whether the process computes; a zombie does not.
fn lives(pid: &i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

const FAMILY: &str = "
    echo $$ > root
    sh -c 'echo $$ > child; sh -c \"echo \\$\\$ > grandchild; exec sleep 1000\" & wait' &
    wait";

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_tree_is_gone_before_the_answer() {
    let w = World::start(FAMILY, |_| {}).await;
    let pids = w.pids(&["root", "child", "grandchild"]);
    assert!(pids.iter().all(lives));
    let stopped = w.stop().await;
    assert!(!pids.iter().any(lives), "{pids:?}");
    assert!(stopped.ended >= 3 && stopped.killed == 0, "{stopped:?}");
    assert!(w.read("idle.pids").is_none());
    assert_eq!(w.stop().await, Stopped::default());
    w.tree.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_ignores_the_request_is_killed() {
    let script = "trap '' TERM; echo $$ > root; while :; do sleep 0.1; done";
    let limit = Duration::from_millis(100);
    let w = World::start(script, |s| s.stop_limit = limit).await;
    let pids = w.pids(&["root"]);
    let stopped = w.stop().await;
    assert!(
        !pids.iter().any(lives) && stopped.killed >= 1,
        "{stopped:?}"
    );
    w.tree.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_escapes_into_its_own_session_is_found() {
    // The parent ends at once, so the daemon is an orphan in a session and group of its own.
    let script = "
        echo $$ > root
        sh -c 'setsid sh -c \"echo \\$\\$ > daemon; exec sleep 1000\" & exit' 
        exec sleep 1000";
    let w = World::start(script, |_| {}).await;
    let pids = w.pids(&["root", "daemon"]);
    w.stop().await;
    assert!(!pids.iter().any(lives), "{pids:?}");
    w.tree.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_ends_too() {
    let w = World::start("echo $$ > root; kill -STOP $$; sleep 1000", |_| {}).await;
    let pids = w.pids(&["root"]);
    let stopped = w.stop().await;
    assert!(!pids.iter().any(lives));
    assert_eq!(stopped.killed, 0);
    w.tree.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_again_after_the_task() {
    let w = World::start(FAMILY, |_| {}).await;
    let before = w.pids(&["root", "grandchild"]);
    w.stop().await;
    assert!(!w.status().await.running);
    fs::remove_file(w.dir.path().join("root")).unwrap();
    w.idle.cast(IdleMsg::Resume).unwrap();
    let after = w.pids(&["root"]);
    assert_ne!(before[0], after[0]);
    assert!(w.until_status("running", |s| s.running).await.starts == 2);
    w.tree.stop().await;
    assert!(!after.iter().any(lives), "a miner that ends leaves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_ends_by_itself_comes_back_less_and_less_often() {
    let w = World::start("date +%s%N >> starts; exit 3", |s| {
        s.back_off = Duration::from_millis(300);
        s.back_off_max = Duration::from_millis(1200);
    })
    .await;
    let starts = until("four starts", || {
        let times = w.read("starts")?;
        let times: Vec<u64> = times.lines().filter_map(|l| l.parse().ok()).collect();
        (times.len() >= 4).then_some(times)
    });
    let ms = |i: usize| (starts[i + 1] - starts[i]) / 1_000_000;
    assert!(ms(0) >= 300 && ms(1) >= 600 && ms(2) >= 1200, "{starts:?}");
    let status = w.status().await;
    let trouble = status.trouble.unwrap_or_default();
    assert!(trouble.contains("exit status 3"), "{trouble}");
    w.tree.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_exist_is_trouble_and_no_more() {
    let w = World::start("", |s| s.command = vec!["/no/such/program".into()]).await;
    let status = w.until_status("in trouble", |s| s.trouble.is_some()).await;
    assert!(!status.running);
    assert!(status.trouble.unwrap().contains("[idle] command"));
    assert_eq!(w.stop().await, Stopped::default());
    w.tree.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_killed_during_a_task_does_not_start_the_command() {
    let w = World::start(FAMILY, |_| {}).await;
    let pids = w.pids(&["root", "grandchild"]);
    w.stop().await;
    fs::remove_file(w.dir.path().join("root")).unwrap();
    let before = w.idle.actor().unwrap();
    before.kill();
    w.idle.successor(Some(&before)).await.unwrap();
    assert!(w.held.load(Ordering::SeqCst));
    // The keeper answers after it has looked at its rule.
    assert_eq!(w.stop().await, Stopped::default());
    assert!(w.read("root").is_none() && !pids.iter().any(lives));
    w.idle.cast(IdleMsg::Resume).unwrap();
    w.pids(&["root"]);
    w.tree.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_killed_without_a_task_leaves_one_command() {
    let w = World::start(FAMILY, |_| {}).await;
    let old = w.pids(&["root", "child", "grandchild"]);
    fs::remove_file(w.dir.path().join("root")).unwrap();
    w.idle.actor().unwrap().kill();
    let new = w.pids(&["root"]);
    assert!(!old.iter().any(lives) && new.iter().all(lives));
    w.tree.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_processor_time_is_counted_as_the_owners() {
    let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo x > burnt; exec sleep 1000";
    let w = World::start(&format!("sh -c '{burn}'"), |_| {}).await;
    until("burnt", || w.read("burnt"));
    w.stop().await;
    assert!(w.status().await.owner_cpu_ms >= 10);
    w.tree.stop().await;
}

/// A process of the test's own, ended with it whatever comes.
struct Own(std::process::Child);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Own {
    fn sleep(mark: &str) -> Self {
        let mut command = std::process::Command::new("sleep");
        Self(
            command
                .arg("1000")
                .env("CRYPTOMIND_IDLE", mark)
                .spawn()
                .unwrap(),
        )
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

/// What a miner that was killed leaves: processes with its mark, and `idle.pids`.
#[test]
fn leftovers_are_swept_and_strangers_are_not() {
    let dir = tempfile::tempdir().unwrap();
    // The mark is this process's own: these tests may run twice at the same time.
    let mark = format!("{:032x}", std::process::id());
    let (marked, stranger) = (Own::sleep(&mark), Own::sleep("another miner's"));
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    // The stranger bears a recorded process id, given away again since.
    let text = format!(
        "cryptomind-idle-1 {mark} {}\n{} 1\n",
        boot.trim(),
        stranger.pid()
    );
    fs::write(pids_file(dir.path()), text).unwrap();
    assert_eq!(sweep(dir.path(), PATIENCE).unwrap(), 1);
    assert!(!lives(&marked.pid()) && lives(&stranger.pid()));
    assert!(!pids_file(dir.path()).exists());
}

#[test]
fn a_foreign_file_is_not_swept() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(sweep(dir.path(), PATIENCE).unwrap(), 0);
    fs::write(pids_file(dir.path()), "1 2\n").unwrap();
    assert!(sweep(dir.path(), PATIENCE).is_err());
}
