//! From the tensors of a checkpoint as it was published to those that a model's parts ask for.
//!
//! mlx-lm's converter renames tensors, stacks experts and divides fused matrices (`sanitize` in each of its families). A
//! checkpoint that nobody has converted is read all the same: its family changes the names and shapes as the converter
//! would have. Every change leaves tensors alone that already are as they should be. Whatever has to be computed is
//! computed when a tensor is first read; to describe a model none is.

use std::collections::BTreeMap;
use std::ops::Range;

use pippin_weights::{Checkpoint, Dtype, TensorData};

use crate::Result;

/// What follows a module's path in the names of its tensors.
const PARAMETERS: [&str; 4] = ["weight", "bias", "scales", "biases"];

/// The tensors of a checkpoint, on their way to the names and shapes that a model's parts ask for.
#[derive(Debug, Default)]
pub(crate) struct Tensors {
    tensors: BTreeMap<String, TensorData>,
}

impl Tensors {
    pub(crate) fn of(checkpoint: &Checkpoint) -> Self {
        let tensors = checkpoint.tensors().map(|tensor| (tensor.name().to_owned(), tensor.clone()));
        Self { tensors: tensors.collect() }
    }

    /// The checkpoint with these tensors in place of its own.
    pub(crate) fn into_checkpoint(self, checkpoint: &Checkpoint) -> Checkpoint {
        checkpoint.with_tensors(self.tensors.into_iter().map(|(name, tensor)| match tensor.name() == name {
            true => tensor,
            false => tensor.renamed(&name),
        }))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&TensorData> {
        self.tensors.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn insert(&mut self, name: impl Into<String>, tensor: TensorData) {
        self.tensors.insert(name.into(), tensor);
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<TensorData> {
        self.tensors.remove(name)
    }

    /// Leaves out what belongs to another part of the model: the towers that see and hear, layers for training only.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| keep(name));
    }

    /// Gives tensors other names; `None` leaves one alone. A name that is taken already is not taken again.
    pub(crate) fn rename(&mut self, change: impl Fn(&str) -> Option<String>) {
        let changes: Vec<(String, String)> =
            self.names().filter_map(|name| Some((name.to_owned(), change(name)?))).collect();
        for (from, to) in changes {
            if !self.tensors.contains_key(&to)
                && let Some(tensor) = self.tensors.remove(&from)
            {
                self.tensors.insert(to, tensor);
            }
        }
    }

    /// Replaces the beginning of names.
    pub(crate) fn replace_prefix(&mut self, from: &str, to: &str) {
        self.rename(|name| Some(format!("{to}{}", name.strip_prefix(from)?)));
    }

    /// Replaces whole components in the midst of names: `attn.c_proj` by `self_attn.o_proj`.
    pub(crate) fn replace(&mut self, from: &str, to: &str) {
        self.rename(|name| {
            let dotted = format!(".{name}.");
            let start = dotted.find(&format!(".{from}."))?;
            let changed = format!("{}.{to}.{}", &dotted[..start], &dotted[start + from.len() + 2..]);
            Some(changed.trim_matches('.').to_owned())
        });
    }

    /// Puts numbered modules into one, as stacks along a new first axis: `mlp.experts.*.up_proj` to
    /// `mlp.switch_mlp.up_proj`. The star stands for the number.
    pub(crate) fn stack(&mut self, from: &str, to: &str) -> Result<()> {
        let Some((before, after)) = from.split_once('*') else { return Ok(()) };
        let mut found: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
        for name in self.names() {
            let Some((at, rest)) = split_component(name, before) else { continue };
            let Some((number, rest)) = rest.split_once('.') else { continue };
            let (Ok(number), Some(parameter)) =
                (number.parse(), format!(".{rest}").strip_prefix(after).map(str::to_owned))
            else {
                continue;
            };
            if parameter.strip_prefix('.').is_some_and(|parameter| PARAMETERS.contains(&parameter)) {
                found.entry(format!("{at}{to}{parameter}")).or_default().insert(number, name.to_owned());
            }
        }
        for (stacked, members) in found {
            // With a gap, the model will say what it lacks.
            if self.contains(&stacked) || !members.keys().copied().eq(0..members.len()) {
                continue;
            }
            let members: Vec<TensorData> =
                members.values().filter_map(|name| self.tensors.remove(name)).collect();
            let tensor = concatenated(&stacked, &members)?;
            self.insert(stacked, tensor);
        }
        Ok(())
    }

    /// Puts modules of the same parent into one, the rows of the first above those of the next: `q`, `k` and `v` into `qkv`.
    pub(crate) fn join(&mut self, from: &[&str], to: &str) -> Result<()> {
        let Some((first, others)) = from.split_first() else { return Ok(()) };
        for (name, at, parameter) in self.parameters(first) {
            let others = others.iter().map(|other| format!("{at}{other}.{parameter}"));
            let names: Vec<String> = std::iter::once(name).chain(others).collect();
            // With a gap, the model will say what it lacks.
            let Some(tensors) = names.iter().map(|name| self.get(name).cloned()).collect::<Option<Vec<_>>>()
            else {
                continue;
            };
            let joined = format!("{at}{to}.{parameter}");
            let tensor = one_below_the_other(&joined, &tensors)?;
            names.iter().for_each(|name| drop(self.take(name)));
            self.insert(joined, tensor);
        }
        Ok(())
    }

    /// Divides the matrices of a module, or those of a stack, by rows into modules of the same parent: `qkv` into `q`, `k` and `v`.
    /// `rows` are those of each, in one matrix.
    pub(crate) fn split(&mut self, from: &str, parts: &[(&str, usize)]) -> Result<()> {
        let mut first = 0_usize;
        let parts: Vec<(&str, Vec<Range<usize>>)> = parts
            .iter()
            .map(|(to, rows)| {
                let start = first;
                first = first.saturating_add(*rows);
                (*to, vec![start..first])
            })
            .collect();
        self.split_rows(from, &parts)
    }

    /// The same with rows of each part that need not be neighbours.
    pub(crate) fn split_rows(&mut self, from: &str, parts: &[(&str, Vec<Range<usize>>)]) -> Result<()> {
        let lengths = parts.iter().flat_map(|(_, ranges)| ranges).map(Range::len);
        let total = lengths.fold(0, usize::saturating_add);
        let parameters: Vec<(String, String, &str)> = self.parameters(from);
        for (name, at, parameter) in parameters {
            let Some(tensor) = self.get(&name).cloned() else { continue };
            // A bias has no columns.
            let axes = tensor.shape().len();
            let axis = if parameter == "bias" { axes.checked_sub(1) } else { axes.checked_sub(2) };
            let Some(axis) = axis.filter(|axis| tensor.shape()[*axis] == total) else { continue };
            let outer: usize = tensor.shape()[..axis].iter().product();
            let mut flat = vec![outer * total];
            flat.extend_from_slice(&tensor.shape()[axis + 1..]);
            let flat = tensor.reshape(&flat)?;
            for (to, ranges) in parts {
                let at_each = |i: usize| ranges.iter().map(move |r| i * total + r.start..i * total + r.end);
                let rows: Vec<Range<usize>> = (0..outer).flat_map(at_each).collect();
                let mut shape = tensor.shape().to_vec();
                shape[axis] = ranges.iter().map(Range::len).sum();
                self.insert(format!("{at}{to}.{parameter}"), flat.select_rows(&rows)?.reshape(&shape)?);
            }
            self.take(&name);
        }
        Ok(())
    }

    /// Puts the rows of what is called so, a module's matrices or a vector's numbers, in another order.
    pub(crate) fn order_rows(&mut self, name: &str, rows: &[Range<usize>]) -> Result<()> {
        for (_, tensor) in self.tensors.iter_mut().filter(|(found, _)| is_of(found, name)) {
            *tensor = tensor.select_rows(rows)?;
        }
        Ok(())
    }

    /// Puts the columns of a module's matrices in another order: of as many equal blocks as `order` has, in which block of
    /// theirs each of ours is.
    pub(crate) fn order_columns(&mut self, name: &str, order: &[usize]) -> Result<()> {
        for (found, tensor) in self.tensors.iter_mut().filter(|(found, _)| is_of(found, name)) {
            let Some(&columns) = tensor.shape().last() else { continue };
            if order.is_empty() || !columns.is_multiple_of(order.len()) {
                let problem =
                    format!("{} cannot be divided into {} blocks", show(tensor.shape()), order.len());
                return Err(crate::ModelError::field(tensor.name(), "shape", problem));
            }
            let (source, order) = (tensor.clone(), order.to_vec());
            let (width, size) =
                (columns * tensor.dtype().size(), columns / order.len() * tensor.dtype().size());
            *tensor =
                TensorData::deferred(found, tensor.dtype(), tensor.shape(), tensor.file(), move |bytes| {
                    if size == 0 {
                        return;
                    }
                    let rows = bytes.chunks_exact_mut(width).zip(source.bytes().chunks_exact(width));
                    for (to, from) in rows {
                        for (to, block) in to.chunks_exact_mut(size).zip(&order) {
                            to.copy_from_slice(&from[block * size..][..size]);
                        }
                    }
                })?;
        }
        Ok(())
    }

    /// Takes a stack apart, into numbered modules of the same name.
    pub(crate) fn unstack(&mut self, module: &str) -> Result<()> {
        for (name, at, parameter) in self.parameters(module) {
            let Some(stack) = self.take(&name) else { continue };
            let Some((&count, shape)) = stack.shape().split_first() else { continue };
            for number in 0..count {
                let part = stack.slice_rows(number..number + 1)?.reshape(shape)?;
                self.insert(format!("{at}{module}.{number}.{parameter}"), part);
            }
        }
        Ok(())
    }

    /// Divides the matrices of a module, or those of a stack, whose rows take turns.
    pub(crate) fn split_turns(&mut self, from: &str, to: [&str; 2]) -> Result<()> {
        for (name, at, parameter) in self.parameters(from) {
            let Some(tensor) = self.take(&name) else { continue };
            let axes = tensor.shape().len();
            let axis = if parameter == "bias" { axes.checked_sub(1) } else { axes.checked_sub(2) };
            let Some(axis) = axis.filter(|axis| tensor.shape()[*axis].is_multiple_of(2)) else {
                self.insert(name, tensor);
                continue;
            };
            for (turn, to) in to.into_iter().enumerate() {
                let name = format!("{at}{to}.{parameter}");
                let part = every_other(&name, &tensor, axis, turn)?;
                self.insert(name, part);
            }
        }
        Ok(())
    }

    /// Divides dense stacks that are stored the other way round and under the name of their module alone: columns become the
    /// rows of other modules of the same parent. Of each of these the first column, and how far the next one is.
    pub(crate) fn split_columns(&mut self, from: &str, parts: &[(&str, usize, usize)]) -> Result<()> {
        let ends = format!(".{from}");
        let names: Vec<String> =
            self.names().filter(|name| name.ends_with(&ends)).map(str::to_owned).collect();
        for name in names {
            let Some(tensor) = self.take(&name) else { continue };
            let [.., _, columns] = *tensor.shape() else {
                self.insert(name, tensor);
                continue;
            };
            let count = columns / parts.len().max(1);
            let fits = |(_, first, step): &(&str, usize, usize)| {
                let last = count.saturating_sub(1).saturating_mul(*step).saturating_add(*first);
                count > 0 && last < columns
            };
            if !tensor.dtype().is_weight_float() || !parts.iter().all(fits) {
                self.insert(name, tensor);
                continue;
            }
            let at = &name[..name.len() - from.len()];
            for (to, first, step) in parts {
                let name = format!("{at}{to}.weight");
                let part = columns_as_rows(&name, &tensor, *first, *step, count)?;
                self.insert(name, part);
            }
        }
        Ok(())
    }

    /// Blocks of packed bytes (`[…, rows, blocks, bytes]`) as the words of rows, where a module's name ends so.
    pub(crate) fn words(&mut self, from: &str, to: &str) -> Result<()> {
        let names: Vec<String> =
            self.names().filter(|name| name.ends_with(from)).map(str::to_owned).collect();
        for name in names {
            let Some(tensor) = self.take(&name) else { continue };
            let (name, shape) = match (tensor.dtype(), tensor.shape()) {
                (Dtype::U8, [outer @ .., blocks, bytes]) if (blocks * bytes).is_multiple_of(4) => {
                    let mut shape = outer.to_vec();
                    shape.push(blocks * bytes / 4);
                    (format!("{}{to}", &name[..name.len() - from.len()]), shape)
                }
                _ => {
                    self.insert(name, tensor);
                    continue;
                }
            };
            let file = tensor.file().map(std::path::Path::to_owned);
            let words = TensorData::deferred(&*name, Dtype::U32, &shape, file.as_deref(), move |bytes| {
                bytes.copy_from_slice(tensor.bytes());
            })?;
            self.insert(name, words);
        }
        Ok(())
    }

    /// Exchanges the last two axes of dense tensors whose names end so.
    pub(crate) fn transpose(&mut self, ends_with: &str) -> Result<()> {
        for (name, tensor) in self.tensors.iter_mut().filter(|(name, _)| name.ends_with(ends_with)) {
            if tensor.shape().len() >= 2 && tensor.dtype().is_weight_float() {
                *tensor = transposed(name, tensor)?;
            }
        }
        Ok(())
    }

    /// Gives the tensors whose names end so another shape of the same elements.
    pub(crate) fn reshape(&mut self, ends_with: &str, change: impl Fn(&[usize]) -> Vec<usize>) -> Result<()> {
        for (_, tensor) in self.tensors.iter_mut().filter(|(name, _)| name.ends_with(ends_with)) {
            *tensor = tensor.reshape(&change(tensor.shape()))?;
        }
        Ok(())
    }

    /// Changes each number of the tensors whose names end so.
    pub(crate) fn map(&mut self, ends_with: &str, change: fn(f32) -> f32) -> Result<()> {
        for (name, tensor) in self.tensors.iter_mut().filter(|(name, _)| name.ends_with(ends_with)) {
            if tensor.dtype().is_weight_float() {
                *tensor = mapped(name, tensor, change)?;
            }
        }
        Ok(())
    }

    /// Gives each column of a dense matrix length one; `eps` is added to its length before.
    pub(crate) fn normalize_columns(&mut self, name: &str, eps: f32) -> Result<()> {
        if let Some(tensor) = self.tensors.get_mut(name)
            && tensor.shape().len() == 2
            && tensor.dtype().is_weight_float()
        {
            let columns = tensor.shape()[1];
            *tensor = changed(name, tensor, move |values| {
                let mut lengths = vec![0.0; columns];
                for row in values.chunks_exact(columns) {
                    lengths.iter_mut().zip(row).for_each(|(length, value)| *length += value * value);
                }
                for row in values.chunks_exact_mut(columns) {
                    row.iter_mut().zip(&lengths).for_each(|(value, length)| *value /= length.sqrt() + eps);
                }
            })?;
        }
        Ok(())
    }

    /// Gives each row of a dense matrix length one; `eps` is added to its length before.
    pub(crate) fn normalize_rows(&mut self, name: &str, eps: f32) -> Result<()> {
        if let Some(tensor) = self.tensors.get_mut(name)
            && tensor.shape().len() == 2
            && tensor.dtype().is_weight_float()
        {
            let columns = tensor.shape()[1].max(1);
            *tensor = changed(name, tensor, move |values| {
                for row in values.chunks_exact_mut(columns) {
                    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt() + eps;
                    row.iter_mut().for_each(|value| *value /= length);
                }
            })?;
        }
        Ok(())
    }

    /// Multiplies the rows of the tensors whose names end so, each by its factor.
    pub(crate) fn scale_rows(&mut self, ends_with: &str, factor: impl Fn(usize) -> f32) -> Result<()> {
        for (name, tensor) in self.tensors.iter_mut().filter(|(name, _)| name.ends_with(ends_with)) {
            let rows = tensor.shape().first().copied().unwrap_or(0);
            if tensor.dtype().is_weight_float() && rows > 0 {
                let columns = tensor.len() / rows;
                let factors: Vec<f32> = (0..rows).map(&factor).collect();
                *tensor = changed(name, tensor, move |values| {
                    for (row, factor) in values.chunks_mut(columns.max(1)).zip(&factors) {
                        row.iter_mut().for_each(|value| *value *= factor);
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Gives the tensors whose names end so one dimension.
    pub(crate) fn flatten(&mut self, ends_with: &str) -> Result<()> {
        for (_, tensor) in self.tensors.iter_mut().filter(|(name, _)| name.ends_with(ends_with)) {
            *tensor = tensor.reshape(&[tensor.len()])?;
        }
        Ok(())
    }

    /// Leaves of the tensors whose names end so the first rows, if there are more.
    pub(crate) fn first_rows(&mut self, ends_with: &str, rows: usize) -> Result<()> {
        for (_, tensor) in self.tensors.iter_mut().filter(|(name, _)| name.ends_with(ends_with)) {
            if tensor.shape().first().is_some_and(|found| *found > rows) {
                *tensor = tensor.slice_rows(0..rows)?;
            }
        }
        Ok(())
    }

    /// The tensors of the modules whose paths end in whole components so: name, what comes before the module, and which
    /// parameter it is.
    fn parameters(&self, module: &str) -> Vec<(String, String, &'static str)> {
        let mut found = Vec::new();
        for name in self.names() {
            for parameter in PARAMETERS {
                let Some(path) = name.strip_suffix(parameter).and_then(|path| path.strip_suffix('.')) else {
                    continue;
                };
                if let Some(at) = path.strip_suffix(module)
                    && (at.is_empty() || at.ends_with('.'))
                {
                    found.push((name.to_owned(), at.to_owned(), parameter));
                }
            }
        }
        found
    }
}

/// Whether a tensor is of what is called so: a parameter of a module, or a tensor by itself.
fn is_of(tensor: &str, name: &str) -> bool {
    let parameter =
        |found: &str| PARAMETERS.iter().any(|parameter| found.strip_prefix('.') == Some(*parameter));
    tensor.rsplit_once(name).is_some_and(|(at, rest)| {
        (at.is_empty() || at.ends_with('.')) && (rest.is_empty() || parameter(rest))
    })
}

/// What comes before and after whole components in a name; `part` ends with a dot.
fn split_component<'a>(name: &'a str, part: &str) -> Option<(&'a str, &'a str)> {
    let start = match name.strip_prefix(part) {
        Some(_) => 0,
        None => name.find(&format!(".{part}"))? + 1,
    };
    Some((&name[..start], &name[start + part.len()..]))
}

/// Tensors of one shape and type along a new first axis.
fn concatenated(name: &str, tensors: &[TensorData]) -> Result<TensorData> {
    let mut shape = vec![tensors.len()];
    shape.extend(tensors.iter().take(1).flat_map(TensorData::shape));
    in_order(name, tensors, &shape, |shape| shape)
}

/// Tensors of one type whose shapes differ in the first axis at most, along that axis.
fn one_below_the_other(name: &str, tensors: &[TensorData]) -> Result<TensorData> {
    // A sum that is too large fits no file.
    let rows = tensors.iter().filter_map(|tensor| tensor.shape().first());
    let rows = rows.fold(0_usize, |sum, rows| sum.saturating_add(*rows));
    let mut shape = vec![rows];
    shape.extend(tensors.iter().take(1).flat_map(|tensor| tensor.shape().iter().skip(1)));
    in_order(name, tensors, &shape, |shape| shape.get(1..).unwrap_or_default())
}

/// The numbers of tensors one after the other, in a shape; of their own shapes, what `common` leaves has to be the same.
fn in_order(
    name: &str,
    tensors: &[TensorData],
    shape: &[usize],
    common: fn(&[usize]) -> &[usize],
) -> Result<TensorData> {
    let Some(first) = tensors.first() else { return Ok(TensorData::from_f32(name, &[0], &[])?) };
    for tensor in tensors {
        let ranks = [tensor, first].map(|tensor| tensor.shape().len());
        if (common(tensor.shape()), tensor.dtype()) != (common(first.shape()), first.dtype())
            || ranks[0] != ranks[1]
        {
            let problem = format!(
                "{} of {} cannot be put beside {} of {} in {name}",
                tensor.dtype(),
                show(tensor.shape()),
                first.dtype(),
                show(first.shape())
            );
            return Err(crate::ModelError::field(tensor.name(), "shape", problem));
        }
    }
    let file = first.file().map(std::path::Path::to_owned);
    let tensors = tensors.to_vec();
    Ok(TensorData::deferred(name, first.dtype(), shape, file.as_deref(), move |mut bytes| {
        for tensor in &tensors {
            let (part, rest) = bytes.split_at_mut(tensor.byte_len());
            part.copy_from_slice(tensor.bytes());
            bytes = rest;
        }
    })?)
}

fn show(shape: &[usize]) -> String {
    format!("{shape:?}")
}

/// A tensor with its last two axes exchanged.
fn transposed(name: &str, tensor: &TensorData) -> Result<TensorData> {
    columns_as_rows(name, tensor, 0, 1, tensor.shape()[tensor.shape().len() - 1])
}

/// Some columns of a tensor's matrices as the rows of others: from the first, so many, each `step` from the one before.
fn columns_as_rows(
    name: &str,
    tensor: &TensorData,
    first: usize,
    step: usize,
    count: usize,
) -> Result<TensorData> {
    let mut shape = tensor.shape().to_vec();
    let axes = shape.len();
    let (rows, columns) = (shape[axes - 2], shape[axes - 1]);
    (shape[axes - 2], shape[axes - 1]) = (count, rows);
    let (source, size) = (tensor.clone(), tensor.dtype().size());
    Ok(TensorData::deferred(name, tensor.dtype(), &shape, tensor.file(), move |bytes| {
        if bytes.is_empty() {
            return;
        }
        let matrices = source.bytes().chunks_exact(rows * columns * size);
        for (to, from) in bytes.chunks_exact_mut(count * rows * size).zip(matrices) {
            for (row, from) in from.chunks_exact(columns * size).enumerate() {
                for column in 0..count {
                    let element = &from[(first + column * step) * size..][..size];
                    to[(column * rows + row) * size..][..size].copy_from_slice(element);
                }
            }
        }
    })?)
}

/// Every second slice along an axis, from the first or from the second on.
fn every_other(name: &str, tensor: &TensorData, axis: usize, turn: usize) -> Result<TensorData> {
    let mut shape = tensor.shape().to_vec();
    shape[axis] /= 2;
    let width = shape[axis + 1..].iter().product::<usize>() * tensor.dtype().size();
    let source = tensor.clone();
    Ok(TensorData::deferred(name, tensor.dtype(), &shape, tensor.file(), move |bytes| {
        if width == 0 {
            return;
        }
        let rows = source.bytes().chunks_exact(width).skip(turn).step_by(2);
        bytes.chunks_exact_mut(width).zip(rows).for_each(|(to, from)| to.copy_from_slice(from));
    })?)
}

/// A tensor with each number changed, in the type it is stored in.
fn mapped(name: &str, tensor: &TensorData, change: fn(f32) -> f32) -> Result<TensorData> {
    changed(name, tensor, move |values| values.iter_mut().for_each(|value| *value = change(*value)))
}

/// A tensor whose numbers are changed together, in the type it is stored in.
fn changed(
    name: &str,
    tensor: &TensorData,
    change: impl Fn(&mut [f32]) + Send + Sync + 'static,
) -> Result<TensorData> {
    let source = tensor.clone();
    Ok(TensorData::deferred(name, tensor.dtype(), tensor.shape(), tensor.file(), move |bytes| {
        // Both were checked to be possible: the type is that of weights.
        let made = source.to_f32().and_then(|mut values| {
            change(&mut values);
            TensorData::from_f32_as(source.name(), source.dtype(), source.shape(), &values)
        });
        if let Ok(made) = made {
            bytes.copy_from_slice(made.bytes());
        }
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_put_in_another_order_and_stacks_taken_apart() {
        let mut made = tensors(&[("a.p.weight", &[2, 4]), ("a.v", &[4]), ("a.pp.weight", &[2, 4])]);
        made.order_columns("p", &[1, 0]).unwrap();
        assert_eq!(
            made.get("a.p.weight").unwrap().to_f32().unwrap(),
            [2.0, 3.0, 0.0, 1.0, 6.0, 7.0, 4.0, 5.0]
        );
        assert_eq!(made.get("a.pp.weight").unwrap().to_f32().unwrap()[0], 0.0);
        made.order_rows("p", &[1..2, 0..1]).unwrap();
        made.order_rows("v", &[2..4, 0..2]).unwrap();
        assert_eq!(made.get("a.p.weight").unwrap().to_f32().unwrap()[..4], [6.0, 7.0, 4.0, 5.0]);
        assert_eq!(made.get("a.v").unwrap().to_f32().unwrap(), [2.0, 3.0, 0.0, 1.0]);
        assert!(made.order_columns("p", &[2, 0, 1]).is_err());
        made.unstack("pp").unwrap();
        assert_eq!(names(&made), ["a.p.weight", "a.pp.0.weight", "a.pp.1.weight", "a.v"]);
        assert_eq!(made.get("a.pp.1.weight").unwrap().to_f32().unwrap(), [4.0, 5.0, 6.0, 7.0]);
    }

    fn tensors(list: &[(&str, &[usize])]) -> Tensors {
        let mut tensors = Tensors::default();
        for (name, shape) in list {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32).collect();
            tensors.insert(*name, TensorData::from_f32(*name, shape, &values).unwrap());
        }
        tensors
    }

    fn names(tensors: &Tensors) -> Vec<&str> {
        tensors.names().collect()
    }

    #[test]
    fn names_are_replaced_by_whole_components() {
        let mut tensors = tensors(&[("model.h.0.attn.c.weight", &[1]), ("model.h.0.xattn.c.weight", &[1])]);
        tensors.replace("attn.c", "self_attn.o_proj");
        tensors.replace_prefix("model.h.", "model.layers.");
        assert_eq!(
            names(&tensors),
            ["model.layers.0.self_attn.o_proj.weight", "model.layers.0.xattn.c.weight"]
        );
    }

    #[test]
    fn experts_are_stacked_in_the_order_of_their_numbers() {
        let list: Vec<(String, Vec<usize>)> =
            (0..11).map(|i| (format!("model.layers.0.mlp.experts.{i}.w1.weight"), vec![2, 3])).collect();
        let list: Vec<(&str, &[usize])> = list.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
        let mut tensors = tensors(&list);
        let last = TensorData::from_f32("x", &[2, 3], &[9.0; 6]).unwrap();
        tensors.insert("model.layers.0.mlp.experts.2.w1.weight", last);
        tensors.stack("mlp.experts.*.w1", "mlp.switch_mlp.gate_proj").unwrap();
        assert_eq!(names(&tensors), ["model.layers.0.mlp.switch_mlp.gate_proj.weight"]);
        let stack = tensors.get("model.layers.0.mlp.switch_mlp.gate_proj.weight").unwrap();
        assert_eq!(stack.shape(), [11, 2, 3]);
        assert_eq!(stack.to_f32().unwrap()[12..18], [9.0; 6]);
    }

    #[test]
    fn a_missing_expert_leaves_all_alone_and_another_shape_is_an_error() {
        let gap = [("e.0.w.weight", &[1][..]), ("e.2.w.weight", &[1])];
        let mut gap = tensors(&gap);
        gap.stack("e.*.w", "s").unwrap();
        assert_eq!(names(&gap).len(), 2);
        let mut odd = tensors(&[("e.0.w.weight", &[1]), ("e.1.w.weight", &[2])]);
        let error = odd.stack("e.*.w", "s").unwrap_err().to_string();
        assert!(error.contains("e.1.w.weight") && error.contains("[2]"), "{error}");
    }

    #[test]
    fn fused_rows_are_divided_also_within_stacks() {
        let mut tensors =
            tensors(&[("a.qk.weight", &[3, 2]), ("a.qk.bias", &[3]), ("b.qk.weight", &[2, 3, 1])]);
        tensors.split("qk", &[("q", 1), ("k", 2)]).unwrap();
        assert_eq!(
            names(&tensors),
            ["a.k.bias", "a.k.weight", "a.q.bias", "a.q.weight", "b.k.weight", "b.q.weight"]
        );
        assert_eq!(tensors.get("a.k.weight").unwrap().to_f32().unwrap(), [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(tensors.get("a.k.bias").unwrap().to_f32().unwrap(), [1.0, 2.0]);
        assert_eq!(tensors.get("b.k.weight").unwrap().shape(), [2, 2, 1]);
        assert_eq!(tensors.get("b.k.weight").unwrap().to_f32().unwrap(), [1.0, 2.0, 4.0, 5.0]);
        assert_eq!(tensors.get("b.q.weight").unwrap().to_f32().unwrap(), [0.0, 3.0]);
    }

    #[test]
    fn rows_that_take_turns_are_divided() {
        let mut tensors =
            tensors(&[("a.qk.weight", &[2, 4, 1]), ("a.qk.bias", &[2, 2]), ("b.qk.weight", &[3, 1])]);
        tensors.split_turns("qk", ["q", "k"]).unwrap();
        assert_eq!(names(&tensors), ["a.k.bias", "a.k.weight", "a.q.bias", "a.q.weight", "b.qk.weight"]);
        assert_eq!(tensors.get("a.q.weight").unwrap().shape(), [2, 2, 1]);
        assert_eq!(tensors.get("a.q.weight").unwrap().to_f32().unwrap(), [0.0, 2.0, 4.0, 6.0]);
        assert_eq!(tensors.get("a.k.weight").unwrap().to_f32().unwrap(), [1.0, 3.0, 5.0, 7.0]);
        assert_eq!(tensors.get("a.k.bias").unwrap().to_f32().unwrap(), [1.0, 3.0]);
    }

    #[test]
    fn columns_become_rows() {
        let mut halves = tensors(&[("a.qk", &[1, 2, 4])]);
        halves.split_columns("qk", &[("q", 0, 1), ("k", 2, 1)]).unwrap();
        assert_eq!(names(&halves), ["a.k.weight", "a.q.weight"]);
        assert_eq!(halves.get("a.q.weight").unwrap().to_f32().unwrap(), [0.0, 4.0, 1.0, 5.0]);
        assert_eq!(halves.get("a.k.weight").unwrap().to_f32().unwrap(), [2.0, 6.0, 3.0, 7.0]);
        let mut turns = tensors(&[("a.qk", &[1, 2, 4])]);
        turns.split_columns("qk", &[("q", 0, 2), ("k", 1, 2)]).unwrap();
        assert_eq!(turns.get("a.k.weight").unwrap().shape(), [1, 2, 2]);
        assert_eq!(turns.get("a.k.weight").unwrap().to_f32().unwrap(), [1.0, 5.0, 3.0, 7.0]);
    }

    #[test]
    fn blocks_of_bytes_are_read_as_words() {
        let bytes: Vec<u8> = (0..16).collect();
        let mut tensors = Tensors::default();
        tensors
            .insert("a.up_blocks", TensorData::new("a.up_blocks", Dtype::U8, &[1, 2, 2, 4], bytes).unwrap());
        tensors.words("_blocks", ".weight").unwrap();
        let words = tensors.get("a.up.weight").unwrap();
        assert_eq!((words.dtype(), words.shape()), (Dtype::U32, &[1, 2, 2][..]));
        assert_eq!(words.to_u32().unwrap()[1], 0x0706_0504);
    }

    #[test]
    fn columns_are_given_length_one() {
        let mut tensors = tensors(&[("lm_head.weight", &[2, 2])]);
        tensors.normalize_columns("lm_head.weight", 0.0).unwrap();
        let length = 10f32.sqrt();
        let head = tensors.get("lm_head.weight").unwrap().to_f32().unwrap();
        assert_eq!(head, [0.0, 1.0 / length, 1.0, 3.0 / length]);
    }

    #[test]
    fn rows_are_given_length_one() {
        let mut tensors = tensors(&[("lm_head.weight", &[2, 2])]);
        tensors.normalize_rows("lm_head.weight", 0.0).unwrap();
        let length = 13f32.sqrt();
        let head = tensors.get("lm_head.weight").unwrap().to_f32().unwrap();
        assert_eq!(head, [0.0, 1.0, 2.0 / length, 3.0 / length]);
    }

    #[test]
    fn rows_have_factors_of_their_own() {
        let mut tensors = tensors(&[("a.in_proj.weight", &[2, 2]), ("b.A_log", &[1, 2, 1])]);
        tensors.scale_rows("in_proj.weight", |row| if row == 0 { 2.0 } else { -1.0 }).unwrap();
        tensors.flatten("A_log").unwrap();
        assert_eq!(tensors.get("a.in_proj.weight").unwrap().to_f32().unwrap(), [0.0, 2.0, -2.0, -3.0]);
        assert_eq!(tensors.get("b.A_log").unwrap().shape(), [2]);
    }

    #[test]
    fn axes_are_exchanged_and_numbers_changed() {
        let mut tensors = tensors(&[("a.weight", &[2, 2, 3]), ("norm.weight", &[2])]);
        tensors.transpose("a.weight").unwrap();
        tensors.map("norm.weight", |x| x + 1.0).unwrap();
        let turned = tensors.get("a.weight").unwrap();
        assert_eq!(turned.shape(), [2, 3, 2]);
        assert_eq!(turned.to_f32().unwrap()[..6], [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(tensors.get("norm.weight").unwrap().to_f32().unwrap(), [1.0, 2.0]);
    }
}
