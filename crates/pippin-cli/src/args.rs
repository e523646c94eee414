//! The syntax of the command line, and nothing else: what it means is decided in [`settings`](crate::settings).

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use serde_json::{Map, Value};

use crate::flags::{All, Loading, LoadingWithoutContext, SettingFlags};
use crate::input::{self, Source};
use crate::parameters::ParameterFlags;
use crate::{env, exit};

/// Runs MLX-format language models on any machine.
///
/// MODEL is a folder, a GGUF file, the id of a model in the Hugging Face cache (mlx-community/Qwen3-4B-4bit; hf:user/repo:Q4_K_M
/// for one of several quantizations), or an alias (qwen3-4b).
/// Without one, pippin-nano answers: a very small model that comes with Pippin.
#[derive(Debug, Parser)]
#[command(
    name = "pippin",
    version,
    max_term_width = 110,
    after_help = "Exit codes and environment variables: pippin --help",
    after_long_help = reference()
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Say more on standard error: which files are loaded, how long it takes.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

fn reference() -> String {
    format!("{}\n{}", exit::Exit::help(), env::help())
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer a prompt, or hold a conversation.
    Run(Box<RunArgs>),
    /// Serve models over HTTP, in the form of the OpenAI API.
    Serve(ServeArgs),
    /// Show the prompt and the tokens that a model sees.
    Tokenize(TokenizeArgs),
    /// Show what a model is.
    Show(ShowArgs),
    /// Download a model of the hub.
    Pull(PullArgs),
    /// List the models on this machine.
    List(ListArgs),
    /// Remove a model from this machine.
    Rm(RmArgs),
    /// Check the files of models against their hashes.
    Verify(VerifyArgs),
    /// Remove partial files of downloads.
    Prune(PruneArgs),
    /// List the models that are loaded, by any process.
    Ps(PsArgs),
    /// Search the hub for models.
    Search(SearchArgs),
    /// List models that suit this machine.
    Recommend(RecommendArgs),
    /// Show the settings and where each came from.
    Config(ConfigArgs),
    /// Measure how fast a model reads and writes.
    Bench(BenchArgs),
    /// Say what this machine has for running models, and what is missing.
    Doctor,
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
}

/// Answer a prompt, or hold a conversation.
///
/// With a prompt, the answer is printed and the program ends. Without one, on a terminal, a conversation begins; /help
/// lists its commands. Piped input joins the prompt, after an empty line, or is the prompt.
///
/// A single argument that names no model is the prompt for the default model.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_long_help = "Examples:
  pippin run \"What is 17 plus 25?\"
  pippin run qwen3-4b \"Explain monads\" --temp 0 --max-tokens 300
  git diff | pippin run qwen3-4b \"Write a commit message for this change.\"
  pippin run ./my-model --raw \"Once upon a time\"
  pippin run --batch questions.jsonl > answers.jsonl")]
