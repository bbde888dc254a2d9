//! What a gateway's `/metrics` says: how many series there are, and sums of them.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use tollgate_tests::Answer;

use super::wire::{Http, Wire};

/// One scrape: every series with its value.
#[derive(Debug, Clone)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Asks on a connection of its own, with the wire's key.
    pub(crate) async fn of(wire: &Wire) -> anyhow::Result<Self> {
        Self::over(&mut wire.http().await?).await
    }

    /// Asks on an open connection.
    pub(crate) async fn over(http: &mut Http) -> anyhow::Result<Self> {
        Self::read(&http.ask("GET", "/metrics", &[], b"").await?)
    }

    fn read(answer: &Answer) -> anyhow::Result<Self> {
        ensure!(answer.status.is_success(), "/metrics: {}", answer.status);
        let mut series = BTreeMap::new();
        for line in answer.text().lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, value) = line.rsplit_once(' ').context("a series has a value")?;
            series.insert(name.to_owned(), value.parse::<f64>().with_context(|| line.to_owned())?);
        }
        Ok(Scrape(series))
    }

    /// The sum of the series of `name` whose labels hold all of `with` and none of `without`.
    pub(crate) fn sum(&self, name: &str, with: &[&str], without: &[&str]) -> f64 {
        let is_it = |series: &str| {
            let (found, labels) = series.split_once('{').unwrap_or((series, ""));
            found == name
                && with.iter().all(|label| labels.contains(label))
                && !without.iter().any(|label| labels.contains(label))
        };
        self.0.iter().filter(|(series, _)| is_it(series)).map(|(_, value)| value).sum()
    }

    /// Requests that the gateway has had, by its own count: those that it served, scrapes aside, and those that it refused unread.
    pub(crate) fn requests(&self) -> u64 {
        let served = self.sum("http_server_request_duration_seconds_count", &[], &["http_route=\"/metrics\""]);
        whole(served + self.rejections())
    }

    /// Requests that were refused as malformed or too large before anything else saw them.
    pub(crate) fn rejections(&self) -> f64 {
        self.sum("tollgate_edge_rejections_total", &[], &[])
    }

    /// How many series there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The names of all series, with their labels.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// A counter as a number.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter is a whole number above 0")]
pub(crate) fn whole(count: f64) -> u64 {
    count as u64
}
