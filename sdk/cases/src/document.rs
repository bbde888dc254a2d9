//! Reads values out of a TOML document and reports what is wrong with them, each with its place. What the values mean is not
//! known here.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Problem, listed, shown, suggest};

/// Problems of one file that are worth reading.
const MAX_PROBLEMS: usize = 25;

/// A file under way.
pub(crate) struct Document<'a> {
    file: &'a str,
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Document<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Document { file, text, problems: RefCell::default() }
    }

    /// The whole document as a table. `None`: it is not TOML, which is reported.
    pub(crate) fn parse(&self) -> Option<Spanned<DeTable<'a>>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(table),
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                self.report(offset, format!("not TOML: {}", error.message()), "mend the line");
                None
            }
        }
    }

    /// What is wrong, from top to bottom.
    pub(crate) fn finish(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems
    }

    pub(crate) fn report(&self, offset: usize, message: impl Into<String>, cure: impl Into<String>) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            let (line, column) = self.position(offset);
            let of_file = Problem::of_file(self.file, message, cure);
            problems.push(Problem { line: Some(line), column: Some(column), ..of_file });
        }
    }

    /// Line and column of a byte, from 1; columns in characters.
    pub(crate) fn position(&self, offset: usize) -> (u32, u32) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }
}

/// A table whose keys are taken one by one; what is left at the end is unknown.
pub(crate) struct Table<'d, 'a> {
    document: &'d Document<'a>,
    /// Names the table in messages; empty for the whole document.
    path: String,
    offset: usize,
    table: &'d DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'d, 'a> Table<'d, 'a> {
    pub(crate) fn new(document: &'d Document<'a>, path: &str, offset: usize, table: &'d DeTable<'a>) -> Self {
        Table { document, path: path.to_owned(), offset, table, known: Vec::new() }
    }

    /// The value of a key, which is known from now on.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Item<'d, 'a>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        Some(Item { document: self.document, path: join(&self.path, key), value })
    }

    /// As `take`, and reports where the key is missing.
    pub(crate) fn need(&mut self, key: &'static str) -> Option<Item<'d, 'a>> {
        let item = self.take(key);
        if item.is_none() {
            self.report(format!("`{}` is missing", join(&self.path, key)), "add it");
        }
        item
    }

    /// Whether the table has a key, known or not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Every key with its value, as written, for tables whose keys are free.
    pub(crate) fn entries(&self) -> Vec<(&'d str, Item<'d, 'a>)> {
        let mut entries = self.table.iter().collect::<Vec<_>>();
        entries.sort_by_key(|(key, _)| key.span().start);
        let item = |(key, value): (&'d Spanned<std::borrow::Cow<'a, str>>, &'d Spanned<DeValue<'a>>)| {
            let name: &'d str = key.get_ref();
            (name, Item { document: self.document, path: join(&self.path, name), value })
        };
        entries.into_iter().map(item).collect()
    }

    /// Reports the keys that nobody took.
    pub(crate) fn finish(self) {
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let message = format!("unknown key `{}`", join(&self.path, name));
                self.document.report(key.span().start, message, suggest(name, &self.known));
            }
        }
    }

    /// Reports something about the table as a whole.
    pub(crate) fn report(&self, message: impl Into<String>, cure: impl Into<String>) {
        self.document.report(self.offset, message, cure);
    }

    pub(crate) fn line(&self) -> u32 {
        self.document.position(self.offset).0
    }
}

/// A value with its name.
pub(crate) struct Item<'d, 'a> {
    document: &'d Document<'a>,
    pub(crate) path: String,
    value: &'d Spanned<DeValue<'a>>,
}

impl<'d, 'a> Item<'d, 'a> {
    /// A string of this many bytes.
    pub(crate) fn text(&self, bytes: RangeInclusive<usize>) -> Option<String> {
        let DeValue::String(text) = self.value.get_ref() else { return self.wrong("a string") };
        if !bytes.contains(&text.len()) {
            let (least, most) = (bytes.start(), bytes.end());
            self.report(format!("`{}` has {} bytes, but may have {least} to {most}", self.path, text.len()), "change it");
            return None;
        }
        Some(text.clone().into_owned())
    }

    /// The text, if this is a string.
    pub(crate) fn as_text(&self) -> Option<&'d str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_boolean(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    /// One of these words.
    pub(crate) fn choice<T: Copy>(&self, named: &[(&'static str, T)]) -> Option<T> {
        let DeValue::String(text) = self.value.get_ref() else { return self.wrong("a string") };
        let found = named.iter().find(|(name, _)| *name == text.as_ref());
        if found.is_none() {
            let names = named.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            self.report(format!("`{}` cannot be `{}`", self.path, shown(text)), suggest(text, &names));
        }
        found.map(|(_, value)| *value)
    }

    /// A whole number in this range.
    pub(crate) fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let DeValue::Integer(number) = self.value.get_ref() else { return self.wrong("an integer") };
        let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| range.contains(number));
        if parsed.is_none() {
            self.out_of_range(number.as_str(), range.start(), range.end());
        }
        parsed
    }

    /// A number in this range.
    pub(crate) fn number(&self, range: RangeInclusive<f32>) -> Option<f32> {
        let written = match self.value.get_ref() {
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            _ => return self.wrong("a number"),
        };
        let parsed = written.parse::<f32>().ok().filter(|number| range.contains(number));
        if parsed.is_none() {
            self.out_of_range(&written, range.start(), range.end());
        }
        parsed
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        self.as_boolean().or_else(|| self.wrong("true or false"))
    }

