use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::Constraint;

/// A generation parameter out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {expected}, found {value}")]
pub struct ParameterError {
    /// The field of [`GenerateParameters`].
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub expected: &'static str,
}

impl ParameterError {
    fn new(field: &'static str, value: impl ToString, expected: &'static str) -> Self {
        Self { field, value: value.to_string(), expected }
    }
}

/// The most tokens that may be guessed ahead at once: more are hardly ever right.
const MAX_GUESSES: usize = 32;

type Result<T> = std::result::Result<T, ParameterError>;

/// How to generate: sampling, penalties, limits.
///
/// The defaults are those of mlx-swift-lm. Everything beyond them is off until it is asked for.
///
/// ```
/// use pippin_sampling::GenerateParameters;
///
/// let parameters = GenerateParameters::default().with_temperature(0.0).with_max_tokens(100);
/// assert!(parameters.validate().is_ok());
///
/// // The fields are public, so this says the same as `with_top_p`.
/// let parameters = GenerateParameters { top_p: f32::NAN, ..Default::default() };
/// assert!(parameters.validate().unwrap_err().to_string().contains("top_p"));
/// ```
///
/// In JSON a field that is absent, or null, has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct GenerateParameters {
    /// Ends the answer after this many tokens (finish reason `length`); `None`: only the context limits it. With 0 the
    /// prompt is read, which fills the cache, and nothing is generated.
    pub max_tokens: Option<usize>,
    /// Divides the logits before the draw. 0 takes the likeliest token, the lowest id of equals.
    pub temperature: f32,
    /// Keeps the smallest set of likeliest tokens that holds this share of the probability. 0 and 1 are off.
    pub top_p: f32,
    /// Keeps this many of the likeliest tokens. 0 is off.
    pub top_k: usize,
    /// Keeps tokens at least this likely relative to the likeliest. 0 is off.
    pub min_p: f32,
    /// The least number of tokens that `min_p` leaves.
    pub min_tokens_to_keep: usize,
    /// How often XTC (exclude top choices) strikes, per token. 0 is off.
    pub xtc_probability: f32,
    /// When XTC strikes, it removes all tokens more likely than this but the least likely of them; at most 0.5.
    pub xtc_threshold: f32,
    /// Divides the positive logits and multiplies the negative ones of tokens seen in the window. `None`, 0 and 1 are
    /// off.
    pub repetition_penalty: Option<f32>,
    /// How many of the last tokens, the prompt's included, the repetition penalty looks at; 0: all.
    pub repetition_context_size: usize,
    /// Subtracted once from the logits of tokens seen in the window. `None` and 0 are off.
    pub presence_penalty: Option<f32>,
    /// The window of the presence penalty; 0: all.
    pub presence_context_size: usize,
    /// Subtracted from a token's logit once for every time that it occurs in the window. `None` and 0 are off.
    pub frequency_penalty: Option<f32>,
    /// The window of the frequency penalty; 0: all.
    pub frequency_context_size: usize,
    /// Added to the logits of these token ids.
    pub logit_bias: BTreeMap<u32, f32>,
    /// The same seed gives the same text for the same prompt, whatever else runs; `None` draws one.
    pub seed: Option<u64>,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the answer and are not shown, beside the model's own.
    pub stop_token_ids: Vec<u32>,
    /// Goes on where the model would end: its own stop tokens are shown like others, and the stop strings of its
    /// configuration are text.
    pub ignore_eos: bool,
    /// Until there are so many tokens nothing that ends an answer is drawn, neither a stop token of the model's nor one of
    /// `stop_token_ids`, and stop strings that begin among them do not count. An answer that is all that its constraint asks
    /// for still ends, and where the constraint allows nothing but an end, the end comes.
    pub min_tokens: usize,
    /// Reports each token's log-probability.
    pub logprobs: bool,
    /// Reports so many of the likeliest tokens for each token, with their log-probabilities; at most 20. It needs `logprobs`.
    pub top_logprobs: usize,
    /// Reports how much of the prompt has been read, after each step.
    pub prompt_progress: bool,
    /// The most tokens that are guessed ahead at once from what the prompt and the answer so far repeat; at most 32. The answer
    /// is the same, and comes faster where it repeats much: engines compute guesses only where that has been worth
    /// it. 0 is off.
    pub prompt_lookup: usize,
    /// The most tokens that a draft model guesses ahead at once, where the model was loaded with one; at most 32, and 0 is off.
    /// The answer is the same.
    pub draft_tokens: usize,
    /// What the answer must look like. It ends where that is complete.
    pub constraint: Option<Constraint>,
    /// A marker of special tokens after which the constraint holds; what comes before is free. An empty text: it holds at once.
    /// `None`: a model that thinks before it answers may do so.
    pub constraint_after: Option<String>,
    /// How many tokens the thought may have that the answer begins with. Then it is closed in the model's own words, whose
    /// tokens are part of the answer, with a log-probability of 0. With 0 it is closed at once. It is an error for a model
    /// that does not mark its thoughts.
    pub thinking_budget: Option<usize>,
    /// Those with a higher priority go first: out of the queue, in the reading of prompts, and when one has to make way for
    /// others. Of equals, who came first. Nobody who has begun is interrupted for its sake. A prompt that is read is not
    /// put off for ever, but one that waits in the queue is, while there are always enough with a higher priority.
    pub priority: i32,
    /// Ends the answer after this time (finish reason `length`), waiting included, with what there is. Seconds in JSON.
    #[serde(with = "seconds")]
    pub max_time: Option<Duration>,
    /// Those with whom it shares what has been computed of its prompt: only requests with the same name, or, without one, others without.
    /// Whether somebody else has asked alike could otherwise be told from the time that an answer takes. At most 256 bytes.
    pub cache_namespace: Option<String>,
}

