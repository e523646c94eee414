//! The budget of a thought: when it is spent, the thought is closed in the model's own words.

use std::collections::VecDeque;

use pippin_text::{Dialect, StreamDecoder};

use crate::TextProcessor;

/// What Qwen's documentation has a thought end with that is cut short.
const QWEN: &str = "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking directly now.";
/// What Seed-OSS says when its budget is spent, between marks of its own.
const SEED: &str = "<seed:cot_budget_reflect>I have exhausted my token budget, and now I will start answering the question.\
    </seed:cot_budget_reflect>\n";
/// What its template says where there is no budget at all.
const SEED_NONE: &str = "\n<seed:cot_budget_reflect>The current thinking budget is 0, so I will directly start answering the question.\
    </seed:cot_budget_reflect>\n";
/// Tokens that a thought may have beyond its budget, so that it is not closed in the middle of a character.
const SLACK: usize = 4;
/// As many tokens of the prompt as its last marker and white space may take.
const TAIL: usize = 64;

/// Follows the thought that an answer begins with, and closes it when its budget is spent.
#[derive(Debug)]
pub(crate) struct Thought {
    budget: usize,
    /// The markers before and after a thought.
    marks: [String; 2],
    decoder: StreamDecoder,
    /// The last of the text, in which a marker may be.
    text: String,
    /// Tokens of the thought.
    spent: usize,
    phase: Phase,
    /// What closes it.
    closing: VecDeque<u32>,
    /// What closes a thought that follows it, and begins the answer, where thoughts are messages with headers.
    again: VecDeque<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The answer may begin with a thought.
    Before,
    Inside,
    /// What is left of `closing` comes next.
    Closing,
    /// There was no thought, or it is closed.
    Done,
}

impl Thought {
    /// For an answer to a prompt. `None`: it is not known how the model marks its thoughts, or it has no tokens for that.
    pub(crate) fn new(
        budget: usize,
        prompt: &[u32],
        processor: &TextProcessor,
        model_type: &str,
        vocab: usize,
    ) -> Option<Self> {
        let TextProcessor { tokenizer, chat_template, output_format, .. } = processor;
        let source = chat_template.as_ref().map_or("", |template| template.source(false));
        let (open, close, words, again) = match (output_format.reasoning_marks(), output_format.dialect()) {
            (Some((open, close)), _) => {
                let [before, after] = space_around(source, close);
                let words = match model_type {
                    // Who has not thought has nothing to base a solution on.
                    kind if kind.starts_with("qwen3") && budget > 0 => QWEN,
                    kind if kind.starts_with("seed_oss") && budget > 0 => SEED,
                    kind if kind.starts_with("seed_oss") => SEED_NONE,
                    _ => "",
                };
                (open, close, format!("{words}{before}{close}{after}"), String::new())
            }
            (None, Some(Dialect::Harmony)) => {
                let (close, next) = ("<|end|>", "<|start|>assistant");
                let answer = "<|channel|>final<|message|>";
                (
                    "<|channel|>analysis<|message|>",
                    close,
                    format!("{close}{next}"),
                    format!("{close}{next}{answer}"),
                )
            }
            (None, Some(Dialect::Muse)) => {
                let (close, next) = ("<|eom|>", "<|start|>assistant");
                (
                    "to=self<|message|>",
                    close,
                    format!("{close}{next}"),
                    format!("{close}{next} to=user<|message|>"),
                )
            }
            (None, _) => return None,
        };
        let closing = tokenizer.encode(&words, false).ok()?;
        let again = if again.is_empty() { Vec::new() } else { tokenizer.encode(&again, false).ok()? };
        if closing.iter().chain(&again).any(|token| *token as usize >= vocab) {
            return None;
        }
        let tail = tokenizer.decode(&prompt[prompt.len().saturating_sub(TAIL)..], false).ok()?;
        let phase = match output_format.ends_in_reasoning(&tail) {
            true if budget == 0 => Phase::Closing,
            true => Phase::Inside,
            false => Phase::Before,
        };
        Some(Self {
            budget,
            marks: [open.to_owned(), close.to_owned()],
            decoder: StreamDecoder::new(tokenizer, false),
            text: String::new(),
            spent: 0,
            phase,
            closing: closing.into(),
            again: again.into(),
        })
    }

