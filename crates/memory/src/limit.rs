//! How much memory there is to have.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The share of what there is that is taken if nothing else is said.
const SHARE_PERCENT: u64 = 80;

/// A limit as written in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    None,
    Bytes(u64),
    /// Of [`available`].
    Percent(u64),
}

impl Default for Limit {
    fn default() -> Self {
        Limit::Percent(SHARE_PERCENT)
    }
}

impl Limit {
    /// In bytes, if there is one and the system tells how much memory there is.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Limit::None => None,
            Limit::Bytes(bytes) => Some(bytes),
            Limit::Percent(percent) => Some(available()? / 100 * percent),
        }
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        let text = text.trim();
        if text == "none" {
            return Ok(Limit::None);
        }
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = text[digits.len()..].trim().to_ascii_lowercase();
        let wrong =
            || format!("\"{text}\" is no amount of memory; write 4GiB, 512MiB, 50% or none");
        let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
        let shift = match unit.as_str() {
            "%" if (1..=100).contains(&number) => return Ok(Limit::Percent(number)),
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(wrong()),
        };
        let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes > 0);
        bytes.map(Limit::Bytes).ok_or_else(wrong)
    }
}

/// Bytes of memory that this process can have: the machine's, or its control group's if that is
/// less. None where the system does not say.
pub fn available() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_groups = groups
        .lines()
        .filter_map(|line| group_limit(line, Path::new("/sys/fs/cgroup")));
    of_groups.chain(machine()).min()
}

fn machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The least limit of a group (a line of `/proc/self/cgroup`) and of those above it. In a
/// container the group's path may not be there; its limit is then at the root.
fn group_limit(line: &str, mounted: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (root, file) = match controllers {
        "" if mounted.join("unified").is_dir() => (mounted.join("unified"), "memory.max"),
        "" => (mounted.to_path_buf(), "memory.max"),
        named if named.split(',').any(|name| name == "memory") => {
            (mounted.join("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let group: PathBuf = root.join(path.trim_start_matches('/'));
    let folders = group.ancestors().take_while(|f| f.starts_with(&root));
    let limits = folders.filter_map(|folder| {
        let text = std::fs::read_to_string(folder.join(file)).ok()?;
        text.trim().parse::<u64>().ok()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let of = |text: &str| text.parse::<Limit>();
        assert_eq!(of("512MiB"), Ok(Limit::Bytes(512 << 20)));
        assert_eq!(of(" 4 gb "), Ok(Limit::Bytes(4 << 30)));
        assert_eq!(of("1048576"), Ok(Limit::Bytes(1 << 20)));
        assert_eq!(of("50%"), Ok(Limit::Percent(50)));
        assert_eq!(of("none"), Ok(Limit::None));
        for wrong in [
            "",
            "MiB",
            "0",
            "0%",
            "101%",
            "-1",
            "4 elephants",
            "99999999T",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_above_counts() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
        std::fs::write(folder.join("memory.max"), "max\n").unwrap();
        assert_eq!(group_limit("0::/a/b", root.path()), Some(1000));
        std::fs::write(folder.join("memory.max"), "900\n").unwrap();
        assert_eq!(group_limit("0::/a/b", root.path()), Some(900));
        assert_eq!(group_limit("0::/elsewhere", root.path()), None);
        let memory = root.path().join("memory/c");
        std::fs::create_dir_all(&memory).unwrap();
        std::fs::write(memory.join("memory.limit_in_bytes"), "77").unwrap();
        assert_eq!(group_limit("5:memory,x:/c", root.path()), Some(77));
        assert_eq!(group_limit("6:cpu:/c", root.path()), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available().unwrap() > 1 << 20);
    }
}
