//! AWQ and GPTQ: packed along outputs or inputs, transposed, with zero points.

use serde_json::{Map, Value};

use super::{GROUPS, Tensors, matrix, modules, problem, take, word, write_floats};
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::json::unsigned;
use crate::tensor::{TensorData, read_float};

pub(super) const SUFFIX: &str = ".qweight";

/// Where AutoAWQ puts element `i` of eight in a word: in which of its fields of four bits.
const AWQ_ORDER: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// How the words of one matrix are laid out.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Whether elements are packed along the outputs, in AutoAWQ's order; otherwise along the inputs, in order.
    along_outputs: bool,
    bits: u32,
    inputs: usize,
    outputs: usize,
    /// Groups of inputs that share a scale, as they are stored.
    groups: usize,
    /// How many times each is repeated for MLX.
    repeats: usize,
    /// What is added to stored zero points.
    zero_offset: u32,
}

impl Layout {
    const fn per_word(self) -> usize {
        32 / self.bits as usize
    }
}

/// Puts the matrices of AutoAWQ and of GPTQ in MLX's layout.
pub(super) fn unpack(tensors: &mut Tensors, section: &Map<String, Value>) -> Result<(), WeightsError> {
    for path in modules(tensors, SUFFIX) {
        let Some(packed) = tensors.remove(&format!("{path}{SUFFIX}")) else { continue };
        let scales = take(tensors, &format!("{path}.scales"), &packed)?;
        let zeros = tensors.remove(&format!("{path}.qzeros"));
        let layout = layout(&packed, &scales, zeros.as_ref(), section)?;
        if let Some(order) = tensors.remove(&format!("{path}.g_idx")) {
            in_order(&order, layout)?;
        }
        let [weight, scales, biases] = convert(&path, &packed, &scales, zeros, layout)?;
        for tensor in [weight, scales, biases] {
            tensors.insert(tensor.name().to_owned(), tensor);
        }
    }
    Ok(())
}

fn layout(
    packed: &TensorData,
    scales: &TensorData,
    zeros: Option<&TensorData>,
    section: &Map<String, Value>,
) -> Result<Layout, WeightsError> {
    for tensor in [Some(packed), zeros].into_iter().flatten() {
        if !matches!(tensor.dtype(), Dtype::I32 | Dtype::U32) {
            return Err(problem(tensor, format!("must be packed words (I32), found {}", tensor.dtype())));
        }
    }
    if !scales.dtype().is_weight_float() {
        return Err(problem(scales, format!("must be F16, BF16 or F32, found {}", scales.dtype())));
    }
    let ([rows, columns], [groups, outputs]) = (matrix(packed)?, matrix(scales)?);
    let bits = match section.get("bits").or_else(|| section.get("w_bit")) {
        None => 4,
        Some(value) => match unsigned(value) {
            Some(bits @ (2 | 4 | 8)) => bits as u32,
            _ => return Err(problem(packed, format!("{value} bits are not supported; supported: 2, 4, 8"))),
        },
    };
    let per_word = 32 / bits as usize;
    let along_outputs = columns.checked_mul(per_word) == Some(outputs);
    let inputs = if along_outputs { Some(rows) } else { rows.checked_mul(per_word) };
    let (Some(inputs), true) = (inputs, along_outputs || columns == outputs) else {
        let words = format!("its shape {:?} does not fit scales of {:?}", packed.shape(), scales.shape());
        return Err(problem(packed, words));
    };
    if along_outputs && bits != 4 {
        return Err(problem(packed, format!("AWQ weights of {bits} bits are not supported, only 4")));
    }
    let group = inputs.checked_div(groups).filter(|group| group * groups == inputs).unwrap_or(0);
    let Some(size) = GROUPS.into_iter().find(|size| group > 0 && group.is_multiple_of(*size)) else {
        return Err(problem(
            scales,
            format!("{groups} groups of {inputs} inputs are not a multiple of 32 each"),
        ));
    };
    // AutoGPTQ stores zero points less one, unless the section says that it is the second version of the format.
    let first_version = section.get("checkpoint_format").is_none_or(|format| format != "gptq_v2");
    let layout = Layout {
        along_outputs,
        bits,
        inputs,
        outputs,
        groups,
        repeats: group / size,
        zero_offset: u32::from(!along_outputs && first_version),
    };
    if let Some(zeros) = zeros
        && matrix(zeros)? != [groups, outputs / per_word]
    {
        let words = format!("its shape {:?} does not fit scales of {:?}", zeros.shape(), scales.shape());
        return Err(problem(zeros, words));
    }
    Ok(layout)
}

