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

    /// Takes `text` in and gives back what may be shown, and the stop that was met: then what is shown is the text before it, and
    /// what follows it is dropped.
    pub(crate) fn push(&mut self, text: String) -> (String, Option<String>) {
        if self.stops.is_empty() {
            return (text, None);
        }
        self.held.push_str(&text);
        if let Some((start, stop)) = self.first_complete() {
            let shown = self.held.get(..start).unwrap_or_default().to_owned();
            self.held.clear();
            return (shown, Some(stop));
        }
        let keep = self.longest_beginning();
        let held = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, held), None)
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
            let (shown, stop) = matcher.push((*chunk).to_owned());
            out.push_str(&shown);
            if stop.is_some() {
                return (out, stop);
            }
        }
        matcher.finish(&mut out);
        (out, None)
    }

    #[test]
    fn only_what_can_still_become_a_stop_is_held() {
        let mut matcher = StopMatcher::new(vec!["END".into()]);
        let mut push = |text: &str| matcher.push(text.to_owned());
        assert_eq!(push("one E"), ("one ".to_owned(), None));
        assert_eq!(push("N"), (String::new(), None));
        assert_eq!(push("T two"), ("ENT two".to_owned(), None));
        assert_eq!(push("EEND rest"), ("E".to_owned(), Some("END".into())));
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
                let (shown, met) = matcher.push(text[at..=at].to_owned());
                out.push_str(&shown);
                prop_assert!(!out.contains(&stop));
                prop_assert!(text.starts_with(&out));
                if met.is_some() { break; }
            }
        }
    }
}