    pub(crate) fn is_table(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Table(_))
    }

    pub(crate) fn table(&self) -> Option<Table<'d, 'a>> {
        let DeValue::Table(table) = self.value.get_ref() else { return self.wrong("a table") };
        Some(Table::new(self.document, &self.path, self.value.span().start, table))
    }

    /// The same table under another name in messages.
    pub(crate) fn table_as(&self, path: &str) -> Option<Table<'d, 'a>> {
        self.table().map(|table| Table { path: path.to_owned(), ..table })
    }

    /// A list with this many entries at most.
    pub(crate) fn list(&self, most: usize) -> Option<Vec<Item<'d, 'a>>> {
        let DeValue::Array(items) = self.value.get_ref() else { return self.wrong("a list") };
        if items.len() > most {
            self.report(format!("`{}` has {} entries, {most} at most", self.path, items.len()), "remove some");
            return None;
        }
        let item = |(index, value): (usize, &'d Spanned<DeValue<'a>>)| Item {
            document: self.document,
            path: format!("{}[{index}]", self.path),
            value,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A list of strings.
    pub(crate) fn texts(&self, most: usize, bytes: RangeInclusive<usize>) -> Option<Vec<String>> {
        self.list(most)?.into_iter().map(|item| item.text(bytes.clone())).collect()
    }

    /// Any value, as JSON.
    pub(crate) fn json(&self) -> Option<Value> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(Value::String(text.clone().into_owned())),
            DeValue::Boolean(value) => Some(Value::Bool(*value)),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Some(Value::from(number)),
                Err(_) => self.no_json("an integer beyond 64 bits", "put it in quotes"),
            },
            DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
                Some(number) => Some(Value::Number(number)),
                None => self.no_json("not a finite number", "write a finite number"),
            },
            DeValue::Datetime(_) => self.no_json("a date-time, which JSON has not", "put it in quotes"),
            DeValue::Array(_) => self.list(usize::MAX)?.iter().map(Item::json).collect::<Option<Vec<_>>>().map(Value::Array),
            DeValue::Table(_) => {
                let entries = self.table()?.entries();
                let object = entries.into_iter().map(|(name, item)| Some((name.to_owned(), item.json()?)));
                object.collect::<Option<Map<_, _>>>().map(Value::Object)
            }
        }
    }

    pub(crate) fn report(&self, message: impl Into<String>, cure: impl Into<String>) {
        self.document.report(self.value.span().start, message, cure);
    }

    /// Reports that something else should stand here.
    pub(crate) fn wrong<T>(&self, wanted: &str) -> Option<T> {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date-time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.report(format!("`{}` is {found}, but should be {wanted}", self.path), format!("write {wanted}"));
        None
    }

    /// Reports that exactly one of these keys has to be there.
    pub(crate) fn one_of(&self, keys: &[&str]) {
        self.report(format!("`{}` needs one of {}, and no more than one", self.path, listed(keys)), "keep one of them");
    }

    fn out_of_range(&self, written: &str, least: impl std::fmt::Display, most: impl std::fmt::Display) {
        let message = format!("`{}` is {}, but its range is {least} to {most}", self.path, shown(written));
        self.report(message, "choose a number in that range");
    }

    fn no_json<T>(&self, what: &str, cure: &str) -> Option<T> {
        self.report(format!("`{}` is {what}", self.path), cure);
        None
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { shown(key) } else { format!("{path}.{}", shown(key)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, read: impl Fn(&mut Table<'_, '_>)) -> Vec<String> {
        let document = Document::new("a.toml", text);
        if let Some(parsed) = document.parse() {
            let mut table = Table::new(&document, "", 0, parsed.get_ref());
            read(&mut table);
            table.finish();
        }
        document.finish().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unknown_keys_are_refused_with_a_suggestion() {
        let found = problems("'ä' = 1\nname = 'x'\nnmae = 'y'", |table| drop(table.take("name")));
        assert_eq!(
            found,
            ["a.toml:1:1: unknown key `ä`; known here: `name`", "a.toml:3:1: unknown key `nmae`; did you mean `name`?"]
        );
    }

    #[test]
    fn bad_values_say_what_should_stand_there() {
        let found = problems("a = 1.5\nb = 70000\nc = 'xx'\nd = 'bock'\ne = 2020-01-01\nf = 3", |table| {
            table.take("a").and_then(|item| item.integer(0..=9));
            table.take("b").and_then(|item| item.integer(0..=9));
            table.take("c").and_then(|item| item.text(0..=1));
            table.take("d").and_then(|item| item.choice(&[("block", 1), ("pass", 2)]));
            table.take("e").and_then(|item| item.json());
            table.take("f").and_then(|item| item.number(0.0..=2.0));
        });
        assert_eq!(
            found,
            [
                "a.toml:1:5: `a` is a number with a fraction, but should be an integer; write an integer",
                "a.toml:2:5: `b` is 70000, but its range is 0 to 9; choose a number in that range",
                "a.toml:3:5: `c` has 2 bytes, but may have 0 to 1; change it",
                "a.toml:4:5: `d` cannot be `bock`; did you mean `block`?",
                "a.toml:5:5: `e` is a date-time, which JSON has not; put it in quotes",
                "a.toml:6:5: `f` is 3, but its range is 0 to 2; choose a number in that range",
            ]
        );
        assert!(problems("a = ", |_| {})[0].starts_with("a.toml:1:"));
    }
}
