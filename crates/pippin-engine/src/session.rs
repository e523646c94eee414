use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use pippin_text::Message;
use serde_json::{Map, Value};

use crate::channel::Wait;
use crate::processor::ChatInput;
use crate::stream::{CancelHandle, GenerateInfo, GenerationEvent, GenerationStream, readable};
use crate::{EngineError, GenerateParameters, ModelContainer, Result};

/// A conversation with a model.
///
/// Each turn sends the whole conversation; the engine recognises what it has computed before, so that only what is new
/// costs time.
///
/// ```no_run
/// use pippin_engine::{ChatSession, LoadOptions, ModelContainer};
///
/// let model = ModelContainer::load("pippin-nano", &LoadOptions::default())?;
/// let mut chat = ChatSession::new(model).with_system("You are a helpful assistant.");
/// println!("{}", chat.respond("What is the capital of France?")?);
/// for text in chat.stream("And of Italy?")? {
///     print!("{}", text?);
/// }
/// # Ok::<(), pippin_engine::EngineError>(())
/// ```
///
/// # One turn at a time
///
/// A conversation is a sequence of turns, so while an answer is being written the next one cannot begin: that is
/// [`EngineError::SessionBusy`]. The answer ends when its [`ResponseStream`] has been read to the end or is dropped; a
/// stream that was cancelled by its handle still has to be read or dropped. Until then the conversation is as it was
/// before the turn, whoever looks at it. [`clear`](Self::clear) and [`set_history`](Self::set_history) do not wait: the
/// answer that is being written belongs to a conversation that is no more. Its stream goes on, but what it says will not be
/// remembered. Instructions, parameters and tools can be changed at any time, and hold from the next turn on.
///
/// [Cloning](Clone) gives a conversation of its own, which begins with what has been said so far; two answers to one
/// conversation are two clones.
#[derive(Debug)]
pub struct ChatSession {
    container: ModelContainer,
    system: Option<String>,
    parameters: GenerateParameters,
    tools: Vec<Value>,
    template_kwargs: Map<String, Value>,
    /// Shared with the stream of the turn that is under way.
    conversation: Arc<Mutex<Conversation>>,
}

#[derive(Debug, Default)]
struct Conversation {
    /// What was said, without the system message.
    history: Vec<Message>,
    /// The turn that is under way.
    running: Option<u64>,
    turns: u64,
    last_info: Option<GenerateInfo>,
}

impl Conversation {
    /// Ends a turn, if it is still this conversation's.
    fn end(&mut self, turn: u64, said: impl IntoIterator<Item = Message>, info: Option<GenerateInfo>) {
        if self.running == Some(turn) {
            self.running = None;
            self.history.extend(said);
            self.last_info = info;
        }
    }
}

