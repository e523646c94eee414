//! `pippin run`: one answer.

use std::time::Duration;

use pippin::chat::ChatInput;
use pippin::loading::TextProcessor;
use pippin::text::OutputParser;
use pippin::{FinishReason, GenerateInfo, GenerateParameters, GenerationStream, Message, ModelContainer};
use serde::Serialize;

use super::answer::{Collected, Detail, Details};
use super::{batch, repl};
use crate::error::{CliError, Result};
use crate::input::Source;
use crate::interrupt::Interrupt;
use crate::model::{self, Download, Loaded};
use crate::output::{self, AnswerWriter};
use crate::settings::{ChatSettings, Mode, RunSettings, with_system};

/// Runs in the mode that was decided on.
pub(super) fn run(settings: RunSettings, is_verbose: bool, interrupt: &Interrupt) -> Result<()> {
    let RunSettings { model, draft_model, mut load, mut parameters, chat, form, mode, stats, .. } = settings;
    let RunSettings { detail, hint, config, yes, .. } = settings;
    if let Some(hint) = hint {
        output::hint(&hint);
    }
    // Inputs are read before the model is loaded: whoever mistyped a file name should not wait for that.
    let download = if yes { Download::Agreed } else { Download::Ask };
    let model = model::find(&model, &config, download)?;
    let configured = load.draft_model.take().and_then(|draft| draft.to_str().map(str::to_owned));
    if let Some(draft) = draft_model.or(configured) {
        load.draft_model = Some(model::locate(&draft, &config, download)?.directory);
    }
    let chat = Conversation::read(chat)?;
    parameters.constraint = form.read()?;
    match mode {
        Mode::Once { prompt, reads_stdin, json } => {
            let prompt = join(prompt, reads_stdin, chat.raw)?;
            let request = Request::new(chat, prompt)?;
            let loaded = model::keep(&model, &load, &config, is_verbose)?;
            if let Request::Chat(input) = &request {
                tell_of_tools(input, loaded.container.processor(), &loaded.container.name());
            }
            tell_of_guesses(&parameters, &loaded.container);
            let parameters = detail.ask(&parameters);
            once(&loaded, &request, &parameters, json.then_some(detail), stats, interrupt)
        }
        Mode::Interactive { history } => {
            let loaded = model::keep(&model, &load, &config, is_verbose)?;
            tell_of_guesses(&parameters, &loaded.container);
            interrupt.set_interactive();
            repl::run(loaded.container, chat, parameters, stats, history, interrupt)
        }
        Mode::Batch(source) => {
            let lines = source.open()?;
            let concurrency = load.max_sequences;
            let loaded = model::keep(&model, &load, &config, is_verbose)?;
            tell_of_guesses(&parameters, &loaded.container);
            batch::run(&loaded.container, &chat, &detail.ask(&parameters), lines, concurrency, detail, stats)
        }
    }
}

/// What stands around prompts, read from its files.
#[derive(Clone, Debug, Default)]
pub(super) struct Conversation {
    pub(super) raw: bool,
    pub(super) system: Option<String>,
    /// The conversation so far; its messages, instructions included, come before every prompt.
    pub(super) input: ChatInput,
}

impl Conversation {
    pub(super) fn read(settings: ChatSettings) -> Result<Self> {
        let ChatSettings { raw, system, messages, tools, template_args, .. } = settings;
        let (adds, continues) = (settings.add_generation_prompt, settings.continue_message);
        let messages = messages.as_ref().map(Source::messages).transpose()?.unwrap_or_default();
        let tools = tools.as_ref().map(Source::tools).transpose()?.unwrap_or_default();
        let messages = with_system(messages, system.as_deref());
        Ok(Self {
            raw,
            system,
            input: ChatInput {
                messages,
                tools,
                template_kwargs: template_args,
                add_generation_prompt: adds,
                continue_final_message: continues,
            },
        })
    }

    /// The conversation with a message of the user at its end.
    pub(super) fn with_prompt(mut self, prompt: String) -> ChatInput {
        self.input.messages.push(Message::user(prompt));
        self.input
    }
}

