//! The line editor of the interactive mode, and its history file.

use std::io;
use std::path::PathBuf;

use rustyline::config::{Behavior, BellStyle};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, EditMode};

use super::lines::{Line, Lines};
use crate::error::{CliError, Result};
use crate::output;

/// Entries that are kept.
const HISTORY: usize = 1000;

/// A line editor with history.
pub(super) struct Editor {
    editor: rustyline::Editor<(), FileHistory>,
    /// Where the history is kept.
    path: Option<PathBuf>,
}

impl Editor {
    /// An editor at this terminal, with the history of earlier conversations.
    ///
    /// # Errors
    ///
    /// The terminal cannot be used.
    pub(super) fn new(path: Option<PathBuf>) -> Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(|error| unusable(&error))?
            // An entry that begins with a space is not kept, as in shells.
            .history_ignore_space(true)
            .behavior(Behavior::Stdio)
            .bell_style(BellStyle::None)
            .edit_mode(EditMode::Emacs)
            .bracketed_paste(true)
            .build();
        let mut editor = rustyline::Editor::with_config(config).map_err(|error| unusable(&error))?;
        let path = path.filter(|path| match load(&mut editor, path) {
            Ok(()) => true,
            Err(error) => {
                output::note(&format!("no history is kept: cannot use {}: {error}", path.display()));
                false
            }
        });
        Ok(Self { editor, path })
    }
}

fn unusable(error: &ReadlineError) -> CliError {
    CliError::input(format!("the terminal cannot be used: {error}"))
}

/// Reads the history file. Where there is none, makes an empty one that nobody else may read: what is typed may be
/// private.
fn load(editor: &mut rustyline::Editor<(), FileHistory>, path: &PathBuf) -> rustyline::Result<()> {
    if !path.exists() {
        if let Some(folder) = path.parent() {
            private_folder(folder)?;
        }
        private_file(path)?;
        return Ok(());
    }
    editor.load_history(path)
}

#[cfg(unix)]
fn private_folder(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn private_folder(path: &std::path::Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

fn private_file(path: &std::path::Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        // Another conversation began at the same time.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome.map(drop),
    }
}

impl Lines for Editor {
    fn read(&mut self, prompt: &str) -> io::Result<Line> {
        match self.editor.readline(prompt) {
            Ok(line) => Ok(Line::Text(line)),
            Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Line::End),
            Err(ReadlineError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    }

    fn remember(&mut self, entry: &str) {
        let added = self.editor.add_history_entry(entry).unwrap_or(false);
        // At once, not at the end: a terminal that is closed takes the program with it.
        if let (true, Some(path)) = (added, &self.path)
            && let Err(error) = self.editor.append_history(path)
        {
            output::note(&format!("no history is kept: cannot write {}: {error}", path.display()));
            self.path = None;
        }
    }
}
