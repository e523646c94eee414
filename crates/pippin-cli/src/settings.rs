//! Decisions: from what was typed to what is to be done.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use pippin::config::{ConfigInputs, ConfigSource};
use pippin::generate::Constraint;
use pippin::hub::{ModelRegistry, ModelSearch, SearchSort, looks_like_model};
use pippin::measure::Workload;
use pippin::{EngineConfig, EngineError, GenerateParameters, LoadOptions, Message};
use serde_json::{Map, Value};

use crate::args::{
    BenchArgs, BenchFormat, ChatArgs, Counts, FormArgs, PullArgs, RecommendArgs, RunArgs, SearchArgs,
    ServeArgs, ShowArgs, SortBy, TokenizeArgs,
};
use crate::commands::Detail;
use crate::env;
use crate::error::{CliError, Result};
use crate::input::Source;

/// The surroundings that decisions depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// Whether somebody types at standard input.
    pub(crate) stdin_is_terminal: bool,
    /// Whether somebody looks at standard output.
    pub(crate) stdout_is_terminal: bool,
    /// Where the configuration comes from, flags aside.
    pub(crate) inputs: ConfigInputs,
    /// `$PIPPIN_HISTORY`.
    pub(crate) history: Option<String>,
    /// Where programs keep their state: `$XDG_STATE_HOME` or what stands for it.
    pub(crate) state_folder: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn here() -> Self {
        Self {
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            inputs: ConfigInputs::from_env(),
            // An empty value means something here: no history.
            history: std::env::var(env::HISTORY).ok(),
            state_folder: state_folder(),
        }
    }

    /// The configuration with these flags.
    pub(crate) fn configured(
        &self,
        flags: impl FnOnce(ConfigInputs) -> ConfigInputs,
    ) -> Result<EngineConfig> {
        Ok(EngineConfig::resolve(&flags(self.inputs.clone())).map_err(EngineError::from)?)
    }

    /// The configuration of a command that has no flags for it.
    pub(crate) fn config(&self) -> Result<EngineConfig> {
        self.configured(|inputs| inputs)
    }

    fn history(&self) -> Option<PathBuf> {
        match self.history.as_deref() {
            Some("" | "off") => None,
            Some(path) => Some(pippin::hub::expand_path(path)),
            None => Some(self.state_folder.as_ref()?.join("pippin").join("history")),
        }
    }
}

/// Where programs keep what is worth keeping but not worth saving: the XDG state folder, or its like.
fn state_folder() -> Option<PathBuf> {
    let variable =
        |name| std::env::var_os(name).map(pippin::hub::expand_path).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    variable("XDG_STATE_HOME").or_else(|| {
        if cfg!(windows) { variable("LOCALAPPDATA") } else { Some(home()?.join(".local").join("state")) }
    })
}

impl FormArgs {
    /// The sources that are read.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Source> {
        [&self.schema, &self.grammar].into_iter().flatten()
    }

    /// The constraint, read from its file.
    pub(crate) fn read(self) -> Result<Option<Constraint>> {
        let Self { schema, json_object, regex, choice, grammar } = self;
        Ok(if let Some(source) = schema {
            Some(Constraint::JsonSchema(source.json()?))
        } else if let Some(source) = grammar {
            Some(Constraint::Grammar(source.text()?))
        } else if json_object {
            Some(Constraint::JsonObject)
        } else if let Some(pattern) = regex {
            Some(Constraint::Regex(pattern))
        } else if !choice.is_empty() {
            Some(Constraint::Choice(choice))
        } else {
            None
        })
    }
}

/// What `pippin run` does.
#[derive(Debug)]
pub(crate) struct RunSettings {
    pub(crate) model: String,
    pub(crate) draft_model: Option<String>,
    pub(crate) load: LoadOptions,
    pub(crate) parameters: GenerateParameters,
    pub(crate) chat: ChatSettings,
    /// What the answers look like.
    pub(crate) form: FormArgs,
    pub(crate) mode: Mode,
    pub(crate) stats: bool,
    /// What is reported besides the text.
    pub(crate) detail: Detail,
    /// What to tell the user about the decisions.
    pub(crate) hint: Option<String>,
    pub(crate) config: EngineConfig,
    /// Download the model without asking.
    pub(crate) yes: bool,
}

