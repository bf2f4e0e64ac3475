//! The time and the random bytes that every library of this process sees.
//!
//! The system's own calls are replaced here, so that nothing has to be handed a clock: whatever
//! asks for the time gets the simulation's, and hash maps are seeded the same each time. That is
//! so only in a process that runs a history, and not in its first thread, which is the test
//! harness's.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The first moment of every history.
const BEGIN_MONOTONIC_SECONDS: u64 = 1 << 32;
const BEGIN_WALL_SECONDS: i64 = 1_800_000_000;
const NANOS: u64 = 1_000_000_000;

static ON: AtomicBool = AtomicBool::new(false);
static PASSED_NANOS: AtomicU64 = AtomicU64::new(0);
static WALL_SHIFT_SECONDS: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static FIRST_THREAD: Cell<Option<bool>> = const { Cell::new(None) };
    static DRAWN: Cell<u64> = const { Cell::new(0) };
}

/// From here on this process has the simulation's time.
pub(crate) fn simulate() {
    ON.store(true, Relaxed);
}

/// Lets time pass.
pub(crate) fn advance(by: Duration) {
    PASSED_NANOS.fetch_add(by.as_nanos() as u64, Relaxed);
}

/// Sets the wall clock on or back; durations are measured as before.
pub(crate) fn shift_wall(seconds: i64) {
    WALL_SHIFT_SECONDS.fetch_add(seconds, Relaxed);
}

/// How much time has passed since the history began.
pub(crate) fn passed() -> Duration {
    Duration::from_nanos(PASSED_NANOS.load(Relaxed))
}

fn is_simulated() -> bool {
    ON.load(Relaxed)
        && !FIRST_THREAD.with(|known| {
            known.get().unwrap_or_else(|| {
                // SAFETY: both only ask for a number.
                let first = unsafe { libc::syscall(libc::SYS_gettid) }
                    == i64::from(unsafe { libc::getpid() });
                known.set(Some(first));
                first
            })
        })
}

/// # Safety
/// As the function of the C library that it stands for.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    if !is_simulated() {
        // SAFETY: the caller's arguments, handed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    }
    let passed = PASSED_NANOS.load(Relaxed);
    let begin = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            BEGIN_WALL_SECONDS + WALL_SHIFT_SECONDS.load(Relaxed)
        }
        _ => BEGIN_MONOTONIC_SECONDS as i64,
    };
    // SAFETY: the caller gives a place for the answer.
    unsafe {
        (*time).tv_sec = begin + (passed / NANOS) as i64;
        (*time).tv_nsec = (passed % NANOS) as i64;
    }
    0
}

/// # Safety
/// As the function of the C library that it stands for.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    bytes: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    if !is_simulated() {
        // SAFETY: the caller's arguments, handed on.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, bytes, flags) }
            as libc::ssize_t;
    }
    // SAFETY: the caller gives a buffer of so many bytes.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), bytes) };
    for byte in buffer {
        // Each thread draws for itself: which of them is first must not matter.
        let drawn = DRAWN.get() + 1;
        DRAWN.set(drawn);
        *byte = (drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    }
    bytes as libc::ssize_t
}