pub(crate) struct RunArgs {
    /// Folder, hub id or alias of the model [default: pippin-nano].
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) model: Option<String>,

    /// What to answer.
    pub(crate) prompt: Option<String>,

    /// Take the prompt as it stands, without the model's chat template.
    #[arg(long, help_heading = "Prompt")]
    #[arg(conflicts_with_all = ["system", "tools", "messages", "template_args", "no_generation_prompt", "continue_message"])]
    pub(crate) raw: bool,

    #[command(flatten)]
    pub(crate) chat: ChatArgs,

    #[command(flatten)]
    pub(crate) form: FormArgs,

    /// Answer every line of a file of JSON lines, `-` for standard input, several at once.
    ///
    /// A line is an object with "prompt" or "messages", and perhaps "tools", "template_args", "add_generation_prompt",
    /// "continue_final_message" and any parameter of generation ("max_tokens", "temperature", …), which wins over the flag.
    /// Null counts as absent. "model", "user" and the like, which a server's requests have, are passed over. For each, in the same order, a line is
    /// printed with "index", "text", "finish_reason", "prompt_tokens" and "generated_tokens"; or, where it cannot be
    /// answered, "index" and "error". Then the exit code is 1.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Prompt")]
    #[arg(conflicts_with_all = ["prompt", "messages", "json"])]
    pub(crate) batch: Option<Source>,

    #[command(flatten)]
    pub(crate) parameters: ParameterFlags,

    #[command(flatten)]
    pub(crate) load: SettingFlags<Loading>,

    /// Folder, hub id or alias of a smaller model with the same vocabulary, which guesses tokens ahead: the same answer, sooner where it
    /// guesses well.
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::DirPath, help_heading = "Loading")]
    pub(crate) draft_model: Option<String>,

    /// Print the numbers of the answers to standard error: tokens, times, memory.
    #[arg(long, help_heading = "Output")]
    pub(crate) stats: bool,

    /// Print one JSON object, with the numbers, instead of the answer's text. Of an answer with thoughts or calls of tools, it has "content",
    /// "reasoning_content" and "tool_calls" beside the whole "text".
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// With --json or --batch, report the prompt as the model sees it ("prompt", "prompt_token_ids") and the answer's
    /// tokens ("tokens": "id", "token" as the vocabulary has it, "text"). The token that ends an answer is not among them.
    #[arg(long, help_heading = "Output")]
    pub(crate) tokens: bool,

    /// With --json or --batch, report the tokens of the answer with their log-probabilities ("tokens": "id", "token", "text",
    /// "logprob"): before temperature and filters, with biases and penalties.
    #[arg(long, help_heading = "Output")]
    pub(crate) logprobs: bool,

    /// With --json or --batch, report this many of the likeliest tokens beside each token of the answer ("top_logprobs" of the
    /// "tokens", likeliest first); at most 20. It includes --logprobs.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Output")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=20))]
    pub(crate) top_logprobs: u8,

    /// Keep no history of what is typed in a conversation.
    #[arg(long, help_heading = "Output")]
    pub(crate) no_history: bool,

    /// Download the model without asking when it is not on this machine.
    #[arg(short = 'y', long, help_heading = "Loading")]
    pub(crate) yes: bool,
}

/// What stands around a prompt in a chat.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct ChatArgs {
    /// Instructions for the model, in place of those at the head of --messages. With --batch, for the lines that have none.
    #[arg(long, value_name = "TEXT", help_heading = "Prompt")]
    pub(crate) system: Option<String>,

    /// Answer the messages of a JSON file, `-` for standard input. A prompt comes after them.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Prompt")]
    pub(crate) messages: Option<Source>,

    /// Tools that the model may call: a JSON array in the form of the OpenAI API. Each call is printed as JSON on a line of its own.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Prompt")]
    pub(crate) tools: Option<Source>,

    /// Further variables for the chat template, as a JSON object: {"enable_thinking": false}.
    #[arg(long, value_name = "JSON", value_parser = input::object, help_heading = "Prompt")]
    #[arg(alias = "chat-template-args")]
    pub(crate) template_args: Option<Map<String, Value>>,

    /// End the prompt behind the last message, without the header of an answer.
    #[arg(long, help_heading = "Prompt")]
    pub(crate) no_generation_prompt: bool,

    /// Continue the last message of --messages, the beginning of an answer, instead of answering it.
    #[arg(long = "continue", help_heading = "Prompt")]
    #[arg(alias = "continue-final-message", conflicts_with = "no_generation_prompt")]
    pub(crate) continue_message: bool,
}

/// Serve models over HTTP, in the form of the OpenAI API.
///
/// The models that are named are loaded at the start and stay; without any, pippin-nano, or the models that the settings preload.
/// Requests may also name other models of the hub that are on this machine, which are loaded when they are asked for. Ctrl-C ends
/// it: running answers are finished first, for half a minute at most or until a second Ctrl-C.
///
/// Only this machine can reach it, unless --host says otherwise. Then a file of keys is needed (--keys-file), or --no-key.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_long_help = "Examples:
  pippin serve
  pippin serve qwen3-4b --open
  pippin serve qwen3-4b --port 8000
  pippin serve ./my-model --host 0.0.0.0 --keys-file keys.txt")]
pub(crate) struct ServeArgs {
    /// Folders, hub ids or aliases of models; a folder is asked for by its last name.
    #[arg(value_name = "MODEL", value_hint = ValueHint::DirPath)]
    pub(crate) models: Vec<String>,

    /// Answer only from the models that are named here.
    #[arg(long, help_heading = "Server")]
    pub(crate) only: bool,

    /// Let everyone in who reaches the server, although others than this machine can.
    #[arg(long, help_heading = "Server", conflicts_with = "server.keys_file")]
    pub(crate) no_key: bool,

    /// Let requests with different keys use what was computed of each other's prompts.
    #[arg(long, help_heading = "Server")]
    pub(crate) share_prefixes: bool,

