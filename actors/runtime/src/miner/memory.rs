//! How much memory a task may take: what the machine has left, and no more than its owner allows.

/// Bytes; nothing where the system does not say and the owner neither.
pub fn available(most: Option<u64>) -> Option<u64> {
    match (free(), most) {
        (Some(free), Some(most)) => Some(free.min(most)),
        (free, most) => free.or(most),
    }
}

/// What Linux could hand out without swapping, bytes; other systems do not say.
fn free() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_is_free_and_no_more_than_allowed() {
        assert!(available(None).unwrap() > 1 << 20);
        assert_eq!(available(Some(1 << 10)), Some(1 << 10));
    }
}
