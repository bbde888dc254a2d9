//! How many files the process may have open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tollgate_config::Config;

/// Files that the gateway needs beside its connections: the config, models, the plugins' cache, pipes to the build step.
const OWN: u64 = 512;

/// Raises the soft limit to the hard one, which costs nothing and needs no right, and says so where the listeners' connections
/// do not fit even then.
pub(crate) fn raise(config: &Config) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let limit = match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files cannot be raised");
            current
        }
    };
    let wanted =
        config.listeners.values().map(|listener| u64::from(listener.limits.connections)).sum::<u64>().saturating_add(OWN);
    if let Some(limit) = limit.filter(|limit| *limit < wanted) {
        tracing::warn!(
            limit,
            wanted,
            "the process may open fewer files than its listeners may have connections: raise the limit (`LimitNOFILE` in systemd, \
             `ulimit -Hn`) or lower `limits.connections`"
        );
    }
}
