//! The interactive mode, at a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::hub::Model;
use crate::store::Place;
use crate::support::{TinyModel, program};

/// How long an expected text may take to appear.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program at a terminal, and somebody who types.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(arguments: &[&str], state: &Path) -> Self {
        let mut command = program();
        command.args(arguments).env("XDG_STATE_HOME", state);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("a pseudo-terminal");
        // Clones are closed in children; a child that held this end would outlive a test that was killed.
        let keyboard = File::from(master.try_clone().expect("cloned"));
        drop(master);
        let stdio = |slave: &OwnedFd| Stdio::from(slave.try_clone().expect("cloned"));
        let child = command
            .env("TERM", "xterm")
            .stdin(stdio(&slave))
            .stdout(stdio(&slave))
            .stderr(stdio(&slave))
            .spawn()
            .expect("starts");
        drop(slave);
        let mut output = keyboard.try_clone().expect("cloned");
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Linux ends the reading of a terminal whose other end is closed with an error.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, screen, seen: String::new() }
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("typed");
    }

    /// Waits for a text, and returns what was shown up to it.
    #[track_caller]
    fn sees(&mut self, expected: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(expected) {
                let rest = self.seen.split_off(at + expected.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let wait = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(wait) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("no {expected:?} ({error}) in {:?}", self.seen),
            }
        }
    }

    fn interrupt(&self) {
        // What the terminal does when it is not in raw mode.
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("an id")), Signal::SIGINT).expect("sent");
    }

    #[track_caller]
    fn ends(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().expect("a status") {
                Some(status) => return status,
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                None => {
                    self.child.kill().expect("killed");
                    panic!("it does not end");
                }
            }
        }
    }
}

#[test]
fn a_byte_of_another_encoding_keeps_the_conversation_and_the_line() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let mut terminal = Terminal::start(&["run", "--temp", "0"], state.path());
    terminal.sees(">>> ");
    // Latin-1: the byte behind it decides that it is no UTF-8, and goes with it.
    terminal.keyboard.write_all(b"What is 17 plus\xe9  25").expect("typed");
    terminal.sees("is not UTF-8");
    terminal.sees("What is 17 plus\u{fffd}");
    terminal.types("?\r");
    terminal.sees(">>> ");
    terminal.types("What is 17 plus 25?\r");
    terminal.sees("42");
    terminal.sees(">>> ");
    terminal.types("/bye\r");
    assert!(terminal.ends().success());
}

#[test]
fn a_conversation() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let mut terminal = Terminal::start(&["run", "--temp", "0"], state.path());
    terminal.sees("/help lists the commands");
    terminal.sees(">>> ");
    terminal.types("What is 17 plus 25?\r");
    terminal.sees("17 plus 25 is 42");
    terminal.sees(">>> ");
    terminal.types("/stats\r");
    terminal.sees("finish reason  stop");
    // And the numbers of the model since it was loaded.
    terminal.sees("pippin-nano:");
    terminal.sees("requests       1");
    terminal.types("/set temp 7x\r");
    terminal.sees("error: temperature");
    terminal.types("/halp\r");
    terminal.sees("did you mean /help?");
    terminal.types("\"\"\"\r");
    terminal.sees("... ");
    terminal.types("What is the capital\rof France?\"\"\"\r");
    terminal.sees("Paris");
    terminal.sees(">>> ");
    // Ctrl-C at the prompt abandons the line, Ctrl-D ends.
    terminal.types("half a line\u{3}");
    terminal.sees("/bye ends");
    // Not before the prompt: a terminal in line mode makes something else of Ctrl-D.
    terminal.sees(">>> ");
    terminal.types("\u{4}");
    assert!(terminal.ends().success());

    let history = state.path().join("pippin/history");
    let text = std::fs::read_to_string(&history).expect("a history");
    assert!(text.contains("What is 17 plus 25?") && !text.contains("half a line"), "{text}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&history).expect("a history").permissions().mode() & 0o777, 0o600);

    // The next conversation remembers.
    let mut terminal = Terminal::start(&["run", "--temp", "0"], state.path());
    terminal.sees(">>> ");
    terminal.types("\u{1b}[A");
    terminal.sees("What is the capital");
    terminal.types("\u{3}");
    terminal.sees("/bye ends");
    terminal.sees(">>> ");
    terminal.types("/bye\r");
    assert!(terminal.ends().success());
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let mut model = TinyModel::new();
    model.config["max_position_embeddings"] = 1_000_000.into();
    let state = tempfile::tempdir().expect("a temporary folder");
    let folder = model.write();
    let arguments = ["run", folder, "--no-history", "--context", "200000", "--logit-bias", "256=-1000"];
    let mut terminal = Terminal::start(&arguments, state.path());
    terminal.sees(">>> ");
    terminal.types("hello\r");
    terminal.sees("hello");
    std::thread::sleep(Duration::from_millis(300));
    terminal.interrupt();
    let answer = terminal.sees("(stopped)");
    // Random bytes, but none that the terminal would obey; what the line editor sends comes before the answer.
    let answer = answer.rsplit("[?2004l").next().expect("the answer");
    let obeyed = |character: &char| character.is_control() && !matches!(character, '\r' | '\n' | '\t');
    assert_eq!(answer.chars().find(obeyed), None, "{answer:?}");
    terminal.sees(">>> ");
    // Between answers it does nothing.
    terminal.interrupt();
    terminal.types("/bye\r");
    assert!(terminal.ends().success());
    assert!(!state.path().join("pippin").exists());
}

