//! What a panic leaves in the log: one line like any other, and nothing of what the thread was working on (P-A8).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{PanicHookInfo, set_hook};

/// From now on panics are lines of the log, instead of text on standard error.
pub(crate) fn into_log() {
    set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        let (thread, reason) = (std::thread::current(), reason(panic));
        tracing::error!(thread = thread.name().unwrap_or_default(), location, reason, backtrace, "a thread panicked");
    }));
}

/// A text that stands in the code as it is. One that was put together may hold a prompt: cutting a string in the middle of a
/// character makes one of that very string.
fn reason(panic: &PanicHookInfo<'_>) -> &'static str {
    panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("a text that may hold a client's words, and is not shown")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn only_what_stands_in_the_code_is_told() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let before = std::panic::take_hook();
        set_hook(Box::new(move |panic| heard.lock().unwrap().push(reason(panic))));
        let prompt = std::hint::black_box("é secret".to_owned());
        let panics = [
            std::thread::spawn(|| panic!("a fixed text")).join().is_err(),
            std::thread::spawn(move || drop(prompt[1..].to_owned())).join().is_err(),
        ];
        set_hook(before);
        assert_eq!(panics, [true, true]);
        let told = told.lock().unwrap();
        assert!(told.contains(&"a fixed text"), "{told:?}");
        assert!(
            told.iter().any(|reason| reason.ends_with("is not shown")) && !told.iter().any(|reason| reason.contains("secret"))
        );
    }
}