/// What `pippin pull` does.
#[derive(Debug)]
pub(crate) struct PullSettings {
    pub(crate) models: Vec<String>,
    pub(crate) revision: Option<String>,
    pub(crate) connections: usize,
    pub(crate) dry_run: bool,
    pub(crate) json: bool,
    pub(crate) config: EngineConfig,
}

impl PullSettings {
    /// Decides.
    ///
    /// # Errors
    ///
    /// The configuration makes no sense.
    pub(crate) fn new(args: PullArgs, surroundings: &Surroundings) -> Result<Self> {
        let config = surroundings.config()?;
        let PullArgs { models, revision, connections, dry_run, json } = args;
        Ok(Self { models, revision, connections: connections.into(), dry_run, json, config })
    }
}

/// What `pippin serve` does.
#[derive(Debug)]
pub(crate) struct ServeSettings {
    /// The models to begin with: the names that requests use, and those by which they are found.
    pub(crate) models: Vec<(String, String)>,
    /// Those of them that stay loaded: the others were only to be loaded in advance.
    pub(crate) pinned: Vec<String>,
    /// Other models are not to be had.
    pub(crate) only: bool,
    pub(crate) no_key: bool,
    /// All keys share what was computed of prompts.
    pub(crate) share_prefixes: bool,
    /// Who may use the server may manage its models.
    pub(crate) manage: bool,
    /// Open the web page.
    pub(crate) open: bool,
    /// There is no web page.
    pub(crate) no_page: bool,
    pub(crate) config: EngineConfig,
    /// Download the models without asking.
    pub(crate) yes: bool,
}

impl ServeSettings {
    /// Decides.
    ///
    /// # Errors
    ///
    /// The configuration makes no sense, or two models would have one name.
    pub(crate) fn new(args: ServeArgs, surroundings: &Surroundings) -> Result<Self> {
        let ServeArgs { models, only, no_key, manage, share_prefixes, open, no_page, settings, yes } = args;
        let config = surroundings.configured(|inputs| settings.add_to(inputs))?;
        let mut pinned = models;
        if pinned.is_empty() && config.preload.is_empty() {
            pinned.push(config.model.clone());
        }
        let wanted: Vec<String> = pinned.iter().chain(&config.preload).cloned().collect();
        let mut models: Vec<(String, String)> = Vec::new();
        for model in wanted {
            let name = served_name(&model);
            match models.iter().find(|(known, _)| *known == name) {
                None => models.push((name, model)),
                Some((_, known)) if *known == model => {}
                Some((_, known)) => {
                    return Err(CliError::usage(
                        format!("{known} and {model} would both be {name} to requests"),
                        "serve one of them, or rename a folder",
                    ));
                }
            }
        }
        Ok(Self { models, pinned, only, no_key, manage, share_prefixes, open, no_page, config, yes })
    }
}

/// What requests call a model: a folder by its last name, so that no paths leave this machine.
fn served_name(model: &str) -> String {
    let path = Path::new(model);
    let is_folder = path.exists() || path.is_absolute() || model.starts_with('.');
    let last = path
        .canonicalize()
        .ok()
        .as_deref()
        .unwrap_or(path)
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    last.filter(|_| is_folder).unwrap_or_else(|| model.to_owned())
}

/// What stands around prompts.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChatSettings {
    /// No chat template: none of the rest applies.
    pub(crate) raw: bool,
    pub(crate) system: Option<String>,
    pub(crate) messages: Option<Source>,
    pub(crate) tools: Option<Source>,
    pub(crate) template_args: Map<String, Value>,
    pub(crate) add_generation_prompt: bool,
    pub(crate) continue_message: bool,
}

impl ChatSettings {
    fn new(args: ChatArgs, raw: bool) -> Self {
        let ChatArgs { system, messages, tools, template_args, no_generation_prompt, continue_message } =
            args;
        Self {
            raw,
            system,
            messages,
            tools,
            template_args: template_args.unwrap_or_default(),
            add_generation_prompt: !no_generation_prompt,
            continue_message,
        }
    }

    /// The sources that are read.
    fn sources(&self) -> impl Iterator<Item = &Source> {
        [&self.messages, &self.tools].into_iter().flatten()
    }