/// A duration as a number of seconds.
mod seconds {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        time.map(|time| time.as_secs_f64()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Option<Duration>, D::Error> {
        let Some(seconds) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
        let problem =
            |_| serde::de::Error::custom(format!("max_time must be a number of seconds, found {seconds}"));
        Duration::try_from_secs_f64(seconds).map(Some).map_err(problem)
    }
}

impl Serialize for GenerateParameters {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for GenerateParameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        fields.retain(|_, value| !value.is_null());
        Self::deserialize(Value::Object(fields)).map_err(serde::de::Error::custom)
    }
}

impl Default for GenerateParameters {
    fn default() -> Self {
        Self {
            max_tokens: None,
            temperature: 0.6,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            min_tokens_to_keep: 1,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repetition_penalty: None,
            repetition_context_size: 20,
            presence_penalty: None,
            presence_context_size: 20,
            frequency_penalty: None,
            frequency_context_size: 20,
            logit_bias: BTreeMap::new(),
            seed: None,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            min_tokens: 0,
            logprobs: false,
            top_logprobs: 0,
            prompt_progress: false,
            prompt_lookup: 0,
            draft_tokens: 4,
            constraint: None,
            constraint_after: None,
            thinking_budget: None,
            priority: 0,
            max_time: None,
            cache_namespace: None,
        }
    }
}

impl GenerateParameters {
    /// The most tokens that [`top_logprobs`](Self::top_logprobs) reports.
    pub const MAX_TOP_LOGPROBS: usize = 20;

    /// The most bytes of a [`cache_namespace`](Self::cache_namespace).
    const MAX_NAMESPACE: usize = 256;

