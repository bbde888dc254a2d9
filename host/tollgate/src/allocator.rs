//! glibc's allocator, held to giving big blocks back to the system when they are freed. By itself it keeps ever bigger ones: models
//! that come and go within their budget then leave the process bigger than that, until a control group ends it.
#![allow(unsafe_code, reason = "a setting of glibc's")]

/// Blocks of so many bytes and more are mappings of their own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const BIG: i32 = 1 << 20;

/// Has big blocks go back at once. To be called first.
pub(crate) fn return_big_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it changes a number that only the allocator reads, before there is another thread.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, BIG) };
}
