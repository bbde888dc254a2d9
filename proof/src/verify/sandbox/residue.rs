//! P-W7: what calls of one tenant leave behind for those of another: nothing.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate_tests::{Place, program};

use super::super::checks::Checks;
use super::super::wire::Wire;
use super::guest::Guest;
use super::{instances_left, place};
use crate::report::Found;
use crate::rows::Here;

const TENANTS: usize = 8;

/// A global and a table that are empty at first, and words for the search: `$dirt` is what was found, `$scan` looks from an address to
/// another, `$soil` leaves the caller's text everywhere.
const ITEMS: &str = r#"
    (global $left (mut i64) (i64.const 0))
    (table $t 64 funcref)
    (elem declare func $scan)
    (global $dirt (mut i32) (i32.const 0))
    (func $scan (param $from i32) (param $to i32)
        (block $done (loop $again
            (br_if $done (i32.ge_u (local.get $from) (local.get $to)))
            (if (i64.ne (i64.load (local.get $from)) (i64.const 0))
                (then (global.set $dirt (i32.add (global.get $dirt) (i32.const 1)))))
            (local.set $from (i32.add (local.get $from) (i32.const 8)))
            (br $again))))
    (func $tables (local $at i32)
        (loop $again
            (if (i32.eqz (ref.is_null (table.get $t (local.get $at))))
                (then (global.set $dirt (i32.add (global.get $dirt) (i32.const 1)))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $at) (table.size $t)))))
    (func $soil (local $end i32)
        (local.set $end (i32.mul (memory.size) (i32.const 65536)))
        (memory.fill (i32.const 2048) (i32.const 0x5a) (i32.sub (local.get $end) (i32.const 2048)))
        (memory.fill (i32.const 0) (i32.const 0xa5) (i32.const 1024))
        (table.fill $t (i32.const 0) (ref.func $scan) (table.size $t))
        (global.set $left (i64.const 0x5a5a5a5a5a5a5a5a)))
    (func $search (local $end i32)
        (if (i64.ne (global.get $left) (i64.const 0)) (then (global.set $dirt (i32.add (global.get $dirt) (i32.const 1)))))
        (call $scan (i32.const 0) (i32.const 65536))
        (call $scan (i32.and (i32.add (global.get $bump) (i32.const 7)) (i32.const -8)) (i32.mul (memory.size) (i32.const 65536)))
        (call $tables)
        (local.set $end (i32.mul (memory.size) (i32.const 65536)))
        (drop (memory.grow (i32.const 8)))
        (call $scan (local.get $end) (i32.mul (memory.size) (i32.const 65536)))
        (drop (table.grow $t (ref.null func) (i32.const 1000)))
        (call $tables))
    ;; "clean", or "dirty": the word's address and length into an answer at 1024.
    (func $answer (result i32)
        (i64.store (i32.const 1536) (select (i64.const 0x7974726964) (i64.const 0x6e61656c63) (global.get $dirt)))
        (i32.store8 (i32.const 1024) (i32.const 3))
        (i32.store (i32.const 1032) (i32.const 1536))
        (i32.store (i32.const 1036) (i32.const 5))
        (i32.const 1024))
"#;

/// Looks first, then leaves something everywhere.
const HONEST: &str = "(call $search) (call $soil) (call $answer)";
/// Leaves something first: the same search has to find it.
const CONTROL: &str = "(call $soil) (call $search) (call $answer)";

fn guest(name: &'static str, filter: &'static str) -> Guest<'static> {
    Guest { name, pages: 8, items: ITEMS.into(), filter, ..Guest::default() }
}

/// A key for a tenant.
fn key(place: &Place, tenant: &str) -> anyhow::Result<String> {
    let output = std::process::Command::new(program())
        .args(["keys", "add", tenant, "--tenant", tenant, "--config"])
        .arg(place.config())
        .output()
        .context("tollgate keys add")?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Calls of one tenant; what they said that was not `clean`.
async fn calls(wire: Wire, tenant: String, count: usize) -> anyhow::Result<Vec<String>> {
    let (mut http, mut wrong) = (wire.http().await?, Vec::new());
    let text = format!("the secret of {tenant} ").repeat(20);
    for _ in 0..count {
        let answer = http.chat("looks", &text, Value::Null).await?;
        if !answer.status.is_success() || answer.content() != "clean" {
            wrong.push(format!("{tenant}: {} {}", answer.status, answer.text()));
        }
    }
    Ok(wrong)
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let count = here.pick(100_000, 2_000);
    let place = place();
    guest("looks", HONEST).install(&place, "")?;
    guest("control", CONTROL).install(&place, "")?;
    let tenants = (0..TENANTS).map(|number| format!("tenant{number}")).collect::<Vec<_>>();
    let keys = tenants.iter().map(|tenant| key(&place, tenant)).collect::<anyhow::Result<Vec<_>>>()?;
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;
    let control = wire.chat("control", "a text", Value::Null).await?.content();
    ensure!(control == "dirty", "the search finds nothing where something is: {control}");
    let mut tasks = JoinSet::new();
    for (tenant, key) in tenants.into_iter().zip(&keys) {
        tasks.spawn(calls(wire.with_key(key), tenant, count / TENANTS));
    }
    let mut wrong = Vec::new();
    while let Some(part) = tasks.join_next().await {
        wrong.extend(part??);
    }
    let left = instances_left(&gateway, Duration::from_secs(10)).await;
    let mut checks = Checks::default();
    checks.check(format!("{count} calls of {TENANTS} tenants: {} found what another left", wrong.len()), wrong.is_empty());
    checks.check(format!("{left} instances left"), left == 0);
    checks.method("Each call looks through its memory, what it grows by, its table and its globals for anything but zeros, then leaves its own bytes everywhere. A guest that leaves first and looks afterwards has to find them.");
    checks.sample("wrong", json!(wrong.iter().take(20).collect::<Vec<_>>()));
    Ok(checks.found())
}
