//! How far a long piece of work has come, told to whoever shows it.

/// Is told how far reading, hashing or downloading has come. Pieces of work follow each other; they do not nest.
pub trait Progress: Sync {
    /// A piece of work begins: `what` is a few words with the file's name, `total_bytes` is how much there is, if that is known.
    fn begin(&self, what: &str, total_bytes: Option<u64>);

    /// `bytes` more are done.
    fn advance(&self, bytes: u64);

    /// The piece of work is over, whether it went well or not.
    fn end(&self);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: Option<u64>) {}

    fn advance(&self, _: u64) {}

    fn end(&self) {}
}

/// Ends a piece of work when it goes out of scope, so that an error ends it too.
pub(crate) struct Work<'a>(&'a dyn Progress);

impl<'a> Work<'a> {
    /// Begins a piece of work.
    pub(crate) fn begin(progress: &'a dyn Progress, what: &str, total_bytes: u64) -> Self {
        progress.begin(what, Some(total_bytes));
        Work(progress)
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
