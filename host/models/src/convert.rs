//! Makes a GGUF file of a folder of safetensors, or a GGUF adapter of PEFT's files. Meant for a child process: a file that ends a
//! native library then ends the child. Where the files come from, and whose they are, is not asked here.

mod plan;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_convert::adapter::{self, Base};
use tollgate_convert::{ConvertError, Converted, Options, Target};
use tollgate_formats::FormatError;
use tollgate_formats::gguf::{self, Gguf};

use plan::Plan;

/// How often the growth of a file that llama.cpp writes is told.
const POLL: Duration = Duration::from_millis(100);
/// Values that llama.cpp's small formats put together; a row is a whole number of them, or is stored otherwise.
const SUPER_BLOCK: u64 = 256;
/// What every refusal can be answered with that is not the files' fault.
const KEEP: &str = "`--convert none` keeps the model as it is, for `backend = \"candle\"`; or install a GGUF file of it";

/// How the matrices of the result are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quantization {
    /// 16 bits below 100 million values; above that `q8_0` where the model then takes half of the budget at most, else `q4_k_m`.
    #[serde(rename = "auto")]
    Auto,
    /// About 4.8 bits a value.
    #[serde(rename = "q4_k_m")]
    Q4KM,
    /// 8.5 bits a value.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// 16 bits a value.
    #[serde(rename = "f16")]
    F16,
}

/// What is to be converted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvertRequest {
    /// The folder with the model or with the adapter.
    pub folder: PathBuf,
    /// The file to make. It is not there yet; temporary files appear beside it.
    pub out: PathBuf,
    /// The name in the file: one line of 1 to 256 bytes.
    pub name: String,
    /// How numbers are stored. An adapter's stay as they are.
    pub quantization: Quantization,
    /// The base of an adapter: a GGUF file, or a folder with `config.json`. Absent for a model.
    pub base: Option<PathBuf>,
    /// Bytes that all models may take together, for [`Quantization::Auto`].
    pub budget_bytes: u64,
}

/// What came of a conversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvertReport {
    /// llama.cpp's name of the family.
    pub architecture: String,
    /// How matrices are stored: `q4_k_m`, `q8_0`, `f16`, `bf16`; `unchanged` for an adapter.
    pub quantization: String,
    /// Values in all tensors.
    pub parameters: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// What the operator should know of the result, a sentence each, without a full stop.
    pub notes: Vec<String>,
}

/// Nothing was converted, and nothing is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}; {advice}")]
pub struct ConvertRefusal {
    /// Why.
    pub reason: String,
    /// What can be done about it.
    pub advice: String,
    /// Whether the files are sound, and llama.cpp has no use for what is in them.
    pub is_unsupported: bool,
}

impl ConvertRefusal {
    fn new(reason: impl Into<String>, advice: &str) -> Self {
        ConvertRefusal { reason: reason.into(), advice: advice.to_owned(), is_unsupported: false }
    }
}

impl From<ConvertError> for ConvertRefusal {
    fn from(error: ConvertError) -> Self {
        let is_unsupported = matches!(error, ConvertError::Unsupported(_));
        let advice = match &error {
            ConvertError::Unsupported(_) => KEEP,
            ConvertError::Read { .. } => "see that it is there and readable",
            ConvertError::Write { .. } => "see that the disk has room and the folder can be written to",
            ConvertError::File { .. } | ConvertError::Format { .. } | ConvertError::Tensor { .. } => {
                "get the model again with all its files, as `save_pretrained` of transformers or peft writes them"
            }
        };
        ConvertRefusal { reason: error.to_string(), advice: advice.to_owned(), is_unsupported }
    }
}

