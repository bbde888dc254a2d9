//! Several figures of one row, each with its own aim, put together into what the row found.

use serde_json::{Map, Value, json};

use crate::report::{Found, Verdict};

/// Figures as they come.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    said: Vec<String>,
    missed: Vec<String>,
    samples: Map<String, Value>,
    method: Vec<String>,
}

impl Checks {
    /// A figure with an aim.
    pub(crate) fn check(&mut self, figure: impl Into<String>, is_met: bool) {
        let figure = figure.into();
        if !is_met {
            self.missed.push(figure.clone());
        }
        self.said.push(figure);
    }

    /// A figure that is only stated.
    pub(crate) fn state(&mut self, figure: impl Into<String>) {
        self.said.push(figure.into());
    }

    /// How it was measured.
    pub(crate) fn method(&mut self, text: impl Into<String>) {
        self.method.push(text.into());
    }

    /// Something for who doubts the figures.
    pub(crate) fn sample(&mut self, name: &str, value: Value) {
        self.samples.insert(name.to_owned(), value);
    }

    /// The row's result: met if every figure is.
    pub(crate) fn found(mut self) -> Found {
        self.samples.insert("missed".to_owned(), json!(self.missed));
        let mut figure = self.said.join("; ");
        if !self.missed.is_empty() && self.said.len() > 1 {
            figure = format!("{figure}. Short: {}", self.missed.join("; "));
        }
        Found {
            figure,
            verdict: Verdict::of(self.missed.is_empty()),
            method: self.method.join(" "),
            samples: Value::Object(self.samples),
        }
    }
}
