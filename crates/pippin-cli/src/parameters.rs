//! Parameters of generation by name: flags of `run`, `/set`, and the lines of `--batch`.

use std::str::FromStr;
use std::time::Duration;

use clap::error::Error;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use pippin::{EngineError, GenerateParameters};
use serde_json::{Map, Value};

use crate::error::{CliError, Result as CliResult};

/// A parameter with a flag. Those without have no meaning at a command line.
pub(crate) struct Parameter {
    /// The field.
    pub(crate) name: &'static str,
    /// The flag without its dashes.
    pub(crate) flag: &'static str,
    /// The environment variable that stands for the flag.
    pub(crate) variable: Option<&'static str>,
    value_name: &'static str,
    /// What it does; `{}` stands for the library's default.
    help: &'static str,
    set: Set,
}

/// How a parameter is set, by the form of its values.
#[derive(Clone, Copy)]
enum Set {
    /// `None`: without a limit.
    Count(fn(&mut GenerateParameters, Option<usize>)),
    Number(fn(&mut GenerateParameters, f32)),
    /// `None`: another one every time.
    Seed(fn(&mut GenerateParameters, Option<u64>)),
    /// With a value that the flag alone stands for.
    Guesses(fn(&mut GenerateParameters, usize), &'static str),
    /// May be given several times.
    Bias(fn(&mut GenerateParameters, (u32, f32))),
    /// May be given several times.
    Text(fn(&mut GenerateParameters, String)),
    /// May be given several times.
    Token(fn(&mut GenerateParameters, u32)),
    /// `None`: without a limit.
    Seconds(fn(&mut GenerateParameters, Option<Duration>)),
    /// Off where it is not given.
    Switch(fn(&mut GenerateParameters)),
}

impl Set {
    /// What a value must be.
    fn expected(self) -> &'static str {
        match self {
            Self::Count(_) => "a whole number, or -1 for no limit",
            Self::Seed(_) => "a whole number, or -1 for another one every time",
            Self::Number(_) => "a number",
            Self::Guesses(..) => "a whole number from 0 to 32",
            Self::Text(_) => "a text, or a list of texts",
            Self::Bias(_) => "an object of token ids and numbers",
            Self::Token(_) => "a token id, or a list of them",
            Self::Seconds(_) => "a number of seconds",
            Self::Switch(_) => "true or false",
        }
    }

    /// The parameters with this one at what -1 stands for, if it stands for anything.
    fn at_minus_one(self, mut parameters: GenerateParameters) -> Option<GenerateParameters> {
        match self {
            Self::Count(set) => set(&mut parameters, None),
            Self::Seed(set) => set(&mut parameters, None),
            _ => return None,
        }
        Some(parameters)
    }
}