    /// The likeliest token at every step.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks that every field is in its range.
    ///
    /// # Errors
    ///
    /// Names the first field that is not.
    pub fn validate(&self) -> Result<()> {
        within("temperature", self.temperature, 0.0, f32::MAX, "0 or more")?;
        within("top_p", self.top_p, 0.0, 1.0, "between 0 and 1")?;
        within("min_p", self.min_p, 0.0, 1.0, "between 0 and 1")?;
        within("xtc_probability", self.xtc_probability, 0.0, 1.0, "between 0 and 1")?;
        within("xtc_threshold", self.xtc_threshold, 0.0, 0.5, "between 0 and 0.5")?;
        if let Some(penalty) = self.repetition_penalty {
            within("repetition_penalty", penalty, 0.0, f32::MAX, "0 or more")?;
        }
        for (field, penalty) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            if let Some(penalty) = penalty {
                within(field, penalty, f32::MIN, f32::MAX, "a finite number")?;
            }
        }
        for (token, bias) in &self.logit_bias {
            if !bias.is_finite() {
                return Err(ParameterError::new("logit_bias", format!("{token}: {bias}"), "a finite number"));
            }
        }
        if self.min_tokens_to_keep == 0 {
            return Err(ParameterError::new("min_tokens_to_keep", 0, "1 or more"));
        }
        for (field, tokens) in [("prompt_lookup", self.prompt_lookup), ("draft_tokens", self.draft_tokens)] {
            if tokens > MAX_GUESSES {
                return Err(ParameterError::new(field, tokens, "between 0 and 32"));
            }
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(ParameterError::new("stop", "\"\"", "a text that is not empty"));
        }
        if self.max_tokens.is_some_and(|max_tokens| self.min_tokens > max_tokens) {
            return Err(ParameterError::new("min_tokens", self.min_tokens, "at most max_tokens"));
        }
        if self.top_logprobs > Self::MAX_TOP_LOGPROBS {
            return Err(ParameterError::new("top_logprobs", self.top_logprobs, "at most 20"));
        }
        if self.top_logprobs > 0 && !self.logprobs {
            return Err(ParameterError::new("top_logprobs", self.top_logprobs, "0 without logprobs"));
        }
        if self.ignore_eos && self.constraint.is_some() {
            return Err(ParameterError::new(
                "ignore_eos",
                true,
                "false with a constraint, which says where the answer ends",
            ));
        }
        if let (None, Some(marker)) = (&self.constraint, &self.constraint_after) {
            let value = format!("{marker:?}");
            return Err(ParameterError::new("constraint_after", value, "given together with a constraint"));
        }
        if let (Some(budget), Some("")) = (self.thinking_budget, self.constraint_after.as_deref()) {
            let expected = "left out where the constraint holds at once";
            return Err(ParameterError::new("thinking_budget", budget, expected));
        }
        if let Some(name) = &self.cache_namespace
            && !(1..=Self::MAX_NAMESPACE).contains(&name.len())
        {
            let value = format!("{} bytes long", name.len());
            return Err(ParameterError::new("cache_namespace", value, "between 1 and 256 bytes long"));
        }
        if self.max_time == Some(Duration::ZERO) {
            return Err(ParameterError::new("max_time", 0, "more than 0 seconds"));
        }
        Ok(())
    }
}

impl GenerateParameters {
    /// Ends the answer after so many tokens.
    #[must_use]
    pub fn with_max_tokens(mut self, max_tokens: impl Into<Option<usize>>) -> Self {
        self.max_tokens = max_tokens.into();
        self
    }

    /// With this temperature.
    #[must_use]
    pub fn with_temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// Keeps the likeliest tokens that hold this share of the probability.
    #[must_use]
    pub fn with_top_p(mut self, top_p: f32) -> Self {
        self.top_p = top_p;
        self
    }

    /// Keeps so many of the likeliest tokens.
    #[must_use]
    pub fn with_top_k(mut self, top_k: usize) -> Self {
        self.top_k = top_k;
        self
    }

    /// Keeps tokens at least this likely relative to the likeliest.
    #[must_use]
    pub fn with_min_p(mut self, min_p: f32) -> Self {
        self.min_p = min_p;
        self
    }

    /// With so many tokens that `min_p` leaves at least.
    #[must_use]
    pub fn with_min_tokens_to_keep(mut self, min_tokens_to_keep: usize) -> Self {
        self.min_tokens_to_keep = min_tokens_to_keep;
        self
    }

    /// Excludes tokens likelier than `threshold` but the least likely of them, in this share of the draws (XTC).
    #[must_use]
    pub fn with_xtc(mut self, probability: f32, threshold: f32) -> Self {
        (self.xtc_probability, self.xtc_threshold) = (probability, threshold);
        self
    }

