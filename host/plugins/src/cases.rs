//! Golden cases on a component, each on a fresh instance as a request gets one. What a case means is `tollgate-cases`'.
//!
//! Under the operator's config it is the code that will serve; under any other the component is compiled quickly, and an instance
//! runs `init` itself, as one without a snapshot does, unless that would take longer than a snapshot.

mod convert;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_cases::{self as words, Case, Config, ENTROPY, Failure, Fault, Problems, SECTION, Set, Start, Verdict};
use wasmparser::{Parser, Payload};
use wasmtime::component::Component;

use crate::build::{BuildFailure, BuildReport, BuildStage, Init, NotInitialised, Prepared, failure, process_cpu};
use crate::engine::MAX_MEMORY_BYTES;
use crate::imports::{Credentials, Lookup};
use crate::meter::thread_cpu_ns;
use crate::{Instance, Kill, Limits, Manifest, OnFailure, Plugin, Slots, Spec};

/// CPU time of one call. More than a request has, since the code may be compiled quickly.
const CALL: Duration = Duration::from_secs(2);
/// Seconds: a slower `init` is not run for each instance if a snapshot can be had.
const SLOW_INIT_S: f64 = 0.5;
/// Cases that failed and are told by name besides the first.
const MAX_NAMED: usize = 5;

/// What `tollgate plugin test` asks for.
#[derive(Debug, Clone, Copy)]
pub struct TestRequest<'a> {
    /// The component.
    pub component: &'a [u8],
    /// Files of cases, as name and text; `None`: those that the component brings.
    pub files: Option<&'a [(String, String)]>,
    /// The config under which cases run that hold under any, a JSON object.
    pub config_json: &'a str,
    /// Only cases with this in their name are run.
    pub filter: &'a str,
    /// CPU time, in seconds, of which the cases have a third.
    pub time_s: u64,
}

/// What cases came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tested {
    /// Cases.
    pub cases: usize,
    /// Fresh instances that those needed which passed.
    pub runs: usize,
    /// Those that did not pass, in the order of their files.
    pub failures: Vec<Failure>,
    /// How many were not run to their end, for want of time.
    pub unfinished: usize,
}

impl Tested {
    /// Why the plugin may not serve, on one line. `None`: it may.
    pub(crate) fn reason(&self) -> Option<String> {
        let Some((first, others)) = self.failures.split_first() else {
            let cure = "cut fewer replies with `splits = \"every\"`, or raise `build.time_s` in tollgate.toml";
            let (unfinished, all) = (self.unfinished, self.cases);
            return (unfinished > 0)
                .then(|| format!("{unfinished} of {all} cases did not come to an end in a third of the build's time; {cure}"));
        };
        let named = others.iter().take(MAX_NAMED).map(|other| format!("`{}` ({})", other.case, other.place)).collect::<Vec<_>>();
        let so_did = if named.is_empty() { String::new() } else { format!("; so did {}", named.join(", ")) };
        let more = others.len().saturating_sub(MAX_NAMED);
        let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(format!("{first}{so_did}{and_more}"))
    }
}

/// Runs cases on a component, in this process.
///
/// # Errors
/// The component or the files are not what they should be, or there is no case to run. A case that fails is no error.
pub async fn run_cases(request: &TestRequest<'_>) -> Result<Tested, BuildFailure> {
    let manifest = Manifest::read(request.component).map_err(|reason| failure(BuildStage::Check, reason))?;
    let set = match request.files {
        Some(files) => Set::read(files),
        None => within(request.component),
    };
    let set = set.map_err(|problems| failure(BuildStage::Cases, problems.to_string()))?;
    if set.is_empty() {
        let cure = "name their folder with `--cases`, or put them into the component with `tollgate plugin pack`";
        return Err(failure(
            BuildStage::Cases,
            format!("there are no cases: {cure} (docs/plugin-cases.md says how to write one)"),
        ));
    }
    let set = set.filtered(request.filter);
    if set.is_empty() {
        return Err(failure(BuildStage::Cases, format!("no case has `{}` in its name", request.filter)));
    }
    let prepared = Prepared::new(request.component, &manifest, None)?;
    let trial = Trial {
        id: &manifest.name,
        manifest: &manifest,
        config_json: request.config_json,
        prepared: &prepared,
        served: None,
        time_s: request.time_s,
    };
    trial.run(&set, false).await
}

