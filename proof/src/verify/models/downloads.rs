//! Downloads from a server that fails at random: nothing that is not as it was signed is ever installed, and once the server is well
//! again every download comes to its end (P-M9).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate_tests::Place;

use super::super::chance::Chance;
use super::super::checks::Checks;
use super::server::{Fault, Server};
use super::{NAME, command, demo, ended, good, import, named, printed, said, tidy, tollgate, whole};
use crate::report::Found;
use crate::rows::Here;

/// Downloads at once, each into a data directory of its own.
const WORKERS: usize = 4;
/// Every so many downloads one stalls for half a minute.
const STALL_EVERY: usize = 50;

/// What came of the downloads.
#[derive(Default)]
struct Tally {
    /// Went well though the server failed, and failed with it but went well after.
    at_once: usize,
    after: usize,
    bad: Vec<String>,
    stuck: Vec<String>,
    /// How often each fault was planned.
    faults: BTreeMap<String, usize>,
}

/// A signed folder to pull from.
struct Offer {
    files: Vec<(String, Vec<u8>)>,
    key: String,
    digest: String,
}

/// Runs it.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let count = here.pick(500, 15);
    let (offer, is_quick) = (Arc::new(offer().await?), here.is_quick);
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let (offer, numbers) = (Arc::clone(&offer), (worker..count).step_by(WORKERS));
        tasks.spawn(async move { work(&offer, numbers.collect(), is_quick).await });
    }
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        let tally = tally??;
        all.at_once += tally.at_once;
        all.after += tally.after;
        all.bad.extend(tally.bad);
        all.stuck.extend(tally.stuck);
        for (fault, times) in tally.faults {
            *all.faults.entry(fault).or_default() += times;
        }
    }
    let done = all.at_once + all.after;
    let mut checks = Checks::default();
    checks.check(format!("{count} faulty downloads: {} bad installs", all.bad.len()), all.bad.is_empty());
    checks.check(
        format!(
            "{done} came to their end, {} while the server failed and {} when it was asked again; {} did not",
            all.at_once,
            all.after,
            all.stuck.len()
        ),
        all.stuck.is_empty() && done == count,
    );
    checks.state(format!("{} kinds of faults, {} in all", all.faults.len(), all.faults.values().sum::<usize>()));
    checks.method(
        "A signed folder with a model of two parts of 8 MiB. Each download meets 1 to 4 faults, one a request; one in fifty stalls \
         (not in a short run). After each, what is current is read again byte for byte: it has to be the version before, or the one \
         that was signed.",
    );
    checks.sample("faults", json!(all.faults));
    checks.sample("bad", json!(all.bad));
    checks.sample("stuck", json!(all.stuck));
    Ok(checks.found())
}

/// The demo model with 12 MiB in its header that nobody needs.
fn bulky() -> anyhow::Result<Vec<u8>> {
    const BALLAST: usize = 12 << 20;
    let mut bytes = demo()?;
    let key = "general.ballast";
    let mut entry = (key.len() as u64).to_le_bytes().to_vec();
    entry.extend(key.as_bytes());
    // An array of bytes.
    entry.extend(9_u32.to_le_bytes());
    entry.extend(0_u32.to_le_bytes());
    // A whole number of alignments, so that what follows lies as it did.
    let ballast = BALLAST - entry.len() - 8;
    entry.extend((ballast as u64).to_le_bytes());
    entry.resize(BALLAST, 7);
    let keys = bytes.get(16..24).and_then(|count| count.try_into().ok()).map(u64::from_le_bytes).context("a header")?;
    bytes[16..24].copy_from_slice(&(keys + 1).to_le_bytes());
    bytes.splice(24..24, entry);
    Ok(bytes)
}

