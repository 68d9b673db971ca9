//! Pagehand: a worker daemon that carries comment and registration tasks from a Postgres queue through headless
//! Chrome on enrolled sites, and leaves a full record of each.
//!
//! The map, from the top down; a module uses only modules below it (`tests/architecture.rs` holds it to that):

pub mod config;
pub mod failure;
pub mod record;
pub mod retry;
pub mod task;
