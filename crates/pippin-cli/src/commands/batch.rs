//! `pippin run --batch`: JSON lines in, JSON lines out.
//!
//! One thread reads lines, a number of them each answer one request at a time, and the calling thread writes results in
//! the order of the lines. The engine computes the requests of all threads together. What is read ahead is bounded, so a
//! file of any length takes little memory; and each result is written as soon as those before it are, so a program may
//! also write a line, wait for its answer, and write the next.

use std::io::{self, BufRead};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pippin::{GenerateParameters, ModelContainer};
use serde::Serialize;
use serde_json::Value;

use super::answer::{Collected, Detail, Details};
use super::run::{Conversation, Request, check_continued};
use crate::error::{self, CliError, Result};
use crate::exit::Exit;
use crate::input::{self, NextLine};
use crate::{output, parameters, settings};

/// A line to be answered, and where the answer goes.
type Job = (Result<String, String>, Sender<Outcome>);

/// Answers all lines.
pub(super) fn run(
    model: &ModelContainer,
    chat: &Conversation,
    parameters: &GenerateParameters,
    lines: Box<dyn BufRead + Send>,
    concurrency: usize,
    detail: Detail,
    stats: bool,
) -> Result<()> {
    let started = Instant::now();
    let (jobs, queue) = sync_channel::<Job>(concurrency);
    let (promise, results) = sync_channel::<Receiver<Outcome>>(2 * concurrency);
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..concurrency {
        let (queue, model) = (Arc::clone(&queue), model.clone());
        let (chat, parameters) = (chat.clone(), parameters.clone());
        spawn("pippin-batch", move || work(&queue, &model, &chat, &parameters, detail))?;
    }
    let (report, reading) = channel();
    spawn("pippin-lines", move || {
        let _ = report.send(read(lines, &jobs, &promise));
    })?;
    // The threads are not joined: one may wait for a line that never comes. They end with the process.

    let (mut failed, mut prompt_tokens, mut generated_tokens, mut count) = (0_usize, 0, 0, 0);
    for result in results {
        let index = count;
        count += 1;
        let outcome = result.recv().unwrap_or_else(|_| Err("the request was lost".to_owned()));
        let line = match outcome {
            Ok(answer) => {
                prompt_tokens += answer.prompt_tokens;
                generated_tokens += answer.generated_tokens;
                output::json_line(&Line { index, outcome: answer })
            }
            Err(error) => {
                failed += 1;
                output::json_line(&Line { index, outcome: Failure { error } })
            }
        };
        output::data(&format!("{line}\n"))?;
    }
    if let Ok(Err(error)) = reading.recv() {
        return Err(CliError::input(format!("cannot read the lines: {error}")));
    }
    if stats {
        let seconds = started.elapsed().as_secs_f64();
        output::lines(&format!(
            "  requests       {count}, {failed} of them failed\n  prompts        {prompt_tokens} tokens\n  \
             answers        {generated_tokens} tokens, {:.1} tokens/s\n  time           {seconds:.3} s",
            generated_tokens as f64 / seconds.max(1e-9)
        ));
        output::lines(&output::performance(&model.performance()));
    }
    if failed > 0 {
        output::error(&format!("{failed} of {count} requests failed"), Some("see the lines with \"error\""));
        return Err(CliError::Reported(Exit::Failure));
    }
    Ok(())
}

fn spawn(name: &str, task: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(task).map_err(pippin::EngineError::Thread)?;
    Ok(())
}

/// Hands out lines until there are no more, or nobody wants them.
fn read(
    mut lines: Box<dyn BufRead + Send>,
    jobs: &SyncSender<Job>,
    promise: &SyncSender<Receiver<Outcome>>,
) -> io::Result<()> {
    loop {
        let line = match input::line(&mut *lines)? {
            NextLine::End => return Ok(()),
            NextLine::Line(line) if line.trim().is_empty() => continue,
            NextLine::Line(line) => Ok(line),
            NextLine::Bad(problem) => Err(problem),
        };
        let (sender, receiver) = channel();
        if promise.send(receiver).is_err() || jobs.send((line, sender)).is_err() {
            return Ok(());
        }
    }
}

