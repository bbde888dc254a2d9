//! Numbers as people write them: groups of digits with single separators, brackets and a plus sign. What they mean is not known here.

/// One more than the longest number of any kind, so that a longer run is known to be none.
const MAX_DIGITS: usize = 20;

/// What stands between two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    /// Nothing: a bracket parts them.
    None,
    /// A space, breakable or not.
    Space,
    /// A hyphen or a short dash.
    Dash,
    /// A full stop.
    Dot,
}

impl Gap {
    /// The gap that `c` makes, if it makes one.
    pub(crate) fn of(c: char) -> Option<Gap> {
        match c {
            ' ' | '\u{a0}' | '\u{202f}' => Some(Gap::Space),
            '-' | '\u{2010}'..='\u{2013}' => Some(Gap::Dash),
            '.' => Some(Gap::Dot),
            _ => None,
        }
    }
}

/// Digits that stand together.
#[derive(Debug)]
pub(crate) struct Group {
    /// What stands in front; [`Gap::None`] for the first.
    pub(crate) gap: Gap,
    /// Whether it stands in brackets.
    pub(crate) is_bracketed: bool,
    /// How many digits, 1 to 20.
    pub(crate) length: usize,
    /// How many digits the run has up to here.
    digits: usize,
    /// Where it ends in the text, brackets included.
    end: usize,
}

/// A run of groups.
#[derive(Debug)]
pub(crate) struct Run {
    /// Whether what follows could still belong to it.
    pub(crate) is_open: bool,
    has_plus: bool,
    digits: String,
    groups: Vec<Group>,
}

/// The first groups of a run.
#[derive(Debug)]
pub(crate) struct Prefix<'a> {
    /// Whether a plus sign stands in front.
    pub(crate) has_plus: bool,
    /// The groups, one at least.
    pub(crate) groups: &'a [Group],
    /// Their digits, `0` to `9`.
    pub(crate) digits: &'a str,
    /// Where they end in the text.
    pub(crate) end: usize,
}

impl Run {
    /// The run at the beginning of `text`. A group that would make it longer than any number ends it, and does not belong to it.
    pub(crate) fn read(text: &[char], at_end: bool) -> Run {
        let has_plus = text.first() == Some(&'+');
        let mut run = Run { is_open: false, has_plus, digits: String::new(), groups: Vec::new() };
        let mut at = usize::from(has_plus);
        let mut gap = Gap::None;
        loop {
            let is_bracketed = text.get(at) == Some(&'(');
            let from = at + usize::from(is_bracketed);
            let digits = text.get(from..).unwrap_or_default().iter().take(MAX_DIGITS + 1).take_while(|c| c.is_ascii_digit());
            let length = digits.clone().count();
            let stop = from + length;
            if run.digits.len() + length > MAX_DIGITS {
                return run;
            }
            if stop >= text.len() && !at_end {
                run.is_open = true;
                return run;
            }
            if length == 0 || (is_bracketed && text.get(stop) != Some(&')')) {
                return run;
            }
            run.digits.extend(digits);
            let end = stop + usize::from(is_bracketed);
            run.groups.push(Group { gap, is_bracketed, length, digits: run.digits.len(), end });
            match text.get(end) {
                None => {
                    run.is_open = !at_end;
                    return run;
                }
                Some(c) => match Gap::of(*c) {
                    Some(next) => (gap, at) = (next, end + 1),
                    None if is_bracketed || *c == '(' => (gap, at) = (Gap::None, end),
                    None => return run,
                },
            }
        }
    }

    /// The beginnings of the run, the longest first.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = Prefix<'_>> {
        (1..=self.groups.len()).rev().filter_map(move |count| {
            let groups = self.groups.get(..count)?;
            let last = groups.last()?;
            let digits = self.digits.get(..last.digits)?;
            Some(Prefix { has_plus: self.has_plus, groups, digits, end: last.end })
        })
    }
}

impl Prefix<'_> {
    /// How many digits each group has.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.groups.iter().map(|group| group.length).collect()
    }

    /// What stands between the groups.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = Gap> {
        self.groups.iter().skip(1).map(|group| group.gap)
    }

    /// Whether there is neither a plus sign nor a bracket.
    pub(crate) fn is_bare(&self) -> bool {
        !self.has_plus && self.groups.iter().all(|group| !group.is_bracketed)
    }

    /// Whether it is bare and one kind of gap parts all groups.
    pub(crate) fn is_even(&self) -> bool {
        let first = self.gaps().next();
        self.is_bare() && self.gaps().all(|gap| Some(gap) == first)
    }

    /// The number that the digits `from..to` make, 0 where they are not there.
    pub(crate) fn number(&self, from: usize, to: usize) -> u32 {
        self.digits.get(from..to).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}
