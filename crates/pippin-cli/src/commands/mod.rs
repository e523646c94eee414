//! The commands: each acts on its settings.

mod batch;
mod bench;
mod completions;
mod repl;
mod run;
mod show;

use crate::args::{Args, Command};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::settings::{BenchSettings, RunSettings, ShowSettings, Surroundings};

/// Runs a command.
///
/// # Errors
///
/// Whatever ends it early.
pub(crate) fn run(args: Args) -> Result<()> {
    let Args { command, verbose } = args;
    let surroundings = Surroundings::here();
    // Commands that only print need no say in what Ctrl-C does.
    match command {
        Command::Run(args) => {
            run::run(RunSettings::new(*args, &surroundings)?, verbose, &Interrupt::install())
        }
        Command::Show(args) => show::run(&ShowSettings::new(args, &surroundings)),
        Command::Bench(args) => {
            let _interrupt = Interrupt::install();
            bench::run(&BenchSettings::new(args, &surroundings)?, verbose)
        }
        Command::Completions(args) => completions::run(&args),
    }
}
