//! An answer that is held to a form.

use std::borrow::Cow;
use std::collections::VecDeque;
#[cfg(test)]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pippin_grammar::{Constraint, GrammarError, Guide, Limits, Start, Vocabulary, compile};
use pippin_sampling::TokenMask;
use pippin_text::{AnswerForm, Calls, Dialect};
use serde_json::{Value, json};

/// Looks at a JSON schema without compiling it: whether answers can be held to what it says.
///
/// # Errors
///
/// A keyword that is not supported, or too much of something, with its place.
pub fn check_schema(schema: &Value) -> Result<(), GrammarError> {
    pippin_grammar::check_schema(schema, &Limits::default())
}

use crate::{EngineError, GenerateParameters, Result, TextProcessor};

/// Constraints of a model that are kept in case that another request has the same.
const KEPT: usize = 32;
/// How long these are together, as texts. A parser takes some thousand times the memory of what it was made from.
const KEPT_BYTES: usize = 256 << 10;

/// The most tokens that may come next where what they write is the same: they are its beginnings.
const MOST_ALIKE: usize = 64;

/// The form of one answer: what may come next.
#[derive(Clone, Debug)]
pub(crate) struct Constrained {
    guide: Guide,
    mask: Arc<TokenMask>,
    /// Tokens that may come next, with the mask after each.
    ahead: VecDeque<(u32, Arc<TokenMask>)>,
    /// The mask of the next token, if it is known.
    next: Option<Arc<TokenMask>>,
}

impl Constrained {
    /// What the next token is drawn from.
    pub(crate) fn mask(&self) -> &Arc<TokenMask> {
        &self.mask
    }

    /// Takes a token that is no stop token. Returns whether the answer is complete.
    pub(crate) fn accept(&mut self, token: u32) -> Result<bool, GrammarError> {
        self.next = self.ahead.pop_front().filter(|(guess, _)| *guess == token).map(|(_, mask)| mask);
        if self.next.is_none() {
            self.ahead.clear();
        }
        self.guide.accept(token)
    }

    /// Makes the mask for the token after those that were accepted.
    pub(crate) fn advance(&mut self) -> Result<(), GrammarError> {
        self.mask = match self.next.take() {
            Some(mask) => mask,
            None => self.guide.mask()?,
        };
        Ok(())
    }

    /// The tokens that come next where there is hardly a choice.
    pub(crate) fn forced(&self) -> Vec<u32> {
        // What is written is the same only if all allowed tokens begin alike, and so many do not.
        if self.mask.count() > MOST_ALIKE { Vec::new() } else { self.guide.forced() }
    }

    /// The masks after tokens that may come next, each after those before it, up to the first that is not allowed or completes the answer.
    pub(crate) fn look_ahead(&mut self, guesses: &[u32]) -> impl Iterator<Item = &Arc<TokenMask>> {
        let known = self.ahead.iter().zip(guesses).take_while(|((token, _), guess)| token == *guess).count();
        if known < guesses.len() {
            self.ahead = guesses.iter().copied().zip(self.guide.ahead(guesses)).collect();
        }
        self.ahead.iter().take(guesses.len()).map(|(_, mask)| mask)
    }
}

/// A constraint that has been compiled for the answers to a prompt. See
/// [`ModelContainer::prepare_constraint`](crate::ModelContainer::prepare_constraint).
///
/// A clone is for another answer to the same prompt.
#[derive(Clone, Debug)]
pub struct PreparedConstraint {
    key: Key,
    constrained: Box<Constrained>,
    /// Of the model that it was made for.
    vocabulary: Arc<Vocabulary>,
}

/// What a compiled constraint depends on.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    /// As JSON, because equal schemas may differ in the order of their properties.
    constraint: String,
    start: Start,
}

impl Key {
    fn new(
        constraint: &Constraint,
        parameters: &GenerateParameters,
        prompt: &[u32],
        processor: &TextProcessor,
    ) -> Self {
        let start = match parameters.constraint_after.as_deref() {
            Some("") => Start::Now,
            Some(marker) => Start::After(marker.to_owned()),
            None => start(processor, prompt),
        };
        Self { constraint: serde_json::json!(constraint).to_string(), start }
    }
}

/// A model's vocabulary for constraints, made when the first one is put on an answer, and those that were compiled last.
#[derive(Debug, Default)]
pub(crate) struct Constraints {
    vocabulary: OnceLock<Result<Arc<Vocabulary>, GrammarError>>,
    /// Least recently used first.
    kept: Mutex<VecDeque<PreparedConstraint>>,
    #[cfg(test)]
    compiled: AtomicUsize,
}

