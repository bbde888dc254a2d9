//! P-W3 and P-W4: guests that reach for what nobody granted them. What is not offered is refused at the build; what the standard
//! interfaces are linked for has nothing behind it, and no call of a guest's opens anything.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tollgate_tests::{Place, plugin_file};
use wit_component::DecodedWasm;

use super::super::checks::Checks;
use super::super::wire::Wire;
use super::guest::{Guest, Import, plugin_text};
use super::hostile::{CLASSES, LOG};
use super::{instances_left, place};
use crate::report::Found;
use crate::rows::Here;

/// What each first-party plugin imports, as it is to be.
const GOLDEN: &str = include_str!("imports.txt");
const FIRST_PARTY: [&str; 4] = ["auth-keys", "filter-pii", "format-decision", "template-jinja"];

const CREDENTIALS: Import =
    Import { interface: "tollgate:plugin/credentials@0.1.0-draft", function: "lookup", kind: "$lookup (param i32 i32 i32)" };
const REMOVED: Import = Import { interface: "tollgate:plugin/log@0.0.9", function: "write", kind: "$log (param i32 i32)" };
const HTTP: Import =
    Import { interface: "wasi:http/outgoing-handler@0.2.0", function: "handle", kind: "$handle (param i32 i32)" };

/// Guest, what the operator writes besides, and what the refusal says.
const REFUSED: [(&str, &[Import], &str, &str, &str); 6] = [
    ("not-in-manifest", &[LOG], "", "grants = [\"log\"]", "imports `tollgate:plugin/log@0.1.0-draft`, which is not offered"),
    ("not-granted", &[LOG], "log", "", "grants = [\"log\"]"),
    ("other-granted", &[CREDENTIALS], "log", "grants = [\"log\"]", "imports `tollgate:plugin/credentials@0.1.0-draft`"),
    ("half-granted", &[CREDENTIALS], "log credentials", "grants = [\"log\"]", "asks for `credentials`"),
    ("removed-version", &[REMOVED], "log", "grants = [\"log\"]", "imports `tollgate:plugin/log@0.0.9`, which is not offered"),
    ("http", &[HTTP], "", "", "imports `wasi:http/outgoing-handler@0.2.0`, which is not offered"),
];

const ENVIRONMENT: &str = "wasi:cli/environment@0.2.0";
/// Every standard interface that could lead out of the sandbox.
const PROBES: [Import; 8] = [
    Import { interface: ENVIRONMENT, function: "get-environment", kind: "$environment (param i32)" },
    Import { interface: ENVIRONMENT, function: "get-arguments", kind: "$arguments (param i32)" },
    Import { interface: ENVIRONMENT, function: "initial-cwd", kind: "$cwd (param i32)" },
    Import { interface: "wasi:filesystem/preopens@0.2.0", function: "get-directories", kind: "$directories (param i32)" },
    Import { interface: "wasi:sockets/tcp-create-socket@0.2.0", function: "create-tcp-socket", kind: "$tcp (param i32 i32)" },
    Import { interface: "wasi:sockets/udp-create-socket@0.2.0", function: "create-udp-socket", kind: "$udp (param i32 i32)" },
    Import { interface: "wasi:sockets/instance-network@0.2.0", function: "instance-network", kind: "$network (result i32)" },
    Import {
        interface: "wasi:sockets/ip-name-lookup@0.2.0",
        function: "resolve-addresses",
        kind: "$resolve (param i32 i32 i32 i32)",
    },
];

