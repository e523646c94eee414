use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use pippin_text::{Content, Message, OutputEvent, OutputParser, ParsedOutput, ToolCall};
use serde_json::{Map, Value};

use crate::channel::Wait;
use crate::disk::Bundle;
use crate::processor::ChatInput;
use crate::stream::{CancelHandle, FinishReason, GenerateInfo, GenerationEvent, GenerationStream, readable};
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
///
/// # Thoughts and tools
///
/// Answers are taken apart ([`pippin_text::OutputParser`]): their text is what [`respond`](Self::respond) returns and
/// [`stream`](Self::stream) yields; what the model thinks before it, and its calls of tools, stand beside it
/// ([`ResponseStream::reasoning`], [`ResponseStream::tool_calls`], or all of them in their order:
/// [`ResponseStream::into_events`]). All are part of the message that is remembered. With a
/// [dispatch](Self::with_tool_dispatch) of calls, `respond` goes on until the model calls no more.
pub struct ChatSession {
    container: ModelContainer,
    system: Option<String>,
    parameters: GenerateParameters,
    tools: Vec<Value>,
    dispatch: Option<Dispatch>,
    max_tool_rounds: usize,
    template_kwargs: Map<String, Value>,
    /// Shared with the stream of the turn that is under way.
    conversation: Arc<Mutex<Conversation>>,
}

/// Carries out a call: what the tool says, or why it failed.
type Dispatch = Arc<dyn Fn(&ToolCall) -> std::result::Result<Content, String> + Send + Sync>;

/// How often in a row a model may call tools, unless told otherwise.
const MAX_TOOL_ROUNDS: usize = 16;

impl fmt::Debug for ChatSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatSession")
            .field("container", &self.container)
            .field("system", &self.system)
            .field("parameters", &self.parameters)
            .field("tools", &self.tools)
            .field("has_tool_dispatch", &self.dispatch.is_some())
            .field("max_tool_rounds", &self.max_tool_rounds)
            .field("template_kwargs", &self.template_kwargs)
            .field("conversation", &self.conversation)
            .finish()
    }
}

#[derive(Debug, Default)]
struct Conversation {
    /// What was said, without the system message.
    history: Vec<Message>,
    /// The turn that is under way.
    running: Option<u64>,
    turns: u64,
    last_info: Option<GenerateInfo>,
    /// The tokens of the last turn: what the model has computed of the conversation begins with most of them.
    computed: Vec<u32>,
    /// What was computed of it before it was loaded from a file.
    prefix: Option<Arc<Bundle>>,
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
            dispatch: None,
            max_tool_rounds: MAX_TOOL_ROUNDS,
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

    /// With a function that carries out calls of tools. [`respond`](Self::respond) gives its results to the model and goes
    /// on, until the model calls no more; an error is told to the model as well. It is called on the thread that waits for
    /// the answer, for one call after another.
    ///
    /// What it is given comes from the model: the name may be that of no tool, and the arguments may be anything.
    #[must_use]
    pub fn with_tool_dispatch<T: Into<Content>, E: fmt::Display>(
        mut self,
        dispatch: impl Fn(&ToolCall) -> std::result::Result<T, E> + Send + Sync + 'static,
    ) -> Self {
        self.dispatch =
            Some(Arc::new(move |call| dispatch(call).map(Into::into).map_err(|error| error.to_string())));
        self
    }