/// The cases that a component brings.
pub(crate) fn within(component: &[u8]) -> Result<Set, Problems> {
    let sections = Parser::new(0).parse_all(component).filter_map(|payload| match payload {
        Ok(Payload::CustomSection(section)) => Some((section.name().strip_prefix(SECTION)?, section.data())),
        _ => None,
    });
    Set::read(&sections.collect::<Vec<_>>())
}

/// What will serve.
pub(crate) struct Served<'a> {
    pub(crate) component: &'a Component,
    pub(crate) report: &'a BuildReport,
}

/// A component on trial.
pub(crate) struct Trial<'a> {
    pub(crate) id: &'a str,
    pub(crate) manifest: &'a Manifest,
    /// The operator's.
    pub(crate) config_json: &'a str,
    pub(crate) prepared: &'a Prepared<'a>,
    /// What serves under the operator's config, if it is there already.
    pub(crate) served: Option<Served<'a>>,
    /// The build's time.
    pub(crate) time_s: u64,
}

impl Trial<'_> {
    /// Runs cases; with `operators_alone` those that hold under the operator's config, and no others.
    ///
    /// # Errors
    /// The operator's config is no JSON.
    pub(crate) async fn run(&self, set: &Set, operators_alone: bool) -> Result<Tested, BuildFailure> {
        let operators = serde_json::from_str::<Value>(self.config_json)
            .map_err(|error| failure(BuildStage::Process, format!("the config: {error}")))?;
        let (began_ns, budget) = (thread_cpu_ns(), Duration::from_secs(self.time_s) / 3);
        let goes_on = || Duration::from_nanos(thread_cpu_ns().saturating_sub(began_ns)) < budget;
        let mut tested = Tested { cases: set.cases().len(), ..Tested::default() };
        let mut failures = Vec::new();
        for (config, cases) in by_config(set, &operators) {
            let is_operators = *config == operators;
            if operators_alone && !is_operators {
                continue;
            }
            let runs = cases.iter().map(|(_, case)| case.runs()).sum();
            let stand = self.stand(config, is_operators, runs).await;
            for (at, case) in cases {
                let verdict = if goes_on() { words::run(&stand, case, goes_on).await } else { Verdict::OutOfTime };
                match verdict {
                    Verdict::Passed => tested.runs += case.runs(),
                    Verdict::Failed(failure) => failures.push((at, failure)),
                    Verdict::OutOfTime => tested.unfinished += 1,
                }
            }
        }
        failures.sort_by_key(|(at, _)| *at);
        tested.failures = failures.into_iter().map(|(_, failure)| failure).collect();
        Ok(tested)
    }

    /// Makes the plugin under a config; `runs` fresh instances of it will be needed.
    async fn stand(&self, config: &Value, is_operators: bool, runs: usize) -> Stand {
        let keys = Arc::new(Keys::default());
        let config_json = config.to_string();
        let made = match &self.served {
            Some(served) if is_operators => self.plugin(served.component, served.report, config_json, &keys),
            _ => self.initialised(config_json, runs, &keys).await,
        };
        Stand { made, keys, slots: Slots::new(1) }
    }

    async fn initialised(&self, config_json: String, runs: usize, keys: &Arc<Keys>) -> Result<Arc<Plugin>, Start> {
        let until = process_cpu() + Duration::from_secs(self.time_s) / 3;
        let init = Init { id: self.id, manifest: self.manifest, config_json: &config_json, until };
        let began = Instant::now();
        let initialised = init.run(self.prepared).await.map_err(|stopped| match stopped {
            NotInitialised::Refused(error) => Start::Refused(error),
            NotInitialised::Failed(failure) => Start::Failed(failure.to_string()),
        })?;
        let init_s = began.elapsed().as_secs_f64();
        let memory_bytes = initialised.memory_bytes();
        let all_s = init_s * f64::from(u32::try_from(runs).unwrap_or(u32::MAX));
        let snapshot = if init_s > SLOW_INIT_S || all_s > self.prepared.compile_s {
            let snapshot = self.prepared.snapshot(initialised).await;
            snapshot.and_then(|bytes| self.prepared.compile(&bytes)).ok()
        } else {
            None
        };
        let report = BuildReport::of(self.manifest.clone(), snapshot.is_some(), memory_bytes);
        self.plugin(snapshot.as_ref().unwrap_or(self.prepared.component()), &report, config_json, keys)
    }

    fn plugin(
        &self,
        component: &Component,
        report: &BuildReport,
        config_json: String,
        keys: &Arc<Keys>,
    ) -> Result<Arc<Plugin>, Start> {
        let spec = Spec {
            id: self.id.to_owned(),
            config_json,
            grants: self.manifest.capabilities.clone(),
            // What the operator allows is no part of the plugin, and a case is no place to run into it.
            limits: Limits { memory_over_snapshot: MAX_MEMORY_BYTES as u64, cpu: CALL, ..Limits::default() },
            on_failure: OnFailure::Refuse,
        };
        let plugin = Plugin::of(component, report, spec, Arc::clone(keys) as Arc<dyn Credentials>);
        plugin.map(Arc::new).map_err(|error| Start::Failed(error.to_string()))
    }
}

