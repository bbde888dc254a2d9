//! Whole directories, good and bad.

mod adapters;

mod remote;
mod task;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use crate::{Config, Dialect, Keys, Match, Problem, Problems, Source, content_hash, load, load_keys};

/// The smallest directory without a warning.
const MINIMAL: [(&str, &str); 4] = [
    ("listeners/main.toml", "authenticators = [\"auth\"]\n"),
    ("models/demo.toml", "backend = \"llama\"\nartifact = \"builtin:demo\"\naliases = [\"default\"]\n"),
    ("plugins/auth.toml", "component = \"builtin:auth-keys\"\n"),
    ("routes/chat.toml", "plugins = []\n"),
];

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// The minimal directory with `files` written over it.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, content) in MINIMAL.iter().chain(files) {
        write(dir.path(), name, content);
    }
    dir
}

fn loaded(files: &[(&str, &str)]) -> Config {
    load(directory(files).path()).unwrap()
}

fn refused(files: &[(&str, &str)]) -> Problems {
    load(directory(files).path()).unwrap_err()
}

/// `FILE:LINE: MESSAGE; CURE`
fn lines(problems: &[Problem]) -> Vec<String> {
    let line = |problem: &Problem| problem.line.map(|line| format!(":{line}")).unwrap_or_default();
    problems.iter().map(|problem| format!("{}{}: {}; {}", problem.file, line(problem), problem.message, problem.cure)).collect()
}

#[test]
fn the_shipped_directory_loads_without_a_warning() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let config = load(&dir).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.hash, content_hash(&dir));
    assert_eq!(config.settings, crate::Settings::default(), "the shipped file states the defaults");
    assert_eq!(config.listeners["main"].limits, crate::ListenerLimits::default(), "the shipped file states the defaults");
    assert_eq!(config.model("default").map(|model| model.id.as_str()), Some("demo"));
    assert_eq!(config.models["demo"].artifact, Some(Source::Builtin("demo".parse().unwrap())));
    for (asked, route) in [("demo", "chat"), ("default", "chat"), ("decision", "decision")] {
        let chosen = config.most_specific(Dialect::OpenAi, asked, &["user".to_owned()], "default").unwrap();
        assert_eq!(chosen.id.as_str(), route);
        assert!(chosen.plugins.iter().any(|id| id.as_str() == "filter-pii"), "{route} lets personal data through");
    }
    let keys = load_keys(&dir, &Keys::default());
    assert!(keys.keys.is_empty() && keys.problems.is_empty());
}

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() {
    let refused = |name, content| lines(&refused(&[(name, content)]).0).join("\n");
    insta::assert_snapshot!(
        refused("listeners/main.toml", "authenticators = [\"auth\"]\nadress = \"127.0.0.1:8443\"\n"),
        @"listeners/main.toml:2: unknown key `adress`; did you mean `address`?"
    );
    insta::assert_snapshot!(
        refused("listeners/main.toml", "authenticators = [\"auth\"]\n[limits]\nheader = 1\n"),
        @"listeners/main.toml:3: unknown key `limits.header`; did you mean `headers`?"
    );
    insta::assert_snapshot!(
        refused("tollgate.toml", "[plugins]\nthreads = 1\n"),
        @"tollgate.toml:2: unknown key `plugins.threads`; remove it; known here: `slots`"
    );
}

#[test]
fn every_problem_is_reported_with_its_line_its_range_and_a_cure() {
    let model =
        "backend = \"lama\"\nartifact = \"\"\nsequences = 0\nqueue = \"many\"\nthreads = 1.5\n[defaults]\ntemperature = nan\n";
    let problems = refused(&[("models/demo.toml", model), ("routes/chat.toml", "plugin = []\nmodel = \"gone\"\n")]);
    assert_eq!(
        lines(&problems.0),
        [
            "models/demo.toml:1: `backend` cannot be `lama`; did you mean `llama`?",
            "models/demo.toml:2: `artifact` is not a source; \
             write `builtin:NAME`, `installed:NAME` (a model), or a path, absolute or relative to the config directory",
            "models/demo.toml:3: `sequences` is 0, but its range is 1 to 256; choose a number in that range",
            "models/demo.toml:4: `queue` is a string, but should be an integer; write an integer",
            "models/demo.toml:5: `threads` is a number with a fraction, but should be an integer; write an integer",
            "models/demo.toml:7: `defaults.temperature` is nan, but its range is 0.0 to 2.0; choose a number in that range",
            "routes/chat.toml: `plugins` is missing; add it",
            "routes/chat.toml:1: unknown key `plugin`; did you mean `plugins`?",
        ]
    );
    assert!(problems.0.iter().filter(|problem| problem.line.is_some()).all(|problem| problem.column.is_some()));
}