    /// Let all who may use the server load, unload, download and delete models.
    #[arg(long, help_heading = "Server", conflicts_with = "server.manage_keys_file")]
    pub(crate) manage: bool,

    /// Open the web page in the browser when all is ready.
    #[arg(long, help_heading = "Server", conflicts_with = "no_page")]
    pub(crate) open: bool,

    /// Serve no web page at /.
    #[arg(long, help_heading = "Server")]
    pub(crate) no_page: bool,

    #[command(flatten)]
    pub(crate) settings: SettingFlags<All>,

    /// Download the models without asking when they are not on this machine.
    #[arg(short = 'y', long, help_heading = "Loading")]
    pub(crate) yes: bool,
}

/// Show the prompt and the tokens that a model sees: their ids, and how the vocabulary writes them.
///
/// Only the model's tokenizer and chat template are read. A single argument that names no model is the text for the default
/// model. Without a text, standard input is read, its last line end included.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_long_help = "Examples:
  pippin tokenize qwen3-4b \"Hello, world!\"
  pippin tokenize qwen3-4b \"Hello\" --chat
  pippin tokenize qwen3-4b --messages chat.json --tools tools.json --json")]
pub(crate) struct TokenizeArgs {
    /// Folder, hub id or alias of the model [default: pippin-nano].
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) model: Option<String>,

    /// The text.
    pub(crate) text: Option<String>,

    /// Apply the chat template, with the text as a message of the user, and print what it makes of it. Flags that belong to
    /// a chat imply it.
    #[arg(long, help_heading = "Prompt")]
    pub(crate) chat: bool,

    #[command(flatten)]
    pub(crate) surroundings: ChatArgs,

    /// Take the text as it stands: no beginning-of-sequence token is added.
    #[arg(long, help_heading = "Prompt", conflicts_with = "chat")]
    pub(crate) no_special: bool,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What an answer looks like, whatever the model would rather say.
#[derive(Clone, Debug, Default, ClapArgs)]
#[group(id = "form", multiple = false)]
pub(crate) struct FormArgs {
    /// Answer with a JSON document that this JSON Schema accepts; `-` for standard input.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Form of the answer")]
    pub(crate) schema: Option<Source>,

    /// Answer with a JSON object.
    #[arg(long, help_heading = "Form of the answer")]
    pub(crate) json_object: bool,

    /// Answer with a text that this regular expression matches as a whole.
    #[arg(long, value_name = "PATTERN", help_heading = "Form of the answer")]
    pub(crate) regex: Option<String>,

    /// Answer with one of several texts: this one, and those of the flag's other occurrences.
    #[arg(long, value_name = "TEXT", help_heading = "Form of the answer")]
    pub(crate) choice: Vec<String>,

    /// Answer with a text of this grammar in Lark's notation; `-` for standard input.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Form of the answer")]
    pub(crate) grammar: Option<Source>,
}

/// Show what a model is: family, size, quantization, context, template, files.
///
/// A model of the hub that is not on this machine is described by what the hub says; only its config.json is read.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ShowArgs {
    /// Folder, hub id or alias of the model [default: pippin-nano].
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) model: Option<String>,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Download a model of the hub: the files that it needs, into the Hugging Face cache.
///
/// What was interrupted goes on where it stopped. Every file is checked. The folder of the model is printed.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct PullArgs {
    /// Hub ids or aliases.
    #[arg(required = true)]
    pub(crate) models: Vec<String>,

    /// Branch, tag or commit [default: main].
    #[arg(long, value_name = "NAME")]
    pub(crate) revision: Option<String>,

    /// Requests at a time, at most; where two are fast, there are no more.
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) connections: u8,

    /// Only say what would be downloaded.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// List the models on this machine: size, bits, family, last use, and whether they are whole.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ListArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Remove models from the Hugging Face cache. Files that another revision needs stay.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct RmArgs {
    /// Hub ids or aliases.
    #[arg(required = true)]
    pub(crate) models: Vec<String>,

    /// Remove only this branch, tag or commit.
    #[arg(long, value_name = "NAME")]
    pub(crate) revision: Option<String>,

    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Check the files of models against their hashes. The exit code is 4 when some are damaged or missing.
