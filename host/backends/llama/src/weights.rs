//! Reads a model's weights with what llama-cpp-2 has no setter for, and says what this machine makes of them.
#![allow(unsafe_code, reason = "calls into llama.cpp; each block says why it is sound")]

use std::ffi::{CStr, CString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;
use tollgate_backend::BackendError;

/// Loads the weights; llama.cpp has been set up.
pub(crate) fn load(path: &Path, mapped: bool, repack: bool) -> Result<LlamaModel, BackendError> {
    let refused = |why: &str| BackendError::Load(format!("{}: {why}", path.display()));
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| refused("the name has a zero byte in it"))?;
    // SAFETY: plain data without arguments.
    let mut params = unsafe { sys::llama_model_default_params() };
    params.load_mode = if mapped { sys::LLAMA_LOAD_MODE_MMAP } else { sys::LLAMA_LOAD_MODE_NONE };
    params.use_extra_bufts = repack;
    // SAFETY: the name ends in zero and lives until the call returns; the parameters are llama.cpp's own with two flags changed.
    let raw = unsafe { sys::llama_model_load_from_file(name.as_ptr(), params) };
    let raw = NonNull::new(raw).ok_or_else(|| refused("llama.cpp does not take it (its log says why)"))?;
    // SAFETY: `LlamaModel` is `repr(transparent)` over such a pointer, and the exact pin in Cargo.toml keeps it so. It is the
    // model's only owner, and frees it once.
    Ok(unsafe { std::mem::transmute::<NonNull<sys::llama_model>, LlamaModel>(raw) })
}

/// The version of ggml, which computes.
#[must_use]
pub fn version() -> String {
    // SAFETY: a text that is part of the program and ends in zero.
    let text = unsafe { CStr::from_ptr(sys::ggml_version()) };
    text.to_string_lossy().into_owned()
}

/// Whether llama.cpp stores a matrix in another order on this machine where it may: `kind` is ggml's name of its type, `rows` how many
/// it has. The table is `ggml_repack_get_optimal_repack_type` of the pinned version.
#[must_use]
pub fn repacks(kind: &str, rows: u64) -> bool {
    // SAFETY: none of them takes anything or keeps anything.
    let has = |ask: unsafe extern "C" fn() -> c_int| unsafe { ask() } != 0;
    let is_x86 = has(sys::ggml_cpu_has_avx2);
    let is_arm = has(sys::ggml_cpu_has_neon) && has(sys::ggml_cpu_has_dotprod);
    let is_one = match kind {
        "q4_0" | "q4_K" | "iq4_nl" | "mxfp4" => is_x86 || is_arm,
        "q5_K" | "q6_K" | "q8_0" | "q1_0" => is_arm,
        "q2_K" => has(sys::ggml_cpu_has_avx512),
        _ => false,
    };
    is_one && rows.is_multiple_of(if is_arm { 4 } else { 8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_computes_has_a_version() {
        assert!(version().split('.').count() >= 3, "{}", version());
    }

    #[test]
    fn some_types_are_never_stored_in_another_order() {
        assert!(!repacks("f16", 64) && !repacks("f32", 64) && !repacks("q4_K", 63));
    }
}
