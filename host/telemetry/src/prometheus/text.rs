//! Prometheus' text format, version 0.0.4: a line of help, a line of type, then a line per series.

use std::fmt::Write;

use super::registry::exact;
use super::table::{self, FAMILIES, Kind};

/// What a scrape has found so far.
#[derive(Debug)]
pub struct Scrape(Vec<String>);

impl Default for Scrape {
    fn default() -> Self {
        Scrape(FAMILIES.iter().map(|_| String::new()).collect())
    }
}

impl Scrape {
    /// The media type of [`Scrape::text`].
    pub const MEDIA_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Adds a counter's or a gauge's value. `values` are those of its labels, in the order of the table. What the table does not
    /// have is left out and logged: it is a mistake in the code.
    pub fn value(&mut self, name: &str, values: &[&str], value: f64) {
        let Some((labels, lines)) = self.lines(name, values) else { return };
        sample(lines, name, &pairs(labels, values), value);
    }

    /// The same for a whole number.
    pub fn count(&mut self, name: &str, values: &[&str], count: u64) {
        self.value(name, values, exact(count));
    }

    /// Adds a histogram: how many there are in each bucket and above them all, and their sum.
    pub fn histogram(&mut self, name: &str, values: &[&str], counts: &[u64], sum: f64) {
        let bounds = table::position(name).and_then(|at| FAMILIES.get(at)).map(|family| family.kind);
        let Some(Kind::Histogram(bounds)) = bounds else { return missing(name) };
        let Some((labels, lines)) = self.lines(name, values) else { return };
        let labels = pairs(labels, values);
        let separator = if labels.is_empty() { "" } else { "," };
        let mut total = 0_u64;
        for (at, count) in counts.iter().enumerate() {
            total = total.saturating_add(*count);
            let bound = bounds.get(at).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            sample(lines, &format!("{name}_bucket"), &format!("{labels}{separator}le=\"{bound}\""), exact(total));
        }
        sample(lines, &format!("{name}_sum"), &labels, sum);
        sample(lines, &format!("{name}_count"), &labels, exact(total));
    }

    /// All of it. A metric without a series has its help and type all the same.
    #[must_use]
    pub fn text(self) -> String {
        let mut text = String::with_capacity(64 << 10);
        for (family, lines) in FAMILIES.iter().zip(self.0) {
            // Writing to a string cannot fail.
            let _ = write!(text, "# HELP {} {}\n# TYPE {} {}\n", family.name, family.help, family.name, family.kind.as_str());
            text.push_str(&lines);
        }
        text
    }

    fn lines(&mut self, name: &str, values: &[&str]) -> Option<(&'static [&'static str], &mut String)> {
        let at = table::position(name);
        let labels = at.and_then(|at| FAMILIES.get(at)).map(|family| family.labels);
        let labels = labels.filter(|labels| labels.len() == values.len());
        let found = at.and_then(|at| self.0.get_mut(at)).zip(labels);
        if found.is_none() {
            missing(name);
        }
        found.map(|(lines, labels)| (labels, lines))
    }
}

fn missing(name: &str) {
    tracing::error!(metric = name, "a metric that is not in the table, or has other labels there");
}

/// `a="x",b="y"`, escaped.
fn pairs(labels: &[&str], values: &[&str]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs = labels.iter().zip(values).map(|(label, value)| format!("{label}=\"{}\"", escaped(value)));
    pairs.collect::<Vec<_>>().join(",")
}

fn sample(lines: &mut String, name: &str, labels: &str, value: f64) {
    let _ = if labels.is_empty() { writeln!(lines, "{name} {value}") } else { writeln!(lines, "{name}{{{labels}}} {value}") };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_in_the_format() {
        let mut scrape = Scrape::default();
        scrape.count("tollgate_connections", &["a\"b\\c\nd"], 3);
        scrape.value("process_cpu_seconds_total", &[], 1.5);
        scrape.histogram("tollgate_model_step_rows", &["m"], &[1, 2, 0, 0, 0, 0, 0, 0, 0, 1], 1_005.0);
        let text = scrape.text();
        let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        has("# TYPE tollgate_connections gauge");
        has(r#"tollgate_connections{listener="a\"b\\c\nd"} 3"#);
        has("process_cpu_seconds_total 1.5");
        has(r#"tollgate_model_step_rows_bucket{model="m",le="1"} 1"#);
        has(r#"tollgate_model_step_rows_bucket{model="m",le="3"} 3"#);
        has(r#"tollgate_model_step_rows_bucket{model="m",le="+Inf"} 4"#);
        has(r#"tollgate_model_step_rows_sum{model="m"} 1005"#);
        has(r#"tollgate_model_step_rows_count{model="m"} 4"#);
    }

    #[test]
    fn what_the_table_has_not_is_left_out() {
        let mut scrape = Scrape::default();
        scrape.count("tollgate_made_up", &[], 1);
        scrape.count("tollgate_connections", &[], 1);
        scrape.histogram("tollgate_connections", &["main"], &[1], 1.0);
        assert!(scrape.text().lines().all(|line| line.starts_with('#')));
    }
}
