//! A world of its own for tests: stores, disks and crashes that follow from a seed.
//!
//! ```text
//!   Checkpoints, ObjectLog ──> SimObjects ─┐
//!                                          ├──> World: one step for each call, and in each step
//!   FileLog ─────────────────> SimFolder ──┘    maybe an error, a delay, or the crash
//!                                               restart: what was not synced is lost or torn
//! ```
//!
//! All calls of one history go through one [`World`], in one thread, so the same seed makes the
//! same history.

mod disk;
mod objects;
mod world;

pub use disk::SimFolder;
pub use objects::SimObjects;
pub use world::{Crash, Faults, Random, World};

/// A fault built in on purpose, to show that a simulation finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    #[default]
    Nothing,
    /// The local log says that a record is durable before it is synced.
    AcknowledgeBeforeSync,
    /// A checkpoint's manifest is put before the runs it names.
    ManifestBeforeRuns,
}
