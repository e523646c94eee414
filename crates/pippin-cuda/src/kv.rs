//! The paged KV cache of one layer.

use std::rc::Rc;

use cudarc::driver::{DeviceRepr, sys};
use pippin_tensor::{AttentionSpec, KvCacheSpec, KvFormat, Result, TensorError, ValueStore};

use crate::memory::{Block, CudaTensor, Memory};
use crate::unsupported;

/// Keys and values of one layer, each `[pages, kv_heads]` blocks of `[page_size, dim]` numbers; the values may be part of the keys.
/// In [`KvFormat::Int8`] the scales of a block's rows stand after the rows.
#[derive(Debug)]
pub struct CudaKvCache {
    pub(crate) spec: KvCacheSpec,
    keys: Block,
    values: Option<Block>,
}

/// `Cache` of `kernels/attention.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct CacheView {
    keys: sys::CUdeviceptr,
    values: sys::CUdeviceptr,
    pages: u32,
    page_size: u32,
    kv_heads: u32,
    key_dim: u32,
    value_dim: u32,
    value_stride: u32,
    format: u32,
}

// SAFETY: plain numbers in the order and alignment of the kernels' structure.
unsafe impl DeviceRepr for CacheView {}

fn bytes(spec: &KvCacheSpec, dim: usize) -> Option<usize> {
    let sizes = [spec.pages, spec.page_size, spec.kv_heads, spec.format.row_bytes(dim)];
    sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))
}

impl CudaKvCache {
    pub(crate) fn new(memory: &Rc<Memory>, spec: &KvCacheSpec) -> Result<Self> {
        let values = match spec.values {
            ValueStore::Own(dim) => bytes(spec, dim),
            ValueStore::InKeys(dim) => (dim <= spec.key_dim).then_some(0),
        };
        let (Some(keys), Some(values), 1..) = (bytes(spec, spec.key_dim), values, spec.page_size) else {
            return Err(TensorError::shape("kv_cache", "a size that memory can have", format!("{spec:?}")));
        };
        // Kernels count in 32 bits.
        let sizes = [spec.pages, spec.page_size, spec.kv_heads, spec.key_dim, spec.values.dim()];
        if sizes.iter().any(|size| u32::try_from(*size).is_err()) {
            return Err(unsupported(format!("a cache of {spec:?}")));
        }
        let keep = |bytes: usize| -> Result<Block> {
            let block = memory.keep(bytes, "the KV cache")?;
            block.clear(0, bytes)?;
            Ok(block)
        };
        let keys = keep(keys)?;
        let values = matches!(spec.values, ValueStore::Own(_)).then(|| keep(values)).transpose()?;
        Ok(Self { spec: *spec, keys, values })
    }

    pub(crate) fn view(&self) -> CacheView {
        let (values, value_stride) = match (&self.values, self.spec.values) {
            (Some(values), store) => (values.at(), store.dim()),
            (None, _) => (self.keys.at(), self.spec.key_dim),
        };
        CacheView {
            keys: self.keys.at(),
            values,
            pages: self.spec.pages as u32,
            page_size: self.spec.page_size as u32,
            kv_heads: self.spec.kv_heads as u32,
            key_dim: self.spec.key_dim as u32,
            value_dim: self.spec.values.dim() as u32,
            value_stride: value_stride as u32,
            format: match self.spec.format {
                KvFormat::F32 => 0,
                KvFormat::F16 => 1,
                KvFormat::Bf16 => 2,
                KvFormat::Int8 => 3,
            },
        }
    }

    pub(crate) fn check_write(
        &self,
        keys: &CudaTensor,
        values: Option<&CudaTensor>,
        rows: usize,
    ) -> Result<()> {
        let check = |tensor: &CudaTensor, dim: usize| {
            let columns = self.spec.kv_heads * dim;
            if tensor.rows == rows && tensor.columns == columns {
                return Ok(());
            }
            Err(TensorError::shape("kv_write", format!("[{rows}, {columns}]"), shape_of(tensor)))
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

    /// What caches have in common whose rows one kernel can read.
    pub(crate) fn shape(&self) -> (KvFormat, usize, usize, usize, ValueStore) {
        let KvCacheSpec { format, page_size, kv_heads, key_dim, values, .. } = self.spec;
        (format, page_size, kv_heads, key_dim, values)
    }

    /// Where a page's keys and values are, and how many bytes they have.
    fn page(&self, operation: &'static str, page: usize) -> Result<[(Option<&Block>, usize, usize); 2]> {
        let KvCacheSpec { pages, page_size, kv_heads, key_dim, values, format } = self.spec;
        if page >= pages {
            return Err(TensorError::Index { operation, index: page as u64, limit: pages as u64 });
        }
        let bytes = |dim: usize| page_size * kv_heads * format.row_bytes(dim);
        let values = if self.values.is_some() { bytes(values.dim()) } else { 0 };
        let keys = bytes(key_dim);
        Ok([(Some(&self.keys), page * keys, keys), (self.values.as_ref(), page * values, values)])
    }

    pub(crate) fn read_page(&self, page: usize, to: &mut Vec<u8>) -> Result<()> {
        for (block, at, bytes) in self.page("read_page", page)? {
            let begin = to.len();
            to.resize(begin + bytes, 0);
            if let Some(block) = block {
                block.read(at, &mut to[begin..])?;
            }
        }
        Ok(())
    }

    pub(crate) fn write_page(&mut self, page: usize, bytes: &[u8]) -> Result<()> {
        let parts = self.page("write_page", page)?;
        let expected: usize = parts.iter().map(|(_, _, bytes)| bytes).sum();
        if bytes.len() != expected {
            return Err(TensorError::shape("write_page", format!("{expected} bytes"), bytes.len()));
        }
        let mut rest = bytes;
        for (block, at, bytes) in parts {
            let (own, others) = rest.split_at(bytes);
            if let Some(block) = block {
                block.write(at, own)?;
            }
            rest = others;
        }
        Ok(())
    }
}

pub(crate) fn shape_of(tensor: &CudaTensor) -> String {
    format!("[{}, {}]", tensor.rows, tensor.columns)
}
