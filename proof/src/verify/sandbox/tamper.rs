//! P-W6: bytes of compiled plugins changed on disk. What is loaded then is made anew, and never what lies there.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tollgate_tests::{Gateway, Place};

use super::super::chance::Chance;
use super::super::checks::Checks;
use super::super::wire::Wire;
use super::guest::{Guest, plugin_text};
use super::place;
use crate::report::Found;
use crate::rows::Here;

const PLUGIN: &str = "plugins/hostile.toml";
/// Magic, MAC, length of the report: every byte of them is changed.
const HEAD: usize = 4 + 32 + 4;

/// Answers with the word that it holds: whichever is loaded, the answer tells.
fn guest(word: &str) -> Guest<'_> {
    Guest {
        name: word,
        filter: "(i32.store8 (i32.const 1024) (i32.const 3)) (i32.store (i32.const 1032) (i32.const 4096))
            (i32.store (i32.const 1036) (i32.const 3)) (i32.const 1024)",
        items: format!("(data (i32.const 4096) \"{word}\")").into(),
        ..Guest::default()
    }
}

/// Two plugins that take turns: what does not serve is read from the cache when its turn comes.
struct Turns {
    place: Place,
    gateway: Gateway,
    wire: Wire,
    /// The file of each, and what the build step left of it.
    sides: [(PathBuf, PathBuf); 2],
}

fn compiled(cache: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(cache)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(files.filter(|path| path.extension().is_some_and(|extension| extension == "plugin")).collect())
}

impl Turns {
    async fn new() -> anyhow::Result<Self> {
        let place = place();
        std::fs::create_dir_all(place.data())?;
        let files = [guest("one").write(&place.data())?, guest("two").write(&place.data())?];
        place.write("routes/chat.toml", "plugins = [\"hostile\"]\n");
        place.write(PLUGIN, &plugin_text(&files[0], ""));
        let gateway = place.start().await;
        let cache = place.data().join("cache");
        let known = compiled(&cache)?;
        place.write(PLUGIN, &plugin_text(&files[1], ""));
        gateway.reload().await;
        let second = compiled(&cache)?.into_iter().find(|path| !known.contains(path)).context("the second was built")?;
        place.write(PLUGIN, &plugin_text(&files[0], ""));
        gateway.reload().await;
        // Of those that were there first, it is the one that is compiled when it is gone.
        let mut first = None;
        for path in known {
            let bytes = std::fs::read(&path)?;
            if String::from_utf8_lossy(bytes.get(HEAD..HEAD + 512).unwrap_or_default()).contains("\"name\":\"hostile\"") {
                first = Some(path);
            }
        }
        let wire = Wire::new(&place, &gateway)?;
        let [one, two] = files;
        Ok(Turns { place, gateway, wire, sides: [(one, first.context("the first was built")?), (two, second)] })
    }

    /// Changes one byte of what does not serve, has it serve, and sees that it is what it was.
    async fn flip(&self, round: usize, chance: &mut Chance) -> anyhow::Result<()> {
        let (file, cached) = &self.sides[(round + 1) % 2];
        let whole = std::fs::read(cached).with_context(|| cached.display().to_string())?;
        let mut changed = whole.clone();
        let at = if round < 2 * HEAD { round / 2 } else { chance.below(changed.len()) };
        let bit = 1_u8 << chance.below(8);
        let byte = changed.get_mut(at).context("the file has a head")?;
        *byte ^= bit;
        std::fs::write(cached, &changed)?;
        self.place.write(PLUGIN, &plugin_text(file, ""));
        let status = self.gateway.reload().await;
        ensure!(status["state"] == "ok", "round {round}, byte {at}: {status}");
        let said = self.wire.chat("scripted", "a text", Value::Null).await?.content();
        let word = ["one", "two"][(round + 1) % 2];
        ensure!(said == word, "round {round}, byte {at}: {said} answers in place of {word}");
        let anew = std::fs::read(cached)?;
        ensure!(anew != changed, "round {round}, byte {at}: the changed file lies there still");
        Ok(())
    }
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let count = here.pick(4_096, 100);
    let turns = Turns::new().await?;
    let refused_before = refused(&turns.place.log());
    let (mut chance, mut wrong) = (Chance(6), Vec::new());
    for round in 0..count {
        if let Err(error) = turns.flip(round, &mut chance).await {
            wrong.push(format!("{error:#}"));
        }
        if round % 500 == 499 {
            eprintln!("   {} of {count} bytes", round + 1);
        }
    }
    let refused = refused(&turns.place.log()) - refused_before;
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(turns.place.data().join("cache"))?.permissions()) & 0o777;
    let size = std::fs::metadata(&turns.sides[0].1)?.len();
    let mut checks = Checks::default();
    checks.check(format!("{count} bytes changed, {refused} files refused"), refused == count);
    checks.check(format!("{} not built again as they were", wrong.len()), wrong.is_empty());
    checks.check(format!("the cache's mode is {mode:o}"), mode == 0o700);
    checks.method(format!("Two plugins take turns on a route; before its turn, one bit of the compiled one ({size} bytes) is flipped: every byte of its head, then bytes at random. The log's refusals are counted."));
    checks.sample("wrong", json!(wrong.iter().take(20).collect::<Vec<_>>()));
    Ok(checks.found())
}

fn refused(log: &str) -> usize {
    log.lines().filter(|line| line.contains("compiled plugin refused")).count()
}
