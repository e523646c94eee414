//! `pippin`: runs MLX-format language models from the command line.
//!
//! What a user types goes through three stages. [`args`] only describes the syntax. [`settings`] turns its raw values
//! into decisions, once: which model, which of the ways to run, which parameters. The [`commands`] act on settings and
//! know nothing of flags. Everything that a model can do is the `pippin` crate's; this one holds the conversation with
//! the person: prompts, answers, errors, exit codes.
//!
//! Two rules hold everywhere. Standard output carries what was asked for and nothing else; all else goes to standard
//! error ([`output`]). And no input may cause a panic: flags, files, pipes and models end in a [`CliError`](error::CliError) with an exit
//! code of its kind ([`exit`]).

mod args;
mod browser;
mod commands;
mod env;
mod error;
mod exit;
mod flags;
mod input;
mod interrupt;
mod machine;
mod model;
mod output;
mod parameters;
mod progress;
mod reference;
mod settings;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::exit::Exit;

fn main() -> ExitCode {
    let exit = match Args::try_parse() {
        Ok(args) => commands::run(args).map_or_else(|error| error.report(), |()| Exit::Success),
        Err(error) => {
            // Help that nobody reads any more is no failure.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Success }
        }
    };
    exit.into()
}
