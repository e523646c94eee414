//! What the interpreter does with values: items, attributes, slices, operators.

use std::sync::Arc;

use indexmap::IndexMap;

use super::builtins;
use super::eval::{Args, Fault, Interpreter, Outcome, check_namespace_name, describe, fail};
use super::format;
use super::parse::{Comparison, Name, Operator};
use super::value::{Key, Range, RangeParts, Value, ViewKind};

impl Interpreter {
    /// The items of an iterable.
    pub(crate) fn iterate(&mut self, value: &Value) -> Outcome<Vec<Value>> {
        let count = match value {
            Value::List(seq) | Value::Tuple(seq) | Value::Group(seq) => seq.items.len(),
            Value::Dict(dict) => dict.map.len(),
            // An item is a pair, made now.
            Value::View(view) => view.dict.map.len() * if view.kind == ViewKind::Items { 4 } else { 1 },
            Value::Range(range) => range.len(),
            Value::Generator(index) => self.generators[*index].items.len(),
            Value::Str(text) => text.len(),
            Value::Undefined(_) => 0,
            other => return fail(format!("{} cannot be iterated over", describe(other))),
        };
        self.reserve(count as u64 * size_of::<Value>() as u64)?;
        Ok(match value {
            Value::List(seq) | Value::Tuple(seq) | Value::Group(seq) => seq.items.clone(),
            Value::Dict(dict) => dict.map.keys().map(Key::value).collect(),
            Value::View(view) => view.values()?,
            Value::Range(range) => range.values().collect(),
            Value::Generator(index) => {
                let rest = std::mem::take(&mut self.generators[*index]);
                match rest.fault {
                    Some(fault) => return Err(fault),
                    None => rest.items.collect(),
                }
            }
            Value::Str(text) => {
                text.chars().map(|c| Value::str(c.encode_utf8(&mut [0; 4]) as &str)).collect()
            }
            _ => Vec::new(),
        })
    }

    pub(crate) fn namespace(&mut self, entries: IndexMap<Key, Value>) -> Outcome<Value> {
        for key in entries.keys() {
            if let Key::Str(name) = key {
                check_namespace_name(name)?;
            }
        }
        self.reserve(size_of::<IndexMap<Key, Value>>() as u64)?;
        self.namespaces.push(entries);
        Ok(Value::Namespace(self.namespaces.len() - 1))
    }

    /// `object.name`: Python's attributes (methods) first, then items, as Jinja does it.
    pub(crate) fn attribute(&mut self, object: &Value, name: &Name) -> Outcome<Value> {
        if builtins::has_method(object, name) {
            return Ok(Value::Method(Arc::new((object.clone(), name.clone()))));
        }
        if builtins::changes(object, name) {
            let kind = object.type_name();
            return Ok(Value::undefined(format!(
                "access to attribute '{name}' of '{kind}' object is unsafe"
            )));
        }
        let found = match object {
            Value::Dict(dict) => dict.map.get(name.as_ref()).cloned(),
            Value::Namespace(index) => self.namespaces[*index].get(name.as_ref()).cloned(),
            Value::Loop { slot, serial } => self.loop_attribute(*slot, *serial, name)?,
            Value::Macro(_, definition) => {
                let has = |name: &str| definition.parameters.iter().any(|other| other.as_ref() == name);
                match name.as_ref() {
                    "name" => Some(definition.name.clone().map_or(Value::None, Value::Str)),
                    "arguments" => {
                        Some(Value::tuple(definition.parameters.iter().cloned().map(Value::Str).collect())?)
                    }
                    "catch_kwargs" => Some(Value::Bool(definition.special.kwargs && !has("kwargs"))),
                    "catch_varargs" => Some(Value::Bool(definition.special.varargs && !has("varargs"))),
                    "caller" => Some(Value::Bool(definition.special.caller)),
                    _ => None,
                }
            }
            Value::Range(range) => {
                let RangeParts { start, stop, step, .. } = range.parts();
                match name.as_ref() {
                    "start" => Some(Value::Int(*start)),
                    "stop" => Some(Value::Int(*stop)),
                    "step" => Some(Value::Int(*step)),
                    _ => None,
                }
            }
            Value::View(view) if name.as_ref() == "mapping" => Some(Value::Dict(view.dict.clone())),
            Value::Group(seq) => match name.as_ref() {
                "grouper" => seq.items.first().cloned(),
                "list" => seq.items.get(1).cloned(),
                _ => None,
            },
            Value::Cycler(index) => {
                let cycler = &self.cyclers[*index];
                match name.as_ref() {
                    "current" => cycler.items.get(cycler.position).cloned(),
                    "pos" => Some(Value::Int(cycler.position as i128)),
                    "items" => {
                        let items = cycler.items.clone();
                        self.reserve(items.len() as u64 * size_of::<Value>() as u64)?;
                        Some(Value::tuple(items)?)
                    }
                    _ => None,
                }
            }
            Value::Joiner(index) => match name.as_ref() {
                "sep" => Some(self.joiners[*index].separator.clone()),
                "used" => Some(Value::Bool(self.joiners[*index].used)),
                _ => None,
            },
            Value::Undefined(reason) => return fail(reason.as_ref()),
            _ => None,
        };
        Ok(found.unwrap_or_else(|| {
            Value::undefined(format!("'{} object' has no attribute '{name}'", object.type_name()))
        }))
    }