    /// Whether anything here is not as it is by default.
    fn is_given(&self) -> bool {
        self.system.is_some()
            || self.sources().next().is_some()
            || !self.template_args.is_empty()
            || !self.add_generation_prompt
            || self.continue_message
    }
}

/// Refuses what would read standard input twice.
fn check_stdin<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Result<usize> {
    let readers = sources.into_iter().filter(|source| **source == Source::Stdin).count();
    if readers > 1 {
        return Err(CliError::usage("standard input can be read only once", "give `-` to one flag only"));
    }
    Ok(readers)
}

/// What `pippin tokenize` does.
#[derive(Debug)]
pub(crate) struct TokenizeSettings {
    pub(crate) model: String,
    pub(crate) text: Option<String>,
    /// Standard input joins the text.
    pub(crate) reads_stdin: bool,
    pub(crate) is_chat: bool,
    /// Whether the tokens are added that stand around a bare text.
    pub(crate) adds_special: bool,
    pub(crate) chat: ChatSettings,
    pub(crate) json: bool,
    pub(crate) config: EngineConfig,
}

impl TokenizeSettings {
    /// Decides.
    ///
    /// # Errors
    ///
    /// The flags contradict each other, or there is nothing to tokenize.
    pub(crate) fn new(args: TokenizeArgs, surroundings: &Surroundings) -> Result<Self> {
        let TokenizeArgs { model, text, chat: is_chat, surroundings: chat, no_special, json } = args;
        let config = surroundings.config()?;
        let chat = ChatSettings::new(chat, false);
        let stdin_readers = check_stdin(chat.sources())?;
        let is_chat = is_chat || chat.is_given();
        if no_special && is_chat {
            return Err(CliError::usage(
                "--no-special is for a bare text",
                "a chat template writes its own tokens",
            ));
        }
        let Choice { model, prompt: text, .. } = Choice::new(model, text, &config.model);
        // As with `run`, what is piped joins the text; but where there is one, nothing is waited for.
        let reads_stdin = text.is_none()
            && chat.messages.is_none()
            && stdin_readers == 0
            && !surroundings.stdin_is_terminal;
        if text.is_none() && chat.messages.is_none() && !reads_stdin {
            return Err(CliError::usage("there is no text", "give one, or pipe one in"));
        }
        Ok(Self { model, text, reads_stdin, is_chat, adds_special: !no_special, chat, json, config })
    }
}

/// The ways to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Answers once.
    Once {
        prompt: Option<String>,
        /// Standard input joins the prompt.
        reads_stdin: bool,
        json: bool,
    },
    /// Holds a conversation.
    Interactive { history: Option<PathBuf> },
    /// Answers the lines of a file.
    Batch(Source),
}

