//! The paged KV cache of one layer.

use half::{bf16, f16, slice::HalfFloatSliceExt};
use memmap2::MmapMut;
use pippin_tensor::{AttentionSpec, KvCacheSpec, KvFormat, Result, TensorError, ValueStore};

use crate::{kernels::attention::KvView, tensor::CpuTensor};

/// Keys and values of one layer, each `[pages, kv_heads]` blocks of `[page_size, dim]` numbers; the values may be part of
/// the keys. In [`KvFormat::Int8`] the scales of a block's rows stand after the rows, so that rows stay as aligned as the
/// block.
///
/// The memory is asked for at once but committed by the system page by page as it is written, so capacity that is
/// never used costs address space only.
#[derive(Debug)]
pub struct CpuKvCache {
    spec: KvCacheSpec,
    keys: Zeroed,
    values: Zeroed,
}

/// Zeroed bytes of a mapping of their own: a page costs memory once it is written, and all go back to the system when they are
/// dropped. (An allocator may keep a cache of some megabytes for the next one, which then counts twice: once as free for
/// other models, and once as memory of this process.)
#[derive(Debug)]
struct Zeroed {
    bytes: *mut u8,
    _mapping: Option<MmapMut>,
}

// SAFETY: the mapping is owned; access goes through borrows of the owner.
unsafe impl Send for Zeroed {}
// SAFETY: as above.
unsafe impl Sync for Zeroed {}

impl Zeroed {
    fn new(len: usize) -> Result<Self> {
        if len == 0 {
            return Ok(Self { bytes: std::ptr::dangling_mut(), _mapping: None });
        }
        let mut mapping = MmapMut::map_anon(len).map_err(|_| TensorError::OutOfMemory {
            device: "cpu".into(),
            bytes: len as u64,
            what: "the KV cache",
        })?;
        Ok(Self { bytes: mapping.as_mut_ptr(), _mapping: Some(mapping) })
    }
}

impl CpuKvCache {
    pub(crate) fn new(spec: &KvCacheSpec) -> Result<Self> {
        let bytes = |dim: usize| {
            let sizes = [spec.pages, spec.page_size, spec.kv_heads, spec.format.row_bytes(dim)];
            sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size))
        };
        let values = match spec.values {
            ValueStore::Own(dim) => bytes(dim),
            ValueStore::InKeys(dim) => (dim <= spec.key_dim).then_some(0),
        };
        let (Some(keys), Some(values), 1..) = (bytes(spec.key_dim), values, spec.page_size) else {
            return Err(TensorError::shape("kv_cache", "a size that memory can have", format!("{spec:?}")));
        };
        Ok(Self { spec: *spec, keys: Zeroed::new(keys)?, values: Zeroed::new(values)? })
    }

    pub(crate) fn check_write(
        &self,
        keys: &CpuTensor,
        values: Option<&CpuTensor>,
        rows: usize,
    ) -> Result<()> {
        let check = |tensor: &CpuTensor, dim: usize| {
            let columns = self.spec.kv_heads * dim;
            if tensor.rows == rows && tensor.columns == columns {
                return Ok(());
            }
            let found = format!("[{}, {}]", tensor.rows, tensor.columns);
            Err(TensorError::shape("kv_write", format!("[{rows}, {columns}]"), found))
        };
        check(keys, self.spec.key_dim)?;
        match (self.spec.values, values) {
            (ValueStore::Own(dim), Some(values)) => check(values, dim),
            (ValueStore::InKeys(_), None) => Ok(()),
            (ValueStore::Own(_), None) => Err(TensorError::shape("kv_write", "values", "none")),
            (ValueStore::InKeys(_), Some(_)) => {
                Err(TensorError::shape("kv_write", "no values, which are part of the keys", "values"))
            }
        }
    }

    pub(crate) fn check_attention(&self, spec: &AttentionSpec) -> Result<()> {
        let own = (self.spec.kv_heads, self.spec.key_dim, self.spec.values.dim());
        let asked = (spec.kv_heads, spec.key_dim, spec.value_dim);
        if own == asked {
            return Ok(());
        }
        let words = |(heads, keys, values)| format!("{heads} heads of {keys} and {values}");
        Err(TensorError::shape("attention", words(own), words(asked)))
    }

    pub(crate) fn pages(&self) -> usize {
        self.spec.pages
    }

    /// Bytes of a page's keys, and of its values. Both lie in one piece.
    fn page_bytes(&self) -> (usize, usize) {
        let KvCacheSpec { page_size, kv_heads, key_dim, values, format, .. } = self.spec;
        let bytes = |dim| page_size * kv_heads * format.row_bytes(dim);
        let values = match values {
            ValueStore::Own(dim) => bytes(dim),
            ValueStore::InKeys(_) => 0,
        };
        (bytes(key_dim), values)
    }

    fn check_page(&self, operation: &'static str, page: usize) -> Result<()> {
        if page < self.spec.pages {
            return Ok(());
        }
        Err(TensorError::Index { operation, index: page as u64, limit: self.spec.pages as u64 })
    }

    pub(crate) fn read_page(&self, page: usize, to: &mut Vec<u8>) -> Result<()> {
        self.check_page("read_page", page)?;
        let (keys, values) = self.page_bytes();
        for (all, bytes) in [(&self.keys, keys), (&self.values, values)] {
            // SAFETY: the page lies in the cache, whose bytes are initialised, and which nobody writes to while it is
            // borrowed.
            to.extend_from_slice(unsafe { std::slice::from_raw_parts(all.bytes.add(page * bytes), bytes) });
        }
        Ok(())
    }

    pub(crate) fn write_page(&mut self, page: usize, bytes: &[u8]) -> Result<()> {
        self.check_page("write_page", page)?;
        let (keys, values) = self.page_bytes();
        if bytes.len() != keys + values {
            return Err(TensorError::shape("write_page", format!("{} bytes", keys + values), bytes.len()));
        }
        let (own_keys, own_values) = bytes.split_at(keys);
        for (all, bytes) in [(&self.keys, own_keys), (&self.values, own_values)] {
            // SAFETY: the page lies in the cache, which is mutably borrowed; all bytes make numbers.
            unsafe {
                all.bytes.add(page * bytes.len()).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
            };
        }
        Ok(())
    }

    pub(crate) fn view(&self) -> KvView {
        let (values, value_stride) = match self.spec.values {
            ValueStore::Own(dim) => (self.values.bytes, dim),
            ValueStore::InKeys(_) => (self.keys.bytes, self.spec.key_dim),
        };
        KvView {
            keys: self.keys.bytes,
            values,
            format: self.spec.format,
            page_size: self.spec.page_size,
            kv_heads: self.spec.kv_heads,
            key_dim: self.spec.key_dim,
            value_dim: self.spec.values.dim(),
            value_stride,
        }
    }

    /// The means to write rows from several threads.
    pub(crate) fn writer(&mut self) -> Writer {
        Writer { spec: self.spec, keys: self.keys.bytes, values: self.values.bytes }
    }
}

