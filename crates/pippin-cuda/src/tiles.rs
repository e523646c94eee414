//! Products with matrices in tiles: `kernels/tiles.cu`.

use cudarc::driver::{DeviceRepr, sys};
use pippin_tensor::{Gate, Linear, Norm, NormKind, Result};

use crate::launch::{THREADS, blocks, launch};
use crate::matrix::{TILE_ROWS, Tiles};
use crate::memory::{CudaIndices, CudaTensor};
use crate::rows::numbers_of;
use crate::{CudaBackend, CudaMatrix};

/// The most warps that share a row of tiles.
const MOST_SPLITS: usize = 16;
/// Matrices of one launch.
const PARTS: usize = 3;
/// Places for rows are made in such numbers: the most that a block computes together.
const ROWS: usize = 64;
/// Rows that a warp computes together at most.
const WARP_ROWS: usize = 32;
/// Warps of a block of `tiles_wide`, and groups that are on their way to it.
const WIDE_WARPS: usize = 8;
const WIDE_STAGES: usize = 4;

/// `TilePart` of the kernels.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct TilePart {
    tiles: sys::CUdeviceptr,
    out: sys::CUdeviceptr,
    bias: sys::CUdeviceptr,
    residual: sys::CUdeviceptr,
    outputs: u32,
}

// SAFETY: plain numbers in the order and alignment of the kernels' structure.
unsafe impl DeviceRepr for TilePart {}

impl TilePart {
    /// Tiles below each other.
    fn lines(&self) -> usize {
        (self.outputs as usize).div_ceil(TILE_ROWS)
    }
}

/// `RowNorm` of the kernels.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct RowNorm {
    weight: sys::CUdeviceptr,
    eps: f32,
    is_there: i32,
}

// SAFETY: plain numbers in the order and alignment of the kernels' structure.
unsafe impl DeviceRepr for RowNorm {}

impl RowNorm {
    pub(crate) const NONE: Self = Self { weight: 0, eps: 0.0, is_there: 0 };
}

/// A norm as the kernels have it: each row by the root of its mean square. `None`: it is another one.
fn row_norm(norm: Option<&Norm<CudaTensor>>, columns: usize) -> Option<RowNorm> {
    let Some(norm) = norm else { return Some(RowNorm::NONE) };
    let fits = |weight: &CudaTensor| (weight.rows, weight.columns) == (1, columns);
    let is_own = norm.kind == NormKind::Rms && norm.width == columns && norm.bias.is_none();
    (is_own && norm.weight.as_ref().is_none_or(fits)).then(|| RowNorm {
        weight: norm.weight.as_ref().map_or(0, CudaTensor::at),
        eps: norm.eps,
        is_there: 1,
    })
}

/// How a product with one row is shared out. What a number's terms are, and their order, is said by `splits` alone, and that by the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// Warps that share a row of tiles.
    splits: usize,
    /// Rows of tiles that a block's warps have beside each other.
    lines: usize,
    /// Rows of tiles that a warp has.
    of_warp: usize,
}

impl Plan {
    /// For so many rows of so many tiles on a device of so many multiprocessors. Measured on an H100; the shapes are those of Qwen3 of
    /// 0.6, 4 and 8 billion weights.
    fn new(quads: usize, tiles: usize, multiprocessors: usize, is_gated: bool) -> Self {
        let splits = splits(quads);
        let lines = if splits <= 8 { (8 / splits).max(2) } else { 1 };
        let of_warp = match (is_gated, splits) {
            (true, 16) => 4,
            (true, _) => 2,
            (false, 10..) if tiles >= 2 * multiprocessors => 4,
            (false, 10..) if tiles >= multiprocessors => 2,
            (false, _) => 1,
        };
        Self { splits, lines, of_warp }
    }

    fn threads(self) -> u32 {
        (32 * self.splits * self.lines) as u32
    }

    /// Bytes of shared memory: a row of x, and the warps' sums.
    fn shared(self, quads: usize) -> u32 {
        (560 * quads + 64 * self.lines * self.of_warp * self.splits) as u32
    }
}

