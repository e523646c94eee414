//! Tokens drawn on the device: `kernels/drawing.cu`.
//!
//! One to three kernels for all rows: the highest logits; sums, where something depends on them; candidates, where something is left
//! out. What they need to know of the samplers is one copy from the host, beside the masks, which are copied when they are new. The
//! tokens are written to the host's memory too: reading them waits for these kernels and not for what has been asked for since.

use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::{DeviceRepr, sys};
use pippin_tensor::sampling::{Change, GenerateParameters, Sampler, TokenMask};
use pippin_tensor::{Drawn, Result, TensorError};

use crate::CudaBackend;
use crate::kv::shape_of;
use crate::launch::{THREADS, blocks, launch};
use crate::memory::{Block, CudaIndices, CudaTensor, Letter, Memory, bytes_of};

/// Logits that a block of threads has.
const BLOCK: usize = 1024;
/// Most blocks of a row.
const MOST_BLOCKS: usize = 512;
/// Blocks of logits that a block of threads has at most.
const MOST_TURNS: usize = 8;
/// Blocks of threads of which a device has hardly more at once.
const AT_ONCE: usize = 512;
/// Parts of a block whose highest logits are known.
const SLICES: usize = 8;
/// Threads of the last kernel.
const LAST_THREADS: u32 = 512;
/// Candidates that are listed; where there are more, the row is gone through once more.
const ROOM: usize = 1 << 15;
/// The host has another order of candidates from here on: `top_k` in the sampler.
const MOST_HEAP: usize = 1024;
/// Masks that are kept on the device at least.
const MASKS: usize = 64;
/// Rows for which there are counters at least.
const ROWS: usize = 256;

/// Bits of [`Row::flags`].
mod flags {
    pub(super) const DRAWS: u32 = 1;
    pub(super) const REPORTS: u32 = 2;
    pub(super) const FILTERS: u32 = 4;
    pub(super) const NUCLEUS: u32 = 8;
    pub(super) const LEAST: u32 = 16;
    pub(super) const STRIKES: u32 = 32;
    pub(super) const HEAP: u32 = 64;
    pub(super) const CHANGES: u32 = 128;
    pub(super) const TOP: u32 = 256;
    pub(super) const ORDERED: u32 = 512;
}

/// What is kept from draw to draw.
#[derive(Debug, Default)]
pub(crate) struct Drawer {
    /// Zeros between draws, and for how many rows.
    counters: Option<(Block, usize)>,
    masks: Vec<Mask>,
    draws: u64,
}

/// A mask on the device, and the draw that needed it last.
#[derive(Debug)]
struct Mask {
    /// As long as it is here, no other has its address.
    of: Arc<TokenMask>,
    block: Block,
    used: u64,
}

impl Drawer {
    /// Where the counters of so many rows are.
    fn counters(&mut self, memory: &Rc<Memory>, rows: usize) -> Result<sys::CUdeviceptr> {
        if let Some((block, most)) = &self.counters
            && *most >= rows
        {
            return Ok(block.at());
        }
        let most = rows.next_power_of_two().max(ROWS);
        let block = memory.keep(4 * (most + 1), "what draws tokens")?;
        block.clear(0, 4 * (most + 1))?;
        let at = block.at();
        self.counters = Some((block, most));
        Ok(at)
    }

    /// Where a mask is, which is copied there unless it is known.
    fn mask(&mut self, memory: &Rc<Memory>, mask: &Arc<TokenMask>) -> Result<sys::CUdeviceptr> {
        let used = self.draws;
        if let Some(known) = self.masks.iter_mut().find(|known| Arc::ptr_eq(&known.of, mask)) {
            known.used = used;
            return Ok(known.block.at());
        }
        let block = memory.take(size_of_val(mask.words()), "a mask of tokens")?;
        block.write(0, bytes_of(mask.words()))?;
        let at = block.at();
        self.masks.push(Mask { of: Arc::clone(mask), block, used });
        Ok(at)
    }

    /// Forgets the masks that have not been needed for longest.
    fn tidy(&mut self) {
        if self.masks.len() > MASKS {
            self.masks.sort_by_key(|mask| std::cmp::Reverse(mask.used));
            let draws = self.draws;
            let needed = self.masks.iter().take_while(|mask| mask.used == draws).count();
            self.masks.truncate(needed.max(MASKS));
        }
    }
}

