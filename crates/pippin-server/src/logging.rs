use std::io::IsTerminal;

use tracing::Level;

/// Writes what servers log to standard error: a line for each request, with its id, its status and its time, and never
/// text of prompts or answers. With `is_verbose`, more of what happens. Does nothing where the program logs already.
pub fn log_to_stderr(is_verbose: bool) {
    let level = if is_verbose { Level::DEBUG } else { Level::INFO };
    // An error says that somebody else has set up logging, who shall keep it.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        )
        .with_target(false)
        .try_init();
}
