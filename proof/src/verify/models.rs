//! Models that come and go, are exchanged and are attacked (B22, P-M4, P-M9, P-M10, P-U4), one row in each file below. Here is what
//! they share: `tollgate model` as a child process, and the demo model with changes.

pub(crate) mod downloads;
pub(crate) mod kills;
pub(crate) mod lifecycle;
pub(crate) mod mutants;
mod server;
pub(crate) mod swap;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use tollgate_formats::gguf;
use tollgate_tests::{Place, program, repository};

/// Longer than any command takes: a probe may have two minutes of CPU time.
const PATIENCE: Duration = Duration::from_secs(600);
/// Under what name models are installed.
const NAME: &str = "m";
/// What serves [`NAME`].
const SERVED: &str = "backend = \"llama\"\nartifact = \"installed:m\"\n";

/// `tollgate model`, not started.
fn tollgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    // The servers of rows are on this machine.
    command.arg("model").args(arguments).arg("--json").env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// The same in the data directory of a place.
fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = tollgate(arguments);
    command.arg("--data").arg(place.data());
    if matches!(arguments.first(), Some(&("import" | "pull"))) {
        command.arg("--config").arg(place.config());
    }
    command
}

async fn ended(mut command: Command) -> anyhow::Result<Output> {
    timeout(PATIENCE, command.output()).await.context("`tollgate model` does not end")?.context("tollgate does not start")
}

/// What a command complained of.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// Runs a command that has to go well; what it printed.
pub(crate) async fn good(place: &Place, arguments: &[&str]) -> anyhow::Result<Value> {
    printed(arguments, &ended(command(place, arguments)).await?)
}

fn printed(arguments: &[&str], output: &Output) -> anyhow::Result<Value> {
    ensure!(output.status.success(), "`tollgate model {}`: {}: {}", arguments.join(" "), output.status, said(output));
    serde_json::from_slice(&output.stdout).context("`tollgate model --json` says no JSON")
}

/// Imports a file under [`NAME`] and makes it current; its digest.
async fn import(place: &Place, path: &Path) -> anyhow::Result<String> {
    let path = path.to_str().context("a path in UTF-8")?;
    let imported = good(place, &["import", path, "--name", NAME, "--unsigned"]).await?;
    Ok(imported["digest"].as_str().context("a digest")?.to_owned())
}

/// The digests of versions of [`NAME`]: what is current, and the others.
async fn installed(place: &Place) -> anyhow::Result<(Option<String>, Vec<String>)> {
    let list = good(place, &["list"]).await?;
    let (mut current, mut others) = (Vec::new(), Vec::new());
    for entry in list.as_array().into_iter().flatten().filter(|entry| entry["name"] == NAME) {
        let digest = entry["digest"].as_str().context("a digest")?.to_owned();
        let list = if entry["current"] == true { &mut current } else { &mut others };
        list.push(digest);
    }
    ensure!(current.len() <= 1, "{NAME} stands for {} versions at once", current.len());
    Ok((current.pop(), others))
}

/// Removes versions that are neither current nor what was so before, so that the disk does not fill up.
async fn tidy(place: &Place) -> anyhow::Result<()> {
    let list = good(place, &["list"]).await?;
    for entry in list.as_array().into_iter().flatten() {
        if entry["current"] == false && entry["rollback"] == false {
            good(place, &["remove", entry["digest"].as_str().context("a digest")?]).await?;
        }
    }
    Ok(())
}

/// Whether what is current is whole; its digest. Every byte is read again.
async fn whole(place: &Place) -> anyhow::Result<String> {
    let (current, _) = installed(place).await?;
    let current = current.with_context(|| format!("{NAME} stands for nothing"))?;
    let verified = good(place, &["verify", NAME]).await?;
    ensure!(verified["good"] == true && verified["versions"][0]["digest"] == current.as_str(), "{verified}");
    Ok(current)
}

/// How trying a model ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Probed {
    /// It loads and answers.
    Answers,
    /// It was refused, for this reason.
    Refused(String),
    /// The process that tried it ended by this signal.
    Crashed(i32),
    /// That process ended in another way.
    Odd(String),
}

/// Tries a file in the process in which `tollgate model` tries models, under the limits that it is given there.
async fn probe(path: &Path) -> anyhow::Result<Probed> {
    use std::os::unix::process::ExitStatusExt;

    let memory = path.metadata()?.len() * 2 + (1 << 30);
    let mut command = Command::new(program());
    command.args(["__probe-model", &memory.to_string(), "120"]).env_clear().env("GGML_NO_BACKTRACE", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().context("tollgate does not start")?;
    let request = json!({ "path": path, "format": "gguf", "prompt": null, "expected": null, "max_tokens": 16 }).to_string();
    let mut stdin = child.stdin.take().context("it is piped")?;
    // A child that ends before it has read all of it is told by its end.
    let _ = stdin.write_all(request.as_bytes()).await;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await.context("the probe does not end")??;
    if let Some(signal) = output.status.signal() {
        return Ok(Probed::Crashed(signal));
    }
    let answer = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
    Ok(match (answer.get("Ok"), answer["Err"].as_str()) {
        (Some(_), _) => Probed::Answers,
        (None, Some(reason)) => Probed::Refused(reason.to_owned()),
        (None, None) => Probed::Odd(output.status.to_string()),
    })
}

/// The file of what is current.
fn current_file(place: &Place) -> anyhow::Result<PathBuf> {
    let folder = place.data().join("models/current").join(NAME);
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "gguf"));
    files.next().with_context(|| format!("{} has no model", folder.display()))
}

fn demo() -> anyhow::Result<Vec<u8>> {
    let path = repository().join("host/demo-model/demo.gguf");
    std::fs::read(&path).with_context(|| path.display().to_string())
}

/// Where `text` ends in a header.
fn after(bytes: &[u8], text: &str) -> anyhow::Result<usize> {
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes());
    Ok(at.with_context(|| format!("the demo model has no {text}"))? + text.len())
}

/// The demo model with a number in its name: another file that says the same.
fn named(number: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = demo()?;
    // The key is followed by a type of 4 bytes and a length of 8, then the text of 13.
    let at = after(&bytes, "general.name")? + 12;
    let text = format!("m{number:08}");
    bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    Ok(bytes)
}

/// The demo model with two of its matrices exchanged: in order, and it says something else.
fn other() -> anyhow::Result<Vec<u8>> {
    let mut bytes = demo()?;
    let header = gguf::read(&mut Cursor::new(&bytes))?;
    let place = |name: &str| {
        let tensor = header.tensor(name).with_context(|| format!("the demo model has no {name}"))?;
        let begin = usize::try_from(header.data_offset + tensor.offset)?;
        anyhow::Ok(begin..begin + usize::try_from(tensor.bytes)?)
    };
    let (first, second) = (place("blk.0.ffn_down.weight")?, place("blk.2.ffn_down.weight")?);
    let kept = bytes[first.clone()].to_vec();
    bytes.copy_within(second.clone(), first.start);
    bytes[second].copy_from_slice(&kept);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_demo_models_are_other_files_in_order() {
        let all = [demo().unwrap(), named(1).unwrap(), named(2).unwrap(), other().unwrap()];
        for (at, bytes) in all.iter().enumerate() {
            gguf::check_model(&gguf::read(&mut Cursor::new(bytes)).unwrap()).unwrap();
            assert!(all[..at].iter().all(|earlier| earlier != bytes && earlier.len() == bytes.len()));
        }
    }
}
