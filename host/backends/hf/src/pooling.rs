//! How the rows of an encoder become one vector.

use serde_json::Value;
use tollgate_backend::BackendError;

use crate::config::read;
use crate::folder::Folder;

/// Where sentence-transformers names the modules that a text goes through.
const MODULES: &str = "modules.json";
const MAX_MODULES_BYTES: u64 = 1 << 20;
/// Those that are computed here; every vector is brought to length 1.
const KNOWN: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// Which rows make the vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all.
    Mean,
    /// The first one, of the token that stands for the whole text.
    Cls,
}

impl Pooling {
    /// What `1_Pooling/config.json` of a sentence-transformers folder says; the mean where there is none.
    ///
    /// # Errors
    /// It names a way that is not one of these, or the folder has a layer after the pooling.
    pub fn read(folder: &Folder) -> Result<Self, BackendError> {
        check_modules(folder)?;
        let Some(config) = folder.read("1_Pooling/config.json")? else { return Ok(Pooling::Mean) };
        if folder.path().join("2_Dense").is_dir() {
            return Err(BackendError::Load(
                "the folder has a layer after the pooling (2_Dense), which is not supported".to_owned(),
            ));
        }
        let flags = config.value().as_object().into_iter().flatten();
        let mut modes = flags.filter(|(name, value)| name.starts_with("pooling_mode_") && value.as_bool() == Some(true));
        // The vectors of several stand one after the other in the original.
        match (modes.next().map(|(name, _)| name.as_str()), modes.next()) {
            (Some("pooling_mode_cls_token"), None) => Ok(Pooling::Cls),
            (Some("pooling_mode_mean_tokens"), None) => Ok(Pooling::Mean),
            _ => {
                let what = "1_Pooling/config.json asks for a pooling other than the mean or the first token";
                Err(BackendError::Load(what.to_owned()))
            }
        }
    }

    /// One vector of length 1 from rows of `width` numbers; `None` if there is no row, or a number that is none.
    #[must_use]
    pub fn pool(self, rows: &[f32], width: usize) -> Option<Vec<f32>> {
        if width == 0 || rows.len() < width || !rows.len().is_multiple_of(width) {
            return None;
        }
        let mut vector = vec![0.0_f32; width];
        let take = match self {
            Pooling::Mean => rows.len(),
            Pooling::Cls => width,
        };
        // A mean and a sum have the same direction, and only the direction is kept.
        for row in rows.chunks_exact(width).take(take / width) {
            vector.iter_mut().zip(row).for_each(|(sum, number)| *sum += number);
        }
        normalize(vector)
    }
}

/// Refuses a folder with a module that is not computed here, such as a layer after the pooling. Its own folder may not be there: it is
/// not installed.
fn check_modules(folder: &Folder) -> Result<(), BackendError> {
    let Some(bytes) = read(&folder.path().join(MODULES), MAX_MODULES_BYTES)? else { return Ok(()) };
    let modules: Vec<Value> = serde_json::from_slice(&bytes)
        .map_err(|error| BackendError::Load(format!("{MODULES} is not the list of modules that was expected: {error}")))?;
    for module in &modules {
        let class = module.get("type").and_then(Value::as_str).and_then(|class| class.rsplit('.').next()).unwrap_or_default();
        if !KNOWN.contains(&class) {
            let what = format!("{MODULES} has the module `{}`, which is not supported", class.escape_debug());
            return Err(BackendError::Load(what));
        }
    }
    Ok(())
}

/// A vector of length 1 in the same direction; `None` if it has none.
fn normalize(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    if !length.is_finite() {
        return None;
    }
    // A vector of zeros stays one.
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    #[allow(clippy::cast_possible_truncation, reason = "to the precision of the vector")]
    vector.iter_mut().for_each(|number| *number = (f64::from(*number) * scale) as f32);
    Some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_one() {
        let rows = [1.0, 0.0, 3.0, 4.0, 5.0, 4.0];
        assert_eq!(Pooling::Cls.pool(&rows, 2), Some(vec![1.0, 0.0]));
        let mean = Pooling::Mean.pool(&rows, 2).expect("a vector");
        // The sum is (9, 8).
        assert!((mean[0] - 9.0 / 145.0_f32.sqrt()).abs() < 1e-6 && (mean[1] - 8.0 / 145.0_f32.sqrt()).abs() < 1e-6);
        assert_eq!(Pooling::Mean.pool(&[0.0, 0.0], 2), Some(vec![0.0, 0.0]));
        assert_eq!(Pooling::Mean.pool(&[f32::NAN, 0.0], 2), None);
        assert_eq!(Pooling::Mean.pool(&[1.0], 2), None);
        assert_eq!(Pooling::Mean.pool(&[], 0), None);
    }

    #[test]
    fn the_folder_says_how() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        write("config.json", "{}");
        let folder = Folder::open(directory.path()).expect("a folder");
        assert_eq!(Pooling::read(&folder), Ok(Pooling::Mean));
        std::fs::create_dir(directory.path().join("1_Pooling")).expect("made");
        write("1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#);
        assert_eq!(Pooling::read(&folder), Ok(Pooling::Cls));
        write("1_Pooling/config.json", r#"{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}"#);
        assert_eq!(Pooling::read(&folder), Ok(Pooling::Mean));
        write("modules.json", r#"[{"type": "sentence_transformers.models.Pooling"}]"#);
        assert_eq!(Pooling::read(&folder), Ok(Pooling::Mean));
        write("modules.json", r#"[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]"#);
        assert!(Pooling::read(&folder).expect_err("refused").to_string().contains("`Dense`"));
        std::fs::remove_file(directory.path().join("modules.json")).expect("removed");
        for others in ["", r#", "pooling_mode_mean_tokens": true"#, r#", "pooling_mode_cls_token": true"#] {
            write("1_Pooling/config.json", &format!(r#"{{"pooling_mode_max_tokens": true{others}}}"#));
            assert!(Pooling::read(&folder).is_err(), "{others}");
        }
    }
}
