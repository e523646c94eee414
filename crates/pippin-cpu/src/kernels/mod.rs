//! The inner loops, and their choice at run time.
//!
//! Each kernel is an `#[inline(always)]` function generic over [`Simd`]. The macro below instantiates all of them once
//! per instruction set, inside functions that enable its features, and collects them in a table.
//! [`InstructionSet::available`] is the one place that looks at the machine.

pub(crate) mod attention;
pub(crate) mod elementwise;
pub(crate) mod integer;
pub(crate) mod matmul;
pub(crate) mod recurrence;
pub(crate) mod unpack;

use crate::simd::{Simd, portable::Portable};
use attention::{AttentionTask, RankTask};
use elementwise::{Binary, RowNorm};
use integer::{IntegerRows, PackedRow};
use matmul::{DenseRows, Element, QuantRows, Tile};
use pippin_tensor::{Activation, Reduction};
use recurrence::ScanTask;
use unpack::Codes;

/// An instruction set the CPU backend has kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// Plain Rust: any processor.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with AVX512-VNNI.
    Avx512Vnni,
    /// 64-bit ARM.
    Neon,
    /// 64-bit ARM with the dot product instructions of ARMv8.2.
    NeonDotprod,
    /// 64-bit ARM with the 8-bit matrix multiplication instructions of ARMv8.6.
    NeonI8mm,
}

impl InstructionSet {
    /// All instruction sets this machine can run, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let candidates = [
                (Self::Avx512Vnni, avx512 && is_x86_feature_detected!("avx512vnni")),
                (Self::Avx512, avx512),
                (Self::AvxVnni, avx2 && is_x86_feature_detected!("avxvnni")),
                (Self::Avx2, avx2),
            ];
            sets.extend(candidates.iter().filter(|(_, here)| *here).map(|(set, _)| *set));
        }
        #[cfg(target_arch = "aarch64")]
        {
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                sets.push(Self::NeonI8mm);
            }
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                sets.push(Self::NeonDotprod);
            }
            sets.push(Self::Neon);
        }
        sets.push(Self::Portable);
        sets
    }

    /// The name people know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "AVX2",
            Self::AvxVnni => "AVX-VNNI",
            Self::Avx512 => "AVX-512",
            Self::Avx512Vnni => "AVX-512 VNNI",
            Self::Neon => "NEON",
            Self::NeonDotprod => "NEON dotprod",
            Self::NeonI8mm => "NEON i8mm",
        }
    }
}

