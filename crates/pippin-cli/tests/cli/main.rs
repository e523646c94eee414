//! The command line as its users see it: what it prints where, and how it ends.

mod bad_models;
mod bench;
mod run;
#[cfg(unix)]
mod signals;
mod support;
#[cfg(unix)]
mod terminal;
mod usage;
