//! What masks cost: the time for each token of typical answers, over the vocabulary of a model.
//!
//! ```text
//! cargo run --release -p pippin-grammar --example mask_cost -- FOLDER [SIZE]
//! ```
//!
//! The folder holds a `tokenizer.json`; the size is the model's vocabulary, if it has more tokens than the tokenizer. An answer is
//! followed token by token as the tokenizer writes it, several times, each time with a fresh copy of the guide as requests have it; of each
//! token, the least time counts, because other programs may run.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pippin_grammar::{Constraint, Limits, Start, Vocabulary, compile};
use pippin_text::{StopTokens, Tokenizer};
use serde_json::{Value, json};

const ROUNDS: usize = 20;

fn cases() -> Vec<(&'static str, Constraint, String)> {
    let person = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "format": "email"}, "is_member": {"type": "boolean"}},
        "required": ["name", "age", "email", "is_member"], "additionalProperties": false});
    let orders = json!({"type": "object", "properties": {"orders": {"type": "array", "items": {"$ref": "#/$defs/order"}}},
        "required": ["orders"], "additionalProperties": false,
        "$defs": {"order": {"type": "object", "properties": {
            "id": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"}, "state": {"enum": ["open", "shipped", "returned"]},
            "total": {"type": "number", "minimum": 0}, "date": {"type": "string", "format": "date"},
            "note": {"anyOf": [{"type": "string", "maxLength": 200}, {"type": "null"}]}},
            "required": ["id", "state", "total", "date", "note"], "additionalProperties": false}}});
    let order = |id: &str, state: &str, note: Value| json!({"id": id, "state": state, "total": 1234.5, "date": "2026-02-28", "note": note});
    let (first, second) =
        ("The customer asks for a delivery after six o'clock, at the back door.", Value::Null);
    let document =
        json!({"orders": [order("AB-1234", "open", json!(first)), order("ZZ-0001", "returned", second)]});
    let words: Vec<String> =
        (0..500).map(|i| format!("category {i:03}: {}", ["tools", "toys", "books"][i % 3])).collect();
    let choice =
        json!({"type": "object", "properties": {"category": {"enum": words}}, "required": ["category"]});
    let free = json!({"title": "Structured output", "tags": ["json", "schema"], "depth": {"levels": [1, 2.5, -3e10], "ok": true}});
    vec![
        (
            "a flat object",
            Constraint::json_schema(person),
            json!({"name": "Ada Lovelace", "age": 36, "email": "ada@example.org", "is_member": true})
                .to_string(),
        ),
        ("a list of objects", Constraint::json_schema(orders), document.to_string()),
        ("500 choices", Constraint::json_schema(choice), json!({"category": words[321]}).to_string()),
        ("any object", Constraint::JsonObject, free.to_string()),
        (
            "any object, indented",
            Constraint::JsonObject,
            serde_json::to_string_pretty(&free).unwrap_or_default(),
        ),
        (
            "a regular expression",
            Constraint::regex(r"[A-Z][a-z]+( [A-Za-z]+){2,12}\."),
            "The quick brown fox jumps over the lazy dog.".to_owned(),
        ),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: mask_cost FOLDER [SIZE]")?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let size = arguments.next().map_or(Ok(tokenizer.vocab_size()), |size| size.parse())?;
    let stop = StopTokens::from_dir(&folder, &tokenizer)?;
    let begin = Instant::now();
    let vocabulary = Arc::new(Vocabulary::new(&tokenizer, &stop, size)?);
    println!("{size} tokens, made ready in {:.2} s; times in microseconds", begin.elapsed().as_secs_f64());
    println!("| form | compiled in | tokens | median | mean | most |");
    println!("|---|---|---|---|---|---|");
    for (name, constraint, answer) in cases() {
        let begin = Instant::now();
        let guide = compile(&vocabulary, &constraint, Start::Now, &Limits::default())?;
        let compiled = begin.elapsed();
        let tokens = tokenizer.encode(&answer, false)?;
        let mut times = vec![Duration::MAX; tokens.len()];
        for _ in 0..ROUNDS {
            let mut guide = guide.clone();
            for (token, least) in tokens.iter().zip(&mut times) {
                let begin = Instant::now();
                let is_allowed = guide.mask()?.allows(*token);
                if !is_allowed {
                    return Err(format!("{name}: token {token} is not allowed").into());
                }
                guide.accept(*token)?;
                *least = begin.elapsed().min(*least);
            }
        }
        times.sort_unstable();
        let at = |share: f64| micros(times[((times.len() - 1) as f64 * share) as usize]);
        let mean = micros(times.iter().sum::<Duration>() / times.len() as u32);
        println!(
            "| {name} | {:.0} | {} | {:.0} | {mean:.0} | {:.0} |",
            micros(compiled),
            tokens.len(),
            at(0.5),
            at(1.0)
        );
    }
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
