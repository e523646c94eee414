//! Answers in Ollama's form: one object, or one in each line.

use std::time::{Duration, Instant, SystemTime};

use pippin::ModelContainer;
use pippin::chat::{OutputEvent, ParsedOutput};
use serde_json::{Value, json};

use super::{error_body, time};
use crate::answers::{End, Frame, Frames, Piece, Token, Usage, Whole, token_text};
use crate::error::ApiError;

/// What is the same in all parts of an answer.
pub(super) struct Head {
    pub(super) model: String,
    /// When the request came, and when the model was there.
    pub(super) begin: Instant,
    pub(super) loaded: Instant,
    /// A conversation's answer is a message; that to a text is a text.
    pub(super) is_chat: bool,
    /// Where log-probabilities are wanted.
    pub(super) logprobs: Option<ModelContainer>,
}

impl Head {
    pub(super) fn whole(&self, whole: Whole, usage: Usage) -> Value {
        let mut answer = self.line(whole.output, &whole.tokens);
        self.end(&mut answer, whole.end.as_ref(), usage);
        answer
    }

    fn line(&self, output: ParsedOutput, tokens: &[Token]) -> Value {
        let ParsedOutput { reasoning, content, tool_calls } = output;
        let mut line = json!({"model": self.model, "created_at": time(SystemTime::now())});
        if self.is_chat {
            let mut message = json!({"role": "assistant", "content": content});
            if !reasoning.is_empty() {
                message["thinking"] = reasoning.into();
            }
            if !tool_calls.is_empty() {
                let call = |(index, call): (usize, &pippin::chat::ToolCall)| {
                    json!({"id": call.id, "function": {
                        "index": index, "name": call.function.name, "arguments": call.function.arguments,
                    }})
                };
                message["tool_calls"] = tool_calls.iter().enumerate().map(call).collect();
            }
            line["message"] = message;
        } else {
            line["response"] = content.into();
            if !reasoning.is_empty() {
                line["thinking"] = reasoning.into();
            }
        }
        line["done"] = false.into();
        if let Some(model) = &self.logprobs {
            line["logprobs"] = tokens.iter().map(|token| logprob(model, token)).collect();
        }
        line
    }

    /// Adds why it ends, and the numbers.
    fn end(&self, line: &mut Value, end: Option<&End>, usage: Usage) {
        let is_whole = end.is_some_and(End::is_whole);
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let numbers = [
            ("total_duration", nanoseconds(self.begin.elapsed())),
            ("load_duration", nanoseconds(self.loaded.saturating_duration_since(self.begin))),
            ("prompt_eval_count", usage.prompt as u64),
            ("prompt_eval_duration", nanoseconds(usage.prompt_time)),
            ("eval_count", usage.generated as u64),
            ("eval_duration", nanoseconds(usage.generate_time)),
        ];
        line["done"] = true.into();
        line["done_reason"] = if is_whole { "stop" } else { "length" }.into();
        for (name, number) in numbers {
            line[name] = number.into();
        }
    }
}

fn logprob(model: &ModelContainer, token: &Token) -> Value {
    let object = |id, logprob| {
        let text = token_text(model, id);
        let bytes = text.as_bytes().to_vec();
        json!({"token": text, "logprob": logprob, "bytes": bytes})
    };
    let mut own = object(token.id, token.logprob);
    if !token.top.is_empty() {
        own["top_logprobs"] =
            token.top.iter().map(|other| object(other.token, Some(other.logprob))).collect();
    }
    own
}

pub(super) struct Lines {
    head: Head,
    calls: usize,
    end: Option<End>,
}

impl Lines {
    pub(super) fn new(head: Head) -> Self {
        Self { head, calls: 0, end: None }
    }
}

impl Frames for Lines {
    fn begin(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    fn piece(&mut self, _index: usize, piece: Piece) -> Vec<Frame> {
        self.end = self.end.take().or(piece.end);
        let is_call = |part: &OutputEvent| matches!(part, OutputEvent::ToolCall { .. });
        let begin = self.calls;
        self.calls += piece.parts.iter().filter(|part| is_call(part)).count();
        let mut output = ParsedOutput::default();
        output.extend(piece.parts);
        let has_logprobs = self.head.logprobs.is_some() && piece.token.is_some();
        if output.is_empty() && !has_logprobs {
            return Vec::new();
        }
        let mut line = self.head.line(output, piece.token.as_slice());
        // Each call has its number in the whole of the answer.
        let calls = line.pointer_mut("/message/tool_calls").and_then(Value::as_array_mut);
        if let Some(calls) = calls {
            for (call, index) in calls.iter_mut().zip(begin..) {
                call["function"]["index"] = index.into();
            }
        }
        vec![Frame { event: None, data: line.to_string() }]
    }

    fn end(&mut self, usage: Usage) -> Vec<Frame> {
        let mut line = self.head.line(ParsedOutput::default(), &[]);
        self.head.end(&mut line, self.end.as_ref(), usage);
        vec![Frame { event: None, data: line.to_string() }]
    }

    fn error(&mut self, error: &ApiError) -> Frame {
        Frame { event: None, data: error_body(error).to_string() }
    }
}
