//! Instructions where they stand in a conversation: agents give several at the beginning, and more between messages, and many
//! templates know one message of them at the beginning only.

use pippin::{Message, Role};

/// Whether a message is instructions, by its newer name or its older one.
fn is_instructions(message: &Message) -> bool {
    matches!(message.role().as_str(), "system" | "developer")
}

/// Whether there are instructions behind the first message.
pub(crate) fn has_later(messages: &[Message]) -> bool {
    messages.iter().skip(1).any(is_instructions)
}

/// Makes one message of the instructions that begin a conversation.
pub(crate) fn gather(messages: Vec<Message>) -> Vec<Message> {
    let count = messages.iter().take_while(|message| is_instructions(message)).count();
    let mut messages = messages.into_iter();
    let mut first: Option<Message> = None;
    for message in messages.by_ref().take(count) {
        first = Some(match first {
            Some(first) => {
                let text = joined(first.text(), message.text().unwrap_or_default());
                with_text(&first, text)
            }
            None => message,
        });
    }
    first.into_iter().chain(messages).collect()
}

/// Makes instructions between messages a part of the user's turn where they stand, marked as Claude Code marks what a user has
/// not written. Moved to the beginning they would change all that has been computed of the prompt.
pub(crate) fn fold(messages: Vec<Message>) -> Vec<Message> {
    let mut folded: Vec<Message> = Vec::with_capacity(messages.len());
    // Instructions behind an answer: they belong to the user's turn that comes next.
    let mut waiting: Option<String> = None;
    for message in gather(messages) {
        let role = message.role();
        if is_instructions(&message) && !folded.is_empty() {
            let text = message.text().unwrap_or_default();
            let text = format!("<system-reminder>\n{text}\n</system-reminder>");
            match folded.last_mut().filter(|last| last.role() == Role::User) {
                Some(last) => *last = with_text(last, joined(last.text(), text)),
                None => waiting = Some(joined(waiting.take(), text)),
            }
            continue;
        }
        // Results of tools stay with their calls.
        let waited = if role == Role::Tool { None } else { waiting.take() };
        match waited {
            Some(text) if role == Role::User => {
                let text = joined(Some(text), message.text().unwrap_or_default());
                folded.push(with_text(&message, text));
            }
            Some(text) => folded.extend([Message::user(text), message]),
            None => folded.push(message),
        }
    }
    folded.extend(waiting.map(Message::user));
    folded
}

/// A message with another text.
fn with_text(message: &Message, text: String) -> Message {
    let mut fields = message.fields().clone();
    fields.insert("content".to_owned(), text.clone().into());
    Message::try_from(fields).unwrap_or_else(|_| Message::new(message.role(), text))
}

/// A text behind another, in a paragraph of its own.
fn joined(begin: Option<String>, text: String) -> String {
    match begin.filter(|begin| !begin.is_empty()) {
        Some(begin) if text.is_empty() => begin,
        Some(begin) => format!("{begin}\n\n{text}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use pippin::chat::ToolCall;
    use serde_json::json;

    use super::*;

    fn shown(messages: Vec<Message>) -> Vec<String> {
        let show = |message: &Message| {
            let text = message.text().unwrap_or_default();
            let text = text.replace("<system-reminder>\n", "(").replace("\n</system-reminder>", ")");
            format!("{}: {}", message.role().as_str(), text.replace("\n\n", "|"))
        };
        messages.iter().map(show).collect()
    }

    #[test]
    fn instructions_stay_where_they_stand() {
        let call = Message::assistant_calls([ToolCall::new("c", "f", json!({}))]);
        let system = |text: &str| Message::system(text);
        let messages = vec![
            system("a"),
            Message::new("developer".to_owned().into(), "b"),
            Message::user("c"),
            system("d"),
            call,
            system("e"),
            Message::tool("c", "f"),
            Message::assistant("g"),
            system("h"),
            system("i"),
            Message::user("j"),
            Message::assistant("k"),
            system("l"),
        ];
        let expected = [
            "system: a|b",
            "user: c|(d)",
            "assistant: ",
            "tool: f",
            "user: (e)",
            "assistant: g",
            "user: (h)|(i)|j",
            "assistant: k",
            "user: (l)",
        ];
        assert_eq!(shown(fold(messages.clone())), expected);
        // What has been computed of a conversation is good for its next turn.
        for end in 1..messages.len() {
            let begin = shown(fold(messages[..end].to_vec()));
            let last = begin.len() - 1;
            assert_eq!(begin[..last], expected[..last], "{end}");
        }
        assert!(has_later(&messages) && !has_later(&messages[..1]));
    }
}
