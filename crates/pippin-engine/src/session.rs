use pippin_text::Message;
use serde_json::{Map, Value};

use crate::processor::ChatInput;
use crate::stream::{CancelHandle, GenerateInfo, GenerationEvent, GenerationStream};
use crate::{GenerateParameters, ModelContainer, Result};

/// A conversation with a model.
///
/// Each turn sends the whole conversation; the engine recognises what it has computed before, so that only what is new
/// costs time.
///
/// ```no_run
/// use pippin_engine::{ChatSession, LoadOptions, ModelContainer};
///
/// let model = ModelContainer::load("pippin-nano", &LoadOptions::default())?;
/// let mut chat = ChatSession::new(model).system("You are a helpful assistant.");
/// println!("{}", chat.respond("What is the capital of France?")?);
/// for text in chat.stream("And of Italy?")? {
///     print!("{}", text?);
/// }
/// # Ok::<(), pippin_engine::EngineError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChatSession {
    container: ModelContainer,
    system: Option<String>,
    parameters: GenerateParameters,
    /// The conversation without the system message.
    history: Vec<Message>,
    tools: Vec<Value>,
    template_kwargs: Map<String, Value>,
    last_info: Option<GenerateInfo>,
}

impl ChatSession {
    /// An empty conversation with the default parameters.
    pub fn new(container: ModelContainer) -> Self {
        Self {
            container,
            system: None,
            parameters: GenerateParameters::default(),
            history: Vec::new(),
            tools: Vec::new(),
            template_kwargs: Map::new(),
            last_info: None,
        }
    }

    /// With instructions for the model; an empty text means none.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.set_system(Some(text.into()));
        self
    }

    /// With parameters.
    #[must_use]
    pub fn parameters(mut self, parameters: GenerateParameters) -> Self {
        self.parameters = parameters;
        self
    }

    /// With messages exchanged earlier. A system message at their head counts as the instructions.
    #[must_use]
    pub fn history(mut self, messages: Vec<Message>) -> Self {
        self.history = messages;
        self
    }

    /// With tools that the model may call, each a JSON object in the form of the OpenAI API.
    #[must_use]
    pub fn tools(mut self, tools: Vec<Value>) -> Self {
        self.tools = tools;
        self
    }

    /// With further variables for the chat template (`enable_thinking` and the like).
    #[must_use]
    pub fn template_kwargs(mut self, variables: Map<String, Value>) -> Self {
        self.template_kwargs = variables;
        self
    }

    /// Answers a message, and keeps both.
    ///
    /// # Errors
    ///
    /// The model has no chat template, the conversation does not fit the context, or generation failed. The
    /// conversation is then as it was before.
    pub fn respond(&mut self, message: &str) -> Result<String> {
        self.respond_to(Message::user(message))
    }

    /// [`respond`](Self::respond) to a message of any role: a tool's result, for example.
    ///
    /// # Errors
    ///
    /// As for [`respond`](Self::respond).
    pub fn respond_to(&mut self, message: Message) -> Result<String> {
        let mut stream = self.stream_to(message)?;
        for text in &mut stream {
            text?;
        }
        Ok(stream.answer.clone())
    }

    /// Answers a message piece by piece.
    ///
    /// At its end, and when it is dropped earlier, the stream adds the message and the answer *so far* to the
    /// conversation: what was shown is what the model will remember. When there is no answer yet, or generation fails,
    /// the conversation stays as it was.
    ///
    /// # Errors
    ///
    /// As for [`respond`](Self::respond).
    pub fn stream(&mut self, message: &str) -> Result<ResponseStream<'_>> {
        self.stream_to(Message::user(message))
    }

    /// [`stream`](Self::stream) for a message of any role.
    ///
    /// # Errors
    ///
    /// As for [`respond`](Self::respond).
    pub fn stream_to(&mut self, message: Message) -> Result<ResponseStream<'_>> {
        self.last_info = None;
        let mut messages = self.messages();
        messages.push(message.clone());
        let input =
            ChatInput { messages, tools: self.tools.clone(), template_kwargs: self.template_kwargs.clone() };
        let events = self.container.generate_chat(&input, &self.parameters)?;
        Ok(ResponseStream { session: self, events, message: Some(message), answer: String::new() })
    }

    /// Forgets the conversation. Instructions, parameters and tools stay.
    pub fn clear(&mut self) {
        self.history.clear();
        self.last_info = None;
    }

    /// The whole conversation, the instructions at its head.
    pub fn messages(&self) -> Vec<Message> {
        let mut messages: Vec<Message> = self.system.iter().map(Message::system).collect();
        messages.extend(self.history.iter().cloned());
        messages
    }

    /// The conversation without the instructions, to be changed at will.
    pub fn history_mut(&mut self) -> &mut Vec<Message> {
        &mut self.history
    }

    /// The instructions.
    pub fn system_text(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Replaces the instructions; the conversation stays.
    pub fn set_system(&mut self, text: Option<String>) {
        self.system = text.filter(|text| !text.is_empty());
    }

    /// The parameters, to be changed between turns.
    pub fn parameters_mut(&mut self) -> &mut GenerateParameters {
        &mut self.parameters
    }

    /// The numbers of the last answer, when it came to an end.
    pub fn last_info(&self) -> Option<&GenerateInfo> {
        self.last_info.as_ref()
    }

    /// The model.
    pub fn container(&self) -> &ModelContainer {
        &self.container
    }
}

/// The text of an answer, piece by piece. See [`ChatSession::stream`].
#[derive(Debug)]
pub struct ResponseStream<'a> {
    session: &'a mut ChatSession,
    events: GenerationStream,
    /// The message that is answered, until it is part of the conversation or given up.
    message: Option<Message>,
    answer: String,
}

impl ResponseStream<'_> {
    /// A handle to cancel the answer from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.events.cancel_handle()
    }

    /// The answer so far.
    pub fn text(&self) -> &str {
        &self.answer
    }

    /// The numbers, once the answer has ended.
    pub fn info(&self) -> Option<&GenerateInfo> {
        self.session.last_info.as_ref()
    }

    fn commit(&mut self) {
        let Some(message) = self.message.take() else { return };
        if !self.answer.is_empty() {
            self.session.history.push(message);
            self.session.history.push(Message::assistant(self.answer.as_str()));
        }
    }
}

impl Iterator for ResponseStream<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.events.next()? {
                Ok(GenerationEvent::Info(info)) => {
                    self.session.last_info = Some(info);
                    self.commit();
                }
                Ok(GenerationEvent::Token { text, .. } | GenerationEvent::Chunk(text)) => {
                    if !text.is_empty() {
                        self.answer.push_str(&text);
                        return Some(Ok(text));
                    }
                }
                Err(error) => {
                    self.message = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::iter::FusedIterator for ResponseStream<'_> {}

impl Drop for ResponseStream<'_> {
    fn drop(&mut self) {
        self.commit();
    }
}