/// The flags, in the order of the help.
pub(crate) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "max_tokens",
        flag: "max-tokens",
        variable: Some("PIPPIN_MAX_TOKENS"),
        value_name: "N",
        help: "End the answer after this many tokens; -1: no limit [default: the context's end]",
        set: Set::Count(|parameters, value| parameters.max_tokens = value),
    },
    Parameter {
        name: "temperature",
        flag: "temp",
        variable: Some("PIPPIN_TEMP"),
        value_name: "T",
        help: "Sampling temperature; 0 takes the likeliest token every time [default: {}]",
        set: Set::Number(|parameters, value| parameters.temperature = value),
    },
    Parameter {
        name: "top_p",
        flag: "top-p",
        variable: None,
        value_name: "P",
        help: "Keep the likeliest tokens that hold this share of the probability [default: {}, all]",
        set: Set::Number(|parameters, value| parameters.top_p = value),
    },
    Parameter {
        name: "top_k",
        flag: "top-k",
        variable: None,
        value_name: "K",
        help: "Keep this many of the likeliest tokens; -1: all [default: {}, all]",
        set: Set::Count(|parameters, value| parameters.top_k = value.unwrap_or(0)),
    },
    Parameter {
        name: "min_p",
        flag: "min-p",
        variable: None,
        value_name: "P",
        help: "Keep tokens at least this likely relative to the likeliest [default: {}, all]",
        set: Set::Number(|parameters, value| parameters.min_p = value),
    },
    Parameter {
        name: "xtc_probability",
        flag: "xtc-probability",
        variable: None,
        value_name: "P",
        help: "How often the likeliest tokens are excluded (XTC) [default: {}, never]",
        set: Set::Number(|parameters, value| parameters.xtc_probability = value),
    },
    Parameter {
        name: "xtc_threshold",
        flag: "xtc-threshold",
        variable: None,
        value_name: "P",
        help: "What counts as likely for XTC [default: {}]",
        set: Set::Number(|parameters, value| parameters.xtc_threshold = value),
    },
    Parameter {
        name: "repetition_penalty",
        flag: "repetition-penalty",
        variable: None,
        value_name: "X",
        help: "Make recent tokens less likely: divides their logits [default: {}]",
        set: Set::Number(|parameters, value| parameters.repetition_penalty = Some(value)),
    },
    Parameter {
        name: "repetition_context_size",
        flag: "repetition-context-size",
        variable: None,
        value_name: "N",
        help: "How many recent tokens the repetition penalty looks at; 0: all [default: {}]",
        set: Set::Count(|parameters, value| parameters.repetition_context_size = value.unwrap_or(0)),
    },
    Parameter {
        name: "presence_penalty",
        flag: "presence-penalty",
        variable: None,
        value_name: "X",
        help: "Subtracted from the logits of tokens that occurred recently [default: {}]",
        set: Set::Number(|parameters, value| parameters.presence_penalty = Some(value)),
    },
    Parameter {
        name: "presence_context_size",
        flag: "presence-context-size",
        variable: None,
        value_name: "N",
        help: "How many recent tokens the presence penalty looks at; 0: all [default: {}]",
        set: Set::Count(|parameters, value| parameters.presence_context_size = value.unwrap_or(0)),
    },
    Parameter {
        name: "frequency_penalty",
        flag: "frequency-penalty",
        variable: None,
        value_name: "X",
        help: "The same, once for every time that they occurred [default: {}]",
        set: Set::Number(|parameters, value| parameters.frequency_penalty = Some(value)),
    },
    Parameter {
        name: "frequency_context_size",
        flag: "frequency-context-size",
        variable: None,
        value_name: "N",
        help: "How many recent tokens the frequency penalty looks at; 0: all [default: {}]",
        set: Set::Count(|parameters, value| parameters.frequency_context_size = value.unwrap_or(0)),
    },
    Parameter {
        name: "logit_bias",
        flag: "logit-bias",
        variable: None,
        value_name: "ID=BIAS",
        help: "Add BIAS to the logit of the token with this id; may be given several times",
        set: Set::Bias(|parameters, (id, bias)| {
            parameters.logit_bias.insert(id, bias);
        }),
    },
    Parameter {
        name: "seed",
        flag: "seed",
        variable: None,
        value_name: "N",
        help: "The same seed gives the same answer; -1: another one every time [default: another one every time]",
        set: Set::Seed(|parameters, value| parameters.seed = value),
    },
    Parameter {
        name: "stop",
        flag: "stop",
        variable: None,
        value_name: "TEXT",
        help: "End the answer where this text would begin; may be given several times",
        set: Set::Text(|parameters, value| parameters.stop.push(value)),
    },
    Parameter {
        name: "stop_token_ids",
        flag: "stop-token-id",
        variable: None,
        value_name: "ID",
        help: "End the answer at the token with this id; may be given several times",
        set: Set::Token(|parameters, value| parameters.stop_token_ids.push(value)),
    },
    Parameter {
        name: "ignore_eos",
        flag: "ignore-eos",
        variable: None,
        value_name: "",
        help: "Go on where the model would end its answer",
        set: Set::Switch(|parameters| parameters.ignore_eos = true),
    },
    Parameter {
        name: "min_tokens",
        flag: "min-tokens",
        variable: None,
        value_name: "N",
        help: "Do not end the answer before this many tokens [default: {}]",
        set: Set::Count(|parameters, value| parameters.min_tokens = value.unwrap_or(0)),
    },
    Parameter {
        name: "thinking_budget",
        flag: "thinking-budget",
        variable: None,
        value_name: "N",
        help: "Close the thought before an answer after this many tokens; 0: at once; -1: no limit [default: {}]",
        set: Set::Count(|parameters, value| parameters.thinking_budget = value),
    },
    Parameter {
        name: "max_time",
        flag: "max-time",
        variable: None,
        value_name: "SECONDS",
        help: "End the answer after this time, with what there is [default: {}]",
        set: Set::Seconds(|parameters, value| parameters.max_time = value),
    },
    Parameter {
        name: "prompt_lookup",
        flag: "prompt-lookup",
        variable: None,
        value_name: "N",
        help: "Guess up to N tokens ahead from what prompt and answer repeat: the same answer, faster where it repeats much \
               [default: {}, off; 8 without N]",
        set: Set::Guesses(|parameters, value| parameters.prompt_lookup = value, "8"),
    },
    Parameter {
        name: "draft_tokens",
        flag: "draft-tokens",
        variable: None,
        value_name: "N",
        help: "Guess up to N tokens ahead with the model of --draft-model; 0: none [default: {}]",
        set: Set::Guesses(|parameters, value| parameters.draft_tokens = value, "4"),
    },
];

