//! Values of the template language: Python's, as far as templates can tell.
//!
//! Every container knows its depth and its weight (nodes and bytes, counted as if nothing were shared). Both are bounded
//! when it is built, so that comparing, printing, hashing and dropping a value can never run away, however cleverly a
//! template nests it. Nothing is mutable except namespaces, which live in the interpreter and are referred to by number:
//! a value can therefore never contain itself.

use std::cmp::Ordering;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use indexmap::{Equivalent, IndexMap};

use super::eval::{Fault, Outcome, fail};
use super::parse::Macro;

/// Containers may be nested this deep.
const MAX_DEPTH: u32 = 100;
/// The weight a single value may have.
const MAX_WEIGHT: u64 = 256 << 20;

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// With the reason, for the error of whoever uses it.
    Undefined(Arc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    List(Arc<Seq>),
    Tuple(Arc<Seq>),
    Dict(Arc<Dict>),
    Range(Range),
    /// What `dict.keys()`, `values()` and `items()` return.
    View(Arc<View>),
    /// A pair that `groupby` makes: a tuple with names.
    Group(Arc<Seq>),
    Namespace(usize),
    /// A macro and the number of its instance.
    Macro(usize, Arc<Macro>),
    Loop {
        slot: usize,
        serial: u64,
    },
    /// What lazy filters return: it can be iterated over once.
    Generator(usize),
    Cycler(usize),
    Joiner(usize),
    Function(&'static str),
    /// A method bound to its object.
    Method(Arc<(Value, Arc<str>)>),
}

#[derive(Debug, Default)]
pub(crate) struct Seq {
    pub(crate) items: Vec<Value>,
    weight: u64,
    depth: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Dict {
    pub(crate) map: IndexMap<Key, Value>,
    weight: u64,
    depth: u32,
}

/// Python's `range`: never made longer than a limit, so its length fits.
#[derive(Clone, Debug)]
pub(crate) struct Range(Arc<RangeParts>);

#[derive(Debug)]
pub(crate) struct RangeParts {
    pub(crate) start: i128,
    pub(crate) stop: i128,
    pub(crate) step: i128,
    pub(crate) len: usize,
}

impl Range {
    /// `None` when there would be more than `limit` numbers; `step` is not 0.
    pub(crate) fn new(start: i128, stop: i128, step: i128, limit: usize) -> Option<Self> {
        let span = if step < 0 { start.saturating_sub(stop) } else { stop.saturating_sub(start) };
        let len = if span <= 0 { 0 } else { (span as u128 - 1) / step.unsigned_abs() + 1 };
        let len = usize::try_from(len).ok().filter(|len| *len <= limit)?;
        Some(Self(Arc::new(RangeParts { start, stop, step, len })))
    }

    pub(crate) fn parts(&self) -> &RangeParts {
        &self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len
    }

    /// The number at a position below the length.
    pub(crate) fn at(&self, position: usize) -> Value {
        Value::Int(self.0.start + position as i128 * self.0.step)
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = Value> + '_ {
        (0..self.len()).map(|position| self.at(position))
    }

    /// Where in the range a number stands.
    pub(crate) fn position(&self, value: &Value) -> Option<usize> {
        let number = match value {
            Value::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => *number as i128,
            other => other.as_int()?,
        };
        let distance = number.checked_sub(self.0.start)?;
        let position = distance.checked_div(self.0.step).filter(|_| distance % self.0.step == 0)?;
        usize::try_from(position).ok().filter(|position| *position < self.len())
    }

    /// As in Python: ranges of the same numbers are equal.
    fn equals(&self, other: &Self) -> bool {
        let (a, b) = (self.parts(), other.parts());
        a.len == b.len && (a.len == 0 || a.start == b.start && (a.len == 1 || a.step == b.step))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ViewKind {
    Keys,
    Values,
    Items,
}

/// A view of a dict. Dicts never change, so it is the dict and what to show of it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) kind: ViewKind,
    pub(crate) dict: Arc<Dict>,
}

impl View {
    pub(crate) fn values(&self) -> Outcome<Vec<Value>> {
        let entries = self.dict.map.iter();
        match self.kind {
            ViewKind::Keys => Ok(entries.map(|(key, _)| key.value()).collect()),
            ViewKind::Values => Ok(entries.map(|(_, value)| value.clone()).collect()),
            ViewKind::Items => {
                entries.map(|(key, value)| Value::tuple(vec![key.value(), value.clone()])).collect()
            }
        }
    }

    /// Views of keys and of items are sets; views of values are equal to themselves only.
    fn equals(&self, other: &Self) -> bool {
        let (a, b) = (&self.dict.map, &other.dict.map);
        match (self.kind, other.kind) {
            (ViewKind::Values, _) | (_, ViewKind::Values) => false,
            (ViewKind::Keys, ViewKind::Keys) => a.len() == b.len() && a.keys().all(|key| b.contains_key(key)),
            (ViewKind::Items, ViewKind::Items) => {
                a.len() == b.len()
                    && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| value.equals(other)))
            }
            // No key is a pair.
            _ => a.is_empty() && b.is_empty(),
        }
    }
}

/// What can be a key of a dict. As in Python, `True` and `1.0` are the same key as 1.
#[derive(Clone, Debug)]
pub(crate) enum Key {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    /// The members as keys, and the tuple itself.
    Tuple(Arc<[Key]>, Arc<Seq>),
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Tuple(a, _), Self::Tuple(b, _)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b,
            _ => matches!((self.integer(), other.integer()), (Some(a), Some(b)) if a == b),
        }
    }
}

