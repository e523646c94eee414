//! What is kept on disk of the shipped model's prefixes: after a restart the same answers, with less to compute; and conversations
//! in files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pippin_engine::{
    ChatSession, EngineError, GenerateParameters, KvFormat, LoadOptions, Message, ModelContainer, Numerics,
    TokenEvent,
};

/// Set where this test program is the one that is killed: the folder of its prefixes.
const VICTIM: &str = "PIPPIN_TEST_PREFIXES_OF_VICTIM";

fn options(folder: Option<&Path>) -> LoadOptions {
    LoadOptions::default().with_context(2048).with_threads(2).with_prefix_cache(folder.map(PathBuf::from))
}

fn load(options: &LoadOptions) -> ModelContainer {
    ModelContainer::load("pippin-nano", options).expect("the shipped model loads")
}

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters::greedy().with_max_tokens(max_tokens)
}

fn prompt(model: &ModelContainer, number: usize) -> Vec<u32> {
    let text = format!("Story {number}. {}", "A fox, a river and a very old tree met. ".repeat(8));
    model.encode(&text).expect("encoded")
}

fn answer(model: &ModelContainer, prompt: &[u32]) -> (Vec<u32>, usize) {
    let mut tokens = Vec::new();
    for event in model.generate_tokens(prompt.to_vec(), &greedy(16)).expect("accepted") {
        match event.expect("no error") {
            TokenEvent::Token { id, .. } => tokens.push(id),
            TokenEvent::Info(info) => return (tokens, info.cached_tokens),
            other => panic!("unexpected: {other:?}"),
        }
    }
    panic!("no end")
}

fn files(folder: &Path) -> usize {
    let list =
        |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    list(folder).filter(|path| path.is_dir()).map(|path| list(&path).count()).sum()
}

#[test]
fn a_restart_answers_alike_with_less_to_compute() {
    let folder = tempfile::tempdir().expect("a folder");
    for options in [
        options(Some(folder.path())),
        options(Some(folder.path())).with_kv_format(KvFormat::Int8),
        options(Some(folder.path())).with_numerics(Numerics::Exact),
    ] {
        let without = load(&LoadOptions { prefix_cache: None, ..options.clone() });
        let question = prompt(&without, 1);
        let expected = answer(&without, &question).0;
        // Another format and other numerics are another identity.
        assert_eq!(answer(&load(&options), &question), (expected.clone(), 0));
        let again = load(&options.clone().with_threads(1));
        assert_eq!(answer(&again, &question), (expected.clone(), (question.len() - 1) / 32 * 32));
        let longer = [&question[..], &expected, &question[..9]].concat();
        without.clear_cache().expect("alive");
        let (tokens, cached) = answer(&again, &longer);
        assert_eq!(tokens, answer(&without, &longer).0);
        assert!(cached > question.len());
    }
    let kept = std::fs::read_dir(folder.path()).expect("read").count();
    assert_eq!(kept, 3, "a folder for each identity");
}

/// Answers one prompt after the other, until it is killed.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(VICTIM) else { return };
    let model = load(&options(Some(Path::new(&folder))));
    for number in 0.. {
        answer(&model, &prompt(&model, number % 50));
    }
}

#[test]
fn a_process_that_is_killed_while_it_writes_leaves_nothing_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..3 {
        let mut victim = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let before = files(folder.path());
        // In the middle of it.
        for _ in 0..3000 {
            if files(folder.path()) >= before + 5 + round {
                break;
            }
            assert!(victim.try_wait().expect("a state").is_none(), "it ended by itself");
            std::thread::sleep(Duration::from_millis(10));
        }
        victim.kill().expect("killed");
        victim.wait().expect("ended");
        assert!(files(folder.path()) >= before + 5 + round, "it has written nothing");
    }
    let (with, without) = (load(&options(Some(folder.path()))), load(&options(None)));
    let cached: usize = (0..8)
        .map(|number| {
            let question = prompt(&with, number);
            let (tokens, cached) = answer(&with, &question);
            assert_eq!(tokens, answer(&without, &question).0, "{number}");
            cached
        })
        .sum();
    assert!(cached > 0, "something was kept");
}

#[test]
fn a_conversation_goes_on_from_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, alone) = (folder.path().join("chat.json"), folder.path().join("alone.json"));
    let questions = ["What is 17 plus 25?", "And what is the capital of France?"];
    let mut chat = ChatSession::new(load(&options(None)))
        .with_system("You are a helpful assistant who answers all questions as well as possible.")
        .with_parameters(greedy(40));
    chat.respond(questions[0]).expect("an answer");
    assert!(chat.save_with_prefix(&path).expect("saved"));
    chat.save(&alone).expect("saved");
    let messages = chat.messages();
    let expected = chat.respond(questions[1]).expect("an answer");
    let cached = chat.last_info().expect("numbers").cached_tokens;
    assert!(cached > 32);

    let next = |path: &Path, options: &LoadOptions| {
        let mut chat = ChatSession::load(load(options), path).expect("loaded");
        assert_eq!((chat.messages(), chat.parameters()), (messages.clone(), &greedy(40)));
        // Saved again before it went on.
        chat.save_with_prefix(folder.path().join("again.json")).expect("saved");
        let answer = chat.respond(questions[1]).expect("an answer");
        (answer, chat.last_info().expect("numbers").cached_tokens)
    };
    assert_eq!(next(&path, &options(None)), (expected.clone(), cached));
    assert_eq!(next(&folder.path().join("again.json"), &options(None)), (expected.clone(), cached));
    assert_eq!(next(&alone, &options(None)), (expected.clone(), 0));
    // The same conversation for another model: what was computed is of no use to it.
    let int8 = options(None).with_kv_format(KvFormat::Int8);
    assert_eq!(next(&path, &int8).1, 0);
    // A damaged prefix.
    let prefix = folder.path().join("chat.json.prefix");
    let mut bytes = std::fs::read(&prefix).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&prefix, bytes).expect("written");
    assert_eq!(next(&path, &options(None)), (expected, 0));

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for path in [&path, &prefix] {
            assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        }
    }
}

#[test]
fn files_that_are_no_conversations_say_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("chat.json");
    let model = load(&options(None));
    let error = ChatSession::load(model.clone(), &path).expect_err("no file");
    assert!(matches!(error, EngineError::SessionFile { .. }), "{error}");
    for (text, expected) in [
        ("", "line 1"),
        ("{}", "pippin_session"),
        ("[1]", "not a saved conversation"),
        ("{\"pippin_session\": 2}", "form 2"),
        ("{\"pippin_session\": 0}", "form 0"),
        ("{\"pippin_session\": 1, \"history\": [{\"content\": \"x\"}]}", "role"),
        ("{\"pippin_session\": 1, \"parameters\": {\"top_p\": 7}}", "top_p"),
        ("{\"pippin_session\": 1, \"parameters\": {\"top_q\": 7}}", "top_q"),
    ] {
        std::fs::write(&path, text).expect("written");
        let error = ChatSession::load(model.clone(), &path).expect_err(text).to_string();
        assert!(error.contains("chat.json") && error.contains(expected), "{text}: {error}");
    }
    // What is left out has its default.
    std::fs::write(&path, r#"{"pippin_session": 1, "history": [{"role": "user", "content": "x"}]}"#)
        .expect("written");
    let chat = ChatSession::load(model, &path).expect("a conversation");
    assert_eq!(chat.messages(), [Message::user("x")]);
    assert_eq!(chat.parameters(), &GenerateParameters::default());
}
