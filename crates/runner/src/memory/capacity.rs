//! How much memory there is.

use std::fs;
use std::path::Path;

/// The memory that a budget is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// All of it.
    pub(crate) bytes: u64,
    /// Of these, what drivers and other programs have.
    pub(crate) taken: u64,
    /// What exceeds it is refused, not only warned of.
    pub(crate) is_binding: bool,
    /// It is what may be used, and not all that there is.
    pub(crate) is_chosen: bool,
    /// It is a GPU's. There a range of blocks is recorded after it has run once, with memory of its own.
    pub(crate) records: bool,
}

impl Capacity {
    /// Of a GPU with so many bytes, some of them free, when so many of weights are loaded. No more than `may_use` of it counts,
    /// where that is said.
    pub(crate) fn of_gpu(free: u64, all: u64, weights: u64, may_use: Option<u64>) -> Self {
        let taken = all.saturating_sub(free).saturating_sub(weights);
        let bytes = may_use.map_or(all, |bytes| bytes.min(all));
        Self { bytes, taken, is_binding: true, is_chosen: bytes < all, records: true }
    }
}

/// The memory of this machine, or of the control group that this process is in if that is less. `None` where the system does
/// not say.
pub(crate) fn host_bytes() -> Option<u64> {
    host_bytes_below(Path::new("/"))
}

fn host_bytes_below(root: &Path) -> Option<u64> {
    let machine = machine_bytes(&fs::read_to_string(root.join("proc/meminfo")).ok()?)?;
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    Some(group_limits(root, &groups).fold(machine, u64::min))
}

/// `MemTotal:       24689764 kB`
fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Limits of the groups that the process is in, those around them included. `max`, or in the first version a number beyond any
/// memory, is none.
fn group_limits(root: &Path, groups: &str) -> impl Iterator<Item = u64> {
    let files = groups.lines().filter_map(|line| {
        // `0::/a/b`, in the first version `9:memory:/a/b`.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        match controllers {
            "" => Some(("sys/fs/cgroup", "memory.max", path)),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some(("sys/fs/cgroup/memory", "memory.limit_in_bytes", path))
            }
            _ => None,
        }
    });
    files.flat_map(move |(mount, file, path)| {
        let mount = root.join(mount);
        let group = mount.join(path.trim_start_matches('/'));
        let around = group.ancestors().take_while(|folder| folder.starts_with(&mount));
        let limits = around.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok());
        limits.collect::<Vec<u64>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        host_bytes_below(root.path())
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        1000 kB\nMemFree:          10 kB\n");

    #[test]
    fn what_others_have_of_a_gpu_is_not_there() {
        let capacity = |may_use| Capacity::of_gpu(50, 80, 22, may_use);
        assert_eq!((capacity(None).bytes, capacity(None).taken), (80, 8));
        assert_eq!((capacity(Some(60)).bytes, capacity(Some(60)).taken, capacity(Some(99)).bytes), (60, 8, 80));
        assert_eq!([None, Some(60), Some(99)].map(|may_use| capacity(may_use).is_chosen), [false, true, false]);
        // Weights were estimated, and drivers round.
        assert_eq!(Capacity::of_gpu(60, 80, 22, None).taken, 0);
    }

    #[test]
    fn the_smallest_limit_around_the_process_counts() {
        assert_eq!(system(&[MACHINE]), Some(1_024_000));
        let groups = [
            MACHINE,
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/memory.max", "500000\n"),
        ];
        assert_eq!(system(&groups), Some(500_000));
        assert_eq!(system(&groups[..3]), Some(1_024_000));
        // In a container, the group's own files are where those of all groups would be.
        let container = [MACHINE, ("proc/self/cgroup", "0::/docker/0123\n"), ("sys/fs/cgroup/memory.max", "400000\n")];
        assert_eq!(system(&container), Some(400_000));
    }

    #[test]
    fn groups_of_the_first_version_count_too() {
        let unlimited = "9223372036854771712\n";
        for (limit, expected) in [("300000\n", 300_000), (unlimited, 1_024_000)] {
            let files = [
                MACHINE,
                ("proc/self/cgroup", "10:cpu,cpuacct:/a\n9:memory:/a\n"),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", limit),
            ];
            assert_eq!(system(&files), Some(expected));
        }
    }

    #[test]
    fn a_system_that_does_not_say_has_none() {
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[("proc/meminfo", "MemTotal: much\n")]), None);
    }
}