/// The kernels of one instruction set.
///
/// All function pointers require that the machine has the instruction set, which [`Kernels::of`] guarantees, and that
/// the pointers in their arguments are valid as described at the generic bodies.
pub(crate) struct Kernels {
    pub(crate) lanes: usize,
    /// Activation rows per tile of a matrix product.
    pub(crate) tile_columns: usize,
    pub(crate) quant_rows_2: unsafe fn(&QuantRows<'_>),
    pub(crate) quant_rows_4: unsafe fn(&QuantRows<'_>),
    pub(crate) quant_rows_8: unsafe fn(&QuantRows<'_>),
    pub(crate) quant_unpack_2: unsafe fn(&QuantRows<'_>, *mut f32),
    pub(crate) quant_unpack_4: unsafe fn(&QuantRows<'_>, *mut f32),
    pub(crate) quant_unpack_8: unsafe fn(&QuantRows<'_>, *mut f32),
    pub(crate) dense_rows: unsafe fn(&DenseRows<'_>),
    pub(crate) dense_unpack: unsafe fn(&DenseRows<'_>, *mut f32),
    pub(crate) tile: unsafe fn(&Tile),
    pub(crate) widen: unsafe fn(*const u8, Element, &mut [f32]),
    pub(crate) unpack: unsafe fn(&[u8], Codes, &mut [u8]),
    pub(crate) norm: unsafe fn(&RowNorm<'_>, &[f32], &mut [f32]),
    pub(crate) reduce: unsafe fn(&[f32], Reduction) -> f32,
    pub(crate) binary: unsafe fn(Binary, &[f32], &[f32], &mut [f32]),
    pub(crate) activate: unsafe fn(Activation, &[f32], &mut [f32]),
    pub(crate) add: unsafe fn(&[f32], &[f32], &mut [f32]),
    pub(crate) peak_floats: unsafe fn(usize) -> (usize, f32),
    pub(crate) attention: unsafe fn(&AttentionTask<'_>, &mut attention::Scratch),
    pub(crate) attention_merge: unsafe fn(&AttentionTask<'_>, *const f32, &mut attention::Scratch),
    pub(crate) ranks: unsafe fn(&RankTask<'_>, &mut [f32], &mut attention::Scratch),
    pub(crate) scan: unsafe fn(&ScanTask),
    pub(crate) integer: IntegerKernels,
}

/// Row, group size, fields, where it goes: see [`integer::quantize`].
type QuantizeKernel = unsafe fn(&[f32], usize, usize, &PackedRow);

/// The kernels that differ between an instruction set and its extension by dot products of bytes.
pub(crate) struct IntegerKernels {
    /// Activation rows of a tile, more than the rows of `integer::few`.
    pub(crate) tile_rows: usize,
    pub(crate) quantize: QuantizeKernel,
    pub(crate) rows_2: unsafe fn(&IntegerRows<'_>, &mut integer::Scratch),
    pub(crate) rows_4: unsafe fn(&IntegerRows<'_>, &mut integer::Scratch),
    pub(crate) rows_8: unsafe fn(&IntegerRows<'_>, &mut integer::Scratch),
    pub(crate) peak_bytes: unsafe fn(usize) -> (usize, f32),
    pub(crate) byte_rows: unsafe fn(&IntegerRows<'_>, &mut integer::Scratch),
}

impl Kernels {
    /// The kernels of `set`, or `None` where this machine cannot run them.
    pub(crate) fn of(set: InstructionSet) -> Option<&'static Self> {
        if !InstructionSet::available().contains(&set) {
            return None;
        }
        match set {
            InstructionSet::Portable => Some(&portable::KERNELS),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => Some(&avx2::KERNELS),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::AvxVnni => Some(&avx_vnni::KERNELS),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => Some(&avx512::KERNELS),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Vnni => Some(&avx512_vnni::KERNELS),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => Some(&neon::KERNELS),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonDotprod => Some(&neon_dotprod::KERNELS),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::NeonI8mm => Some(&neon_i8mm::KERNELS),
            #[allow(unreachable_patterns, reason = "the remaining sets depend on the target")]
            _ => None,
        }
    }
}

/// Instantiates the integer kernels for an instruction set, `$rows` activation rows per tile.
macro_rules! integer_kernels {
    ($simd:ty, $rows:literal, [$($feature:meta)?]) => {{
        $(#[$feature])?
        unsafe fn quantize(row: &[f32], group_size: usize, fields: usize, to: &PackedRow) {
            // With the number of fields known, the permutation becomes shuffles.
            unsafe {
                match fields {
                    4 => integer::quantize::<$simd>(row, group_size, 4, to),
                    8 => integer::quantize::<$simd>(row, group_size, 8, to),
                    _ => integer::quantize::<$simd>(row, group_size, 16, to),
                }
            }
        }
        $(#[$feature])?
        unsafe fn rows_2(args: &IntegerRows<'_>, scratch: &mut integer::Scratch) {
            unsafe { integer::rows::<$simd, 2, $rows>(args, scratch) }
        }
        $(#[$feature])?
        unsafe fn rows_4(args: &IntegerRows<'_>, scratch: &mut integer::Scratch) {
            unsafe { integer::rows::<$simd, 4, $rows>(args, scratch) }
        }
        $(#[$feature])?
        unsafe fn rows_8(args: &IntegerRows<'_>, scratch: &mut integer::Scratch) {
            unsafe { integer::rows::<$simd, 8, $rows>(args, scratch) }
        }
        $(#[$feature])?
        unsafe fn byte_rows(args: &IntegerRows<'_>, scratch: &mut integer::Scratch) {
            unsafe { integer::byte_rows::<$simd, $rows>(args, scratch) }
        }
        $(#[$feature])?
        unsafe fn peak_bytes(rounds: usize) -> (usize, f32) {
            unsafe { elementwise::peak_bytes::<$simd>(rounds) }
        }
        IntegerKernels { tile_rows: $rows, quantize, rows_2, rows_4, rows_8, peak_bytes, byte_rows }
    }};
}

/// Instantiates every kernel for an instruction set. `$columns` activation rows by four weight rows is the largest tile
/// whose accumulators stay in registers.
macro_rules! kernels {
    ($module:ident, $simd:ty, $columns:literal, $rows:literal, [$($feature:meta)?]) => {
        #[allow(clippy::undocumented_unsafe_blocks, reason = "the table's contract is the bodies' contract")]
        mod $module {
            use super::*;
            #[allow(unused_imports)]
            use crate::simd;

            $(#[$feature])?
            unsafe fn quant_rows_2(args: &QuantRows<'_>) {
                unsafe { matmul::quant_rows::<$simd, 2>(args) }
            }
            $(#[$feature])?
            unsafe fn quant_rows_4(args: &QuantRows<'_>) {
                unsafe { matmul::quant_rows::<$simd, 4>(args) }
            }
            $(#[$feature])?
            unsafe fn quant_rows_8(args: &QuantRows<'_>) {
                unsafe { matmul::quant_rows::<$simd, 8>(args) }
            }
            $(#[$feature])?
            unsafe fn quant_unpack_2(args: &QuantRows<'_>, panel: *mut f32) {
                unsafe { matmul::quant_unpack::<$simd, 2>(args, panel) }
            }
            $(#[$feature])?
            unsafe fn quant_unpack_4(args: &QuantRows<'_>, panel: *mut f32) {
                unsafe { matmul::quant_unpack::<$simd, 4>(args, panel) }
            }
            $(#[$feature])?
            unsafe fn quant_unpack_8(args: &QuantRows<'_>, panel: *mut f32) {
                unsafe { matmul::quant_unpack::<$simd, 8>(args, panel) }
            }
            $(#[$feature])?
            unsafe fn dense_rows(args: &DenseRows<'_>) {
                unsafe { matmul::dense_rows::<$simd>(args) }
            }
            $(#[$feature])?
            unsafe fn dense_unpack(args: &DenseRows<'_>, panel: *mut f32) {
                unsafe { matmul::dense_unpack::<$simd>(args, panel) }
            }
            $(#[$feature])?
            unsafe fn tile(args: &Tile) {
                unsafe { matmul::tile::<$simd, $columns>(args) }
            }
            $(#[$feature])?
            unsafe fn widen(from: *const u8, element: Element, to: &mut [f32]) {
                unsafe { matmul::widen::<$simd>(from, element, to) }
            }
            $(#[$feature])?
            unsafe fn unpack(row: &[u8], codes: Codes, out: &mut [u8]) {
                unsafe { unpack::unpack::<$simd>(row, codes, out) }
            }
            $(#[$feature])?
            unsafe fn norm(norm: &RowNorm<'_>, x: &[f32], out: &mut [f32]) {
                unsafe { elementwise::norm::<$simd>(norm, x, out) }
            }
            $(#[$feature])?
            unsafe fn reduce(x: &[f32], reduction: Reduction) -> f32 {
                unsafe { elementwise::reduce::<$simd>(x, reduction) }
            }
            $(#[$feature])?
            unsafe fn binary(kind: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
                unsafe { elementwise::binary::<$simd>(kind, a, b, out) }
            }
            $(#[$feature])?
            unsafe fn activate(activation: Activation, x: &[f32], out: &mut [f32]) {
                unsafe { elementwise::activate::<$simd>(activation, x, out) }
            }
            $(#[$feature])?
            unsafe fn scan(task: &ScanTask) {
                unsafe { recurrence::scan::<$simd>(task) }
            }
            $(#[$feature])?
            unsafe fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
                unsafe { elementwise::add::<$simd>(a, b, out) }
            }
            $(#[$feature])?
            unsafe fn peak_floats(rounds: usize) -> (usize, f32) {
                unsafe { elementwise::peak_floats::<$simd>(rounds) }
            }
            $(#[$feature])?
            unsafe fn attention(task: &AttentionTask<'_>, scratch: &mut attention::Scratch) {
                unsafe { attention::attention::<$simd, $columns>(task, scratch) }
            }
            $(#[$feature])?
            unsafe fn attention_merge(
                task: &AttentionTask<'_>,
                partials: *const f32,
                scratch: &mut attention::Scratch,
            ) {
                unsafe { attention::merge::<$simd>(task, partials, scratch) }
            }
            $(#[$feature])?
            unsafe fn ranks(task: &RankTask<'_>, ranks: &mut [f32], scratch: &mut attention::Scratch) {
                unsafe { attention::ranks::<$simd, $columns>(task, ranks, scratch) }
            }

            pub(super) const KERNELS: Kernels = Kernels {
                lanes: <$simd as Simd>::LANES,
                tile_columns: $columns,
                quant_rows_2,
                quant_rows_4,
                quant_rows_8,
                quant_unpack_2,
                quant_unpack_4,
                quant_unpack_8,
                dense_rows,
                dense_unpack,
                tile,
                widen,
                unpack,
                norm,
                reduce,
                binary,
                activate,
                scan,
                add,
                peak_floats,
                attention,
                attention_merge,
                ranks,
                integer: integer_kernels!($simd, $rows, [$($feature)?]),
            };
        }
    };
}

/// Instantiates an extension of an instruction set, which differs in its integer kernels only.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! extension {
    ($module:ident, $base:ident, $simd:ty, $rows:literal, [$feature:meta]) => {
        #[allow(clippy::undocumented_unsafe_blocks, reason = "the table's contract is the bodies' contract")]
        mod $module {
            use super::*;
            use crate::simd;

            pub(super) const KERNELS: Kernels =
                Kernels { integer: integer_kernels!($simd, $rows, [$feature]), ..$base::KERNELS };
        }
    };
}

kernels!(portable, Portable, 2, 6, []);
#[cfg(target_arch = "x86_64")]
kernels!(avx2, simd::avx2::Avx2<false>, 2, 6, [target_feature(enable = "avx2,fma,f16c")]);
#[cfg(target_arch = "x86_64")]
extension!(avx_vnni, avx2, simd::avx2::Avx2<true>, 6, [target_feature(enable = "avx2,fma,f16c,avxvnni")]);
#[cfg(target_arch = "x86_64")]
kernels!(
    avx512,
    simd::avx512::Avx512<false>,
    6,
    8,
    [target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
);
#[cfg(target_arch = "x86_64")]
extension!(
    avx512_vnni,
    avx512,
    simd::avx512::Avx512<true>,
    8,
    [target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
);
#[cfg(target_arch = "aarch64")]
kernels!(neon, simd::neon::Neon<{ simd::neon::PLAIN }>, 6, 8, [target_feature(enable = "neon")]);
#[cfg(target_arch = "aarch64")]
extension!(
    neon_dotprod,
    neon,
    simd::neon::Neon<{ simd::neon::DOTPROD }>,
    8,
    [target_feature(enable = "neon,dotprod")]
);
#[cfg(target_arch = "aarch64")]
extension!(
    neon_i8mm,
    neon,
    simd::neon::Neon<{ simd::neon::I8MM }>,
    8,
    [target_feature(enable = "neon,i8mm")]
);
