//! Answers of `/v1/responses`: items of thoughts, messages and calls, whole or as events.

use pippin::chat::{OutputEvent, ParsedOutput, ToolCall};
use serde_json::{Map, Value, json};

use super::store::Keep;
use super::tools::Known;
use crate::answers::{End, Frame, Frames, Piece, Usage, Whole};
use crate::chat::arguments;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::shared::{Shared, now};

/// What a response repeats of its request, and what it says where the request says nothing.
pub(super) fn echo(fields: &Fields) -> Map<String, Value> {
    let all = [
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", json!(true)),
        ("previous_response_id", Value::Null),
        ("reasoning", json!({"effort": null, "summary": null})),
        ("temperature", Value::Null),
        ("text", json!({"format": {"type": "text"}})),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_p", Value::Null),
        ("truncation", json!("disabled")),
        ("user", Value::Null),
    ];
    all.into_iter()
        .map(|(name, usual)| (name.to_owned(), fields.get(name).cloned().unwrap_or(usual)))
        .collect()
}

/// What is the same in all states of a response.
pub(super) struct Head {
    id: String,
    model: String,
    created: u64,
    echo: Map<String, Value>,
    is_kept: bool,
    /// The groups that functions are called from, and which tools are given a text.
    known: Known,
}

impl Head {
    pub(super) fn new(
        shared: &Shared,
        model: String,
        echo: Map<String, Value>,
        is_kept: bool,
        known: Known,
    ) -> Self {
        Self { id: shared.new_id(), model, created: now(), echo, is_kept, known }
    }

    pub(super) fn whole(&self, whole: Whole, usage: Usage) -> Value {
        let ParsedOutput { reasoning, content, tool_calls } = whole.output;
        // Where an answer is cut, what was written last is not whole.
        let is_cut = !whole.end.as_ref().is_some_and(End::is_whole) && tool_calls.is_empty();
        let status = |is_last: bool| if is_cut && is_last { "incomplete" } else { "completed" };
        let mut output = Vec::new();
        let mut add = |head: &Self, item: &dyn Fn(&str) -> Value| {
            let id = head.item_id(output.len());
            output.push(item(&id));
        };
        if !reasoning.is_empty() {
            add(self, &|id| Kind::Reasoning.item(id, &reasoning, status(content.is_empty())));
        }
        if !content.is_empty() || tool_calls.is_empty() {
            add(self, &|id| Kind::Message.item(id, &content, status(true)));
        }
        for made in &tool_calls {
            add(self, &|id| self.call(id, made, "completed"));
        }
        self.end(output, whole.end.as_ref(), usage)
    }

    fn call(&self, id: &str, call: &ToolCall, status: &str) -> Value {
        let is_begun = status == "in_progress";
        let mut item = match self.known.input(call) {
            Some(input) => json!({
                "id": format!("ctc_{id}"),
                "type": "custom_tool_call",
                "call_id": call.id,
                "name": call.function.name,
                "input": if is_begun { String::new() } else { input },
                "status": status,
            }),
            None => json!({
            "id": format!("fc_{id}"),
            "type": "function_call",
            "call_id": call.id,
            "name": call.function.name,
            "arguments": if is_begun { String::new() } else { arguments(call) },
            "status": status,
            }),
        };
        if let Some([group, name]) = self.known.group(&call.function.name) {
            item["namespace"] = group.as_str().into();
            item["name"] = name.as_str().into();
        }
        item
    }

    fn item_id(&self, index: usize) -> String {
        format!("{}{index:04x}", self.id)
    }

    fn end(&self, output: Vec<Value>, end: Option<&End>, usage: Usage) -> Value {
        let is_whole = end.is_some_and(End::is_whole);
        let mut response = self.response(if is_whole { "completed" } else { "incomplete" }, output);
        if !is_whole {
            response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        response["usage"] = json!({
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached},
            "output_tokens": usage.generated,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.prompt + usage.generated,
        });
        response
    }

    fn response(&self, status: &str, output: Vec<Value>) -> Value {
        let mut response = json!({
            "id": format!("resp_{}", self.id),
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": null,
            "model": self.model,
            "output": output,
            "store": self.is_kept,
            "usage": null,
        });
        for (name, value) in &self.echo {
            response[name] = value.clone();
        }
        response
    }
}

/// An item that is written piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
}

impl Kind {
    fn item(self, id: &str, text: &str, status: &str) -> Value {
        let content =
            if text.is_empty() && status == "in_progress" { json!([]) } else { json!([self.part(text)]) };
        match self {
            Self::Reasoning => {
                json!({"id": format!("rs_{id}"), "type": "reasoning", "summary": [], "content": content, "status": status})
            }
            Self::Message => json!({
                "id": format!("msg_{id}"), "type": "message", "role": "assistant", "content": content, "status": status,
            }),
        }
    }

    fn part(self, text: &str) -> Value {
        match self {
            Self::Reasoning => json!({"type": "reasoning_text", "text": text}),
            Self::Message => json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}),
        }
    }

    fn names(self) -> [&'static str; 2] {
        match self {
            Self::Reasoning => ["response.reasoning_text.delta", "response.reasoning_text.done"],
            Self::Message => ["response.output_text.delta", "response.output_text.done"],
        }
    }
}

/// The events of an answer.
pub(super) struct ResponseFrames {
    head: Head,
    keep: Option<Keep>,
    sequence: usize,
    open: Option<(Kind, String)>,
    output: Vec<Value>,
    end: Option<End>,
}