/// The cases of each config with their places in the set; those of any config go with the operator's.
fn by_config<'a>(set: &'a Set, operators: &'a Value) -> Vec<(&'a Value, Vec<(usize, &'a Case)>)> {
    let mut groups: Vec<(&Value, Vec<(usize, &Case)>)> = Vec::new();
    for (at, case) in set.cases().iter().enumerate() {
        let config = match case.config() {
            Config::Any => operators,
            Config::Given(config) => config,
        };
        match groups.iter_mut().find(|(known, _)| *known == config) {
            Some((_, cases)) => cases.push((at, case)),
            None => groups.push((config, vec![(at, case)])),
        }
    }
    groups
}

/// The plugin under one config, or why there is none.
struct Stand {
    made: Result<Arc<Plugin>, Start>,
    keys: Arc<Keys>,
    slots: Slots,
}

impl words::Under for Stand {
    type Subject = Running;

    async fn fresh(&self, case: &Case) -> Result<Running, Start> {
        let plugin = self.made.clone()?;
        let slot = self.slots.reserve(1).and_then(|mut reserved| reserved.take());
        let slot = slot.ok_or_else(|| Start::Failed("the instance before is still there".to_owned()))?;
        // There are no keys while a plugin is made, wherever that happens.
        self.keys.hold(None);
        let started = Instance::start(plugin, slot, "case".into(), case.now_ms(), Some(ENTROPY)).await;
        let mut instance = started.map_err(|kill| Start::Failed(kill.to_string()))?;
        self.keys.hold(Some(case.clone()));
        instance.keep_log();
        Ok(Running(instance))
    }
}

/// The keys of the case under way.
#[derive(Default)]
struct Keys(Mutex<Option<Case>>);

impl Keys {
    fn hold(&self, case: Option<Case>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = case;
    }
}

impl Credentials for Keys {
    fn lookup<'a>(&'a self, secret: &'a str) -> Lookup<'a> {
        let case = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = case.as_ref().map_or(Err(words::LookupError::Unavailable), |case| case.lookup(secret));
        Box::pin(std::future::ready(convert::lookup(found)))
    }
}

/// One fresh instance.
struct Running(Instance);

