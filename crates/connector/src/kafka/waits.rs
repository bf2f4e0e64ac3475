//! The timed waits of librdkafka, by a clock that nobody sets.
//!
//! The library waits with C11's `cnd_timedwait`, which ends at a time of the system's clock. Where
//! that clock is set back by an hour, every wait under way takes an hour more: a lane without
//! messages would not look at its control channel, and a broker that is tried again later would
//! not be tried. This definition takes the place of the C library's, in this program alone: it
//! waits for as long as was meant when it was called.

#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

use std::ffi::{c_int, c_long, c_void};

const CLOCK_REALTIME: c_int = 0;
const CLOCK_MONOTONIC: c_int = 1;
const ETIMEDOUT: c_int = 110;
const THRD_SUCCESS: c_int = 0;
const THRD_ERROR: c_int = 2;
const THRD_TIMEDOUT: c_int = 4;
const SECOND_NS: c_long = 1_000_000_000;

/// C's `struct timespec`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

unsafe extern "C" {
    fn clock_gettime(clock: c_int, now: *mut Timespec) -> c_int;
    /// Of glibc 2.30 and newer.
    fn pthread_cond_clockwait(
        condition: *mut c_void,
        mutex: *mut c_void,
        clock: c_int,
        until: *const Timespec,
    ) -> c_int;
}

impl Timespec {
    fn now(clock: c_int) -> Timespec {
        let mut now = Timespec::default();
        // SAFETY: it writes one timespec; both clocks are always there.
        unsafe { clock_gettime(clock, &raw mut now) };
        now
    }

    /// `self` after `from` has become `to`.
    fn moved(self, from: Timespec, to: Timespec) -> Timespec {
        let nanoseconds = self.nanoseconds - from.nanoseconds + to.nanoseconds;
        Timespec {
            seconds: self.seconds - from.seconds + to.seconds + nanoseconds.div_euclid(SECOND_NS),
            nanoseconds: nanoseconds.rem_euclid(SECOND_NS),
        }
    }
}

/// C's `int cnd_timedwait(cnd_t *, mtx_t *, const struct timespec *)`.
///
/// # Safety
/// As C says: valid pointers, and the mutex held by the caller.
#[unsafe(no_mangle)]
unsafe extern "C" fn cnd_timedwait(
    condition: *mut c_void,
    mutex: *mut c_void,
    until: *const Timespec,
) -> c_int {
    // SAFETY: `until` is the caller's. In glibc cnd_t and mtx_t are pthread's types by other names.
    let waited = unsafe {
        let until = (*until).moved(
            Timespec::now(CLOCK_REALTIME),
            Timespec::now(CLOCK_MONOTONIC),
        );
        pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &raw const until)
    };
    match waited {
        0 => THRD_SUCCESS,
        ETIMEDOUT => THRD_TIMEDOUT,
        _ => THRD_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_moved_over_seconds() {
        let at = |seconds, nanoseconds| Timespec {
            seconds,
            nanoseconds,
        };
        let until = at(1_000, 100).moved(at(999, 999_999_999), at(7, 999_999_998));
        assert_eq!((until.seconds, until.nanoseconds), (8, 99));
        let until = at(1_000, 0).moved(at(999, 1), at(7, 0));
        assert_eq!((until.seconds, until.nanoseconds), (7, 999_999_999));
    }

    #[test]
    fn a_wait_ends_when_it_is_over() {
        // What glibc's initialisers are for both: no bit set.
        let (mut condition, mut mutex) = ([0u64; 16], [0u64; 16]);
        let mut until = Timespec::now(CLOCK_REALTIME);
        until.nanoseconds += 20_000_000;
        let began = std::time::Instant::now();
        // SAFETY: both are larger than C's types, aligned as these, and used by this thread alone.
        let waited = unsafe {
            let mutex: *mut c_void = (&raw mut mutex).cast();
            pthread_mutex_lock(mutex);
            cnd_timedwait((&raw mut condition).cast(), mutex, &raw const until)
        };
        assert_eq!(waited, THRD_TIMEDOUT);
        assert!(began.elapsed().as_millis() >= 10);
    }

    unsafe extern "C" {
        fn pthread_mutex_lock(mutex: *mut c_void) -> c_int;
    }
}
