//! Whether a model thinks before it answers, and how much.

use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;

/// What a request says of thoughts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reasoning {
    is_wanted: Option<bool>,
    effort: Option<&'static str>,
}

impl Reasoning {
    /// `reasoning_effort`, and `enable_thinking` as several servers have it.
    pub(crate) fn read(fields: &mut Fields) -> ApiResult<Self> {
        let effort = fields.text("reasoning_effort")?;
        let mut reasoning = effort.as_deref().map(Self::of_effort).unwrap_or_default();
        if let Some(is_wanted) = fields.boolean("enable_thinking")? {
            reasoning.is_wanted = Some(is_wanted);
        }
        Ok(reasoning)
    }

    /// Efforts as OpenAI names them. Templates know three; what is none of them says nothing, because clients make up others.
    pub(crate) fn of_effort(effort: &str) -> Self {
        let (is_wanted, effort) = match effort {
            "none" | "minimal" => (Some(false), Some("low")),
            "low" => (None, Some("low")),
            "medium" => (None, Some("medium")),
            "high" | "xhigh" | "max" => (None, Some("high")),
            _ => (None, None),
        };
        Self { is_wanted, effort }
    }

    /// Thoughts, or none.
    pub(crate) fn wanted(is_wanted: bool) -> Self {
        Self { is_wanted: Some(is_wanted), effort: None }
    }

    /// What this says, and what the other says besides.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { is_wanted: self.is_wanted.or(other.is_wanted), effort: self.effort.or(other.effort) }
    }

    /// Tells the template, unless the request has done so itself.
    pub(crate) fn tell(&self, variables: &mut Map<String, Value>) {
        if let Some(is_wanted) = self.is_wanted {
            // By the names that templates have for it.
            for name in ["enable_thinking", "thinking"] {
                variables.entry(name).or_insert(is_wanted.into());
            }
        }
        if let Some(effort) = self.effort {
            variables.entry("reasoning_effort").or_insert(effort.into());
        }
    }
}

/// Thoughts as Anthropic's API has them: `{"type": "enabled", "budget_tokens": 1024}`. Returns the budget as well.
pub(crate) fn thinking(value: &Value) -> ApiResult<(Reasoning, Option<usize>)> {
    let wrong = |place: &str, expected: &str| Err(ApiError::field(&format!("thinking{place}"), expected));
    match value["type"].as_str() {
        Some("disabled") => Ok((Reasoning::wanted(false), None)),
        Some("adaptive") => Ok((Reasoning::default(), None)),
        Some("enabled") => match &value["budget_tokens"] {
            Value::Null => Ok((Reasoning::wanted(true), None)),
            budget => match budget
                .as_u64()
                .and_then(|budget| usize::try_from(budget).ok())
                .filter(|budget| *budget > 0)
            {
                Some(budget) => Ok((Reasoning::wanted(true), Some(budget))),
                None => wrong(".budget_tokens", "a whole number from 1"),
            },
        },
        _ => wrong(".type", "enabled, disabled or adaptive"),
    }
}
