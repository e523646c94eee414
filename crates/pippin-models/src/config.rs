use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

pub(crate) use pippin_weights::json::number;
use pippin_weights::json::{self, unsigned};
use pippin_weights::{WeightsError, open_file_of_model};
use serde_json::{Map, Value};

use crate::{ModelError, Result};

/// The name of the file, as errors give it.
pub(crate) const FILE: &str = "config.json";

/// The file in which ModelOpt says how it has quantized, where `config.json` does not.
const MODELOPT_FILE: &str = "hf_quant_config.json";

/// The most bytes of a `config.json` that are read. The largest published ones, with quantization entries for every
/// expert of every layer, have a few megabytes.
const SIZE_LIMIT: u64 = 16 << 20;

/// A model's `config.json`, with typed access to its fields.
///
/// A field that is `null` counts as absent, as it does in Python, and so does `false` where something else than a flag is
/// meant. Numbers may be written as texts, whole ones with a fraction of zero, and flags as 0 and 1. Every error names the field and shows what was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    value: Value,
    /// What errors say before the names of fields: nothing for the whole file.
    prefix: &'static str,
    /// The metadata that it was made of, where it was not read from a `config.json`.
    metadata: Option<Arc<Metadata>>,
}

/// What a configuration was made of in place of a `config.json`, for errors about its fields.
#[derive(Debug, PartialEq)]
struct Metadata {
    file: PathBuf,
    /// The keys that fields have their values from.
    keys: BTreeMap<String, String>,
}

impl Config {
    /// Reads `config.json` in a model's folder. What `hf_quant_config.json` beside it says becomes `quantization_config`, as in
    /// mlx-lm, if it says nothing of quantization itself.
    ///
    /// # Errors
    ///
    /// The file is missing, larger than 16 MiB, or not a JSON object.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let value = read_json(&path)?.ok_or_else(|| ModelError::Read { path, source: missing() })?;
        let mut config = Self::new(value)?;
        let says = |part: &Value| {
            ["quantization", "quantization_config"].iter().any(|name| part.get(name).is_some())
        };
        if !says(&config.value) && !config.value.get("text_config").is_some_and(says) {
            let path = folder.join(MODELOPT_FILE);
            match (read_json(&path)?, &mut config.value) {
                (Some(Value::Object(mut section)), Value::Object(fields)) => {
                    section.entry("quant_method").or_insert_with(|| Value::from("modelopt"));
                    fields.insert("quantization_config".to_owned(), Value::Object(section));
                }
                (Some(_), _) => {
                    return Err(ModelError::Json { path, message: "must be an object".to_owned() });
                }
                (None, _) => {}
            }
        }
        Ok(config)
    }

    /// Takes a configuration that is already in memory.
    ///
    /// # Errors
    ///
    /// The value is not an object.
    pub fn new(value: Value) -> Result<Self> {
        if value.is_object() {
            Ok(Self { value, prefix: "", metadata: None })
        } else {
            Err(ModelError::field(FILE, "(whole file)", format!("must be an object, found {}", show(&value))))
        }
    }

    /// Takes a configuration that was made of another file's metadata; `keys` are those that fields have their values from.
    pub(crate) fn of_metadata(value: Value, file: &Path, keys: BTreeMap<String, String>) -> Result<Self> {
        let metadata = Metadata { file: file.to_owned(), keys };
        Ok(Self { metadata: Some(Arc::new(metadata)), ..Self::new(value)? })
    }

    /// An error about a field, as one about what the field was made of.
    pub(crate) fn located(&self, error: ModelError) -> ModelError {
        let Some(metadata) = &self.metadata else { return error };
        let place = || format!("{} (metadata)", metadata.file.display());
        match error {
            ModelError::Field { file, field, problem } if file == FILE => match metadata.keys.get(&field) {
                Some(key) => {
                    WeightsError::GgufKey { path: metadata.file.clone(), key: key.clone(), problem }.into()
                }
                None => ModelError::Field { file: place(), field, problem },
            },
            ModelError::Unsupported { file, field, found, known } if file == FILE => {
                let field = metadata.keys.get(&field).cloned().unwrap_or(field);
                ModelError::Unsupported { file: place(), field, found, known }
            }
            error => error,
        }
    }

    /// The configuration of a part of the model, such as the text model of one that sees: an object in this one. `prefix` is
    /// its name with a dot.
    pub(crate) fn part(&self, prefix: &'static str) -> Result<Option<Self>> {
        let name = prefix.trim_end_matches('.');
        Ok(self.fields().object(prefix)?.map(|_| Self {
            value: self.value[name].clone(),
            prefix,
            metadata: self.metadata.clone(),
        }))
    }

    /// The configuration as it was read.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The top-level fields.
    pub(crate) fn fields(&self) -> Fields<'_> {
        static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        Fields { prefix: self.prefix, map: self.value.as_object().unwrap_or(&EMPTY) }
    }

    /// `model_type`, which decides the family.
    ///
    /// # Errors
    ///
    /// The field is missing or not a string.
    pub fn model_type(&self) -> Result<&str> {
        let fields = self.fields();
        fields.text("model_type")?.ok_or_else(|| fields.missing("model_type", "a string"))
    }

    /// The names in `architectures`, which may be a list or a single one.
    pub(crate) fn architectures(&self) -> Vec<&str> {
        match self.fields().get("architectures") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            Some(name) => name.as_str().into_iter().collect(),
            None => Vec::new(),
        }
    }
}