    /// Divides the logits of recent tokens.
    #[must_use]
    pub fn with_repetition_penalty(mut self, repetition_penalty: impl Into<Option<f32>>) -> Self {
        self.repetition_penalty = repetition_penalty.into();
        self
    }

    /// With so many recent tokens for the repetition penalty; 0: all.
    #[must_use]
    pub fn with_repetition_context_size(mut self, repetition_context_size: usize) -> Self {
        self.repetition_context_size = repetition_context_size;
        self
    }

    /// Subtracts this from the logits of recent tokens, once.
    #[must_use]
    pub fn with_presence_penalty(mut self, presence_penalty: impl Into<Option<f32>>) -> Self {
        self.presence_penalty = presence_penalty.into();
        self
    }

    /// With so many recent tokens for the presence penalty; 0: all.
    #[must_use]
    pub fn with_presence_context_size(mut self, presence_context_size: usize) -> Self {
        self.presence_context_size = presence_context_size;
        self
    }

    /// Subtracts this from the logits of recent tokens, once for each time.
    #[must_use]
    pub fn with_frequency_penalty(mut self, frequency_penalty: impl Into<Option<f32>>) -> Self {
        self.frequency_penalty = frequency_penalty.into();
        self
    }

    /// With so many recent tokens for the frequency penalty; 0: all.
    #[must_use]
    pub fn with_frequency_context_size(mut self, frequency_context_size: usize) -> Self {
        self.frequency_context_size = frequency_context_size;
        self
    }

    /// Adds these to the logits of these token ids.
    #[must_use]
    pub fn with_logit_bias(mut self, biases: impl IntoIterator<Item = (u32, f32)>) -> Self {
        self.logit_bias = biases.into_iter().collect();
        self
    }

    /// With this seed: the same text for the same prompt.
    #[must_use]
    pub fn with_seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Ends the answer where one of these texts would begin.
    #[must_use]
    pub fn with_stop<S: Into<String>>(mut self, texts: impl IntoIterator<Item = S>) -> Self {
        self.stop = texts.into_iter().map(Into::into).collect();
        self
    }

    /// Ends the answer at one of these tokens too.
    #[must_use]
    pub fn with_stop_token_ids(mut self, tokens: impl Into<Vec<u32>>) -> Self {
        self.stop_token_ids = tokens.into();
        self
    }

    /// Goes on where the model would end, or does not.
    #[must_use]
    pub fn with_ignore_eos(mut self, ignore_eos: bool) -> Self {
        self.ignore_eos = ignore_eos;
        self
    }

    /// Does not end before there are so many tokens.
    #[must_use]
    pub fn with_min_tokens(mut self, min_tokens: usize) -> Self {
        self.min_tokens = min_tokens;
        self
    }

    /// Reports each token's log-probability, or does not.
    #[must_use]
    pub fn with_logprobs(mut self, logprobs: bool) -> Self {
        self.logprobs = logprobs;
        self
    }

    /// Reports so many of the likeliest tokens for each token.
    #[must_use]
    pub fn with_top_logprobs(mut self, top_logprobs: usize) -> Self {
        self.top_logprobs = top_logprobs;
        self
    }

    /// Reports how much of the prompt has been read, or does not.
    #[must_use]
    pub fn with_prompt_progress(mut self, prompt_progress: bool) -> Self {
        self.prompt_progress = prompt_progress;
        self
    }

    /// Guesses up to so many tokens ahead from what repeats; 0: none.
    #[must_use]
    pub fn with_prompt_lookup(mut self, prompt_lookup: usize) -> Self {
        self.prompt_lookup = prompt_lookup;
        self
    }

    /// Has a draft model guess up to so many tokens ahead; 0: none.
    #[must_use]
    pub fn with_draft_tokens(mut self, draft_tokens: usize) -> Self {
        self.draft_tokens = draft_tokens;
        self
    }

    /// With a constraint on what the answer looks like.
    #[must_use]
    pub fn with_constraint(mut self, constraint: impl Into<Option<Constraint>>) -> Self {
        self.constraint = constraint.into();
        self
    }