    /// With a limit to how often in a row the model may call tools before it answers; 16 by default.
    #[must_use]
    pub fn with_max_tool_rounds(mut self, max_tool_rounds: usize) -> Self {
        self.max_tool_rounds = max_tool_rounds;
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
    /// ([`EngineError::SessionBusy`]), generation failed, or the model calls tools again and again
    /// ([`EngineError::TooManyToolRounds`]). The conversation is then as it was before.
    pub fn respond(&mut self, message: &str) -> Result<String> {
        self.respond_to(Message::user(message))
    }

    /// [`respond`](Self::respond) to a message of any role: a tool's result, for example.
    ///
    /// # Errors
    ///
    /// As for [`respond`](Self::respond).
    pub fn respond_to(&mut self, message: Message) -> Result<String> {
        let before = lock(&self.conversation).history.len();
        let mut messages = vec![message];
        for round in 0.. {
            let outcome = self.round(messages);
            let (output, dispatch) = match outcome {
                Ok(output) => match self.dispatch.clone().filter(|_| !output.tool_calls.is_empty()) {
                    Some(dispatch) => (output, dispatch),
                    None => return Ok(output.content),
                },
                Err(error) => return Err(self.undo(round, before, error)),
            };
            if round == self.max_tool_rounds {
                let error = EngineError::TooManyToolRounds { limit: self.max_tool_rounds };
                return Err(self.undo(round + 1, before, error));
            }
            let result = |call: &ToolCall| {
                let content = dispatch(call).unwrap_or_else(|error| format!("error: {error}").into());
                Message::tool(call.id.clone().unwrap_or_default(), content).with_name(&call.function.name)
            };
            messages = output.tool_calls.iter().map(result).collect();
        }
        Ok(String::new())
    }

    /// Answers a message with other parameters and without tools, and makes something of the answer. Where that fails, the
    /// conversation is as it was before.
    #[cfg(feature = "schemars")]
    pub(crate) fn respond_bound<T>(
        &mut self,
        message: Message,
        parameters: &GenerateParameters,
        read: impl FnOnce(&ParsedOutput, Option<&GenerateInfo>) -> Result<T>,
    ) -> Result<T> {
        let before = lock(&self.conversation).history.len();
        let mut events = self.turn([message], parameters, None)?.into_events();
        for event in &mut events {
            event?;
        }
        read(&events.output, events.info()).map_err(|error| self.undo(1, before, error))
    }

    /// One answer, as a whole.
    fn round(&mut self, messages: Vec<Message>) -> Result<ParsedOutput> {
        let mut events = self.stream_all(messages)?.into_events();
        for event in &mut events {
            event?;
        }
        Ok(std::mem::take(&mut events.output))
    }

    /// Makes the conversation what it was, where there were answers since.
    fn undo(&mut self, rounds: usize, before: usize, error: EngineError) -> EngineError {
        if rounds > 0 {
            lock(&self.conversation).history.truncate(before);
        }
        error
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
        self.stream_all([message])
    }

    /// [`stream`](Self::stream) for several messages: the results of all tools that an answer has called.
    ///
    /// # Errors
    ///
    /// As for [`respond`](Self::respond).
    pub fn stream_all(&mut self, messages: impl Into<Vec<Message>>) -> Result<ResponseStream> {
        self.turn(messages, &self.parameters, Some(&self.tools))
    }

    /// Begins a turn. Without tools, the answer has no calls, whatever it looks like.
    fn turn(
        &self,
        said: impl Into<Vec<Message>>,
        parameters: &GenerateParameters,
        tools: Option<&[Value]>,
    ) -> Result<ResponseStream> {
        if self.is_answering() {
            return Err(EngineError::SessionBusy);
        }
        lock(&self.conversation).last_info = None;
        let said = said.into();
        let mut messages = self.messages();
        let calls = messages.iter().map(|message| message.tool_calls().len()).sum();
        messages.extend(said.iter().cloned());
        let input = ChatInput::from(messages)
            .with_tools(tools.unwrap_or_default())
            .with_template_kwargs(self.template_kwargs.clone());
        let prompt = self.container.apply_chat_template(&input)?;
        let processor = self.container.processor();
        let parser = match tools {
            Some(tools) => processor.output_parser(tools, &prompt),
            None => processor.output_format.text_parser(&prompt),
        };
        let tokens = self.container.prompt_tokens(&prompt)?;
        let constraint = self.container.prepare_constraint(&tokens, parameters)?;
        let prefix = lock(&self.conversation).prefix.clone();
        let events = self.container.generate_with(tokens.clone(), parameters, constraint, prefix)?;
        let mut conversation = lock(&self.conversation);
        // From now on the model's caches have it.
        conversation.prefix = None;
        conversation.turns += 1;
        conversation.running = Some(conversation.turns);
        let events = ResponseEvents {
            conversation: Arc::clone(&self.conversation),
            turn: conversation.turns,
            tokens,
            events,
            parser,
            pending: VecDeque::new(),
            calls,
            said: Some(said),
            output: ParsedOutput::default(),
            info: None,
        };
        Ok(ResponseStream { events })
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

    pub(crate) fn max_tool_rounds(&self) -> usize {
        self.max_tool_rounds
    }

    /// The tokens of the last turn.
    pub(crate) fn computed(&self) -> Vec<u32> {
        lock(&self.conversation).computed.clone()
    }

    /// What was computed of the conversation before it was loaded, until a turn has used it.
    pub(crate) fn prefix(&self) -> Option<Arc<Bundle>> {
        lock(&self.conversation).prefix.clone()
    }

    /// What was computed of the conversation before.
    pub(crate) fn set_prefix(&mut self, prefix: Option<Arc<Bundle>>) {
        lock(&self.conversation).prefix = prefix;
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
            let Conversation { history, last_info, computed, prefix, .. } = &*lock(&self.conversation);
            Conversation {
                history: history.clone(),
                last_info: last_info.clone(),
                computed: computed.clone(),
                prefix: prefix.clone(),
                ..Conversation::default()
            }
        };
        Self {
            container: self.container.clone(),
            system: self.system.clone(),
            parameters: self.parameters.clone(),
            tools: self.tools.clone(),
            dispatch: self.dispatch.clone(),
            max_tool_rounds: self.max_tool_rounds,
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
    events: ResponseEvents,
}

impl ResponseStream {
    /// A handle to cancel the answer from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.events.cancel_handle()
    }

    /// The answer so far.
    pub fn text(&self) -> &str {
        &self.events.output.content
    }

    /// What the model has thought so far.
    pub fn reasoning(&self) -> &str {
        &self.events.output.reasoning
    }

    /// The calls of tools so far; each has an id.
    pub fn tool_calls(&self) -> &[ToolCall] {
        &self.events.output.tool_calls
    }

    /// The numbers, once the answer has ended.
    pub fn info(&self) -> Option<&GenerateInfo> {
        self.events.info()
    }

    /// The same answer with its thoughts and calls, in the order in which they come.
    pub fn into_events(self) -> ResponseEvents {
        self.events
    }

    fn receive(&mut self, wait: &mut Wait<'_, '_>) -> Poll<Option<Result<String>>> {
        loop {
            match ready!(self.events.receive(wait)) {
                Some(Ok(OutputEvent::Content(text))) => return Poll::Ready(Some(Ok(text))),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

readable!(ResponseStream, String);

/// The parts of an answer, thoughts, text and calls, as they come. See [`ResponseStream::into_events`].
///
/// It is read like a [`ResponseStream`].
#[derive(Debug)]
pub struct ResponseEvents {
    conversation: Arc<Mutex<Conversation>>,
    turn: u64,
    /// Those of the prompt, and those that have come since.
    tokens: Vec<u32>,
    events: GenerationStream,
    parser: OutputParser,
    /// What has been found and not been read.
    pending: VecDeque<OutputEvent>,
    /// The calls of the conversation before this answer.
    calls: usize,
    /// What is answered, until it is part of the conversation or given up.
    said: Option<Vec<Message>>,
    /// What has been read.
    output: ParsedOutput,
    info: Option<GenerateInfo>,
}

impl ResponseEvents {
    /// A handle to cancel the answer from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.events.cancel_handle()
    }

    /// The answer so far.
    pub fn output(&self) -> &ParsedOutput {
        &self.output
    }

    /// The numbers, once the answer has ended.
    pub fn info(&self) -> Option<&GenerateInfo> {
        self.info.as_ref().filter(|_| self.said.is_none())
    }

    fn receive(&mut self, wait: &mut Wait<'_, '_>) -> Poll<Option<Result<OutputEvent>>> {
        loop {
            if let Some(mut event) = self.pending.pop_front() {
                if let OutputEvent::ToolCall { index, call } = &mut event {
                    // Of the form that all templates take: Mistral's want nine letters or digits.
                    let number = self.calls + *index;
                    call.id.get_or_insert_with(|| format!("call{number:05}"));
                }
                self.output.push(event.clone());
                if self.pending.is_empty() && self.info.is_some() {
                    self.end(true);
                }
                return Poll::Ready(Some(Ok(event)));
            }
            match ready!(self.events.receive(wait)) {
                Some(Ok(GenerationEvent::Info(info))) => {
                    self.info = Some(info);
                    self.pending.extend(self.parser.finish());
                    if self.pending.is_empty() {
                        self.end(true);
                    }
                }
                Some(Ok(event)) => {
                    if let GenerationEvent::Token { id, .. } = &event {
                        self.tokens.push(*id);
                    }
                    self.pending.extend(self.parser.push(event.text()));
                }
                Some(Err(error)) => {
                    self.end(false);
                    return Poll::Ready(Some(Err(error)));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    /// Ends the turn, which is remembered if there is an answer. A thought alone is one only where the model has ended.
    fn end(&mut self, is_remembered: bool) {
        let Some(said) = self.said.take() else { return };
        let output = &self.output;
        let is_whole = self.info.as_ref().is_some_and(|info| info.finish_reason != FinishReason::Cancelled);
        let is_answer = !output.content.is_empty() || !output.tool_calls.is_empty();
        let is_remembered = is_remembered && (is_answer || is_whole && !output.is_empty());
        let turn = is_remembered.then(|| said.into_iter().chain([output.clone().into_message()]));
        let mut conversation = lock(&self.conversation);
        if conversation.running == Some(self.turn) {
            conversation.computed = std::mem::take(&mut self.tokens);
        }
        conversation.end(self.turn, turn.into_iter().flatten(), self.info.clone());
    }
}

readable!(ResponseEvents, OutputEvent);

impl Drop for ResponseEvents {
    fn drop(&mut self) {
        self.end(true);
    }
}
