//! Times in a manifest: RFC 3339, read and written in UTC.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The longest text of a time that is read.
const MAX_TEXT: usize = 64;

/// Reads a time.
pub(crate) fn parse(text: &str) -> Option<OffsetDateTime> {
    if text.len() > MAX_TEXT { None } else { OffsetDateTime::parse(text, &Rfc3339).ok() }
}

/// Whether `text` is a time at or before `now`. What is no time has passed.
pub(crate) fn has_passed(text: &str, now: SystemTime) -> bool {
    match (parse(text), from_system(now)) {
        (Some(time), Some(now)) => time <= now,
        _ => true,
    }
}

/// Writes a time to the second, in UTC; none beyond the year 9999.
pub(crate) fn rfc3339(time: SystemTime) -> Option<String> {
    from_system(time)?.format(&Rfc3339).ok()
}

fn from_system(time: SystemTime) -> Option<OffsetDateTime> {
    // A clock before 1970 counts as 1970: everything with an end is then still to come, and nothing else depends on it.
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}
