//! Stop strings, across token borders.
//!
//! Held back is only the longest suffix that can still become a stop string, so a reader sees no part of one and waits for
//! nothing else. Which stop is met does not depend on how the text was cut into tokens: it is the one that is complete first,
//! and of those that are complete together the longest.

/// Watches a text for stop strings.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop.
    held: String,
}

impl StopMatcher {
    /// Watches for `stops`, none of which is empty.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        StopMatcher { stops, held: String::new() }
    }

    /// Takes `text` in and appends to `out` what may be shown. Returns the stop that was met: then the text before it is out,
    /// and what follows is dropped.
    pub(crate) fn push(&mut self, text: &str, out: &mut String) -> Option<String> {
        if self.stops.is_empty() {
            out.push_str(text);
            return None;
        }
        self.held.push_str(text);
        if let Some((start, stop)) = self.first_complete() {
            out.push_str(self.held.get(..start).unwrap_or_default());
            self.held.clear();
            return Some(stop);
        }
        let keep = self.longest_beginning();
        let shown = self.held.len() - keep;
        out.extend(self.held.drain(..shown));
        None
    }

    /// The text ends here: what was held back was no stop.
    pub(crate) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Where the first complete stop starts, and which it is.
    fn first_complete(&self) -> Option<(usize, String)> {
        self.stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start, stop)))
            .min_by_key(|(end, start, _)| (*end, *start))
            .map(|(_, start, stop)| (start, stop.clone()))
    }

    /// The length of the longest suffix that a stop begins with.
    fn longest_beginning(&self) -> usize {
        let longest = self.stops.iter().map(|stop| stop.len() - 1).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        (from..self.held.len())
            .filter_map(|at| self.held.get(at..))
            .find(|&suffix| self.stops.iter().any(|stop| stop.starts_with(suffix)))
            .map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], chunks: &[&str]) -> (String, Option<String>) {
        let mut matcher = StopMatcher::new(stops.iter().map(ToString::to_string).collect());
        let mut out = String::new();
        for chunk in chunks {
            if let Some(stop) = matcher.push(chunk, &mut out) {
                return (out, Some(stop));
            }
        }
        matcher.finish(&mut out);
        (out, None)
    }

    #[test]
    fn only_what_can_still_become_a_stop_is_held() {
        let mut matcher = StopMatcher::new(vec!["END".into()]);
        let mut out = String::new();
        assert_eq!(matcher.push("one E", &mut out), None);
        assert_eq!(out, "one ");
        assert_eq!(matcher.push("N", &mut out), None);
        assert_eq!(out, "one ");
        assert_eq!(matcher.push("T two", &mut out), None);
        assert_eq!(out, "one ENT two");
        assert_eq!(matcher.push("EEND rest", &mut out), Some("END".into()));
        assert_eq!(out, "one ENT twoE");
    }

    #[test]
    fn the_stop_that_is_complete_first_wins_however_the_text_is_cut() {
        for chunks in [&["xabcd"][..], &["xab", "cd"][..], &["x", "a", "b", "c", "d"][..]] {
            assert_eq!(run(&["abcd", "b"], chunks), ("xa".into(), Some("b".into())));
            assert_eq!(run(&["cd", "abcd", "d"], chunks), ("x".into(), Some("abcd".into())));
        }
    }

    /// The text in characters, one at a time: the plainest reading of what a stop is.
    fn by_character(stops: &[String], text: &str) -> (String, Option<String>) {
        let mut seen = String::new();
        for character in text.chars() {
            seen.push(character);
            let met = stops.iter().filter(|stop| seen.ends_with(stop.as_str())).max_by_key(|stop| stop.len());
            if let Some(stop) = met {
                seen.truncate(seen.len() - stop.len());
                return (seen, Some(stop.clone()));
            }
        }
        (seen, None)
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same(
            text in "[abé]{0,14}",
            stops in proptest::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let expected = by_character(&stops, &text);
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let borders: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            for &first in &borders {
                for &second in borders.iter().filter(|&&second| second >= first) {
                    let chunks = [&text[..first], &text[first..second], &text[second..]];
                    prop_assert_eq!(run(&stops, &chunks), expected.clone());
                }
            }
        }

        #[test]
        fn no_part_of_a_stop_is_ever_shown(text in "[ab]{0,20}", stop in "[ab]{1,5}") {
            let mut matcher = StopMatcher::new(vec![stop.clone()]);
            let mut out = String::new();
            for at in 0..text.len() {
                let met = matcher.push(&text[at..=at], &mut out);
                prop_assert!(!out.contains(&stop));
                prop_assert!(text.starts_with(&out));
                if met.is_some() { break; }
            }
        }
    }
}