impl words::Subject for Running {
    async fn authenticate(&mut self, head: &words::Head) -> Result<words::Decision, Fault> {
        self.0.authenticate(convert::head(head)).await.map(convert::decision).map_err(Fault::from)
    }

    async fn compose(
        &mut self,
        ctx: &words::Context,
        request: &words::Request,
    ) -> Result<Result<words::Request, words::Refusal>, Fault> {
        let composed = self.0.compose(convert::context(ctx), convert::request(request)).await.map_err(Fault::from)?;
        Ok(composed.map(convert::request_back).map_err(convert::refusal))
    }

    async fn filter_prompt(&mut self, ctx: &words::Context, request: &words::Request) -> Result<words::Outcome, Fault> {
        let outcome = self.0.filter_prompt(convert::context(ctx), convert::request(request)).await;
        outcome.map(convert::outcome).map_err(Fault::from)
    }

    async fn begin(&mut self, ctx: &words::Context, choice: u32) -> Result<(), Fault> {
        self.0.reply_begins(convert::context(ctx), choice).await.map_err(Fault::from)
    }

    async fn push(&mut self, piece: &words::Piece) -> Result<words::Step, Fault> {
        self.0.push(convert::piece(piece)).await.map(convert::step).map_err(Fault::from)
    }

    async fn finish(&mut self) -> Result<words::Step, Fault> {
        self.0.finish().await.map(convert::step).map_err(Fault::from)
    }

    async fn constraint(&mut self, ctx: &words::Context) -> Result<Option<String>, Fault> {
        self.0.constraint(convert::context(ctx)).await.map_err(Fault::from)
    }

    async fn format(&mut self, ctx: &words::Context, reply: &str) -> Result<Result<String, words::Refusal>, Fault> {
        let formatted = self.0.format(convert::context(ctx), reply).await.map_err(Fault::from)?;
        Ok(formatted.map_err(convert::refusal))
    }

    fn logged(&mut self) -> Vec<String> {
        self.0.logged()
    }
}

impl From<Kill> for Fault {
    fn from(kill: Kill) -> Self {
        Fault(kill.reason.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(name: &str) -> Failure {
        let (case, place) = (name.to_owned(), "a.toml:1".to_owned());
        Failure { case, place, pieces: None, mismatches: Vec::new() }
    }

    #[test]
    fn a_reason_tells_the_first_and_names_a_few() {
        assert_eq!(Tested::default().reason(), None);
        let unfinished = Tested { cases: 3, unfinished: 2, ..Tested::default() };
        assert!(unfinished.reason().expect("not whole").starts_with("2 of 3 cases did not come to an end"));
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let tested = Tested { failures: names.map(failed).to_vec(), ..Tested::default() };
        let reason = tested.reason().expect("failed");
        assert!(reason.starts_with("the case `a` (a.toml:1) failed; so did `b` (a.toml:1), `c`"), "{reason}");
        assert!(reason.ends_with("`f` (a.toml:1) and 2 more"), "{reason}");
    }

    #[test]
    fn cases_are_found_in_the_sections_of_their_name() {
        let section = |name: &str, text: &str| {
            let size = u8::try_from(1 + name.len() + text.len()).expect("short");
            let name_size = u8::try_from(name.len()).expect("short");
            [&[0, size, name_size], name.as_bytes(), text.as_bytes()].concat()
        };
        let head = b"\0asm\x0d\0\x01\0".to_vec();
        let good = section("tollgate:cases/a.toml", "[[case]]\nname = 'x'\nauthenticate = 'abstain'");
        let component = [head.clone(), section("other", "text"), good].concat();
        let set = within(&component).expect("well-formed");
        assert_eq!(set.cases().iter().map(Case::place).collect::<Vec<_>>(), ["a.toml:1"]);
        let bad = [head, section("tollgate:cases/b.toml", "[[case]]")].concat();
        assert!(within(&bad).expect_err("no name").to_string().starts_with("b.toml:1:1: `name` is missing"));
    }
}
