//! Flags that are made from lists: those of the settings, and those of the parameters of generation.

use std::ffi::OsStr;
use std::fmt;
use std::marker::PhantomData;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::Error;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use pippin::config::{ConfigInputs, Setting, SettingKind};
use pippin::loading::Device;

/// Which settings have flags in a command.
pub(crate) trait Selection {
    fn takes(setting: &Setting) -> bool;
}

/// How a model is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Loading;

impl Selection for Loading {
    fn takes(setting: &Setting) -> bool {
        setting.flag.as_ref().is_some_and(|flag| flag.heading == "Loading")
    }
}

/// How a model is loaded, by a command that knows itself which context it needs.
#[derive(Clone, Debug)]
pub(crate) struct LoadingWithoutContext;

impl Selection for LoadingWithoutContext {
    fn takes(setting: &Setting) -> bool {
        Loading::takes(setting) && setting.key != "context"
    }
}

/// All that there are.
#[derive(Clone, Debug)]
pub(crate) struct All;

impl Selection for All {
    fn takes(setting: &Setting) -> bool {
        setting.flag.is_some()
    }
}

/// The flags of settings that were given.
pub(crate) struct SettingFlags<S> {
    given: Vec<(&'static Setting, Vec<String>)>,
    selection: PhantomData<S>,
}

impl<S> SettingFlags<S> {
    /// Adds them to what the configuration comes from.
    pub(crate) fn add_to(&self, inputs: ConfigInputs) -> ConfigInputs {
        self.given.iter().fold(inputs, |inputs, (setting, values)| {
            let name = setting.flag.as_ref().map_or(setting.key, |flag| flag.name);
            values.iter().fold(inputs, |inputs, value| inputs.with_flag(setting.key, name, value))
        })
    }
}

impl<S: Selection> SettingFlags<S> {
    fn settings() -> impl Iterator<Item = &'static Setting> {
        Setting::all().iter().filter(|setting| S::takes(setting))
    }
}

impl<S> Clone for SettingFlags<S> {
    fn clone(&self) -> Self {
        Self { given: self.given.clone(), selection: PhantomData }
    }
}

impl<S> fmt::Debug for SettingFlags<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.given.iter().map(|(setting, values)| (setting.key, values))).finish()
    }
}

impl<S: Selection> Args for SettingFlags<S> {
    fn augment_args(command: Command) -> Command {
        command.args(Self::settings().filter_map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: Selection> FromArgMatches for SettingFlags<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = Self::settings().filter_map(|setting| Some((setting, values(matches, setting)?)));
        Ok(Self { given: given.collect(), selection: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A setting's flag. What clap can check it does, and completes; the rest is the configuration's to check.
fn argument(setting: &'static Setting) -> Option<Arg> {
    let flag = setting.flag.as_ref()?;
    let argument = Arg::new(setting.key)
        .long(flag.name.trim_start_matches("--"))
        .help(setting.help())
        .help_heading(flag.heading);
    Some(match setting.kind {
        SettingKind::Boolean => argument.action(ArgAction::SetTrue),
        SettingKind::List => argument.value_name(flag.value_name).action(ArgAction::Append),
        SettingKind::Choice(names) => {
            argument.value_name(flag.value_name).value_parser(PossibleValuesParser::new(names))
        }
        SettingKind::Device => argument.value_name(flag.value_name).value_parser(DeviceParser),
        SettingKind::Integer(low, high) => {
            // "-1" is a value here, though a wrong one: it is refused by what it means.
            let argument = argument.value_name(flag.value_name).allow_negative_numbers(true);
            argument.value_parser(value_parser!(u64).range(low..=high))
        }
        // -1 is for ever.
        SettingKind::Time => argument.value_name(flag.value_name).allow_negative_numbers(true),
        _ => argument.value_name(flag.value_name),
    })
}

/// Takes the name of a device, with a number or without, and completes those without.
#[derive(Clone)]
struct DeviceParser;

impl TypedValueParser for DeviceParser {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        // As the other places say it where a device is named: a list of the names alone would leave out those with a number.
        let checked = |name: &str| match name.parse::<Device>() {
            Ok(_) => Ok(name.to_owned()),
            Err(error) => {
                Err(error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}")))
            }
        };
        checked.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Device::NAMES.into_iter().map(PossibleValue::new)))
    }
}

/// The values that a setting's flag was given.
fn values(matches: &ArgMatches, setting: &Setting) -> Option<Vec<String>> {
    let values: Vec<String> = match setting.kind {
        SettingKind::Boolean => {
            matches.get_flag(setting.key).then(|| "true".to_owned()).into_iter().collect()
        }
        SettingKind::Integer(..) => {
            matches.get_many::<u64>(setting.key).into_iter().flatten().map(u64::to_string).collect()
        }
        _ => matches.get_many::<String>(setting.key).into_iter().flatten().cloned().collect(),
    };
    (!values.is_empty()).then_some(values)
}