/// Answers with a digit for each probe: how many entries a list has, or whether a result is an error.
const PROBE: &str = "
    (call $environment (i32.const 512)) (call $told (i32.const 0) (i32.load (i32.const 516)))
    (call $arguments (i32.const 512)) (call $told (i32.const 1) (i32.load (i32.const 516)))
    (call $cwd (i32.const 512)) (call $told (i32.const 2) (i32.load8_u (i32.const 512)))
    (call $directories (i32.const 512)) (call $told (i32.const 3) (i32.load (i32.const 516)))
    (call $tcp (i32.const 0) (i32.const 512)) (call $told (i32.const 4) (i32.load8_u (i32.const 512)))
    (call $tcp (i32.const 1) (i32.const 512)) (call $told (i32.const 5) (i32.load8_u (i32.const 512)))
    (call $udp (i32.const 0) (i32.const 512)) (call $told (i32.const 6) (i32.load8_u (i32.const 512)))
    (call $udp (i32.const 1) (i32.const 512)) (call $told (i32.const 7) (i32.load8_u (i32.const 512)))
    (call $resolve (call $network) (i32.const 4200) (i32.const 9) (i32.const 512))
    (call $told (i32.const 8) (i32.load8_u (i32.const 512)))
    (i32.store8 (i32.const 1024) (i32.const 3))
    (i32.store (i32.const 1032) (i32.const 4096))
    (i32.store (i32.const 1036) (i32.const 9))
    (i32.const 1024)";
const TOLD: &str = r#"(data (i32.const 4200) "localhost")
    (func $told (param $at i32) (param $what i32)
        (i32.store8 (i32.add (i32.const 4096) (local.get $at)) (i32.add (i32.const 48) (local.get $what))))"#;
/// No variables, arguments, folders; every socket and look-up an error.
const NOTHING: &str = "000011111";

fn probe() -> Guest<'static> {
    Guest { name: "reach", imports: &PROBES, items: TOLD.into(), filter: PROBE, ..Guest::default() }
}

/// The imports of a component, sorted.
fn imports_of(file: &Path) -> anyhow::Result<Vec<String>> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&std::fs::read(file)?)? else {
        bail!("{} is no component", file.display())
    };
    let world = resolve.worlds.get(world).context("its world")?;
    let mut names = world.imports.keys().map(|key| resolve.name_world_key(key)).collect::<Vec<_>>();
    names.sort();
    Ok(names)
}

fn first_party() -> anyhow::Result<String> {
    let mut text = String::new();
    for name in FIRST_PARTY {
        let _ = writeln!(text, "{name}: {}", imports_of(&plugin_file(name))?.join(" "));
    }
    Ok(text)
}

/// P-W3: refusals at the build, nothing behind what is linked, and first-party plugins that import what is written down.
pub(crate) async fn grants(here: Here) -> anyhow::Result<Found> {
    let count = here.pick(1_000, 30);
    let place = place();
    probe().install(&place, "")?;
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;
    let (mut let_in, folder) = (Vec::new(), place.data().join("guests"));
    for (name, imports, capabilities, rest, reason) in REFUSED {
        let file = Guest { name, imports, capabilities, ..Guest::default() }.write(&folder)?;
        place.write("plugins/new.toml", &plugin_text(&file, rest));
        let status = gateway.reload().await;
        let first = &status["quarantined"][0];
        let said = first["reason"].as_str().unwrap_or_default();
        if status["state"] != "degraded" || first["stage"] != "check" || !said.contains(reason) {
            let_in.push(format!("{name}: {status}"));
        }
        let serves = wire.chat("scripted", "say on", Value::Null).await?;
        ensure!(serves.content() == "on", "{name}: what served does not: {}", serves.text());
    }
    place.remove("plugins/new.toml");
    let status = gateway.reload().await;
    ensure!(status["state"] == "ok", "{status}");
    let (mut http, mut reached) = (wire.http().await?, Vec::new());
    for _ in 0..count {
        let said = http.chat("reach", "a text", Value::Null).await?;
        if !said.status.is_success() || said.content() != NOTHING {
            reached.push(said.text());
        }
    }
    let (found, left) = (first_party()?, instances_left(&gateway, super::PATIENCE).await);
    let mut checks = Checks::default();
    checks.check(format!("{} guests that import what is not theirs: {} let in", REFUSED.len(), let_in.len()), let_in.is_empty());
    let line = format!("{count} probes of environment, arguments, folders, sockets and names: {} found anything", reached.len());
    checks.check(line, reached.is_empty());
    checks.check("first-party plugins import what is written down".to_owned(), found == GOLDEN);
    checks.check(format!("{left} instances left"), left == 0);
    checks.method(
        "Classes 16 and 17 have no import to try: there is no HTTP client for plugins, and one that imports WASI's is refused.",
    );
    checks.sample("let_in", json!(let_in));
    checks.sample("reached", json!(reached.iter().take(5).collect::<Vec<_>>()));
    checks.sample("first_party", json!(found.lines().collect::<Vec<_>>()));
    Ok(checks.found())
}

