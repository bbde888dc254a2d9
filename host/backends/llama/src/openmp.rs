//! The part of OpenMP's runtime that ggml needs, on teams of our own ([`crate::team`]), in libgomp's place.
//!
//! libgomp decides once, when it is loaded, how long its threads spin, and it hardly spins at all as soon as two models together
//! have more threads than there are cores. The functions and their arguments are the ABI that GCC calls (libgomp's manual, "The
//! libgomp ABI"). A test of the whole program looks that libgomp is not there, so that a function that ggml may need one day
//! does not silently come from a runtime that knows nothing of these threads. The variables `OMP_*` and `GOMP_*` mean nothing here.
#![allow(unsafe_code, reason = "C calls these functions; each block says why it is sound")]
#![allow(non_snake_case, reason = "the names are OpenMP's")]

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::team::{Place, Task, Team};

thread_local! {
    /// The team that this thread leads.
    static TEAM: RefCell<Option<Team>> = const { RefCell::new(None) };
    /// Whether it may spin for long.
    static MAY_SPIN: Cell<bool> = const { Cell::new(true) };
}

/// The lock of `omp atomic` on what no instruction changes at once.
static ATOMIC: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Has the linker take all of these functions from here, whatever objects they are in and whatever order it looks in.
pub(crate) fn provide() {
    let all: [*const (); 10] = [
        GOMP_parallel as *const (),
        GOMP_barrier as *const (),
        GOMP_single_start as *const (),
        omp_get_thread_num as *const (),
        omp_get_num_threads as *const (),
        GOMP_loop_nonmonotonic_dynamic_start as *const (),
        GOMP_loop_nonmonotonic_dynamic_next as *const (),
        GOMP_loop_end as *const (),
        GOMP_atomic_start as *const (),
        GOMP_atomic_end as *const (),
    ];
    std::hint::black_box(all);
}

/// Whether the threads that this one leads may spin for long from now on.
pub(crate) fn allow_spinning(is_allowed: bool) {
    MAY_SPIN.set(is_allowed);
}

/// `omp parallel`. `threads` 0 means as many as there are cores.
///
/// # Safety
/// `task` may be called with `argument` on any thread until this returns.
#[unsafe(no_mangle)]
unsafe extern "C" fn GOMP_parallel(task: Task, argument: *mut c_void, threads: c_uint, _flags: c_uint) {
    if Place::here(|place| place.is_some()) {
        // SAFETY: the caller vouches for it.
        Place::alone(|| unsafe { task(argument) });
        return;
    }
    let cores = || std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let threads = if threads == 0 { cores() } else { threads };
    TEAM.with_borrow_mut(|team| {
        let team = team.get_or_insert_with(Team::new);
        team.allow_spinning(MAY_SPIN.get());
        // SAFETY: the caller vouches for it.
        unsafe { team.run(task, argument, threads) }
    });
}

/// `omp barrier`.
#[unsafe(no_mangle)]
extern "C" fn GOMP_barrier() {
    Place::here(|place| {
        if let Some(place) = place {
            place.meet();
        }
    });
}

/// `omp single`: whether this thread runs the block.
#[unsafe(no_mangle)]
extern "C" fn GOMP_single_start() -> bool {
    Place::here(|place| place.is_none_or(Place::is_chosen))
}

#[unsafe(no_mangle)]
extern "C" fn omp_get_thread_num() -> c_int {
    Place::here(|place| place.map_or(0, |place| c_int::try_from(place.index).unwrap_or(0)))
}

#[unsafe(no_mangle)]
extern "C" fn omp_get_num_threads() -> c_int {
    Place::here(|place| place.map_or(1, |place| c_int::try_from(place.threads).unwrap_or(1)))
}

/// `omp for schedule(dynamic, chunk)`: begins it and takes the first part.
///
/// # Safety
/// `from` and `to` are valid for writing.
#[unsafe(no_mangle)]
unsafe extern "C" fn GOMP_loop_nonmonotonic_dynamic_start(
    start: c_long,
    end: c_long,
    step: c_long,
    chunk: c_long,
    from: *mut c_long,
    to: *mut c_long,
) -> bool {
    let is_shared = Place::here(|place| place.map(|place| place.begin_loop(start, end, step, chunk)).is_some());
    if is_shared {
        // SAFETY: the caller vouches for it.
        return unsafe { GOMP_loop_nonmonotonic_dynamic_next(from, to) };
    }
    // Outside of a region, one part is all.
    // SAFETY: the caller vouches for it.
    unsafe {
        from.write(start);
        to.write(end);
    }
    (start < end) == (step > 0) && start != end
}

/// Takes the next part; false if none is left.
///
/// # Safety
/// `from` and `to` are valid for writing.
#[unsafe(no_mangle)]
unsafe extern "C" fn GOMP_loop_nonmonotonic_dynamic_next(from: *mut c_long, to: *mut c_long) -> bool {
    let part = Place::here(|place| place.and_then(|place| place.next_part()));
    let Some((begin, end)) = part else { return false };
    // SAFETY: the caller vouches for it.
    unsafe {
        from.write(begin);
        to.write(end);
    }
    true
}

/// The end of a loop, which is a barrier.
#[unsafe(no_mangle)]
extern "C" fn GOMP_loop_end() {
    GOMP_barrier();
}

#[unsafe(no_mangle)]
extern "C" fn GOMP_atomic_start() {
    let (held, freed) = &ATOMIC;
    let held = held.lock().unwrap_or_else(PoisonError::into_inner);
    *freed.wait_while(held, |held| *held).unwrap_or_else(PoisonError::into_inner) = true;
}

#[unsafe(no_mangle)]
extern "C" fn GOMP_atomic_end() {
    let (held, freed) = &ATOMIC;
    *held.lock().unwrap_or_else(PoisonError::into_inner) = false;
    freed.notify_one();
}