/// `DrawRow` of the kernels, as words.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    uniform: f64,
    mask: sys::CUdeviceptr,
    mask_words: u32,
    flags: u32,
    changes: u32,
    change_count: u32,
    kept: u32,
    kept_count: u32,
    copy: u32,
    list: u32,
    repetition: f32,
    presence: f32,
    frequency: f32,
    factor: f32,
    top_p: f32,
    least: f32,
    threshold: f32,
    top_k: u32,
    keep: u32,
}

impl Row {
    const WORDS: usize = 22;

    fn words(&self) -> [u32; Self::WORDS] {
        let halves = |word: u64| [word as u32, (word >> 32) as u32];
        let [uniform, uniform_high] = halves(self.uniform.to_bits());
        let [mask, mask_high] = halves(self.mask);
        [
            uniform,
            uniform_high,
            mask,
            mask_high,
            self.mask_words,
            self.flags,
            self.changes,
            self.change_count,
            self.kept,
            self.kept_count,
            self.copy,
            self.list,
            self.repetition.to_bits(),
            self.presence.to_bits(),
            self.frequency.to_bits(),
            self.factor.to_bits(),
            self.top_p.to_bits(),
            self.least.to_bits(),
            self.threshold.to_bits(),
            self.top_k,
            self.keep,
            0,
        ]
    }

    fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }
}

/// `Drawing` of the kernels.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Drawing {
    logits: sys::CUdeviceptr,
    copies: sys::CUdeviceptr,
    rows: sys::CUdeviceptr,
    lists: sys::CUdeviceptr,
    states: sys::CUdeviceptr,
    bests: sys::CUdeviceptr,
    slices: sys::CUdeviceptr,
    sums: sys::CUdeviceptr,
    masses: sys::CUdeviceptr,
    candidates: sys::CUdeviceptr,
    scratch: sys::CUdeviceptr,
    counters: sys::CUdeviceptr,
    tokens: sys::CUdeviceptr,
    logprobs: sys::CUdeviceptr,
    host: sys::CUdeviceptr,
    columns: u32,
    blocks: u32,
    room: u32,
    row_count: u32,
}

// SAFETY: plain numbers in the order and alignment of the kernels' structure.
unsafe impl DeviceRepr for Drawing {}

/// Bytes of `DrawState` of the kernels.
const STATE_BYTES: usize = 40;

/// The logits that a row may have.
fn has_room_for(columns: usize) -> bool {
    (1..=MOST_BLOCKS * BLOCK).contains(&columns)
}

fn is_share(share: f32) -> bool {
    share > 0.0 && share < 1.0
}

/// Whether the kernels draw as a sampler with these parameters does.
fn knows(p: &GenerateParameters) -> bool {
    let draws = p.temperature != 0.0;
    // What XTC leaves of all tokens would have to be put together anew, and more than `MOST_HEAP` be sorted to see how many are likely enough.
    let has_xtc_alone = draws && p.xtc_probability > 0.0 && !is_share(p.top_p) && p.min_p <= 0.0;
    let keeps_many = draws && p.min_p > 0.0 && p.min_tokens_to_keep > MOST_HEAP;
    p.top_logprobs == 0 && !has_xtc_alone && !keeps_many
}

/// What the kernels have to know of a sampler, but for its changes and where things are. Its random numbers move on.
fn row_of(sampler: &mut Sampler, columns: usize) -> Row {
    let numbers = sampler.numbers();
    let p = sampler.parameters();
    let mut row = Row {
        uniform: numbers.uniform,
        repetition: p.repetition_penalty.unwrap_or(0.0),
        presence: p.presence_penalty.unwrap_or(0.0),
        frequency: p.frequency_penalty.unwrap_or(0.0),
        ..Row::default()
    };
    if p.logprobs {
        row.flags |= flags::REPORTS;
    }
    if p.temperature == 0.0 {
        return row;
    }
    row.flags |= flags::DRAWS;
    // An underflow of the temperature must not turn the maximum's exponent, 0, into NaN.
    row.factor = (1.0 / p.temperature).min(f32::MAX);
    if numbers.strikes {
        row.flags |= flags::STRIKES;
        row.threshold = p.xtc_threshold;
    }
    if is_share(p.top_p) {
        row.flags |= flags::NUCLEUS;
        row.top_p = p.top_p;
    }
    if p.min_p > 0.0 {
        row.flags |= flags::LEAST;
        row.least = p.min_p.ln();
        row.keep = u32::try_from(p.min_tokens_to_keep).unwrap_or(u32::MAX);
    }
    if (1..columns).contains(&p.top_k) {
        row.flags |= flags::TOP;
        row.top_k = u32::try_from(p.top_k).unwrap_or(u32::MAX);
        if p.top_k <= MOST_HEAP && !numbers.strikes {
            row.flags |= flags::HEAP;
        }
    }
    // As the host has its candidates: of which there are all, or those that are likely enough, in the order of their tokens.
    let keeps_some = row.has(flags::LEAST) && (2..columns).contains(&p.min_tokens_to_keep);
    let is_cut = row.has(flags::TOP) && !row.has(flags::STRIKES | flags::LEAST);
    if row.has(flags::NUCLEUS | flags::HEAP) || keeps_some || is_cut {
        row.flags |= flags::ORDERED;
    }
    if row.has(flags::STRIKES | flags::NUCLEUS | flags::LEAST | flags::TOP) {
        row.flags |= flags::FILTERS;
    }
    row
}

