//! Answers in Anthropic's form: blocks of thoughts, text and calls, whole or as events.

use pippin::FinishReason;
use pippin::chat::{OutputEvent, ParsedOutput};
use serde_json::{Map, Value, json};

use super::error_body;
use crate::answers::{End, Frame, Frames, Piece, Usage, Whole};
use crate::chat::arguments;
use crate::error::ApiError;

/// What is the same in all parts of an answer.
pub(super) struct Head {
    pub(super) id: String,
    pub(super) model: String,
    /// The texts that the request wants answers to end at.
    pub(super) stop: Vec<String>,
}

impl Head {
    pub(super) fn whole(&self, whole: Whole, usage: Usage) -> Value {
        let (reason, stop) = self.reason(whole.end.as_ref());
        let ParsedOutput { reasoning, content, tool_calls } = whole.output;
        let mut blocks = Vec::new();
        if !reasoning.is_empty() {
            blocks.push(json!({"type": "thinking", "thinking": reasoning, "signature": ""}));
        }
        if !content.is_empty() {
            blocks.push(json!({"type": "text", "text": content}));
        }
        blocks.extend(tool_calls.into_iter().map(|call| {
            json!({"type": "tool_use", "id": call.id, "name": call.function.name, "input": call.function.arguments})
        }));
        self.message(&blocks.into(), Some(reason), stop, &usage_of(usage))
    }

    fn message(&self, content: &Value, reason: Option<&str>, stop: Option<&str>, usage: &Value) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": stop,
            "usage": usage,
        })
    }

    /// Why an answer has ended, and the text that ended it, if the request named it.
    fn reason<'a>(&self, end: Option<&'a End>) -> (&'static str, Option<&'a str>) {
        let Some(end) = end else { return ("max_tokens", None) };
        match &end.reason {
            FinishReason::StopString(text) if self.stop.contains(text) => ("stop_sequence", Some(text)),
            _ if end.is_whole() && end.has_calls => ("tool_use", None),
            _ if end.is_whole() => ("end_turn", None),
            _ => ("max_tokens", None),
        }
    }
}

/// Here, what was found in the cache does not count as input.
fn usage_of(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt.saturating_sub(usage.cached),
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.generated,
    })
}

/// What a block is that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
}

pub(super) struct MessageFrames {
    head: Head,
    prompt_tokens: usize,
    /// The block that is open.
    open: Option<Kind>,
    /// Blocks that have begun.
    blocks: usize,
    end: Option<End>,
}

fn frame(name: &'static str, fields: Value) -> Frame {
    let mut data = Map::new();
    data.insert("type".to_owned(), name.into());
    if let Value::Object(fields) = fields {
        data.extend(fields);
    }
    Frame { event: Some(name), data: Value::Object(data).to_string() }
}

impl MessageFrames {
    pub(super) fn new(head: Head, prompt_tokens: usize) -> Self {
        Self { head, prompt_tokens, open: None, blocks: 0, end: None }
    }

    /// The number of the block that is open.
    fn index(&self) -> usize {
        self.blocks.saturating_sub(1)
    }

    fn begin_block(&mut self, block: &Value) -> Frame {
        self.blocks += 1;
        frame("content_block_start", json!({"index": self.index(), "content_block": block}))
    }

    fn delta(&self, delta: &Value) -> Frame {
        frame("content_block_delta", json!({"index": self.index(), "delta": delta}))
    }

    fn end_block(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        if let Some(kind) = self.open.take() {
            if kind == Kind::Thinking {
                frames.push(self.delta(&json!({"type": "signature_delta", "signature": ""})));
            }
            frames.push(frame("content_block_stop", json!({"index": self.index()})));
        }
        frames
    }

    /// More of a block of this kind, which begins where another was open.
    fn text(&mut self, kind: Kind, text: &str) -> Vec<Frame> {
        let (block, delta) = match kind {
            Kind::Thinking => (
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                json!({"type": "thinking_delta", "thinking": text}),
            ),
            Kind::Text => (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": text})),
        };
        let mut frames = Vec::new();
        if self.open != Some(kind) {
            frames.extend(self.end_block());
            frames.push(self.begin_block(&block));
            self.open = Some(kind);
        }
        frames.push(self.delta(&delta));
        frames
    }

    fn part(&mut self, part: OutputEvent) -> Vec<Frame> {
        match part {
            OutputEvent::Reasoning(text) => self.text(Kind::Thinking, &text),
            OutputEvent::Content(text) => self.text(Kind::Text, &text),
            OutputEvent::ToolCall { call, .. } => {
                let mut frames = self.end_block();
                let block =
                    json!({"type": "tool_use", "id": call.id, "name": call.function.name, "input": {}});
                frames.push(self.begin_block(&block));
                frames
                    .push(self.delta(&json!({"type": "input_json_delta", "partial_json": arguments(&call)})));
                frames.push(frame("content_block_stop", json!({"index": self.index()})));
                frames
            }
            _ => Vec::new(),
        }
    }
}

impl Frames for MessageFrames {
    fn begin(&mut self) -> Vec<Frame> {
        let usage = json!({"input_tokens": self.prompt_tokens, "output_tokens": 0});
        let message = self.head.message(&json!([]), None, None, &usage);
        vec![frame("message_start", json!({"message": message}))]
    }

    fn piece(&mut self, _index: usize, piece: Piece) -> Vec<Frame> {
        let frames = piece.parts.into_iter().flat_map(|part| self.part(part)).collect();
        self.end = self.end.take().or(piece.end);
        frames
    }

    fn end(&mut self, usage: Usage) -> Vec<Frame> {
        let mut frames = self.end_block();
        let (reason, stop) = self.head.reason(self.end.as_ref());
        let delta = json!({"stop_reason": reason, "stop_sequence": stop});
        frames.push(frame("message_delta", json!({"delta": delta, "usage": usage_of(usage)})));
        frames.push(frame("message_stop", json!({})));
        frames
    }

    fn error(&mut self, error: &ApiError) -> Frame {
        Frame { event: Some("error"), data: error_body(error).to_string() }
    }
}
