//! Makes a GGUF file smaller by llama.cpp's own formats. Meant for a child process: what llama.cpp asserts ends the process.
#![allow(unsafe_code, reason = "calls into llama.cpp; each block says why it is sound")]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use llama_cpp_sys_2 as sys;
use tollgate_backend::BackendError;

use crate::library;

/// Bytes of a tensor that are worked on at once, where llama.cpp would take 8 GiB.
const BUFFER_BYTES: usize = 256 << 20;

/// How the matrices of the result are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// About 4.8 bits a value: blocks of 256 with 4 bits each, more for the matrices that need it. A matrix whose rows are no multiple
    /// of 256 is stored in a bigger format.
    Q4KM,
}

/// Writes the model in `input`, which is in f32, f16 or bf16, to `output` in smaller numbers, with so many threads (1 to 512). A file
/// that is there is overwritten; after a failure there is none.
///
/// # Errors
/// llama.cpp does not take the file, or the disk fails. Why is in llama.cpp's log.
pub fn quantize(input: &Path, output: &Path, quantization: Quantization, threads: u16) -> Result<(), BackendError> {
    library()?;
    let (from, to) = (c_path(input)?, c_path(output)?);
    // SAFETY: plain data without arguments.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.nthread = i32::from(threads.clamp(1, 512));
    params.ftype = match quantization {
        Quantization::Q4KM => sys::LLAMA_FTYPE_MOSTLY_Q4_K_M,
    };
    params.max_buf_size = BUFFER_BYTES;
    // SAFETY: both texts end with a NUL and live until the call returns, the parameters are llama.cpp's own with numbers changed and
    // without pointers, and C++ exceptions are caught inside.
    let code = unsafe { sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw const params) };
    if code == 0 {
        return Ok(());
    }
    // Half a file is of no use to anybody; the failure before is the one that is told.
    drop(std::fs::remove_file(output));
    Err(BackendError::Failed(format!("llama.cpp could not quantize the model (code {code})")))
}

fn c_path(path: &Path) -> Result<CString, BackendError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| BackendError::Failed(format!("{} is no path", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KvCache, Llama, Settings};

    fn demo() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model/demo-f16.gguf")
    }

    #[test]
    fn a_model_becomes_smaller_and_can_be_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("small.gguf");
        quantize(&demo(), &out, Quantization::Q4KM, 2).unwrap();
        let (before, after) = (std::fs::metadata(demo()).unwrap().len(), std::fs::metadata(&out).unwrap().len());
        assert!(after * 2 < before, "{after} of {before}");
        let settings = Settings {
            path: out,
            mapped: false,
            context_tokens: Some(256),
            sequences: 1,
            step_rows: 16,
            threads: Some(1),
            apart: false,
            kv_cache: KvCache::F16,
            tuning: crate::Tuning::default(),
        };
        Llama::load(&settings).unwrap();
    }

    #[test]
    fn what_cannot_be_quantized_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("small.gguf");
        let error = quantize(&folder.path().join("missing.gguf"), &out, Quantization::Q4KM, 1).unwrap_err().to_string();
        assert!(error.contains("could not quantize"), "{error}");
        let small = demo().with_file_name("demo.gguf");
        quantize(&small, &out, Quantization::Q4KM, 1).unwrap_err();
        assert!(!out.exists(), "q8_0 is not quantized again");
    }
}