impl ResponseFrames {
    pub(super) fn new(head: Head, keep: Option<Keep>) -> Self {
        Self { head, keep, sequence: 0, open: None, output: Vec::new(), end: None }
    }

    fn frame(&mut self, name: &'static str, fields: Value) -> Frame {
        let mut data = Map::new();
        data.insert("type".to_owned(), name.into());
        data.insert("sequence_number".to_owned(), self.sequence.into());
        self.sequence += 1;
        if let Value::Object(fields) = fields {
            data.extend(fields);
        }
        Frame { event: Some(name), data: Value::Object(data).to_string() }
    }

    /// An event of the item that comes next.
    fn of_item(&mut self, name: &'static str, item: &Value, more: Value) -> Frame {
        let mut fields =
            json!({"item_id": item["id"], "output_index": self.output.len(), "content_index": 0});
        if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
            fields.extend(more);
        }
        self.frame(name, fields)
    }

    fn text(&mut self, kind: Kind, text: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.open.as_ref().is_none_or(|(open, _)| *open != kind) {
            frames.extend(self.end_item("completed"));
            frames.extend(self.begin_item(kind));
        }
        if let Some((_, all)) = &mut self.open {
            all.push_str(text);
        }
        let item = kind.item(&self.head.item_id(self.output.len()), "", "in_progress");
        let more = match kind {
            Kind::Reasoning => json!({"delta": text}),
            Kind::Message => json!({"delta": text, "logprobs": []}),
        };
        frames.push(self.of_item(kind.names()[0], &item, more));
        frames
    }

    fn begin_item(&mut self, kind: Kind) -> Vec<Frame> {
        self.open = Some((kind, String::new()));
        let item = kind.item(&self.head.item_id(self.output.len()), "", "in_progress");
        let added = json!({"output_index": self.output.len(), "item": item});
        vec![
            self.frame("response.output_item.added", added),
            self.of_item("response.content_part.added", &item, json!({"part": kind.part("")})),
        ]
    }

    fn end_item(&mut self, status: &str) -> Vec<Frame> {
        let Some((kind, text)) = self.open.take() else { return Vec::new() };
        let item = kind.item(&self.head.item_id(self.output.len()), &text, status);
        let more = match kind {
            Kind::Reasoning => json!({"text": text}),
            Kind::Message => json!({"text": text, "logprobs": []}),
        };
        let mut frames = vec![
            self.of_item(kind.names()[1], &item, more),
            self.of_item("response.content_part.done", &item, json!({"part": kind.part(&text)})),
        ];
        frames.push(self.done(item));
        frames
    }

    fn done(&mut self, item: Value) -> Frame {
        let fields = json!({"output_index": self.output.len(), "item": item});
        self.output.push(item);
        self.frame("response.output_item.done", fields)
    }

    fn call(&mut self, made: &ToolCall) -> Vec<Frame> {
        let mut frames = self.end_item("completed");
        let (id, index) = (self.head.item_id(self.output.len()), self.output.len());
        let begun = self.head.call(&id, made, "in_progress");
        let item = self.head.call(&id, made, "completed");
        frames.push(self.frame("response.output_item.added", json!({"output_index": index, "item": begun})));
        let mut done = json!({"item_id": item["id"], "output_index": index});
        let [field, delta_name, done_name] = match item["type"] == "custom_tool_call" {
            true => {
                ["input", "response.custom_tool_call_input.delta", "response.custom_tool_call_input.done"]
            }
            false => {
                done["name"] = item["name"].clone();
                [
                    "arguments",
                    "response.function_call_arguments.delta",
                    "response.function_call_arguments.done",
                ]
            }
        };
        done[field] = item[field].clone();
        let delta = json!({"item_id": item["id"], "output_index": index, "delta": item[field]});
        frames.push(self.frame(delta_name, delta));
        frames.push(self.frame(done_name, done));
        frames.push(self.done(item));
        frames
    }
}

impl Frames for ResponseFrames {
    fn begin(&mut self) -> Vec<Frame> {
        let response = json!({"response": self.head.response("in_progress", Vec::new())});
        vec![self.frame("response.created", response.clone()), self.frame("response.in_progress", response)]
    }

    fn piece(&mut self, _index: usize, piece: Piece) -> Vec<Frame> {
        let mut frames = Vec::new();
        for part in piece.parts {
            frames.extend(match part {
                OutputEvent::Reasoning(text) => self.text(Kind::Reasoning, &text),
                OutputEvent::Content(text) => self.text(Kind::Message, &text),
                OutputEvent::ToolCall { call, .. } => self.call(&call),
                _ => Vec::new(),
            });
        }
        self.end = self.end.take().or(piece.end);
        frames
    }

    fn end(&mut self, usage: Usage) -> Vec<Frame> {
        let is_whole = self.end.as_ref().is_some_and(End::is_whole);
        let status = if is_whole { "completed" } else { "incomplete" };
        let mut frames = self.end_item(status);
        let has_message = self.output.iter().any(|item| item["type"] != "reasoning");
        if !has_message {
            frames.extend(self.begin_item(Kind::Message));
            frames.extend(self.end_item(status));
        }
        let response = self.head.end(std::mem::take(&mut self.output), self.end.as_ref(), usage);
        if let Some(keep) = self.keep.take() {
            keep.keep(&response);
        }
        let name = match response["status"] == "completed" {
            true => "response.completed",
            false => "response.incomplete",
        };
        frames.push(self.frame(name, json!({"response": response})));
        frames
    }

    fn error(&mut self, error: &ApiError) -> Frame {
        let fields = json!({"code": error.code, "message": error.message, "param": error.param});
        self.frame("error", fields)
    }
}
