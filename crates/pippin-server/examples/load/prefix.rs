//! Prompts that begin alike.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::mix::client::Client;
use crate::mix::requests::{CHAT, question};
use crate::process::Process;

/// Tokens that the prompts have in common, about.
const COMMON: u64 = 1_950;
const REQUESTS: usize = 200;
/// Beginnings that are tried.
const BEGINNINGS: usize = 5;

pub(crate) fn run(program: &Path) -> Result<()> {
    let server = Process::start(program)?;
    let mut client = Client::connect(server.address)?;
    // A first request, of anything.
    ask(&mut client, "Hello!")?;
    for number in 0..BEGINNINGS {
        // Where beginnings differ, they differ from their first words on.
        let mut common = format!("Number {number}: ");
        while tokens(&mut client, &common)? < COMMON {
            let more: Vec<String> = (0..20).map(|word| format!("story {word} of {}", common.len())).collect();
            common.push_str(&more.join(", "));
        }
        let length = tokens(&mut client, &common)?;
        let (first, none) = ask(&mut client, &format!("{common} 0?"))?;
        let mut others = Vec::with_capacity(REQUESTS - 1);
        let mut least = u64::MAX;
        for request in 1..REQUESTS {
            let (time, cached) = ask(&mut client, &format!("{common} {request}?"))?;
            others.push(time);
            least = least.min(cached);
        }
        others.sort_unstable();
        let (median, last) = (others[others.len() / 2], others[others.len() - 1]);
        println!(
            "{length} tokens in common: first event after {first:.1?} ({none} tokens cached), then {median:.2?} (median of {}), {last:.2?} at most \
             (at least {least} tokens cached): {:.0} times as fast, at least {:.1}",
            others.len(),
            first.as_secs_f64() / median.as_secs_f64(),
            first.as_secs_f64() / last.as_secs_f64()
        );
    }
    Ok(())
}

/// The time to the first event with something in it, and how many tokens of the prompt needed no computing.
fn ask(client: &mut Client, text: &str) -> Result<(Duration, u64)> {
    let mut request = question(text, 2);
    request["ignore_eos"] = json!(true);
    request["stream"] = json!(true);
    request["stream_options"] = json!({"include_usage": true});
    let begin = Instant::now();
    let mut reply = client.post(CHAT, &request.to_string())?.ok()?;
    let (mut first, mut cached) = (None, 0);
    while let Some(event) = reply.event()? {
        let text = event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        if first.is_none() && !text.is_empty() {
            first = Some(begin.elapsed());
        }
        let details = &event["usage"]["prompt_tokens_details"];
        cached = details["cached_tokens"].as_u64().unwrap_or(cached);
    }
    Ok((first.ok_or("there was no text")?, cached))
}

/// The tokens of a conversation that is only this question.
fn tokens(client: &mut Client, text: &str) -> Result<u64> {
    let body = json!({"messages": [{"role": "user", "content": text}]}).to_string();
    let text = client.post("/tokenize", &body)?.text()?;
    let answer: Value = serde_json::from_str(&text)?;
    answer["count"].as_u64().ok_or_else(|| format!("no count: {answer}").into())
}