fn work(
    queue: &Mutex<Receiver<Job>>,
    model: &ModelContainer,
    chat: &Conversation,
    parameters: &GenerateParameters,
    detail: Detail,
) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((line, sender)) = job else { return };
        let outcome = line.and_then(|line| answer(&line, model, chat, parameters, detail));
        if sender.send(outcome).is_err() {
            return;
        }
    }
}

/// What becomes of a line.
type Outcome = Result<Answer, String>;

#[derive(Serialize)]
struct Line<T> {
    index: usize,
    #[serde(flatten)]
    outcome: T,
}

#[derive(Debug, Serialize)]
struct Answer {
    text: String,
    finish_reason: &'static str,
    prompt_tokens: usize,
    generated_tokens: usize,
    #[serde(flatten)]
    details: Details,
}

#[derive(Serialize)]
struct Failure {
    error: String,
}

fn answer(
    line: &str,
    model: &ModelContainer,
    chat: &Conversation,
    parameters: &GenerateParameters,
    detail: Detail,
) -> Outcome {
    let (request, parameters) = request(line, chat, parameters)?;
    let describe = |error: pippin::EngineError| error::describe(&error);
    let prompt = detail.prompt(&request, model).map_err(describe)?;
    let stream = request.generate(model, &parameters).map_err(describe)?;
    let parser = request.parser(model).map_err(describe)?;
    let mut answer = Collected::read(stream, model, detail, parser).map_err(describe)?;
    let info = answer.info.take().ok_or("the answer did not come to its end")?;
    let finish_reason = answer.finish_reason(&info);
    let details = answer.detail(prompt);
    Ok(Answer {
        text: answer.text,
        finish_reason,
        prompt_tokens: info.prompt_tokens,
        generated_tokens: info.generated_tokens,
        details,
    })
}

/// Reads a line: `prompt` or `messages`, perhaps `tools` and `template_args`, and any parameters.
fn request(
    line: &str,
    chat: &Conversation,
    defaults: &GenerateParameters,
) -> Result<(Request, GenerateParameters), String> {
    let object = match pippin::weights::json::parse(line.as_bytes()) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err("the line is not a JSON object".to_owned()),
        Err(error) => return Err(format!("the line is not a JSON object: {error}")),
    };
    let (mut chat, mut parameters) = (chat.clone(), defaults.clone());
    let (mut prompt, mut messages) = (None, None);
    for (name, value) in object {
        match (name.as_str(), value) {
            // As if it were not there: many programs write all the fields that they know.
            (_, Value::Null) => {}
            ("prompt", Value::String(text)) => prompt = Some(text),
            ("prompt", _) => return Err("prompt must be a string".to_owned()),
            ("messages", Value::Array(values)) => messages = Some(input::messages(values)?),
            ("messages", _) => return Err("messages must be an array".to_owned()),
            ("tools", value) => chat.input.tools = input::tools(value)?,
            ("template_args" | "chat_template_kwargs", Value::Object(object)) => {
                chat.input.template_kwargs.extend(object);
            }
            ("template_args" | "chat_template_kwargs", _) => return Err(format!("{name} must be an object")),
            // What a request to a server has, and means nothing here.
            ("model" | "user" | "metadata" | "store" | "custom_id", _) => {}
            ("stream", Value::Bool(false)) => {}
            ("n", value) if value == 1 => {}
            ("add_generation_prompt", Value::Bool(adds)) => chat.input.add_generation_prompt = adds,
            ("continue" | "continue_final_message", Value::Bool(continues)) => {
                chat.input.continue_final_message = continues
            }
            ("add_generation_prompt" | "continue" | "continue_final_message", _) => {
                return Err(format!("{name} must be true or false"));
            }
            (_, value) => parameters = parameters::set(&parameters, &name, value)?,
        }
    }
    let request = match (prompt, messages) {
        (Some(prompt), None) if chat.raw => Request::Raw(prompt),
        (Some(prompt), None) => Request::Chat(chat.with_prompt(prompt)),
        (None, Some(_)) if chat.raw => return Err("with --raw a line has a prompt, not messages".to_owned()),
        (None, Some(messages)) => {
            // The line's own instructions stand; --system is for those that have none.
            let has_system = messages.first().is_some_and(|first| first.role() == pippin::Role::System);
            let system = if has_system { None } else { chat.system.as_deref() };
            chat.input.messages = settings::with_system(messages, system);
            check_continued(&chat.input)?;
            Request::Chat(chat.input)
        }
        (Some(_), Some(_)) => return Err("a line has a prompt or messages, not both".to_owned()),
        (None, None) => return Err("the line has neither a prompt nor messages".to_owned()),
    };
    Ok((request, parameters))
}

