//! The types of tensors that GGUF files have.

use std::fmt;

macro_rules! ggml_types {
    ($($id:literal $variant:ident $name:literal $block:literal $bytes:literal),+ $(,)?) => {
        /// The type of a tensor's elements in a GGUF file: a number each, or blocks of several with common scales.
        ///
        /// Names, numbers and sizes are those of ggml (`ggml.h`, `ggml-common.h`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, missing_docs, reason = "the names of ggml")]
        #[non_exhaustive]
        pub enum GgmlType {
            $($variant),+
        }

        impl GgmlType {
            /// Every type.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The number in the file.
            #[must_use]
            pub const fn id(self) -> u32 {
                match self { $(Self::$variant => $id),+ }
            }

            /// ggml's name, such as `Q4_K`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Elements of a block.
            #[must_use]
            pub const fn block_len(self) -> usize {
                match self { $(Self::$variant => $block),+ }
            }

            /// Bytes of a block.
            #[must_use]
            pub const fn block_bytes(self) -> usize {
                match self { $(Self::$variant => $bytes),+ }
            }

            /// The type of that number, if it is a known one.
            #[must_use]
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

ggml_types! {
    0 F32 "F32" 1 4,
    1 F16 "F16" 1 2,
    2 Q4_0 "Q4_0" 32 18,
    3 Q4_1 "Q4_1" 32 20,
    6 Q5_0 "Q5_0" 32 22,
    7 Q5_1 "Q5_1" 32 24,
    8 Q8_0 "Q8_0" 32 34,
    9 Q8_1 "Q8_1" 32 36,
    10 Q2_K "Q2_K" 256 84,
    11 Q3_K "Q3_K" 256 110,
    12 Q4_K "Q4_K" 256 144,
    13 Q5_K "Q5_K" 256 176,
    14 Q6_K "Q6_K" 256 210,
    15 Q8_K "Q8_K" 256 292,
    16 IQ2_XXS "IQ2_XXS" 256 66,
    17 IQ2_XS "IQ2_XS" 256 74,
    18 IQ3_XXS "IQ3_XXS" 256 98,
    19 IQ1_S "IQ1_S" 256 50,
    20 IQ4_NL "IQ4_NL" 32 18,
    21 IQ3_S "IQ3_S" 256 110,
    22 IQ2_S "IQ2_S" 256 82,
    23 IQ4_XS "IQ4_XS" 256 136,
    24 I8 "I8" 1 1,
    25 I16 "I16" 1 2,
    26 I32 "I32" 1 4,
    27 I64 "I64" 1 8,
    28 F64 "F64" 1 8,
    29 IQ1_M "IQ1_M" 256 56,
    30 Bf16 "BF16" 1 2,
    34 TQ1_0 "TQ1_0" 256 54,
    35 TQ2_0 "TQ2_0" 256 66,
    39 Mxfp4 "MXFP4" 32 17,
    40 Nvfp4 "NVFP4" 64 36,
    41 Q1_0 "Q1_0" 128 18,
    42 Q2_0 "Q2_0" 64 18,
}

impl GgmlType {
    /// Why there is no type of that number, if it once was one.
    pub(crate) const fn removed(id: u32) -> Option<&'static str> {
        match id {
            4 => Some("Q4_2, which ggml has given up"),
            5 => Some("Q4_3, which ggml has given up"),
            31..=33 => Some("Q4_0 in an order of one processor, which ggml has given up"),
            36..=38 => Some("IQ4_NL in an order of one processor, which ggml has given up"),
            _ => None,
        }
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