#[test]
fn an_absent_model_is_downloaded_when_the_user_agrees() {
    let place = Place::new();
    let run = |answer: &str| {
        let command = place.command(&["run", "org/tiny", "hello", "--max-tokens", "2", "--stats"]);
        let mut terminal = Terminal::spawn(command);
        let question = terminal.sees("[Y/n] ");
        let bytes = place.hub.model("org/tiny").files.values().map(|file| file.content.len()).sum::<usize>();
        let size = format!("Download {:.1} kB?", bytes as f64 / 1000.0);
        assert!(
            question.contains("org/tiny is not on this machine") && question.contains(&size),
            "{question}"
        );
        terminal.types(answer);
        terminal
    };
    let mut terminal = run("n\r");
    terminal.sees("error: org/tiny (revision main) is not in the Hugging Face cache");
    terminal.sees("hint: download it first: pippin pull org/tiny");
    assert_eq!(terminal.ends().code(), Some(3));
    assert_eq!(place.hub.sent("model.safetensors"), 0);
    // Only what was typed counts as consent, and the end of the input is nothing typed.
    assert_eq!(run("nonsense\r").ends().code(), Some(3));
    assert_eq!(run("\u{4}").ends().code(), Some(3));
    assert_eq!(place.hub.sent("model.safetensors"), 0);

    let mut terminal = run("y\r");
    terminal.sees("requests       1");
    assert!(terminal.ends().success());
    // It is there now, and nobody is asked.
    let mut terminal =
        Terminal::spawn(place.command(&["run", "org/tiny", "hello", "--max-tokens", "2", "--stats"]));
    let shown = terminal.sees("requests       1");
    assert!(!shown.contains("Download"), "{shown}");
    assert!(terminal.ends().success());
}

#[test]
fn removing_a_model_is_asked_about() {
    let place = Place::new();
    let folder = place.pippin(&["pull", "org/tiny"]).answer();
    let folder = Path::new(folder.trim_end());
    for (answer, goes) in [("\r", false), ("n\r", false), ("y\r", true)] {
        let mut terminal = Terminal::spawn(place.command(&["rm", "org/tiny"]));
        assert!(terminal.sees("[y/N] ").contains("Remove org/tiny ("));
        terminal.types(answer);
        terminal.sees(if goes { "removed org/tiny" } else { "nothing was removed" });
        assert!(terminal.ends().success());
        assert_eq!(folder.exists(), !goes);
    }
}

#[test]
fn what_came_during_the_question_is_not_removed() {
    let place = Place::new();
    let folder = place.pippin(&["pull", "org/tiny"]).answer();
    let notes = Path::new(folder.trim_end()).join("notes.txt");
    let mut terminal = Terminal::spawn(place.command(&["rm", "org/tiny"]));
    terminal.sees("[y/N] ");
    std::fs::write(&notes, "written while somebody thought").expect("written");
    terminal.types("y\r");
    terminal.sees("error: org/tiny has changed in the meantime");
    terminal.sees("hint: ");
    assert_eq!(terminal.ends().code(), Some(8));
    assert!(notes.exists());
    place.pippin(&["run", "org/tiny", "hello", "--max-tokens", "2"]).answer();
}

#[test]
fn a_larger_download_than_was_shown_is_asked_about_again() {
    let place = Place::new();
    let folder = place.pippin(&["pull", "org/tiny"]).answer();
    let folder = Path::new(folder.trim_end());
    std::fs::remove_file(folder.join("config.json")).expect("removed");
    let mut terminal =
        Terminal::spawn(place.command(&["run", "org/tiny", "hello", "--max-tokens", "2", "--stats"]));
    assert!(terminal.sees("[Y/n] ").contains("Download 0 bytes?"));
    let blob = std::fs::canonicalize(folder.join("model.safetensors")).expect("there");
    std::fs::remove_file(blob).expect("removed");
    terminal.types("y\r");
    let shown = terminal.sees("[Y/n] ");
    assert!(shown.contains("removed in the meantime") && !shown.contains("Download 0 bytes"), "{shown}");
    terminal.types("y\r");
    terminal.sees("requests       1");
    assert!(terminal.ends().success());
}

#[test]
fn a_bar_shows_how_far_a_download_is() {
    let place = Place::with(Model::small(8 << 20));
    place.hub.set_rate(4 << 20);
    let mut terminal = Terminal::spawn(place.command(&["pull", "org/tiny"]));
    let bar = terminal.sees("=>");
    assert!(bar.contains("org/tiny") && bar.contains("/8.39 MB "), "{bar:?}");
    terminal.sees("MB/s");
    // In the end the bar is gone, and the folder remains.
    let end = terminal.sees("snapshots/0123456789abcdef0123456789abcdef01234567");
    let last = end.rsplit(['\r', '\n']).next().expect("a line");
    assert!(!last.contains('='), "{last:?}");
    assert!(terminal.ends().success());
}
