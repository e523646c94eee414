use std::path::Path;
use std::sync::Arc;

use pippin_hub::ModelConfiguration;
use pippin_models::{ModelError, is_gguf};
use pippin_text::{
    ChatTemplate, GgufVocabulary, Message, OutputFormat, OutputParser, RenderInputs, StopTokens, Tokenizer,
};
use pippin_weights::gguf::Gguf;
use serde_json::{Map, Value};

use crate::{EngineError, Result};

/// A conversation, and what else its chat template may show.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatInput {
    /// The conversation; at least one message.
    pub messages: Vec<Message>,
    /// Tools that the model may call, each a JSON object in the form of the OpenAI API.
    pub tools: Vec<Value>,
    /// Further variables for the template (`enable_thinking` and the like).
    pub template_kwargs: Map<String, Value>,
    /// Ends the prompt with the header of an answer, so that the model answers. On by default; without effect where the last
    /// message is continued.
    pub add_generation_prompt: bool,
    /// Ends the prompt inside the text of the last message, so that the model continues it instead of answering.
    pub continue_final_message: bool,
}

impl Default for ChatInput {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            tools: Vec::new(),
            template_kwargs: Map::new(),
            add_generation_prompt: true,
            continue_final_message: false,
        }
    }
}

impl ChatInput {
    /// With tools that the model may call.
    #[must_use]
    pub fn with_tools(mut self, tools: impl Into<Vec<Value>>) -> Self {
        self.tools = tools.into();
        self
    }

    /// With further variables for the template.
    #[must_use]
    pub fn with_template_kwargs(mut self, template_kwargs: Map<String, Value>) -> Self {
        self.template_kwargs = template_kwargs;
        self
    }

    /// With or without the header of an answer at the end of the prompt.
    #[must_use]
    pub fn with_add_generation_prompt(mut self, add_generation_prompt: bool) -> Self {
        self.add_generation_prompt = add_generation_prompt;
        self
    }

    /// With the last message continued, or answered.
    #[must_use]
    pub fn with_continue_final_message(mut self, continue_final_message: bool) -> Self {
        self.continue_final_message = continue_final_message;
        self
    }
}

impl From<Vec<Message>> for ChatInput {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }
}

/// What stands between a model and text: its tokenizer, its chat template, and what ends its answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TextProcessor {
    /// Text to token ids and back.
    pub tokenizer: Tokenizer,
    /// Conversations to prompts, where the model has a template.
    pub chat_template: Option<Arc<ChatTemplate>>,
    /// Token ids that end an answer.
    pub stop_tokens: StopTokens,
    /// Texts that end an answer.
    pub stop_strings: Vec<String>,
    /// How the model writes thoughts and calls of tools.
    pub output_format: OutputFormat,
    /// What was left out of the model's files and why, one line each.
    pub warnings: Vec<String>,
}

impl TextProcessor {
    /// A processor from its parts.
    pub fn new(tokenizer: Tokenizer, chat_template: Option<ChatTemplate>, stop_tokens: StopTokens) -> Self {
        let template = chat_template.as_ref().map_or(&[][..], ChatTemplate::warnings);
        let all = tokenizer.warnings().iter().chain(stop_tokens.warnings()).chain(template);
        let warnings = all.cloned().collect();
        let output_format = OutputFormat::detect(&tokenizer, chat_template.as_ref());
        let chat_template = chat_template.map(Arc::new);
        Self { tokenizer, chat_template, stop_tokens, stop_strings: Vec::new(), output_format, warnings }
    }

    /// With texts that end an answer.
    #[must_use]
    pub fn with_stop_strings<S: Into<String>>(mut self, texts: impl IntoIterator<Item = S>) -> Self {
        self.stop_strings = texts.into_iter().map(Into::into).collect();
        self
    }

    /// Reads the processor of a model folder, or of a GGUF file, with what the configuration adds to it.
    ///
    /// # Errors
    ///
    /// A file is missing or malformed, or an extra end-of-sequence token is none of the tokenizer's.
    pub fn from_dir(folder: &Path, configuration: &ModelConfiguration) -> Result<Self> {
        let (tokenizer, chat_template, mut stop_tokens) = if is_gguf(folder) {
            let vocabulary = GgufVocabulary::read(&Gguf::open(folder).map_err(ModelError::from)?)?;
            let tokenizer = Tokenizer::from_gguf(&vocabulary)?;
            (tokenizer, ChatTemplate::from_gguf(&vocabulary), StopTokens::from_gguf(&vocabulary))
        } else {
            let tokenizer = Tokenizer::from_dir(folder)?;
            let stop_tokens = StopTokens::from_dir(folder, &tokenizer)?;
            (tokenizer, ChatTemplate::from_dir(folder)?, stop_tokens)
        };
        stop_tokens.add_tokens(&configuration.extra_eos_tokens, &tokenizer)?;
        let mut processor = Self::new(tokenizer, chat_template, stop_tokens);
        processor.stop_strings = configuration.stop_strings.clone();
        Ok(processor)
    }

    /// The prompt of a conversation, as text. `model` is the name for the error.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoChatTemplate`], or the template refuses the conversation.
    pub fn render(&self, input: &ChatInput, model: &str) -> Result<String> {
        let template = self
            .chat_template
            .as_ref()
            .ok_or_else(|| EngineError::NoChatTemplate { model: model.to_owned() })?;
        // As mlx-lm: a model with tokens for thinking thinks, unless it is told not to.
        let mut variables = input.template_kwargs.clone();
        variables.entry("enable_thinking").or_insert_with(|| self.tokenizer.can_think().into());
        // No kind of media is taken: a part that is not text is an error that names it.
        let mut inputs = RenderInputs {
            add_generation_prompt: input.add_generation_prompt && !input.continue_final_message,
            continue_final_message: input.continue_final_message,
            ..RenderInputs::new(&input.messages)
        }
        .with_special_tokens(self.tokenizer.special_tokens())
        .with_extra(&variables);
        if !input.tools.is_empty() {
            inputs = inputs.with_tools(&input.tools);
        }
        Ok(template.render(&inputs)?)
    }

    /// Takes the answer to a prompt apart, thoughts and calls from text. Of the prompt only the end counts, inside of which the
    /// answer may begin; the tools say what type an argument has where the model does not.
    pub fn output_parser(&self, tools: &[Value], prompt: &str) -> OutputParser {
        self.output_format.parser(tools, prompt)
    }

    /// Tokens that XTC never removes: those of a line end, as in mlx-lm, and the stop tokens.
    pub(crate) fn protected(&self) -> Result<Arc<[u32]>> {
        let mut tokens = self.tokenizer.encode("\n", false)?;
        tokens.extend(self.stop_tokens.iter());
        Ok(tokens.into())
    }
}
