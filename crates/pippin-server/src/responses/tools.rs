//! Tools as this API has them: functions, groups of functions, and what only a server of OpenAI's can run.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use tracing::info;

use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;
use crate::options::Limits;
use crate::tools::{ToolUse, function};

/// How the kinds of tools begin that a server runs itself, or finds others with. Agents offer them to every server.
const HOSTED: [&str; 6] =
    ["web_search", "file_search", "code_interpreter", "image_generation", "mcp", "tool_search"];

/// The functions of groups, by the names that models see: their group, and their names in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups(HashMap<String, [String; 2]>);

impl Groups {
    /// The group and the name of a function, if it is one of a group.
    pub(super) fn find(&self, shown: &str) -> Option<&[String; 2]> {
        self.0.get(shown)
    }
}

/// The one name by which a model knows a function of a group.
pub(super) fn shown(group: &str, name: &str) -> String {
    let between = if group.ends_with("__") { "" } else { "__" };
    format!("{group}{between}{name}")
}

fn hosted(kind: &str) -> Option<&'static str> {
    HOSTED
        .into_iter()
        .find(|known| kind.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
}

/// Reads `tools` and what is said of calls. Tools that this server would have to run are passed over, unless one is demanded.
pub(super) fn read(fields: &mut Fields, limits: &Limits) -> ApiResult<(ToolUse, Groups)> {
    let (mut tools, mut groups) = (Vec::new(), Groups::default());
    let (mut passed_over, mut kinds) = (None, BTreeSet::new());
    for (index, tool) in fields.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        let place = format!("tools.{index}");
        match tool["type"].as_str() {
            Some("namespace") => group(&tool, &place, &mut tools, &mut groups)?,
            Some(kind) if hosted(kind).is_some() => {
                kinds.extend(hosted(kind));
                passed_over = passed_over.or(Some(place));
            }
            _ => tools.push(function(tool, &place)?),
        }
    }
    if !kinds.is_empty() {
        info!(?kinds, "tools are passed over that this server would have to run");
    }
    let choice = fields.get("tool_choice");
    let is_hosted =
        choice.and_then(|choice| choice["type"].as_str()).is_some_and(|kind| hosted(kind).is_some());
    if is_hosted {
        return Err(unsupported("tool_choice"));
    }
    if let (Some(place), true, Some("required" | "any")) =
        (&passed_over, tools.is_empty(), choice.and_then(Value::as_str))
    {
        return Err(unsupported(&format!("{place}.type")));
    }
    // A function of a group may be demanded.
    let named =
        choice.and_then(|choice| Some(shown(choice["namespace"].as_str()?, choice["name"].as_str()?)));
    if let Some(name) = named {
        fields.put("tool_choice", serde_json::json!({"type": "function", "name": name}));
    }
    Ok((ToolUse::of(tools, fields, limits)?, groups))
}

/// The functions of a group, each by one name.
fn group(group: &Value, place: &str, tools: &mut Vec<Value>, groups: &mut Groups) -> ApiResult<()> {
    let Some(name) = group["name"].as_str().filter(|name| !name.is_empty()) else {
        return Err(ApiError::field(&format!("{place}.name"), "a string"));
    };
    let Some(members) = group["tools"].as_array() else {
        return Err(ApiError::field(&format!("{place}.tools"), "a list of functions"));
    };
    for (index, member) in members.iter().enumerate() {
        let place = format!("{place}.tools.{index}");
        let mut member = member.clone();
        let own = member["name"].as_str().map(str::to_owned);
        if let (Some(own), Some(fields)) = (own, member.as_object_mut()) {
            let shown = shown(name, &own);
            fields.insert("name".to_owned(), shown.clone().into());
            groups.0.insert(shown, [name.to_owned(), own]);
        }
        tools.push(function(member, &place)?);
    }
    Ok(())
}

fn unsupported(place: &str) -> ApiError {
    let message = format!("{place}: this version of Pippin runs no tools; functions are the client's to run");
    ApiError::invalid(message).at(place)
}
