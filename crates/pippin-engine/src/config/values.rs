//! Values that can be spelled in more than one way.

use std::fmt;
use std::time::Duration;

use toml::de::DeValue;

/// The most models that one list of names may hold.
const MAX_LIST: usize = 256;

/// The memory that loaded models may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryBudget {
    /// So many bytes.
    Bytes(u64),
    /// A share, from 1 to 100 percent, of what the machine or the GPU has free at the start.
    Percent(u8),
}

impl MemoryBudget {
    /// The budget in bytes where `free` bytes are free at the start.
    pub fn bytes(self, free: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                u64::try_from(u128::from(free) * u128::from(percent) / 100).unwrap_or(free)
            }
        }
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        match text.trim().strip_suffix('%') {
            Some(number) => {
                let percent = number.trim().parse().ok()?;
                (1..=100).contains(&percent).then_some(Self::Percent(percent))
            }
            None => read_bytes(text).map(Self::Bytes),
        }
    }
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::Percent(crate::memory::SHARE)
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => {
                let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)];
                match units.into_iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size)) {
                    Some((unit, size)) => write!(f, "{} {unit}", bytes / size),
                    None => write!(f, "{bytes}"),
                }
            }
        }
    }
}

/// How long a model stays loaded after its last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// This long; zero unloads it at once.
    For(Duration),
    /// Until its room is needed.
    Forever,
}

impl KeepAlive {
    /// The time, unless it is without end.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::For(duration) => Some(duration),
            Self::Forever => None,
        }
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("forever") || text == "-1" {
            return Some(Self::Forever);
        }
        let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..split].parse().ok()?;
        let seconds = match text[split..].trim() {
            "" | "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        // A century is as good as for ever, and leaves room to add it to a point in time.
        let duration = number.checked_mul(seconds).filter(|seconds| *seconds <= 3_155_760_000)?;
        Some(Self::For(Duration::from_secs(duration)))
    }
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self::For(Duration::from_secs(300))
    }
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::For(duration) => match duration.as_secs() {
                0 => f.write_str("0"),
                seconds if seconds % 3600 == 0 => write!(f, "{}h", seconds / 3600),
                seconds if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
                seconds => write!(f, "{seconds}s"),
            },
        }
    }
}

/// A value before it has a meaning.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    /// Of a variable or a flag: anything, spelled out.
    Word(String),
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Raw>),
    /// What no setting takes: tables, dates, fractions.
    Other,
}

impl From<&DeValue<'_>> for Raw {
    fn from(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.as_ref().to_owned()),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).map_or(Self::Other, Self::Integer)
            }
            DeValue::Boolean(value) => Self::Boolean(*value),
            DeValue::Array(items) => {
                Self::List(items.iter().map(|item| Self::from(item.get_ref())).collect())
            }
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::List(_) => f.write_str("a list"),
            Self::Other => f.write_str("something else"),
        }
    }
}

impl Raw {
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Word(text) | Self::Text(text) if !text.is_empty() && !text.contains('\0') => {
                Some(text.clone())
            }
            _ => None,
        }
    }

    pub(super) fn integer(&self, minimum: usize, maximum: usize) -> Option<usize> {
        let value = match self {
            Self::Word(text) => text.trim().parse().ok()?,
            Self::Integer(value) => usize::try_from(*value).ok()?,
            _ => return None,
        };
        (minimum..=maximum).contains(&value).then_some(value)
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            Self::Word(text) => match text.trim().to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" | "y" | "t" => Some(true),
                "0" | "false" | "no" | "off" | "n" | "f" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn list(&self) -> Option<Vec<String>> {
        let Self::List(items) = self else { return None };
        // An empty part of a variable, `a,,b` or a comma at the end, names nothing.
        let items = items.iter().filter(|item| **item != Self::Word(String::new()));
        let names: Vec<String> = items.map(Self::text).collect::<Option<_>>()?;
        (names.len() <= MAX_LIST).then_some(names)
    }

    pub(super) fn keep_alive(&self) -> Option<KeepAlive> {
        match self {
            Self::Integer(seconds) => KeepAlive::read(&seconds.to_string()),
            other => KeepAlive::read(&other.text()?),
        }
    }

    pub(super) fn memory_budget(&self) -> Option<MemoryBudget> {
        match self {
            Self::Integer(bytes) => {
                u64::try_from(*bytes).ok().filter(|bytes| *bytes > 0).map(MemoryBudget::Bytes)
            }
            other => MemoryBudget::read(&other.text()?),
        }
    }
}

/// Reads a size: `12 GB`, `512MiB`, `1.5GB`, or bytes.
pub(super) fn read_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split =
        text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let unit: f64 = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = text[..split].parse().ok()?;
    let bytes = (number * unit).round();
    // Far above any machine's memory, and below where the conversion would lose bytes.
    (1.0..=1e18).contains(&bytes).then_some(bytes as u64)
}