impl Constraints {
    /// Compiles the parameters' constraint, if they have one, for answers to a prompt, or finds it among those that are kept.
    pub(crate) fn prepare(
        &self,
        parameters: &GenerateParameters,
        prompt: &[u32],
        processor: &TextProcessor,
        vocab: usize,
    ) -> Result<Option<PreparedConstraint>, GrammarError> {
        let Some(constraint) = &parameters.constraint else { return Ok(None) };
        let constraint = &in_channels(constraint, prompt, processor);
        let key = Key::new(constraint, parameters, prompt, processor);
        if let Some(known) = self.find(&key) {
            return Ok(Some(known));
        }
        let TextProcessor { tokenizer, stop_tokens, .. } = processor;
        let vocabulary =
            self.vocabulary.get_or_init(|| Vocabulary::new(tokenizer, stop_tokens, vocab).map(Arc::new));
        let vocabulary = vocabulary.as_ref().map_err(Clone::clone)?;
        #[cfg(test)]
        self.compiled.fetch_add(1, Ordering::Relaxed);
        let mut guide = compile(vocabulary, constraint, key.start.clone(), &Limits::default())?;
        let mask = guide.mask()?;
        let constrained = Box::new(Constrained { guide, mask, ahead: VecDeque::new(), next: None });
        let prepared = PreparedConstraint { key, constrained, vocabulary: Arc::clone(vocabulary) };
        self.keep(prepared.clone());
        Ok(Some(prepared))
    }

    /// What was prepared, if it was prepared for answers to this prompt by this model.
    pub(crate) fn take(
        &self,
        prepared: Option<PreparedConstraint>,
        parameters: &GenerateParameters,
        prompt: &[u32],
        processor: &TextProcessor,
    ) -> Result<Option<Box<Constrained>>> {
        let own = self.vocabulary.get().and_then(|vocabulary| vocabulary.as_ref().ok());
        let wanted = parameters.constraint.as_ref().map(|wanted| in_channels(wanted, prompt, processor));
        match (&wanted, prepared) {
            (None, None) => Ok(None),
            (Some(constraint), Some(prepared))
                if own.is_some_and(|own| Arc::ptr_eq(own, &prepared.vocabulary))
                    && prepared.key == Key::new(constraint, parameters, prompt, processor) =>
            {
                Ok(Some(prepared.constrained))
            }
            _ => Err(EngineError::parameter(
                "constraint",
                "another",
                "the one that was prepared for this prompt",
            )),
        }
    }

    fn find(&self, key: &Key) -> Option<PreparedConstraint> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|known| known.key == *key)?;
        let known = kept.remove(place)?;
        kept.push_back(known.clone());
        Some(known)
    }

    fn keep(&self, prepared: PreparedConstraint) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have compiled the same.
        kept.retain(|known| known.key != prepared.key);
        kept.push_back(prepared);
        let length = |kept: &VecDeque<PreparedConstraint>| -> usize {
            kept.iter().map(|known| known.key.constraint.len()).sum()
        };
        while kept.len() > KEPT || (kept.len() > 1 && length(&kept) > KEPT_BYTES) {
            kept.pop_front();
        }
    }

    /// How many have been compiled.
    #[cfg(test)]
    pub(crate) fn compiled(&self) -> usize {
        self.compiled.load(Ordering::Relaxed)
    }
}

/// The constraint of an answer whose model writes thoughts and answers as messages with headers (gpt-oss): there, it is for what
/// the last message says. What an answer is as a whole, calls included, is written in channels already.
fn in_channels<'a>(
    constraint: &'a Constraint,
    prompt: &[u32],
    processor: &TextProcessor,
) -> Cow<'a, Constraint> {
    let TextProcessor { tokenizer, output_format, .. } = processor;
    let form = AnswerForm { calls: Calls::Never, ..AnswerForm::default() };
    let form = match constraint {
        Constraint::JsonSchema(schema) => AnswerForm { schema: Some(schema.clone()), ..form },
        Constraint::JsonObject => AnswerForm { schema: Some(json!({"type": "object"})), ..form },
        Constraint::Regex(pattern) => AnswerForm { text: Some(regex_grammar(pattern)), ..form },
        Constraint::Choice(texts) if texts.iter().all(|text| !text.is_empty()) && !texts.is_empty() => {
            let texts: Vec<String> = texts.iter().map(|text| json!(text).to_string()).collect();
            AnswerForm { text: Some(format!("start: {}", texts.join(" | "))), ..form }
        }
        Constraint::Grammar(grammar)
            if !grammar.contains("<|channel|>") && !has_header(grammar, processor) =>
        {
            AnswerForm { text: Some(grammar.clone()), ..form }
        }
        _ => return Cow::Borrowed(constraint),
    };
    // What a header begins with is a few tokens at most.
    let end = prompt.get(prompt.len().saturating_sub(4)..).unwrap_or_default();
    let begins_in_header = output_format.dialect() == Some(Dialect::Harmony)
        && tokenizer.decode(end, false).is_ok_and(|end| end.trim_end().ends_with("<|start|>assistant"));
    if !begins_in_header {
        return Cow::Borrowed(constraint);
    }
    match form.grammar(output_format, tokenizer) {
        Some((grammar, _)) => Cow::Owned(Constraint::grammar(grammar)),
        None => Cow::Borrowed(constraint),
    }
}