#[test]
fn references_and_conflicts_are_checked_across_files() {
    let problems = refused(&[
        ("listeners/main.toml", "authenticators = [\"auht\"]\naddress = \"127.0.0.1:8443\"\n"),
        ("listeners/second.toml", "authenticators = [\"auth\"]\naddress = [\"127.0.0.1:1\", \"0.0.0.0:8443\"]\n"),
        ("models/other.toml", "backend = \"scripted\"\naliases = [\"demo\"]\n"),
        ("routes/a.toml", "plugins = [\"auth\", \"auth\"]\n[match]\nmodel = \"default\"\n"),
        ("routes/b.toml", "plugins = []\nmodel = \"dmo\"\n[match]\nmodel = \"demo\"\n"),
        ("routes/c.toml", "plugins = []\n[match]\nmodel = \"nothing-of-the-kind\"\n"),
    ]);
    assert_eq!(
        lines(&problems.0),
        [
            "models/other.toml:2: `demo` is already a name of models/demo.toml; choose another alias",
            "listeners/second.toml:2: 0.0.0.0:8443 cannot be listened on beside 127.0.0.1:8443 of listeners/main.toml; \
             choose another port or address",
            "listeners/main.toml:1: there is no plugin `auht`; did you mean `auth`?",
            "routes/a.toml:1: the plugin `auth` is named twice; remove one of the two",
            "routes/b.toml:2: there is no model `dmo`; did you mean `demo`?",
            "routes/c.toml:3: there is no model `nothing-of-the-kind`, and the route names none that answers in its place; \
             set `model` to the model that answers",
            "routes/b.toml:3: the route matches the same requests as routes/a.toml; \
             change the condition of one of the two, or remove it",
        ]
    );
}

#[test]
fn one_slip_is_one_problem() {
    let problems = refused(&[("plugins/auth.toml", "component = 1\n")]);
    assert_eq!(problems.0.len(), 1, "the listener's reference to the broken plugin is not a second one: {problems}");
}

#[test]
fn what_has_no_effect_or_no_tls_is_refused() {
    for (name, content, path) in [
        ("listeners/main.toml", "authenticators = [\"auth\"]\nplain_http = true\naddress = \"0.0.0.0:80\"\n", "plain_http"),
        (
            "listeners/main.toml",
            "authenticators = [\"auth\"]\nplain_http = true\n[tls]\ncertificate = \"a\"\nkey = \"b\"\n",
            "tls",
        ),
        ("listeners/main.toml", "authenticators = []\n", "authenticators"),
        ("models/demo.toml", "backend = \"llama\"\n", "artifact"),
        ("models/demo.toml", "backend = \"scripted\"\nartifact = \"builtin:demo\"\n", "artifact"),
        ("models/demo.toml", "backend = \"llama\"\nartifact = \"a.gguf\"\n[scripted]\ntoken_us = 1\n", "scripted"),
        ("models/demo.toml", "backend = \"scripted\"\nkv_cache = \"q8_0\"\n", "kv_cache"),
        ("models/demo.toml", "backend = \"llama\"\nartifact = \"a.gguf\"\nquantization = \"auto\"\n", "quantization"),
        ("models/demo.toml", "backend = \"llama\"\nartifact = \"installed:a\"\nquantization = \"none\"\n", "quantization"),
        ("plugins/auth.toml", "component = \"builtin:auth-keys\"\n[config]\nsince = 2027-01-01\n", "config.since"),
        ("tollgate.toml", "[telemetry]\nendpoint = \"collector:4318\"\n", "telemetry.endpoint"),
        ("tollgate.toml", "[telemetry]\nsampling = 1.5\n", "telemetry.sampling"),
        ("tollgate.toml", "[telemetry]\nqueue = 1\n", "telemetry.queue"),
        (
            "tollgate.toml",
            "[telemetry]\nendpoint = \"http://collector:4318\"\nheaders_file = \"otlp.headers\"\n",
            "telemetry.headers_file",
        ),
    ] {
        let problems = refused(&[(name, content)]);
        assert_eq!(problems.0.first().map(|problem| problem.path.as_str()), Some(path), "{problems}");
    }
    let skip = refused(&[("plugins/auth.toml", "component = \"builtin:auth-keys\"\non_failure = \"skip\"\n")]);
    assert!(skip.to_string().contains("authenticators always refuse"), "{skip}");
}