    /// The token that must come next, if there is one.
    pub(crate) fn forced(&self) -> Option<u32> {
        self.closing.front().copied().filter(|_| self.phase == Phase::Closing)
    }

    /// Nothing is forced any more.
    pub(crate) fn release(&mut self) {
        self.phase = Phase::Done;
    }

    /// Whether it is certain, before they are known, that after `drawn` more tokens none is forced.
    pub(crate) fn is_free(&self, drawn: usize) -> bool {
        match self.phase {
            Phase::Before | Phase::Inside => self.spent + drawn < self.budget,
            Phase::Closing => false,
            Phase::Done => true,
        }
    }

    /// Takes a token of the answer.
    pub(crate) fn accept(&mut self, token: u32) {
        match self.phase {
            Phase::Done => return,
            Phase::Closing => {
                self.closing.pop_front();
                if self.closing.is_empty() {
                    self.closing = std::mem::take(&mut self.again);
                    // Another thought has no budget left.
                    self.phase = if self.closing.is_empty() { Phase::Done } else { Phase::Before };
                    self.text.clear();
                }
                return;
            }
            Phase::Inside => self.spent += 1,
            Phase::Before => {}
        }
        // What has no text is no marker.
        let piece = self.decoder.push(token).ok().flatten();
        let is_whole = piece.is_some();
        self.text.push_str(&piece.unwrap_or_default());
        let [open, close] = &self.marks;
        if self.phase == Phase::Before {
            let begun = self.text.trim_start();
            match begun.strip_prefix(open.as_str()) {
                Some(rest) => (self.text, self.phase) = (rest.to_owned(), Phase::Inside),
                None if open.starts_with(begun) => return,
                None => return self.release(),
            }
        }
        if self.text.contains(close.as_str()) {
            return self.release();
        }
        let mut seen = self.text.len().saturating_sub(close.len());
        while !self.text.is_char_boundary(seen) {
            seen -= 1;
        }
        self.text.drain(..seen);
        if self.spent >= self.budget && (is_whole || self.spent >= self.budget.saturating_add(SLACK)) {
            self.phase = Phase::Closing;
        }
    }
}

/// The line ends that a template writes before and after a marker: the most that it writes in any place.
fn space_around(source: &str, marker: &str) -> [String; 2] {
    let (mut before, mut after) = (0, 0);
    for (at, _) in source.match_indices(marker) {
        before =
            before.max(line_ends(&source[..at], |text| text.strip_suffix("\\n").or(text.strip_suffix('\n'))));
        let rest = &source[at + marker.len()..];
        after = after.max(line_ends(rest, |text| text.strip_prefix("\\n").or(text.strip_prefix('\n'))));
    }
    [before, after].map(|count| "\n".repeat(count))
}

/// How often one can be taken away, twice at most: more is the layout of the template itself.
fn line_ends<'t>(mut text: &'t str, take: impl Fn(&'t str) -> Option<&'t str>) -> usize {
    let mut count = 0;
    while let Some(rest) = take(text).filter(|_| count < 2) {
        (text, count) = (rest, count + 1);
    }
    count
}

#[cfg(test)]
mod tests {
    use pippin_text::{ChatTemplate, StopTokens, Tokenizer};

    use super::*;

    #[test]
    fn line_ends_around_a_marker_are_those_of_the_template() {
        for (source, expected) in [
            (r"{{ '<think>\n' + thought + '\n</think>\n\n' + content }}", ["\n", "\n\n"]),
            ("{{ content.split('</think>')[-1] }}", ["", ""]),
            ("{{ '</think>' }}{% if x %}{{ '\\n</think>' }}{% endif %}", ["\n", ""]),
            ("<think>{{ thought }}\n</think>\n\n\n\n{{ content }}", ["\n", "\n\n"]),
            ("", ["", ""]),
        ] {
            assert_eq!(space_around(source, "</think>"), expected, "{source}");
        }
    }

