//! A case, and a plugin's set of them: read from files and checked. How one is passed is `run`'s.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::document::{Document, Item, Table};
use crate::expect::{self, Authenticated, Composed, Expect, Verdict};
use crate::input::{self, Credentials, Reply, Splits};
use crate::problem::{Problem, Problems, listed, shown};
use crate::splits;
use crate::words::{Context, Head, LookupError, Principal, Request};
use crate::{MAX_BYTES, MAX_CASES, MAX_FILE_BYTES, MAX_FILES, MAX_RUNS};

/// Texts that must not leave.
const NEVER: usize = 16;
/// Bytes of a file's name.
const FILE_NAME: usize = 100;

/// Under which config a case holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    /// Under every one: it runs under the operator's, or, where there is none, under an empty one.
    Any,
    /// Under this one, a JSON object.
    Given(Value),
}

/// One request through one fresh instance.
#[derive(Debug, Clone)]
pub struct Case {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) line: u32,
    pub(crate) config: Config,
    pub(crate) context: Context,
    /// Whether the context's principal is the case's own word.
    pub(crate) has_principal: bool,
    pub(crate) credentials: Credentials,
    pub(crate) head: Head,
    pub(crate) request: Option<Request>,
    pub(crate) reply: Option<Reply>,
    pub(crate) expect: Expect,
    pub(crate) never: Vec<String>,
}

impl Case {
    /// Its name, unique within the plugin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it stands: `mask.toml:12`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// Under which config it holds.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The time of its request, in milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.context.received_at_ms
    }

    /// Who holds `secret`.
    ///
    /// # Errors
    /// What the case says; by default the key is unknown.
    pub fn lookup(&self, secret: &str) -> Result<Principal, LookupError> {
        self.credentials.get(secret).cloned().unwrap_or(Err(LookupError::Unknown))
    }

    /// How many fresh instances it needs: one for each way that its reply is cut.
    #[must_use]
    pub fn runs(&self) -> usize {
        match &self.reply {
            Some(reply) if self.expect.filter_reply.is_some() && reply.splits == Splits::Every => splits::count(&reply.pieces),
            _ => 1,
        }
    }
}

/// A plugin's cases.
#[derive(Debug, Clone, Default)]
pub struct Set {
    cases: Vec<Case>,
}

impl Set {
    /// Reads files of cases, given as name and text.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read<N: AsRef<str>, T: AsRef<[u8]>>(files: &[(N, T)]) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let bytes = files.iter().map(|(_, text)| text.as_ref().len()).sum::<usize>();
        if files.len() > MAX_FILES || bytes > MAX_BYTES {
            let message = format!("{} files of {bytes} bytes; {MAX_FILES} of {MAX_BYTES} at most", files.len());
            return Err(Problems(vec![Problem::of_file("cases", message, "remove some")]));
        }
        let mut cases = Vec::new();
        for (name, text) in files {
            let name = name.as_ref();
            if (1..=FILE_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) {
                read_file(name, text.as_ref(), &mut cases, &mut problems);
            } else {
                let message = format!("a file is called `{}`", shown(name));
                problems.push(Problem::of_file("cases", message, format!("use 1 to {FILE_NAME} visible ASCII characters")));
            }
        }
        check_together(&cases, &mut problems);
        if problems.is_empty() { Ok(Set { cases }) } else { Err(Problems(problems)) }
    }

    /// The cases, in the order of their files.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// Keeps the cases that have `part` in their name.
    #[must_use]
    pub fn filtered(mut self, part: &str) -> Self {
        self.cases.retain(|case| case.name.contains(part));
        self
    }
}

fn check_together(cases: &[Case], problems: &mut Vec<Problem>) {
    let mut seen = BTreeMap::new();
    for case in cases {
        if let Some(first) = seen.insert(case.name.as_str(), case) {
            let message = format!("the case at {} has the same name: `{}`", first.place(), shown(&case.name));
            problems.push(Problem {
                line: Some(case.line),
                column: Some(1),
                ..Problem::of_file(&case.file, message, "rename one")
            });
        }
    }
    let runs = cases.iter().map(Case::runs).sum::<usize>();
    if cases.len() > MAX_CASES {
        let message = format!("{} cases; {MAX_CASES} at most", cases.len());
        problems.push(Problem::of_file("cases", message, "remove some"));
    } else if runs > MAX_RUNS {
        let message = format!("the cases need {runs} runs; {MAX_RUNS} at most");
        problems.push(Problem::of_file("cases", message, "shorten the replies with `splits = \"every\"`, or cut fewer"));
    }
}