/// Whether the group of each input is the one that it lies in.
fn in_order(order: &TensorData, layout: Layout) -> Result<(), WeightsError> {
    let group = layout.inputs / layout.groups;
    let words = order.bytes().as_chunks::<4>().0;
    let fits = matches!(order.dtype(), Dtype::I32 | Dtype::U32) && order.len() == layout.inputs;
    if fits
        && words.iter().enumerate().all(|(input, word)| u32::from_le_bytes(*word) as usize == input / group)
    {
        return Ok(());
    }
    Err(problem(order, "weights whose groups are not in order (act-order, `desc_act`) are not supported"))
}

fn convert(
    path: &str,
    packed: &TensorData,
    scales: &TensorData,
    zeros: Option<TensorData>,
    layout: Layout,
) -> Result<[TensorData; 3], WeightsError> {
    let Layout { inputs, outputs, groups, repeats, .. } = layout;
    let file = packed.file();
    let source = packed.clone();
    let words = [outputs, inputs / layout.per_word()];
    let weight = TensorData::deferred(format!("{path}.weight"), Dtype::U32, &words, file, move |bytes| {
        transpose_words(source.bytes(), layout, bytes);
    })?;

    let dtype = scales.dtype();
    let shape = [outputs, groups * repeats];
    let source = scales.clone();
    let turned = TensorData::deferred(format!("{path}.scales"), dtype, &shape, file, move |bytes| {
        let scales = source.bytes();
        let values =
            by_output(layout).map(|(output, group)| read_float(dtype, scales, group * outputs + output));
        write_floats(dtype, values, bytes);
    })?;
    let source = scales.clone();
    let biases = TensorData::deferred(format!("{path}.biases"), dtype, &shape, file, move |bytes| {
        let scales = source.bytes();
        let values = by_output(layout).map(|(output, group)| {
            let zero = match &zeros {
                Some(zeros) => zero_point(zeros.bytes(), layout, group, output) + layout.zero_offset,
                None => 1 << (layout.bits - 1),
            };
            -(zero as f32) * read_float(dtype, scales, group * outputs + output)
        });
        write_floats(dtype, values, bytes);
    })?;
    Ok([weight, turned, biases])
}

/// The outputs and groups of MLX's scales, in their order; groups as they are stored.
fn by_output(layout: Layout) -> impl Iterator<Item = (usize, usize)> {
    let Layout { outputs, groups, repeats, .. } = layout;
    (0..outputs).flat_map(move |output| (0..groups * repeats).map(move |group| (output, group / repeats)))
}

fn zero_point(zeros: &[u8], layout: Layout, group: usize, output: usize) -> u32 {
    let per_word = layout.per_word();
    let word = word(zeros, group * (layout.outputs / per_word) + output / per_word);
    let place = output % per_word;
    let field = if layout.along_outputs { AWQ_ORDER[place] } else { place as u32 };
    (word >> (field * layout.bits)) & ((1 << layout.bits) - 1)
}

/// Words `[inputs / n, outputs]` (or AWQ's `[inputs, outputs / 8]`) to MLX's `[outputs, inputs / n]`.
fn transpose_words(packed: &[u8], layout: Layout, bytes: &mut [u8]) {
    let Layout { along_outputs, inputs, outputs, .. } = layout;
    let columns = inputs / layout.per_word();
    let out = bytes.as_chunks_mut::<4>().0;
    for column in 0..columns {
        if !along_outputs {
            for output in 0..outputs {
                out[output * columns + column] = word(packed, column * outputs + output).to_le_bytes();
            }
            continue;
        }
        for block in 0..outputs / 8 {
            let rows: [u32; 8] =
                std::array::from_fn(|row| word(packed, (8 * column + row) * (outputs / 8) + block));
            for (place, field) in AWQ_ORDER.into_iter().enumerate() {
                let gathered = rows
                    .iter()
                    .enumerate()
                    .fold(0, |gathered, (row, word)| gathered | ((word >> (4 * field)) & 15) << (4 * row));
                out[(8 * block + place) * columns + column] = gathered.to_le_bytes();
            }
        }
    }
}
