//! Rotary positions: from a configuration's rope fields to rotation frequencies.
//!
//! The formulas are those of mlx-lm's `rope_utils.py`, evaluated as it evaluates them: what it computes in Python is
//! `f64` here, what it computes in arrays is `f32`. Three differences of form, none of value:
//!
//! - mlx-lm keeps periods (`base ^ (2i / dims)`) and MLX inverts them; a [`RopeSpec`] holds the inverses.
//! - Linear scaling divides positions there and frequencies here.
//! - Dynamic scaling takes its base from the call's last position there and from each token's own position here; see
//!   [`RopeFrequencies::Dynamic`]. The two agree within the trained context and while decoding token by token.

use std::f64::consts::PI;
use std::sync::Arc;

use pippin_tensor::{RopeFrequencies, RopeSpec};

use crate::config::{Fields, Numbers};
use crate::spec::check::{positive, problem, within};
use crate::{Result, limits};

/// The kinds of scaling, as `rope_type` spells them.
const TYPES: [&str; 8] =
    ["default", "linear", "dynamic", "llama3", "yarn", "deepseek_yarn", "longrope", "proportional"];

/// What a family knows about its rotary positions before it looks at the scaling.
pub(crate) struct RopeDefaults {
    /// Dimensions of a head that are rotated.
    pub(crate) dims: usize,
    /// Base of the frequencies where the configuration has none, if it need not have one.
    pub(crate) theta: Option<f64>,
    /// Whether adjacent dimensions form pairs.
    pub(crate) traditional: bool,
}

/// Checks that rotary positions fit heads of a dimension.
pub(crate) fn validate(rope: &RopeSpec, head_dim: usize) -> Result<()> {
    if rope.dims == 0 || !rope.dims.is_multiple_of(2) || rope.dims > head_dim {
        return Err(problem(
            "head_dim",
            format!("is {head_dim}, but {} rotated dimensions must be even and within it", rope.dims),
        ));
    }
    positive("rope_scaling", rope.scale)?;
    match &rope.frequencies {
        RopeFrequencies::Fixed(frequencies) => {
            if frequencies.len() != rope.dims / 2 {
                let (found, dims) = (frequencies.len(), rope.dims);
                let words = format!("gives {found} frequencies for {dims} rotated dimensions");
                return Err(problem("rope_scaling", words));
            }
            // Zero is a pair that does not rotate, a negative one rotates the other way.
            if let Some(frequency) = frequencies.iter().find(|f| !f.is_finite()) {
                return Err(problem("rope_scaling", format!("gives the frequency {frequency}")));
            }
        }
        RopeFrequencies::Dynamic { base, factor, original_context } => {
            positive("rope_theta", *base)?;
            positive("rope_scaling.factor", *factor)?;
            within("max_position_embeddings", *original_context, limits::CONTEXT)?;
            if rope.dims <= 2 {
                return Err(problem("head_dim", "must be above 2 for dynamic rope scaling"));
            }
        }
    }
    Ok(())
}

/// Rotary positions without scaling.
pub(crate) fn plain(base: f64, dims: usize, traditional: bool) -> Arc<RopeSpec> {
    let frequencies = RopeFrequencies::Fixed(unscaled(base, dims));
    Arc::new(RopeSpec { dims, traditional, frequencies, scale: 1.0, axes: None })
}

/// Rotary positions of which only a share of the pairs turns.
pub(crate) fn plain_proportional(base: f64, dims: usize, share: f64, traditional: bool) -> Arc<RopeSpec> {
    let frequencies = proportional(base, dims, share, 1.0);
    Arc::new(RopeSpec { dims, traditional, frequencies, scale: 1.0, axes: None })
}

/// The same positions turning the other way.
pub(crate) fn reversed(rope: &RopeSpec) -> Result<Arc<RopeSpec>> {
    match &rope.frequencies {
        RopeFrequencies::Fixed(frequencies) => {
            let frequencies = RopeFrequencies::Fixed(frequencies.iter().map(|f| -f).collect());
            Ok(Arc::new(RopeSpec { frequencies, ..rope.clone() }))
        }
        RopeFrequencies::Dynamic { .. } => {
            Err(problem("rope_scaling", "cannot be dynamic where positions turn backwards"))
        }
    }
}

