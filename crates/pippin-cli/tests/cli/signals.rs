//! Ctrl-C outside the interactive mode.

use std::io::Read;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{TinyModel, program};

/// A model that would write for a long time.
fn endless() -> TinyModel {
    let mut model = TinyModel::new();
    model.config["max_position_embeddings"] = 1_000_000.into();
    model
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    kill(pid, Signal::SIGINT).expect("sent");
}

#[test]
fn an_answer_is_cut_and_kept() {
    let model = endless();
    let mut child = program()
        .args([
            "run",
            model.write(),
            "hello",
            "--context",
            "200000",
            "--temp",
            "0",
            "--logit-bias",
            "256=-1000",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut answer = vec![0; 20];
    stdout.read_exact(&mut answer).expect("an answer begins");
    interrupt(&child);
    stdout.read_to_end(&mut answer).expect("an answer ends");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(answer.last(), Some(&b'\n'));
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn json_is_whole_also_when_it_is_interrupted() {
    let model = endless();
    let child = program()
        .args([
            "run",
            model.write(),
            "hello",
            "--context",
            "200000",
            "--json",
            "-v",
            "--logit-bias",
            "256=-1000",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("starts");
    // The model is loaded when the second line of remarks has come.
    let mut stderr = child.stderr.take().expect("piped");
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&seen).contains("loaded in") {
        stderr.read_exact(&mut byte).expect("remarks");
        seen.push(byte[0]);
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    interrupt(&child);
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(130));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["finish_reason"], "cancelled");
}

#[test]
fn waiting_for_input_can_be_interrupted() {
    let mut child = program()
        .args(["run", "--batch", "-", "-v"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    // `wait` would close it, and the end of the input is no interruption.
    let _stdin = child.stdin.take();
    let mut stderr = child.stderr.take().expect("piped");
    let mut byte = [0];
    // Something was said, so the signal is in our hands.
    stderr.read_exact(&mut byte).expect("remarks");
    interrupt(&child);
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}