impl RunSettings {
    /// Decides.
    ///
    /// # Errors
    ///
    /// The flags contradict each other, or a value is out of its range.
    pub(crate) fn new(args: RunArgs, surroundings: &Surroundings) -> Result<Self> {
        let RunArgs {
            model,
            prompt,
            raw,
            chat,
            form,
            batch,
            parameters,
            load,
            draft_model,
            stats,
            json,
            tokens,
            logprobs,
            top_logprobs,
            no_history,
            yes,
        } = args;
        let mistaken = parameters.flag_before(model.as_deref());
        if let (Some(flag), Some(number), true) = (mistaken, &model, prompt.is_some() || batch.is_some())
            && !Path::new(number).exists()
        {
            return Err(CliError::usage(
                format!("{number} stands where the model does, not as the value of --{flag}"),
                format!("write --{flag}={number}"),
            ));
        }
        let mistaken = mistaken.map(|flag| (flag, model.clone().unwrap_or_default()));
        let parameters = parameters.into_parameters()?;
        let config = surroundings.configured(|inputs| load.add_to(inputs))?;
        let chat = ChatSettings::new(chat, raw);
        let stdin_readers = check_stdin(chat.sources().chain(form.sources()).chain(&batch))?;
        let detail = Detail { tokens, logprobs, top_logprobs: usize::from(top_logprobs) };
        if detail != Detail::default() && !json && batch.is_none() {
            let flag = match (tokens, logprobs) {
                (true, _) => "--tokens",
                (_, true) => "--logprobs",
                _ => "--top-logprobs",
            };
            return Err(CliError::usage(
                format!("{flag} needs --json or --batch"),
                "an answer's text has no place for them",
            ));
        }
        let choice = if batch.is_some() {
            Choice { model: model.unwrap_or_else(|| config.model.clone()), prompt: None, hint: None }
        } else {
            Choice::new(model, prompt, &config.model)
        };
        let mode = match batch {
            Some(source) => Mode::Batch(source),
            None => {
                let reads_stdin = !surroundings.stdin_is_terminal && stdin_readers == 0;
                if choice.prompt.is_some() || reads_stdin || chat.messages.is_some() {
                    Mode::Once { prompt: choice.prompt, reads_stdin, json }
                } else if json {
                    return Err(CliError::usage("--json needs a prompt", "give one, or pipe one in"));
                } else if chat.continue_message || !chat.add_generation_prompt {
                    let flag = if chat.continue_message { "--continue" } else { "--no-generation-prompt" };
                    return Err(CliError::usage(
                        format!("{flag} needs messages"),
                        "give --messages or a prompt",
                    ));
                } else if surroundings.stdin_is_terminal && surroundings.stdout_is_terminal {
                    let history = if no_history { None } else { surroundings.history() };
                    Mode::Interactive { history }
                } else {
                    return Err(CliError::usage(
                        "there is no prompt, and no terminal to hold a conversation at",
                        "give a prompt, or pipe one in",
                    ));
                }
            }
        };
        let mut load = config.load_options(&choice.model);
        if let ConfigSource::Flag(_) = config.source("context") {
            // The flag of this call wins over what the file says of the model.
            load.context = config.context;
        }
        Ok(Self {
            model: choice.model,
            draft_model,
            load,
            parameters,
            chat,
            form,
            mode,
            stats,
            detail,
            hint: choice.hint.or_else(|| {
                let (flag, number) = mistaken?;
                Some(format!(
                    "{number} is taken as the prompt; as the value of --{flag} it is --{flag}={number}"
                ))
            }),
            config,
            yes,
        })
    }
}

/// Which of the arguments is what.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    model: String,
    prompt: Option<String>,
    hint: Option<String>,
}

impl Choice {
    fn new(first: Option<String>, second: Option<String>, default_model: &str) -> Self {
        match (first, second) {
            (Some(model), Some(prompt)) => Self { model, prompt: Some(prompt), hint: None },
            (Some(model), None) if is_model(&model) => Self { model, prompt: None, hint: None },
            (Some(prompt), None) => {
                let hint = match ModelRegistry::shared().suggest(&prompt).as_slice() {
                    [] => None,
                    near => Some(format!(
                        "{prompt:?} names no model and is taken as the prompt; the model {} is spelled nearly so",
                        near.join(" or ")
                    )),
                };
                Self { model: default_model.to_owned(), prompt: Some(prompt), hint }
            }
            (None, _) => Self { model: default_model.to_owned(), prompt: None, hint: None },
        }
    }
}

/// Whether a single argument is a model. A path to a file is meant as one too: as a prompt it would make no sense.
fn is_model(argument: &str) -> bool {
    looks_like_model(argument)
        || Path::new(argument)
            .extension()
            .is_some_and(|extension| extension == "safetensors" || extension == "gguf")
}

/// The messages before the first turn, and whether they hold instructions: a `--system` wins over theirs.
pub(crate) fn with_system(mut messages: Vec<Message>, system: Option<&str>) -> Vec<Message> {
    if let Some(system) = system {
        if messages.first().is_some_and(|first| first.role() == pippin::Role::System) {
            messages.remove(0);
        }
        if !system.is_empty() {
            messages.insert(0, Message::system(system));
        }
    }
    messages
}

/// What `pippin show` does.
#[derive(Debug)]
pub(crate) struct ShowSettings {
    pub(crate) model: String,
    pub(crate) json: bool,
    pub(crate) config: EngineConfig,
}

impl ShowSettings {
    pub(crate) fn new(args: ShowArgs, surroundings: &Surroundings) -> Result<Self> {
        let config = surroundings.config()?;
        let model = args.model.unwrap_or_else(|| config.model.clone());
        Ok(Self { model, json: args.json, config })
    }
}