impl Parameter {
    /// What it does, with the library's default.
    pub(crate) fn help(&self) -> String {
        let defaults = list(&GenerateParameters::default());
        let default = defaults.into_iter().find(|(name, _)| name == self.name).map(|(_, value)| value);
        let default = default.unwrap_or_default();
        self.help.replace("{}", default.strip_suffix(".0").unwrap_or(&default))
    }

    fn argument(&self) -> Arg {
        let argument = Arg::new(self.name)
            .long(self.flag)
            .value_name(self.value_name)
            .help(self.help())
            .help_heading("Generation");
        let expected = self.set.expected();
        let argument = match self.set {
            Set::Count(_) => argument
                .value_parser(move |text: &str| or_minus_one::<usize>(text, expected))
                .allow_negative_numbers(true),
            // "-1" is a value here, though a wrong one: it is refused by what it means.
            Set::Number(_) => argument.value_parser(value_parser!(f32)).allow_negative_numbers(true),
            Set::Seed(_) => argument
                .value_parser(move |text: &str| or_minus_one::<u64>(text, expected))
                .allow_negative_numbers(true),
            Set::Guesses(_, alone) => argument
                .value_parser(value_parser!(usize))
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value(alone),
            Set::Bias(_) => argument.value_parser(logit_bias).action(ArgAction::Append),
            Set::Text(_) => argument.action(ArgAction::Append),
            Set::Token(_) => argument.value_parser(value_parser!(u32)).action(ArgAction::Append),
            Set::Seconds(_) => argument.value_parser(seconds),
            Set::Switch(_) => argument.action(ArgAction::SetTrue),
        };
        let argument = match ALIASES.iter().find(|(alias, _)| *alias == self.flag) {
            Some((_, name)) => argument.alias(*name),
            None => argument,
        };
        match self.variable {
            Some(variable) => argument.env(variable).hide_env(true),
            None => argument,
        }
    }

    fn apply(&self, parameters: &mut GenerateParameters, matches: &ArgMatches) {
        match self.set {
            Set::Count(set) => each(matches, self.name, |value| set(parameters, value)),
            Set::Number(set) => each(matches, self.name, |value| set(parameters, value)),
            Set::Seed(set) => each(matches, self.name, |value| set(parameters, value)),
            Set::Guesses(set, _) => each(matches, self.name, |value| set(parameters, value)),
            Set::Bias(set) => each(matches, self.name, |value| set(parameters, value)),
            Set::Text(set) => each(matches, self.name, |value| set(parameters, value)),
            Set::Token(set) => each(matches, self.name, |value| set(parameters, value)),
            Set::Seconds(set) => each(matches, self.name, |value| set(parameters, Some(value))),
            Set::Switch(set) if matches.get_flag(self.name) => set(parameters),
            Set::Switch(_) => {}
        }
    }
}

fn each<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str, mut set: impl FnMut(T)) {
    matches.get_many(name).into_iter().flatten().cloned().for_each(&mut set);
}

/// The parameters that the flags describe. What is not given keeps the library's default.
#[derive(Clone, Debug)]
pub(crate) struct ParameterFlags {
    parameters: GenerateParameters,
    /// The flag that was given last without the value that may stand behind its `=`, as far as one can see: a value that is what the
    /// flag alone stands for looks the same.
    alone: Option<&'static str>,
}

impl ParameterFlags {
    /// The parameters, checked.
    ///
    /// # Errors
    ///
    /// A value is out of its range.
    pub(crate) fn into_parameters(self) -> CliResult<GenerateParameters> {
        self.parameters.validate().map_err(|error| flag_error(error.into()))?;
        Ok(self.parameters)
    }