///
/// Files that were checked before and have not changed since are not read again, except with --all.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct VerifyArgs {
    /// Hub ids or aliases [default: every model of the cache].
    pub(crate) models: Vec<String>,

    /// Read all files again.
    #[arg(long)]
    pub(crate) all: bool,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Remove partial files of downloads, except those that some process is working on.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct PruneArgs {}

/// List the models that are loaded, by any process of this user.
///
/// SIZE is what the memory budget counts: weights, the whole KV cache, working memory. UNTIL is when the model will be
/// unloaded if nobody uses it. REQUESTS are those it has answered, TOKENS/S is the speed of the last one.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct PsArgs {
    /// Print all numbers of each model: times, speeds, tokens, memory.
    #[arg(long, conflicts_with = "json")]
    pub(crate) stats: bool,

    /// Print JSON, with all numbers.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Search the hub for models: their size, and whether they run here.
///
/// The models of mlx-community are searched, unless another author is named. Whether a model fits is an estimate: its
/// weights, and keys and values for a context, beside the memory budget.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_long_help = "Examples:
  pippin search qwen3 --bits 4 --fits
  pippin search coder --all-authors --sort likes --limit 50
  pippin search llama --json | jq -r '.models[].id'")]
pub(crate) struct SearchArgs {
    /// Words of the name; all must be there.
    pub(crate) words: Vec<String>,

    /// Only models of this author [default: mlx-community].
    #[arg(long, value_name = "NAME", conflicts_with = "all_authors")]
    pub(crate) author: Option<String>,

    /// Models of all authors that are made for MLX.
    #[arg(long)]
    pub(crate) all_authors: bool,

    /// Only models of this family (model_type), such as qwen3.
    #[arg(long, value_name = "NAME")]
    pub(crate) family: Option<String>,

    /// Only models whose weights have so many bits.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) bits: Option<u8>,

    /// Only models that fit this machine.
    #[arg(long)]
    pub(crate) fits: bool,

    /// Only models that Pippin can run.
    #[arg(long)]
    pub(crate) supported: bool,

    /// The order, the largest or latest first.
    #[arg(long, value_name = "BY", value_enum, default_value_t = SortBy::Downloads)]
    pub(crate) sort: SortBy,

    /// Models on a page.
    #[arg(long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,

    /// The page to print.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) page: u16,

    /// Tokens of the context that has to fit.
    #[arg(long, value_name = "TOKENS", default_value_t = 4096)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) context: u32,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Orders of search results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortBy {
    /// Downloads of the last month.
    Downloads,
    /// Likes.
    Likes,
    /// The time of the last change.
    Updated,
    /// The time of creation.
    Created,
    /// What the hub calls trending.
    Trending,
}

/// List models that suit this machine, by its memory and its speed.
///
/// Memory and speed are estimates. Memory: weights, and keys and values of a full context. Speed: the measured bandwidth of
/// the memory, divided by what each token reads.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct RecommendArgs {
    /// Tokens of the context that has to fit.
    #[arg(long, value_name = "TOKENS", default_value_t = 4096)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) context: u32,

    /// List all models of the registry, whether or not they fit and run.
    #[arg(long)]
    pub(crate) all: bool,

    /// Measure the bandwidth again, instead of using the remembered one.
    #[arg(long)]
    pub(crate) measure: bool,

    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show the settings and where each came from: default, file, environment or flag.
///
/// The file is config.toml in ~/.config/pippin, or the one that PIPPIN_CONFIG names.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ConfigArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// Print docs/settings.md: the page of all settings, variables and flags.
    #[arg(long, hide = true, conflicts_with = "json")]
    pub(crate) markdown: bool,

    #[command(flatten)]
    pub(crate) settings: SettingFlags<All>,
}