/// A view that parallel tasks share.
#[derive(Clone, Copy)]
pub(crate) struct SharedView(pub(crate) KvView);

// SAFETY: the view is only read, while its cache is borrowed.
unsafe impl Send for SharedView {}
// SAFETY: as above.
unsafe impl Sync for SharedView {}

impl SharedView {
    pub(crate) fn get(&self) -> KvView {
        self.0
    }
}

pub(crate) struct Writer {
    spec: KvCacheSpec,
    keys: *mut u8,
    values: *mut u8,
}

// SAFETY: tasks write disjoint slots; see `write`.
unsafe impl Sync for Writer {}

impl Writer {
    /// Writes one token's keys, `[kv_heads * key_dim]`, and its values, `[kv_heads * value_dim]`. A row beyond the cache
    /// writes nothing.
    ///
    /// # Safety
    /// No other task writes the same row meanwhile, and the cache is mutably borrowed.
    pub(crate) unsafe fn write(&self, row: usize, keys: &[f32], values: Option<&[f32]>) {
        let KvCacheSpec { pages, page_size, kv_heads, key_dim, format, .. } = self.spec;
        let (page, offset) = (row / page_size, row % page_size);
        if page >= pages {
            return;
        }
        let keys = (keys, self.keys, key_dim);
        let values = values.map(|values| (values, self.values, self.spec.values.dim()));
        for (rows, to, head_dim) in std::iter::once(keys).chain(values) {
            let block_bytes = page_size * format.row_bytes(head_dim);
            for (head, row) in rows.chunks_exact(head_dim.max(1)).enumerate() {
                // SAFETY: the block and the slot's row in it lie in the cache. Blocks of floating-point numbers are a
                // whole number of them long, and the cache is aligned for every type; scales are not, and written so.
                unsafe {
                    let block = to.add((page * kv_heads + head) * block_bytes);
                    let at = offset * head_dim;
                    match format {
                        KvFormat::F32 => {
                            std::ptr::copy_nonoverlapping(
                                row.as_ptr(),
                                block.cast::<f32>().add(at),
                                head_dim,
                            );
                        }
                        KvFormat::F16 => {
                            std::slice::from_raw_parts_mut(block.cast::<f16>().add(at), head_dim)
                                .convert_from_f32_slice(row);
                        }
                        KvFormat::Bf16 => {
                            std::slice::from_raw_parts_mut(block.cast::<bf16>().add(at), head_dim)
                                .convert_from_f32_slice(row);
                        }
                        KvFormat::Int8 => {
                            let bytes = std::slice::from_raw_parts_mut(block.cast::<i8>().add(at), head_dim);
                            let scales = block.add(page_size * head_dim).cast::<f32>();
                            scales.add(offset).write_unaligned(quantize(row, bytes));
                        }
                    }
                }
            }
        }
    }
}

/// Rounds a row to signed bytes times a scale, which is returned. The scale of a row with a NaN or an infinity is not
/// finite; that of a row too small for a normal scale makes zeros of it.
fn quantize(row: &[f32], to: &mut [i8]) -> f32 {
    // Bits of numbers without sign are ordered as the numbers are, and NaN comes last.
    let largest = row.iter().fold(0, |largest, value| largest.max(value.to_bits() & i32::MAX as u32));
    let scale = f32::from_bits(largest) / 127.0;
    let inverse = if scale.is_normal() { 1.0 / scale } else { 0.0 };
    for (byte, value) in to.iter_mut().zip(row) {
        // Adding 1.5 * 2^23 leaves no bits for a fraction: the sum is rounded to nearest, and its low bits are the
        // integer's. Without a conversion instruction, of which the baseline has none that rounds.
        *byte = (value * inverse + 12_582_912.0).to_bits() as i8;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident memory of this process in bytes, where the system tells.
    fn resident() -> Option<usize> {
        let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
        Some(statm.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
    }

    #[test]
    fn unused_capacity_takes_no_memory() {
        let spec = KvCacheSpec {
            pages: 4096,
            page_size: 32,
            kv_heads: 8,
            key_dim: 128,
            values: ValueStore::Own(128),
            format: KvFormat::F16,
        };
        let Some(before) = resident() else {
            eprintln!("skipped: this system does not tell how much memory a process uses");
            return;
        };
        let cache = CpuKvCache::new(&spec).unwrap();
        let grown = resident().unwrap().saturating_sub(before);
        assert!(grown < spec.page_bytes() * spec.pages / 4, "{grown} bytes for an empty cache");
        drop(cache);
    }
}