#[cfg(test)]
mod tests {
    use pippin::Message;

    use super::*;

    fn read_line(line: &str) -> Result<(Request, GenerateParameters), String> {
        let chat = Conversation {
            system: Some("be brief".to_owned()),
            input: vec![Message::system("be brief")].into(),
            ..Conversation::default()
        };
        request(line, &chat, &GenerateParameters::greedy())
    }

    #[test]
    fn lines_become_requests() {
        let line =
            r#"{"prompt": "hi", "max_tokens": 5, "temp": 0.5, "stop": "\n", "tools": [{"name": "f"}]}"#;
        let (request, parameters) = read_line(line).expect("valid");
        assert_eq!((parameters.max_tokens, parameters.temperature), (Some(5), 0.5));
        assert_eq!(parameters.stop, ["\n"]);
        let Request::Chat(input) = request else { panic!("{request:?}") };
        assert_eq!(input.messages, [Message::system("be brief"), Message::user("hi")]);
        assert_eq!(input.tools.len(), 1);
    }

    #[test]
    fn own_instructions_win() {
        let messages = |line: &str| match read_line(line).expect("valid").0 {
            Request::Chat(input) => input.messages,
            request => panic!("{request:?}"),
        };
        let own =
            r#"{"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "hi"}]}"#;
        assert_eq!(messages(own), [Message::system("own"), Message::user("hi")]);
        let none = r#"{"messages": [{"role": "user", "content": "hi"}]}"#;
        assert_eq!(messages(none), [Message::system("be brief"), Message::user("hi")]);
    }

    #[test]
    fn null_is_absent() {
        let nulls = r#""messages": null, "tools": null, "template_args": null, "chat_template_kwargs": null, "temperature": null,
            "top_p": null, "max_tokens": null, "stop": null, "seed": null, "logit_bias": null, "top_k": null"#;
        let (_, parameters) = read_line(&format!(r#"{{"prompt": "hi", {nulls}}}"#)).expect("valid");
        assert_eq!(parameters, GenerateParameters::greedy());
        assert!(read_line(r#"{"prompt": null}"#).expect_err("no prompt").contains("neither"));
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        for (line, expected) in [
            ("", "not a JSON object"),
            ("[1]", "not a JSON object"),
            ("{}", "neither"),
            (r#"{"prompt": "a", "messages": []}"#, "not both"),
            (r#"{"prompt": 1}"#, "prompt"),
            (r#"{"prompt": "a", "temprature": 1}"#, "temprature"),
            (r#"{"prompt": "a", "temperature": -1}"#, "temperature"),
            (r#"{"prompt": "a", "max_tokens": "many"}"#, "max_tokens"),
            (r#"{"prompt": "a", "tools": {}}"#, "tools"),
            (r#"{"messages": [{"role": "user", "content": 5}]}"#, "messages[0]"),
            (r#"{"messages": 1}"#, "messages"),
        ] {
            let error = read_line(line).expect_err(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
