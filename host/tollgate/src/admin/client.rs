//! The command line's end: ask, and print as a table or as JSON.

use anyhow::{Context, anyhow, bail, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

use crate::cli::Ask;
use crate::model::cli::Named;

/// A running gateway answers at once; a reload builds plugins first.
const DEADLINE: Duration = Duration::from_secs(180);
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Asks for `what` and prints the answer.
pub(crate) fn show(ask: &Ask, what: &str) -> anyhow::Result<()> {
    print(ask, &request(ask, "GET", what)?)
}

/// Has the gateway look at its config now. Fails if something went into quarantine.
pub(crate) fn reload(ask: &Ask) -> anyhow::Result<()> {
    let answer = request(ask, "POST", "reload")?;
    print(ask, &answer)?;
    match answer.get("quarantined").and_then(Value::as_array) {
        Some(quarantined) if !quarantined.is_empty() => {
            bail!("{} in quarantine; what served before serves on", quarantined.len())
        }
        _ => Ok(()),
    }
}

/// Has the gateway look at its config and its models now; answers its status, or nothing where no gateway runs with this data
/// directory.
pub(crate) fn reload_if_running(data: &Path) -> anyhow::Result<Option<Value>> {
    if std::os::unix::net::UnixStream::connect(data.join("admin.sock")).is_err() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&exchange(data, "POST", "reload")?)?))
}

/// Does something with a model, and prints how it is then.
pub(crate) fn model(named: &Named, verb: &str) -> anyhow::Result<()> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._:@+-".contains(c);
    // A name's `/` would be a part of the path.
    let name = named.name.replace('/', "%2F");
    ensure!(name.replace("%2F", "").chars().all(is_name), "`{}` is no model's name", named.name);
    print(&named.ask, &request(&named.ask, "POST", &format!("models/{name}/{verb}"))?)
}

/// Asks for the metrics and prints them as they come.
pub(crate) fn metrics(data: &Path) -> anyhow::Result<()> {
    write(&exchange(data, "GET", "metrics")?)
}

fn request(ask: &Ask, method: &str, what: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&exchange(&ask.data, method, what)?)?)
}

fn exchange(data: &Path, method: &str, what: &str) -> anyhow::Result<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::time::timeout(DEADLINE, send(data, method, what)).await.context("the gateway does not answer")?
    })
}

async fn send(data: &Path, method: &str, what: &str) -> anyhow::Result<Bytes> {
    let path = data.join("admin.sock");
    let stream = UnixStream::connect(&path).await.map_err(|error| {
        let path = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let cure = "start one, or name its data directory with --data or TOLLGATE_DATA";
        anyhow!("no gateway answers at {} ({error}): {cure}", path.display())
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request =
        hyper::Request::builder().method(method).uri(format!("/{what}")).header("host", "admin").body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|error| anyhow::anyhow!(error))?;
        let body = body.to_bytes();
        if !status.is_success() {
            let said = serde_json::from_slice::<Value>(&body).ok();
            match said.as_ref().and_then(|said| said.get("error")?.as_str()) {
                Some(why) => bail!("{why}"),
                None => bail!("the gateway answered {status}"),
            }
        }
        Ok(body)
    };
    tokio::pin!(connection);
    tokio::select! {
        answer = exchange => answer,
        ended = &mut connection => bail!("the gateway closed the connection: {ended:?}"),
    }
}

fn print(ask: &Ask, answer: &Value) -> anyhow::Result<()> {
    let text = if ask.json { format!("{answer:#}\n") } else { render(answer) };
    write(text.as_bytes())
}

/// Writes to standard output; a reader that has seen enough, as `head` has, is no failure.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Lists become tables, objects become lines, anything else is said as it is.
fn render(value: &Value) -> String {
    match value {
        Value::Array(rows) if rows.iter().all(Value::is_object) => table(rows),
        Value::Object(fields) => {
            let mut text = String::new();
            let width = fields.keys().map(String::len).max().unwrap_or(0);
            for (name, value) in fields {
                match value {
                    Value::Array(rows) if !rows.is_empty() && rows.iter().all(Value::is_object) => {
                        text.push_str(&format!("{name}:\n"));
                        text.extend(table(rows).lines().map(|line| format!("  {line}\n")));
                    }
                    value => text.push_str(&format!("{name:width$}  {}\n", cell(value))),
                }
            }
            text
        }
        value => format!("{}\n", cell(value)),
    }
}

fn table(rows: &[Value]) -> String {
    let Some(columns) = rows.first().and_then(Value::as_object).map(|row| row.keys().cloned().collect::<Vec<_>>()) else {
        return "none\n".to_owned();
    };
    let head = columns.iter().map(|column| column.to_uppercase()).collect::<Vec<_>>();
    let cells = |row: &Value| columns.iter().map(|column| row.get(column).map(cell).unwrap_or_default()).collect::<Vec<_>>();
    let lines = std::iter::once(head).chain(rows.iter().map(cells)).collect::<Vec<_>>();
    let width = |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths = (0..columns.len()).map(width).collect::<Vec<_>>();
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>().join("  ");
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

/// A value in a table. Digests are shortened, both of an adapter's as well: 12 digits tell them apart.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.split('+').all(is_digest) => {
            text.split('+').map(|digest| digest.get(..12).unwrap_or(digest)).collect::<Vec<_>>().join("+")
        }
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}={}", cell(value))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_tables() {
        let text = render(&json!([{ "id": "demo", "n": 1 }, { "id": "a-longer-one", "n": null }]));
        assert_eq!(text, "ID            N\ndemo          1\na-longer-one  -\n");
    }

    #[test]
    fn digests_are_short_also_those_of_an_adapter() {
        let (base, adapter) = ("a".repeat(64), "b".repeat(64));
        let text = render(&json!([{ "digest": format!("{base}+{adapter}") }, { "digest": base }, { "digest": "a+b" }]));
        assert_eq!(text, "DIGEST\naaaaaaaaaaaa+bbbbbbbbbbbb\naaaaaaaaaaaa\na+b\n");
    }

    #[test]
    fn objects_are_lines() {
        let text = render(&json!({ "listeners": [{ "id": "main" }], "state": "ok", "warnings": [] }));
        assert_eq!(text, "listeners:\n  ID\n  main\nstate      ok\nwarnings   -\n");
    }
}