/// Warps that share a row of so many tiles: as many as it has, or as many as take the same number of turns as the most that there may be.
fn splits(quads: usize) -> usize {
    let turns = quads.div_ceil(MOST_SPLITS).max(1);
    quads.div_ceil(turns).max(1)
}

/// Rows of x, staged by `stage_rows`.
struct Staged {
    bytes: CudaTensor,
    groups: CudaTensor,
    factors: CudaTensor,
}

/// A matrix, the same in tiles, and a bias.
pub(crate) type Layer<'a> = (&'a CudaMatrix, Tiles, Option<&'a CudaTensor>);

impl CudaBackend {
    /// Several linear layers of one input. `None`: not all are in tiles, or the norm is none that the kernels have.
    pub(crate) fn tile_linears(
        &self,
        x: &CudaTensor,
        norm: Option<&Norm<CudaTensor>>,
        linears: &[&Linear<Self>],
    ) -> Result<Option<Vec<CudaTensor>>> {
        let Some(norm) = row_norm(norm, x.columns) else { return Ok(None) };
        let layers = linears.iter().map(|linear| {
            let bias = linear.bias.as_ref();
            let tiles = linear.weight.tiles().filter(|_| linear.hadamard.is_none());
            tiles.map(|tiles| (&linear.weight, tiles, bias))
        });
        match layers.collect::<Option<Vec<Layer<'_>>>>() {
            Some(layers) => self.tile_products(x, norm, &layers, None).map(Some),
            None => Ok(None),
        }
    }

    /// The gate of two linear layers of one input. `None`: as above.
    pub(crate) fn tile_gated(
        &self,
        x: &CudaTensor,
        norm: Option<&Norm<CudaTensor>>,
        gate: &Linear<Self>,
        up: &Linear<Self>,
        kind: Gate,
    ) -> Result<Option<CudaTensor>> {
        let both = (gate.weight.tiles(), up.weight.tiles(), row_norm(norm, x.columns));
        let (Some(gate_tiles), Some(up_tiles), Some(norm)) = both else { return Ok(None) };
        if gate.hadamard.is_some() || up.hadamard.is_some() {
            return Ok(None);
        }
        let layers =
            [(&gate.weight, gate_tiles, gate.bias.as_ref()), (&up.weight, up_tiles, up.bias.as_ref())];
        if x.rows != 1 || gate.weight.rows != up.weight.rows || gate_tiles.is_f16 != up_tiles.is_f16 {
            let both = self.tile_products(x, norm, &layers, None)?;
            return self.run_gated(&both[0], &both[1], kind).map(Some);
        }
        let (number, activation, p, q) = numbers_of(kind)?;
        let (out, gate_part) = self.tile_part(x, layers[0], None)?;
        let (_, up_part) = self.tile_part(x, layers[1], None)?;
        let quads = gate_tiles.quads;
        let tiles = gate.weight.rows.div_ceil(TILE_ROWS);
        let plan = Plan::new(quads, tiles, self.multiprocessors(), true);
        let grid = (tiles.div_ceil(plan.lines * plan.of_warp / 2) as u32, 1);
        launch!(
            self,
            &format!("tiles_gated_one_{}", plan.of_warp),
            (grid, plan.threads(), plan.shared(quads)),
            gate_part,
            up_part,
            x.at(),
            x.columns as u32,
            quads as u32,
            plan.splits as u32,
            norm,
            i32::from(gate_tiles.is_f16),
            number,
            activation,
            p,
            q
        )?;
        Ok(Some(out))
    }

    /// Products of one input with several matrices, to which a residual is added if there is one.
    pub(crate) fn tile_products(
        &self,
        x: &CudaTensor,
        norm: RowNorm,
        layers: &[Layer<'_>],
        residual: Option<&CudaTensor>,
    ) -> Result<Vec<CudaTensor>> {
        let mut outputs = Vec::with_capacity(layers.len());
        let mut staged = None;
        for alike in layers.chunk_by(|(_, a, _), (_, b, _)| a.is_f16 == b.is_f16) {
            for together in alike.chunks(PARTS) {
                let mut parts = Vec::with_capacity(PARTS);
                for layer in together {
                    let (out, part) = self.tile_part(x, *layer, residual)?;
                    outputs.push(out);
                    parts.push(part);
                }
                let (_, tiles, _) = together[0];
                if x.rows == 1 {
                    self.launch_one(x, norm, tiles, &parts)?;
                } else if x.rows > 0 {
                    if staged.is_none() {
                        staged = Some(self.staged(x, norm, tiles.quads)?);
                    }
                    if let Some(staged) = &staged {
                        self.launch_many(x.rows, staged, tiles, &parts)?;
                    }
                }
            }
        }
        Ok(outputs)
    }

    fn tile_part(
        &self,
        x: &CudaTensor,
        (weight, tiles, bias): Layer<'_>,
        residual: Option<&CudaTensor>,
    ) -> Result<(CudaTensor, TilePart)> {
        let out = self.product_output(x, weight, bias, residual)?;
        let at = |tensor: Option<&CudaTensor>| tensor.map_or(0, CudaTensor::at);
        let part = TilePart {
            tiles: tiles.at,
            out: out.at(),
            bias: at(bias),
            residual: at(residual),
            outputs: weight.rows as u32,
        };
        Ok((out, part))
    }

    fn launch_one(&self, x: &CudaTensor, norm: RowNorm, tiles: Tiles, parts: &[TilePart]) -> Result<()> {
        let all = parts.iter().map(TilePart::lines).sum();
        let plan = Plan::new(tiles.quads, all, self.multiprocessors(), false);
        let (counts, [first, second, third]) = shared_out(parts, plan.lines * plan.of_warp);
        launch!(
            self,
            &format!("tiles_one_{}", plan.of_warp),
            ((counts.iter().sum(), 1), plan.threads(), plan.shared(tiles.quads)),
            first,
            second,
            third,
            counts[0],
            counts[1],
            x.at(),
            x.columns as u32,
            tiles.quads as u32,
            plan.splits as u32,
            norm,
            i32::from(tiles.is_f16)
        )
    }

    fn staged(&self, x: &CudaTensor, norm: RowNorm, quads: usize) -> Result<Staged> {
        let rows = x.rows.next_multiple_of(ROWS);
        // In numbers of four bytes: two bytes for each column, and two numbers for each group of 64.
        let (bytes, groups) = (self.output(rows, 128 * quads)?, self.output(rows, 8 * quads)?);
        let factors = self.output(rows, 1)?;
        launch!(
            self,
            "stage_rows",
            ((x.rows as u32, 1), THREADS, 16 * quads as u32),
            bytes.at(),
            groups.at(),
            factors.at(),
            x.at(),
            x.columns as u32,
            quads as u32,
            norm
        )?;
        Ok(Staged { bytes, groups, factors })
    }

    fn launch_many(&self, rows: usize, staged: &Staged, tiles: Tiles, parts: &[TilePart]) -> Result<()> {
        let splits = splits(tiles.quads);
        let launch = |name: &str, of_block: usize, of_rows: usize, threads: u32, shared: u32| {
            let (counts, [first, second, third]) = shared_out(parts, of_block);
            launch!(
                self,
                name,
                ((counts.iter().sum(), rows.div_ceil(of_rows) as u32), threads, shared),
                first,
                second,
                third,
                counts[0],
                counts[1],
                staged.bytes.at(),
                staged.groups.at(),
                staged.factors.at(),
                rows as u32,
                tiles.quads as u32,
                splits as u32,
                i32::from(tiles.is_f16)
            )
        };
        let all: usize = parts.iter().map(TilePart::lines).sum();
        // Of so many warps' rows, and so many rows of tiles for each warp.
        let wide = |halves: usize, of_warp: usize| {
            let shared = WIDE_STAGES * WARP_ROWS * halves * (128 + 8);
            let of_block = WIDE_WARPS / halves * of_warp;
            let name = format!("tiles_wide_{of_warp}_{halves}");
            launch(&name, of_block, WARP_ROWS * halves, 32 * WIDE_WARPS as u32, shared as u32)
        };
        let is_enough = |of_block: usize, of_rows: usize| {
            all.div_ceil(of_block) * rows.div_ceil(of_rows) >= self.multiprocessors()
        };
        if rows > ROWS {
            return if is_enough(WIDE_WARPS, ROWS) { wide(2, 2) } else { wide(1, 1) };
        }
        if rows > WARP_ROWS / 2 && is_enough(WIDE_WARPS, WARP_ROWS) {
            return wide(1, 1);
        }
        let lines = (4 / splits).max(1);
        let fours = match rows {
            0..=8 => 2,
            9..=16 => 4,
            _ => 8,
        };
        let shared = lines * splits * 4 * fours * 4 * TILE_ROWS;
        launch(&format!("tiles_many_{fours}"), lines, 4 * fours, (32 * splits * lines) as u32, shared as u32)
    }

    /// Products of rows with one of a stack of matrices each: `[experts, outputs of each, routes of a row]`.
    pub(crate) fn tile_gathered(
        &self,
        x: &CudaTensor,
        weight: &CudaMatrix,
        tiles: Tiles,
        [experts, outputs, each]: [usize; 3],
        routes: &CudaIndices,
    ) -> Result<CudaTensor> {
        let out = self.output(routes.len, outputs)?;
        let part = TilePart { tiles: tiles.at, out: out.at(), bias: 0, residual: 0, outputs: outputs as u32 };
        // An expert's first row may stand in the middle of a tile.
        let extra = if outputs.is_multiple_of(TILE_ROWS) { 0 } else { 1 };
        let lines = outputs.div_ceil(TILE_ROWS) + extra;
        let plan = Plan::new(tiles.quads, lines, self.multiprocessors(), false);
        let plan = Plan { of_warp: plan.of_warp.min(2), ..plan };
        let grid = (routes.len as u32, lines.div_ceil(plan.lines * plan.of_warp) as u32);
        launch!(
            self,
            &format!("tiles_gathered_{}", plan.of_warp),
            (grid, plan.threads(), plan.shared(tiles.quads)),
            part,
            x.at(),
            weight.columns as u32,
            tiles.quads as u32,
            plan.splits as u32,
            i32::from(tiles.is_f16),
            each as u32,
            routes.at(),
            experts as u32
        )?;
        Ok(out)
    }

    pub(crate) fn tile_embedding(
        &self,
        table: &CudaMatrix,
        tiles: Tiles,
        rows: &CudaIndices,
    ) -> Result<CudaTensor> {
        let out = self.output(rows.len, table.columns)?;
        launch!(
            self,
            "embedding_tiles",
            ((blocks(rows.len * (table.columns / 8)), 1), THREADS, 0),
            out.at(),
            tiles.at,
            rows.at(),
            rows.len as u64,
            table.rows as u32,
            table.columns as u32,
            tiles.quads as u32,
            i32::from(tiles.is_f16)
        )?;
        Ok(out)
    }
}

/// Blocks of each part where a block has so many rows of tiles, and the parts, of which there may be fewer than a launch takes.
fn shared_out(parts: &[TilePart], of_block: usize) -> ([u32; PARTS], [TilePart; PARTS]) {
    let none = TilePart { tiles: 0, out: 0, bias: 0, residual: 0, outputs: 0 };
    let part = |index: usize| parts.get(index).copied().unwrap_or(none);
    let count = |index: usize| part(index).lines().div_ceil(of_block) as u32;
    ([count(0), count(1), count(2)], [part(0), part(1), part(2)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warps_have_the_same_number_of_turns() {
        for quads in 1..200 {
            let splits = splits(quads);
            let turns = quads.div_ceil(splits);
            assert!((1..=MOST_SPLITS).contains(&splits) && turns == quads.div_ceil(MOST_SPLITS), "{quads}");
            for is_gated in [false, true] {
                let plan = Plan::new(quads, 500, 132, is_gated);
                assert!(plan.splits == splits && plan.threads() <= 512, "{plan:?}");
            }
        }
    }
}