/// What a file says for all of its cases.
struct Common {
    config: Config,
    context: (Context, bool),
    credentials: Credentials,
    head: Head,
}

fn read_file(name: &str, bytes: &[u8], cases: &mut Vec<Case>, problems: &mut Vec<Problem>) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        problems.push(Problem::of_file(name, "the file is not UTF-8", "save it as UTF-8"));
        return;
    };
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes; {MAX_FILE_BYTES} at most", bytes.len());
        problems.push(Problem::of_file(name, message, "split it"));
        return;
    }
    let document = Document::new(name, text);
    if let Some(parsed) = document.parse() {
        let mut table = Table::new(&document, "", 0, parsed.get_ref());
        let common = Common {
            config: table.take("config").and_then(|item| config(&item)).unwrap_or_else(no_config),
            context: table
                .take("context")
                .and_then(|item| input::context(&item))
                .unwrap_or_else(|| (input::default_context(), false)),
            credentials: table.take("credentials").and_then(|item| input::credentials(&item)).unwrap_or_default(),
            head: table.take("head").and_then(|item| input::head(&item)).unwrap_or_else(input::default_head),
        };
        match table.take("case").map(|item| item.list(MAX_CASES)) {
            Some(list) => cases.extend(list.unwrap_or_default().iter().filter_map(|item| read_case(name, item, &common))),
            None => table.report("the file has no case", "add one under `[[case]]`"),
        }
        table.finish();
    }
    problems.extend(document.finish());
}

fn no_config() -> Config {
    Config::Given(Value::Object(serde_json::Map::new()))
}

fn config(item: &Item<'_, '_>) -> Option<Config> {
    if item.as_text().is_some() {
        return item.choice(&[("any", ())]).map(|()| Config::Any);
    }
    item.table()?;
    let mut config = item.json()?;
    // As the gateway hands it over.
    config.sort_all_objects();
    Some(Config::Given(config))
}

fn read_case(file: &str, item: &Item<'_, '_>, common: &Common) -> Option<Case> {
    let mut table = item.table_as("")?;
    let name = table.need("name").and_then(|item| item.text(1..=160));
    let config = table.take("config").map_or_else(|| Some(common.config.clone()), |item| config(&item));
    let context = table.take("context").map_or_else(|| Some(common.context.clone()), |item| input::context(&item));
    let credentials =
        table.take("credentials").map_or_else(|| Some(common.credentials.clone()), |item| input::credentials(&item));
    let own_head = table.take("head");
    let head = own_head.as_ref().map_or_else(|| Some(common.head.clone()), input::head);
    let (request, reply) = (table.take("request"), table.take("reply"));
    let never = table.take("never").and_then(|item| item.texts(NEVER, 1..=4 << 10)).unwrap_or_default();
    let expect = expect::read(&mut table);
    let given = Given { head: own_head.is_some(), request: request.is_some(), reply: reply.is_some() };
    given.check(&table);
    let (request, reply) = (request.and_then(|item| input::request(&item)), reply.and_then(|item| input::reply(&item)));
    let (Some(name), Some(config), Some((context, has_principal)), Some(credentials), Some(head)) =
        (name, config, context, credentials, head)
    else {
        table.finish();
        return None;
    };
    let (file, line) = (file.to_owned(), table.line());
    let case = Case { name, file, line, config, context, has_principal, credentials, head, request, reply, expect, never };
    if case.name.chars().any(char::is_control) {
        table.report("`name` has control characters", "write it in one line");
    }
    check_order(&case, &table);
    check_reply(&case, &table);
    table.finish();
    Some(case)
}

/// What a case brings along by itself.
struct Given {
    head: bool,
    request: bool,
    reply: bool,
}

