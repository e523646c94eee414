//! Tiny random weights that follow from a tensor's name: the models of the golden tests.
//!
//! A configuration and a number (the salt) stand for a whole checkpoint, so a golden file needs to hold expected results
//! only. `tools/goldens/weights.py` is the same generator in Python, for the oracle; its opening comment defines it, and
//! the two must agree bit for bit. Other crates may use it to test with models that cost nothing:
//!
//! ```
//! use pippin_models::{Config, describe_from, testing};
//! use pippin_tensor::Dtype;
//!
//! let config = Config::new(testing::tiny_llama())?;
//! let info = describe_from(&config, &testing::checkpoint(&config, Dtype::F32, 0)?)?;
//! assert_eq!(info.vocab_size, 96);
//! # Ok::<(), pippin_models::ModelError>(())
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use pippin_tensor::{Dtype, QuantMode, QuantSpec};
use pippin_weights::{Checkpoint, QuantizationConfig, TensorData, WeightsError};
use serde_json::{Value, json};

use crate::source::{Cut, Source, latent_stacks};
use crate::spec::HeadWeights;
use crate::weights::Weights;
use crate::{Config, ModelError, ModelTypeRegistry, Result};

/// The configuration of a llama with two layers, 64 wide, and 96 token ids.
pub fn tiny_llama() -> Value {
    json!({
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": 96,
        "max_position_embeddings": 256,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
    })
}

/// The checkpoint that a configuration and a salt stand for; `dtype` is that of everything but packed words and 8-bit scales.
///
/// # Errors
///
/// The configuration is not that of a model. Since the result is held in memory, only tiny ones make sense.
pub fn checkpoint(config: &Config, dtype: Dtype, salt: u64) -> Result<Checkpoint> {
    Ok(Checkpoint::from_tensors(tensors(config, dtype, salt)?))
}

/// The tensors of [`checkpoint`].
///
/// # Errors
///
/// As for [`checkpoint`].
pub fn tensors(config: &Config, dtype: Dtype, salt: u64) -> Result<Vec<TensorData>> {
    let mut spec = ModelTypeRegistry::find(config)?.spec(config)?;
    if spec.head.weights == HeadWeights::IfPresent {
        spec.head.weights = HeadWeights::Tied;
    }
    let mut generator = Generator { config, dtype, salt, rotations: &spec.rotations, tensors: Vec::new() };
    Weights::read(&spec, &mut generator)?;
    Ok(generator.tensors)
}

/// A source that makes weights up as they are asked for.
struct Generator<'a> {
    config: &'a Config,
    dtype: Dtype,
    salt: u64,
    rotations: &'a BTreeMap<String, usize>,
    tensors: Vec<TensorData>,
}

impl Source for Generator<'_> {
    type Linear = ();
    type Vector = ();

    fn has(&self, _: &str) -> bool {
        true
    }

    fn linear(&mut self, path: &str, shape: [usize; 2], bias: bool, _: Cut) -> Result<()> {
        self.matrix(path, &shape)?;
        if self.rotations.contains_key(path) {
            self.parameter(&format!("{path}.signs"), &shape[1..])?;
        }
        if bias { self.parameter(&format!("{path}.bias"), &shape[..1]) } else { Ok(()) }
    }

    fn dense(&mut self, path: &str, shape: [usize; 2], bias: bool, _: Cut) -> Result<()> {
        self.dense_matrix(path, &shape)?;
        if bias { self.parameter(&format!("{path}.bias"), &shape[..1]) } else { Ok(()) }
    }

    fn split(
        &mut self,
        path: &str,
        shape: [usize; 2],
        bias: bool,
        parts: &[Vec<Range<usize>>],
        cut: Cut,
    ) -> Result<Vec<()>> {
        self.linear(path, shape, bias, cut)?;
        Ok(vec![(); parts.len()])
    }

    fn stack(&mut self, path: &str, shape: [usize; 3], bias: bool, _: Cut) -> Result<()> {
        self.matrix(path, &shape)?;
        if bias { self.parameter(&format!("{path}.bias"), &shape[..2]) } else { Ok(()) }
    }

    fn experts(&mut self, path: &str, shape: [usize; 3], bias: bool, cut: Cut) -> Result<((), Option<()>)> {
        self.stack(path, shape, bias, cut)?;
        let own = self.config.value().get("quantization").and_then(|all| all.get(path));
        if own.and_then(|own| own.get("global_scale")?.as_bool()) != Some(true) {
            return Ok(((), None));
        }
        let name = format!("{path}.global_scale");
        let values = self.uniform(&name, shape[0]).map(|u| (1.0 + u / 4.0) * 2688.0).collect();
        self.push(name, &shape[..1], values)?;
        Ok(((), Some(())))
    }

    fn turned(&mut self, name: &str, shape: [usize; 3]) -> Result<()> {
        self.dense_tensor(name.to_owned(), &shape, gain(name, shape.len()))
    }

    fn first_row(&mut self, _: &str, _: [usize; 2]) -> Result<()> {
        Ok(())
    }

    fn latent(
        &mut self,
        at: &str,
        heads: usize,
        rank: usize,
        dims: [usize; 2],
        joined: bool,
    ) -> Result<[(); 2]> {
        if !joined {
            return latent_stacks(self, at, heads, rank, dims);
        }
        self.matrix(&format!("{at}.kv_b_proj"), &[heads * (dims[0] + dims[1]), rank])?;
        Ok([(), ()])
    }

    fn constant(&mut self, _: [usize; 2], _: impl Fn(usize) -> f32) -> Result<()> {
        Ok(())
    }

    fn vector(&mut self, name: &str, shape: &[usize], _: fn(f32) -> f32) -> Result<()> {
        self.parameter(name, shape)
    }

    fn repeated(&mut self, name: &str, len: usize, _: usize, _: fn(f32) -> f32) -> Result<()> {
        self.parameter(name, &[len])
    }

    fn kernels(&mut self, path: &str, columns: usize, taps: usize) -> Result<()> {
        let name = format!("{path}.weight");
        let amplitude = (3.0 / taps as f64).sqrt() as f32;
        let values = self.uniform(&name, columns * taps).map(|u| u * amplitude).collect();
        self.push(name, &[columns, taps, 1], values)
    }

    fn head_kernels(&mut self, name: &str, heads: usize, taps: usize, _: usize) -> Result<()> {
        self.parameter(name, &[1, 1, heads, 1, taps])
    }
}

