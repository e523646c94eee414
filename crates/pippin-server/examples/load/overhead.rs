//! The engine by itself, and the same through HTTP, by turns.

use std::time::{Duration, Instant};

use pippin::cache::CacheOptions;
use pippin::chat::ChatInput;
use pippin::{GenerateParameters, GenerationEvent, Message, ModelCache, ModelContainer};
use pippin_server::{Server, ServerOptions};
use serde_json::json;

use crate::Result;
use crate::mix::client::Client;
use crate::mix::requests::{CHAT, question};

const QUESTION: &str = "Tell me a story about a dog.";
/// When an answer had its first text, and its last.
struct Times {
    first: Duration,
    last: Duration,
}

impl Times {
    fn decoding(&self) -> Duration {
        self.last - self.first
    }
}

/// `pairs` answers of `tokens` tokens by each of the two.
pub(crate) fn run(model: &str, pairs: usize, tokens: usize) -> Result<()> {
    let cache = ModelCache::new(CacheOptions::default());
    let options = ServerOptions::default().with_model("pippin-nano", model);
    let server = Server::start(&cache, options)?;
    server.set_ready();
    let container = cache.get(model)?.container().clone();
    // Connected just before: one that is idle while the engine works alone may be closed.
    let http = || http(&mut Client::connect(server.address())?, tokens);
    // Both find the prompt in the cache.
    engine(&container, tokens)?;
    http()?;
    let (mut first, mut decoding, mut alone, mut served) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Neither always goes first.
        let (engine, http) = if pair % 2 == 0 {
            let engine = engine(&container, tokens)?;
            (engine, http()?)
        } else {
            let http = http()?;
            (engine(&container, tokens)?, http)
        };
        first.push((http.first.as_secs_f64() - engine.first.as_secs_f64()) * 1e3);
        decoding.push((http.decoding().as_secs_f64() / engine.decoding().as_secs_f64() - 1.0) * 1e2);
        alone.push(engine.first.as_secs_f64() * 1e3);
        served.push((tokens - 1) as f64 / engine.decoding().as_secs_f64());
    }
    println!("{model}, {pairs} pairs of {tokens} tokens:");
    println!("engine alone: first text after {} ms, {} tokens/s", quartiles(alone), quartiles(served));
    println!(
        "the server adds {} ms to the first text, {} % to decoding",
        quartiles(first),
        quartiles(decoding)
    );
    Ok(())
}

fn quartiles(mut values: Vec<f64>) -> String {
    values.sort_unstable_by(f64::total_cmp);
    let at = |part: usize| values[(values.len() - 1) * part / 4];
    format!("{:.2} ({:.2} to {:.2})", at(2), at(1), at(3))
}

fn engine(model: &ModelContainer, tokens: usize) -> Result<Times> {
    let begin = Instant::now();
    let input = ChatInput::from(vec![Message::user(QUESTION)]);
    let mut parameters = GenerateParameters::greedy().with_max_tokens(tokens);
    parameters.ignore_eos = true;
    let (mut first, mut last) = (None, begin);
    for event in model.generate(model.prepare(&input)?, &parameters)? {
        let text = match event? {
            GenerationEvent::Token { text, .. } | GenerationEvent::Chunk(text) => text,
            _ => continue,
        };
        if !text.is_empty() {
            last = Instant::now();
            first.get_or_insert(last);
        }
    }
    Ok(Times { first: first.unwrap_or(last) - begin, last: last - begin })
}

fn http(client: &mut Client, tokens: usize) -> Result<Times> {
    let mut request = question(QUESTION, tokens);
    request["stream"] = json!(true);
    request["ignore_eos"] = json!(true);
    let begin = Instant::now();
    let mut reply = client.post(CHAT, &request.to_string())?.ok()?;
    let (mut first, mut last) = (None, begin);
    while let Some(event) = reply.event()? {
        let text = event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        if !text.is_empty() {
            last = Instant::now();
            first.get_or_insert(last);
        }
    }
    Ok(Times { first: first.unwrap_or(last) - begin, last: last - begin })
}