    fn loop_attribute(&mut self, slot: usize, serial: u64, name: &str) -> Outcome<Option<Value>> {
        let Some(state) = self.loops.get(slot).filter(|state| state.serial == serial) else {
            return fail("this loop has ended");
        };
        let index = state.index;
        // What comes after the present item is asked of a generator only where it matters.
        match name {
            "revindex" | "revindex0" | "length" => _ = self.has_item(slot, usize::MAX)?,
            "last" | "nextitem" => _ = self.has_item(slot, index + 1)?,
            _ => {}
        }
        let state = &self.loops[slot];
        let count = state.items.get().len();
        let number = |number: usize| Some(Value::Int(number as i128));
        Ok(match name {
            "index" => number(index + 1),
            "index0" => number(index),
            "revindex" => number(count - index),
            "revindex0" => number(count - index - 1),
            "first" => Some(Value::Bool(index == 0)),
            "last" => Some(Value::Bool(index + 1 == count)),
            "length" => number(count),
            "depth" => number(state.depth + 1),
            "depth0" => number(state.depth),
            "previtem" => index.checked_sub(1).map(|index| state.items.get()[index].clone()),
            "nextitem" => state.items.get().get(index + 1).cloned(),
            _ => None,
        })
    }

    pub(crate) fn loop_method(&mut self, slot: usize, serial: u64, name: &str, args: Args) -> Outcome<Value> {
        for value in &args.positional {
            self.visit(value)?;
        }
        let Some(state) = self.loops.get_mut(slot).filter(|state| state.serial == serial) else {
            return fail("this loop has ended");
        };
        let values = args.positional;
        if name == "cycle" {
            return match values.len() {
                0 => fail("loop.cycle needs at least one value"),
                count => Ok(values[state.index % count].clone()),
            };
        }
        let same = state.changed.as_ref().is_some_and(|old| {
            old.len() == values.len() && old.iter().zip(&values).all(|(a, b)| a.equals(b))
        });
        state.changed = Some(values);
        Ok(Value::Bool(!same))
    }