fn lock(conversation: &Mutex<Conversation>) -> MutexGuard<'_, Conversation> {
    conversation.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ChatSession {
    /// An empty conversation with the default parameters.
    pub fn new(container: ModelContainer) -> Self {
        Self {
            container,
            system: None,
            parameters: GenerateParameters::default(),
            tools: Vec::new(),
            template_kwargs: Map::new(),
            conversation: Arc::default(),
        }
    }

    /// With instructions for the model; an empty text means none.
    #[must_use]
    pub fn with_system(mut self, text: impl Into<String>) -> Self {
        self.set_system(Some(text.into()));
        self
    }

    /// With parameters.
    #[must_use]
    pub fn with_parameters(mut self, parameters: GenerateParameters) -> Self {
        self.parameters = parameters;
        self
    }

    /// With messages exchanged earlier. A system message at their head counts as the instructions.
    #[must_use]
    pub fn with_history(mut self, messages: impl Into<Vec<Message>>) -> Self {
        self.set_history(messages);
        self
    }

    /// With tools that the model may call, each a JSON object in the form of the OpenAI API.
    #[must_use]
    pub fn with_tools(mut self, tools: impl Into<Vec<Value>>) -> Self {
        self.tools = tools.into();
        self
    }

    /// With further variables for the chat template (`enable_thinking` and the like).
    #[must_use]
    pub fn with_template_kwargs(mut self, variables: Map<String, Value>) -> Self {
        self.template_kwargs = variables;
        self
    }

    /// Answers a message, and keeps both.
    ///
    /// # Errors
    ///
    /// The model has no chat template, the conversation does not fit the context, an answer is being written already
    /// ([`EngineError::SessionBusy`]), or generation failed. The conversation is then as it was before.
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
        Ok(std::mem::take(&mut stream.answer))
    }

    /// Answers a message piece by piece.
    ///
    /// The stream is its own: it can be moved to another thread or task, and outlive the session. At its end, and when it
    /// is dropped earlier, it adds the message and the answer *so far* to the conversation: what was shown is what the
    /// model will remember. When there is no answer yet, or generation fails, the conversation stays as it was.
    ///
    /// # Errors
    ///
    /// As for [`respond`](Self::respond).
    pub fn stream(&mut self, message: &str) -> Result<ResponseStream> {
        self.stream_to(Message::user(message))
    }

    /// [`stream`](Self::stream) for a message of any role.
    ///
    /// # Errors
    ///
    /// As for [`respond`](Self::respond).
    pub fn stream_to(&mut self, message: Message) -> Result<ResponseStream> {
        if self.is_answering() {
            return Err(EngineError::SessionBusy);
        }
        lock(&self.conversation).last_info = None;
        let mut messages = self.messages();
        messages.push(message.clone());
        let input = ChatInput::from(messages)
            .with_tools(self.tools.clone())
            .with_template_kwargs(self.template_kwargs.clone());
        let events = self.container.generate_chat(&input, &self.parameters)?;
        let mut conversation = lock(&self.conversation);
        conversation.turns += 1;
        conversation.running = Some(conversation.turns);
        Ok(ResponseStream {
            conversation: Arc::clone(&self.conversation),
            turn: conversation.turns,
            events,
            message: Some(message),
            answer: String::new(),
            info: None,
        })
    }

    /// Whether an answer is being written: a stream has neither been read to its end nor dropped.
    pub fn is_answering(&self) -> bool {
        lock(&self.conversation).running.is_some()
    }

    /// Forgets the conversation, and the answer that is being written. Instructions, parameters and tools stay.
    pub fn clear(&mut self) {
        self.set_history([]);
    }

    /// The whole conversation, the instructions at its head.
    pub fn messages(&self) -> Vec<Message> {
        let mut messages: Vec<Message> = self.system.iter().map(Message::system).collect();
        messages.extend(lock(&self.conversation).history.iter().cloned());
        messages
    }

    /// The conversation without the instructions.
    pub fn history(&self) -> Vec<Message> {
        lock(&self.conversation).history.clone()
    }

    /// Replaces the conversation; the instructions stay. The answer that is being written will not be part of it.
    pub fn set_history(&mut self, messages: impl Into<Vec<Message>>) {
        let mut conversation = lock(&self.conversation);
        conversation.history = messages.into();
        conversation.running = None;
        conversation.last_info = None;
    }

    /// The instructions.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Replaces the instructions; the conversation stays.
    pub fn set_system(&mut self, text: Option<String>) {
        self.system = text.filter(|text| !text.is_empty());
    }

    /// The parameters.
    pub fn parameters(&self) -> &GenerateParameters {
        &self.parameters
    }

    /// The parameters, to be changed between turns.
    pub fn parameters_mut(&mut self) -> &mut GenerateParameters {
        &mut self.parameters
    }

    /// The tools that the model may call.
    pub fn tools(&self) -> &[Value] {
        &self.tools
    }

    /// The further variables of the chat template.
    pub fn template_kwargs(&self) -> &Map<String, Value> {
        &self.template_kwargs
    }

    /// The numbers of the last answer, when it came to an end.
    pub fn last_info(&self) -> Option<GenerateInfo> {
        lock(&self.conversation).last_info.clone()
    }

    /// The model.
    pub fn container(&self) -> &ModelContainer {
        &self.container
    }
}

impl Clone for ChatSession {
    fn clone(&self) -> Self {
        let conversation = {
            let Conversation { history, last_info, .. } = &*lock(&self.conversation);
            Conversation { history: history.clone(), last_info: last_info.clone(), ..Conversation::default() }
        };
        Self {
            container: self.container.clone(),
            system: self.system.clone(),
            parameters: self.parameters.clone(),
            tools: self.tools.clone(),
            template_kwargs: self.template_kwargs.clone(),
            conversation: Arc::new(Mutex::new(conversation)),
        }
    }
}

/// The text of an answer, piece by piece; pieces are never empty. See [`ChatSession::stream`].
///
/// Like a [`GenerationStream`], it is an [`Iterator`] that waits, has a [`try_next`](Self::try_next) that does not, and can
/// be read from a task ([`poll_next`](Self::poll_next), [`into_async`](Self::into_async)). It keeps the model loaded.
#[derive(Debug)]
pub struct ResponseStream {
    conversation: Arc<Mutex<Conversation>>,
    turn: u64,
    events: GenerationStream,
    /// The message that is answered, until it is part of the conversation or given up.
    message: Option<Message>,
    answer: String,
    info: Option<GenerateInfo>,
}

impl ResponseStream {
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
        self.info.as_ref()
    }

    fn receive(&mut self, wait: &mut Wait<'_, '_>) -> Poll<Option<Result<String>>> {
        loop {
            match ready!(self.events.receive(wait)) {
                Some(Ok(GenerationEvent::Info(info))) => {
                    self.info = Some(info);
                    self.end(true);
                }
                Some(Ok(GenerationEvent::Token { text, .. } | GenerationEvent::Chunk(text))) => {
                    if !text.is_empty() {
                        self.answer.push_str(&text);
                        return Poll::Ready(Some(Ok(text)));
                    }
                }
                Some(Err(error)) => {
                    self.end(false);
                    return Poll::Ready(Some(Err(error)));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    /// Ends the turn, which is remembered if there is an answer.
    fn end(&mut self, is_remembered: bool) {
        let Some(message) = self.message.take() else { return };
        let is_remembered = is_remembered && !self.answer.is_empty();
        let said = is_remembered.then(|| [message, Message::assistant(self.answer.as_str())]);
        lock(&self.conversation).end(self.turn, said.into_iter().flatten(), self.info.clone());
    }
}

readable!(ResponseStream, String);

impl Drop for ResponseStream {
    fn drop(&mut self) {
        self.end(true);
    }
}
