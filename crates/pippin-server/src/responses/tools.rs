//! Tools as this API has them: functions, groups of functions, custom tools, which are given a text instead of arguments, and what only a
//! server of OpenAI's can run.

use std::collections::{BTreeSet, HashMap, HashSet};

use pippin::chat::{ToolCall, pattern_of_grammar};
use serde_json::{Value, json};
use tracing::info;

use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;
use crate::options::Limits;
use crate::tools::{Choices, Place, Tool, ToolUse, function};

/// How the kinds of tools begin that a server runs itself, or finds others with. Agents offer them to every server.
const HOSTED: [&str; 6] =
    ["web_search", "file_search", "code_interpreter", "image_generation", "mcp", "tool_search"];

/// The only argument of the function that a custom tool is for the model.
pub(super) const INPUT: &str = "input";

/// What calls are told by: the names that models see say nothing of groups and kinds.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The functions of groups: their group, and their names in it.
    groups: HashMap<String, [String; 2]>,
    custom: HashSet<String>,
}

impl Known {
    /// The group and the name of a function, if it is one of a group.
    pub(super) fn group(&self, shown: &str) -> Option<&[String; 2]> {
        self.groups.get(shown)
    }

    /// The tool that `tool_choice` names, by the name that the model knows; these are all that there are. It has to be of the kind that is
    /// asked for.
    fn named(&self, choice: &Value, names: &HashSet<String>) -> ApiResult<Option<String>> {
        let wants_custom = choice["type"] == "custom";
        let Some(given) = choice["name"].as_str().or(choice["function"]["name"].as_str()) else {
            return Ok(None);
        };
        let name = match choice["namespace"].as_str() {
            Some(group) => shown(group, given),
            None => given.to_owned(),
        };
        let why_not = match names.contains(&name) {
            true if self.custom.contains(&name) == wants_custom => return Ok(Some(name)),
            true if wants_custom => "which is a function".to_owned(),
            true => "which is a tool of the type custom".to_owned(),
            false => match self.groups.values().find(|[_, own]| own == given) {
                Some([group, _]) if choice.get("namespace").is_none() => {
                    format!("which is a tool of the namespace {group:?}, and that has to be given, too")
                }
                _ => "which is none of the tools".to_owned(),
            },
        };
        Err(ApiError::invalid(format!("tool_choice names {given:?}, {why_not}")).at("tool_choice"))
    }

    /// What a custom tool is given, if the call is one of a custom tool.
    pub(super) fn input(&self, call: &ToolCall) -> Option<String> {
        self.custom.contains(&call.function.name).then(|| match &call.function.arguments {
            Value::Object(fields) => match fields.get(INPUT) {
                Some(Value::String(text)) => text.clone(),
                // A model that is held to nothing may call it something else.
                _ => match fields.values().collect::<Vec<_>>()[..] {
                    [Value::String(text)] => text.clone(),
                    _ => call.function.arguments.to_string(),
                },
            },
            Value::String(text) => text.clone(),
            arguments => arguments.to_string(),
        })
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
pub(super) fn read(fields: &mut Fields, limits: &Limits) -> ApiResult<(ToolUse, Known)> {
    let (mut tools, mut known) = (Vec::new(), Known::default());
    let (mut passed_over, mut kinds) = (None, BTreeSet::new());
    for (index, tool) in fields.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        let place = format!("tools.{index}");
        match tool["type"].as_str() {
            Some("namespace") => group(&tool, &place, &mut tools, &mut known)?,
            Some(kind) if hosted(kind).is_some() => {
                kinds.extend(hosted(kind));
                passed_over = passed_over.or(Some(place));
            }
            _ => tools.push(one(tool, &place, &mut known)?),
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
    let names: HashSet<String> = tools.iter().filter_map(|tool| own_name(tool).map(str::to_owned)).collect();
    let choices = Choices {
        shown: "{\"type\": \"function\" or \"custom\", \"name\": …}, with the \"namespace\" of a tool that has one",
        types: &["function", "custom"],
        named: &|choice| known.named(choice, &names),
    };
    let tools = ToolUse::of(tools, &choices, fields, limits)?;
    Ok((tools, known))
}

fn own_name(tool: &Tool) -> Option<&str> {
    tool.function["function"]["name"].as_str()
}

/// A function, or a custom tool as one.
fn one(tool: Value, place: &str, known: &mut Known) -> ApiResult<Tool> {
    if tool["type"] != "custom" {
        return function(tool, place);
    }
    let shown = function(custom(&tool, place)?, place)?;
    known.custom.extend(own_name(&shown).map(str::to_owned));
    Ok(Tool { place: Place::Text(format!("{place}.format.definition")), ..shown })
}

/// The function that a custom tool is for the model: its text is an argument, held to what is said of it.
fn custom(tool: &Value, place: &str) -> ApiResult<Value> {
    let mut description = match &tool["description"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        _ => return Err(ApiError::field(&format!("{place}.description"), "a string")),
    };
    let format = &tool["format"];
    let at = format!("{place}.format");
    let mut input = json!({"type": "string"});
    match format["type"].as_str() {
        None if format.is_null() => {}
        Some("text") => {}
        Some("grammar") => {
            let Some(definition) = format["definition"].as_str() else {
                return Err(ApiError::field(&format!("{at}.definition"), "a string"));
            };
            let pattern = match format["syntax"].as_str() {
                Some("regex") => definition.to_owned(),
                Some("lark") => pattern_of_grammar(definition).map_err(|error| {
                    let at = format!("{at}.definition");
                    ApiError::invalid(format!("{at}: {error}")).at(at)
                })?,
                _ => return Err(ApiError::field(&format!("{at}.syntax"), "lark or regex")),
            };
            input["pattern"] = format!("^(?:{pattern})$").into();
            let kind = if format["syntax"] == "lark" { "grammar (Lark)" } else { "regular expression" };
            if !description.is_empty() {
                description.push_str("\n\n");
            }
            description += &format!("The input has to follow this {kind}:\n{definition}");
        }
        _ => return Err(ApiError::field(&format!("{at}.type"), "text or grammar")),
    }
    let is_held = input.get("pattern").is_some();
    Ok(json!({
        "name": tool["name"],
        "description": description,
        "parameters": {"type": "object", "properties": {INPUT: input}, "required": [INPUT], "additionalProperties": false},
        "strict": is_held,
    }))
}

/// The functions of a group, each by one name.
fn group(group: &Value, place: &str, tools: &mut Vec<Tool>, known: &mut Known) -> ApiResult<()> {
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
            known.groups.insert(shown, [name.to_owned(), own]);
        }
        tools.push(one(member, &place, known)?);
    }
    Ok(())
}

fn unsupported(place: &str) -> ApiError {
    let message = format!("{place}: this version of Pippin runs no tools; functions are the client's to run");
    ApiError::invalid(message).at(place)
}