    /// A value as key of a dict, to look it up; `None` if it cannot be one. Hashing long strings is work.
    pub(crate) fn key(&mut self, value: &Value) -> Outcome<Option<Key>> {
        match self.new_key(value) {
            Ok(key) => Ok(Some(key)),
            Err(Fault::Error(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// A value as key of a dict, to put it in.
    pub(crate) fn new_key(&mut self, value: &Value) -> Outcome<Key> {
        self.visit(value)?;
        if let Value::Tuple(_) | Value::Group(_) = value {
            // A key beside each member of the tuple, however deep.
            self.reserve(value.weight().saturating_mul(size_of::<Key>() as u64))?;
        }
        Key::new(value)
    }

    /// The same for `in` and `get`, where Python refuses what can never be a key.
    pub(crate) fn lookup_key(&mut self, value: &Value) -> Outcome<Option<Key>> {
        self.visit(value)?;
        match value.unhashable() {
            Some(kind) => fail(format!("unhashable type: '{kind}'")),
            None => self.key(value),
        }
    }

    /// `object[index]`: items first, then attributes.
    pub(crate) fn item(&mut self, object: &Value, index: &Value) -> Outcome<Value> {
        let missing = || Value::undefined(format!("{} has no item {}", object.type_name(), describe(index)));
        match object {
            Value::Dict(dict) => {
                // An unhashable key is simply not found.
                if let Some(value) = self.key(index)?.and_then(|key| dict.map.get(&key)) {
                    return Ok(value.clone());
                }
            }
            Value::Range(range) => {
                if let Some(index) = index.as_int() {
                    return Ok(position(index, range.len()).map_or_else(missing, |at| range.at(at)));
                }
            }
            Value::List(seq) | Value::Tuple(seq) | Value::Group(seq) => {
                if let Some(index) = index.as_int() {
                    let position = position(index, seq.items.len());
                    return Ok(position.and_then(|at| seq.items.get(at).cloned()).unwrap_or_else(missing));
                }
            }
            Value::Str(text) => {
                if let Some(index) = index.as_int() {
                    self.work(text.len() as u64 / 64)?;
                    let c = position(index, text.chars().count()).and_then(|at| text.chars().nth(at));
                    return Ok(c.map_or_else(missing, |c| Value::str(c.encode_utf8(&mut [0; 4]) as &str)));
                }
            }
            Value::Undefined(reason) => return fail(reason.as_ref()),
            _ => {}
        }
        match index {
            Value::Str(name) => self.attribute(object, name),
            _ => Ok(missing()),
        }
    }

    pub(super) fn slice(&mut self, object: &Value, bounds: [Option<i128>; 3]) -> Outcome<Value> {
        let step = bounds[2].unwrap_or(1);
        if step == 0 {
            return fail("the step of a slice cannot be 0");
        }
        let ends = |count: usize| {
            let count = count as i128;
            // Python's rules: negative bounds count from the end, all are clamped.
            let (lowest, highest) = if step > 0 { (0, count) } else { (-1, count - 1) };
            let clamp = |bound: i128| {
                (if bound < 0 { bound.saturating_add(count) } else { bound }).clamp(lowest, highest)
            };
            let start = bounds[0].map_or(if step > 0 { 0 } else { count - 1 }, clamp);
            let stop = bounds[1].map_or(if step > 0 { count } else { -1 }, clamp);
            (start, stop)
        };
        let pick = |count: usize| {
            let (mut at, stop) = ends(count);
            std::iter::from_fn(move || {
                let inside = if step > 0 { at < stop } else { at > stop };
                let current = at;
                at = at.saturating_add(step);
                inside.then_some(current as usize)
            })
        };
        match object {
            Value::Range(range) => {
                let RangeParts { start, step: each, .. } = range.parts();
                let number =
                    |position: i128| position.checked_mul(*each).and_then(|far| far.checked_add(*start));
                let (first, last) = ends(range.len());
                let slice = match (number(first), number(last), step.checked_mul(*each)) {
                    (Some(first), Some(last), Some(step)) => Range::new(first, last, step, range.len()),
                    _ => None,
                };
                slice.map_or_else(
                    || fail("the numbers of this slice are too large"),
                    |range| Ok(Value::Range(range)),
                )
            }
            Value::List(seq) | Value::Tuple(seq) | Value::Group(seq) => {
                self.reserve(seq.items.len() as u64 * size_of::<Value>() as u64)?;
                let items = pick(seq.items.len()).map(|at| seq.items[at].clone()).collect();
                if matches!(object, Value::List(_)) { Value::list(items) } else { Value::tuple(items) }
            }
            Value::Str(text) => {
                self.reserve(text.len() as u64 * 4)?;
                let chars: Vec<char> = text.chars().collect();
                Ok(Value::str(pick(chars.len()).map(|at| chars[at]).collect::<String>()))
            }
            Value::Undefined(reason) => fail(reason.as_ref()),
            other => fail(format!("{} cannot be sliced", describe(other))),
        }
    }

    pub(crate) fn compare(&mut self, comparison: Comparison, left: &Value, right: &Value) -> Outcome<bool> {
        use std::cmp::Ordering::{Equal, Greater, Less};
        self.work(left.weight().min(right.weight()) / 16)?;
        Ok(match comparison {
            Comparison::Eq => left.equals(right),
            Comparison::Ne => !left.equals(right),
            Comparison::Lt => left.compare(right)? == Less,
            Comparison::Le => matches!(left.compare(right)?, Less | Equal),
            Comparison::Gt => left.compare(right)? == Greater,
            Comparison::Ge => matches!(left.compare(right)?, Greater | Equal),
            Comparison::In => self.contains(right, left)?,
            Comparison::NotIn => !self.contains(right, left)?,
        })
    }

    fn contains(&mut self, container: &Value, item: &Value) -> Outcome<bool> {
        match (container, item) {
            (Value::Str(text), Value::Str(part)) => {
                self.visit(container)?;
                Ok(text.contains(part.as_ref()))
            }
            (Value::Str(_), Value::Undefined(reason)) => fail(reason.as_ref()),
            (Value::Str(_), other) => {
                fail(format!("'in <string>' requires string as left operand, not {}", other.type_name()))
            }
            (Value::List(seq) | Value::Tuple(seq) | Value::Group(seq), _) => {
                // Comparing two values takes no longer than the smaller of them.
                let comparisons = (seq.items.len() as u64).saturating_mul(item.weight() / 16);
                self.work(seq.items.len() as u64 + comparisons.min(container.weight() / 16))?;
                Ok(seq.items.iter().any(|candidate| candidate.equals(item)))
            }
            (Value::Dict(dict), _) => {
                Ok(self.lookup_key(item)?.is_some_and(|key| dict.map.contains_key(&key)))
            }
            (Value::Range(range), _) => Ok(range.position(item).is_some()),
            (Value::View(view), _) => {
                let dict = &view.dict;
                match view.kind {
                    ViewKind::Keys => {
                        Ok(self.lookup_key(item)?.is_some_and(|key| dict.map.contains_key(&key)))
                    }
                    ViewKind::Values => {
                        self.visit(container)?;
                        Ok(dict.map.values().any(|candidate| candidate.equals(item)))
                    }
                    ViewKind::Items => match item {
                        Value::Tuple(pair) | Value::Group(pair) if pair.items.len() == 2 => {
                            let found = self.lookup_key(&pair.items[0])?.and_then(|key| dict.map.get(&key));
                            self.visit(item)?;
                            Ok(found.is_some_and(|value| value.equals(&pair.items[1])))
                        }
                        _ => Ok(false),
                    },
                }
            }
            (Value::Generator(index), _) => {
                while let Some(candidate) = self.next_item(*index)? {
                    self.work(1 + candidate.weight().min(item.weight()) / 16)?;
                    if candidate.equals(item) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Value::Undefined(_), _) => Ok(false),
            (Value::Namespace(_), _) => fail("namespaces cannot be searched"),
            (other, _) => fail(format!("{} cannot be searched with 'in'", describe(other))),
        }
    }

    pub(crate) fn binary(&mut self, operator: Operator, left: Value, right: Value) -> Outcome<Value> {
        match (operator, &left, &right) {
            (Operator::Rem, Value::Str(text), _) => return format::percent(self, text, &right),
            (Operator::Add, Value::Str(a), Value::Str(b)) => {
                self.reserve((a.len() + b.len()) as u64)?;
                return Ok(Value::str([a.as_ref(), b.as_ref()].concat()));
            }
            (Operator::Add, Value::List(a), Value::List(b))
            | (Operator::Add, Value::Tuple(a) | Value::Group(a), Value::Tuple(b) | Value::Group(b)) => {
                self.reserve((a.items.len() + b.items.len()) as u64 * size_of::<Value>() as u64)?;
                let items = [a.items.as_slice(), b.items.as_slice()].concat();
                return if matches!(left, Value::List(_)) { Value::list(items) } else { Value::tuple(items) };
            }
            (Operator::Mul, Value::Str(_) | Value::List(_) | Value::Tuple(_), count)
            | (Operator::Mul, count, Value::Str(_) | Value::List(_) | Value::Tuple(_)) => {
                let repeated = if matches!(left, Value::Str(_) | Value::List(_) | Value::Tuple(_)) {
                    &left
                } else {
                    &right
                };
                let Some(count) = count.as_int() else {
                    return fail(format!(
                        "cannot multiply {} by {}",
                        repeated.type_name(),
                        count.type_name()
                    ));
                };
                return self.repeat(repeated, count);
            }
            (_, Value::Undefined(reason), _) | (_, _, Value::Undefined(reason)) => {
                return fail(reason.as_ref());
            }
            _ => {}
        }
        let symbol = match operator {
            Operator::Add => "+",
            Operator::Sub => "-",
            Operator::Mul => "*",
            Operator::Div => "/",
            Operator::FloorDiv => "//",
            Operator::Rem => "%",
            Operator::Pow => "**",
        };
        let result = match (left.as_int(), right.as_int()) {
            (Some(a), Some(b)) => integers(operator, a, b)?,
            _ => match (left.as_float(), right.as_float()) {
                (Some(a), Some(b)) => floats(operator, a, b)?,
                _ => None,
            },
        };
        result.ok_or_else(|| {
            Fault::Error(format!("cannot compute {} {symbol} {}", describe(&left), describe(&right)))
        })
    }

    fn repeat(&mut self, value: &Value, count: i128) -> Outcome<Value> {
        let count = u64::try_from(count.max(0)).unwrap_or(u64::MAX);
        let unit = match value {
            Value::Str(text) => text.len() as u64,
            Value::List(seq) | Value::Tuple(seq) => (seq.items.len() * size_of::<Value>()) as u64,
            _ => 1,
        };
        self.reserve(unit.saturating_mul(count))?;
        // What fits into memory fits into usize; nothing is repeated if the unit is empty.
        let count = if unit == 0 { 0 } else { usize::try_from(count).unwrap_or(usize::MAX) };
        match value {
            Value::Str(text) => Ok(Value::str(text.repeat(count))),
            Value::List(seq) => Value::list(repeat_items(&seq.items, count)),
            Value::Tuple(seq) => Value::tuple(repeat_items(&seq.items, count)),
            other => fail(format!("cannot repeat {}", other.type_name())),
        }
    }
}

fn repeat_items(items: &[Value], count: usize) -> Vec<Value> {
    std::iter::repeat_n(items, count).flatten().cloned().collect()
}

/// `None` when the result is too large.
fn integers(operator: Operator, a: i128, b: i128) -> Outcome<Option<Value>> {
    if b == 0 && matches!(operator, Operator::Div | Operator::FloorDiv | Operator::Rem) {
        return fail("division by zero");
    }
    let result = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Sub => a.checked_sub(b),
        Operator::Mul => a.checked_mul(b),
        Operator::Div => return Ok(Some(Value::Float(a as f64 / b as f64))),
        // Rounded down, the remainder with the sign of the divisor.
        Operator::FloorDiv => {
            a.checked_div(b).map(|q| if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q })
        }
        Operator::Rem => a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r }),
        Operator::Pow if b < 0 => return Ok(Some(Value::Float((a as f64).powf(b as f64)))),
        Operator::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
    };
    Ok(result.map(Value::Int))
}

fn floats(operator: Operator, a: f64, b: f64) -> Outcome<Option<Value>> {
    if b == 0.0 && matches!(operator, Operator::Div | Operator::FloorDiv | Operator::Rem) {
        return fail("division by zero");
    }
    Ok(Some(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mul => a * b,
        Operator::Div => a / b,
        Operator::FloorDiv => (a / b).floor(),
        Operator::Rem => a - b * (a / b).floor(),
        Operator::Pow => a.powf(b),
    })))
}

/// A position counted from the end if negative.
fn position(index: i128, count: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(count as i128)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < count)
}
