use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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

type Result<T> = std::result::Result<T, ParameterError>;

/// How to generate: sampling, penalties, limits.
///
/// The defaults are those of mlx-swift-lm. Everything beyond them is off until it is asked for.
///
/// ```
/// use pippin_sampling::GenerateParameters;
///
/// let parameters = GenerateParameters { temperature: 0.0, max_tokens: Some(100), ..Default::default() };
/// assert!(parameters.validate().is_ok());
///
/// let parameters = GenerateParameters { top_p: f32::NAN, ..Default::default() };
/// assert!(parameters.validate().unwrap_err().to_string().contains("top_p"));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
    /// Reports each token's log-probability.
    pub logprobs: bool,
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
            logprobs: false,
        }
    }
}

impl GenerateParameters {
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
        if self.stop.iter().any(String::is_empty) {
            return Err(ParameterError::new("stop", "\"\"", "a text that is not empty"));
        }
        Ok(())
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
            ("stop", |p| p.stop = vec!["ok".into(), String::new()]),
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
    }
}
