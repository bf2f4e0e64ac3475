//! Runs plans on real workers and compares with recomputation from scratch.

mod aggregates;
mod durable;
mod evaluator;
mod harness;
mod joins;
mod lifecycle;
mod portions;
mod sources;
mod views;
