//! Ctrl-C: the process ends at once, and says what is left of the work and how to go on. Every step of it leaves the store whole.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use tokio::sync::oneshot;

/// What is to be said if the work is interrupted now.
#[derive(Debug, Clone, Default)]
pub(super) struct Advice(Arc<Mutex<&'static str>>);

impl Advice {
    /// From now on it is this.
    pub(super) fn set(&self, words: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    fn get(&self) -> &'static str {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the work ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended<T> {
    /// By itself.
    Done(T),
    /// By Ctrl-C, with the advice of that moment. Its thread still runs: the process should end.
    Interrupted(&'static str),
}

/// Does `work` on a thread of its own, up to its end or Ctrl-C.
pub(super) fn watch<T: Send + 'static>(
    work: impl FnOnce(&Advice) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<Ended<T>> {
    let advice = Advice::default();
    let (done, result) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let own = advice.clone();
    std::thread::spawn(move || {
        // Whoever waited may have been interrupted.
        let _ = done.send(work(&own));
    });
    runtime.block_on(async {
        tokio::select! {
            result = result => result.map_err(|_| anyhow!("the command ended abruptly; this is a bug"))?.map(Ended::Done),
            signal = tokio::signal::ctrl_c() => {
                signal?;
                Ok(Ended::Interrupted(advice.get()))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_ends_by_itself_is_answered() {
        assert!(matches!(watch(|_| Ok(7)).unwrap(), Ended::Done(7)));
        let error = watch(|_| Err::<(), _>(anyhow!("no disk"))).unwrap_err();
        assert_eq!(error.to_string(), "no disk");
    }
}