/// Whether a grammar has headers of its own.
fn has_header(grammar: &str, processor: &TextProcessor) -> bool {
    let channel = processor.tokenizer.token_to_id("<|channel|>");
    channel.is_some_and(|channel| grammar.contains(&format!("<[{channel}]>")))
}

/// A grammar of what matches a regular expression as a whole.
fn regex_grammar(pattern: &str) -> String {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let is_escaped = |text: &str| (text.len() - text.trim_end_matches('\\').len()) % 2 == 1;
    let pattern = pattern.strip_suffix('$').filter(|rest| !is_escaped(rest)).unwrap_or(pattern);
    let (mut body, mut chars) = (String::with_capacity(pattern.len()), pattern.chars());
    while let Some(char) = chars.next() {
        match char {
            '\\' => {
                body.push('\\');
                body.extend(chars.next());
            }
            '/' => body.push_str("\\/"),
            '\n' => body.push_str("\\n"),
            char => body.push(char),
        }
    }
    match body.is_empty() {
        true => "start: \"\"".to_owned(),
        false => format!("start: TEXT\nTEXT: /{body}/"),
    }
}

/// Where an answer begins that may be preceded by a thought. A model thinks if its template knows of thoughts: tokens for them are
/// in many vocabularies. Only the prompt's end tells whether one has begun: whoever writes its marker into a message has not made
/// the model think.
fn start(processor: &TextProcessor, prompt: &[u32]) -> Start {
    let tokenizer = &processor.tokenizer;
    let Some([open, close]) = markers(processor) else { return start_of_marks(processor, prompt) };
    let thinks =
        processor.chat_template.as_ref().is_some_and(|template| template.source(false).contains(close));
    let is_space = |token: &u32| tokenizer.decode(&[*token], false).is_ok_and(|text| text.trim().is_empty());
    let last = prompt.iter().rev().find(|token| !is_space(token)).copied();
    let is_last = |marker: &str| last.is_some() && last == tokenizer.token_to_id(marker);
    if is_last(open) {
        Start::After(close.to_owned())
    } else if is_last(close) || !thinks {
        Start::Now
    } else {
        Start::Thought { open: open.to_owned(), close: close.to_owned() }
    }
}

/// The same for marks of several tokens (Kimi K3): a thought is begun by the prompt, or not at all.
fn start_of_marks(processor: &TextProcessor, prompt: &[u32]) -> Start {
    let TextProcessor { tokenizer, output_format, .. } = processor;
    let Some((_, close)) = output_format.reasoning_marks() else { return Start::Now };
    let ends_with_marker = || {
        let tokens = tokenizer.encode(close, false).unwrap_or_default();
        tokens.last().is_some_and(|last| tokenizer.is_marker(*last))
    };
    let end = prompt.get(prompt.len().saturating_sub(64)..).unwrap_or_default();
    let is_begun = tokenizer.decode(end, false).is_ok_and(|end| output_format.ends_in_reasoning(&end));
    if is_begun && ends_with_marker() { Start::After(close.to_owned()) } else { Start::Now }
}

/// The markers around a thought, where each of them is a token that is no text.
fn markers(processor: &TextProcessor) -> Option<[&str; 2]> {
    let TextProcessor { tokenizer, output_format, .. } = processor;
    let is_marker = |mark: &&str| tokenizer.token_to_id(mark).is_some_and(|id| tokenizer.is_marker(id));
    let others = || output_format.reasoning_marks().map(|(open, close)| [open, close]);
    tokenizer.thought_markers().or_else(|| others().filter(|marks| marks.iter().all(is_marker)))
}

#[cfg(test)]
mod tests {
    use pippin_text::{ChatTemplate, StopTokens, Tokenizer};