/// The prompt and what is piped in.
pub(super) fn join(prompt: Option<String>, reads_stdin: bool, raw: bool) -> Result<Option<String>> {
    let piped = if reads_stdin { Source::Stdin.text()? } else { String::new() };
    // A raw prompt is taken as it stands; in a message, the line end that every file has would only mislead.
    let piped = if raw { piped.as_str() } else { piped.trim_end_matches(['\n', '\r']) };
    Ok(match prompt {
        _ if piped.is_empty() => prompt,
        Some(prompt) if !prompt.is_empty() => Some(format!("{prompt}\n\n{piped}")),
        _ => Some(piped.to_owned()),
    })
}

/// What the model is to answer.
#[derive(Debug)]
pub(super) enum Request {
    Raw(String),
    Chat(ChatInput),
}

/// Refuses to continue what is no answer: a model does not go on with the words of somebody else.
pub(super) fn check_continued(input: &ChatInput) -> Result<(), String> {
    let is_answer = input.messages.last().is_some_and(|last| last.role() == pippin::Role::Assistant);
    if input.continue_final_message && !is_answer {
        return Err("there is no answer to continue: the last message is not the assistant's".to_owned());
    }
    Ok(())
}

impl Request {
    fn new(chat: Conversation, prompt: Option<String>) -> Result<Self> {
        let request = Self::asking(chat, prompt)?;
        if let Self::Chat(input) = &request {
            check_continued(input).map_err(|problem| {
                CliError::input_with_hint(
                    problem,
                    "end the file of --messages with its beginning, and give no prompt",
                )
            })?;
        }
        Ok(request)
    }

    fn asking(chat: Conversation, prompt: Option<String>) -> Result<Self> {
        let prompt = prompt.filter(|prompt| !prompt.is_empty());
        match prompt {
            Some(prompt) if chat.raw => Ok(Self::Raw(prompt)),
            Some(prompt) => Ok(Self::Chat(chat.with_prompt(prompt))),
            None if chat.input.messages.iter().any(|message| message.role() != pippin::Role::System) => {
                Ok(Self::Chat(chat.input))
            }
            None => Err(CliError::input_with_hint("the prompt is empty", "give a prompt, or pipe one in")),
        }
    }

    /// The prompt as the model sees it, and its token ids.
    pub(super) fn prompt(&self, model: &ModelContainer) -> pippin::Result<(String, Vec<u32>)> {
        match self {
            Self::Raw(prompt) => Ok((prompt.clone(), model.encode(prompt)?)),
            Self::Chat(input) => Ok((model.apply_chat_template(input)?, model.prepare(input)?)),
        }
    }

    /// What takes the answer apart, if it answers a conversation.
    pub(super) fn parser(&self, model: &ModelContainer) -> pippin::Result<Option<OutputParser>> {
        match self {
            Self::Raw(_) => Ok(None),
            Self::Chat(input) => {
                let prompt = model.apply_chat_template(input)?;
                Ok(Some(model.processor().output_parser(&input.tools, &prompt)))
            }
        }
    }

    /// Whether there are tools that the model may call.
    fn has_tools(&self) -> bool {
        matches!(self, Self::Chat(input) if !input.tools.is_empty())
    }

    /// Has the model answer.
    pub(super) fn generate(
        &self,
        model: &ModelContainer,
        parameters: &GenerateParameters,
    ) -> pippin::Result<GenerationStream> {
        match self {
            Self::Raw(prompt) => model.generate_text(prompt, parameters),
            Self::Chat(input) => model.generate_chat(input, parameters),
        }
    }
}

/// Says so when the chat template shows nothing of the tools that were given.
pub(super) fn tell_of_tools(input: &ChatInput, processor: &TextProcessor, model: &str) {
    if input.tools.is_empty() {
        return;
    }
    let without = processor.render(&input.clone().with_tools([]), model);
    if without.is_ok_and(|without| processor.render(input, model).is_ok_and(|with| with == without)) {
        output::warning(&format!(
            "the chat template of {model} has no place for tools: the model does not see them"
        ));
    }
}

/// Says so when guesses were asked for and the model cannot take one back.
fn tell_of_guesses(parameters: &GenerateParameters, model: &ModelContainer) {
    if parameters.prompt_lookup > 0 && !model.info().cache.can_rewind() {
        output::warning(&format!(
            "{} keeps recurrent state, which cannot be cut back: --prompt-lookup has no effect",
            model.name()
        ));
    }
}

