//! Metadata values.

use std::fmt;

/// A value of a GGUF file's metadata.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum GgufValue {
    /// An unsigned integer of 8 to 64 bits.
    Unsigned(u64),
    /// A signed integer of 8 to 64 bits.
    Signed(i64),
    /// A number of single precision.
    F32(f32),
    /// A number of double precision.
    F64(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    String(String),
    /// A list of strings.
    Strings(GgufStrings),
    /// A list of numbers or of truth values.
    Numbers(GgufNumbers),
    /// A list of lists.
    Arrays(Vec<Self>),
}

impl GgufValue {
    /// What the value is, for messages: "a string", "a list of 3 lists", …
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Unsigned(value) => value.to_string(),
            Self::Signed(value) => value.to_string(),
            Self::F32(value) => value.to_string(),
            Self::F64(value) => value.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::String(_) => "a string".to_owned(),
            Self::Strings(list) => format!("a list of {} strings", list.len()),
            Self::Numbers(list) => format!("a list of {} values of type {}", list.len(), list.kind.name()),
            Self::Arrays(lists) => format!("a list of {} lists", lists.len()),
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is an integer that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Unsigned(value) => i64::try_from(value).ok(),
            Self::Signed(value) => Some(value),
            _ => None,
        }
    }

    /// The number, if it is an integer that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The number, if it is one; integers are rounded to the nearest.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Unsigned(value) => Some(value as f64),
            Self::Signed(value) => Some(value as f64),
            Self::F32(value) => Some(f64::from(value)),
            Self::F64(value) => Some(value),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }
}

/// The type of a metadata value, as the file numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    pub(crate) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// The fewest bytes that a value takes: all of a number, the length of a string, type and length of an array.
    pub(crate) const fn least_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

/// A list of strings: the text of all, and where each ends.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct GgufStrings {
    text: String,
    ends: Vec<usize>,
}

impl GgufStrings {
    pub(crate) fn with_capacity(strings: usize) -> Self {
        Self { text: String::new(), ends: Vec::with_capacity(strings) }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at that place.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start..end)
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }
}

impl fmt::Debug for GgufStrings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().take(8)).finish()
    }
}

/// A list of numbers of one type, or of truth values.
#[derive(Clone, PartialEq, Eq)]
pub struct GgufNumbers {
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
}

impl GgufNumbers {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / self.kind.least_bytes()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether they are integers.
    #[must_use]
    pub fn are_integers(&self) -> bool {
        !matches!(self.kind, Kind::F32 | Kind::F64 | Kind::Bool)
    }

    /// All values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = GgufValue> + '_ {
        self.bytes.chunks_exact(self.kind.least_bytes()).map(|bytes| {
            // Numbers that the file has are never missing: `chunks_exact` gives as many bytes as the kind takes.
            scalar(self.kind, bytes).unwrap_or(GgufValue::Bool(false))
        })
    }
}

impl fmt::Debug for GgufNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().take(8)).finish()
    }
}

/// A number or a truth value from its bytes; `None` for another kind or number of bytes.
pub(crate) fn scalar(kind: Kind, bytes: &[u8]) -> Option<GgufValue> {
    macro_rules! number {
        ($type:ty, $variant:ident) => {
            GgufValue::$variant(<$type>::from_le_bytes(bytes.try_into().ok()?).into())
        };
    }
    Some(match kind {
        Kind::U8 => number!(u8, Unsigned),
        Kind::I8 => number!(i8, Signed),
        Kind::U16 => number!(u16, Unsigned),
        Kind::I16 => number!(i16, Signed),
        Kind::U32 => number!(u32, Unsigned),
        Kind::I32 => number!(i32, Signed),
        Kind::F32 => number!(f32, F32),
        Kind::U64 => number!(u64, Unsigned),
        Kind::I64 => number!(i64, Signed),
        Kind::F64 => number!(f64, F64),
        Kind::Bool => GgufValue::Bool(*bytes.first()? != 0),
        Kind::String | Kind::Array => return None,
    })
}