/// What `pippin search` does.
#[derive(Debug)]
pub(crate) struct SearchSettings {
    pub(crate) search: ModelSearch,
    pub(crate) context: u64,
    pub(crate) json: bool,
    pub(crate) config: EngineConfig,
}

impl SearchSettings {
    /// Decides.
    ///
    /// # Errors
    ///
    /// The configuration is wrong.
    pub(crate) fn new(args: SearchArgs, surroundings: &Surroundings) -> Result<Self> {
        let config = surroundings.config()?;
        let author = if args.all_authors { None } else { args.author.or(ModelSearch::default().author) };
        let search = ModelSearch::default()
            .with_words(args.words.join(" "))
            .with_author(author)
            .with_family(args.family)
            .with_bits(args.bits)
            .with_fits_only(args.fits)
            .with_supported_only(args.supported)
            .with_sort(match args.sort {
                SortBy::Downloads => SearchSort::Downloads,
                SortBy::Likes => SearchSort::Likes,
                SortBy::Updated => SearchSort::Updated,
                SortBy::Created => SearchSort::Created,
                SortBy::Trending => SearchSort::Trending,
            })
            .with_limit(usize::from(args.limit))
            .with_page(usize::from(args.page));
        Ok(Self { search, context: u64::from(args.context), json: args.json, config })
    }
}

/// What `pippin recommend` does.
#[derive(Debug)]
pub(crate) struct RecommendSettings {
    pub(crate) context: u64,
    pub(crate) all: bool,
    pub(crate) measure: bool,
    pub(crate) json: bool,
    pub(crate) config: EngineConfig,
}

impl RecommendSettings {
    /// Decides.
    ///
    /// # Errors
    ///
    /// The configuration is wrong.
    pub(crate) fn new(args: RecommendArgs, surroundings: &Surroundings) -> Result<Self> {
        let config = surroundings.config()?;
        let RecommendArgs { context, all, measure, json } = args;
        Ok(Self { context: u64::from(context), all, measure, json, config })
    }
}

/// What `pippin bench` does.
#[derive(Debug)]
pub(crate) struct BenchSettings {
    pub(crate) model: String,
    pub(crate) load: LoadOptions,
    pub(crate) workloads: Vec<Workload>,
    /// Ways of guessing with which answers are written as well.
    pub(crate) guesses: Vec<Guesses>,
    /// The model that guesses.
    pub(crate) draft_model: Option<String>,
    pub(crate) repetitions: usize,
    pub(crate) format: BenchFormat,
    /// Measure the machine instead of a model.
    pub(crate) machine: bool,
    pub(crate) config: EngineConfig,
}

/// A way of guessing tokens ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guesses {
    /// What the text repeats, up to so many tokens.
    Lookup(usize),
    /// What a smaller model would say.
    Draft(usize),
}

/// The most tokens of the prompt whose answers are written with guesses.
pub(crate) const GUESSING_PROMPT: usize = 256;

