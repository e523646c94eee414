//! Vocabularies, and answers that are drawn at random under a guide's masks.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::Arc;

use pippin_grammar::{Constraint, GrammarError, Guide, Limits, Start, Vocabulary, compile};
use pippin_text::{StopTokens, Tokenizer};
use serde_json::{Map, Value, json};

/// The shipped model's folder.
pub(crate) const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pippin-nano-4bit");

pub(crate) struct Tokens {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) vocabulary: Arc<Vocabulary>,
}

impl Tokens {
    fn new(tokenizer: Tokenizer, stop: StopTokens, size: usize) -> Self {
        let vocabulary = Vocabulary::new(&tokenizer, &stop, size).expect("a vocabulary");
        Self { tokenizer, vocabulary: Arc::new(vocabulary) }
    }

    /// Those of the shipped model.
    pub(crate) fn nano() -> Self {
        let tokenizer = Tokenizer::from_dir(NANO).expect("a tokenizer");
        let stop = StopTokens::from_dir(NANO, &tokenizer).expect("stop tokens");
        let size = tokenizer.vocab_size();
        Self::new(tokenizer, stop, size)
    }

    /// One token for each byte, some words, and tokens of a model that thinks. The model has more tokens than that.
    pub(crate) fn bytes() -> Self {
        Self::bytes_with(&["<|end|>", "<think>", "</think>", "<|eot|>"], &["<|end|>", "<|eot|>"])
    }

    /// The same with these special tokens, of which some end answers.
    pub(crate) fn bytes_with(added: &[&str], ends: &[&str]) -> Self {
        let words = ["Ġthe", "\":", "true", "Ġ{", "123", "é½", "--"];
        let bytes = (0..=u8::MAX).map(character).map(String::from);
        let vocab: Map<String, Value> =
            bytes.chain(words.map(String::from)).zip(0..).map(|(token, id)| (token, json!(id))).collect();
        let first = vocab.len();
        let added: Vec<Value> = (first..).zip(added).map(|(id, token)| added_token(id, token)).collect();
        let size = first + added.len() + 33;
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "added_tokens": added,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
        });
        Self::from_json(&json, ends, size)
    }

    /// A vocabulary like SentencePiece's: words with their spaces, bytes for the rest, and a decoder that drops the first space.
    pub(crate) fn pieces() -> Self {
        let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
        let pieces = [
            "\u{2581}",
            "\u{2581}yes",
            "yes",
            "\u{2581}{",
            "{",
            "}",
            "\"",
            "a",
            "\u{2581}a",
            ":",
            "\u{2581}1",
            "1",
            "\u{2581}\u{2581}",
            "no",
            "\u{2581}no",
        ];
        let all = ["<unk>", "<s>", "</s>"]
            .map(String::from)
            .into_iter()
            .chain(bytes)
            .chain(pieces.map(String::from));
        let vocab: Map<String, Value> = all.zip(0..).map(|(token, id)| (token, json!(id))).collect();
        let added: Vec<Value> =
            ["<unk>", "<s>", "</s>"].iter().enumerate().map(|(id, token)| added_token(id, token)).collect();
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "post_processor": null, "pre_tokenizer": null,
            "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u{2581}"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": []},
        });
        Self::from_json(&json, &["</s>"], 274)
    }

    fn from_json(json: &Value, ends: &[&str], size: usize) -> Self {
        let tokenizer = Tokenizer::from_json(&json.to_string(), &Map::new()).expect("a tokenizer");
        let mut stop = StopTokens::default();
        stop.add_tokens(ends, &tokenizer).expect("stop tokens");
        Self::new(tokenizer, stop, size)
    }

    /// Whether a text is an answer, token by token. Only with the vocabulary of [`bytes`](Self::bytes), where the first 256 are bytes.
    pub(crate) fn accepts(&self, guide: &mut Guide, text: &str) -> bool {
        let end = (0..).find(|id| self.vocabulary.ends_with(*id)).expect("a stop token");
        for byte in text.bytes() {
            if guide.is_complete() || guide.accept(byte.into()).is_err() {
                return false;
            }
        }
        guide.is_complete() || guide.accept(end).is_ok()
    }

    pub(crate) fn id(&self, token: &str) -> u32 {
        self.tokenizer.token_to_id(token).expect(token)
    }

    pub(crate) fn compile(&self, constraint: &Constraint) -> Result<Guide, GrammarError> {
        compile(&self.vocabulary, constraint, Start::Now, &Limits::default())
    }

    /// Draws an answer of at most so many tokens. `None` where it is not complete by then.
    pub(crate) fn draw(&self, guide: &mut Guide, random: &mut Random, most: usize) -> Option<String> {
        self.draw_tokens(guide, random, most, true, &[])
    }

    /// The same with special tokens as text, those that end the answer apart.
    pub(crate) fn draw_all(&self, guide: &mut Guide, random: &mut Random, most: usize) -> Option<String> {
        self.draw_tokens(guide, random, most, false, &[])
    }

    /// The same with words that come where they may.
    pub(crate) fn draw_words(
        &self,
        guide: &mut Guide,
        random: &mut Random,
        words: &[&str],
    ) -> Option<String> {
        self.draw_tokens(guide, random, 400, false, words)
    }

    fn draw_tokens(
        &self,
        guide: &mut Guide,
        random: &mut Random,
        most: usize,
        skips: bool,
        words: &[&str],
    ) -> Option<String> {
        let mut answer = Vec::new();
        for _ in 0..most {
            if !words.is_empty() && random.below(2) == 0 {
                let word = words[random.below(words.len())];
                let ids = self.tokenizer.encode(word, false).expect("tokens");
                let mut ahead = guide.clone();
                if ids.iter().all(|id| !ahead.is_complete() && ahead.accept(*id).is_ok()) {
                    answer.extend(ids);
                    *guide = ahead;
                    if guide.is_complete() {
                        return Some(self.tokenizer.decode(&answer, false).expect("a text"));
                    }
                }
            }
            let mask = guide.mask().expect("a mask");
            let allowed: Vec<u32> = (0..mask.vocab() as u32).filter(|id| mask.allows(*id)).collect();
            assert!(!allowed.is_empty());
            // Where it can end, or close something, it does so soon: strings would be endless otherwise.
            let closes = |id: &&u32| {
                let token = self.tokenizer.id_to_token(**id).unwrap_or_default();
                self.tokenizer.is_special(**id) || matches!(token.as_str(), "\"" | "}" | "]" | "]}" | "\"}")
            };
            let closing: Vec<u32> = allowed.iter().filter(closes).copied().collect();
            let choices = if !closing.is_empty() && random.below(3) == 0 { &closing } else { &allowed };
            let token = choices[random.below(choices.len())];
            let is_complete = guide.accept(token).expect("an allowed token");
            let is_end = self.vocabulary.ends_with(token);
            if !(is_end || skips && self.tokenizer.is_special(token)) {
                answer.push(token);
            }
            if is_complete {
                return Some(self.tokenizer.decode(&answer, false).expect("a text"));
            }
        }
        None
    }
}