/// A change as the kernels read it.
fn words_of(change: &Change) -> [u32; 4] {
    let kinds =
        u32::from(change.bias.is_some()) | u32::from(change.repeats) << 1 | u32::from(change.is_present) << 2;
    [change.token, change.bias.unwrap_or(0.0).to_bits(), kinds, change.times]
}

impl CudaBackend {
    pub(crate) fn run_sample(
        &self,
        logits: &CudaTensor,
        samplers: &mut [&mut Sampler],
    ) -> Result<Option<Drawn<Self>>> {
        let (count, columns) = (logits.rows, logits.columns);
        if samplers.len() != count {
            let expected = format!("a sampler for each row of {}", shape_of(logits));
            return Err(TensorError::shape("sample", expected, samplers.len()));
        }
        let is_known = samplers.iter().all(|sampler| knows(sampler.parameters()));
        if count == 0 || count > usize::from(u16::MAX) || !has_room_for(columns) || !is_known {
            return Ok(None);
        }
        let memory = self.memory();
        memory.recorder.leave(memory)?;
        let drawer = &mut *self.drawer().borrow_mut();
        drawer.draws += 1;
        let counters = drawer.counters(memory, count)?;

        let mut rows = Vec::with_capacity(count);
        let (mut lists, mut copies, mut filtered) = (Vec::new(), 0, 0);
        for sampler in samplers.iter_mut() {
            let mut row = row_of(sampler, columns);
            if let Some(mask) = sampler.mask() {
                row.mask = drawer.mask(memory, mask)?;
                row.mask_words = mask.words().len() as u32;
                row.flags |= flags::CHANGES;
            }
            let changes = sampler.changes(columns);
            if !changes.is_empty() {
                row.flags |= flags::CHANGES;
                (row.changes, row.change_count) = (lists.len() as u32, changes.len() as u32);
                lists.extend(changes.iter().flat_map(words_of));
            }
            if row.has(flags::STRIKES) {
                (row.kept, row.kept_count) = (lists.len() as u32, sampler.protected().len() as u32);
                lists.extend(sampler.protected());
            }
            if row.has(flags::CHANGES) {
                row.copy = copies;
                copies += 1;
            }
            if row.has(flags::FILTERS) {
                row.list = filtered;
                filtered += 1;
            }
            rows.push(row);
        }
        drawer.tidy();

        let blocks = columns.div_ceil(BLOCK);
        let parts = count * blocks;
        // In this order: what has eight bytes, then what has four.
        let sizes = [count * STATE_BYTES, 8 * parts, 8 * parts, 8 * parts, 4 * SLICES * parts];
        let space = memory.take(sizes.iter().sum(), "what draws tokens")?;
        let ends: Vec<sys::CUdeviceptr> = sizes
            .iter()
            .scan(space.at(), |at, size| {
                let own = *at;
                *at += *size as sys::CUdeviceptr;
                Some(own)
            })
            .collect();
        let room = columns.min(ROOM);
        let copied = memory.take(4 * columns * copies as usize, "what draws tokens")?;
        let listed = memory.take(8 * room * filtered as usize, "what draws tokens")?;
        let scratch = memory.take(if filtered > 0 { 8 * columns } else { 0 }, "what draws tokens")?;
        let mut words: Vec<u32> = rows.iter().flat_map(Row::words).collect();
        let first_list = 4 * words.len();
        words.extend(lists);
        let words = CudaIndices::of(memory, &words)?;
        let letter = Rc::new(Letter::new(memory, 2 * count)?);
        let (tokens, logprobs) = (CudaIndices::new(memory, count)?, CudaTensor::new(memory, count, 1)?);
        let drawing = Drawing {
            logits: logits.at(),
            copies: copied.at(),
            rows: words.at(),
            lists: words.at() + first_list as sys::CUdeviceptr,
            states: ends[0],
            bests: ends[1],
            sums: ends[2],
            masses: ends[3],
            slices: ends[4],
            candidates: listed.at(),
            scratch: scratch.at(),
            counters,
            tokens: tokens.at(),
            logprobs: logprobs.at(),
            host: letter.at(),
            columns: columns as u32,
            blocks: blocks as u32,
            room: room as u32,
            row_count: count as u32,
        };
        // Where there are many rows, a block of threads has several blocks of logits.
        let turns = parts.div_ceil(AT_ONCE).min(MOST_TURNS);
        let grid = (blocks.div_ceil(turns) as u32, count as u32);
        launch!(self, "draw_highest", (grid, THREADS, 0), drawing)?;
        let sums = |row: &Row| {
            row.has(flags::REPORTS | flags::NUCLEUS) || (row.has(flags::DRAWS) && !row.has(flags::FILTERS))
        };
        if rows.iter().any(sums) {
            launch!(self, "draw_sums", (grid, THREADS, 0), drawing)?;
        }
        if filtered > 0 {
            launch!(self, "draw_candidates", (grid, LAST_THREADS, 0), drawing)?;
        }
        letter.send()?;
        let logprobs = rows.iter().any(|row| row.has(flags::REPORTS)).then(|| logprobs.sent(&letter, count));
        Ok(Some(Drawn { tokens: tokens.sent(&letter), logprobs }))
    }

