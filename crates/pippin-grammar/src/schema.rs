//! A look at a JSON schema before it is compiled: what is not supported is named with its place, and how deep compiling would recurse
//! is known beforehand.

use std::collections::HashSet;

use regex_syntax::hir::HirKind;
use serde_json::{Map, Value};

use crate::{GrammarError, rewrite};

/// Values within values, in all of the schema.
pub(crate) const DEPTH: usize = 100;
/// Schemas within schemas, along references: each target counts once, with all its levels.
pub(crate) const LEVELS: usize = 4000;

/// A number is followed by its remainder, so that a multiple costs as many states as it is large: all of them together, as they may
/// come to hold at once, and the sum of all.
const COMMON_MULTIPLE: u64 = 10_000;
const MULTIPLES: u64 = 100_000;

/// Properties of one object that may be left out. The parser keeps all that may come next in mind at once, which has a limit.
const OPTIONAL: usize = 2000;

/// Keywords that hold a schema for each of their fields.
const FIELDS: [&str; 2] = ["properties", "patternProperties"];
/// Keywords that hold a schema.
const SCHEMAS: [&str; 3] = ["items", "additionalItems", "additionalProperties"];
/// Keywords that hold a list of schemas.
const LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];

/// Keywords that say something about a document which cannot be followed while it is written.
const UNSUPPORTED: [&str; 22] = [
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$vocabulary",
    "divisibleBy",
    "disallow",
    "extends",
];

/// A schema that was looked at.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Put as the parser reads it exactly.
    pub(crate) schema: Value,
    /// The places of all schemas that the first one leads to, innermost first.
    pub(crate) places: Vec<String>,
}

/// Looks at everything that the schema leads to, for which it recurses as far as [`LEVELS`].
pub(crate) fn check(schema: &Value) -> Result<Checked, GrammarError> {
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        return Err(refuse("#", "a schema is an object, true or false"));
    }
    let mut walk =
        Walk { root: schema, seen: HashSet::new(), levels: 0, places: Vec::new(), multiples: Vec::new() };
    walk.target("#")?;
    let places = walk.places;
    let mut schema = schema.clone();
    for place in &places {
        if let Some(Value::Object(fields)) = schema.pointer_mut(&place[1..]) {
            rewrite::rewrite(fields);
        }
    }
    Ok(Checked { schema, places })
}

/// The schema at a place that [`check`] has found, with the definitions of the whole.
pub(crate) fn part(root: &Value, place: &str) -> Option<Value> {
    let Value::Object(part) = root.pointer(place.strip_prefix('#')?)? else { return None };
    let mut part = part.clone();
    for key in ["$defs", "definitions", "$schema"] {
        if let Some(value) = root.get(key) {
            part.insert(key.to_owned(), value.clone());
        }
    }
    Some(Value::Object(part))
}

/// Whether there is a reference anywhere in a value.
fn has_reference(value: &Value) -> bool {
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values),
            Value::Object(fields) if fields.contains_key("$ref") => return true,
            Value::Object(fields) => open.extend(fields.values()),
            _ => {}
        }
    }
    false
}

/// A character that answers do not write, because JSON has no short escape for it. The parser would leave it out of a text.
fn is_unwritten(char: char) -> bool {
    matches!(char, '\0'..='\x1f' | '\x7f') && !matches!(char, '\x08' | '\t' | '\n' | '\x0c' | '\r')
}

/// Refuses a pattern with such a character by itself; in a class it does no harm.
fn check_pattern(pattern: &str, place: &str) -> Result<(), GrammarError> {
    // The parser says what is wrong with one that cannot be read.
    let Ok(pattern) = regex_syntax::parse(pattern) else { return Ok(()) };
    let mut open = vec![&pattern];
    while let Some(part) = open.pop() {
        match part.kind() {
            HirKind::Literal(text) if text.0.iter().any(|byte| is_unwritten(char::from(*byte))) => {
                return Err(refuse(place, "control characters are not supported"));
            }
            HirKind::Repetition(repetition) => open.push(&repetition.sub),
            HirKind::Capture(capture) => open.push(&capture.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => open.extend(parts),
            _ => {}
        }
    }
    Ok(())
}

/// Refuses values with control characters, and with integers that are not what they are when they are read as floating-point numbers.
fn check_values(value: &Value, place: &str) -> Result<(), GrammarError> {
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::Number(number) if !rewrite::is_exact(number) => {
                return Err(refuse(place, format!("{number} is too large to be followed exactly")));
            }
            Value::String(text) if text.contains(is_unwritten) => {
                return Err(refuse(place, "control characters are not supported"));
            }
            Value::Array(values) => open.extend(values),
            Value::Object(fields) => open.extend(fields.values()),
            _ => {}
        }
    }
    Ok(())
}

