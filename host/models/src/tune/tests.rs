//! What a first load measures, keeps, and does not try again, with a script in the place of the child that measures.

use std::ops::RangeInclusive;
use std::path::Path;

use tollgate_artifacts::Store;

use super::*;

const ALL: RangeInclusive<u64> = 0..=u64::MAX;
const BEST: Candidate = Candidate { repack: false, threads: 3, micro_batch: 128, spin: false };

/// A gateway's files, the demo model among them.
struct Place {
    folder: tempfile::TempDir,
    library: Library,
}

impl Place {
    /// `script` is what the child does; models with `at_load` bytes of weights are measured at their first load.
    fn new(script: &str, at_load: RangeInclusive<u64>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = folder.path().join("child");
        let runs = folder.path().join("runs").display().to_string();
        std::fs::write(&child, format!("echo run >> '{runs}'\n{script}\n")).unwrap();
        // What a process is started with is known when it is built; not so here.
        let child: &'static str = child.display().to_string().leak();
        let tuner = Tuner::new(PathBuf::from("/bin/sh"), child, "PARENT", at_load);
        let store = Store::open(&folder.path().join("models")).unwrap();
        let library = Library::new(&[], folder.path().join("builtin"), folder.path().join("config"), store);
        Place { library: library.with_tuner(Some(tuner)), folder }
    }

    /// The model's config, with `more` in its file.
    fn config(&self, more: &str) -> tollgate_config::Config {
        let config = self.folder.path().join("config");
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model/demo.gguf").display().to_string();
        for (name, text) in [
            ("listeners/main.toml", "authenticators = [\"auth\"]\n".to_owned()),
            ("plugins/auth.toml", "component = \"builtin:auth-keys\"\n".to_owned()),
            ("models/demo.toml", format!("backend = \"llama\"\nartifact = {demo:?}\n{more}\n")),
        ] {
            let file = config.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        tollgate_config::load(&config).unwrap()
    }

    /// What the model is loaded with, and with how many threads.
    fn load(&self, more: &str) -> (Chosen, Option<u16>) {
        let config = self.config(more);
        let spec = config.model("demo").unwrap();
        let artifact = select::find(spec, &self.library).unwrap();
        let (chosen, _) = at_load(spec, artifact.as_ref(), &self.library);
        (chosen, chosen.threads_of(spec))
    }

    /// How often the child was started, and how many records are kept.
    fn counts(&self) -> (usize, usize) {
        let runs = std::fs::read_to_string(self.folder.path().join("runs")).map_or(0, |text| text.lines().count());
        let kept = std::fs::read_dir(self.folder.path().join("models/tune")).map_or(0, Iterator::count);
        (runs, kept)
    }
}

/// A script that says this.
fn says(line: &TuneLine) -> String {
    format!("echo '{}'", serde_json::to_string(line).unwrap())
}

/// Has measured [`BEST`] as the best of two.
fn measures() -> String {
    let first = Candidate { repack: true, threads: 1, micro_batch: 512, spin: true };
    let row =
        |candidate, decode_tps| Measured { candidate, prompt_tps: 100.0, decode_tps, decode4_tps: None, load_ms: 7, bytes: 9 };
    let report = choose::report(vec![row(first, 10.0), row(BEST, 20.0)], true, 0, Duration::from_millis(900)).unwrap();
    says(&TuneLine::Done(report))
}

#[test]
fn the_first_load_measures_and_the_next_one_knows() {
    let place = Place::new(&measures(), ALL);
    let best = Chosen { threads: Some(3), tuning: BEST.tuning() };
    assert_eq!((place.load(""), place.counts()), ((best, Some(3)), (1, 1)));
    assert_eq!((place.load(""), place.counts()), ((best, Some(3)), (1, 1)));
}

#[test]
fn threads_that_are_given_come_before_those_that_were_measured() {
    let place = Place::new(&measures(), ALL);
    place.load("");
    let (chosen, threads) = place.load("threads = 2");
    assert_eq!((chosen.threads, threads, chosen.tuning), (Some(3), Some(2), BEST.tuning()));
    let place = Place::new(&measures(), ALL);
    assert_eq!(place.load("threads = 2"), (Chosen { threads: None, tuning: BEST.tuning() }, Some(2)), "they were given");
    assert_eq!((place.load("").1, place.counts()), (None, (1, 1)), "and say nothing of another config");
}

#[test]
fn a_machine_that_is_busy_and_a_child_that_is_stopped_are_tried_again() {
    for script in [says(&TuneLine::Busy(70)), "kill -TERM $$".to_owned()] {
        let place = Place::new(&script, ALL);
        assert_eq!((place.load("").0, place.counts()), (Chosen::default(), (1, 0)), "{script}");
        assert_eq!((place.load("").0, place.counts()), (Chosen::default(), (2, 0)), "{script}");
    }
}

#[test]
fn a_failure_is_kept_and_not_tried_again() {
    for script in [says(&TuneLine::Failed("it does not decode".to_owned())), "exit 3".to_owned()] {
        let place = Place::new(&script, ALL);
        assert_eq!((place.load("").0, place.counts()), (Chosen::default(), (1, 1)), "{script}");
        assert_eq!((place.load("").0, place.counts()), (Chosen::default(), (1, 1)), "{script}");
    }
}

#[test]
fn models_that_are_too_small_or_too_large_wait_until_somebody_asks() {
    for at_load in [1 << 30..=u64::MAX, 0..=1_000] {
        let place = Place::new(&measures(), at_load);
        assert_eq!((place.load("").0, place.counts()), (Chosen::default(), (0, 0)));
        let config = place.config("");
        let budget = Duration::from_secs(1);
        let tuned = tune_again(config.model("demo").unwrap(), &place.library, budget, &mut |_| ()).unwrap();
        assert_eq!((tuned.report.chosen, place.counts()), (BEST, (1, 1)));
        assert_eq!((place.load("").1, place.counts()), (Some(3), (1, 1)), "what is known counts for models of any size");
    }
}

#[test]
fn a_deterministic_model_is_never_measured() {
    let place = Place::new(&measures(), ALL);
    place.load("");
    assert_eq!((place.load("deterministic = true").0, place.counts()), (Chosen::default(), (1, 1)));
}
