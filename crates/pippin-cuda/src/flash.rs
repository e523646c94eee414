//! Attention on tensor cores, for what most models have: `kernels/flash.cu`.

use cudarc::driver::{DeviceRepr, sys};
use pippin_tensor::{AttentionSpec, KvFormat, Reach, Result, StepInputs, ValueStore};

use crate::attention::{StepView, reach};
use crate::device::ARRIVALS;
use crate::kv::CacheView;
use crate::launch::{OVERLAPS, launch, pointer};
use crate::memory::{CudaIndices, CudaTensor};
use crate::recorder::MOST_ROWS;
use crate::{CudaBackend, CudaKvCache, compile};

/// Keys of a split, warps of a block that has one, warps of a block with many rows, and queries of a set: as in the kernels.
const SPLIT: usize = 128;
const SPLIT_WARPS: u32 = 8;
const ROWS_WARPS: usize = 4;
const QUERIES: usize = 8;
/// Whether these kernels are used. The kernels of a version before have run on a device; these, and what launches them, have not: the conformance
/// suite and the golden models come first.
const IS_CHECKED: bool = false;
/// Whether warps with many rows take two sets of queries, and splits that are few are merged in clusters. Neither has been measured on a device.
const TWO_SETS: bool = false;
const CLUSTERS: bool = false;
/// Devices whose multiprocessors have so much shared memory that a warp takes two sets of queries: as in the kernels.
const ROOMY: [(i32, i32); 3] = [(8, 0), (9, 0), (10, 0)];
/// Widths of heads for which there are kernels.
const WIDTHS: [usize; 6] = [64, 80, 96, 128, 192, 256];
/// The widest heads whose keys and values are in shared memory together.
const WIDEST_TOGETHER: usize = 128;
/// Shared memory that kernels have besides what they ask for, at most.
const SHARED_BESIDES: usize = 4 << 10;

/// Rows that are computed together where there are many of one sequence.
const TILE: usize = 64;
/// Most tiles of a launch.
const MOST_TILES: usize = 1 << 15;
/// A sequence with no more rows has its splits computed apart, as in decoding.
const FEW_ROWS: usize = 4;
/// Most blocks of a cluster, on every device that has clusters.
const MOST_IN_CLUSTER: usize = 8;
/// Most splits of a row that the last block merges by itself.
const MOST_MERGED: usize = 64;
/// Blocks of splits that a multiprocessor runs at a time; where there would be more, each takes several splits, and their loads overlap.
const BLOCKS: usize = 2;
/// Most splits of a block: a row may see much more than the others of its step.
const MOST_TURNS: usize = 16;
/// Most bytes of what splits keep until they are merged: rows take turns.
const MOST_KEPT: usize = 128 << 20;

/// `Flash` of the kernels.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct FlashView {
    out: sys::CUdeviceptr,
    queries: sys::CUdeviceptr,
    cache: CacheView,
    step: StepView,
    sinks: sys::CUdeviceptr,
    chosen: sys::CUdeviceptr,
    chosen_width: u32,
    heads: u32,
    reach_kind: u32,
    reach_limit: u32,
    scale: f32,
    softcap: f32,
}

// SAFETY: plain numbers in the order and alignment of the kernels' structure.
unsafe impl DeviceRepr for FlashView {}

/// Which of the kernels a cache needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlashKernel {
    /// Its name and number in the kernels.
    format: (&'static str, u32),
    width: usize,
    /// Shared memory of a block with a split, and of one with many rows.
    split_shared: usize,
    rows_shared: usize,
    /// Queries of a block with many rows.
    rows_queries: usize,
}

const F16: (&str, u32) = ("f16", 1);
pub(crate) const BF16: (&str, u32) = ("bf16", 2);
const INT8: (&str, u32) = ("int8", 3);

impl FlashKernel {
    fn split_name(&self) -> String {
        format!("flash_split_{}_{}", self.format.0, self.width)
    }

    fn rows_name(&self) -> String {
        format!("flash_rows_{}_{}", self.format.0, self.width)
    }
}

/// Who merges the splits of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merge {
    /// The first block of their cluster; the last to arrive where tokens that see each other see more than a cluster has.
    Cluster,
    /// The last block to arrive.
    Last,
    /// A kernel of its own, which must not come after the others: they leave nothing for it.
    Kernel,
}

/// Who merges the splits, `splits` at most where no tokens see each other, each of which has a block if there are as many `blocks`; `groups`
/// are the groups of heads and rows that have splits.
fn merge_of(has_clusters: bool, splits: usize, blocks: usize, groups: usize) -> Merge {
    if splits > MOST_MERGED || groups > ARRIVALS {
        return Merge::Kernel;
    }
    if has_clusters && blocks == splits && blocks <= MOST_IN_CLUSTER { Merge::Cluster } else { Merge::Last }
}

/// How the rows of a step are computed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// `{first row, rows}` of tiles, those that see most first.
    tiles: Vec<u32>,
    /// Rows whose splits are computed apart.
    singles: Vec<u32>,
}