/// Converts. `progress` is told what is being done, how many bytes of it are, and how many there will be if that is known.
///
/// # Errors
/// See [`ConvertRefusal`].
pub fn convert(
    request: &ConvertRequest,
    progress: &mut dyn FnMut(&str, u64, Option<u64>),
) -> Result<ConvertReport, ConvertRefusal> {
    let out = &request.out;
    if fs::symlink_metadata(out).is_ok() {
        return Err(ConvertRefusal::new(format!("{} exists already", out.display()), "remove it, or name another file"));
    }
    let (whole, part) = (beside(out, "whole"), beside(out, "part"));
    // A run that was killed may have left them.
    discard(&whole);
    discard(&part);
    let made = match &request.base {
        Some(base) => convert_adapter(request, base, &part),
        None => convert_model(request, &whole, &part, progress),
    };
    let made = made.and_then(|report| {
        let put = File::open(&part).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&part, out));
        put.map(|()| report)
            .map_err(|error| ConvertRefusal::new(format!("{}: {error}", out.display()), "see that the disk has room"))
    });
    discard(&whole);
    discard(&part);
    made
}

/// A temporary file's path, in the same folder.
fn beside(out: &Path, kind: &str) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".{name}.{kind}"))
}

/// Removes a temporary file, if it is there; what stays is found by the next run.
fn discard(path: &Path) {
    drop(fs::remove_file(path));
}

fn convert_adapter(request: &ConvertRequest, base: &Path, part: &Path) -> Result<ConvertReport, ConvertRefusal> {
    let header;
    let base = if base.is_dir() {
        Base::Folder(base)
    } else {
        header = read(base, gguf::check_model)?;
        Base::Gguf(&header)
    };
    let converted = adapter::convert(&request.folder, &base, part, &request.name)?;
    Ok(report(converted, "unchanged", Vec::new()))
}

fn convert_model(
    request: &ConvertRequest,
    whole: &Path,
    part: &Path,
    progress: &mut dyn FnMut(&str, u64, Option<u64>),
) -> Result<ConvertReport, ConvertRefusal> {
    let Plan { target, is_shrunk, notes } = plan::plan(&request.folder, request.quantization, request.budget_bytes);
    let options = Options { name: request.name.clone(), target };
    let first = if is_shrunk { whole } else { part };
    let converted = tollgate_convert::convert(&request.folder, first, &options, &mut |done, total| {
        progress("converting", done, Some(total));
    })?;
    if !is_shrunk {
        return Ok(report(converted, word(target), notes));
    }
    shrink(whole, part, progress)?;
    let header = read(part, gguf::check_model)?;
    let mut report = report(converted, "q4_k_m", notes);
    report.bytes = header.file_bytes;
    report.notes.extend(odd_rows(&header));
    Ok(report)
}

fn report(converted: Converted, quantization: &str, notes: Vec<String>) -> ConvertReport {
    ConvertReport {
        architecture: converted.architecture,
        quantization: quantization.to_owned(),
        parameters: converted.parameters,
        bytes: converted.bytes,
        notes: notes.into_iter().chain(converted.notes).collect(),
    }
}

fn word(target: Target) -> &'static str {
    match target {
        Target::F32 => "f32",
        Target::F16 => "f16",
        Target::Bf16 => "bf16",
        Target::Q8_0 => "q8_0",
    }
}

/// Has llama.cpp write the small file. It tells nobody how far it is, so the file's length is looked at.
fn shrink(whole: &Path, part: &Path, progress: &mut dyn FnMut(&str, u64, Option<u64>)) -> Result<(), ConvertRefusal> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = u16::try_from(cores).unwrap_or(u16::MAX);
    let kind = tollgate_backend_llama::Quantization::Q4KM;
    let ended = std::thread::scope(|scope| {
        let work = scope.spawn(|| tollgate_backend_llama::quantize(whole, part, kind, threads));
        while !work.is_finished() {
            std::thread::sleep(POLL);
            progress("quantizing", fs::metadata(part).map_or(0, |file| file.len()), None);
        }
        work.join()
    });
    let advice = "`--convert q8_0` does without llama.cpp's part";
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ConvertRefusal::new(error.to_string(), advice)),
        Err(_) => Err(ConvertRefusal::new("the thread that quantizes ended abruptly; this is a bug", advice)),
    }
}