impl BenchSettings {
    /// Decides.
    ///
    /// # Errors
    ///
    /// There is nothing to measure.
    pub(crate) fn new(args: BenchArgs, surroundings: &Surroundings) -> Result<Self> {
        let expand = |counts: Vec<Counts>, default: usize| -> Vec<usize> {
            if counts.is_empty() {
                return vec![default];
            }
            counts.into_iter().flat_map(|counts| counts.0).filter(|count| *count > 0).collect()
        };
        let prompts = expand(args.n_prompt, 512).into_iter().map(Workload::prefill);
        let answers = expand(args.n_gen, 128).into_iter().map(Workload::decode);
        let workloads: Vec<Workload> = prompts.chain(answers).collect();
        // Only as much KV cache as the longest test needs.
        let Some(mut context) = workloads.iter().map(Workload::tokens).max() else {
            return Err(CliError::usage("there is nothing to measure", "give -p or -n a number above 0"));
        };
        // 0 is off, as for an answer.
        let lookup = args.prompt_lookup.filter(|count| *count > 0).map(|count| Guesses::Lookup(count.into()));
        let draft = args.draft_model.as_ref().map(|_| Guesses::Draft(args.draft_tokens.into()));
        let guesses: Vec<Guesses> = lookup.into_iter().chain(draft).collect();
        if !guesses.is_empty() {
            context += GUESSING_PROMPT;
        }
        let config = surroundings.configured(|inputs| args.load.add_to(inputs))?;
        let model = args.model.unwrap_or_else(|| config.model.clone());
        Ok(Self {
            load: LoadOptions {
                context: Some(context),
                max_sequences: 1,
                draft_model: None,
                ..config.load_options(&model)
            },
            model,
            workloads,
            guesses,
            draft_model: args.draft_model,
            repetitions: usize::from(args.repetitions),
            format: args.output,
            machine: args.machine,
            config,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn run(words: &[&str], surroundings: &Surroundings) -> Result<RunSettings> {
        let words = ["pippin", "run"].iter().chain(words);
        match Args::try_parse_from(words).expect("valid syntax").command {
            Command::Run(args) => RunSettings::new(*args, surroundings),
            command => panic!("{command:?}"),
        }
    }

    fn terminal() -> Surroundings {
        Surroundings {
            stdin_is_terminal: true,
            stdout_is_terminal: true,
            state_folder: Some("/state".into()),
            ..Surroundings::default()
        }
    }

    fn once(prompt: Option<&str>, reads_stdin: bool) -> Mode {
        Mode::Once { prompt: prompt.map(str::to_owned), reads_stdin, json: false }
    }

    #[test]
    fn one_argument_is_a_model_or_a_prompt() {
        for (words, model, prompt) in [
            (&["What is 17 plus 25?"][..], "pippin-nano", Some("What is 17 plus 25?")),
            (&["hello"], "pippin-nano", Some("hello")),
            (&["qwen3-4b", "hello"], "qwen3-4b", Some("hello")),
            (&["no-such-model", "hello"], "no-such-model", Some("hello")),
            (&["org/name", "hello"], "org/name", Some("hello")),
        ] {
            let settings = run(words, &terminal()).expect("valid");
            assert_eq!((settings.model.as_str(), settings.mode), (model, once(prompt, false)));
        }
        for model in ["qwen3-4b", "org/name", "./no-such-folder", "/no/such/folder", ".", "model.gguf"] {
            let settings = run(&[model], &terminal()).expect("valid");
            assert_eq!(settings.model, model);
            assert!(matches!(settings.mode, Mode::Interactive { .. }), "{model}");
        }
    }

    #[test]
    fn a_mistyped_alias_is_a_prompt_with_a_hint() {
        let settings = run(&["qwen3-4bb"], &terminal()).expect("valid");
        assert_eq!(settings.mode, once(Some("qwen3-4bb"), false));
        assert!(settings.hint.expect("a hint").contains("qwen3-4b "));
        assert_eq!(run(&["hello"], &terminal()).expect("valid").hint, None);
    }

    #[test]
    fn a_number_behind_a_flag_that_takes_it_with_an_equals_sign_is_pointed_out() {
        for flag in ["--prompt-lookup", "--draft-tokens"] {
            for words in [&[flag, "4", "hi"][..], &["--batch", "-", flag, "4"]] {
                let error = run(words, &terminal()).expect_err("4 is no model");
                let CliError::Usage { hint, .. } = error else { panic!("{error:?}") };
                assert_eq!(hint, Some(format!("write {flag}=4")));
            }
            let settings = run(&[flag, "4"], &terminal()).expect("a prompt");
            assert!(settings.hint.expect("a hint").contains(&format!("{flag}=4")));
            for words in [&[flag, "hi"][..], &["4", "hi"], &[&format!("{flag}=3"), "4"]] {
                assert_eq!(run(words, &terminal()).expect("valid").hint, None, "{words:?}");
            }
        }
    }

    #[test]
    fn the_environment_names_the_default_model() {
        let inputs = ConfigInputs::default().with_variable("PIPPIN_MODEL", "qwen3-4b");
        let surroundings = Surroundings { inputs, ..terminal() };
        assert_eq!(run(&["hello"], &surroundings).expect("valid").model, "qwen3-4b");
        assert_eq!(run(&[], &surroundings).expect("valid").model, "qwen3-4b");
        assert_eq!(run(&["--batch", "x"], &surroundings).expect("valid").model, "qwen3-4b");
        assert_eq!(run(&["org/name", "hello"], &surroundings).expect("valid").model, "org/name");
    }

    #[test]
    fn the_mode_follows_terminals_and_prompts() {
        let piped = Surroundings { stdin_is_terminal: false, ..terminal() };
        assert_eq!(run(&[], &piped).expect("valid").mode, once(None, true));
        assert_eq!(run(&["hello"], &piped).expect("valid").mode, once(Some("hello"), true));
        assert_eq!(run(&["--messages", "-"], &piped).expect("valid").mode, once(None, false));
        assert_eq!(run(&["--batch", "-"], &piped).expect("valid").mode, Mode::Batch(Source::Stdin));
        let redirected = Surroundings { stdout_is_terminal: false, ..terminal() };
        assert!(matches!(run(&[], &redirected), Err(CliError::Usage { .. })));
        assert!(matches!(run(&["--json"], &terminal()), Err(CliError::Usage { .. })));
        assert!(matches!(run(&["--messages", "-", "--tools", "-"], &piped), Err(CliError::Usage { .. })));
    }

    #[test]
    fn history_can_be_moved_and_disabled() {
        let history = |words: &[&str], variable: Option<&str>| {
            let surroundings = Surroundings { history: variable.map(str::to_owned), ..terminal() };
            match run(words, &surroundings).expect("valid").mode {
                Mode::Interactive { history } => history,
                mode => panic!("{mode:?}"),
            }
        };
        assert_eq!(history(&[], None), Some(PathBuf::from("/state/pippin/history")));
        assert_eq!(history(&[], Some("/elsewhere")), Some(PathBuf::from("/elsewhere")));
        assert_eq!(history(&[], Some("")), None);
        assert_eq!(history(&[], Some("off")), None);
        assert_eq!(history(&["--no-history"], Some("/elsewhere")), None);
    }

    #[test]
    fn values_out_of_range_name_their_flag() {
        for (words, flag) in [
            (["--temp", "-1"], "--temp"),
            (["--temp", "nan"], "--temp"),
            (["--temp", "1e39"], "--temp"),
            (["--top-p", "1.5"], "--top-p"),
            (["--min-p", "-0.1"], "--min-p"),
            (["--xtc-threshold", "0.9"], "--xtc-threshold"),
            (["--repetition-penalty", "-1"], "--repetition-penalty"),
            (["--presence-penalty", "inf"], "--presence-penalty"),
            (["--logit-bias", "1=nan"], "--logit-bias"),
            (["--stop", ""], "--stop"),
        ] {
            match run(&words, &terminal()) {
                Err(CliError::Usage { message, .. }) => assert!(message.starts_with(flag), "{message}"),
                other => panic!("{words:?}: {other:?}"),
            }
        }
        let settings =
            run(&["--presence-penalty", "-1.5", "--logit-bias", "3=-2"], &terminal()).expect("valid");
        assert_eq!(settings.parameters.presence_penalty, Some(-1.5));
        assert_eq!(settings.parameters.logit_bias[&3], -2.0);
    }

    #[test]
    fn benchmarks_have_as_much_context_as_they_need() {
        let bench = |words: &[&str]| match Args::try_parse_from(["pippin", "bench"].iter().chain(words)) {
            Ok(Args { command: Command::Bench(args), .. }) => BenchSettings::new(args, &terminal()),
            other => panic!("{other:?}"),
        };
        let settings = bench(&["-p", "128,256", "-p", "64", "-n", "0"]).expect("valid");
        assert_eq!(
            settings.workloads.iter().map(Workload::name).collect::<Vec<_>>(),
            ["pp128", "pp256", "pp64"]
        );
        assert_eq!(settings.load.context, Some(256));
        assert!(matches!(bench(&["-p", "0", "-n", "0"]), Err(CliError::Usage { .. })));
    }

    #[test]
    fn a_system_flag_wins_over_messages() {
        let given = vec![Message::system("old"), Message::user("hello")];
        assert_eq!(with_system(given.clone(), None), given);
        assert_eq!(with_system(given.clone(), Some("new"))[0], Message::system("new"));
        assert_eq!(with_system(given, Some("")), [Message::user("hello")]);
        assert_eq!(with_system(Vec::new(), Some("new")), [Message::system("new")]);
    }
}
