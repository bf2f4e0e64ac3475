//! How much memory the process may take, and where state goes that does not fit.
//!
//! [`Allocator`] is the process's allocator. Small pieces are always memory; large ones, which the
//! batches of arrangements are made of, come from a file mapped into memory once the heap has
//! grown to a share of the limit. The system writes the file's pages out and takes them back as
//! it needs them, and nothing but the allocator knows of it.
//!
//! ```text
//!   heap (anonymous memory)            what happens
//!   0 ………… 50 % of the limit           everything in memory
//!   50 % …                             new large pieces in the file, also the one that would
//!                                      take it there
//!   75 % …                             sources wait: [`is_tight`]
//!   90 % …                             queries end: [`must_end`]
//! ```
//!
//! Without [`start`] there is no limit. The file has no name, so it is gone with the process.

mod arena;
mod limit;
mod watch;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use mimalloc::MiMalloc;

pub use limit::{Limit, available};
pub use watch::start;

/// Pieces of at least this many bytes can be in the file.
const LARGE: usize = 128 * 1024;
/// The part of the limit by which the heap must have grown before work ends for it.
const GROWTH_PART: u64 = 16;

/// Whether new large pieces go to the file.
static SPILLING: AtomicBool = AtomicBool::new(false);
/// Bytes that large pieces may take from the heap before they go to the file, as far as is known
/// since the last look.
static ROOM: AtomicI64 = AtomicI64::new(i64::MAX / 2);
/// Whether sources are to wait.
static TIGHT: AtomicBool = AtomicBool::new(false);
/// Whether work that can be done again is to end; until somebody has taken it upon itself.
static CRITICAL: AtomicBool = AtomicBool::new(false);
/// Bytes; zero: no limit.
static LIMIT: AtomicU64 = AtomicU64::new(0);
/// Bytes of the heap, as of the last look.
static HEAP: AtomicU64 = AtomicU64::new(0);

/// What the process has of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes; None: no limit.
    pub limit: Option<u64>,
    /// Bytes of anonymous memory, a moment ago.
    pub heap: u64,
    /// Bytes of state in the file.
    pub in_file: u64,
}

/// What the process has of memory now.
pub fn usage() -> Usage {
    let limit = LIMIT.load(Ordering::Relaxed);
    Usage {
        limit: (limit > 0).then_some(limit),
        heap: HEAP.load(Ordering::Relaxed),
        in_file: arena::bytes(),
    }
}

/// Whether so little memory is left that whoever brings in new data should wait.
pub fn is_tight() -> bool {
    TIGHT.load(Ordering::Relaxed)
}

/// Whether work is to end that can be done again, and that began when the heap had `heap_before`
/// bytes. Where several ask, one of them is told so at each look at the heap; none that has not
/// lasted while it grew.
pub fn must_end(heap_before: u64) -> bool {
    if !CRITICAL.load(Ordering::Relaxed) {
        return false;
    }
    let much = LIMIT.load(Ordering::Relaxed) / GROWTH_PART;
    HEAP.load(Ordering::Relaxed) > heap_before + much && CRITICAL.swap(false, Ordering::Relaxed)
}

/// Whether large pieces go to the file: what need not be kept in memory should not be.
pub fn is_spilling() -> bool {
    SPILLING.load(Ordering::Relaxed)
}

/// mimalloc, and a file for large pieces when memory runs out.
#[derive(Debug)]
pub struct Allocator;

/// Whether a piece of `size` bytes is to be in the file; takes its room otherwise. One that grows
/// has `had` bytes of it already.
fn goes_to_file(size: usize, had: usize) -> bool {
    if size < LARGE {
        return false;
    }
    let more = size as i64 - had as i64;
    let full = SPILLING.load(Ordering::Relaxed) || ROOM.load(Ordering::Relaxed) < more;
    if !full {
        ROOM.fetch_sub(more, Ordering::Relaxed);
    }
    full
}

