//! A conversation that is to be answered, by whichever API it comes.

use std::sync::Arc;

use pippin::chat::{ChatInput, GrammarError};
use pippin::generate::Constraint;
use pippin::text::{Calls, OutputParser};
use pippin::{EngineError, GenerateParameters, Message, ModelContainer, Role};

use crate::answers::{Answers, Reading};
use crate::error::{ApiError, ApiResult};
use crate::instructions;
use crate::reasoning::Reasoning;
use crate::shared::{Caller, Shared, blocking};
use crate::structure::Structure;
use crate::tools::ToolUse;

/// What is asked.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    /// The model's name.
    pub(crate) model: Option<String>,
    pub(crate) input: ChatInput,
    pub(crate) parameters: GenerateParameters,
    pub(crate) tools: ToolUse,
    pub(crate) structure: Option<Structure>,
    pub(crate) reasoning: Reasoning,
    /// The most tokens of a thought, for a model that marks its thoughts.
    pub(crate) thinking_budget: Option<usize>,
    /// Answers.
    pub(crate) count: usize,
}

/// Answers that have begun.
pub(crate) struct Begun {
    pub(crate) answers: Answers,
    pub(crate) model: ModelContainer,
    /// The model as the request names it.
    pub(crate) name: String,
    pub(crate) prompt_tokens: usize,
}

impl ChatRequest {
    /// Begins to answer.
    pub(crate) async fn begin(mut self, shared: &Arc<Shared>, caller: &Caller) -> ApiResult<Begun> {
        let ready = shared.ready(caller, self.model.take(), self.count).await?;
        let (model, name) = (ready.model.clone(), ready.name.clone());
        let count = self.count;
        let field = match (self.tools.needs_form(), &self.structure) {
            (true, _) | (_, None) => "tools",
            (false, Some(structure)) => structure.field,
        };
        let prepared = {
            let (shared, model) = (Arc::clone(shared), model.clone());
            blocking(move || self.prepare(&model).map_err(|error| error.told(&shared))).await??
        };
        let prompt_tokens = prepared.tokens.len();
        let reading = prepared.reading;
        let answers =
            Answers::begin(shared, ready, vec![prepared.tokens], prepared.parameters, count, &reading)
                .await
                .map_err(|error| if error.is_of_constraint() { error.at(field) } else { error })?;
        Ok(Begun { answers, model, name, prompt_tokens })
    }

    /// The tokens that the model would see.
    pub(crate) async fn tokens(mut self, shared: &Arc<Shared>, caller: &Caller) -> ApiResult<Vec<u32>> {
        let ready = shared.ready(caller, self.model.take(), 1).await?;
        let work = move || {
            let prompt = self.render(&ready.model)?;
            // More than the context holds can be counted all the same. The template has written the special tokens.
            Ok(ready.model.tokenizer().encode(&prompt, false)?)
        };
        blocking(work).await?.map_err(|error: EngineError| shared.fault(error))
    }

    fn prepare(mut self, model: &ModelContainer) -> Result<Prepared, Problem> {
        check_roles(&self.input.messages, model).map_err(Problem::Api)?;
        let prompt = self.render(model)?;
        let tokens = model.prompt_tokens(&prompt)?;
        let (parser, constraint) = plan(&self.tools, self.structure.as_ref(), model, &prompt)?;
        if let Some(constraint) = constraint {
            self.parameters.constraint = Some(constraint);
        }
        if model.processor().output_format.has_thoughts() {
            self.parameters.thinking_budget = self.thinking_budget.or(self.parameters.thinking_budget);
        }
        if self.tools.needs_form() && self.parameters.constraint.is_some() {
            // What is not strict need not be followed where it cannot be.
            let is_followed = model.prepare_constraint(&tokens, &self.parameters).is_ok();
            if !is_followed && self.tools.loosen() {
                let (_, constraint) = plan(&self.tools, self.structure.as_ref(), model, &prompt)?;
                self.parameters.constraint = constraint;
            }
            // What is wrong then is wrong with a strict one.
            if !is_followed
                && model.prepare_constraint(&tokens, &self.parameters).is_err()
                && let Some(error) = self.tools.at_fault(model)
            {
                return Err(Problem::Api(error));
            }
        }
        let one_call = self.tools.may_call() && !self.tools.is_parallel;
        Ok(Prepared {
            tokens,
            parameters: self.parameters,
            reading: Reading { parser: Some(parser), one_call },
        })
    }

    fn render(&mut self, model: &ModelContainer) -> pippin::Result<String> {
        self.input.tools = self.tools.shown();
        self.reasoning.tell(&mut self.input.template_kwargs);
        render(model, &mut self.input)
    }
}

