//! `pippin tokenize`: the prompt and the tokens that a model sees.

use std::fmt::Write as _;

use pippin::EngineError;
use pippin::loading::TextProcessor;
use serde::Serialize;

use super::run::{Conversation, check_continued, join, tell_of_tools};
use crate::error::{CliError, Result};
use crate::output::{self, visible};
use crate::settings::TokenizeSettings;

/// Prints them. The model's weights are not read.
pub(super) fn run(settings: TokenizeSettings) -> Result<()> {
    let TokenizeSettings { model, text, reads_stdin, is_chat, adds_special, chat, json, config } = settings;
    let resolver = config.resolver().map_err(EngineError::from)?;
    let found = resolver.resolve(&model).map_err(EngineError::from)?;
    let chat = Conversation::read(chat)?;
    let text = join(text, reads_stdin, !is_chat)?;
    let processor = TextProcessor::from_dir(&found.directory, &found.configuration)?;
    let (prompt, ids) = if is_chat {
        let input = match text.filter(|text| !text.is_empty()) {
            Some(text) => chat.with_prompt(text),
            None => chat.input,
        };
        check_continued(&input).map_err(CliError::input)?;
        tell_of_tools(&input, &processor, &found.configuration.name());
        let prompt = processor.render(&input, &found.configuration.name())?;
        // The template has written the special tokens.
        let ids = processor.tokenizer.encode(&prompt, false).map_err(EngineError::from)?;
        (prompt, ids)
    } else {
        let text =
            text.ok_or_else(|| CliError::input_with_hint("there is no text", "give one, or pipe one in"))?;
        let ids = match adds_special {
            true => processor.tokenizer.encode_prompt(&text),
            false => processor.tokenizer.encode(&text, false),
        };
        (text, ids.map_err(EngineError::from)?)
    };
    for warning in &processor.warnings {
        output::warning(warning);
    }
    let listing = Listing::new(found.configuration.name(), prompt, &ids, &processor)?;
    output::data(&if json {
        format!("{}\n", output::json_pretty(&listing))
    } else {
        listing.to_text(is_chat)
    })?;
    Ok(())
}

/// What `--json` prints.
#[derive(Serialize)]
struct Listing {
    model: String,
    prompt: String,
    count: usize,
    tokens: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    id: u32,
    /// As the vocabulary has it.
    token: String,
    /// What it says by itself; half a character is shown as a mark.
    text: String,
    special: bool,
}

impl Listing {
    fn new(model: String, prompt: String, ids: &[u32], processor: &TextProcessor) -> Result<Self> {
        let tokenizer = &processor.tokenizer;
        let token = |id: &u32| -> Result<Token> {
            Ok(Token {
                id: *id,
                token: tokenizer.id_to_token(*id).unwrap_or_default(),
                text: tokenizer.decode(&[*id], false).map_err(EngineError::from)?,
                special: tokenizer.is_special(*id),
            })
        };
        let tokens = ids.iter().map(token).collect::<Result<Vec<_>>>()?;
        Ok(Self { model, prompt, count: tokens.len(), tokens })
    }

    fn to_text(&self, is_chat: bool) -> String {
        let mut text = String::new();
        if is_chat {
            let _ = writeln!(text, "{}\n", visible(&self.prompt));
        }
        for Token { id, token, special, .. } in &self.tokens {
            // Quoted, so that spaces and line ends are seen.
            let _ = writeln!(text, "{id:>8}  {token:?}{}", if *special { "  (special)" } else { "" });
        }
        let _ = writeln!(text, "{} {}", self.count, if self.count == 1 { "token" } else { "tokens" });
        text
    }
}