/// The rotated dimensions of heads of which a share is rotated. What is more than any head has will be refused, but the
/// frequencies of it may be computed before that.
pub(crate) fn partial(head_dim: usize, share: f64) -> usize {
    ((head_dim as f64 * share) as usize).min(2 * limits::HEAD_DIM)
}

/// The object that says how positions are scaled, as `transformers` 5 chooses it: `rope_scaling` unless it is empty, else
/// `rope_parameters`, which newer configurations have in its place.
pub(crate) fn scaling(config: Fields<'_>) -> Result<Option<Fields<'_>>> {
    let older = config.object("rope_scaling.")?.filter(|scaling| !scaling.is_empty());
    Ok(match older {
        Some(scaling) => Some(scaling),
        None => parameters(config)?,
    })
}

/// The kind of a scaling, and the field that names it: `type`, the older one, counts.
fn scaling_type(scaling: Fields<'_>) -> Result<(&'static str, &str)> {
    Ok(match (scaling.text("type")?, scaling.text("rope_type")?) {
        (Some(rope_type), _) => ("type", rope_type),
        (None, rope_type) => ("rope_type", rope_type.unwrap_or("default")),
    })
}

/// The types of layers that newer configurations may have rope parameters of their own for.
const LAYER_TYPES: [(&str, &str); 2] = [
    ("full_attention", "rope_parameters.full_attention."),
    ("sliding_attention", "rope_parameters.sliding_attention."),
];

/// `rope_parameters` of a family whose layers all have the same.
fn parameters(config: Fields<'_>) -> Result<Option<Fields<'_>>> {
    let Some(parameters) = config.object("rope_parameters.")? else { return Ok(None) };
    let mut common = None;
    for (layer_type, _) in LAYER_TYPES {
        let Some(own) = of_layers(config, layer_type)? else { continue };
        if common.is_some_and(|common: Fields<'_>| !common.equals(&own)) {
            return Err(
                parameters.error(layer_type, "is not supported: all layers must share their rope parameters")
            );
        }
        common = Some(own);
    }
    Ok(Some(common.unwrap_or(parameters)))
}

/// `rope_parameters` of layers of a type, where they have their own.
pub(crate) fn of_layers<'a>(config: Fields<'a>, layer_type: &str) -> Result<Option<Fields<'a>>> {
    let Some(parameters) = config.object("rope_parameters.")? else { return Ok(None) };
    match LAYER_TYPES.into_iter().find(|(name, _)| *name == layer_type) {
        Some((name, prefix)) => parameters.nested(name, prefix),
        None => Ok(None),
    }
}

/// A number that stands inside the object that scales or beside it. The former counts, as in `transformers` 5 and in those
/// families of mlx-lm that know the newer object.
pub(crate) fn setting(config: Fields<'_>, name: &str) -> Result<Option<f64>> {
    first_of([scaling(config)?, Some(config), parameters(config)?], name)
}