// Not a number is no key equal to itself, as in Python: it is never found again.
impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::None => 0u8.hash(state),
            // Exactly as a plain str, so that a str finds it.
            Self::Str(text) => text.as_ref().hash(state),
            Self::Tuple(items, _) => items.hash(state),
            Self::Bool(_) | Self::Int(_) | Self::Float(_) => match (self.integer(), self) {
                (Some(number), _) => number.hash(state),
                (None, Self::Float(number)) => number.to_bits().hash(state),
                (None, _) => 0u8.hash(state),
            },
        }
    }
}

impl Equivalent<Key> for str {
    fn equivalent(&self, key: &Key) -> bool {
        matches!(key, Key::Str(text) if text.as_ref() == self)
    }
}

impl Key {
    pub(crate) fn new(value: &Value) -> Outcome<Self> {
        Ok(match value {
            Value::None => Self::None,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Int(number) => Self::Int(*number),
            Value::Float(number) => Self::Float(*number),
            Value::Str(text) => Self::Str(text.clone()),
            Value::Tuple(seq) | Value::Group(seq) => {
                let keys = seq.items.iter().map(Self::new).collect::<Outcome<_>>()?;
                Self::Tuple(keys, seq.clone())
            }
            Value::Undefined(reason) => return fail(reason.as_ref()),
            other => return fail(format!("{} cannot be a key of a dict", other.type_name())),
        })
    }

    /// The whole number that this key is, however it is written.
    fn integer(&self) -> Option<i128> {
        match self {
            Self::Bool(flag) => Some((*flag).into()),
            Self::Int(number) => Some(*number),
            Self::Float(number) if number.fract() == 0.0 && number.abs() < 1e38 => Some(*number as i128),
            _ => None,
        }
    }

    fn weight(&self) -> u64 {
        match self {
            Self::Str(text) => text.len() as u64 + 1,
            Self::Tuple(_, seq) => seq.weight,
            _ => 1,
        }
    }

    pub(crate) fn value(&self) -> Value {
        match self {
            Self::None => Value::None,
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Int(number) => Value::Int(*number),
            Self::Float(number) => Value::Float(*number),
            Self::Str(text) => Value::Str(text.clone()),
            Self::Tuple(_, seq) => Value::Tuple(seq.clone()),
        }
    }
}

