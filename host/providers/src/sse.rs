//! Server-sent events (WHATWG HTML, 9.2), as far as chat completions need them: the data of each event.

use crate::ProviderError;
use crate::lines::MAX_LINE;

/// An event on its way.
#[derive(Debug, Default)]
pub(crate) struct Events {
    data: Option<Vec<u8>>,
}

impl Events {
    /// Takes in a line; gives the data of the event that ends with it.
    ///
    /// # Errors
    /// An event is too long.
    pub(crate) fn line(&mut self, line: &[u8]) -> Result<Option<Vec<u8>>, ProviderError> {
        if line.is_empty() {
            return Ok(self.data.take());
        }
        // Comments, ids, names and waits say nothing about a reply.
        let Some(more) = line.strip_prefix(b"data:") else { return Ok(None) };
        let more = more.strip_prefix(b" ").unwrap_or(more);
        match &mut self.data {
            None => self.data = Some(more.to_vec()),
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(more);
                if data.len() > MAX_LINE {
                    return Err(ProviderError::Malformed("an event has more than 1 MiB"));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(text: &str) -> Vec<String> {
        let mut events = Events::default();
        let data = text.split('\n').filter_map(|line| events.line(line.as_bytes()).unwrap());
        data.map(|data| String::from_utf8(data).unwrap()).collect()
    }

    #[test]
    fn data_is_joined_and_the_rest_passed_over() {
        assert_eq!(events("data: a\n\n: comment\n\nevent: x\nid: 1\ndata:b\ndata: c\n\ndata: cut"), ["a", "b\nc"]);
        assert!(events("\n\n\nretry: 1\n\n").is_empty());
    }

    #[test]
    fn an_endless_event_is_refused() {
        let (mut events, line) = (Events::default(), [b"data: ".as_slice(), &[b'x'; 100_000]].concat());
        let refused = (0..12).find(|_| events.line(&line).is_err());
        assert_eq!(refused, Some(10));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_read(sent in prop::collection::vec("[ -~]{0,20}(\n[ -~]{0,20}){0,2}", 0..8)) {
            let text = sent.iter().map(|data| {
                let lines = data.split('\n').map(|line| format!("data: {line}\n")).collect::<String>();
                format!(": ping\n\n{lines}\n")
            });
            prop_assert_eq!(events(&text.collect::<String>()), sent);
        }
    }
}