impl Given {
    /// Every hook has what it needs, and everything given has a hook.
    fn check(&self, table: &Table<'_, '_>) {
        let hooks = ["setup", "authenticate", "compose", "filter-prompt", "filter-reply", "format"];
        let called = hooks.iter().copied().filter(|hook| table.has(hook)).collect::<Vec<_>>();
        if called.is_empty() {
            table.report("the case expects nothing", format!("add one of {}", listed(&hooks)));
            return;
        }
        let any = |wanted: &[&str]| wanted.iter().any(|hook| called.contains(hook));
        for (what, is_given, users) in [
            ("head", self.head, &["authenticate"] as &[&str]),
            ("request", self.request, &["compose", "filter-prompt"]),
            ("reply", self.reply, &["filter-reply", "format"]),
        ] {
            if is_given && !any(users) {
                let cure = format!("say what comes of it under {}, or remove it", listed(users));
                table.report(format!("`{what}` is used by no hook of this case"), cure);
            }
        }
        if !self.request && any(&["compose", "filter-prompt"]) {
            table.report("`request` is missing", "add it: `request.text = \"...\"`");
        }
        if !self.reply && any(&["filter-reply"]) {
            table.report("`reply` is missing", "add it: `reply.text = \"...\"`");
        }
    }
}

/// A request goes no further than where it ends.
fn check_order(case: &Case, table: &Table<'_, '_>) {
    let expect = &case.expect;
    let ends = [
        ("setup", expect.setup.is_some()),
        ("authenticate", matches!(expect.authenticate, Some(Authenticated::Refuse(_) | Authenticated::Abstain))),
        ("compose", matches!(expect.compose, Some(Composed::Refuse(_)))),
        (
            "filter-prompt",
            expect
                .filter_prompt
                .as_ref()
                .is_some_and(|screened| matches!(screened.verdict, Verdict::Block(_) | Verdict::Answer(_))),
        ),
        ("filter-reply", expect.filter_reply.as_ref().is_some_and(|replied| replied.cut.is_some())),
        ("format", false),
    ];
    let Some(at) = ends.iter().position(|(_, ends)| *ends) else { return };
    let (Some((last, _)), Some(later)) = (ends.get(at), ends.get(at + 1..)) else { return };
    if let Some((more, _)) = later.iter().find(|(hook, _)| table.has(hook)) {
        table.report(format!("the request ends in `{last}`, and `{more}` comes after it"), "make two cases of it");
    }
}

fn check_reply(case: &Case, table: &Table<'_, '_>) {
    let formatted = case.expect.format.as_ref();
    let Some(reply) = &case.reply else {
        if formatted.is_some_and(|formatted| formatted.content.is_some()) {
            table.report("`format` has no `reply` to shape", "add it: `reply.text = \"...\"`");
        }
        return;
    };
    let Some(replied) = &case.expect.filter_reply else {
        if reply.splits != Splits::None {
            table.report("`reply.splits` is for `filter-reply`, which this case does not call", "remove one, or add the other");
        }
        if formatted.is_some_and(|formatted| formatted.content.is_none()) {
            table.report("`reply` is given, and nothing is expected of it", "add `format.text` or `format.refuse`");
        }
        return;
    };
    let Some(releases) = &replied.releases else { return };
    let cuts = match &reply.splits {
        Splits::None => Some(Vec::new()),
        Splits::At(cuts) => Some(cuts.clone()),
        Splits::Characters => Some(splits::inner(&reply.pieces)),
        Splits::Every => None,
    };
    match cuts {
        None => {
            table.report("`filter-reply.releases` depends on the split, and `reply.splits` is `every`", "make two cases of it");
        }
        Some(cuts) => {
            let pushes = splits::cut(&reply.pieces, &cuts).len();
            let is_whole = replied.cut.is_some() || releases.len() == pushes + 1;
            if !is_whole || releases.len() > pushes + 1 {
                let message = format!("`filter-reply.releases` has {} entries for {pushes} pieces and the end", releases.len());
                table.report(message, "write one for each piece and one for the end; `\"\"` is nothing");
            }
        }
    }
}

#[cfg(test)]
mod tests;
