//! Which models are loaded.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Outcome, finish, program};

fn seen_from(folder: &std::path::Path) -> Command {
    let mut command = program();
    command.env("XDG_RUNTIME_DIR", folder);
    command
}

fn ps(folder: &std::path::Path, arguments: &[&str]) -> Outcome {
    finish(seen_from(folder).arg("ps").args(arguments), b"")
}

#[test]
fn a_running_process_is_listed_until_it_ends() {
    let root = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(ps(root.path(), &["--json"]).json(), Value::Array(Vec::new()));
    assert_eq!(ps(root.path(), &[]).answer().lines().count(), 1);

    let mut child = seen_from(root.path())
        .args(["run", "--batch", "-", "--max-tokens", "3"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"{\"prompt\": \"Hello\"}\n").expect("written");
    let begin = Instant::now();
    let row = loop {
        let rows = ps(root.path(), &["--json"]).json();
        // The speed follows with the next look at the numbers.
        if rows[0]["performance"]["requests"]["total"] == 1 {
            break rows[0].clone();
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "it is not listed: {rows}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!((&row["model"], &row["pid"]), (&"pippin-nano".into(), &child.id().into()));
    assert!(row["bytes"].as_u64() > Some(1_000_000) && row["context"].as_u64() > Some(0), "{row}");
    let numbers = &row["performance"];
    for key in ["load_s", "peak_memory_bytes"] {
        assert!(numbers[key].is_number(), "{key}: {row}");
    }
    for key in ["time_to_first_token_s", "prefill_tokens_per_second", "decode_tokens_per_second"] {
        assert!(numbers[key]["last"].is_number(), "{key}: {row}");
    }
    assert!(numbers["tokens"]["prompt"].as_u64() > Some(0) && numbers["tokens"]["generated"] == 3, "{row}");
    let all = ps(root.path(), &["--stats"]).answer();
    assert!(
        all.contains(&format!("pippin-nano in process {}:", child.id())) && all.contains("3 written"),
        "{all}"
    );
    let table = ps(root.path(), &[]).answer();
    assert!(
        table.starts_with("NAME") && table.contains("pippin-nano") && table.contains("in use"),
        "{table}"
    );

    drop(input);
    assert!(child.wait().expect("ends").success());
    let folder = root.path().join("pippin").join("run");
    assert_eq!(folder.read_dir().expect("exists").count(), 0, "nothing is left behind");
}

#[cfg(unix)]
#[test]
fn a_killed_process_is_not_listed() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let mut child = seen_from(root.path())
        .args(["run", "--batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let begin = Instant::now();
    while ps(root.path(), &["--json"]).json() == Value::Array(Vec::new()) {
        assert!(begin.elapsed() < Duration::from_secs(60), "it is not listed");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("killed");
    child.wait().expect("ends");
    let folder = root.path().join("pippin").join("run");
    assert!(folder.read_dir().expect("exists").count() > 0, "it had no time to tidy up");
    assert_eq!(ps(root.path(), &["--json"]).json(), Value::Array(Vec::new()));
    assert_eq!(folder.read_dir().expect("exists").count(), 0, "the leftovers are removed");
}

#[test]
fn models_beyond_the_budget_are_refused() {
    let mut command = program();
    command.env("PIPPIN_MEMORY_BUDGET", "2MB").args(["run", "Hello"]);
    finish(&mut command, b"")
        .fails(7, &["pippin-nano needs", "the memory budget is 2.0 MB"])
        .hints("memory_budget");
    // A flag wins over the variable, wherever a model is loaded.
    let budgeted = |arguments: &[&str], budget: &str, input: &[u8]| {
        let mut command = program();
        command.env("PIPPIN_MEMORY_BUDGET", "2MB").args(arguments).args(["--memory-budget", budget]);
        finish(&mut command, input)
    };
    let (run, batch) = (["run", "Hello", "--max-tokens", "2"], ["run", "--batch", "-", "--max-tokens", "2"]);
    let bench = ["bench", "-p", "8", "-n", "0", "-r", "1"];
    for (arguments, input) in [(&run[..], &b""[..]), (&batch, b"{\"prompt\": \"Hello\"}\n"), (&bench, b"")] {
        budgeted(arguments, "1GB", input).answer();
        budgeted(arguments, "3MB", input).fails(7, &["pippin-nano needs", "the memory budget is 3.0 MB"]);
    }
    budgeted(&run, "much", b"").fails(2, &["--memory-budget is \"much\""]);
    let setting = |config: &Value| {
        let settings = config["settings"].as_array().expect("a list");
        settings.iter().find(|setting| setting["key"] == "memory_budget").expect("listed").clone()
    };
    let config = setting(&budgeted(&["config", "--json"], "3 GB", b"").json());
    assert_eq!((&config["value"], &config["source"]), (&"3 GB".into(), &"--memory-budget".into()));
}
