//! `keep_alive` as Ollama's clients write it: seconds, or a duration in words; negative is without end.

use tollgate_domain::{KeepAlive, Refusal};

use super::read;
use crate::json::Json;

/// A year, in seconds.
const MOST_S: i64 = 31_536_000;
/// Bytes of a duration in words.
const MOST_BYTES: usize = 32;
/// Milliseconds of a unit. `ms` comes before `m`, which it begins with.
const UNITS: [(&str, i64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// Reads `keep_alive`.
pub(super) fn keep_alive(path: &str, json: &Json) -> Result<KeepAlive, Refusal> {
    let seconds = match json {
        Json::Number(number) => number.as_i64(),
        Json::Text(text) => seconds(text),
        other => return Err(read::wrong_type(path, "a number or a string", other)),
    };
    let seconds = seconds.filter(|seconds| *seconds <= MOST_S).ok_or_else(|| {
        let why = format!("has to be whole seconds or a duration such as `1h30m`, of {MOST_S} seconds at most");
        read::invalid(path, &why)
    })?;
    // What is left out of range is negative.
    Ok(u32::try_from(seconds).map_or(KeepAlive::Unlimited, KeepAlive::Seconds))
}

/// Seconds of `90`, `5m`, `1h30m`, `300ms` or `-1`, one that has begun counted whole; `None` for what is no duration.
fn seconds(text: &str) -> Option<i64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    if text.is_empty() || text.len() > MOST_BYTES {
        return None;
    }
    if let Some(seconds) = number(text) {
        return Some(sign * seconds);
    }
    let (mut rest, mut ms) = (text, 0_i64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = rest.split_at_checked(digits)?;
        let (left, of_unit) = UNITS.iter().find_map(|(name, ms)| Some((unit.strip_prefix(*name)?, *ms)))?;
        ms = ms.checked_add(number(count)?.checked_mul(of_unit)?)?;
        rest = left;
    }
    Some(sign * (ms.checked_add(999)? / 1_000))
}

/// A number of digits alone.
fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<KeepAlive> {
        keep_alive("keep_alive", &crate::json::parse(text.as_bytes()).unwrap()).ok()
    }

    #[test]
    fn durations_are_those_of_ollama() {
        let seconds = |seconds| Some(KeepAlive::Seconds(seconds));
        for (text, taken) in [
            ("0", seconds(0)),
            ("300", seconds(300)),
            ("31536000", seconds(31_536_000)),
            ("-1", Some(KeepAlive::Unlimited)),
            (r#""0""#, seconds(0)),
            (r#""90""#, seconds(90)),
            (r#""5m""#, seconds(300)),
            (r#""1h30m5s""#, seconds(5_405)),
            (r#""1ms""#, seconds(1)),
            (r#""8760h""#, seconds(31_536_000)),
            (r#""-1""#, Some(KeepAlive::Unlimited)),
            (r#""-5m""#, Some(KeepAlive::Unlimited)),
        ] {
            assert_eq!(read(text), taken, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_or_too_long_is_refused() {
        let words = ["\"\"", "\"-\"", "\"m\"", "\"5x\"", "\"5m3\"", "\"+5\"", "\"1.5h\"", "\" 5m\"", "\"8761h\"", "\"é\""];
        let long = format!("\"{}\"", "9".repeat(33));
        let numbers = ["31536001", "1.5", "18446744073709551615", "1e300", "true", "[]", long.as_str()];
        for text in words.into_iter().chain(numbers) {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&format!("\"{}h\"", "9".repeat(30))), None);
    }
}
