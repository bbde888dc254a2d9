//! One text per value: what digests are taken over.

use serde::Serialize;

/// JSON with sorted keys and no white space. Equal values give equal texts.
pub(crate) fn json(value: &impl Serialize) -> String {
    let mut value = serde_json::to_value(value).expect("config types are plain data with string keys");
    // Another crate may switch serde_json to insertion order for the whole build.
    value.sort_all_objects();
    value.to_string()
}