/// The last component of a dotted name.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// How much larger than usual a matrix's weights are.
fn gain(path: &str, axes: usize) -> f64 {
    match last(path) {
        "q_proj" | "k_proj" | "o_proj" | "qkv_proj" | "query_key_value" | "dense" | "q_b_proj"
        | "kv_a_proj_with_mqa" | "embed_q" | "out_proj" | "linear_out" => 2.0,
        "Wqkv" | "att_proj" | "attn_out" | "c_attn" | "wqkv" | "wo" => 2.0,
        "gate_proj" | "up_proj" if axes == 3 => 2.0,
        "modality_router" => 32.0,
        _ => 1.0,
    }
}

impl Generator<'_> {
    /// A parameter that is neither matrix, stack nor convolution.
    fn parameter(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let number: fn(f32) -> f32 = match last(name) {
            "signs" => |u| if u < 0.0 { -1.0 } else { 1.0 },
            "sinks" | "r_k" => |u| u / 2.0,
            kind if kind.ends_with("bias") => |u| u / 2.0,
            "x_r" | "x_w" | "x_k" | "x_v" | "x_a" | "x_g" => |u| 0.5 + u / 2.0,
            "A_log" => |u| u * 2.0 - 2.0,
            "recurrent_param" => |u| u * 2.0 - 4.0,
            _ => |u| 1.0 + u / 4.0,
        };
        let values = self.uniform(name, shape.iter().product()).map(number).collect();
        self.push(name.to_owned(), shape, values)
    }

    /// A matrix, or a stack of them, quantized or not.
    fn matrix(&mut self, path: &str, shape: &[usize]) -> Result<()> {
        let (Some((cols, outer)), gain) = (shape.split_last(), gain(path, shape.len())) else {
            return Ok(());
        };
        let (cols, rows) = (*cols, outer.iter().product::<usize>());
        let weight = format!("{path}.weight");
        let shaped = |last: usize| -> Vec<usize> { outer.iter().copied().chain([last]).collect() };
        match self.quantization(path).filter(|spec| cols.is_multiple_of(spec.group_size)) {
            Some(spec) if spec.mode != QuantMode::Affine => self.minifloat(path, shape, gain, spec),
            Some(QuantSpec { bits, group_size, .. }) => {
                let words = cols * bits as usize / 32;
                let packed: Vec<u32> =
                    stream(self.salt, &weight).take(rows * words).map(|z| (z >> 32) as u32).collect();
                self.tensors.push(TensorData::from_u32(weight, &shaped(words), &packed)?);

                let groups = cols / group_size;
                let levels = 2f64.powi(bits as i32);
                let base = (gain * (12.0 / (levels * levels - 1.0) / cols as f64).sqrt()) as f32;
                let scales_name = format!("{path}.scales");
                let scales: Vec<f32> = self
                    .uniform(&scales_name, rows * groups)
                    .enumerate()
                    .map(|(i, u)| base * (1.0 + u / 4.0) * if i % 2 == 1 { -1.0 } else { 1.0 })
                    .collect();
                let center = ((levels - 1.0) / 2.0) as f32;
                let biases = scales.iter().map(|scale| -(scale * center)).collect();
                self.push(scales_name, &shaped(groups), scales)?;
                self.push(format!("{path}.biases"), &shaped(groups), biases)
            }
            None => self.dense_matrix(path, shape),
        }
    }

    fn dense_matrix(&mut self, path: &str, shape: &[usize]) -> Result<()> {
        self.dense_tensor(format!("{path}.weight"), shape, gain(path, shape.len()))
    }

    fn dense_tensor(&mut self, name: String, shape: &[usize], gain: f64) -> Result<()> {
        let Some(cols) = shape.last() else { return Ok(()) };
        let amplitude = (gain * (3.0 / *cols as f64).sqrt()) as f32;
        let values = self.uniform(&name, shape.iter().product()).map(|u| u * amplitude).collect();
        self.push(name, shape, values)
    }

    /// The packed words and scales of a matrix of mxfp4, mxfp8 or nvfp4.
    fn minifloat(&mut self, path: &str, shape: &[usize], gain: f64, spec: QuantSpec) -> Result<()> {
        let Some((cols, outer)) = shape.split_last() else { return Ok(()) };
        let (cols, rows) = (*cols, outer.iter().product::<usize>());
        let shaped = |last: usize| -> Vec<usize> { outer.iter().copied().chain([last]).collect() };
        let weight = format!("{path}.weight");
        let words = cols * spec.bits as usize / 32;
        let mut packed: Vec<u8> = stream(self.salt, &weight)
            .take(rows * words)
            .flat_map(|z| ((z >> 32) as u32).to_le_bytes())
            .collect();
        let rms = if spec.mode == QuantMode::Mxfp8 {
            for code in &mut packed {
                *code |= 0x60;
                if *code & 0x7f == 0x7f {
                    *code &= 0xfe;
                }
            }
            214.1
        } else {
            2.926
        };
        self.tensors.push(TensorData::new(weight, Dtype::U32, &shaped(words), packed)?);

        let exponent = (gain / (cols as f64).sqrt() / rms).log2();
        let (base, spread) = match spec.mode {
            QuantMode::Nvfp4 => ((8.0 * (exponent + 7.0) + 0.5).floor() - 4.0, 9),
            _ => (127.0 + (exponent + 0.5).floor() - 1.0, 3),
        };
        let name = format!("{path}.scales");
        let groups = cols / spec.group_size;
        let scales = stream(self.salt, &name)
            .take(rows * groups)
            .map(|z| (base as u64 + (z >> 40) % spread) as u8)
            .collect();
        self.tensors.push(TensorData::new(name, Dtype::U8, &shaped(groups), scales)?);
        Ok(())
    }

    /// The quantization that the configuration gives a matrix; an entry without a mode is affine.
    fn quantization(&self, path: &str) -> Option<QuantSpec> {
        let Some(all) = self.config.value().get("quantization") else {
            // Under the name that other tools have for it, it says one thing for all.
            return QuantizationConfig::from_config(self.config.value(), "config.json").ok()?.default;
        };
        let own = all.get(path).unwrap_or(all);
        let count = |name| own.get(name)?.as_u64();
        let mode = match own.get("mode") {
            Some(mode) => serde_json::from_value(mode.clone()).ok()?,
            None => QuantMode::Affine,
        };
        let bits = u32::try_from(count("bits")?).ok()?;
        // An entry without a group size has that of its mode, not the model's.
        let group_size = match count("group_size") {
            Some(size) => usize::try_from(size).ok()?,
            None => mode.default_spec().group_size,
        };
        Some(QuantSpec { mode, bits, group_size })
    }

    fn uniform(&self, name: &str, count: usize) -> impl Iterator<Item = f32> + use<> {
        stream(self.salt, name).take(count).map(uniform)
    }

    fn push(&mut self, name: String, shape: &[usize], values: Vec<f32>) -> Result<()> {
        let tensor = TensorData::from_f32_as(name, self.dtype, shape, &values);
        self.tensors.push(tensor.map_err(|error: WeightsError| ModelError::from(error))?);
        Ok(())
    }
}

/// The checkpoint as parts ask for it: what loading makes of a published one before any weight is read.
///
/// # Errors
///
/// Tensors that cannot be what the family's configuration says.
pub fn prepared(config: &Config, checkpoint: &Checkpoint) -> Result<Checkpoint> {
    crate::load::prepared(config, checkpoint)
}

/// A number of a stream, as one in [-1, 1) that is exact in `f32`.
#[must_use]
pub fn uniform(number: u64) -> f32 {
    (number >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// SplitMix64, seeded with the FNV-1a hash of salt and name.
pub fn stream(salt: u64, name: &str) -> impl Iterator<Item = u64> + use<> {
    stream_of(&salt.to_string(), name)
}

/// [`stream`], with a word for a salt.
pub fn stream_of(salt: &str, name: &str) -> impl Iterator<Item = u64> + use<> {
    let mut state = format!("{salt}/{name}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