/// Measure how fast a model reads prompts and writes answers, in tokens per second.
///
/// Steps of the model alone are timed, on made-up tokens: no tokenization, no sampling. Each test runs once to warm up
/// and then as often as asked for; the mean and the sample standard deviation are printed. Tests are named as in
/// llama-bench: pp512 reads a prompt of 512 tokens, tg64 writes 64 tokens one after another.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// Folder, hub id or alias of the model [default: pippin-nano].
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) model: Option<String>,

    /// Lengths of prompts to read: 512, 128,512, 64-256+64 or 64-512*2; 0 for none [default: 512].
    #[arg(short = 'p', long, value_name = "TOKENS", value_parser = counts)]
    pub(crate) n_prompt: Vec<Counts>,

    /// Numbers of tokens to write, in the same form [default: 128].
    #[arg(short = 'n', long, value_name = "TOKENS", value_parser = counts)]
    pub(crate) n_gen: Vec<Counts>,

    /// Repetitions of each test.
    #[arg(short = 'r', long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) repetitions: u16,

    /// Write each number of tokens once more, as a real answer to a short text that repeats itself, and guess what it repeats, up to N
    /// tokens ahead; 0: not. How much that helps depends on the text.
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "8")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=32), help_heading = "Guessing")]
    pub(crate) prompt_lookup: Option<u8>,

    /// The same with the guesses of a smaller model with the same vocabulary: its folder, hub id or alias.
    #[arg(long, value_name = "MODEL", value_hint = ValueHint::DirPath, help_heading = "Guessing")]
    pub(crate) draft_model: Option<String>,

    /// Guess up to N tokens ahead with that model.
    #[arg(long, value_name = "N", default_value_t = 4, requires = "draft_model", help_heading = "Guessing")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) draft_tokens: u8,

    /// The form of the result.
    #[arg(short = 'o', long, value_name = "FORMAT", value_enum, default_value_t = BenchFormat::Table)]
    pub(crate) output: BenchFormat,

    /// Measure what this machine reads and computes at most, instead of a model. Results are compared with it, and its
    /// memory's part is remembered for a month.
    #[arg(long, conflicts_with_all = ["model", "n_prompt", "n_gen", "prompt_lookup", "draft_model"])]
    pub(crate) machine: bool,

    #[command(flatten)]
    pub(crate) load: SettingFlags<LoadingWithoutContext>,
}

/// How the results of a benchmark are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchFormat {
    /// An aligned table, which is Markdown too.
    Table,
    /// A JSON array with one object for each test.
    Json,
    /// Comma-separated values with a header.
    Csv,
}

/// Numbers of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counts(pub(crate) Vec<usize>);

/// The most tokens of one test.
const MAX_COUNT: usize = 1 << 24;
/// The most tests that one range may stand for.
const MAX_RANGE: usize = 256;

/// Reads `512`, `128,512`, `64-256+64` and `64-512*2`, as llama-bench does.
fn counts(text: &str) -> Result<Counts, String> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let Some((first, rest)) = part.split_once('-') else {
            all.push(count(part)?);
            continue;
        };
        let first = count(first)?;
        let (last, operator, step) = match rest.find(['+', '*']) {
            Some(at) => (count(&rest[..at])?, rest.as_bytes()[at], count(&rest[at + 1..])?),
            None => (count(rest)?, b'+', 1),
        };
        let grows = if operator == b'+' { step > 0 } else { step > 1 && first > 0 };
        if first > last || !grows {
            return Err(format!("{part:?} is no range: it must grow from its first number to its last"));
        }
        let mut value = first;
        while value <= last {
            if all.len() >= MAX_RANGE {
                return Err(format!("more than {MAX_RANGE} tests"));
            }
            all.push(value);
            value = if operator == b'+' { value + step } else { value * step };
        }
    }
    Ok(Counts(all))
}

fn count(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(count) if count <= MAX_COUNT => Ok(count),
        Ok(_) => Err(format!("{text:?} is more than {MAX_COUNT} tokens")),
        Err(_) => Err(format!("{text:?} is not a number of tokens")),
    }
}

/// Print a completion script for a shell.
///
/// For bash, in ~/.bashrc: source <(pippin completions bash)
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum, action = ArgAction::Set)]
    pub(crate) shell: Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_syntax_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn counts_are_lists_and_ranges() {
        let read = |text: &str| counts(text).map(|counts| counts.0);
        assert_eq!(read("512"), Ok(vec![512]));
        assert_eq!(read("128,512"), Ok(vec![128, 512]));
        assert_eq!(read("64-256+64"), Ok(vec![64, 128, 192, 256]));
        assert_eq!(read("64-512*2,7"), Ok(vec![64, 128, 256, 512, 7]));
        assert_eq!(read("3-5"), Ok(vec![3, 4, 5]));
        assert_eq!(read("0"), Ok(vec![0]));
        for bad in [
            "",
            "x",
            "-1",
            "1,",
            "5-3",
            "1-5+0",
            "1-5*1",
            "0-5*2",
            "1-100000",
            "99999999999999999999",
            "16777217",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert_eq!(read("1-16777216*4096"), Ok(vec![1, 4096, 16_777_216]));
    }
}
