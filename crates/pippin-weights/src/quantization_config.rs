//! What `config.json` says of a model's quantization.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::WeightsError;
use crate::json::{flag, unsigned};
use crate::quantization::{QuantMode, QuantSpec};

/// What a configuration says about the matrix at one module path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Listed: quantized like this.
    Quantized(QuantSpec),
    /// Listed: not quantized.
    Dense,
    /// Not listed: quantized if there are scales, as their shapes say.
    Infer,
}

/// The `quantization` section of `config.json`: a default and what deviates from it, by module path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuantizationConfig {
    /// The spec of the model as a whole; `None` for a dense model, and where the section does not say it. It describes the model and stands in for
    /// `true` in the overrides; the loader does not trust it for paths that are not listed.
    pub default: Option<QuantSpec>,
    overrides: HashMap<String, Lookup>,
    /// The paths of experts each of which has a factor of its own besides the scales.
    global_scales: HashSet<String>,
    /// The method of another tool that the section names, with its place. Weights may be dense nevertheless: conversions
    /// leave the section of their source.
    foreign: Option<Foreign>,
    warnings: Vec<String>,
}

/// A method of another tool: the file and the field that name it, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Foreign {
    file: PathBuf,
    field: String,
    method: String,
}

impl QuantizationConfig {
    /// Reads the section from a parsed `config.json`.
    ///
    /// The first of these that is present counts: `quantization`, `quantization_config`, and the same two
    /// inside `text_config`. With none, the model is dense and the result empty. `file` is only named in
    /// errors.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Config`] for a malformed section, naming the field. The methods of other tools are none here: some of
    /// their formats are put in MLX's layout before anything is read
    /// ([`Checkpoint::unpacked`](crate::Checkpoint::unpacked)), weights in others are refused where they are read
    /// ([`WeightsError::UnsupportedMethod`]), and weights that are dense after all are not.
    pub fn from_config(config: &Value, file: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let file = file.as_ref();
        for parent in [None, Some("text_config")] {
            let object = match parent {
                None => config,
                Some(key) => match config.get(key) {
                    Some(object) => object,
                    None => continue,
                },
            };
            for key in ["quantization", "quantization_config"] {
                let field = match parent {
                    None => key.to_owned(),
                    Some(parent) => format!("{parent}.{key}"),
                };
                match object.get(key) {
                    None | Some(Value::Null | Value::Bool(false)) => {}
                    Some(Value::Object(section)) if section.is_empty() && key == "quantization_config" => {}
                    Some(Value::Object(section)) => return Self::from_section(section, file, &field),
                    Some(_) => {
                        let problem = "must be an object".to_owned();
                        return Err(WeightsError::Config { file: file.to_owned(), field, problem });
                    }
                }
            }
        }
        Ok(Self::default())
    }

    fn from_section(
        section: &serde_json::Map<String, Value>,
        file: &Path,
        field: &str,
    ) -> Result<Self, WeightsError> {
        let is_mlx = section.contains_key("bits") && section.contains_key("group_size");
        // mlx-lm does not look for a method in the section that is its own.
        let is_own = field.ends_with("quantization") && is_mlx;
        let method = section.get("quant_method").filter(|method| !method.is_null() && !is_own);
        check_supported(section, file, field)?;
        let mut warnings = Vec::new();
        let default = match method {
            None => read_default(section, file, field, &mut warnings),
            Some(Value::String(method)) => match QuantMode::from_name(method) {
                Some(mode) => Some(mode.default_spec()),
                None if is_mlx && method == "mlx" => read_default(section, file, field, &mut warnings),
                None => {
                    let field = format!("{field}.quant_method");
                    let foreign = Foreign { file: file.to_owned(), field, method: method.clone() };
                    return Ok(Self { foreign: Some(foreign), ..Self::default() });
                }
            },
            Some(_) => {
                return Err(WeightsError::Config {
                    file: file.to_owned(),
                    field: format!("{field}.quant_method"),
                    problem: "must be a string".to_owned(),
                });
            }
        };
        let (mut overrides, mut global_scales) = (HashMap::new(), HashSet::new());
        for (path, value) in section {
            let lookup = match value {
                Value::Bool(false) => Lookup::Dense,
                Value::Bool(true) => default.map_or(Lookup::Infer, Lookup::Quantized),
                Value::Object(entry) => {
                    if has_global_scale(entry, file, &format!("{field}.{path}"))? {
                        global_scales.insert(path.clone());
                    }
                    read_spec(entry, file, &format!("{field}.{path}"), false)?
                        .map_or(Lookup::Infer, Lookup::Quantized)
                }
                // Settings of the section itself (bits, mode, …), and what other tools leave there.
                _ => continue,
            };
            overrides.insert(path.clone(), lookup);
        }
        Ok(Self { default, overrides, global_scales, foreign: None, warnings })
    }

    /// A configuration in which every path has the same spec unless overridden.
    #[must_use]
    pub fn uniform(spec: QuantSpec) -> Self {
        Self { default: Some(spec), ..Self::default() }
    }

    /// Adds an override; [`Lookup::Infer`] removes one.
    #[must_use]
    pub fn with_override(mut self, path: impl Into<String>, lookup: Lookup) -> Self {
        match lookup {
            Lookup::Infer => self.overrides.remove(&path.into()),
            lookup => self.overrides.insert(path.into(), lookup),
        };
        self
    }

