/*! Reads and writes the weights of MLX models: safetensors files, and the matrices in them that MLX has
quantized.

# What this crate is for

An MLX model is a folder. `config.json` describes it; the weights are tensors in one or several safetensors
files. Most of the large matrices are quantized: three tensors (`weight`, `scales`, `biases`) stand for one
matrix. This crate turns such a folder into a [`Checkpoint`], from which a model asks for its tensors by name
and for its matrices by module path:

```
use std::collections::BTreeMap;
use pippin_weights::{
    Checkpoint, Dtype, MatrixData, QuantSpec, QuantizationConfig, TensorData, quantize_affine, write_safetensors,
};

# fn main() -> Result<(), Box<dyn std::error::Error>> {
// A tiny checkpoint: a norm, and a matrix of 2 rows and 32 columns quantized to 4 bits.
let values: Vec<f32> = (0..64).map(|index| index as f32 - 20.0).collect();
let quantized = quantize_affine(&values, 2, 32, QuantSpec::affine(4, 32), Dtype::Bf16)?;
let tensors = [
    TensorData::from_f32("model.norm.weight", &[3], &[1.0, 2.0, 3.0])?,
    quantized.weight.renamed("lm_head.weight"),
    quantized.scales.renamed("lm_head.scales"),
    quantized.biases.as_ref().unwrap().renamed("lm_head.biases"),
];
let folder = tempfile::tempdir()?;
let metadata = BTreeMap::from([("format".to_owned(), "mlx".to_owned())]);
write_safetensors(&folder.path().join("model.safetensors"), &tensors, &metadata)?;

let checkpoint = Checkpoint::open(folder.path())?;
let norm = checkpoint.tensor("model.norm.weight", &[3])?;
assert_eq!(norm.to_f32()?, [1.0, 2.0, 3.0]);

let config = serde_json::json!({"quantization": {"bits": 4, "group_size": 32}});
let config = QuantizationConfig::from_config(&config, "config.json")?;
let MatrixData::Quantized(head) = checkpoint.matrix("lm_head", 2, 32, &config)? else { panic!() };
assert_eq!(head.spec.to_string(), "4-bit affine, group 32");
assert_eq!(head.dequantize()?.len(), 64);

// What does not fit is an error that says where and what to do.
let error = checkpoint.tensor("model.norm.weight", &[4]).unwrap_err();
assert!(error.to_string().ends_with("expected shape [4], found [3]"));
assert!(error.hint().is_some());
# Ok(())
# }
```

# Bytes stay where they are

Files are mapped into memory, read-only. [`TensorData`] is a name, a dtype, a shape and a range of such a
mapping, so cloning, slicing rows and reshaping cost nothing, opening a model of many gigabytes takes
milliseconds, and several processes share one copy. Device crates read straight from the mapping or make their
own copy in the layout they like; this crate never makes one.

Two consequences. Tensor bytes need not be aligned, because MLX does not pad the headers it writes (files by
[`write_safetensors`] are aligned). And nobody may truncate a file that is in use: the system answers the next
read beyond its new end with SIGBUS. Replacing a file by renaming another one over it, as
[`write_safetensors`] does, is safe.

# Files are not trusted

Model files come from strangers. Whatever their bytes are, reading them returns a checkpoint or a
[`WeightsError`]; it does not panic, and it does not allocate more than a small multiple of the file's length.
The checks are listed in the `safetensors` module and at [`Checkpoint::open`]; `tests/hardening.rs` holds a
test of each. Names are escaped before they reach a terminal.

# Quantization

[`QuantizationConfig`] reads the section of `config.json`, and [`Checkpoint::matrix`] applies MLX's loader
rule: a path that the section lists is read as listed; any other is quantized if it has scales, with mode,
bits and group size inferred from the shapes. [`QuantizedData::dequantize`] is the plain definition of what
the packed bits mean, in `f32`; [`QuantizedData::dequantize_as_stored`] rounds as `mlx.core.dequantize` does,
and [`quantize_affine`] and [`quantize_minifloat`] are `mlx.core.quantize`, bit for bit
(`tools/quantization/make_fixture.py` makes the files that the tests compare with). The numbers of the modes
`mxfp4`, `mxfp8` and `nvfp4` are in [`minifloat`].
*/

mod checkpoint;
mod dtype;
mod error;
mod files;
mod formats;
pub mod gguf;
mod index;
pub mod json;
mod links;
mod mapped;
pub mod minifloat;
mod quantization;
mod quantization_config;
mod safetensors;
mod tensor;

pub use checkpoint::Checkpoint;
pub use dtype::Dtype;
pub use error::{TensorPlace, WeightsError};
pub use files::WeightFiles;
pub use index::WeightIndex;
pub use links::{open_file_of_model, resolve_link};
pub use quantization::{
    MatrixData, QuantMode, QuantSpec, QuantizedData, quantize_affine, quantize_minifloat,
};
pub use quantization_config::{Lookup, QuantizationConfig};
pub use safetensors::write_safetensors;
pub use tensor::TensorData;