fn first_of<'a>(places: impl IntoIterator<Item = Option<Fields<'a>>>, name: &str) -> Result<Option<f64>> {
    for fields in places.into_iter().flatten() {
        if let Some(number) = fields.positive(name)? {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// The share of each head that is rotated.
pub(crate) fn share(config: Fields<'_>, default: f64) -> Result<f64> {
    Ok(setting(config, "partial_rotary_factor")?.unwrap_or(default))
}

/// The longest sequence that a model is made for: `max_position_embeddings`, or what its scaling makes of a shorter one.
///
/// Recipes that stretch a model (Qwen's YaRN, Vicuna's linear scaling) add a factor and leave the field as it was; then, as in
/// vLLM, the context is the original one times the factor. For `llama3` and `longrope` the field says what comes out.
pub(crate) fn context_length(config: Fields<'_>, default: usize) -> Result<usize> {
    let stated = config.count_or("max_position_embeddings", default, limits::CONTEXT)?;
    // Where layers differ, those without a window set how far a model sees.
    let scaling = match of_layers(config, "full_attention")? {
        Some(own) => Some(own),
        None => scaling(config)?,
    };
    let Some(scaling) = scaling else { return Ok(stated) };
    let original = match scaling_type(scaling)?.1 {
        "yarn" | "deepseek_yarn" => scaling.positive("original_max_position_embeddings")?,
        "linear" | "dynamic" => {
            Some(scaling.positive("original_max_position_embeddings")?.unwrap_or(stated as f64))
        }
        _ => None,
    };
    let (Some(original), Some(factor)) = (original, scaling.positive("factor")?) else { return Ok(stated) };
    // What is out of range becomes the largest number, and is cut.
    Ok(stated.max((original * factor).min(limits::CONTEXT as f64) as usize))
}

/// Reads the rotary positions of a configuration.
///
/// `rope_theta` stands beside `rope_scaling`, inside it, or inside `rope_parameters` (newer configurations, which have
/// that object in place of both); see [`setting`] for which of them counts.
pub(crate) fn read(config: Fields<'_>, defaults: &RopeDefaults) -> Result<Arc<RopeSpec>> {
    let base = setting(config, "rope_theta")?;
    read_from(config, scaling(config)?, base, defaults)
}

/// The same with a base that stands elsewhere: that of some of the layers.
pub(crate) fn read_with_theta(
    config: Fields<'_>,
    theta: f64,
    defaults: &RopeDefaults,
) -> Result<Arc<RopeSpec>> {
    read_from(config, scaling(config)?, Some(theta), defaults)
}

/// The same from the parameters of layers of one type.
pub(crate) fn read_of_layers(
    config: Fields<'_>,
    own: Fields<'_>,
    defaults: &RopeDefaults,
) -> Result<Arc<RopeSpec>> {
    let base = first_of([Some(own), Some(config)], "rope_theta")?;
    read_from(config, Some(own), base, defaults)
}

/// The same with a scaling and a base that the family has found.
pub(crate) fn read_from(
    config: Fields<'_>,
    scaling: Option<Fields<'_>>,
    base: Option<f64>,
    defaults: &RopeDefaults,
) -> Result<Arc<RopeSpec>> {
    let &RopeDefaults { dims, theta, traditional } = defaults;
    let base = base.or(theta).ok_or_else(|| config.missing("rope_theta", "a positive number"))?;
    if !(base as f32).is_finite() || base as f32 == 0.0 {
        return Err(
            config.error("rope_theta", format_args!("must be a number in the range of f32, found {base}"))
        );
    }
    if dims == 0 || !dims.is_multiple_of(2) || dims > limits::HEAD_DIM {
        let problem = format_args!("must be an even number of at most {}, found {dims}", limits::HEAD_DIM);
        return Err(config.error("head_dim", problem));
    }
    let mut spec = RopeSpec {
        dims,
        traditional,
        frequencies: RopeFrequencies::Fixed(unscaled(base, dims)),
        scale: 1.0,
        axes: None,
    };

    let Some(scaling) = scaling else { return Ok(Arc::new(spec)) };
    let (field, rope_type) = scaling_type(scaling)?;
    match rope_type {
        // Sections of several axes, which are one in text.
        "default" | "mrope" => {}
        "linear" => {
            let scale = (1.0 / scaling.required_positive("factor")?) as f32;
            let frequencies = unscaled(base, dims).iter().map(|f| f * scale).collect();
            spec.frequencies = RopeFrequencies::Fixed(frequencies);
        }
        // Hunyuan's: the base is raised once and for all.
        "dynamic" if scaling.positive("alpha")?.is_some() => {
            let alpha = scaling.required_positive("alpha")?;
            let raised = base * alpha.powf(dims as f64 / (dims as f64 - 2.0));
            spec.frequencies = inverses(&periods(raised, dims));
        }
        "dynamic" => {
            spec.frequencies = RopeFrequencies::Dynamic {
                base: base as f32,
                factor: scaling.required_positive("factor")? as f32,
                original_context: config.required_count("max_position_embeddings")?,
            };
        }
        "llama3" => {
            let periods = Llama3 {
                factor: scaling.required_positive("factor")?,
                low_frequency_factor: scaling.positive("low_freq_factor")?.unwrap_or(1.0),
                high_frequency_factor: scaling.positive("high_freq_factor")?.unwrap_or(4.0),
                original_context: scaling.positive("original_max_position_embeddings")?.unwrap_or(8192.0),
            }
            .periods(base, dims);
            spec.frequencies = inverses(&periods);
        }
        "yarn" | "deepseek_yarn" => {
            let yarn = Yarn {
                factor: scaling.required_positive("factor")?,
                original_context: scaling.positive("original_max_position_embeddings")?.unwrap_or(4096.0),
                beta_fast: scaling.positive("beta_fast")?.unwrap_or(32.0),
                beta_slow: scaling.positive("beta_slow")?.unwrap_or(1.0),
                mscale: scaling.finite("mscale")?.unwrap_or(1.0),
                mscale_all_dim: scaling.finite("mscale_all_dim")?.unwrap_or(0.0),
                truncate: scaling.flag("truncate")?.unwrap_or(true),
            };
            spec.frequencies = inverses(&yarn.periods(base, dims));
            spec.scale = yarn.scale() as f32;
        }
        "longrope" | "su" => {
            let context = config.required_count("max_position_embeddings")? as f64;
            let original = match scaling.positive("original_max_position_embeddings")? {
                Some(original) => original,
                None => config.positive("original_max_position_embeddings")?.ok_or_else(|| {
                    scaling.missing("original_max_position_embeddings", "a positive integer")
                })?,
            };
            // The short factors, for sequences within the original context, are not used: nor are they in mlx-lm, and
            // a cache whose keys were rotated by one set cannot be read with the other.
            let factors = scaling
                .positives("long_factor")?
                .ok_or_else(|| scaling.missing("long_factor", "a list of positive numbers"))?;
            let factors = match factors {
                Numbers::One(factor) => vec![factor; dims / 2],
                Numbers::List(factors) if factors.len() == dims / 2 => factors,
                Numbers::List(factors) => {
                    let problem = format_args!(
                        "must have {} numbers, one per rotated pair, found {}",
                        dims / 2,
                        factors.len()
                    );
                    return Err(scaling.error("long_factor", problem));
                }
            };
            let periods: Vec<f32> = periods(base, dims)
                .iter()
                .zip(&factors)
                .map(|(period, factor)| *factor as f32 * period)
                .collect();
            spec.frequencies = inverses(&periods);
            let factor = context / original;
            spec.scale = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() as f32 };
            // mlx-lm has split halves only for this kind.
            spec.traditional = false;
        }
        // Pairs as of a rotation of all dimensions, of which those beyond a share do not turn.
        "proportional" => {
            let share = scaling.positive("partial_rotary_factor")?.unwrap_or(1.0);
            if share > 1.0 {
                let problem = format_args!("must be at most 1, found {share}");
                return Err(scaling.error("partial_rotary_factor", problem));
            }
            let factor = scaling.positive("factor")?.unwrap_or(1.0);
            spec.frequencies = proportional(base, dims, share, factor);
        }
        other => return Err(scaling.unsupported(field, other, &TYPES)),
    }
    Ok(Arc::new(spec))
}

/// YaRN whatever the scaling is called, with a factor of one where there is none, and without one on what is rotated.
pub(crate) fn stretched(
    config: Fields<'_>,
    scaling: Option<Fields<'_>>,
    base: f64,
    dims: usize,
    context: f64,
) -> Result<Arc<RopeSpec>> {
    let defaults = RopeDefaults { dims, theta: None, traditional: true };
    let plain = read_from(config, None, Some(base), &defaults)?;
    let number = |name: &str, default: f64| -> Result<f64> {
        Ok(scaling.map(|scaling| scaling.positive(name)).transpose()?.flatten().unwrap_or(default))
    };
    let yarn = Yarn {
        factor: number("factor", 1.0)?,
        original_context: number("original_max_position_embeddings", context)?,
        beta_fast: number("beta_fast", 32.0)?,
        beta_slow: number("beta_slow", 1.0)?,
        mscale: 0.0,
        mscale_all_dim: 0.0,
        truncate: true,
    };
    Ok(Arc::new(RopeSpec { frequencies: inverses(&yarn.periods(base, dims)), ..(*plain).clone() }))
}

/// `base ^ (-2i / dims)`, computed as MLX computes it from a base: as an exponential.
fn unscaled(base: f64, dims: usize) -> Vec<f32> {
    let half = dims / 2;
    let step = (base as f32).ln() / half as f32;
    (0..half).map(|i| (-(i as f32) * step).exp()).collect()
}

/// `base ^ (2i / dims)`.
fn periods(base: f64, dims: usize) -> Vec<f32> {
    (0..dims / 2).map(|i| (base as f32).powf((2 * i) as f32 / dims as f32)).collect()
}

/// A rotation of all dimensions of which only a share of the pairs turns, those with short periods.
fn proportional(base: f64, dims: usize, share: f64, factor: f64) -> RopeFrequencies {
    let turning = partial(dims, share).div_ceil(2);
    let mut periods = periods(base, dims);
    for (pair, period) in periods.iter_mut().enumerate() {
        *period = if pair < turning { factor as f32 * *period } else { f32::INFINITY };
    }
    inverses(&periods)
}

fn inverses(periods: &[f32]) -> RopeFrequencies {
    RopeFrequencies::Fixed(periods.iter().map(|period| 1.0 / period).collect())
}

/// Llama 3.1: long periods are stretched by `factor`, short ones kept, those between interpolated.
struct Llama3 {
    factor: f64,
    low_frequency_factor: f64,
    high_frequency_factor: f64,
    original_context: f64,
}

impl Llama3 {
    fn periods(&self, base: f64, dims: usize) -> Vec<f32> {
        let low_wavelength = (self.original_context / self.low_frequency_factor) as f32;
        let high_wavelength = (self.original_context / self.high_frequency_factor) as f32;
        let band = (self.high_frequency_factor - self.low_frequency_factor) as f32;
        let (factor, low) = (self.factor as f32, self.low_frequency_factor as f32);
        let stretched = |period: f32| {
            let wavelength = (2.0 * PI) as f32 * period;
            if wavelength > low_wavelength {
                period * factor
            } else if wavelength > high_wavelength && wavelength < low_wavelength {
                let smooth = (self.original_context as f32 / wavelength - low) / band;
                period / ((1.0 - smooth) / factor + smooth)
            } else {
                period
            }
        };
        periods(base, dims).into_iter().map(stretched).collect()
    }
}

/// YaRN (<https://arxiv.org/abs/2309.00071>): pairs that turn often within the original context are kept, pairs that turn
/// seldom are stretched by `factor`, with a ramp between.
struct Yarn {
    factor: f64,
    original_context: f64,
    beta_fast: f64,
    beta_slow: f64,
    mscale: f64,
    mscale_all_dim: f64,
    /// Whether the ramp begins and ends at whole pairs.
    truncate: bool,
}

impl Yarn {
    fn periods(&self, base: f64, dims: usize) -> Vec<f32> {
        // The pair that turns `rotations` times within the original context.
        let pair = |rotations: f64| {
            dims as f64 * (self.original_context / (rotations * 2.0 * PI)).ln() / (2.0 * base.ln())
        };
        let (low, high) = (pair(self.beta_fast), pair(self.beta_slow));
        let (low, high) = if self.truncate { (low.floor(), high.ceil()) } else { (low, high) };
        let low = low.max(0.0);
        let mut high = high.min(dims as f64 - 1.0);
        if low == high {
            high += 0.001;
        }
        let factor = self.factor as f32;
        let blended = |(i, period): (usize, f32)| {
            let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            let kept = 1.0 - ramp;
            let stretched = factor * period;
            (stretched * period) / (stretched * kept + period * (1.0 - kept))
        };
        periods(base, dims).into_iter().enumerate().map(blended).collect()
    }

    /// The factor on rotated queries and keys.
    fn scale(&self) -> f64 {
        let part = |mscale: f64| if self.factor <= 1.0 { 1.0 } else { 0.1 * mscale * self.factor.ln() + 1.0 };
        part(self.mscale) / part(self.mscale_all_dim)
    }
}