/// The fields of an object in the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    /// Name of the object with a dot, or nothing for the whole file.
    prefix: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// A field's value, unless it is absent or null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether there is no field.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// A field's value as it is, null included.
    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name)
    }

    /// An error about a field.
    pub(crate) fn error(&self, name: &str, problem: impl ToString) -> ModelError {
        ModelError::field(FILE, format_args!("{}{name}", self.prefix), problem)
    }

    pub(crate) fn missing(&self, name: &str, expected: &str) -> ModelError {
        self.error(name, format_args!("is missing; it must be {expected}"))
    }

    /// An error about an architecture that only a program of the model knows, if it has one.
    pub(crate) fn custom_code(&self, model_type: &str) -> Option<ModelError> {
        let field = ["auto_map", "model_file"].into_iter().find(|field| self.get(field).is_some())?;
        let model_type = show(&Value::from(model_type));
        Some(ModelError::CustomCode { file: FILE.to_owned(), field, model_type })
    }

    /// An error about a value that is understood but has no code.
    pub(crate) fn unsupported(&self, name: &str, found: &str, known: &[&'static str]) -> ModelError {
        ModelError::Unsupported {
            file: FILE.to_owned(),
            field: format!("{}{name}", self.prefix),
            found: show(&Value::from(found)),
            known: known.to_vec(),
        }
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            // As Python's "if value" has it: `"rope_scaling": false`.
            None if *value == Value::Bool(false) => Ok(None),
            None => Err(self.error(name, format_args!("must be {expected}, found {}", show(value)))),
        }
    }

    /// Checks that some fields are there.
    pub(crate) fn require(&self, names: &[&str]) -> Result<()> {
        match names.iter().find(|name| self.value(name).is_none()) {
            Some(name) => Err(self.error(name, "is missing")),
            None => Ok(()),
        }
    }

    /// A positive integer.
    pub(crate) fn count(&self, name: &str) -> Result<Option<usize>> {
        self.typed(name, "a positive integer", |value| index(value).filter(|value| *value > 0))
    }

    /// A positive integer that must be there.
    pub(crate) fn required_count(&self, name: &str) -> Result<usize> {
        self.count(name)?.ok_or_else(|| self.missing(name, "a positive integer"))
    }

    /// A positive integer that must be there and not above a limit, because it sizes something.
    pub(crate) fn limited_count(&self, name: &str, limit: usize) -> Result<usize> {
        let count = self.required_count(name)?;
        if count > limit {
            return Err(self.error(name, format_args!("must be at most {limit}, found {count}")));
        }
        Ok(count)
    }

    /// A positive integer not above a limit, or the default.
    pub(crate) fn count_or(&self, name: &str, default: usize, limit: usize) -> Result<usize> {
        match self.get(name) {
            Some(_) => self.limited_count(name, limit),
            None => Ok(default),
        }
    }

    /// A positive finite number in the range of `f32`, or the default.
    pub(crate) fn positive_or(&self, name: &str, default: f32) -> Result<f32> {
        match self.positive(name)? {
            Some(value) if (value as f32).is_finite() && value as f32 > 0.0 => Ok(value as f32),
            Some(value) => {
                Err(self.error(name, format_args!("must be a number in the range of f32, found {value}")))
            }
            None => Ok(default),
        }
    }

    /// True or false, or the default.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.flag(name)?.unwrap_or(default))
    }

    /// A non-negative integer that must be there.
    pub(crate) fn index(&self, name: &str) -> Result<usize> {
        let expected = "a non-negative integer";
        self.typed(name, expected, index)?.ok_or_else(|| self.missing(name, expected))
    }

    /// A non-negative integer, or the default.
    pub(crate) fn index_or(&self, name: &str, default: usize) -> Result<usize> {
        match self.get(name) {
            Some(_) => self.index(name),
            None => Ok(default),
        }
    }

    /// Non-negative integers.
    pub(crate) fn indices(&self, name: &str) -> Result<Option<Vec<usize>>> {
        self.typed(name, "a list of integers", |value| value.as_array()?.iter().map(index).collect())
    }

    /// Positive integers, one for each of some things: a list of them, or one for all.
    pub(crate) fn counts(&self, name: &str, count: usize) -> Result<Vec<usize>> {
        let expected = "a positive integer, or a list of them";
        let positive = |value: &Value| index(value).filter(|value| *value > 0);
        let counts = self.typed(name, expected, |value| match value {
            Value::Array(values) => values.iter().map(positive).collect(),
            value => positive(value).map(|value| vec![value; count]),
        })?;
        self.as_many(name, counts.ok_or_else(|| self.missing(name, expected))?, count)
    }

    /// Numbers from zero to less than one, one for each of some things: a list of them, or one for all; or the default.
    pub(crate) fn shares_or(&self, name: &str, default: f64, count: usize) -> Result<Vec<f64>> {
        let share = |value: &Value| number(value).filter(|share| (0.0..1.0).contains(share));
        let shares = self.typed(name, "numbers from 0 to less than 1", |value| match value {
            Value::Array(values) => values.iter().map(share).collect(),
            value => share(value).map(|share| vec![share; count]),
        })?;
        self.as_many(name, shares.unwrap_or_else(|| vec![default; count]), count)
    }

    fn as_many<T>(&self, name: &str, values: Vec<T>, count: usize) -> Result<Vec<T>> {
        if values.len() == count {
            return Ok(values);
        }
        Err(self.error(name, format_args!("has {} entries for {count} layers", values.len())))
    }

    /// A positive finite number, as it is in `f64`.
    pub(crate) fn positive(&self, name: &str) -> Result<Option<f64>> {
        self.typed(name, "a positive number", |value| number(value).filter(|n| n.is_finite() && *n > 0.0))
    }

    /// A finite number.
    pub(crate) fn finite(&self, name: &str) -> Result<Option<f64>> {
        self.typed(name, "a finite number", |value| number(value).filter(|n| n.is_finite()))
    }

    /// A positive finite number that must be there.
    pub(crate) fn required_positive(&self, name: &str) -> Result<f64> {
        self.positive(name)?.ok_or_else(|| self.missing(name, "a positive number"))
    }

    /// Positive finite numbers: a list, or one number for all.
    pub(crate) fn positives(&self, name: &str) -> Result<Option<Numbers>> {
        let positive = |value: &Value| number(value).filter(|n| n.is_finite() && *n > 0.0);
        self.typed(name, "a list of positive numbers", |value| match value {
            Value::Array(values) => {
                values.iter().map(positive).collect::<Option<Vec<f64>>>().map(Numbers::List)
            }
            value => positive(value).map(Numbers::One),
        })
    }

    /// True or false.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.typed(name, "true or false", json::flag)
    }

    /// A string; an empty one counts as absent.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        Ok(self.typed(name, "a string", Value::as_str)?.filter(|text| !text.is_empty()))
    }

    /// A list of strings.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>> {
        self.typed(name, "a list of strings", |value| value.as_array()?.iter().map(Value::as_str).collect())
    }

    /// Flags, one for each of some things.
    pub(crate) fn flags(&self, name: &str, count: usize) -> Result<Option<Vec<bool>>> {
        let expected = "a list of true and false";
        let flags = self.typed(name, expected, |value| value.as_array()?.iter().map(json::flag).collect());
        flags?.map(|flags| self.as_many(name, flags, count)).transpose()
    }

    /// Whether each of some things is called the first of two words, rather than the other.
    pub(crate) fn words(
        &self,
        name: &str,
        count: usize,
        known: [&'static str; 2],
    ) -> Result<Option<Vec<bool>>> {
        let Some(words) = self.texts(name)? else { return Ok(None) };
        let is_first = |found: &str| match known.iter().position(|known| *known == found) {
            Some(index) => Ok(index == 0),
            None => Err(self.unsupported(name, found, &known)),
        };
        let words = words.into_iter().map(is_first).collect::<Result<_>>()?;
        self.as_many(name, words, count).map(Some)
    }

    /// An object; `prefix` is its name with a dot.
    pub(crate) fn object(&self, prefix: &'static str) -> Result<Option<Fields<'a>>> {
        self.nested(prefix.trim_end_matches('.'), prefix)
    }

    /// An object within an object; `prefix` is its whole name, with a dot at its end.
    pub(crate) fn nested(&self, name: &str, prefix: &'static str) -> Result<Option<Fields<'a>>> {
        self.typed(name, "an object", |value| Some(Fields { prefix, map: value.as_object()? }))
    }

    /// A list of objects; `prefix` is the name of one, with a dot at its end.
    pub(crate) fn objects(&self, name: &str, prefix: &'static str) -> Result<Option<Vec<Fields<'a>>>> {
        let object = |value: &'a Value| Some(Fields { prefix, map: value.as_object()? });
        self.typed(name, "a list of objects", |value| value.as_array()?.iter().map(object).collect())
    }

    /// Whether two objects say the same.
    pub(crate) fn equals(&self, other: &Fields<'_>) -> bool {
        self.map == other.map
    }
}

/// What a JSON file of a model's folder says, if it is there.
fn read_json(path: &Path) -> Result<Option<Value>> {
    let read = |source| ModelError::Read { path: path.to_owned(), source };
    let Some(file) = open_file_of_model(path).map_err(read)? else { return Ok(None) };
    let metadata = file.metadata().map_err(read)?;
    let mut text = Vec::new();
    // One byte over the limit tells a file that is too large, whatever its metadata says.
    let length = file.take(SIZE_LIMIT + 1).read_to_end(&mut text).map_err(read)? as u64;
    if length > SIZE_LIMIT {
        let bytes = metadata.len().max(length);
        return Err(ModelError::TooLarge { path: path.to_owned(), bytes, limit: SIZE_LIMIT });
    }
    let malformed = |message: String| ModelError::Json { path: path.to_owned(), message };
    json::parse(&text).map(Some).map_err(|error| malformed(error.to_string()))
}

/// A non-negative integer that sizes or counts something.
fn index(value: &Value) -> Option<usize> {
    unsigned(value).and_then(|value| usize::try_from(value).ok())
}

/// One number, or one for each of several things.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Numbers {
    One(f64),
    List(Vec<f64>),
}

/// A value for an error message: short, on one line, without characters that change how a terminal shows it.
pub(crate) fn show(value: &Value) -> String {
    const LIMIT: usize = 60;
    if let Some(number) = number(value)
        && !number.is_finite()
    {
        return number.to_string();
    }
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        value => {
            let text = value.to_string();
            let mut shown = String::new();
            for (count, character) in text.chars().enumerate() {
                if count == LIMIT {
                    shown.push('…');
                    break;
                }
                if character.is_ascii_graphic() || character == ' ' || character.is_alphanumeric() {
                    shown.push(character);
                } else {
                    shown.extend(character.escape_unicode());
                }
            }
            shown
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use serde_json::json;

    use super::*;

    fn config(value: Value) -> Config {
        Config::new(value).unwrap()
    }

    fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn counts_are_positive_integers() {
        let config = config(
            json!({"a": 3, "b": 0, "c": -1, "d": 2.5, "e": "four", "f": null, "g": 1e40, "h": [1], "i": true}),
        );
        let fields = config.fields();
        assert_eq!(fields.count("a").unwrap(), Some(3));
        assert_eq!(fields.count("f").unwrap(), None);
        assert_eq!(fields.count("nowhere").unwrap(), None);
        assert_eq!(message(fields.count("b")), "config.json: field `b` must be a positive integer, found 0");
        for field in ["c", "d", "e", "g", "h", "i"] {
            assert!(message(fields.count(field)).contains("must be a positive integer, found "), "{field}");
        }
        assert_eq!(
            message(fields.required_count("f")),
            "config.json: field `f` is missing; it must be a positive integer"
        );
        assert_eq!(
            message(fields.limited_count("a", 2)),
            "config.json: field `a` must be at most 2, found 3"
        );
    }

    #[test]
    fn values_of_a_neighbouring_type_are_read() {
        let config = config(json!({
            "count": 2048.0, "text": "64", "eps": "1e-6", "flag": 1, "word": "False", "list": [1.0, "2"],
            "scaling": false, "window": false
        }));
        let fields = config.fields();
        assert_eq!((fields.count("count").unwrap(), fields.count("text").unwrap()), (Some(2048), Some(64)));
        assert_eq!(fields.positive("eps").unwrap(), Some(1e-6));
        assert_eq!((fields.flag("flag").unwrap(), fields.flag("word").unwrap()), (Some(true), Some(false)));
        assert_eq!(fields.indices("list").unwrap(), Some(vec![1, 2]));
        assert!(fields.object("scaling.").unwrap().is_none() && fields.count("window").unwrap().is_none());
    }

    #[test]
    fn numbers_may_be_tagged() {
        let config =
            config(json!({"a": {"__float__": "Infinity"}, "b": {"__float__": "NaN"}, "c": {"x": 1}, "d": 1}));
        let fields = config.fields();
        assert_eq!(number(fields.get("a").unwrap()), Some(f64::INFINITY));
        assert!(number(fields.get("b").unwrap()).unwrap().is_nan());
        assert_eq!(fields.positive("d").unwrap(), Some(1.0));
        assert_eq!(
            message(fields.positive("a")),
            "config.json: field `a` must be a positive number, found inf"
        );
        assert_eq!(
            message(fields.finite("c")),
            "config.json: field `c` must be a finite number, found an object"
        );
    }

    #[test]
    fn files_may_have_the_numbers_of_python() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"a": [0.0, Infinity, -Infinity], "b": NaN, "c \" NaN": "Infinity \\"}"#;
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        let float = |name: &str| json!({"__float__": name});
        let expected = json!({
            "a": [0.0, float("Infinity"), float("-Infinity")], "b": float("NaN"), "c \" NaN": "Infinity \\",
        });
        assert_eq!(*Config::read(folder.path()).unwrap().value(), expected);
    }

    #[test]
    fn nested_fields_are_named_in_full() {
        let config = config(json!({"rope_scaling": {"factor": "two", "list": [1, -1]}, "other": 3}));
        let nested = config.fields().object("rope_scaling.").unwrap().unwrap();
        assert_eq!(
            message(nested.positive("factor")),
            "config.json: field `rope_scaling.factor` must be a positive number, found \"two\""
        );
        assert!(nested.positives("list").is_err());
        assert!(message(config.fields().object("other.")).contains("must be an object, found 3"));
    }

    #[test]
    fn hostile_values_are_shown_short_and_escaped() {
        let config = config(json!({"a": "x".repeat(1000), "b": "\u{202e}\u{1b}[31m"}));
        assert!(message(config.fields().count("a")).len() < 150);
        let shown = message(config.fields().count("b"));
        assert!(shown.is_ascii() && !shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn files_are_refused_by_size_and_syntax() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let error = Config::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("config.json"), "{error}");
        assert!(matches!(error, ModelError::Read { .. }));
        std::fs::write(&path, "{\"a\": ").unwrap();
        let error = Config::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("not valid JSON"), "{error}");
        std::fs::write(&path, "{\"a\": Infinities}").unwrap();
        let error = Config::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("not valid JSON: expected value at line 1 column 7"), "{error}");
        std::fs::write(&path, "[1]").unwrap();
        assert!(matches!(Config::read(folder.path()), Err(ModelError::Field { .. })));
        std::fs::write(&path, "[".repeat(100_000)).unwrap();
        assert!(matches!(Config::read(folder.path()), Err(ModelError::Json { .. })));
        // A sparse file: nothing of this size is written or read.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = Config::read(folder.path()).unwrap_err();
        assert!(matches!(error, ModelError::TooLarge { bytes, .. } if bytes == 1 << 40), "{error}");
    }
}
