//! What stands between the marks of each dialect: from markup to calls.

mod gemma;
mod json;
mod keyed;
mod pythonic;
mod sections;
mod tagged;

use serde_json::{Map, Value};

pub(super) use self::gemma::{function_gemma, gemma4};
pub(super) use self::json::{calls as json, llama, mistral, named, wrapped_name};
pub(super) use self::keyed::keyed;
pub(super) use self::pythonic::pythonic;
pub(super) use self::sections::{deepseek, kimi_k2, kimi_k3, solar};
pub(super) use self::tagged::{elements, function, functions, invokes, one_invoke};
use super::schema::Tools;
use crate::message::{FunctionCall, ToolCall};

/// What a parser of markup knows besides it.
pub(super) struct Context<'a> {
    pub(super) tools: &'a Tools,
    /// The function that stands before the markup, where it does.
    pub(super) name: Option<&'a str>,
    /// Whether the mark at the end was there. Without it, the answer ended early, or another call began.
    pub(super) is_closed: bool,
}

/// Reads the calls in a piece of markup. `None`: it is malformed.
pub(super) type Parse = fn(&str, &Context<'_>) -> Option<Vec<ToolCall>>;

/// A call, if that can be the name of a function.
fn call(id: Option<&str>, name: &str, arguments: Map<String, Value>) -> Option<ToolCall> {
    let is_name = |c: char| !c.is_whitespace() && !c.is_control() && !"<>{}[]()\"'".contains(c);
    let is_good = !name.is_empty() && name.len() <= 256 && name.chars().all(is_name);
    is_good.then(|| ToolCall {
        id: id.filter(|id| !id.is_empty()).map(str::to_owned),
        function: FunctionCall { name: name.to_owned(), arguments: arguments.into() },
    })
}

/// `None` where there is no call.
fn some(calls: Vec<ToolCall>) -> Option<Vec<ToolCall>> {
    (!calls.is_empty()).then_some(calls)
}

/// The text before the first `mark` and after it.
fn cut<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    text.split_once(mark)
}

/// An argument's text without the line ends that the markup puts around it.
fn without_line_ends(text: &str) -> &str {
    let text = text.strip_prefix('\n').unwrap_or(text);
    text.strip_suffix('\n').unwrap_or(text)
}