/// Long runs of rows of one sequence become tiles.
fn plan(starts: &[u32]) -> Plan {
    let mut plan = Plan::default();
    for (first, end) in starts.windows(2).map(|pair| (pair[0], pair[1])).rev() {
        if end.saturating_sub(first) as usize <= FEW_ROWS {
            plan.singles.extend(first..end);
            continue;
        }
        for first in (first..end).step_by(TILE).rev() {
            plan.tiles.extend([first, (end - first).min(TILE as u32)]);
        }
    }
    plan
}

impl CudaBackend {
    /// The kernels for a cache, if there are any.
    pub(crate) fn flash_for(&self, cache: &CudaKvCache) -> Option<FlashKernel> {
        if !IS_CHECKED {
            return None;
        }
        let kept = &cache.spec;
        let width = kept.key_dim;
        let is_alike = kept.values == ValueStore::Own(width) && WIDTHS.contains(&width);
        // Kernels count rows of heads in 32 bits, and copy 16 bytes at a time.
        let rows = kept.pages.checked_mul(kept.page_size).and_then(|rows| rows.checked_mul(kept.kv_heads));
        let is_counted = rows.is_some_and(|rows| rows < u32::MAX as usize);
        let (format, parts) = match kept.format {
            KvFormat::F32 => return None,
            KvFormat::F16 => (F16, 2),
            KvFormat::Bf16 => (BF16, 3),
            KvFormat::Int8 if !kept.page_size.is_multiple_of(4) => return None,
            KvFormat::Int8 => (INT8, 3),
        };
        let stride = 2 * (width + 8);
        let is_together = width <= WIDEST_TOGETHER;
        let tiles_shared = if is_together { 2 } else { 1 } * SPLIT * stride;
        let split_shared = tiles_shared + parts * QUERIES * stride + 2 * QUERIES * 2 * (SPLIT + 8);
        let sets = if TWO_SETS && is_together && ROOMY.contains(&self.capability()) { 2 } else { 1 };
        let rows_queries = QUERIES * sets * ROWS_WARPS;
        // Two sets stay in shared memory, with the rests of the queries.
        let rows_shared = tiles_shared + if sets == 2 { 2 * rows_queries * stride } else { 0 };
        let fits = split_shared.max(rows_shared) + SHARED_BESIDES <= self.shared_memory();
        let kernel = FlashKernel { format, width, split_shared, rows_shared, rows_queries };
        (is_alike && is_counted && fits).then_some(kernel)
    }

    /// Compiles the kernels for a cache, if there are any and nobody has before.
    pub(crate) fn prepare_flash(&self, cache: &CudaKvCache) -> Result<()> {
        let Some(kernel) = self.flash_for(cache) else { return Ok(()) };
        let names = [kernel.split_name(), kernel.rows_name(), "flash_merge".to_owned()];
        self.add_module(&names, |architecture| compile::load_flash(architecture, kernel.width, kernel.format))
    }

    pub(crate) fn run_flash(
        &self,
        kernel: FlashKernel,
        queries: &CudaTensor,
        (cache, mut view): (&CudaKvCache, StepView),
        step: &StepInputs<Self>,
        spec: &AttentionSpec,
        chosen: Option<&CudaIndices>,
        sinks: Option<&CudaTensor>,
    ) -> Result<CudaTensor> {
        let heads = spec.heads;
        let out = self.output(step.rows, heads * kernel.width)?;
        let starts = step.query_starts.values()?;
        if starts.iter().enumerate().all(|(row, start)| row == *start as usize) {
            view.row_sequences = 0;
        }
        let (reach_kind, reach_limit) = reach(spec.reach);
        let flash = FlashView {
            out: out.at(),
            queries: queries.at(),
            cache: cache.view(),
            step: view,
            sinks: sinks.map_or(0, CudaTensor::at),
            chosen: chosen.map_or(0, CudaIndices::at),
            chosen_width: chosen.map_or(0, |chosen| chosen.len / step.rows.max(1)) as u32,
            heads: heads as u32,
            reach_kind,
            reach_limit,
            scale: spec.scale,
            softcap: spec.softcap.unwrap_or(0.0),
        };
        let mut seen = view.table_width as usize * cache.spec.page_size;
        if chosen.is_some() {
            seen = seen.min(flash.chosen_width as usize);
        }
        // What a recorded step launches must not depend on which rows are whose.
        if step.rows <= MOST_ROWS || chosen.is_some() {
            self.flash_splits(kernel, &flash, spec, seen, 0, step.rows)?;
            return Ok(out);
        }
        let Plan { tiles, singles } = plan(&starts);
        let lists = self.row_sequences(step)?.derived(self.memory(), |_| {
            let Plan { mut tiles, singles } = plan(&starts);
            tiles.extend(singles);
            tiles
        })?;
        if !tiles.is_empty() {
            self.flash_rows(kernel, &flash, spec, lists.at(), tiles.len() / 2)?;
        }
        if !singles.is_empty() {
            let list = lists.at() + 4 * tiles.len() as u64;
            self.flash_splits(kernel, &flash, spec, seen, list, singles.len())?;
        }
        Ok(out)
    }

