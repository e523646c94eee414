//! Help, flags, exit codes, completions.

use crate::support::{TinyModel, finish, pippin, pippin_with, program};

#[test]
fn help_documents_exit_codes_and_variables() {
    let help = pippin(&["--help"]).answer();
    for part in ["Exit codes:", "130  interrupted", "PIPPIN_MODEL", "NO_COLOR", "pippin-nano"] {
        assert!(help.contains(part), "{part}");
    }
    for command in ["run", "show", "bench", "completions"] {
        assert!(pippin(&[command, "--help"]).answer().contains("Usage: pippin"), "{command}");
    }
    assert!(pippin(&["--version"]).answer().starts_with("pippin "));
}

#[test]
fn wrong_usage_is_refused() {
    let outcome = pippin(&[]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    for (arguments, part) in [
        (&["run", "--no-such-flag"][..], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&["run", "a", "b", "c"], "'c'"),
        (&["run", "--temp", "nan", "x"], "--temp"),
        (&["run", "--temp", "-0.5", "x"], "--temp"),
        (&["run", "--temp", "1e400", "x"], "--temp"),
        (&["run", "--temp", "warm", "x"], "--temp"),
        (&["run", "--top-p", "1.01", "x"], "--top-p"),
        (&["run", "--top-k", "99999999999999999999999", "x"], "--top-k"),
        (&["run", "--seed", "-2", "x"], "--seed"),
        (&["run", "--max-tokens", "-2", "x"], "--max-tokens"),
        (&["run", "--context", "0", "x"], "--context"),
        (&["run", "--context", "99999999999999", "x"], "--context"),
        (&["run", "--context", "4000000000", "x"], "context of 4000000000"),
        (&["run", "--threads", "0", "x"], "--threads"),
        (&["run", "--threads", "1000000", "x"], "--threads"),
        (&["run", "--device", "gpu", "x"], "--device"),
        (&["run", "--stop", "", "x"], "--stop"),
        (&["run", "--logit-bias", "a=b", "x"], "--logit-bias"),
        (&["run", "--logit-bias", "4000000000=1", "x"], "logit_bias"),
        (&["run", "--template-args", "[]", "x"], "--template-args"),
        (&["run", "--raw", "--system", "a", "x"], "--system"),
        (&["run", "--batch", "a", "--json"], "--json"),
        (&["run", "--messages", "-", "--tools", "-"], "standard input"),
        (&["bench", "-p", "0", "-n", "0"], "nothing to measure"),
        (&["bench", "-p", "99999999999999999999"], "-p"),
        (&["bench", "-p", "8-4"], "-p"),
        (&["bench", "-r", "0"], "-r"),
        (&["bench", "-n", "100000"], "context of 100000"),
        (&["completions", "tcsh"], "tcsh"),
    ] {
        pippin(arguments).fails(2, &[part]);
    }
}

#[test]
fn harmless_extremes_are_accepted() {
    let most = usize::MAX.to_string();
    let stop = "x".repeat(10_000);
    for arguments in [
        &["--max-tokens", "0"][..],
        &["--max-tokens", "1", "--top-k", &most],
        &["--max-tokens", "1", "--repetition-penalty", "1e-30", "--repetition-context-size", &most],
        &["--max-tokens", "1", "--seed", "18446744073709551615", "--temp", "1e38"],
        &["--max-tokens", "1", "--temp", "1e-38", "--logit-bias", "5=-1e38", "--logit-bias", "6=1e38"],
        &["--max-tokens", "2", "--stop", &stop],
        &["--max-tokens", &most, "--context", "64"],
        &["--max-tokens", "1", "--threads", "64"],
    ] {
        let arguments: Vec<&str> = ["run", "pippin-nano", "Hello"].iter().chain(arguments).copied().collect();
        pippin(&arguments).answer();
    }
}

#[test]
fn models_that_are_not_here_are_not_found() {
    pippin(&["run", "no-org/no-model", "x"]).fails(3, &["no-org/no-model", "cache"]).hints("download");
    pippin(&["run", "./no/such/folder"]).fails(3, &["./no/such/folder"]).hints("spelling");
    pippin(&["run", "/no/such/folder", "x"]).fails(3, &["/no/such/folder"]);
    pippin(&["show", "qwen3-4bb"]).fails(3, &["qwen3-4bb"]).hints("qwen3-4b");
    pippin(&["bench", "no such model"]).fails(3, &["no such model"]).hints("folder");
    let mut command = program();
    command.args(["run", "Hello"]).env("PIPPIN_NANO_DIR", "/no/such/folder");
    finish(&mut command, b"").fails(3, &["/no/such/folder"]);
}

#[test]
fn devices_that_are_not_built_in_are_refused() {
    pippin(&["run", "--device", "mlx", "x"]).fails(6, &["mlx"]).hints("cpu");
    // A flag says what there is as the variable does: with numbers.
    for name in ["cuda:x", "cuda:", "CUDA", "gpu"] {
        pippin(&["run", "--device", name, "x"])
            .fails(2, &["--device", name, "auto, cpu, cuda, mlx", "cuda:1"]);
    }
}

#[test]
fn inputs_that_cannot_be_read_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, contents: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    pippin_with(&["run"], b"caf\xe9").fails(5, &["standard input", "UTF-8", "byte 3"]).hints("iconv");
    pippin(&["run"]).fails(5, &["prompt is empty"]);
    pippin(&["run", ""]).fails(5, &["prompt is empty"]);
    pippin(&["run", "--raw", ""]).fails(5, &["prompt is empty"]);
    pippin(&["run", "--messages", "/no/such.json"]).fails(5, &["/no/such.json"]);
    pippin(&["run", "--messages", &file("object", b"{}")]).fails(5, &["array of messages"]);
    pippin(&["run", "--messages", &file("number", b"[1]")]).fails(5, &["messages[0]"]);
    pippin(&["run", "--messages", &file("system", br#"[{"role": "system", "content": "x"}]"#)])
        .fails(5, &["prompt is empty"]);
    pippin(&["run", "x", "--tools", &file("broken", b"[")]).fails(5, &["broken", "JSON"]);
    pippin(&["run", "x", "--tools", &file("strings", b"[\"a\"]")]).fails(5, &["tools must be"]);
    pippin(&["run", "x", "--template-args", "{\"messages\": 1}"]).fails(5, &["messages"]);
    pippin(&["run", "--batch", "/no/such.jsonl"]).fails(5, &["/no/such.jsonl"]);
    pippin(&["run", "--batch", folder.path().to_str().expect("UTF-8")]).fails(5, &["cannot read"]);
    let deep = "[".repeat(100_000);
    pippin(&["run", "--messages", &file("deep", deep.as_bytes())]).fails(5, &["JSON"]);
}

#[test]
fn the_environment_sets_defaults_and_flags_win() {
    let model = TinyModel::new();
    let folder = model.write();
    let mut command = program();
    command.args(["run", "--json", "hi"]).env("PIPPIN_MODEL", folder).env("PIPPIN_MAX_TOKENS", "3");
    let answer = finish(&mut command, b"").json();
    assert_eq!((&answer["model"], &answer["usage"]["generated_tokens"]), (&folder.into(), &3.into()));

    let mut command = program();
    command.args(["run", "pippin-nano", "--json", "hi", "--max-tokens", "2"]);
    command.env("PIPPIN_MODEL", folder).env("PIPPIN_MAX_TOKENS", "3").env("PIPPIN_EXACT", "yes");
    let answer = finish(&mut command, b"").json();
    assert_eq!((&answer["model"], &answer["usage"]["generated_tokens"]), (&"pippin-nano".into(), &2.into()));

    let mut command = program();
    command.args(["run", "x"]).env("PIPPIN_DEVICE", "abacus");
    finish(&mut command, b"").fails(2, &["abacus"]);
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = pippin(&["completions", shell]).answer();
        assert!(script.contains("pippin") && script.contains("temp"), "{shell}");
    }
}

#[test]
fn show_describes_the_shipped_model() {
    let shown = pippin(&["show", "--json"]).json();
    assert_eq!(shown["model"], "pippin-nano");
    assert_eq!(shown["family"], "llama");
    assert_eq!(shown["quantization"]["bits"], 4);
    assert_eq!(shown["chat_template"]["supports_tools"], true);
    assert!(shown["parameters"].as_u64().is_some_and(|count| count > 1_000_000));
    assert!(shown["bits_per_weight"].as_f64().is_some_and(|bits| (4.0..6.0).contains(&bits)));
    assert!(!shown["stop_tokens"].as_array().expect("an array").is_empty());
    let files = shown["files"].as_array().expect("an array");
    assert!(
        files
            .iter()
            .any(|file| file["name"] == "model.safetensors" && file["bytes"].as_u64() > Some(1_000_000))
    );

    let text = pippin(&["show", "pippin-nano"]).answer();
    for part in ["llama", "4-bit affine", "bits per weight", "chat template", "model.safetensors"] {
        assert!(text.contains(part), "{part}");
    }
}

#[test]
fn show_prints_hostile_names_harmlessly() {
    let mut model = TinyModel::new();
    model.tokenizer["added_tokens"][0]["content"] = "<end\u{1b}[2J>".into();
    model.tokenizer_config["eos_token"] = "<end\u{1b}[2J>".into();
    let text = pippin(&["show", model.write()]).answer();
    assert!(!text.contains('\u{1b}') && text.contains("␛[2J"), "{text}");
}

#[test]
fn the_doctor_says_what_there_is_and_what_is_missing() {
    let shown = pippin(&["doctor"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let line = |name: &str| {
        let line = shown.stdout.lines().find(|line| line.trim_start().starts_with(name));
        line.unwrap_or_else(|| panic!("{name}: {shown:?}")).to_owned()
    };
    assert!(line("cpu").contains(" yes ") && line("cpu").contains("thread"), "{}", line("cpu"));
    let cuda = line("cuda");
    assert!(cuda.contains(" yes ") || cuda.contains("NVIDIA"), "{cuda}");
    let auto = line("auto");
    assert!(auto.contains(" cpu: ") != auto.contains(" cuda"), "{auto}");
    for name in ["driver", "NVRTC", "kernels"] {
        assert!(line(name).split_whitespace().count() > 1, "{}", line(name));
    }
    // A model is refused for the same reason.
    if let Some((_, problem)) = cuda.split_once(" no ") {
        pippin(&["run", "--device", "cuda", "x"]).fails(6, &[problem.trim()]).hints("cpu");
    }
    // GPUs have numbers, and nothing else has.
    pippin(&["run", "--device", "cuda:9999", "x"]).fails(6, &["cuda:9999"]).hints("cpu");
    for wrong in ["cuda:x", "cuda:", "cpu:1", "gpu"] {
        pippin(&["run", "--device", wrong, "x"]).fails(2, &[wrong, "--device"]);
    }
}
