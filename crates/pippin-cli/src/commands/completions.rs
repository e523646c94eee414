//! `pippin completions`.

use clap::CommandFactory;

use crate::args::{Args, CompletionsArgs};
use crate::error::Result;
use crate::output;

/// Prints the script.
pub(super) fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "pippin", &mut script);
    output::data(&String::from_utf8_lossy(&script))?;
    Ok(())
}
