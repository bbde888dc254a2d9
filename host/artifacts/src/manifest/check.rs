//! Ranges and relations of a manifest's values, beyond what its types say.

use std::collections::BTreeSet;

use super::{CHUNK_BYTES, FileEntry, Format, MANIFEST_FILE, MAX_FILES, MAX_TOTAL_BYTES, Manifest, SIGNATURE_FILE, time};

const MAX_DESCRIPTION: usize = 1 << 10;
const MAX_SOURCE: usize = 2 << 10;
/// Of a question and of its answer.
const MAX_CHECK: usize = 4 << 10;

/// Whether a manifest can be used; if not, why not.
pub(super) fn check(manifest: &Manifest) -> Result<(), String> {
    if manifest.schema != 1 {
        return Err(format!("`schema` is {}, and this version of Tollgate knows 1", manifest.schema));
    }
    if manifest.version == 0 {
        return Err("`version` is 0, and the first is 1".to_owned());
    }
    for (field, text) in [("created", Some(&manifest.created)), ("expires", manifest.expires.as_ref())] {
        if text.is_some_and(|text| time::parse(text).is_none()) {
            return Err(format!("`{field}` is not a time as RFC 3339 writes it, like 2027-01-31T12:00:00Z"));
        }
    }
    let texts = [("description", &manifest.description, MAX_DESCRIPTION), ("source", &manifest.source, MAX_SOURCE)];
    for (field, text, limit) in texts {
        if let Some(text) = text {
            check_text(field, text, limit)?;
        }
    }
    if let Some(check) = &manifest.check {
        if manifest.format.is_adapter() {
            return Err(format!("`check` is for models, and the format is {}", manifest.format));
        }
        // A terminal never sees these as they are.
        for (field, text, least) in [("prompt", &check.prompt, 1), ("reply", &check.reply, 0)] {
            if !(least..=MAX_CHECK).contains(&text.len()) {
                return Err(format!("`check.{field}` has {} bytes, and {least} to {MAX_CHECK} are possible", text.len()));
            }
        }
    }
    if manifest.base.is_some() && !manifest.format.is_adapter() {
        return Err(format!("`base` is for adapters, and the format is {}", manifest.format));
    }
    check_files(&manifest.files)?;
    check_format(manifest)
}

/// Text for people: what a terminal would obey is not in it.
fn check_text(field: &str, text: &str, limit: usize) -> Result<(), String> {
    if text.len() > limit {
        return Err(format!("`{field}` has {} bytes, and {limit} are the most", text.len()));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(format!("`{field}` holds a control character"));
    }
    Ok(())
}

fn check_files(files: &[FileEntry]) -> Result<(), String> {
    if !(1..=MAX_FILES).contains(&files.len()) {
        return Err(format!("it lists {} files, and 1 to {MAX_FILES} are possible", files.len()));
    }
    let mut total = 0u64;
    let mut seen = BTreeSet::new();
    let mut folders = BTreeSet::new();
    for file in files {
        let FileEntry { path, bytes, chunks, .. } = file;
        total = total
            .checked_add(*bytes)
            .filter(|total| *total <= MAX_TOTAL_BYTES)
            .ok_or_else(|| format!("its files have more than {MAX_TOTAL_BYTES} bytes together"))?;
        let folded = path.folded();
        if folded == MANIFEST_FILE || folded == SIGNATURE_FILE {
            return Err(format!("it lists `{path}`, which is the manifest's own name"));
        }
        for (at, _) in folded.match_indices('/') {
            folders.insert(folded.get(..at).unwrap_or_default().to_owned());
        }
        if !seen.insert(folded) {
            return Err(format!("it lists `{path}` twice, or another path that differs in the case of letters only"));
        }
        let wanted = bytes.div_ceil(CHUNK_BYTES);
        if !chunks.is_empty() && u64::try_from(chunks.len()) != Ok(wanted) {
            return Err(format!(
                "`{path}` of {bytes} bytes has {} chunks; it must have {wanted} of {CHUNK_BYTES} bytes, or none",
                chunks.len()
            ));
        }
    }
    match folders.intersection(&seen).next() {
        Some(both) => Err(format!("`{both}` is both a file and a folder")),
        None => Ok(()),
    }
}

/// Whether the files that the format needs are listed. What is in them is `inspect`'s.
fn check_format(manifest: &Manifest) -> Result<(), String> {
    let count = |extension: &str| manifest.files.iter().filter(|file| file.path.has_extension(extension)).count();
    let needs = |path: &str| match manifest.file(path) {
        Some(_) => Ok(()),
        None => Err(format!("the format is {}, which needs the file `{path}`", manifest.format)),
    };
    let needs_one_of = |extension: &str, most: usize| match count(extension) {
        0 => Err(format!("the format is {}, and no file is called `*.{extension}`", manifest.format)),
        found if found > most => Err(format!(
            "the format is {}, and {found} files are called `*.{extension}`; only {most} can be, so merge or leave out the others",
            manifest.format
        )),
        _ => Ok(()),
    };
    match manifest.format {
        Format::Gguf | Format::LoraGguf => needs_one_of("gguf", 1),
        Format::Safetensors => {
            needs_one_of("safetensors", MAX_FILES)?;
            needs("config.json")?;
            needs("tokenizer.json")
        }
        Format::Onnx => needs_one_of("onnx", MAX_FILES),
        Format::LoraPeft => {
            needs("adapter_config.json")?;
            needs("adapter_model.safetensors")
        }
    }
}