/// Refuses an object with too many properties that may be left out.
fn check_optional(fields: &Map<String, Value>, path: &str) -> Result<(), GrammarError> {
    let Some(Value::Object(properties)) = fields.get("properties") else { return Ok(()) };
    let required: HashSet<&str> = match fields.get("required") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => HashSet::new(),
    };
    let optional = properties.keys().filter(|name| !required.contains(name.as_str())).count();
    if optional > OPTIONAL {
        let problem =
            format!("{optional} properties may be left out, and {OPTIONAL} are supported in an object");
        return Err(refuse(&format!("{path}/properties"), problem));
    }
    Ok(())
}

/// The greatest common divisor.
fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

fn refuse(path: &str, problem: impl Into<String>) -> GrammarError {
    GrammarError::Schema { path: path.to_owned(), problem: problem.into() }
}

/// Refuses values that are nested too deeply, without recursion.
pub(crate) fn check_depth(value: &Value) -> Result<(), GrammarError> {
    let mut open = vec![(value, 1)];
    while let Some((value, depth)) = open.pop() {
        if depth > DEPTH {
            return Err(GrammarError::TooLarge {
                what: "JSON schema",
                unit: "levels of nesting or more",
                found: depth,
                limit: DEPTH,
            });
        }
        match value {
            Value::Array(values) => open.extend(values.iter().map(|value| (value, depth + 1))),
            Value::Object(fields) => open.extend(fields.values().map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}

struct Walk<'a> {
    root: &'a Value,
    /// Targets of references.
    seen: HashSet<String>,
    levels: usize,
    places: Vec<String>,
    /// The values of `multipleOf`: digits, and how many of them stand behind the point.
    multiples: Vec<(u64, u32)>,
}

impl<'a> Walk<'a> {
    /// What a reference leads to, once.
    fn target(&mut self, reference: &str) -> Result<(), GrammarError> {
        if !self.seen.insert(reference.to_owned()) {
            return Ok(());
        }
        let schema = match reference.strip_prefix('#') {
            Some(pointer) => self.root.pointer(pointer.trim_end_matches('/')),
            None => None,
        };
        match schema {
            Some(schema) => {
                self.check_way(reference)?;
                let depth = self.schema(schema, reference.trim_end_matches('/'), 1)?;
                self.levels += depth;
                Ok(())
            }
            // Checked where it was found.
            None => Ok(()),
        }
    }

    /// A schema and those within it. Returns how many levels they are.
    fn schema(&mut self, schema: &'a Value, path: &str, level: usize) -> Result<usize, GrammarError> {
        if self.levels + self.seen.len() > LEVELS {
            return Err(GrammarError::TooLarge {
                what: "JSON schema",
                unit: "levels along its references or more",
                found: self.levels + self.seen.len(),
                limit: LEVELS,
            });
        }
        let fields = match schema {
            Value::Bool(_) => return Ok(1),
            Value::Object(fields) => fields,
            _ => return Err(refuse(path, "a schema is an object, true or false")),
        };
        if path != "#" && fields.get("$id").is_some_and(Value::is_string) && has_reference(schema) {
            let problem = "references are not followed within a schema that has an address of its own";
            return Err(refuse(&format!("{path}/$id"), problem));
        }
        check_optional(fields, path)?;
        let mut deepest = 0;
        for (key, value) in fields {
            let place = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
            let within = self.keyword(key, value, &place, level)?;
            deepest = deepest.max(within);
        }
        self.check_pair(fields, path)?;
        self.places.push(path.to_owned());
        Ok(deepest + 1)
    }

    fn keyword(
        &mut self,
        key: &str,
        value: &'a Value,
        place: &str,
        level: usize,
    ) -> Result<usize, GrammarError> {
        let mut deepest = 0;
        match key {
            "x-guidance" => return Err(refuse(place, "options of the parser are not taken from a schema")),
            "$ref" => {
                let reference = value.as_str().ok_or_else(|| refuse(place, "a reference is a text"))?;
                self.reference(reference, place)?;
            }
            "pattern" | "format" if !value.is_string() => {
                return Err(refuse(place, format!("the value of `{key}` is a text")));
            }
            "pattern" => check_pattern(value.as_str().unwrap_or_default(), place)?,
            "minLength" if value.as_f64().is_some_and(|length| length > f64::from(rewrite::LONGEST)) => {
                return Err(refuse(place, format!("`{key}` is supported up to {}", rewrite::LONGEST)));
            }
            "const" | "enum" => check_values(value, place)?,
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                rewrite::bound(key, value).map_err(|problem| refuse(place, problem))?;
            }
            "multipleOf" => self.multiple(value).map_err(|problem| refuse(place, problem))?,
            "uniqueItems" if value == &Value::Bool(false) => {}
            _ if UNSUPPORTED.contains(&key) => {
                return Err(refuse(place, format!("the keyword `{key}` is not supported")));
            }
            _ if FIELDS.contains(&key) => {
                let Value::Object(all) = value else {
                    return Err(refuse(place, format!("the value of `{key}` is an object of schemas")));
                };
                for (name, schema) in all {
                    let place = format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"));
                    if key == "patternProperties" {
                        check_pattern(name, &place)?;
                    }
                    deepest = deepest.max(self.schema(schema, &place, level + 1)?);
                }
            }
            _ if SCHEMAS.contains(&key) && !value.is_array() => {
                deepest = self.schema(value, place, level + 1)?;
            }
            _ if LISTS.contains(&key) || SCHEMAS.contains(&key) => {
                let Value::Array(all) = value else {
                    return Err(refuse(place, format!("the value of `{key}` is a list of schemas")));
                };
                for (index, schema) in all.iter().enumerate() {
                    deepest = deepest.max(self.schema(schema, &format!("{place}/{index}"), level + 1)?);
                }
            }
            _ => {}
        }
        Ok(deepest)
    }

    fn multiple(&mut self, value: &Value) -> Result<(), &'static str> {
        let text = match value {
            Value::Number(number) => number.to_string(),
            _ => return Err("the value of `multipleOf` is a number"),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}").parse::<u64>().ok().filter(|digits| *digits > 0);
        let scale = u32::try_from(fraction.len()).ok();
        let too_many = "`multipleOf` is supported up to 10000, and with few different values, decimals counted as digits";
        let (Some(digits), Some(scale)) = (digits, scale) else { return Err(too_many) };
        self.multiples.push((digits, scale));
        let finest = self.multiples.iter().map(|(_, scale)| *scale).max().unwrap_or(0);
        let mut common = 1_u64;
        let mut sum = 0_u64;
        for (digits, scale) in &self.multiples {
            let scaled = 10_u64.checked_pow(finest - scale).and_then(|factor| digits.checked_mul(factor));
            let multiple = scaled.and_then(|scaled| (common / divisor(common, scaled)).checked_mul(scaled));
            common = multiple.ok_or(too_many)?;
            sum = sum.saturating_add(*digits);
        }
        if common > COMMON_MULTIPLE || sum > MULTIPLES { Err(too_many) } else { Ok(()) }
    }

    fn reference(&mut self, reference: &str, place: &str) -> Result<(), GrammarError> {
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(refuse(
                place,
                format!("{reference:?} leads out of the schema; only `#/…` is followed"),
            ));
        };
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(refuse(place, format!("{reference:?} is an anchor; only `#/…` is followed")));
        }
        if pointer.contains(['~', '%']) {
            return Err(refuse(
                place,
                format!("{reference:?} has an escaped character, which is not supported"),
            ));
        }
        if self.root.pointer(pointer.trim_end_matches('/')).is_none() {
            return Err(refuse(place, format!("{reference:?} leads nowhere")));
        }
        self.target(reference)
    }

    /// Refuses a reference that leads through a schema with an address of its own.
    fn check_way(&self, reference: &str) -> Result<(), GrammarError> {
        for (at, _) in reference.match_indices('/').skip(1) {
            if self.root.pointer(&reference[1..at]).is_some_and(|schema| schema["$id"].is_string()) {
                return Err(refuse(
                    reference,
                    format!("{:?} has an address of its own (`$id`)", &reference[..at]),
                ));
            }
        }
        Ok(())
    }

    /// What keywords say together.
    fn check_pair(&self, fields: &Map<String, Value>, path: &str) -> Result<(), GrammarError> {
        for (low, high) in
            [("minItems", "maxItems"), ("minLength", "maxLength"), ("minProperties", "maxProperties")]
        {
            let number = |key: &str| fields.get(key).and_then(Value::as_f64);
            if let (Some(least), Some(most)) = (number(low), number(high))
                && least > most
            {
                return Err(refuse(path, format!("`{low}` is greater than `{high}`: nothing satisfies it")));
            }
        }
        if fields.contains_key("prefixItems") && fields.contains_key("additionalItems") {
            let place = format!("{path}/additionalItems");
            return Err(refuse(&place, "`additionalItems` says nothing beside `prefixItems`; `items` does"));
        }
        // Which names have been given is not remembered, and a name that is given twice counts once.
        let required = fields.get("required").and_then(Value::as_array).map_or(0, Vec::len);
        let least = fields.get("minProperties").and_then(Value::as_f64).unwrap_or(0.0);
        if least > required as f64 + 1.0 && fields.get("additionalProperties") != Some(&Value::Bool(false)) {
            let place = format!("{path}/minProperties");
            let problem = "`minProperties` is supported up to one more than there are names in `required`";
            return Err(refuse(&place, problem));
        }
        Ok(())
    }
}
