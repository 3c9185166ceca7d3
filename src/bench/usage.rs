//! What a process has taken so far: memory at its peak, and processor time. Known on Linux alone.

use std::time::Duration;

/// What was taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// The most memory that was resident at a time, bytes.
    pub peak_bytes: u64,
    /// The memory that is resident now, bytes.
    pub resident_bytes: u64,
    /// Processor time, over all threads.
    pub cpu: Duration,
}

impl Usage {
    /// Of the process with this id; nothing where the system does not say.
    pub fn of(process: u32) -> Option<Self> {
        system::usage(process)
    }

    /// By how much the peak is above what was resident then, in MiB.
    pub fn peak_above_mib(self, then: Self) -> f64 {
        self.peak_bytes.saturating_sub(then.resident_bytes) as f64 / (1 << 20) as f64
    }

    /// The peak, in MiB.
    pub fn peak_mib(self) -> f64 {
        self.peak_bytes as f64 / (1 << 20) as f64
    }
}

#[cfg(target_os = "linux")]
mod system {
    use super::{Duration, Usage};

    /// Where user and system time stand in `/proc/PID/stat`, after the name in brackets: see proc(5).
    const TIMES: [usize; 2] = [11, 12];

    pub(super) fn usage(process: u32) -> Option<Usage> {
        let read = |file| std::fs::read_to_string(format!("/proc/{process}/{file}")).ok();
        let status = read("status")?;
        Some(Usage {
            peak_bytes: bytes(&status, "VmHWM:")?,
            resident_bytes: bytes(&status, "VmRSS:")?,
            cpu: cpu(&read("stat")?)?,
        })
    }

    fn bytes(status: &str, name: &str) -> Option<u64> {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    fn cpu(stat: &str) -> Option<Duration> {
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let ticks = ticks(TIMES[0])? + ticks(TIMES[1])?;
        let per_s = rustix::param::clock_ticks_per_second().max(1);
        Some(Duration::from_millis(ticks * 1000 / per_s))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn lines_of_the_system_are_read() {
            assert_eq!(bytes("Name:\tx\nVmHWM:\t    3 kB\n", "VmHWM:"), Some(3072));
            let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
            let per_s = rustix::param::clock_ticks_per_second();
            assert_eq!(cpu(stat), Some(Duration::from_millis(200 * 1000 / per_s)));
        }

        #[test]
        fn this_process_takes_something() {
            let usage = Usage::of(std::process::id()).unwrap();
            assert!(usage.peak_mib() > 1.0, "{usage:?}");
        }
    }
}

/// Other systems tell it otherwise, and a benchmark does without.
#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn usage(_: u32) -> Option<super::Usage> {
        None
    }
}
