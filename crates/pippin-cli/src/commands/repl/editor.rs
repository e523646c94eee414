//! The line editor of the interactive mode, and its history file.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::config::{Behavior, BellStyle};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, EditMode, Helper};

use super::lines::{Line, Lines};
use crate::error::{CliError, Result};
use crate::output;

/// Entries that are kept.
const HISTORY: usize = 1000;

/// A line editor with history.
pub(super) struct Editor {
    editor: rustyline::Editor<Recorder, FileHistory>,
    /// Where the history is kept.
    path: Option<PathBuf>,
}

/// Knows the line that is being typed, before and behind the cursor: the editor gives it to nobody when it gives up.
#[derive(Default)]
struct Recorder(RefCell<(String, String)>);

impl Recorder {
    fn record(&self, line: &str, position: usize) {
        let (left, right) = line.split_at_checked(position).unwrap_or((line, ""));
        *self.0.borrow_mut() = (left.to_owned(), right.to_owned());
    }
}

impl Hinter for Recorder {
    type Hint = String;

    fn hint(&self, line: &str, position: usize, _: &Context<'_>) -> Option<String> {
        self.record(line, position);
        None
    }
}

impl Highlighter for Recorder {
    fn highlight_char(&self, line: &str, position: usize, _: CmdKind) -> bool {
        self.record(line, position);
        false
    }
}

impl Completer for Recorder {
    type Candidate = String;
}

impl Validator for Recorder {}

impl Helper for Recorder {}

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
        editor.set_helper(Some(Recorder::default()));
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
fn load(editor: &mut rustyline::Editor<Recorder, FileHistory>, path: &PathBuf) -> rustyline::Result<()> {
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
        let mut typed = (String::new(), String::new());
        let outcome = loop {
            if let Some(recorder) = self.editor.helper() {
                recorder.0.borrow_mut().clone_from(&typed);
            }
            match self.editor.readline_with_initial(prompt, (&typed.0, &typed.1)) {
                // A byte of another encoding. What was typed before it is kept.
                Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    if let Some(recorder) = self.editor.helper() {
                        typed = recorder.0.take();
                    }
                    typed.0.push(char::REPLACEMENT_CHARACTER);
                    output::note(
                        "\nwhat was typed is not UTF-8 and became \u{fffd}: look the line over, and the terminal's encoding",
                    );
                }
                outcome => break outcome,
            }
        };
        match outcome {
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