/// What llama.cpp stores otherwise than it was asked to.
fn odd_rows(header: &Gguf) -> Option<String> {
    let matrices = header.tensors.iter().filter(|tensor| tensor.shape.len() == 2);
    let odd = matrices.clone().filter(|tensor| tensor.shape.first().is_some_and(|row| !row.is_multiple_of(SUPER_BLOCK)));
    let (all, odd) = (matrices.count(), odd.count());
    (odd > 0).then(|| {
        format!(
            "{odd} of {all} matrices have rows that are no multiple of {SUPER_BLOCK}: llama.cpp stored these in a bigger format"
        )
    })
}

fn read(path: &Path, check: fn(&Gguf) -> Result<(), FormatError>) -> Result<Gguf, ConvertRefusal> {
    let refused = |error: &dyn std::fmt::Display| {
        ConvertRefusal::new(format!("{}: {error}", path.display()), "name a GGUF model, or a folder with config.json")
    };
    let file = File::open(path).map_err(|error| refused(&error))?;
    let header = gguf::read(&mut BufReader::new(file)).and_then(|header| check(&header).map(|()| header));
    header.map_err(|error| refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model").join(name)
    }

    fn request(out: &Path, quantization: Quantization) -> ConvertRequest {
        ConvertRequest {
            folder: demo("hf"),
            out: out.to_owned(),
            name: "demo".to_owned(),
            quantization,
            base: None,
            budget_bytes: 1 << 40,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn every_quantization_gives_a_model_of_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut sizes = Vec::new();
        for (at, quantization) in [Quantization::Q4KM, Quantization::Q8_0, Quantization::F16].into_iter().enumerate() {
            let out = folder.path().join(format!("{at}.gguf"));
            let mut told = Vec::new();
            let report = convert(&request(&out, quantization), &mut |what, done, _| told.push((what.to_owned(), done))).unwrap();
            assert_eq!((report.architecture.as_str(), report.bytes), ("llama", fs::metadata(&out).unwrap().len()));
            assert_eq!(serde_json::to_value(quantization).unwrap(), report.quantization);
            assert!(told.iter().any(|(what, done)| what == "converting" && *done > 0), "{told:?}");
            sizes.push(report.bytes);
        }
        assert!(sizes.is_sorted() && sizes[0] * 3 < sizes[2] * 2, "{sizes:?}");
        assert_eq!(names(folder.path()).len(), 3, "nothing temporary is left: {:?}", names(folder.path()));
        let error = convert(&request(&folder.path().join("0.gguf"), Quantization::F16), &mut |_, _, _| {}).unwrap_err();
        assert!(error.to_string().contains("exists already; remove it"), "{error}");
    }

    #[test]
    fn small_models_lose_nothing_by_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let report = convert(&request(&folder.path().join("a.gguf"), Quantization::Auto), &mut |_, _, _| {}).unwrap();
        assert_eq!(report.quantization, "f16");
        assert!(report.notes.iter().any(|note| note.contains("100 million")), "{:?}", report.notes);
    }

    #[test]
    fn adapters_are_converted_for_their_base() {
        let folder = tempfile::tempdir().unwrap();
        for (at, base) in ["hf", "demo.gguf"].into_iter().enumerate() {
            let out = folder.path().join(format!("{at}.gguf"));
            let asked = ConvertRequest { folder: demo("lora"), base: Some(demo(base)), ..request(&out, Quantization::Auto) };
            assert_eq!(convert(&asked, &mut |_, _, _| {}).unwrap().quantization, "unchanged");
            read(&out, gguf::check_adapter).unwrap();
        }
        let out = folder.path().join("x.gguf");
        let asked = ConvertRequest { folder: demo("lora"), base: Some(demo("README.md")), ..request(&out, Quantization::Auto) };
        let error = convert(&asked, &mut |_, _, _| {}).unwrap_err().to_string();
        assert!(error.contains("README.md") && error.contains("name a GGUF model"), "{error}");
    }

    #[test]
    fn a_refusal_says_what_to_do_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let asked = ConvertRequest { folder: demo("lora"), ..request(&folder.path().join("a.gguf"), Quantization::Q4KM) };
        let error = convert(&asked, &mut |_, _, _| {}).unwrap_err();
        assert!(error.to_string().contains("config.json") && error.advice.contains("with all its files"), "{error}");
        assert!(!error.is_unsupported && names(folder.path()).is_empty());
    }
}