    /// A tokenizer of whole words: markers, the letters from `a` to `e`, and those with which Qwen ends its thoughts.
    fn processor(template: &str) -> TextProcessor {
        let words =
            ["<think>", "</think>", "a", "b", "c", "[UNK]"].into_iter().chain(QWEN.split_whitespace());
        let mut vocab = serde_json::Map::new();
        for word in words {
            let id = vocab.len();
            vocab.entry(word).or_insert(id.into());
        }
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" }
        });
        let tokenizer = Tokenizer::from_json(&json.to_string(), &serde_json::Map::new()).expect("valid");
        let template = ChatTemplate::from_source("test", template).expect("a valid template");
        TextProcessor::new(tokenizer, Some(template), StopTokens::default())
    }

    const OPEN: u32 = 0;
    const CLOSE: u32 = 1;
    const A: u32 = 2;
    const B: u32 = 3;

    /// How many tokens of an answer come before the first that is forced; `None`: none is.
    fn closed_after(budget: usize, prompt: &[u32], answer: &[u32]) -> Option<usize> {
        let mut thought = Thought::new(budget, prompt, &processor(""), "llama", 64).expect("a budget");
        for (index, token) in answer.iter().enumerate() {
            // What was said of it before it came was right.
            let mut ahead = (1..=answer.len() - index).filter(|drawn| thought.is_free(*drawn));
            assert!(ahead.all(|drawn| closed_within(budget, prompt, &answer[..index + drawn]).is_none()));
            if thought.forced().is_some() {
                return Some(index);
            }
            thought.accept(*token);
        }
        thought.forced().map(|_| answer.len())
    }

    /// The same without a look ahead.
    fn closed_within(budget: usize, prompt: &[u32], answer: &[u32]) -> Option<usize> {
        let mut thought = Thought::new(budget, prompt, &processor(""), "llama", 64).expect("a budget");
        (0..=answer.len()).find(|index| {
            let is_closed = thought.forced().is_some();
            answer.get(*index).into_iter().for_each(|token| thought.accept(*token));
            is_closed
        })
    }

    #[test]
    fn the_tokens_of_a_thought_are_counted() {
        // It begins in the prompt.
        assert_eq!(closed_after(3, &[A, OPEN], &[A, B, A, B]), Some(3));
        assert_eq!(closed_after(0, &[A, OPEN], &[A]), Some(0));
        assert_eq!(closed_after(9, &[A, OPEN], &[A, B, A, B]), None);
        // It begins with the answer, or not at all.
        assert_eq!(closed_after(3, &[A], &[OPEN, A, B, A, B]), Some(4));
        assert_eq!(closed_after(0, &[A], &[OPEN, A]), Some(1));
        assert_eq!(closed_after(1, &[A], &[A, OPEN, A, B, A]), None);
        assert_eq!(closed_after(1, &[OPEN, A], &[A, B, A]), None);
        // The model closes it by itself.
        assert_eq!(closed_after(3, &[A, OPEN], &[A, B, CLOSE, A, B, A]), None);
        assert_eq!(closed_after(3, &[A], &[OPEN, A, CLOSE, A, B, A, B]), None);
    }

    #[test]
    fn a_thought_is_closed_in_the_models_own_words() {
        for (budget, model_type, expected) in [
            (4, "qwen3", QWEN.trim().to_owned() + " </think>"),
            (4, "qwen3_moe", QWEN.trim().to_owned() + " </think>"),
            (0, "qwen3", "</think>".to_owned()),
            (4, "deepseek_v3", "</think>".to_owned()),
        ] {
            let processor = processor("{{ '<think>\\n' + messages[0].content + '\\n</think>\\n\\n' }}");
            let mut thought = Thought::new(budget, &[A, OPEN], &processor, model_type, 64).expect("a budget");
            (0..budget).for_each(|_| thought.accept(A));
            let mut closing = Vec::new();
            while let Some(token) = thought.forced() {
                closing.push(token);
                thought.accept(token);
            }
            assert_eq!(processor.tokenizer.decode(&closing, false).expect("decoded"), expected);
            // And then it is over.
            [OPEN, A, A, A, A, A, A].iter().for_each(|token| thought.accept(*token));
            assert_eq!(thought.forced(), None);
        }
        assert!(Thought::new(4, &[A], &crate::testing::processor(), "qwen3", 64).is_none());
        assert!(Thought::new(4, &[A], &processor(""), "qwen3", 1).is_none());
    }

    /// A tokenizer of these words, of which the first ones are special tokens.
    fn worded(words: &[&str], special: usize, template: &str) -> TextProcessor {
        let mut vocab = serde_json::Map::new();
        for word in words.iter().chain(&["[UNK]"]) {
            let id = vocab.len();
            vocab.entry(*word).or_insert(id.into());
        }
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": { "type": "Fuse" },
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" }
        });
        let config = serde_json::json!({"additional_special_tokens": words[..special]});
        let config = config.as_object().expect("an object");
        let tokenizer = Tokenizer::from_json(&json.to_string(), config).expect("valid");
        let template = ChatTemplate::from_source("test", template).expect("a valid template");
        TextProcessor::new(tokenizer, Some(template), StopTokens::default())
    }

    /// What is forced next, one token after the other.
    fn closing(thought: &mut Thought, processor: &TextProcessor) -> String {
        let mut closing = Vec::new();
        while let Some(token) = thought.forced() {
            closing.push(token);
            thought.accept(token);
        }
        processor.tokenizer.decode(&closing, false).expect("decoded").replace(' ', "")
    }

    #[test]
    fn the_channel_of_thoughts_is_closed() {
        let words =
            ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "assistant", "analysis", "final", "a"];
        let processor = worded(&words, 4, "<|start|>assistant<|channel|>");
        let (start, channel, message, end, assistant, analysis, word) = (0, 1, 2, 3, 4, 5, 7);
        for budget in [0, 2] {
            let mut thought =
                Thought::new(budget, &[word, start, assistant], &processor, "gpt_oss", 64).expect("a budget");
            [channel, analysis, message].iter().for_each(|token| thought.accept(*token));
            for _ in 0..budget {
                assert!(thought.forced().is_none() && !thought.is_free(2));
                thought.accept(word);
            }
            // A call may follow, so what follows is the model's to say.
            assert_eq!(closing(&mut thought, &processor), "<|end|><|start|>assistant");
            // A thought may not, for there is nothing left of the budget.
            [channel, analysis].iter().for_each(|token| thought.accept(*token));
            assert_eq!(thought.forced(), None);
            thought.accept(message);
            let last = closing(&mut thought, &processor);
            assert_eq!(last, "<|end|><|start|>assistant<|channel|>final<|message|>");
            assert!(thought.is_free(100));
        }
        // An answer without a thought, and one that the model closes by itself.
        for answer in
            [vec![channel, 6, message, word, word], vec![channel, analysis, message, word, end, start]]
        {
            let mut thought =
                Thought::new(2, &[start, assistant], &processor, "gpt_oss", 64).expect("a budget");
            answer.iter().for_each(|token| thought.accept(*token));
            assert!(thought.forced().is_none() && thought.is_free(100));
        }
    }

    #[test]
    fn seed_says_that_its_budget_is_spent() {
        let words: Vec<&str> =
            ["<seed:think>", "</seed:think>", "<seed:cot_budget_reflect>", "</seed:cot_budget_reflect>"]
                .into_iter()
                .chain(
                    "I have exhausted my token budget, and now will start answering the question.".split(' '),
                )
                .chain("The current thinking budget is 0, so directly".split(' '))
                .collect();
        let processor = worded(&words, 4, "{{ '<seed:think>' }}{{ '</seed:think>' }}");
        for (budget, said) in [
            (1, "Ihaveexhaustedmytokenbudget,andnowIwillstartansweringthequestion."),
            (0, "Thecurrentthinkingbudgetis0,soIwilldirectlystartansweringthequestion."),
        ] {
            let mut thought = Thought::new(budget, &[5], &processor, "seed_oss", 64).expect("a budget");
            [0, 5].iter().take(1 + budget).for_each(|token| thought.accept(*token));
            let expected = format!("<seed:cot_budget_reflect>{said}</seed:cot_budget_reflect></seed:think>");
            assert_eq!(closing(&mut thought, &processor), expected);
        }
    }
}
