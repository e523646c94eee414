use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an answer must look like, whatever the model would rather say.
///
/// A sampler knows nothing of it: the engine makes it into a [`TokenMask`](super::TokenMask) for each token.
///
/// ```
/// use pippin_sampling::Constraint;
///
/// let json = serde_json::to_value(Constraint::choice(["yes", "no"]))?;
/// assert_eq!(json, serde_json::json!({"choice": ["yes", "no"]}));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Constraint {
    /// A JSON document that a JSON Schema accepts.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// A text that this regular expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text that begins with the rule `start` of a grammar in Lark's notation (EBNF with regular expressions).
    Grammar(String),
}

impl Constraint {
    /// A JSON document that a schema accepts.
    pub fn json_schema(schema: impl Into<Value>) -> Self {
        Self::JsonSchema(schema.into())
    }

    /// A text that this regular expression matches as a whole.
    pub fn regex(pattern: impl Into<String>) -> Self {
        Self::Regex(pattern.into())
    }

    /// One of these texts.
    pub fn choice<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> Self {
        Self::Choice(texts.into_iter().map(Into::into).collect())
    }

    /// A text of a grammar in Lark's notation.
    pub fn grammar(grammar: impl Into<String>) -> Self {
        Self::Grammar(grammar.into())
    }
}