    /// What the configuration says about a module path such as `model.layers.0.mlp.up_proj`.
    #[must_use]
    pub fn lookup(&self, path: &str) -> Lookup {
        self.overrides.get(path).copied().unwrap_or(Lookup::Infer)
    }

    /// Whether the configuration says that the experts at a path have a factor each.
    #[must_use]
    pub fn has_global_scale(&self, path: &str) -> bool {
        self.global_scales.contains(path)
    }

    /// What is odd about the section but does no harm.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Why a matrix could not be read: where the section names the method of another tool, for that.
    pub(crate) fn explain(&self, error: WeightsError) -> WeightsError {
        match self.foreign.clone() {
            Some(Foreign { file, field, method }) => WeightsError::UnsupportedMethod { file, field, method },
            None => error,
        }
    }

    /// The listed paths, in no particular order.
    pub fn overrides(&self) -> impl Iterator<Item = (&str, Lookup)> {
        self.overrides.iter().map(|(path, &lookup)| (path.as_str(), lookup))
    }
}

/// Refuses what would make other numbers of the weights than those that are computed here.
fn check_supported(
    object: &serde_json::Map<String, Value>,
    file: &Path,
    field: &str,
) -> Result<(), WeightsError> {
    // Activations are rounded before they are multiplied.
    if is_set(object, "quantize_input") {
        let field = format!("{field}.quantize_input");
        let problem = "quantized activations are not supported".to_owned();
        return Err(WeightsError::Config { file: file.to_owned(), field, problem });
    }
    // BitNet's weights as they were trained, which are rounded to three values before they are multiplied.
    if object.get("quantization_mode").is_some_and(|mode| mode == "online") {
        let field = format!("{field}.quantization_mode");
        let problem = "weights that are quantized while they are used are not supported".to_owned();
        return Err(WeightsError::Config { file: file.to_owned(), field, problem });
    }
    Ok(())
}

fn is_set(object: &serde_json::Map<String, Value>, key: &str) -> bool {
    object.get(key).is_some_and(|value| !value.is_null() && flag(value) != Some(false))
}

/// Whether an entry says that each expert has a factor of its own, as mlx-lm writes it for `nvfp4`.
fn has_global_scale(
    entry: &serde_json::Map<String, Value>,
    file: &Path,
    field: &str,
) -> Result<bool, WeightsError> {
    let is_set = is_set(entry, "global_scale");
    if is_set && entry.get("mode").and_then(Value::as_str) != Some(QuantMode::Nvfp4.name()) {
        let field = format!("{field}.global_scale");
        let problem = "only the mode nvfp4 has global scales".to_owned();
        return Err(WeightsError::Config { file: file.to_owned(), field, problem });
    }
    Ok(is_set)
}

/// Reads what the section says of all matrices. No matrix is read by it, as in MLX (their shapes say what they are), so
/// numbers that cannot be are a warning.
fn read_default(
    section: &serde_json::Map<String, Value>,
    file: &Path,
    field: &str,
    warnings: &mut Vec<String>,
) -> Option<QuantSpec> {
    read_spec(section, file, field, true).unwrap_or_else(|error| {
        warnings.push(format!("{error}; the weights themselves say how they are stored"));
        None
    })
}

/// Reads `{bits, group_size, mode}`. In an override, MLX takes what is missing from the mode. The section itself that leaves
/// out (or has as null) bits or group size, and states no mode, says nothing: then the tensors do.
fn read_spec(
    object: &serde_json::Map<String, Value>,
    file: &Path,
    field: &str,
    is_section: bool,
) -> Result<Option<QuantSpec>, WeightsError> {
    let bad = |key: &str, problem: String| WeightsError::Config {
        file: file.to_owned(),
        field: format!("{field}.{key}"),
        problem,
    };
    let mode = match object.get("mode") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(QuantMode::from_name(name).ok_or_else(|| {
            bad("mode", format!("unknown mode; known are {}", QuantMode::ALL.map(QuantMode::name).join(", ")))
        })?),
        Some(_) => return Err(bad("mode", "must be a string".to_owned())),
    };
    let number = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match unsigned(value).and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(bad(key, "must be a small unsigned integer".to_owned())),
        },
    };
    let mode_default = mode.unwrap_or(QuantMode::Affine).default_spec();
    let (bits, group_size) = (number("bits")?, number("group_size")?);
    let spec = QuantSpec {
        mode: mode_default.mode,
        bits: bits.unwrap_or(mode_default.bits),
        group_size: group_size.map_or(mode_default.group_size, |size| size as usize),
    };
    check_supported(object, file, field)?;
    if is_section && mode.is_none() && (bits.is_none() || group_size.is_none()) {
        return Ok(None);
    }
    if !spec.is_of_mlx() {
        let default = spec.mode.default_spec();
        // Of a mode with several numbers of bits, those that go with a usual group size are the valid ones.
        let key = match (QuantSpec { group_size: default.group_size, ..spec }).validate() {
            Ok(()) => "group_size",
            Err(_) => "bits",
        };
        return Err(bad(key, format!("unsupported quantization: {spec}")));
    }
    Ok(Some(spec))
}
