//! Which keys hold secrets, by their names. Rather one too many: what is taken for a secret is only not shown and not written.

/// Words that make a key a secret wherever they stand in it.
const ANYWHERE: [&str; 9] =
    ["password", "passwd", "passphrase", "secret", "credential", "apikey", "privatekey", "accesskey", "authorization"];
/// Words that make a key a secret where they stand by themselves: `max_tokens` holds none.
const ALONE: [&str; 8] = ["token", "key", "keys", "pass", "pwd", "cookie", "salt", "dsn"];
/// Says by which header a secret comes, and not what it is.
const HEADER: &str = "API_KEY_HEADER";

/// Whether the name of a key says that its value is a secret.
pub(super) fn is_secret(key: &str) -> bool {
    if key == HEADER {
        return false;
    }
    let words = words(key);
    let joined = words.concat();
    ANYWHERE.iter().any(|word| joined.contains(word)) || words.iter().any(|word| ALONE.contains(&word.as_str()))
}

/// What to do about the secret under `key`.
pub(super) fn instead(key: &str) -> &'static str {
    let words = words(key);
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
    if has(&["redis"]) {
        "nothing: there is no Redis"
    } else if has(&["gemini", "google", "openai", "anthropic", "ai"]) {
        "put it into the file that `key_file` under `[provider]` of its model names, mode 0600"
    } else if has(&["hf", "hub", "huggingface"]) {
        "give it to `tollgate model pull` in the environment, as TOLLGATE_HUB_TOKEN"
    } else if has(&["jwt", "api", "admin"]) {
        "make new keys with `tollgate keys add ID`: the config holds only their hashes"
    } else {
        "keep it where it is; nothing here needs it"
    }
}

/// The words of `AN_ENV_KEY`, `a.dotted-one` and `aCamelOne`, in lower case, without the digits at their ends.
fn words(key: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for char in key.chars() {
        let is_new = !char.is_alphanumeric() || (was_lower && char.is_uppercase());
        if is_new {
            words.push(String::new());
        }
        if char.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(char.to_lowercase());
        }
        was_lower = char.is_lowercase() || char.is_numeric();
    }
    let bare = |word: String| word.trim_end_matches(|char: char| char.is_ascii_digit()).to_owned();
    words.into_iter().map(bare).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        let secrets = [
            "REDIS_PASSWORD",
            "GEMINI_API_KEY",
            "GEMINI_API_KEY_2",
            "JWT_SECRET_KEY",
            "TELEGRAM_BOT_TOKEN",
            "apiKey",
            "hf-token",
            "DBPASSWORD",
            "clientSecret",
            "api_key2",
        ];
        for key in secrets {
            assert!(is_secret(key), "{key}");
        }
        for key in ["API_KEY_HEADER", "max_tokens", "MODEL_PATH", "JWT_EXPIRATION_HOURS", "BCRYPT_ROUNDS", "keyboard", "path"] {
            assert!(!is_secret(key), "{key}");
        }
    }
}