    /// Rows whose splits are computed apart and merged: those of a list, or the first `count`. None sees more than `seen` keys.
    fn flash_splits(
        &self,
        kernel: FlashKernel,
        flash: &FlashView,
        spec: &AttentionSpec,
        seen: usize,
        list: sys::CUdeviceptr,
        count: usize,
    ) -> Result<()> {
        let name = kernel.split_name();
        let (heads, width) = (spec.heads, kernel.width);
        let most = seen.div_ceil(SPLIT).max(1);
        let kept = most.saturating_mul(heads).saturating_mul(4 * (width + 2));
        let at_once = (MOST_KEPT / kept.max(1)).clamp(1, count.max(1));
        // Few tokens have their splits in a window or chunk; where tokens see each other, blocks take several.
        let splits = match spec.reach {
            Reach::All => most,
            Reach::Window(limit) | Reach::Chunk(limit) => most.min(limit.div_ceil(SPLIT).saturating_add(1)),
        };
        let of_row = spec.kv_heads * (heads / spec.kv_heads).div_ceil(QUERIES);
        if !self.memory().recorder.repeats() {
            self.prefer_shared(&name)?;
        }
        let scratch = match most {
            1 => (None, None),
            most => (
                Some(self.output(at_once * heads, most * width)?),
                Some(self.output(at_once * heads, most * 2)?),
            ),
        };
        let [mixed, states] = [&scratch.0, &scratch.1].map(|kept| kept.as_ref().map_or(0, CudaTensor::at));
        for first in (0..count).step_by(at_once) {
            let rows = at_once.min(count - first);
            let blocks = BLOCKS * self.multiprocessors() / (rows * of_row).max(1);
            let blocks = blocks.clamp(splits.div_ceil(MOST_TURNS), splits);
            let has_clusters = CLUSTERS && self.capability() >= OVERLAPS;
            let merge = merge_of(has_clusters, splits, blocks, rows * of_row);
            let (flash, first, kept) = (*flash, first as u32, most as u32);
            let arrivals = if merge == Merge::Kernel { 0 } else { self.arrivals() };
            let mut arguments = [
                pointer(&flash),
                pointer(&list),
                pointer(&first),
                pointer(&mixed),
                pointer(&states),
                pointer(&kept),
                pointer(&arrivals),
            ];
            // SAFETY: the arguments are those of the kernel, which stays inside what it is given by the shapes that were checked.
            unsafe {
                self.launch_in_clusters(
                    &name,
                    ((rows * of_row) as u32, blocks as u32),
                    if merge == Merge::Cluster { blocks as u32 } else { 1 },
                    32 * SPLIT_WARPS,
                    kernel.split_shared as u32,
                    &mut arguments,
                )?;
            }
            if merge != Merge::Kernel || most == 1 {
                continue;
            }
            let warps = rows * heads * width.div_ceil(32);
            launch!(
                self,
                "flash_merge",
                ((warps.div_ceil(4) as u32, 1), 128, 0),
                flash,
                list,
                first,
                rows as u32,
                mixed,
                states,
                kept
            )?;
        }
        Ok(())
    }

    /// Tiles of many rows each.
    fn flash_rows(
        &self,
        kernel: FlashKernel,
        flash: &FlashView,
        spec: &AttentionSpec,
        list: sys::CUdeviceptr,
        tiles: usize,
    ) -> Result<()> {
        let name = kernel.rows_name();
        self.prefer_shared(&name)?;
        let pieces = (TILE * (spec.heads / spec.kv_heads)).div_ceil(kernel.rows_queries);
        for first in (0..tiles).step_by(MOST_TILES) {
            let count = MOST_TILES.min(tiles - first);
            launch!(
                self,
                &name,
                (
                    ((spec.kv_heads * pieces) as u32, count as u32),
                    32 * ROWS_WARPS as u32,
                    kernel.rows_shared as u32
                ),
                *flash,
                list + 8 * first as u64,
                TILE as u32
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_become_tiles_and_the_rest_stays_apart() {
        let found = plan(&[0, 1, 131, 131, 135, 140]);
        assert_eq!(found.tiles, [135, 5, 129, 2, 65, 64, 1, 64]);
        assert_eq!(found.singles, [131, 132, 133, 134, 0]);
        assert_eq!(plan(&[0]), Plan::default());
    }

    #[test]
    fn splits_are_merged_once() {
        assert_eq!(merge_of(true, 4, 4, 8), Merge::Cluster);
        assert_eq!(merge_of(false, 4, 4, 8), Merge::Last);
        // Blocks that take several splits leave them in memory.
        assert_eq!(merge_of(true, 4, 2, 200), Merge::Last);
        assert_eq!(merge_of(true, 64, 33, 8), Merge::Last);
        assert_eq!(merge_of(true, 65, 33, 8), Merge::Kernel);
        assert_eq!(merge_of(true, 4, 1, ARRIVALS + 1), Merge::Kernel);
    }
}