    pub(crate) fn run_place(
        &self,
        into: &CudaIndices,
        at: &CudaIndices,
        values: &CudaIndices,
    ) -> Result<CudaIndices> {
        if at.len != values.len {
            return Err(TensorError::shape("place", format!("{} places", values.len), at.len));
        }
        let out = CudaIndices::new(self.memory(), into.len)?;
        launch!(
            self,
            "place_indices",
            ((1, 1), THREADS, 0),
            out.at(),
            into.at(),
            into.len as u32,
            at.at(),
            values.at(),
            at.len as u32
        )?;
        Ok(out)
    }

    pub(crate) fn run_choose(
        &self,
        choice: &CudaIndices,
        from: &CudaIndices,
        otherwise: &CudaIndices,
    ) -> Result<CudaIndices> {
        if choice.len != otherwise.len {
            return Err(TensorError::shape("choose", format!("{} choices", otherwise.len), choice.len));
        }
        let out = CudaIndices::of_step(self.memory(), choice.len)?;
        launch!(
            self,
            "choose_indices",
            ((blocks(choice.len), 1), THREADS, 0),
            out.at(),
            choice.at(),
            from.at(),
            otherwise.at(),
            choice.len as u32,
            from.len as u32
        )?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_kernels_layout() {
        let row = Row { uniform: 0.5, mask: 1 << 40 | 2, flags: 7, keep: 9, ..Row::default() };
        let words = row.words();
        assert_eq!(u64::from(words[1]) << 32 | u64::from(words[0]), 0.5f64.to_bits());
        assert_eq!((words[2], words[3], words[5], words[20]), (2, 1 << 8, 7, 9));
    }

    #[test]
    fn what_is_not_known_is_left_to_the_host() {
        let p = GenerateParameters { temperature: 1.0, ..Default::default() };
        for (parameters, is_known) in [
            (p.clone(), true),
            (GenerateParameters { xtc_probability: 0.5, ..p.clone() }, false),
            (GenerateParameters { xtc_probability: 0.5, top_k: 20, ..p.clone() }, false),
            (GenerateParameters { xtc_probability: 0.5, min_p: 0.1, ..p.clone() }, true),
            (GenerateParameters { xtc_probability: 0.5, temperature: 0.0, ..p.clone() }, true),
            (GenerateParameters { min_p: 0.1, min_tokens_to_keep: 2000, ..p.clone() }, false),
            (GenerateParameters { logprobs: true, top_logprobs: 1, ..p }, false),
        ] {
            assert_eq!(knows(&parameters), is_known, "{parameters:?}");
        }
    }
}