/// Checks the bounds of a container with these members.
fn measure<'a>(members: impl Iterator<Item = &'a Value>) -> Outcome<(u64, u32)> {
    let (mut weight, mut depth) = (1u64, 0);
    for member in members {
        weight = weight.saturating_add(member.weight());
        depth = depth.max(member.depth());
    }
    if depth >= MAX_DEPTH {
        return fail(format!("values are nested more than {MAX_DEPTH} levels deep"));
    }
    if weight > MAX_WEIGHT {
        return Err(Fault::Limit("bytes in one value", MAX_WEIGHT));
    }
    Ok((weight, depth + 1))
}

impl Value {
    pub(crate) fn str(text: impl Into<Arc<str>>) -> Self {
        Self::Str(text.into())
    }

    pub(crate) fn list(items: Vec<Value>) -> Outcome<Self> {
        let (weight, depth) = measure(items.iter())?;
        Ok(Self::List(Arc::new(Seq { items, weight, depth })))
    }

    pub(crate) fn tuple(items: Vec<Value>) -> Outcome<Self> {
        let (weight, depth) = measure(items.iter())?;
        Ok(Self::Tuple(Arc::new(Seq { items, weight, depth })))
    }

    /// What `groupby` makes: the value that the items have in common, and the items.
    pub(crate) fn group(grouper: Value, list: Value) -> Outcome<Self> {
        let items = vec![grouper, list];
        let (weight, depth) = measure(items.iter())?;
        Ok(Self::Group(Arc::new(Seq { items, weight, depth })))
    }

    pub(crate) fn dict(map: IndexMap<Key, Value>) -> Outcome<Self> {
        let (weight, depth) = measure(map.values())?;
        let keys = map.keys().map(Key::weight).fold(0, u64::saturating_add);
        Ok(Self::Dict(Arc::new(Dict { map, weight: weight.saturating_add(keys), depth })))
    }

    /// Converts JSON; fails when it is nested too deeply.
    pub(crate) fn from_json(json: &serde_json::Value) -> Outcome<Self> {
        Self::from_json_at(json, 0)
    }

