//! The commands: each acts on its settings.

mod answer;
mod batch;
mod bench;
mod completions;
mod config;
mod doctor;
mod ps;
mod pull;
mod recommend;
mod repl;
mod run;
mod search;
mod serve;
mod show;
mod store;
mod tokenize;

pub(crate) use answer::Detail;

use crate::args::{Args, Command};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::settings::{
    BenchSettings, PullSettings, RecommendSettings, RunSettings, SearchSettings, ServeSettings, ShowSettings,
    Surroundings, TokenizeSettings,
};

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
        Command::Serve(args) => serve::run(ServeSettings::new(args, &surroundings)?, verbose),
        Command::Tokenize(args) => tokenize::run(TokenizeSettings::new(args, &surroundings)?),
        Command::Show(args) => show::run(&ShowSettings::new(args, &surroundings)?),
        Command::Pull(args) => {
            let _interrupt = Interrupt::install();
            pull::run(&PullSettings::new(args, &surroundings)?)
        }
        Command::List(args) => store::list(&args, &surroundings.config()?),
        Command::Rm(args) => store::rm(&args, &surroundings.config()?),
        Command::Verify(args) => store::verify(&args, &surroundings.config()?),
        Command::Prune(args) => store::prune(&args, &surroundings.config()?),
        Command::Ps(args) => ps::run(&args),
        Command::Search(args) => search::run(&SearchSettings::new(args, &surroundings)?),
        Command::Recommend(args) => recommend::run(&RecommendSettings::new(args, &surroundings)?),
        Command::Config(args) => config::run(&args, &surroundings),
        Command::Bench(args) => {
            let _interrupt = Interrupt::install();
            bench::run(&BenchSettings::new(args, &surroundings)?, verbose)
        }
        Command::Doctor => doctor::run(&surroundings.config()?),
        Command::Completions(args) => completions::run(&args),
    }
}