    use super::*;

    /// A letter, and the markers around a thought.
    fn tokenizer(open: &str, close: &str) -> Tokenizer {
        let words = ["a", open, close, "[UNK]"];
        let vocab: serde_json::Map<_, _> =
            words.iter().zip(0..).map(|(word, id)| ((*word).to_owned(), json!(id))).collect();
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" }
        });
        let config = json!({"additional_special_tokens": [open, close]});
        Tokenizer::from_json(&json.to_string(), config.as_object().expect("an object")).expect("valid")
    }

    #[test]
    fn the_marks_of_every_family_are_known() {
        for (open, close) in [("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>")] {
            let template =
                ChatTemplate::from_source("test", format!("{open}{close}")).expect("a valid template");
            let processor = TextProcessor::new(tokenizer(open, close), Some(template), StopTokens::default());
            let (open, close) = (open.to_owned(), close.to_owned());
            assert_eq!(start(&processor, &[0, 1]), Start::After(close.clone()));
            assert_eq!(start(&processor, &[1, 0, 2]), Start::Now);
            assert_eq!(start(&processor, &[0]), Start::Thought { open, close });
        }
    }

    #[test]
    fn a_document_is_what_the_last_message_of_an_answer_says() {
        let words = ["<|start|>", "assistant", "<|channel|>", "<|message|>", "<|end|>", "a", "[UNK]"];
        let vocab: serde_json::Map<_, _> =
            words.iter().zip(0..).map(|(word, id)| ((*word).to_owned(), json!(id))).collect();
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": { "type": "Fuse" },
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" }
        });
        let config = json!({"additional_special_tokens": words[..5]});
        let config = config.as_object().expect("an object");
        let tokenizer = Tokenizer::from_json(&json.to_string(), config).expect("valid");
        let template =
            ChatTemplate::from_source("test", "<|start|>assistant<|channel|>").expect("a template");
        let processor = TextProcessor::new(tokenizer, Some(template), StopTokens::default());
        let object = Constraint::JsonObject;
        let Constraint::Grammar(grammar) = in_channels(&object, &[5, 0, 1], &processor).into_owned() else {
            panic!("no grammar");
        };
        assert!(grammar.contains("(<[2]> \"final\" <[3]> answer)"), "{grammar}");
        // A text that is only continued has no messages, and what has headers of its own is left as it is.
        assert_eq!(*in_channels(&object, &[5, 5], &processor), object);
        let calls = Constraint::grammar("start: <[2]> \"commentary\"");
        assert_eq!(*in_channels(&calls, &[5, 0, 1], &processor), calls);
        for (constraint, inner) in [
            (Constraint::choice(["a", "b\"c"]), r#"start: "a" | "b\"c""#),
            (Constraint::regex(r"^a/[b/]\/\$$"), r"TEXT: /a\/[b\/]\/\$/"),
            (Constraint::grammar("start: \"a\" rest\nrest: /b+/"), "rest: /b+/"),
        ] {
            let Constraint::Grammar(grammar) = in_channels(&constraint, &[5, 0, 1], &processor).into_owned()
            else {
                panic!("no grammar");
            };
            assert!(grammar.contains(inner) && grammar.contains("<[3]> answer"), "{grammar}");
        }
        assert_eq!(*in_channels(&object, &[5, 0, 1], &crate::testing::processor()), object);
    }

    #[test]
    fn only_the_end_of_a_prompt_tells_whether_the_model_thinks() {
        let tokenizer = tokenizer("<think>", "</think>");
        let processor = |template: &str| {
            let template = ChatTemplate::from_source("test", template).expect("a valid template");
            TextProcessor::new(tokenizer.clone(), Some(template), StopTokens::default())
        };
        let thinking = processor("<think></think>{{ messages[0].content }}");
        let after = Start::After("</think>".to_owned());
        let either = Start::Thought { open: "<think>".to_owned(), close: "</think>".to_owned() };
        for (prompt, expected) in [
            (&[0, 1][..], &after),
            (&[1, 0, 2], &Start::Now),
            (&[0], &either),
            (&[1, 0], &either),
            (&[1, 0, 2, 0], &either),
            (&[], &either),
        ] {
            assert_eq!(&start(&thinking, prompt), expected, "{prompt:?}");
        }
        let plain = processor("{{ messages[0].content }}");
        assert_eq!((start(&plain, &[0]), start(&plain, &[0, 1])), (Start::Now, after));
        assert_eq!(start(&crate::testing::processor(), &[1, 2]), Start::Now);
    }
}
