//! The command line as its users see it: what it prints where, and how it ends.

mod bad_models;
mod bench;
mod discovery;
mod folders;
mod found;
mod gguf;
#[path = "../../../pippin-hub/tests/support/mod.rs"]
mod hub;
mod ps;
mod run;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod signals;
mod store;
mod support;
#[cfg(unix)]
mod terminal;
mod usage;