async fn offer() -> anyhow::Result<Offer> {
    let folder = tempfile::tempdir()?;
    let (model, key) = (folder.path().join("model.gguf"), folder.path().join("key.pem"));
    std::fs::write(&model, bulky()?)?;
    let [model, key] = [&model, &key].map(|path| path.to_str().unwrap_or_default());
    let made = ["key", key];
    let made = printed(&made, &ended(tollgate(&made)).await?)?;
    // A version above the one that each worker begins with.
    let pack = ["pack", model, "--name", NAME, "--version", "2", "--key", key, "--in-place"];
    let packed = printed(&pack, &ended(tollgate(&pack)).await?)?;
    let names = ["manifest.json", "manifest.json.sig", "model.gguf"];
    let files = names.iter().map(|name| anyhow::Ok(((*name).to_owned(), std::fs::read(folder.path().join(name))?)));
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    Ok(Offer { files: files.collect::<anyhow::Result<_>>()?, key: text(&made["public_key"])?, digest: text(&packed["digest"])? })
}

/// A place with a first version, and the folder of that version's file.
async fn prepared(offer: &Offer) -> anyhow::Result<(Place, String, TempDir)> {
    let (place, folder) = (Place::new(), tempfile::tempdir()?);
    let path: &Path = &folder.path().join("model.gguf");
    std::fs::write(path, named(1)?)?;
    let first = import(&place, path).await?;
    place.write("tollgate.toml", &format!("[models]\ntrusted_keys = [{:?}]\n", offer.key));
    Ok((place, first, folder))
}

async fn work(offer: &Offer, numbers: Vec<usize>, is_quick: bool) -> anyhow::Result<Tally> {
    let (place, first, _folder) = prepared(offer).await?;
    let server = Server::start().await?;
    for (name, bytes) in &offer.files {
        server.put(&format!("/m/{name}"), bytes.clone());
    }
    let mut tally = Tally::default();
    for number in numbers {
        let mut chance = Chance(number as u64);
        let mut faults = (0..chance.below(4) + 1).map(|_| Fault::random(&mut chance)).collect::<Vec<_>>();
        if number % STALL_EVERY == STALL_EVERY - 1 && !is_quick {
            faults = vec![Fault::Stall(chance.below(100))];
        }
        for fault in &faults {
            *tally.faults.entry(fault.name()).or_default() += 1;
        }
        let what = format!("{number}: {faults:?}");
        server.spoil(&faults);
        let is_done = pulled(&place, &server, offer, &first, &what, &mut tally).await?;
        server.spoil(&[]);
        if is_done {
            tally.at_once += 1;
        } else if pulled(&place, &server, offer, &first, &what, &mut tally).await? {
            tally.after += 1;
        } else {
            tally.stuck.push(what);
        }
        if number % 25 == 0 {
            eprintln!("   download {number}");
        }
    }
    Ok(tally)
}

/// One download. Whether it went well; what is not as it should be after it is a bad install. The version before is current again.
async fn pulled(
    place: &Place,
    server: &Server,
    offer: &Offer,
    first: &str,
    what: &str,
    tally: &mut Tally,
) -> anyhow::Result<bool> {
    let output = ended(command(place, &["pull", &server.url("/m/"), "--no-probe"])).await?;
    let is_done = output.status.success();
    let expected = if is_done { offer.digest.as_str() } else { first };
    match whole(place).await {
        Ok(current) if current == expected => {}
        Ok(current) => tally.bad.push(format!("{what}: {current} is current: {}", said(&output))),
        Err(error) => tally.bad.push(format!("{what}: {error:#}")),
    }
    ensure!(output.status.code().is_some(), "{what}: the command was ended: {}", output.status);
    if is_done {
        good(place, &["activate", NAME, first, "--no-probe"]).await?;
        good(place, &["remove", &offer.digest]).await?;
    }
    tidy(place).await?;
    Ok(is_done)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tollgate_formats::gguf;

    use super::super::after;
    use super::*;

    #[test]
    fn the_bulky_model_is_in_order_and_has_two_parts() {
        let bytes = bulky().unwrap();
        assert!(bytes.len() > 8 << 20 && bytes.len() < 16 << 20);
        gguf::check_model(&gguf::read(&mut Cursor::new(&bytes)).unwrap()).unwrap();
        assert!(after(&bytes, "general.ballast").unwrap() < 64);
    }
}