/// The prompt of a conversation. Roles that the template does not know have their older names.
pub(crate) fn render(model: &ModelContainer, input: &mut ChatInput) -> pippin::Result<String> {
    let ChatInput { messages, tools, .. } = &mut *input;
    let template = model.processor().chat_template.as_ref();
    if template.is_some_and(|template| !template.source(!tools.is_empty()).contains("developer")) {
        messages.iter_mut().for_each(rename_developer);
    }
    match model.apply_chat_template(input) {
        // Templates that know instructions at the beginning only say so by an error.
        Err(error) if instructions::has_later(&input.messages) => {
            input.messages = instructions::fold(std::mem::take(&mut input.messages));
            model.apply_chat_template(input).map_err(|_| error)
        }
        outcome => outcome,
    }
}

/// Refuses roles that neither the API nor the model's template knows: what they say would be shown as nobody's, or not at all.
fn check_roles(messages: &[Message], model: &ModelContainer) -> ApiResult<()> {
    let template = model.processor().chat_template.as_ref();
    for (index, message) in messages.iter().enumerate() {
        let Role::Other(role) = message.role() else { continue };
        // As templates ask for it.
        let asked = [format!("'{role}'"), format!("\"{role}\"")];
        let is_shown = || {
            let source = template.map_or("", |template| template.source(false));
            !role.is_empty() && asked.iter().any(|asked| source.contains(asked))
        };
        if role != "developer" && role != "function" && !is_shown() {
            let expected = "system, developer, user, assistant, tool, or one that the model's template knows";
            return Err(ApiError::field(&format!("messages.{index}.role"), expected));
        }
    }
    Ok(())
}

/// Instructions by their older name, which all templates know.
fn rename_developer(message: &mut Message) {
    if message.role().as_str() == "developer" {
        let mut fields = message.fields().clone();
        fields.insert("role".to_owned(), "system".into());
        if let Ok(renamed) = Message::try_from(fields) {
            *message = renamed;
        }
    }
}

struct Prepared {
    tokens: Vec<u32>,
    parameters: GenerateParameters,
    reading: Reading,
}

/// What goes wrong on the thread that prepares.
enum Problem {
    Engine(EngineError),
    Api(ApiError),
}

impl Problem {
    fn told(self, shared: &Shared) -> ApiError {
        match self {
            Self::Engine(error) => shared.fault(error),
            Self::Api(error) => error,
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// What reads the answers, and what they are held to.
fn plan(
    tools: &ToolUse,
    structure: Option<&Structure>,
    model: &ModelContainer,
    prompt: &str,
) -> Result<(OutputParser, Option<Constraint>), Problem> {
    tools.check().map_err(Problem::Api)?;
    let refuse = |field, message: &str| Err(Problem::Api(ApiError::invalid(message).at(field)));
    let (format, tokenizer) = (&model.processor().output_format, model.tokenizer());
    if !tools.may_call() {
        return Ok((format.text_parser(prompt), structure.map(|structure| structure.constraint.clone())));
    }
    let schema = match structure {
        // What must be a call is no document.
        Some(_) if tools.calls == Calls::Required => None,
        Some(structure) => match structure.schema() {
            Some(schema) => Some(schema),
            None => {
                return refuse(structure.field, "together with tools, an answer can only be held to JSON");
            }
        },
        None => None,
    };
    if schema.is_none() && !tools.needs_form() {
        return Ok((format.parser(&tools.tools, prompt), None));
    }
    let grammar = tools.form(schema.clone()).grammar(format, tokenizer).or_else(|| {
        // What is not strict need not be followed where the model's own form cannot.
        let mut tools = tools.clone();
        tools.loosen().then(|| tools.form(schema).grammar(format, tokenizer)).flatten()
    });
    match grammar {
        Some((grammar, format)) => {
            Ok((format.parser(&tools.tools, prompt), Some(Constraint::grammar(grammar))))
        }
        None => refuse(
            "tools",
            "in the form in which this model writes calls, these strict tools, or these tools beside a response_format, cannot be \
             followed; require a call, or leave the other out",
        ),
    }
}

impl ApiError {
    /// What is wrong with a constraint.
    pub(crate) fn of_grammar(error: &GrammarError) -> Self {
        use axum::http::StatusCode;
        let message = match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        };
        match error {
            GrammarError::Busy => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("constraints_busy"), message).again_after(1)
            }
            // The constraint turns out to be more than can be followed.
            GrammarError::Step { .. } => {
                Self::new(StatusCode::BAD_REQUEST, Some("constraint_failed"), message)
            }
            _ => Self::new(StatusCode::BAD_REQUEST, Some(INVALID_CONSTRAINT), message),
        }
    }

    pub(crate) fn is_of_constraint(&self) -> bool {
        self.code == Some(INVALID_CONSTRAINT)
    }
}

const INVALID_CONSTRAINT: &str = "invalid_constraint";