    /// With a marker after which the constraint holds; an empty text: at once.
    #[must_use]
    pub fn with_constraint_after(mut self, marker: impl Into<String>) -> Self {
        self.constraint_after = Some(marker.into());
        self
    }

    /// With so many tokens for the thought that the answer begins with.
    #[must_use]
    pub fn with_thinking_budget(mut self, tokens: impl Into<Option<usize>>) -> Self {
        self.thinking_budget = tokens.into();
        self
    }

    /// With this priority; a higher one goes first.
    #[must_use]
    pub fn with_priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Ends the answer after this time.
    #[must_use]
    pub fn with_max_time(mut self, max_time: impl Into<Option<Duration>>) -> Self {
        self.max_time = max_time.into();
        self
    }

    /// Shares what has been computed of its prompt only with requests of this name.
    #[must_use]
    pub fn with_cache_namespace(mut self, name: impl Into<Option<String>>) -> Self {
        self.cache_namespace = name.into();
        self
    }
}

fn within(field: &'static str, value: f32, low: f32, high: f32, expected: &'static str) -> Result<()> {
    // NaN is in no range.
    if (low..=high).contains(&value) { Ok(()) } else { Err(ParameterError::new(field, value, expected)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Break = fn(&mut GenerateParameters);

    #[test]
    fn every_bad_value_names_its_field() {
        let cases: &[(&str, Break)] = &[
            ("temperature", |p| p.temperature = -0.1),
            ("temperature", |p| p.temperature = f32::NAN),
            ("temperature", |p| p.temperature = f32::INFINITY),
            ("top_p", |p| p.top_p = 1.1),
            ("top_p", |p| p.top_p = -0.1),
            ("min_p", |p| p.min_p = f32::NAN),
            ("min_p", |p| p.min_p = 2.0),
            ("xtc_probability", |p| p.xtc_probability = -1.0),
            ("xtc_threshold", |p| p.xtc_threshold = 0.6),
            ("repetition_penalty", |p| p.repetition_penalty = Some(-1.0)),
            ("repetition_penalty", |p| p.repetition_penalty = Some(f32::NAN)),
            ("presence_penalty", |p| p.presence_penalty = Some(f32::INFINITY)),
            ("frequency_penalty", |p| p.frequency_penalty = Some(f32::NAN)),
            ("logit_bias", |p| p.logit_bias = BTreeMap::from([(3, f32::NAN)])),
            ("min_tokens_to_keep", |p| p.min_tokens_to_keep = 0),
            ("prompt_lookup", |p| p.prompt_lookup = 33),
            ("draft_tokens", |p| p.draft_tokens = 33),
            ("stop", |p| p.stop = vec!["ok".into(), String::new()]),
            ("min_tokens", |p| (p.max_tokens, p.min_tokens) = (Some(4), 5)),
            ("top_logprobs", |p| p.top_logprobs = 1),
            ("top_logprobs", |p| (p.logprobs, p.top_logprobs) = (true, 21)),
            ("ignore_eos", |p| (p.ignore_eos, p.constraint) = (true, Some(Constraint::JsonObject))),
            ("constraint_after", |p| p.constraint_after = Some(String::new())),
            ("thinking_budget", |p| {
                (p.constraint, p.constraint_after) = (Some(Constraint::JsonObject), Some(String::new()));
                p.thinking_budget = Some(5);
            }),
            ("max_time", |p| p.max_time = Some(Duration::ZERO)),
        ];
        for (field, spoil) in cases {
            let mut parameters = GenerateParameters::default();
            spoil(&mut parameters);
            let error = parameters.validate().expect_err(field);
            assert_eq!(error.field, *field, "{error}");
        }
    }

    #[test]
    fn reads_partial_json_and_refuses_unknown_fields() {
        let parameters: GenerateParameters =
            serde_json::from_str(r#"{"temperature": 0, "logit_bias": {"42": -1.5}, "stop": ["\n"]}"#)
                .expect("valid");
        assert_eq!(parameters.temperature, 0.0);
        assert_eq!(parameters.logit_bias[&42], -1.5);
        assert_eq!(parameters.top_p, 1.0);
        assert!(serde_json::from_str::<GenerateParameters>(r#"{"temprature": 0}"#).is_err());
        // Many programs write all the fields that they know.
        let Value::Object(mut nulls) = serde_json::to_value(&parameters).expect("JSON") else { panic!() };
        nulls.values_mut().for_each(|value| *value = Value::Null);
        let absent: GenerateParameters = serde_json::from_value(nulls.into()).expect("valid");
        assert_eq!(absent, GenerateParameters::default());
        let timed = r#"{"max_time": 0.25}"#;
        let timed: GenerateParameters = serde_json::from_str(timed).expect("valid");
        assert_eq!(timed.max_time, Some(Duration::from_millis(250)));
        assert_eq!(serde_json::to_value(&timed).expect("JSON")["max_time"], 0.25);
        for bad in ["-1", "1e300", "\"1s\""] {
            let read = serde_json::from_str::<GenerateParameters>(&format!("{{\"max_time\": {bad}}}"));
            assert!(read.is_err(), "{bad}");
        }
        let again: GenerateParameters =
            serde_json::from_str(&serde_json::to_string(&parameters).expect("JSON")).expect("valid");
        assert_eq!(again, parameters);
    }

    #[test]
    fn namespaces_have_names() {
        let named = |length: usize| GenerateParameters::default().with_cache_namespace("x".repeat(length));
        assert!(named(1).validate().is_ok() && named(256).validate().is_ok());
        for length in [0, 257] {
            assert!(named(length).validate().unwrap_err().to_string().contains("cache_namespace"));
        }
    }

    #[test]
    fn every_field_has_its_setter() {
        let set = GenerateParameters::default()
            .with_max_tokens(1)
            .with_temperature(0.1)
            .with_top_p(0.2)
            .with_top_k(3)
            .with_min_p(0.3)
            .with_min_tokens_to_keep(4)
            .with_xtc(0.4, 0.5)
            .with_repetition_penalty(0.6)
            .with_repetition_context_size(5)
            .with_presence_penalty(0.7)
            .with_presence_context_size(6)
            .with_frequency_penalty(0.8)
            .with_frequency_context_size(7)
            .with_logit_bias([(8, 0.9)])
            .with_seed(9)
            .with_stop(["stop"])
            .with_stop_token_ids([10])
            .with_ignore_eos(true)
            .with_min_tokens(11)
            .with_logprobs(true)
            .with_top_logprobs(12)
            .with_prompt_progress(true)
            .with_prompt_lookup(10)
            .with_draft_tokens(11)
            .with_constraint(Constraint::JsonObject)
            .with_constraint_after("</think>")
            .with_thinking_budget(13)
            .with_priority(14)
            .with_max_time(Duration::from_secs(15))
            .with_cache_namespace("tenant".to_owned());
        // All of them: a new field is missing here until it has one.
        let expected = GenerateParameters {
            max_tokens: Some(1),
            temperature: 0.1,
            top_p: 0.2,
            top_k: 3,
            min_p: 0.3,
            min_tokens_to_keep: 4,
            xtc_probability: 0.4,
            xtc_threshold: 0.5,
            repetition_penalty: Some(0.6),
            repetition_context_size: 5,
            presence_penalty: Some(0.7),
            presence_context_size: 6,
            frequency_penalty: Some(0.8),
            frequency_context_size: 7,
            logit_bias: BTreeMap::from([(8, 0.9)]),
            seed: Some(9),
            stop: vec!["stop".to_owned()],
            stop_token_ids: vec![10],
            ignore_eos: true,
            min_tokens: 11,
            logprobs: true,
            top_logprobs: 12,
            prompt_progress: true,
            prompt_lookup: 10,
            draft_tokens: 11,
            constraint: Some(Constraint::JsonObject),
            constraint_after: Some("</think>".to_owned()),
            thinking_budget: Some(13),
            priority: 14,
            max_time: Some(Duration::from_secs(15)),
            cache_namespace: Some("tenant".to_owned()),
        };
        assert_eq!(set, expected);
        assert_eq!(set.with_max_tokens(None).with_seed(None).max_tokens, None);
    }
}