#[test]
fn loopback_may_speak_plain_http_and_port_zero_may_repeat() {
    let listener = "authenticators = [\"auth\"]\nplain_http = true\naddress = [\"127.0.0.1:0\", \"[::1]:0\"]\n";
    let config = loaded(&[("listeners/main.toml", listener), ("listeners/second.toml", listener)]);
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.listeners["main"].address.len(), 2);
}

#[test]
fn traces_go_where_the_settings_say() {
    let text = "[telemetry]\nendpoint = \"http://[::1]:4318\"\nsampling = 1\nheaders_file = \"otlp.headers\"\n";
    let telemetry = loaded(&[("tollgate.toml", text)]).settings.telemetry;
    assert_eq!(telemetry.endpoint.map(|endpoint| endpoint.to_string()).as_deref(), Some("http://[::1]:4318"));
    assert_eq!((telemetry.sampling, telemetry.queue), (1.0, 4_096));
}

/// P-U1: a writer that truncates and writes is seen in the middle.
#[test]
fn a_half_written_route_never_loses_its_filters() {
    let whole = "# For everybody.\nplugins = [\"auth\"]\nmodel = \"demo\"\n\n[match]\ntenant = \"acme\"\n";
    let dir = directory(&[]);
    for end in 0..=whole.len() {
        write(dir.path(), "routes/chat.toml", &whole[..end]);
        match load(dir.path()) {
            Ok(config) => assert_eq!(config.routes["chat"].plugins.len(), 1, "cut at {end}"),
            Err(problems) => assert!(problems.0.iter().all(|problem| problem.file == "routes/chat.toml"), "{problems}"),
        }
    }
}

/// P-U1: empty, binary and huge files, and no directory at all.
#[test]
fn files_that_are_no_config_are_refused_by_name() {
    let dir = directory(&[("models/demo.toml", "# nothing yet\n")]);
    write(dir.path(), "routes/chat.toml", b"plugins = []\n# \xff\xfe\n");
    write(dir.path(), "plugins/auth.toml", vec![b'#'; 1024 * 1024 + 1]);
    write(dir.path(), "plugins/No Id.toml", "");
    fs::create_dir(dir.path().join("plugins/folder.toml")).unwrap();
    let problems = load(dir.path()).unwrap_err();
    assert_eq!(
        lines(&problems.0),
        [
            "plugins/No Id.toml: `No Id` is not an object id; use lower-case letters, digits, `.`, `_` and `-`, \
             beginning with a letter or a digit, 64 characters at most",
            "plugins/auth.toml: the file cannot be read: it has more than 1 MiB; mend or remove it",
            "plugins/folder.toml: the file cannot be read: it is not a regular file; mend or remove it",
            "models/demo.toml: the file is empty; finish writing it, or remove it",
            "routes/chat.toml: line 2 is not UTF-8; save the file as UTF-8",
        ]
    );
    assert!(load(&dir.path().join("gone")).is_err());
    assert!(load(TempDir::new().unwrap().path()).is_err(), "a directory without listeners serves nobody");
}

#[test]
fn too_many_objects_are_refused() {
    let dir = directory(&[]);
    for index in 0..1_001 {
        write(dir.path(), &format!("routes/r{index}.toml"), "plugins = []\n");
    }
    let problems = load(dir.path()).unwrap_err();
    assert!(problems.to_string().contains("routes: there are more than 1000 files"), "{problems}");
}

#[test]
fn what_editors_leave_behind_is_ignored() {
    let dir = directory(&[]);
    let before = content_hash(dir.path());
    for name in
        ["README.md", "README.toml", "chat.toml~", ".chat.toml.swp", ".#chat.toml", "#chat.toml#", "4913", "chat.toml.bak"]
    {
        write(dir.path(), &format!("routes/{name}"), "not = [config");
    }
    assert_eq!(load(dir.path()).unwrap().routes.len(), 1);
    assert_eq!(content_hash(dir.path()), before);
}

#[test]
fn what_was_probably_meant_to_be_read_is_a_warning() {
    let dir = directory(&[]);
    write(dir.path(), "route/chat.toml", "");
    write(dir.path(), "tolgate.toml", "");
    fs::remove_file(dir.path().join("routes/chat.toml")).unwrap();
    let warnings = load(dir.path()).unwrap().warnings;
    assert_eq!(
        lines(&warnings),
        [
            "route: nothing reads this; did you mean `routes`?",
            "tolgate.toml: nothing reads this; settings stand in tollgate.toml, everything else in a directory of its kind",
            "routes: there is no route: every request will be refused; \
             add a file; with `plugins = []` alone it takes every request",
        ]
    );
}