// SAFETY: every piece is freed by what it came from, which its address tells.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if goes_to_file(layout.size(), 0)
            && let Some(piece) = arena::alloc(layout)
        {
            return piece;
        }
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // A new piece of the file is zeros.
        if goes_to_file(layout.size(), 0)
            && let Some(piece) = arena::alloc(layout)
        {
            return piece;
        }
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if layout.size() >= LARGE && arena::holds(piece) {
            arena::free(piece, layout);
            return;
        }
        if layout.size() >= LARGE {
            ROOM.fetch_add(layout.size() as i64, Ordering::Relaxed);
        }
        unsafe { MiMalloc.dealloc(piece, layout) };
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let in_file = layout.size() >= LARGE && arena::holds(piece);
        let had = match in_file || layout.size() < LARGE {
            true => 0,
            false => layout.size(),
        };
        let to_file = goes_to_file(size, had);
        if !in_file && !to_file {
            if size < LARGE {
                ROOM.fetch_add(had as i64, Ordering::Relaxed);
            }
            return unsafe { MiMalloc.realloc(piece, layout, size) };
        }
        // SAFETY: the caller's size, rounded up, does not overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        unsafe {
            let moved = match to_file.then(|| arena::alloc(wanted)).flatten() {
                Some(moved) => moved,
                None => MiMalloc.alloc(wanted),
            };
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(piece, moved, layout.size().min(size));
                self.dealloc(piece, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

#[cfg(test)]
mod tests {
    use super::*;

    /// One test: the arena is the process's.
    #[test]
    fn large_pieces_are_in_the_file_while_memory_is_short() {
        let folder = tempfile::tempdir().unwrap();
        arena::open(folder.path(), 8 << 20).unwrap();
        assert!(arena::open(folder.path(), 1).is_err());
        let small = vec![1u8; 1000];
        let before = vec![7u64; LARGE];
        assert_eq!(arena::bytes(), 0);
        // One that leaves no room is in the file before the heap is looked at.
        ROOM.store(10 * LARGE as i64, Ordering::Relaxed);
        let mut huge = vec![1u8; 11 * LARGE];
        assert!(arena::holds(huge.as_mut_ptr()));
        let mut first = vec![1u8; 6 * LARGE];
        let mut second = vec![1u8; 6 * LARGE];
        assert!(!arena::holds(first.as_mut_ptr()) && arena::holds(second.as_mut_ptr()));
        drop((huge, first, second));
        assert_eq!(
            (arena::bytes(), ROOM.load(Ordering::Relaxed)),
            (0, 10 * LARGE as i64)
        );
        SPILLING.store(true, Ordering::Relaxed);
        let mut threads = vec![];
        for seed in 0..4u64 {
            threads.push(std::thread::spawn(move || churn(seed)));
        }
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        // A piece grows in the file, from memory into it, and back.
        let mut grown = before;
        for i in 0..4 * LARGE as u64 {
            grown.push(i);
        }
        assert!(arena::holds(grown.as_mut_ptr().cast()));
        assert!(arena::bytes() >= 5 * 8 * LARGE as u64);
        assert!(grown[..LARGE].iter().all(|v| *v == 7));
        assert!(grown[LARGE..].iter().copied().eq(0..4 * LARGE as u64));
        arena::write_out(true);
        arena::let_go();
        assert!(grown[LARGE..].iter().copied().eq(0..4 * LARGE as u64));
        SPILLING.store(false, Ordering::Relaxed);
        ROOM.store(i64::MAX / 2, Ordering::Relaxed);
        grown.truncate(LARGE);
        grown.shrink_to_fit();
        assert!(!arena::holds(grown.as_mut_ptr().cast()));
        assert!(grown.iter().all(|v| *v == 7));
        drop((grown, small));
        assert_eq!(arena::bytes(), 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// Pieces come and go; each holds what was written to it, and new ones are zeros.
    fn churn(seed: u64) {
        let mut pieces: Vec<(Vec<u64>, u64)> = vec![];
        let mut random = seed;
        for round in 0..200u64 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let words = LARGE / 8 + (random >> 40) as usize % LARGE;
            let mut piece = vec![0u64; words];
            assert!(piece.iter().all(|word| *word == 0));
            piece.fill(seed << 32 | round);
            pieces.push((piece, seed << 32 | round));
            if pieces.len() > 8 {
                let (piece, filled) = pieces.swap_remove((random >> 20) as usize % 8);
                assert!(piece.iter().all(|word| *word == filled));
            }
        }
        for (piece, filled) in pieces {
            assert!(piece.iter().all(|word| *word == filled));
        }
    }
}