    /// The flag without a value that a number behind it was meant for: `--prompt-lookup 4`.
    pub(crate) fn flag_before(&self, argument: Option<&str>) -> Option<&'static str> {
        let is_number = |text: &str| text.parse::<usize>().is_ok();
        self.alone.filter(|_| argument.is_some_and(is_number))
    }

    fn read(&mut self, matches: &ArgMatches) {
        for parameter in PARAMETERS {
            parameter.apply(&mut self.parameters, matches);
            if let Set::Guesses(_, alone) = parameter.set
                && matches.get_raw(parameter.name).is_some_and(|mut given| given.any(|value| value == alone))
            {
                self.alone = Some(parameter.flag);
            }
        }
    }
}

impl Args for ParameterFlags {
    fn augment_args(command: Command) -> Command {
        command.args(PARAMETERS.iter().map(Parameter::argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ParameterFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self { parameters: GenerateParameters::default(), alone: None };
        flags.read(matches);
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.read(matches);
        Ok(())
    }
}

/// An engine's complaint about a field, as a complaint about its flag.
fn flag_error(error: EngineError) -> CliError {
    match error {
        EngineError::Parameter { field, value, expected } => {
            let flag = PARAMETERS.iter().find(|parameter| parameter.name == field);
            let flag = flag.map_or_else(|| field.replace('_', "-"), |parameter| parameter.flag.to_owned());
            CliError::Usage { message: format!("--{flag} is {value}, but must be {expected}"), hint: None }
        }
        error => error.into(),
    }
}

/// A whole number, or -1, which other engines write for "no limit" and "another one every time".
fn or_minus_one<T: FromStr>(text: &str, expected: &str) -> Result<Option<T>, String> {
    let problem = || format!("{text:?} must be {expected}");
    if text == "-1" { Ok(None) } else { text.parse().map(Some).map_err(|_| problem()) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| format!("{text:?} is not a number of seconds"))
}

fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once(['=', ':']).ok_or("must be ID=BIAS, such as 42=-1.5")?;
    let id = id.trim().parse().map_err(|_| format!("{id:?} is not a token id"))?;
    let bias = bias.trim().parse().map_err(|_| format!("{bias:?} is not a number"))?;
    Ok((id, bias))
}

/// Other names that people have for parameters.
const ALIASES: &[(&str, &str)] =
    &[("temp", "temperature"), ("max_completion_tokens", "max_tokens"), ("stop_token_id", "stop_token_ids")];

/// Parameters that mean nothing to the command line.
const HIDDEN: &[&str] = &["logprobs", "top_logprobs"];

/// Sets one parameter, and checks the result.
pub(crate) fn set(
    parameters: &GenerateParameters,
    name: &str,
    value: Value,
) -> Result<GenerateParameters, String> {
    let mut map = to_map(parameters);
    let Some(name) = find(&map, name) else {
        if name.replace('-', "_") == "prefill_step_size" {
            // It was one, and would make all requests wait for the one that sets it.
            return Err("prefill_step_size holds for the model, not for a request: give --prefill-step-size"
                .to_owned());
        }
        return Err(format!("there is no parameter {name:?}"));
    };
    let set = PARAMETERS.iter().find(|parameter| parameter.name == name).map(|parameter| parameter.set);
    if value == -1
        && let Some(changed) = set.and_then(|set| set.at_minus_one(parameters.clone()))
    {
        return Ok(changed);
    }
    let value = match (set, value) {
        (Some(Set::Text(_)), value @ Value::String(_)) | (Some(Set::Token(_)), value @ Value::Number(_)) => {
            Value::Array(vec![value])
        }
        // Python's and JavaScript's programs write whole numbers with a fraction.
        (Some(Set::Count(_) | Set::Seed(_) | Set::Guesses(..)), value) if value.is_f64() => {
            pippin::weights::json::unsigned(&value).map_or(value, Value::from)
        }
        (_, value) => value,
    };
    map.insert(name.clone(), value);
    // Numbers that JSON cannot write are objects by now.
    let shown = match pippin::weights::json::number(&map[&name]) {
        Some(number) if !number.is_finite() => number.to_string(),
        _ => map[&name].to_string(),
    };
    let changed: GenerateParameters = serde_json::from_value(Value::Object(map)).map_err(|_| {
        let expected = set.map_or("another value", Set::expected);
        format!("{name} is {shown}, but must be {expected}")
    })?;
    changed.validate().map_err(|error| error.to_string())?;
    Ok(changed)
}

/// Sets one parameter from what a person typed: JSON, a bare text, or `default`.
pub(crate) fn set_text(
    parameters: &GenerateParameters,
    name: &str,
    text: &str,
) -> Result<GenerateParameters, String> {
    let value = if text == "default" {
        let defaults = to_map(&GenerateParameters::default());
        find(&defaults, name).and_then(|name| defaults.get(&name).cloned()).unwrap_or_default()
    } else {
        serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
    };
    set(parameters, name, value)
}

/// A parameter's name as its field is spelled, when there is such a parameter.
pub(crate) fn known_name(name: &str) -> Option<String> {
    find(&to_map(&GenerateParameters::default()), name)
}

/// All parameters with their values, as people read them.
pub(crate) fn list(parameters: &GenerateParameters) -> Vec<(String, String)> {
    // By way of text: a value of f32 converted to f64 would show digits that nobody typed.
    let text = serde_json::to_string(parameters).unwrap_or_default();
    let map: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    let shown = map.into_iter().filter(|(name, _)| !HIDDEN.contains(&name.as_str()));
    shown
        .map(|(name, value)| (name, if value.is_null() { "none".to_owned() } else { value.to_string() }))
        .collect()
}

fn to_map(parameters: &GenerateParameters) -> Map<String, Value> {
    match serde_json::to_value(parameters) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn find(map: &Map<String, Value>, name: &str) -> Option<String> {
    let name = name.trim_start_matches('-').replace('-', "_").to_ascii_lowercase();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, name)| (*name).to_owned());
    alias.or(Some(name)).filter(|name| map.contains_key(name) && !HIDDEN.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_with(name: &str, text: &str) -> Result<GenerateParameters, String> {
        set_text(&GenerateParameters::default(), name, text)
    }

    #[test]
    fn names_and_values_are_read_as_people_write_them() {
        assert_eq!(default_with("temp", "0").expect("valid").temperature, 0.0);
        assert_eq!(default_with("--top-k", "40").expect("valid").top_k, 40);
        assert_eq!(default_with("stop", "END").expect("valid").stop, ["END"]);
        assert_eq!(default_with("stop", r#"["a", "b"]"#).expect("valid").stop, ["a", "b"]);
        assert_eq!(default_with("stop_token_ids", "7").expect("valid").stop_token_ids, [7]);
        assert_eq!(default_with("--stop-token-id", "[7, 8]").expect("valid").stop_token_ids, [7, 8]);
        let timed = default_with("max-time", "1.5").expect("valid");
        assert_eq!(timed.max_time, Some(Duration::from_millis(1500)));
        assert_eq!(default_with("priority", "-3").expect("valid").priority, -3);
        assert_eq!(default_with("thinking_budget", "0").expect("valid").thinking_budget, Some(0));
        assert!(default_with("ignore-eos", "true").expect("valid").ignore_eos);
        assert_eq!(default_with("max_tokens", "null").expect("valid").max_tokens, None);
        assert_eq!(default_with("logit_bias", r#"{"7": -1.5}"#).expect("valid").logit_bias[&7], -1.5);
        let changed = default_with("temp", "1.5").expect("valid");
        assert_eq!(set_text(&changed, "temperature", "default"), Ok(GenerateParameters::default()));
    }

    #[test]
    fn minus_one_is_no_limit() {
        let limited =
            GenerateParameters { max_tokens: Some(9), top_k: 3, seed: Some(1), ..Default::default() };
        for (name, read) in [("max_tokens", "-1"), ("top_k", "-1"), ("seed", "-1")] {
            let changed = set_text(&limited, name, read).expect(name);
            let defaults = to_map(&GenerateParameters::default());
            assert_eq!(to_map(&changed)[name], defaults[name], "{name}");
        }
        let flags = |arguments: &[&str]| {
            let command = ParameterFlags::augment_args(Command::new("test"));
            let matches = command.try_get_matches_from(["test"].iter().chain(arguments))?;
            ParameterFlags::from_arg_matches(&matches).map(|flags| flags.parameters)
        };
        let given = flags(&["--top-k", "-1", "--max-tokens", "-1", "--seed", "-1"]).expect("valid");
        assert_eq!(given, GenerateParameters::default());
        for wrong in [["--top-k", "-2"], ["--max-tokens", "x"], ["--seed", "-7"], ["--top-k", "1.5"]] {
            let error = flags(&wrong).expect_err(wrong[0]).to_string();
            assert!(error.contains(wrong[0]) && error.contains("or -1 for"), "{error}");
        }
        assert_eq!(default_with("max_tokens", "100.0").expect("valid").max_tokens, Some(100));
    }

    #[test]
    fn wrong_ones_are_refused_by_name() {
        for (name, text, expected) in [
            ("temprature", "1", "temprature"),
            ("prefill_step_size", "64", "--prefill-step-size"),
            ("temperature", "-1", "temperature"),
            ("temperature", "NaN", "temperature"),
            ("temperature", "1e999", "temperature"),
            ("top_p", "2", "top_p"),
            ("top_k", "-3", "top_k"),
            ("top_k", "2.5", "top_k"),
            ("seed", "-2", "seed"),
            ("max_tokens", "99999999999999999999999", "max_tokens"),
            ("stop", "\"\"", "stop"),
            ("prompt_lookup", "33", "prompt_lookup"),
            ("prompt_lookup", "-1", "prompt_lookup"),
            ("logit_bias", "[]", "logit_bias"),
            ("logprobs", "true", "logprobs"),
            ("stop_token_ids", "x", "a token id"),
            ("ignore_eos", "1", "true or false"),
            ("max_time", "-1", "a number of seconds"),
            ("max_time", "0", "max_time"),
        ] {
            let error = default_with(name, text).expect_err(name);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn values_are_listed_as_they_were_typed() {
        let list = list(&default_with("min_p", "0.05").expect("valid"));
        assert!(list.contains(&("min_p".to_owned(), "0.05".to_owned())), "{list:?}");
        assert!(list.contains(&("temperature".to_owned(), "0.6".to_owned())));
        assert!(list.contains(&("seed".to_owned(), "none".to_owned())));
        assert!(list.iter().all(|(name, _)| known_name(name).is_some()));
    }

    #[test]
    fn biases_are_read() {
        assert_eq!(logit_bias("42=-1.5"), Ok((42, -1.5)));
        assert_eq!(logit_bias("42:2"), Ok((42, 2.0)));
        for bad in ["", "42", "=1", "-1=2", "x=1", "42=", "42=y"] {
            assert!(logit_bias(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn flags_set_the_fields_that_they_are_called_after() {
        let defaults = to_map(&GenerateParameters::default());
        for parameter in PARAMETERS {
            assert!(defaults.contains_key(parameter.name), "{} is no field", parameter.name);
            let value = match parameter.set {
                Set::Bias(_) => "7=1",
                Set::Number(_) => "0.25",
                _ => "7",
            };
            let command = ParameterFlags::augment_args(Command::new("test"));
            let argument = match parameter.set {
                Set::Switch(_) => format!("--{}", parameter.flag),
                _ => format!("--{}={value}", parameter.flag),
            };
            let arguments = ["test".to_owned(), argument];
            let matches = command.try_get_matches_from(arguments).expect(parameter.flag);
            let flags = ParameterFlags::from_arg_matches(&matches).expect(parameter.flag);
            for (name, value) in to_map(&flags.parameters) {
                let is_meant = name == parameter.name;
                assert_eq!(value != defaults[&name], is_meant, "--{} and {name}", parameter.flag);
            }
        }
    }

    #[test]
    fn a_flag_alone_guesses_some_tokens_ahead() {
        let command = || ParameterFlags::augment_args(Command::new("test").arg(Arg::new("prompt")));
        for (flag, expected) in [("--prompt-lookup", 8), ("--prompt-lookup=3", 3)] {
            // What follows is not taken for the number.
            let matches = command().try_get_matches_from(["test", flag, "12"]).expect(flag);
            let flags = ParameterFlags::from_arg_matches(&matches).expect(flag);
            assert_eq!(flags.parameters.prompt_lookup, expected);
            assert_eq!(matches.get_one::<String>("prompt").map(String::as_str), Some("12"));
        }
    }

    #[test]
    fn the_help_states_the_librarys_defaults() {
        let help = |name| PARAMETERS.iter().find(|parameter| parameter.name == name).expect(name).help();
        assert!(help("temperature").ends_with("[default: 0.6]"), "{}", help("temperature"));
        assert!(help("top_p").ends_with("[default: 1, all]"), "{}", help("top_p"));
        assert!(help("presence_penalty").ends_with("[default: none]"), "{}", help("presence_penalty"));
        assert!(help("presence_context_size").ends_with("[default: 20]"));
    }
}