/// The system calls that open something, or make a way out.
const CALLS: &str = "trace=open,openat,openat2,creat,socket,connect,bind,execve,memfd_create,open_by_handle_at";

/// P-W4: the whole suite and the probe under `strace`. What is opened while they run is theirs.
pub(crate) async fn opens(here: Here) -> anyhow::Result<Found> {
    let count = here.pick(200, 5);
    ensure!(Path::new("/usr/bin/strace").exists(), "strace is not installed");
    let place = place();
    // No look at the config comes between: the gateway opens files for that.
    place.write("tollgate.toml", "[log]\nlevel = \"warn\"\n[reload]\npoll_s = 3600\n");
    for class in CLASSES {
        class.guest().install(&place, class.grants())?;
    }
    probe().install(&place, "")?;
    let trace = place.data().join("trace");
    std::fs::create_dir_all(place.data())?;
    let file = trace.to_str().context("a path in UTF-8")?;
    let gateway = place.start_under(&["strace", "-f", "-qq", "-e", CALLS, "-o", file]).await;
    let wire = Wire::new(&place, &gateway)?;
    // What opens only once, when something is first used, is opened here.
    round(&place, &wire).await?;
    let before = std::fs::read_to_string(&trace)?.len();
    for _ in 0..count {
        round(&place, &wire).await?;
    }
    let text = std::fs::read_to_string(&trace)?;
    let traced = text.get(..before).unwrap_or_default().lines().filter(|line| line.contains("open")).count();
    let opened = text.get(before..).unwrap_or_default().lines().filter(|line| line.contains('(')).collect::<Vec<_>>();
    // The gateway looks at its certificate every two seconds, whatever guests do.
    let [certificate, key] =
        ["server.pem", "server.key"].map(|name| format!("\"{}\", O_RDONLY", place.data().join("tls").join(name).display()));
    let (own, opened) = opened.into_iter().partition::<Vec<_>, _>(|line| line.contains(&certificate) || line.contains(&key));
    let mut checks = Checks::default();
    let calls = count * (CLASSES.len() + 1);
    checks.check(format!("{calls} hostile calls: {} files opened, sockets made, programs run", opened.len()), opened.is_empty());
    checks.state(format!("{} looks of the gateway at its own certificate", own.len()));
    checks.check(format!("{traced} opens seen before them, at the start"), traced > 0);
    checks.method("`strace -f` on the gateway, with the hostile suite and the probe of every standard interface; files of the config are not looked at meanwhile.");
    checks.sample("opened", json!(opened.iter().take(20).collect::<Vec<_>>()));
    Ok(checks.found())
}

/// Every class once, and the probe.
async fn round(place: &Place, wire: &Wire) -> anyhow::Result<()> {
    let mut http = wire.http().await?;
    for class in CLASSES {
        let answer = http.chat(class.name, "a text", Value::Null).await?;
        ensure!(answer.status == 503, "{}: {}\n{}", class.name, answer.text(), place.log().lines().last().unwrap_or_default());
    }
    let said = http.chat("reach", "a text", Value::Null).await?;
    ensure!(said.status.is_success(), "{}", said.text());
    Ok(())
}