/// A Kubernetes volume: files are links into a directory that one rename of a link replaces.
#[cfg(unix)]
#[test]
fn links_into_a_data_directory_are_followed() {
    use std::os::unix::fs::symlink;

    let dir = directory(&[]);
    let routes = dir.path().join("routes");
    fs::remove_file(routes.join("chat.toml")).unwrap();
    write(&routes, "..2027_01/chat.toml", "plugins = [\"auth\"]\n");
    write(&routes, "..2027_02/chat.toml", "plugins = []\n");
    symlink("..2027_01", routes.join("..data")).unwrap();
    symlink("..data/chat.toml", routes.join("chat.toml")).unwrap();
    let first = load(dir.path()).unwrap();
    assert_eq!(first.routes["chat"].plugins.len(), 1);

    symlink("..2027_02", routes.join("..tmp")).unwrap();
    fs::rename(routes.join("..tmp"), routes.join("..data")).unwrap();
    assert_ne!(content_hash(dir.path()), first.hash);
    assert!(load(dir.path()).unwrap().routes["chat"].plugins.is_empty());
}

#[test]
fn canonical_texts_follow_the_meaning_and_not_the_writing() {
    let plugin = |content: &str| loaded(&[("plugins/auth.toml", content)]).plugins["auth"].clone();
    let one = plugin("component = \"builtin:a\"\n[config]\nb = 1\na = { d = [true], c = \"x\" }\n");
    let other = plugin("# The same.\nconfig.a.c = \"x\"\nconfig.a.d = [ true ]\nconfig.b = 1\ncomponent = 'builtin:a'\n");
    assert_eq!(one.config_json(), r#"{"a":{"c":"x","d":[true]},"b":1}"#);
    assert_eq!(one.canonical_json(), other.canonical_json());
    assert_ne!(one.canonical_json(), plugin("component = \"builtin:b\"\n").canonical_json());
}

#[test]
fn keys_are_loaded_on_their_own_and_fail_one_by_one() {
    let (a, b) = ("a".repeat(64), "b".repeat(64));
    let dir = directory(&[]);
    let generation = content_hash(dir.path());
    let none = load_keys(dir.path(), &Keys::default()).hash;
    write(dir.path(), "keys/good.toml", format!("sha256 = \"{a}\"\nexpires = \"2027-01-01T00:00:00Z\"\n"));
    write(dir.path(), "keys/plain.toml", "secret = \"hunter2\"\n");
    write(dir.path(), "keys/late.toml", format!("sha256 = \"{b}\"\nexpires = 2027-01-01T00:00:00Z\n"));
    let keys = load_keys(dir.path(), &Keys::default());
    let good = &keys.keys["good"];
    assert_eq!(keys.keys.len(), 1);
    assert_eq!((good.tenant.as_str(), good.roles[0].as_str(), good.models[0].as_str()), ("default", "user", "*"));
    assert_eq!(good.expires.map(|moment| moment.0.year()), Some(2027));
    assert_eq!(
        lines(&keys.problems),
        [
            "keys/late.toml:2: `expires` is a date-time, but should be a string; put it in quotes",
            "keys/plain.toml: `sha256` is missing; add it",
            "keys/plain.toml:1: unknown key `secret`; a key file has the SHA-256 of the secret only: remove it, \
             and make a new key with `tollgate keys add`",
        ]
    );
    assert!(!format!("{keys:?}").contains("hunter2"));
    assert_eq!(content_hash(dir.path()), generation, "keys are no part of a generation");
    assert_ne!(keys.hash, none);

    write(dir.path(), "keys/twin.toml", format!("sha256 = \"{a}\"\n"));
    assert!(load_keys(dir.path(), &keys).keys.is_empty(), "whose secret it is cannot be known");
}

#[test]
fn a_key_whose_file_went_wrong_stays_as_it_was() {
    let dir = directory(&[]);
    let key = |letter: &str| format!("sha256 = \"{}\"\n", letter.repeat(64));
    write(dir.path(), "keys/a.toml", key("a"));
    write(dir.path(), "keys/b.toml", key("b"));
    let before = load_keys(dir.path(), &Keys::default());

    write(dir.path(), "keys/a.toml", "sha256 = \"half wri");
    let after = load_keys(dir.path(), &before);
    assert_eq!(after.keys["a"].sha256, before.keys["a"].sha256);
    assert!(after.problems.iter().all(|problem| problem.file == "keys/a.toml") && !after.problems.is_empty());

    std::fs::remove_file(dir.path().join("keys/b.toml")).expect("removed");
    std::fs::remove_file(dir.path().join("keys/a.toml")).expect("removed");
    std::fs::create_dir(dir.path().join("keys/a.toml")).expect("what cannot be read");
    let after = load_keys(dir.path(), &after);
    assert_eq!(after.keys.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["a"], "a file that is gone is a key that is gone");

    std::fs::rename(dir.path().join("keys"), dir.path().join("elsewhere")).expect("renamed");
    write(dir.path(), "keys", "not a directory");
    let after = load_keys(dir.path(), &after);
    assert_eq!((after.keys.len(), after.problems.len()), (1, 1));
    write(dir.path(), "elsewhere/c.toml", key("a"));
    std::fs::remove_file(dir.path().join("keys")).expect("removed");
    std::fs::rename(dir.path().join("elsewhere"), dir.path().join("keys")).expect("renamed");
    let after = load_keys(dir.path(), &after);
    assert!(after.keys.is_empty(), "two with one secret, one of them as it was");
}

/// One key too many is a problem of its own: it keeps none of the others from being read, or revoked.
#[test]
fn too_many_keys_are_refused_one_by_one() {
    let dir = directory(&[]);
    for number in 0..1_002 {
        write(dir.path(), &format!("keys/k{number:04}.toml"), format!("sha256 = \"{number:064}\"\n"));
    }
    let before = load_keys(dir.path(), &Keys::default());
    assert_eq!((before.keys.len(), before.problems.len()), (1_000, 2));
    std::fs::remove_file(dir.path().join("keys/k0000.toml")).expect("removed");
    let after = load_keys(dir.path(), &before);
    assert!(!after.keys.contains_key("k0000") && after.keys.contains_key("k1000"));
    assert_ne!(after.hash, before.hash);
}

/// (tenant, role, model, dialect); 0 leaves the field out.
type Condition = (u8, u8, u8, bool);

fn route((tenant, role, model, dialect): Condition) -> String {
    let mut text = "plugins = []\nmodel = \"demo\"\n[match]\n".to_owned();
    for (field, value) in [("tenant", tenant), ("role", role), ("model", model)] {
        match (field, value) {
            (_, 0) => {}
            ("model", 1) => text.push_str("model = \"demo\"\n"),
            _ => text.push_str(&format!("{field} = \"{field}{value}\"\n")),
        }
    }
    if dialect {
        text.push_str("dialect = \"openai\"\n");
    }
    text
}

fn config_of<'a>(conditions: impl Iterator<Item = &'a Condition>) -> Config {
    let dir = directory(&[]);
    fs::remove_file(dir.path().join("routes/chat.toml")).unwrap();
    for (index, condition) in conditions.enumerate() {
        write(dir.path(), &format!("routes/r{index}.toml"), route(*condition));
    }
    load(dir.path()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_most_specific_route_wins_whatever_the_files_are_called(
        conditions in prop::collection::btree_set((0..3_u8, 0..3_u8, 0..3_u8, any::<bool>()), 0..8),
        tenant in 1..4_u8,
        held in prop::collection::vec(1..3_u8, 0..3),
        asked in 0..4_usize,
    ) {
        let asked = ["demo", "default", "model2", "unheard-of"][asked];
        let names_model = |model: u8| match model {
            0 => true,
            1 => asked == "demo" || asked == "default",
            _ => asked == "model2",
        };
        let best = conditions
            .iter()
            .filter(|(t, r, m, _)| (*t == 0 || *t == tenant) && (*r == 0 || held.contains(r)) && names_model(*m))
            .map(|(t, r, m, d)| 8 * u8::from(*t > 0) + 4 * u8::from(*r > 0) + 2 * u8::from(*m > 0) + u8::from(*d))
            .max();

        let roles: Vec<String> = held.iter().map(|role| format!("role{role}")).collect();
        let tenant = format!("tenant{tenant}");
        let forwards = config_of(conditions.iter());
        let backwards = config_of(conditions.iter().rev());
        let chosen = |config: &Config| -> Option<Match> {
            config.most_specific(Dialect::OpenAi, asked, &roles, &tenant).map(|route| route.matches.clone())
        };
        let score = |chosen: &Match| {
            let set = [chosen.dialect.is_some(), chosen.model.is_some(), chosen.role.is_some(), chosen.tenant.is_some()];
            set.iter().enumerate().map(|(bit, is_set)| u8::from(*is_set) << bit).sum::<u8>()
        };
        let (one, other) = (chosen(&forwards), chosen(&backwards));
        prop_assert_eq!(one.as_ref().map(score), best);
        prop_assert_eq!(other.as_ref().map(score), best);
        // Only two roles of one principal can tie, and then the first id wins.
        if held.iter().collect::<BTreeSet<_>>().len() < 2 {
            prop_assert_eq!(one, other);
        }
    }
}
