//! No core dumps: the process holds keys, prompts and replies, and a dump would leave them on a disk (P-A8).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// One byte and not none: Linux ignores a limit of zero where dumps go to a program (`core_pattern` begins with `|`), and writes
/// nothing to a file or to a program at a limit of one.
const LIMIT: u64 = 1;

/// Turns them off for this process and its children; nothing can turn them on again without the right to raise limits.
pub(crate) fn turn_off() {
    let limit = Some(getrlimit(Resource::Core).maximum.map_or(LIMIT, |maximum| maximum.min(LIMIT)));
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: limit, maximum: limit }) {
        tracing::warn!(%error, "core dumps cannot be turned off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn afterwards_there_are_none() {
        turn_off();
        let Rlimit { current, maximum } = getrlimit(Resource::Core);
        assert!(current.is_some_and(|limit| limit <= LIMIT) && maximum.is_some_and(|limit| limit <= LIMIT));
    }
}