    fn from_json_at(json: &serde_json::Value, depth: u32) -> Outcome<Self> {
        if depth > MAX_DEPTH {
            return fail(format!("JSON is nested more than {MAX_DEPTH} levels deep"));
        }
        Ok(match json {
            serde_json::Value::Null => Self::None,
            serde_json::Value::Bool(flag) => Self::Bool(*flag),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), _, _) => Self::Int(number.into()),
                (_, Some(number), _) => Self::Int(number.into()),
                (_, _, number) => Self::Float(number.unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::str(text.as_str()),
            serde_json::Value::Array(items) => Self::list(
                items.iter().map(|item| Self::from_json_at(item, depth + 1)).collect::<Outcome<_>>()?,
            )?,
            serde_json::Value::Object(map) => Self::object_at(map, depth)?,
        })
    }

    fn object_at(map: &serde_json::Map<String, serde_json::Value>, depth: u32) -> Outcome<Self> {
        let entries = map
            .iter()
            .map(|(key, value)| Ok((Key::Str(key.as_str().into()), Self::from_json_at(value, depth + 1)?)));
        Self::dict(entries.collect::<Outcome<_>>()?)
    }

    pub(crate) fn undefined(reason: impl Into<Arc<str>>) -> Self {
        Self::Undefined(reason.into())
    }

    /// Python's name of the type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "undefined",
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::View(view) => match view.kind {
                ViewKind::Keys => "dict_keys",
                ViewKind::Values => "dict_values",
                ViewKind::Items => "dict_items",
            },
            Self::Group(_) => "tuple",
            Self::Namespace(_) => "namespace",
            Self::Macro(..) => "macro",
            Self::Loop { .. } => "loop",
            Self::Generator(_) => "generator",
            Self::Cycler(_) => "cycler",
            Self::Joiner(_) => "joiner",
            Self::Function(_) => "function",
            Self::Method(_) => "method",
        }
    }

    /// Nodes and bytes, shared ones counted each time.
    pub(crate) fn weight(&self) -> u64 {
        match self {
            Self::Str(text) => text.len() as u64 + 1,
            Self::List(seq) | Self::Tuple(seq) | Self::Group(seq) => seq.weight,
            Self::Dict(dict) => dict.weight,
            Self::View(view) => view.dict.weight.saturating_add(1),
            Self::Method(bound) => bound.0.weight().saturating_add(1),
            _ => 1,
        }
    }

    fn depth(&self) -> u32 {
        match self {
            Self::List(seq) | Self::Tuple(seq) | Self::Group(seq) => seq.depth,
            Self::Dict(dict) => dict.depth,
            // Items are pairs, which are made when they are asked for.
            Self::View(view) => view.dict.depth + 2,
            Self::Method(bound) => bound.0.depth() + 1,
            _ => 0,
        }
    }

    /// The type because of which Python refuses this value as a key.
    pub(crate) fn unhashable(&self) -> Option<&'static str> {
        match self {
            Self::List(_) | Self::Dict(_) => Some(self.type_name()),
            Self::View(view) if view.kind != ViewKind::Values => Some(self.type_name()),
            Self::Tuple(seq) | Self::Group(seq) => seq.items.iter().find_map(Self::unhashable),
            _ => None,
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(flag) => *flag,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(seq) | Self::Tuple(seq) | Self::Group(seq) => !seq.items.is_empty(),
            Self::Dict(dict) => !dict.map.is_empty(),
            Self::View(view) => !view.dict.map.is_empty(),
            Self::Range(range) => range.len() > 0,
            _ => true,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// An integer; booleans count, as in Python.
    pub(crate) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bool(flag) => Some((*flag).into()),
            _ => None,
        }
    }

    pub(crate) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            other => other.as_int().map(|number| number as f64),
        }
    }

    pub(crate) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// Python's `==`.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::List(a), Self::List(b))
            | (Self::Tuple(a) | Self::Group(a), Self::Tuple(b) | Self::Group(b)) => {
                Arc::ptr_eq(a, b)
                    || a.items.len() == b.items.len()
                        && a.items.iter().zip(&b.items).all(|(a, b)| a.equals(b))
            }
            (Self::Dict(a), Self::Dict(b)) => {
                Arc::ptr_eq(a, b)
                    || a.map.len() == b.map.len()
                        && a.map
                            .iter()
                            .all(|(key, value)| b.map.get(key).is_some_and(|other| value.equals(other)))
            }
            (Self::Range(a), Self::Range(b)) => a.equals(b),
            (Self::View(a), Self::View(b)) => Arc::ptr_eq(a, b) || a.equals(b),
            (Self::Namespace(a), Self::Namespace(b))
            | (Self::Macro(a, _), Self::Macro(b, _))
            | (Self::Generator(a), Self::Generator(b))
            | (Self::Cycler(a), Self::Cycler(b))
            | (Self::Joiner(a), Self::Joiner(b)) => a == b,
            (Self::Function(a), Self::Function(b)) => a == b,
            _ => match (self.as_int(), other.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => matches!((self.as_float(), other.as_float()), (Some(a), Some(b)) if a == b),
            },
        }
    }

    /// Python's ordering; an error between types that have none.
    pub(crate) fn compare(&self, other: &Self) -> Outcome<Ordering> {
        match (self, other) {
            (Self::Str(a), Self::Str(b)) => Ok(a.cmp(b)),
            (Self::List(a), Self::List(b))
            | (Self::Tuple(a) | Self::Group(a), Self::Tuple(b) | Self::Group(b)) => {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b) {
                        return a.compare(b);
                    }
                }
                Ok(a.items.len().cmp(&b.items.len()))
            }
            (Self::Undefined(reason), _) | (_, Self::Undefined(reason)) => fail(reason.as_ref()),
            _ => {
                if let (Some(a), Some(b)) = (self.as_int(), other.as_int()) {
                    return Ok(a.cmp(&b));
                }
                match (self.as_float(), other.as_float()) {
                    (Some(a), Some(b)) => Ok(a.partial_cmp(&b).unwrap_or(Ordering::Greater)),
                    _ => fail(format!("{} and {} cannot be ordered", self.type_name(), other.type_name())),
                }
            }
        }
    }

    /// Appends Python's `str(value)`.
    pub(crate) fn print(&self, out: &mut String) {
        match self {
            Self::Undefined(_) => {}
            Self::Str(text) => out.push_str(text),
            other => other.repr(out),
        }
    }

    /// Appends Python's `repr(value)`.
    pub(crate) fn repr(&self, out: &mut String) {
        match self {
            Self::Undefined(_) => out.push_str("Undefined"),
            Self::None => out.push_str("None"),
            Self::Bool(flag) => out.push_str(if *flag { "True" } else { "False" }),
            Self::Int(number) => _ = write!(out, "{number}"),
            Self::Float(number) => float_repr(*number, out),
            Self::Str(text) => str_repr(text, out),
            Self::List(seq) => sequence(out, "[", "]", &seq.items),
            Self::Tuple(seq) if seq.items.len() == 1 => sequence(out, "(", ",)", &seq.items),
            Self::Tuple(seq) | Self::Group(seq) => sequence(out, "(", ")", &seq.items),
            Self::Range(range) => {
                let RangeParts { start, stop, step, .. } = range.parts();
                _ = match step {
                    1 => write!(out, "range({start}, {stop})"),
                    _ => write!(out, "range({start}, {stop}, {step})"),
                };
            }
            Self::View(view) => {
                _ = write!(out, "{}([", self.type_name());
                for (number, (key, value)) in view.dict.map.iter().enumerate() {
                    if number > 0 {
                        out.push_str(", ");
                    }
                    match view.kind {
                        ViewKind::Keys => key.value().repr(out),
                        ViewKind::Values => value.repr(out),
                        ViewKind::Items => {
                            out.push('(');
                            key.value().repr(out);
                            out.push_str(", ");
                            value.repr(out);
                            out.push(')');
                        }
                    }
                }
                out.push_str("])");
            }
            Self::Dict(dict) => {
                out.push('{');
                for (number, (key, value)) in dict.map.iter().enumerate() {
                    if number > 0 {
                        out.push_str(", ");
                    }
                    key.value().repr(out);
                    out.push_str(": ");
                    value.repr(out);
                }
                out.push('}');
            }
            Self::Namespace(_) => out.push_str("<Namespace {...}>"),
            Self::Macro(_, definition) => match &definition.name {
                Some(name) => {
                    out.push_str("<Macro ");
                    str_repr(name, out);
                    out.push('>');
                }
                None => out.push_str("<Macro anonymous>"),
            },
            Self::Loop { .. } => out.push_str("<LoopContext>"),
            Self::Generator(_) => out.push_str("<generator object>"),
            Self::Cycler(_) => out.push_str("<Cycler>"),
            Self::Joiner(_) => out.push_str("<Joiner>"),
            Self::Function(name) => _ = write!(out, "<function {name}>"),
            Self::Method(bound) => _ = write!(out, "<method {}>", bound.1),
        }
    }
}

