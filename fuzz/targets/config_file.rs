//! A config file of each kind, by its first byte: it is taken, or refused with its name.
#![no_main]

use std::cell::RefCell;

const FILES: [&str; 6] =
    ["tollgate.toml", "listeners/a.toml", "models/a.toml", "plugins/a.toml", "routes/a.toml", "keys/a.toml"];

thread_local! {
    static PLACE: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    PLACE.with_borrow_mut(|place| {
        let place = place.get_or_insert_with(|| tempfile::tempdir().expect("a temporary directory"));
        let name = FILES[usize::from(*kind) % FILES.len()];
        let path = place.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        std::fs::write(&path, text).expect("written");
        if name.starts_with("keys") {
            let keys = tollgate_config::load_keys(place.path(), &tollgate_config::Keys::default());
            assert_eq!(keys.keys.is_empty(), !keys.problems.is_empty());
        } else if let Err(problems) = tollgate_config::load(place.path()) {
            assert!(!problems.0.is_empty());
            for problem in &problems.0 {
                assert!(!problem.to_string().contains('\n'), "{problem}");
            }
        }
        std::fs::remove_file(path).expect("removed");
    });
});
