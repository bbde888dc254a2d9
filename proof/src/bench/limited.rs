//! A limit on a process's memory, by what the machine has: a cgroup of either version, systemd, or a limit on writable memory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A limit under which processes can be started.
#[derive(Debug)]
pub(crate) struct Limited {
    /// What limits.
    pub(crate) by: &'static str,
    /// The command that starts another under the limit.
    pub(crate) wrapper: Vec<String>,
    group: Option<PathBuf>,
}

impl Limited {
    /// The strictest kind of limit that can be had here.
    pub(crate) fn to(bytes: u64) -> Self {
        Self::group_v1(bytes).or_else(|| Self::group_v2(bytes)).or_else(|| Self::systemd(bytes)).unwrap_or_else(|| Limited {
            by: "a limit on writable memory (prlimit --data): no cgroup could be made, so mapped files do not count",
            wrapper: vec!["prlimit".to_owned(), format!("--data={bytes}"), "--".to_owned()],
            group: None,
        })
    }

    fn group_v1(bytes: u64) -> Option<Self> {
        let folder = Path::new("/sys/fs/cgroup/memory").join(format!("tollgate-bench-{}", std::process::id()));
        Self::group("a cgroup (v1, page cache included)", &folder, &[("memory.limit_in_bytes", bytes.to_string())])
    }

    fn group_v2(bytes: u64) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let controllers = std::fs::read_to_string(root.join("cgroup.subtree_control")).ok()?;
        controllers.split_whitespace().find(|name| *name == "memory")?;
        let folder = root.join(format!("tollgate-bench-{}", std::process::id()));
        let settings = [("memory.max", bytes.to_string()), ("memory.swap.max", "0".to_owned())];
        Self::group("a cgroup (v2, page cache included)", &folder, &settings)
    }

    fn group(by: &'static str, folder: &Path, settings: &[(&str, String)]) -> Option<Self> {
        std::fs::create_dir(folder).ok()?;
        let limited = Limited {
            by,
            wrapper: ["sh", "-c", &format!("echo $$ > {}/cgroup.procs; exec \"$@\"", folder.display()), "sh"]
                .map(str::to_owned)
                .into(),
            group: Some(folder.to_owned()),
        };
        for (file, value) in settings {
            // Dropping removes the folder.
            std::fs::write(folder.join(file), value).ok()?;
        }
        Some(limited)
    }

    fn systemd(bytes: u64) -> Option<Self> {
        Path::new("/run/systemd/system").exists().then(|| {
            let limit = format!("MemoryMax={bytes}");
            let words = ["systemd-run", "--scope", "--quiet", "-p", &limit, "-p", "MemorySwapMax=0", "--"];
            Limited { by: "a systemd scope (page cache included)", wrapper: words.map(str::to_owned).into(), group: None }
        })
    }

    /// A number from a file of the group: `v1` or, where that is not there, `v2`.
    pub(crate) fn read(&self, v1: &str, v2: &str) -> Option<u64> {
        let group = self.group.as_ref()?;
        let text = std::fs::read_to_string(group.join(v1)).or_else(|_| std::fs::read_to_string(group.join(v2))).ok()?;
        text.trim().parse().ok()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let Some(group) = &self.group else { return };
        // The processes in it have been killed; the kernel takes a moment to let them go.
        let end = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(group).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