fn sequence(out: &mut String, open: &str, close: &str, items: &[Value]) {
    out.push_str(open);
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            out.push_str(", ");
        }
        item.repr(out);
    }
    out.push_str(close);
}

/// Python's shortest representation of a float.
pub(crate) fn float_repr(number: f64, out: &mut String) {
    if number.is_nan() {
        return out.push_str("nan");
    }
    if number.is_infinite() {
        return out.push_str(if number > 0.0 { "inf" } else { "-inf" });
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number == 0.0 || (-4..16).contains(&exponent) {
        let start = out.len();
        _ = write!(out, "{number}");
        if !out[start..].contains('.') {
            out.push_str(".0");
        }
    } else {
        _ = write!(out, "{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
}

/// Python's `str.isprintable` for one character, without its tables of unassigned code points.
pub(crate) fn is_printable(c: char) -> bool {
    !(c.is_control() || (c.is_whitespace() && c != ' ') || c == '\u{200b}' || c == '\u{feff}')
}

fn str_repr(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if !is_printable(c) => {
                _ = match c as u32 {
                    code @ ..=0xff => write!(out, "\\x{code:02x}"),
                    code @ ..=0xffff => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// The layout of `json.dumps`.
pub(crate) struct JsonStyle<'a> {
    pub(crate) indent: Option<&'a str>,
    pub(crate) item_separator: &'a str,
    pub(crate) key_separator: &'a str,
    pub(crate) ensure_ascii: bool,
    pub(crate) sort_keys: bool,
}

impl JsonStyle<'_> {
    /// What `json.dumps(value, ensure_ascii=False)` writes.
    pub(crate) const PYTHON: JsonStyle<'static> = JsonStyle {
        indent: None,
        item_separator: ", ",
        key_separator: ": ",
        ensure_ascii: false,
        sort_keys: false,
    };

    /// Appends Python's `json.dumps(value)`. Stops with an error once `out` exceeds `limit` bytes.
    pub(crate) fn write(&self, value: &Value, out: &mut String, level: usize, limit: usize) -> Outcome<()> {
        if out.len() > limit {
            return Err(Fault::Limit("bytes of text", limit as u64));
        }
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Value::Int(number) => _ = write!(out, "{number}"),
            Value::Float(number) => json_float(*number, out),
            Value::Str(text) => self.string(text, out),
            Value::List(seq) | Value::Tuple(seq) | Value::Group(seq) => {
                out.push('[');
                for (number, item) in seq.items.iter().enumerate() {
                    self.separate(number, out, level + 1);
                    self.write(item, out, level + 1, limit)?;
                }
                self.close(seq.items.is_empty(), out, level);
                out.push(']');
            }
            Value::Dict(dict) => {
                out.push('{');
                let mut entries: Vec<_> = dict.map.iter().collect();
                if self.sort_keys {
                    let mut fault = None;
                    entries.sort_by(|(a, _), (b, _)| {
                        a.value().compare(&b.value()).unwrap_or_else(|error| {
                            fault = Some(error);
                            Ordering::Equal
                        })
                    });
                    if let Some(fault) = fault {
                        return Err(fault);
                    }
                }
                for (number, (key, item)) in entries.into_iter().enumerate() {
                    self.separate(number, out, level + 1);
                    match key {
                        Key::Str(text) => self.string(text, out),
                        Key::Tuple(..) => return fail("tojson: a tuple cannot be a key"),
                        other => {
                            out.push('"');
                            self.write(&other.value(), out, level, limit)?;
                            out.push('"');
                        }
                    }
                    out.push_str(self.key_separator);
                    self.write(item, out, level + 1, limit)?;
                }
                self.close(dict.map.is_empty(), out, level);
                out.push('}');
            }
            Value::Undefined(reason) => return fail(format!("tojson: {reason}")),
            other => return fail(format!("tojson: {} cannot be written as JSON", other.type_name())),
        }
        Ok(())
    }

    fn separate(&self, number: usize, out: &mut String, level: usize) {
        if number > 0 {
            out.push_str(self.item_separator);
        }
        self.newline(out, level);
    }

    fn close(&self, empty: bool, out: &mut String, level: usize) {
        if !empty {
            self.newline(out, level);
        }
    }

    fn newline(&self, out: &mut String, level: usize) {
        if let Some(indent) = self.indent {
            out.push('\n');
            for _ in 0..level {
                out.push_str(indent);
            }
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if (c as u32) < 0x20 => _ = write!(out, "\\u{:04x}", c as u32),
                c if self.ensure_ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn json_float(number: f64, out: &mut String) {
    if number.is_nan() {
        out.push_str("NaN");
    } else if number.is_infinite() {
        out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
    } else {
        float_repr(number, out);
    }
}