fn added_token(id: usize, token: &str) -> Value {
    json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true})
}

/// The character of a byte in GPT-2's alphabet.
fn character(byte: u8) -> char {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match is_itself(byte) {
        true => char::from(byte),
        false => {
            let place = (0..byte).filter(|byte| !is_itself(*byte)).count() as u32;
            char::from_u32(256 + place).expect("a character")
        }
    }
}

/// A small generator: enough to draw tokens without preference.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % limit as u64) as usize
    }
}

/// Whether a document satisfies a schema: what this crate supports of JSON Schema, written independently of it.
pub(crate) fn is_valid(root: &Value, schema: &Value, document: &Value) -> bool {
    let fields = match schema {
        Value::Bool(all) => return *all,
        Value::Object(fields) => fields,
        _ => panic!("a schema: {schema}"),
    };
    fields.iter().all(|(key, value)| keyword(root, schema, key, value, document))
}

fn keyword(root: &Value, schema: &Value, key: &str, value: &Value, document: &Value) -> bool {
    let list = || value.as_array().expect("a list").iter();
    let number = || value.as_f64().expect("a number");
    let is_one = |document: &Value, name: &str| match name {
        "null" => document.is_null(),
        "boolean" => document.is_boolean(),
        "string" => document.is_string(),
        "array" => document.is_array(),
        "object" => document.is_object(),
        "number" => document.is_number(),
        "integer" => document.as_f64().is_some_and(|number| number.fract() == 0.0),
        name => panic!("a type: {name}"),
    };
    let text = document.as_str();
    match key {
        "type" => match value {
            Value::String(name) => is_one(document, name),
            names => names
                .as_array()
                .expect("names")
                .iter()
                .any(|name| is_one(document, name.as_str().expect("a name"))),
        },
        "const" => is_equal(document, value),
        "enum" => list().any(|one| is_equal(one, document)),
        "anyOf" => list().any(|one| is_valid(root, one, document)),
        "oneOf" => list().filter(|one| is_valid(root, one, document)).count() == 1,
        "allOf" => list().all(|one| is_valid(root, one, document)),
        "$ref" => {
            is_valid(root, root.pointer(&value.as_str().expect("text")[1..]).expect("a target"), document)
        }
        "minimum" => document.as_f64().is_none_or(|found| found >= number()),
        "maximum" => document.as_f64().is_none_or(|found| found <= number()),
        "exclusiveMinimum" => document.as_f64().is_none_or(|found| found > number()),
        "exclusiveMaximum" => document.as_f64().is_none_or(|found| found < number()),
        "multipleOf" => document.as_f64().is_none_or(|found| {
            let times = found / number();
            (times - times.round()).abs() <= 1e-9 * times.abs().max(1.0)
        }),
        "minLength" => text.is_none_or(|text| text.chars().count() as f64 >= number()),
        "maxLength" => text.is_none_or(|text| text.chars().count() as f64 <= number()),
        "pattern" => {
            let pattern = regex::Regex::new(value.as_str().expect("a pattern")).expect("a pattern");
            text.is_none_or(|text| pattern.is_match(text))
        }
        "minItems" => document.as_array().is_none_or(|all| all.len() as f64 >= number()),
        "maxItems" => document.as_array().is_none_or(|all| all.len() as f64 <= number()),
        "prefixItems" => document
            .as_array()
            .is_none_or(|all| list().zip(all).all(|(schema, one)| is_valid(root, schema, one))),
        "items" if value.is_array() => document
            .as_array()
            .is_none_or(|all| list().zip(all).all(|(schema, one)| is_valid(root, schema, one))),
        "additionalItems" => {
            let before = schema.get("items").and_then(Value::as_array).map_or(usize::MAX, Vec::len);
            document
                .as_array()
                .is_none_or(|all| all.iter().skip(before).all(|one| is_valid(root, value, one)))
        }
        "minProperties" => document.as_object().is_none_or(|all| all.len() as f64 >= number()),
        "maxProperties" => document.as_object().is_none_or(|all| all.len() as f64 <= number()),
        "patternProperties" => document.as_object().is_none_or(|all| {
            value.as_object().expect("schemas").iter().all(|(pattern, schema)| {
                let pattern = regex::Regex::new(pattern).expect("a pattern");
                all.iter().all(|(name, one)| !pattern.is_match(name) || is_valid(root, schema, one))
            })
        }),
        "items" => {
            let before = schema.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
            document
                .as_array()
                .is_none_or(|all| all.iter().skip(before).all(|one| is_valid(root, value, one)))
        }
        "required" => document
            .as_object()
            .is_none_or(|all| list().all(|name| all.contains_key(name.as_str().expect("a name")))),
        "properties" => document.as_object().is_none_or(|all| {
            let schemas = value.as_object().expect("schemas");
            schemas.iter().all(|(name, schema)| all.get(name).is_none_or(|one| is_valid(root, schema, one)))
        }),
        "additionalProperties" => document.as_object().is_none_or(|all| {
            let known = schema.get("properties").and_then(Value::as_object);
            let patterns = schema.get("patternProperties").and_then(Value::as_object);
            let patterns: Vec<regex::Regex> = patterns
                .into_iter()
                .flat_map(Map::keys)
                .map(|one| regex::Regex::new(one).expect("a pattern"))
                .collect();
            let is_known = |name: &str| {
                known.is_some_and(|known| known.contains_key(name))
                    || patterns.iter().any(|one| one.is_match(name))
            };
            all.iter().all(|(name, one)| is_known(name) || is_valid(root, value, one))
        }),
        _ => true,
    }
}

/// Whether two values are the same to JSON Schema: numbers by what they are, not by how they are written.
fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x == y || (x.is_f64() || y.is_f64()) && x.as_f64() == y.as_f64()
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| is_equal(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(name, x)| y.get(name).is_some_and(|y| is_equal(x, y)))
        }
        (a, b) => a == b,
    }
}