/// Answers a request on standard output.
fn once(
    loaded: &Loaded,
    request: &Request,
    parameters: &GenerateParameters,
    json: Option<Detail>,
    stats: bool,
    interrupt: &Interrupt,
) -> Result<()> {
    let prompt = json.map(|detail| detail.prompt(request, &loaded.container)).transpose()?.flatten();
    let stream = request.generate(&loaded.container, parameters)?;
    let _watch = interrupt.watch(stream.cancel_handle());
    let mut writer = AnswerWriter::stdout();
    let mut collected = Collected::new(json.unwrap_or_default(), request.parser(&loaded.container)?);
    // Who gives tools wants to see calls; without any, the text is shown as it is.
    let shows_parts = request.has_tools();
    for event in stream {
        match event {
            Ok(event) => {
                if json.is_none() && !shows_parts {
                    writer.piece(event.text())?;
                }
                for part in collected.add(event, &loaded.container) {
                    if json.is_none() && shows_parts {
                        writer.part(&part)?;
                    }
                }
            }
            Err(error) => {
                if json.is_none() {
                    writer.end()?;
                }
                return Err(error.into());
            }
        }
    }
    if json.is_none() {
        writer.end()?;
    }
    // A stream ends with its numbers or with an error.
    let Some(info) = collected.info.take() else { return Ok(()) };
    if json.is_some() {
        let finish_reason = collected.finish_reason(&info);
        let details = collected.detail(prompt);
        let answer = Answer::new(collected.text, finish_reason, details, loaded, &info);
        output::data(&format!("{}\n", output::json_line(&answer)))?;
    }
    if stats {
        let performance = loaded.container.performance();
        output::lines(&output::statistics(&info));
        output::lines(&format!("{}:\n{}", performance.model, output::performance(&performance)));
    }
    match info.finish_reason {
        FinishReason::Cancelled => Err(CliError::Interrupted),
        FinishReason::Length if parameters.constraint.is_some() => {
            output::warning(&format!(
                "the answer was cut after {} tokens, before it had the form that was asked for (--max-tokens)",
                info.generated_tokens
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer {
    text: String,
    finish_reason: &'static str,
    /// The stop string that ended the answer, when one did.
    stop_string: Option<String>,
    model: String,
    usage: Usage,
    timings: Timings,
    peak_memory_bytes: Option<u64>,
    #[serde(flatten)]
    details: Details,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    cached_tokens: usize,
    generated_tokens: usize,
    drafted_tokens: usize,
    accepted_tokens: usize,
}

#[derive(Serialize)]
struct Timings {
    load_s: f64,
    time_to_first_token_s: Option<f64>,
    prefill_tokens_per_second: f64,
    decode_tokens_per_second: f64,
}

impl Answer {
    fn new(
        text: String,
        finish_reason: &'static str,
        details: Details,
        loaded: &Loaded,
        info: &GenerateInfo,
    ) -> Self {
        Self {
            text,
            finish_reason,
            stop_string: match &info.finish_reason {
                FinishReason::StopString(stop) => Some(stop.clone()),
                _ => None,
            },
            model: loaded.container.name(),
            usage: Usage {
                prompt_tokens: info.prompt_tokens,
                cached_tokens: info.cached_tokens,
                generated_tokens: info.generated_tokens,
                drafted_tokens: info.drafted_tokens,
                accepted_tokens: info.accepted_tokens,
            },
            timings: Timings {
                load_s: loaded.time.as_secs_f64(),
                time_to_first_token_s: info.time_to_first_token.as_ref().map(Duration::as_secs_f64),
                prefill_tokens_per_second: info.prompt_tokens_per_second(),
                decode_tokens_per_second: info.tokens_per_second(),
            },
            peak_memory_bytes: info.peak_memory,
            details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_needed() {
        let chat = Conversation::default;
        assert!(matches!(Request::new(chat(), None), Err(CliError::Input { .. })));
        assert!(matches!(Request::new(chat(), Some(String::new())), Err(CliError::Input { .. })));
        assert!(matches!(Request::new(chat(), Some("x".into())), Ok(Request::Chat(_))));
        let raw = Conversation { raw: true, ..chat() };
        assert!(matches!(Request::new(raw, Some("x".into())), Ok(Request::Raw(_))));

        let with = |messages: Vec<Message>| Conversation { input: messages.into(), ..chat() };
        assert!(Request::new(with(vec![Message::system("only instructions")]), None).is_err());
        assert!(Request::new(with(vec![Message::user("a question")]), None).is_ok());
    }
}
