//! Pieces of a file mapped into memory.
//!
//! The mapping is as long as a file may be, and nearly all of it a hole. A piece is a range of it:
//! its blocks are reserved on disk before it is handed out, so that a full disk is known at once
//! and not at a write to memory, and given back when it is freed. Ranges are powers of two, of
//! which only what was asked for takes up disk.

use std::alloc::Layout;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use libc::c_int;
use parking_lot::Mutex;

/// The length of the mapping, or half as much and so on where the file system allows no more.
const LENGTH: usize = 1 << 40;
const LENGTH_MIN: usize = 1 << 32;
const PAGE: usize = 4096;
/// Ranges are of 2^0 to 2^63 bytes.
const CLASSES: usize = 64;

/// How long a piece waits for another thread before it is taken from memory.
const LOCK_MAX: Duration = Duration::from_millis(10);

static ARENA: OnceLock<Arena> = OnceLock::new();
/// The address of the mapping and of its end; zeros until there is one.
static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
/// Bytes of pieces handed out.
static BYTES: AtomicU64 = AtomicU64::new(0);
/// Bytes handed out since pages were last written.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);
static UNWRITTEN_MAX: AtomicU64 = AtomicU64::new(u64::MAX);

struct Arena {
    file: File,
    ranges: Mutex<Ranges>,
}

/// Which ranges are free.
struct Ranges {
    /// Everything from here on was never handed out.
    next: usize,
    /// Offsets of ranges that were given back, by class.
    free: [Vec<usize>; CLASSES],
}

/// Maps a file without a name in `folder`. Whoever brings in new pieces waits for the disk when
/// `unwritten_max` bytes of them are not on it.
pub(crate) fn open(folder: &Path, unwritten_max: u64) -> io::Result<()> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(folder)?;
    let mut length = LENGTH;
    let start = loop {
        match map(&file, length) {
            Ok(start) => break start,
            Err(error) if length <= LENGTH_MIN => return Err(error),
            Err(_) => length /= 2,
        }
    };
    // Whether blocks can be reserved and given back here is seen before anything depends on it.
    allocate(&file, 0, 0, PAGE)?;
    punch(&file, 0, PAGE)?;
    UNWRITTEN_MAX.store(unwritten_max, Ordering::Relaxed);
    let ranges = Mutex::new(Ranges {
        next: 0,
        free: [const { vec![] }; CLASSES],
    });
    if ARENA.set(Arena { file, ranges }).is_err() {
        return Err(io::Error::other("there is a memory limit already"));
    }
    END.store(start + length, Ordering::Release);
    START.store(start, Ordering::Release);
    Ok(())
}

impl Arena {
    /// The offset of a free range of 2^`class` bytes.
    fn take(&self, class: usize) -> Option<usize> {
        // The lists of ranges are memory, too: their own growth must not wait for itself.
        let mut ranges = self.ranges.try_lock_for(LOCK_MAX)?;
        if let Some(offset) = ranges.free[class].pop() {
            return Some(offset);
        }
        let (offset, range) = (ranges.next, 1 << class);
        let mapped = END.load(Ordering::Relaxed) - START.load(Ordering::Relaxed);
        if range > mapped - offset {
            return None;
        }
        ranges.next += range;
        Some(offset)
    }
}

fn map(file: &File, length: usize) -> io::Result<usize> {
    file.set_len(length as u64)?;
    let (rights, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_NORESERVE,
    );
    // SAFETY: a new mapping of a file of this length, at an address of the system's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, rights, flags, file.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(start as usize)
}

/// Bytes of pieces handed out.
pub(crate) fn bytes() -> u64 {
    BYTES.load(Ordering::Relaxed)
}

/// Whether a piece is one of the file's.
#[inline]
pub(crate) fn holds(piece: *mut u8) -> bool {
    let address = piece as usize;
    address >= START.load(Ordering::Relaxed)
        && address < END.load(Ordering::Relaxed)
        && START.load(Ordering::Relaxed) > 0
}

fn class_of(length: usize) -> usize {
    length.next_power_of_two().trailing_zeros() as usize
}

/// A piece of zeros. None when there is no file or no space on the disk: then the piece is better
/// taken from memory.
pub(crate) fn alloc(layout: Layout) -> Option<*mut u8> {
    let arena = ARENA.get().filter(|_| layout.align() <= PAGE)?;
    let length = layout.size().checked_next_multiple_of(PAGE)?;
    let class = class_of(length);
    let offset = arena.take(class)?;
    if allocate(&arena.file, libc::FALLOC_FL_KEEP_SIZE, offset, length).is_err() {
        arena.ranges.lock().free[class].push(offset);
        return None;
    }
    BYTES.fetch_add(length as u64, Ordering::Relaxed);
    if UNWRITTEN.fetch_add(length as u64, Ordering::Relaxed) > UNWRITTEN_MAX.load(Ordering::Relaxed)
    {
        write_out(true);
    }
    Some((START.load(Ordering::Relaxed) + offset) as *mut u8)
}

/// Gives a piece back: its range, its pages and its blocks on disk.
pub(crate) fn free(piece: *mut u8, layout: Layout) {
    let (Some(arena), Some(length)) = (ARENA.get(), layout.size().checked_next_multiple_of(PAGE))
    else {
        return;
    };
    let offset = piece as usize - START.load(Ordering::Relaxed);
    BYTES.fetch_sub(length as u64, Ordering::Relaxed);
    // A range that still has old bytes is never used again: new pieces are zeros.
    if punch(&arena.file, offset, length).is_ok() {
        arena.ranges.lock().free[class_of(length)].push(offset);
    }
}

/// Writes changed pages to the disk; `wait` says whether until they are there.
pub(crate) fn write_out(wait: bool) {
    let Some(arena) = ARENA.get() else {
        return;
    };
    UNWRITTEN.store(0, Ordering::Relaxed);
    let flags = match wait {
        true => {
            libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER
        }
        false => libc::SYNC_FILE_RANGE_WRITE,
    };
    // SAFETY: a system call on our own file. That it fails changes only when pages are written.
    unsafe { libc::sync_file_range(arena.file.as_raw_fd(), 0, 0, flags) };
}

/// Takes the file's pages out of the process; they come back when they are touched.
pub(crate) fn let_go() {
    let (start, end) = (START.load(Ordering::Relaxed), END.load(Ordering::Relaxed));
    if start > 0 {
        // SAFETY: the pages of a shared mapping are the file's; dropping the mapping's hold on
        // them loses nothing.
        unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_DONTNEED) };
    }
}

fn allocate(file: &File, mode: c_int, offset: usize, length: usize) -> io::Result<()> {
    // SAFETY: a system call on our own file.
    let done = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, length as i64) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn punch(file: &File, offset: usize, length: usize) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    allocate(file, mode, offset, length)
}
