//! How much memory a task may take: what the machine has left, no more than this process is allowed, and no more than its
//! owner wants to give.

use std::path::{Path, PathBuf};

/// Where control groups lie.
const GROUPS: &str = "/sys/fs/cgroup";

/// Bytes; nothing where the system does not say and the owner neither.
pub fn available(most: Option<u64>) -> Option<u64> {
    free().into_iter().chain(most).min()
}

/// Bytes that this process could have without swapping and without being killed for it; nothing where the system does not say.
pub(crate) fn free() -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| in_machine(&text));
    machine.into_iter().chain(in_groups()).min()
}

fn read(file: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

/// What Linux could hand out, bytes; other systems do not say.
fn in_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What the process's control groups leave: the least of its own (a container's, a unit's) and of those above it.
fn in_groups() -> Option<u64> {
    let text = read("/proc/self/cgroup")?;
    let own = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (kinds, path) = (fields.next()?, fields.next()?);
        // The second version has one tree for all kinds, the first one a tree a kind.
        let tree = match kinds {
            "" => Path::new(GROUPS).to_owned(),
            kinds if kinds.split(',').any(|kind| kind == "memory") => {
                Path::new(GROUPS).join("memory")
            }
            _ => return None,
        };
        Some((tree.clone(), tree.join(path.trim_start_matches('/'))))
    };
    let groups = text.lines().filter_map(own);
    groups.filter_map(|(tree, own)| in_tree(&tree, own)).min()
}

fn in_tree(tree: &Path, own: PathBuf) -> Option<u64> {
    let above = own.ancestors().filter(|group| group.starts_with(tree));
    above.filter_map(in_group).min()
}

/// What a group may have, less what it has; files that can be read again do not count.
fn in_group(group: &Path) -> Option<u64> {
    let number = |name: &str| read(group.join(name))?.trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let text = read(group.join("memory.stat")).unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    let files = of("inactive_file ").saturating_add(of("active_file "));
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn it_is_what_is_free_and_no_more_than_allowed() {
        assert!(available(None).unwrap() > 1 << 20);
        assert_eq!(available(Some(1 << 10)), Some(1 << 10));
    }

    #[test]
    fn the_machine_says_what_it_could_hand_out() {
        let text = "MemTotal:       16 kB\nMemAvailable:    5 kB\nBuffers: 1 kB\n";
        assert_eq!(in_machine(text), Some(5 * 1024));
        assert_eq!(in_machine("MemTotal: 16 kB\n"), None);
    }

    #[test]
    fn the_tightest_group_counts_and_files_do_not() {
        let tree = tempfile::tempdir().unwrap();
        let own = tree.path().join("above/own");
        std::fs::create_dir_all(&own).unwrap();
        let write =
            |group: &Path, name, text: &str| std::fs::write(group.join(name), text).unwrap();
        assert_eq!(in_tree(tree.path(), own.clone()), None);
        write(&own, "memory.max", "max\n");
        write(&own, "memory.current", "70\n");
        assert_eq!(in_tree(tree.path(), own.clone()), None, "no limit");
        let above = tree.path().join("above");
        write(&above, "memory.max", "100\n");
        write(&above, "memory.current", "90\n");
        write(
            &above,
            "memory.stat",
            "anon 60\nactive_file 10\ninactive_file 20\n",
        );
        assert_eq!(in_tree(tree.path(), own.clone()), Some(40));
        write(&own, "memory.max", "80\n");
        assert_eq!(in_tree(tree.path(), own.clone()), Some(10));
        write(&own, "memory.current", "90\n");
        assert_eq!(in_tree(tree.path(), own), Some(0));
    }
}
