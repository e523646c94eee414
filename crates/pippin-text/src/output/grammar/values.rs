//! What values a schema allows, and how they are written outside of JSON documents.

use serde_json::{Map, Value, json};

use super::forms::Kind;
use super::{Builder, pattern, quoted};

/// How values are written that stand in no document of JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    /// JSON in which these marks do not occur.
    Json(&'static [&'static str]),
    /// Texts between two of a mark, names as they are.
    Marked(&'static str),
    Python,
}

impl Notation {
    pub(super) const FUNCTION_GEMMA: Self = Self::Marked("<escape>");
    pub(super) const GEMMA4: Self = Self::Marked("<|\"|>");
    pub(super) const PYTHON: Self = Self::Python;

    fn between(self) -> &'static str {
        if matches!(self, Self::Marked(_)) { "," } else { ", " }
    }

    fn marks(self) -> &'static [&'static str] {
        if let Self::Json(marks) = self { marks } else { &[] }
    }
}

/// How deeply schemas are followed.
const MAX_DEPTH: usize = 24;
/// The most that lists and texts are counted to.
const MAX_COUNT: u64 = 4096;
/// Schemas that are looked at for a grammar.
pub(super) const MAX_STEPS: usize = 1 << 14;

/// Keywords that allow and forbid nothing.
const NOTES: [&str; 13] = [
    "title",
    "description",
    "default",
    "examples",
    "example",
    "$comment",
    "$schema",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$defs",
    "definitions",
    "strict",
];

/// What a schema allows, one by one.
pub(super) enum Choice {
    Anything,
    Value(Value),
    Text(Value),
    Other(Kind, Value),
}

/// The fields of an object.
pub(super) struct Fields<'a> {
    /// Name, schema, and whether it has to be there.
    pub(super) named: Vec<(&'a str, Value, bool)>,
    /// The schema of any others, if there are any: only where no field is named.
    pub(super) others: Option<Value>,
}

fn has_only(schema: &Map<String, Value>, keywords: &[&str]) -> bool {
    schema.keys().all(|key| NOTES.contains(&key.as_str()) || keywords.contains(&key.as_str()))
}

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "string" => Kind::Text,
        "integer" | "number" => Kind::Number,
        "boolean" => Kind::Boolean,
        "null" => Kind::Null,
        "object" => Kind::Object,
        "array" => Kind::Array,
        _ => return None,
    })
}

pub(super) fn kind_of(value: &Value) -> Kind {
    match value {
        Value::String(_) => Kind::Text,
        Value::Number(_) => Kind::Number,
        Value::Bool(_) => Kind::Boolean,
        Value::Null => Kind::Null,
        Value::Object(_) => Kind::Object,
        Value::Array(_) => Kind::Array,
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    let is_whole = || value.as_f64().is_some_and(|number| number.fract() == 0.0);
    kind(name) == Some(kind_of(value)) && (name != "integer" || is_whole())
}

/// The alternatives of a schema. `None`: it is not known here how to keep to it.
/// References may lead to the same alternatives over and over, so there is a limit to all steps together.
pub(super) fn choices(schema: &Value, root: &Value, steps: &mut usize) -> Option<Vec<Choice>> {
    let mut found = Vec::new();
    add_choices(schema, root, MAX_DEPTH, steps, &mut found)?;
    Some(found)
}

fn add_choices(
    schema: &Value,
    root: &Value,
    depth: usize,
    steps: &mut usize,
    found: &mut Vec<Choice>,
) -> Option<()> {
    *steps = steps.checked_sub(1)?;
    let depth = depth.checked_sub(1)?;
    let fields = match schema {
        Value::Bool(true) => {
            found.push(Choice::Anything);
            return Some(());
        }
        Value::Object(fields) => fields,
        _ => return None,
    };
    if let Some(target) = fields.get("$ref") {
        let target = root.pointer(target.as_str()?.strip_prefix('#')?)?;
        return has_only(fields, &["$ref"]).then(|| add_choices(target, root, depth, steps, found)).flatten();
    }
    let names: Option<Vec<&str>> = match fields.get("type") {
        Some(Value::String(name)) => Some(vec![name]),
        Some(Value::Array(names)) => Some(names.iter().map(Value::as_str).collect::<Option<_>>()?),
        Some(_) => return None,
        None => None,
    };
    let values = match (fields.get("enum"), fields.get("const")) {
        (Some(values), None) => Some(values.as_array()?.clone()),
        (None, Some(value)) => Some(vec![value.clone()]),
        (Some(_), Some(_)) => return None,
        (None, None) => None,
    };
    if let Some(values) = values {
        let is_good =
            |value: &Value| names.as_ref().is_none_or(|names| names.iter().any(|name| is_of(value, name)));
        found.extend(values.into_iter().filter(is_good).map(Choice::Value));
        return has_only(fields, &["enum", "const", "type"]).then_some(());
    }
    if let [all] = fields.get("allOf").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
        return has_only(fields, &["allOf"]).then(|| add_choices(all, root, depth, steps, found)).flatten();
    }
    for keyword in ["anyOf", "oneOf"] {
        let Some(alternatives) = fields.get(keyword) else { continue };
        if !has_only(fields, &[keyword]) {
            return None;
        }
        let mut kinds = Vec::new();
        for alternative in alternatives.as_array()? {
            let mut own = Vec::new();
            add_choices(alternative, root, depth, steps, &mut own)?;
            let mut own_kinds: Vec<Kind> =
                own.iter().map(Choice::kind).collect::<Option<_>>().unwrap_or_default();
            own_kinds.sort_by_key(|kind| *kind as u8);
            own_kinds.dedup();
            // One of them, but not two: those of different kinds.
            let is_apart = !own_kinds.is_empty() && own_kinds.iter().all(|kind| !kinds.contains(kind));
            if keyword == "oneOf" && !is_apart {
                return None;
            }
            kinds.extend(own_kinds);
            found.extend(own);
        }
        return Some(());
    }
    let Some(names) = names else {
        return has_only(fields, &[]).then(|| found.push(Choice::Anything));
    };
    for name in names {
        let mut schema = fields.clone();
        schema.insert("type".to_owned(), json!(name));
        found.push(match kind(name)? {
            Kind::Text => Choice::Text(schema.into()),
            kind => Choice::Other(kind, schema.into()),
        });
    }
    Some(())
}

impl Choice {
    fn kind(&self) -> Option<Kind> {
        match self {
            Self::Anything => None,
            Self::Value(value) => Some(kind_of(value)),
            Self::Text(_) => Some(Kind::Text),
            Self::Other(kind, _) => Some(*kind),
        }
    }

    /// Whether that is a type, and all there is of it.
    pub(super) fn is_whole_type(&self) -> bool {
        match self {
            Self::Anything => true,
            Self::Value(_) => false,
            Self::Text(schema) | Self::Other(_, schema) => {
                schema.as_object().is_some_and(|fields| has_only(fields, &["type"]))
            }
        }
    }
}

/// The fields of an object's schema. `None`: it is not known here how to keep to it.
pub(super) fn fields(schema: &Value) -> Option<Fields<'_>> {
    let keywords =
        ["type", "properties", "required", "additionalProperties", "minProperties", "maxProperties"];
    let all = schema.as_object().filter(|fields| has_only(fields, &keywords))?;
    if all.get("type").is_some_and(|kind| kind != "object") {
        return None;
    }
    let properties = match all.get("properties") {
        Some(properties) => Some(properties.as_object()?),
        None => None,
    };
    let required = match all.get("required") {
        Some(required) => required.as_array()?.as_slice(),
        None => &[],
    };
    let required: Vec<&str> = required.iter().map(Value::as_str).collect::<Option<_>>()?;
    let others = match all.get("additionalProperties") {
        None => Some(json!(true)),
        Some(Value::Bool(false)) => None,
        Some(schema) => Some(schema.clone()),
    };
    let mut named: Vec<(&str, Value, bool)> = properties
        .into_iter()
        .flatten()
        .map(|(key, schema)| (key.as_str(), schema.clone(), required.contains(&key.as_str())))
        .collect();
    for key in &required {
        if !named.iter().any(|(known, ..)| known == key) {
            named.push((key, others.clone()?, true));
        }
    }
    let count = |keyword: &str| all.get(keyword).map(|count| count.as_u64());
    if count("minProperties").is_some_and(|least| least.is_none_or(|least| least > required.len() as u64)) {
        return None;
    }
    let is_free = named.is_empty() && others.is_some();
    let most = count("maxProperties");
    if most.is_some_and(|most| is_free || most.is_none_or(|most| most < named.len() as u64)) {
        return None;
    }
    Some(Fields { named, others: others.filter(|_| is_free) })
}

/// What a text has to match besides being none of the marks: regular expressions, and whether it may be empty.
pub(super) struct Bounds {
    pub(super) all: Vec<String>,
    pub(super) may_be_empty: bool,
}

impl Bounds {
    pub(super) const FREE: Self = Self { all: Vec::new(), may_be_empty: true };
}

fn lengths(schema: &Value) -> Option<(u64, Option<u64>)> {
    let count = |keyword: &str| match schema.get(keyword) {
        None => Some(None),
        Some(count) => count.as_u64().filter(|count| *count <= MAX_COUNT).map(Some),
    };
    let bounds = (count("minLength")?.unwrap_or(0), count("maxLength")?);
    bounds.1.is_none_or(|most| most >= bounds.0).then_some(bounds)
}

/// What the schema of a text says. `None`: it is not known here how to keep to it.
pub(super) fn bounds(schema: &Value) -> Option<Bounds> {
    let fields = schema.as_object()?;
    if !has_only(fields, &["type", "minLength", "maxLength", "pattern"]) {
        return None;
    }
    let mut all = Vec::new();
    let (least, most) = lengths(schema)?;
    if least > 0 || most.is_some() {
        all.push(format!("(?s:.){{{least},{}}}", most.map_or_else(String::new, |most| most.to_string())));
    }
    if let Some(pattern) = fields.get("pattern") {
        all.push(whole_pattern(pattern.as_str()?)?);
    }
    let may_be_empty = least == 0 && !fields.contains_key("pattern");
    Some(Bounds { all, may_be_empty })
}

/// A pattern that may match anywhere, as one of the whole text. Only the plainest: others mean different things to different engines.
fn whole_pattern(pattern: &str) -> Option<String> {
    let begins = pattern.starts_with('^');
    let inner = pattern.strip_prefix('^').unwrap_or(pattern);
    let is_escaped = |text: &str| (text.len() - text.trim_end_matches('\\').len()) % 2 == 1;
    let (inner, ends) = match inner.strip_suffix('$') {
        Some(rest) if !is_escaped(rest) => (rest, true),
        _ => (inner, false),
    };
    if inner.is_empty() {
        return None;
    }
    let (mut whole, mut is_class, mut chars) = (String::new(), false, inner.chars().peekable());
    // Groups that are open. One that ends before it begins would end the one around the whole.
    let mut depth = 0_usize;
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next()? {
                escaped if escaped.is_ascii_punctuation() || "dwsnt".contains(escaped) => {
                    whole.extend(['\\', escaped]);
                }
                _ => return None,
            },
            '[' if is_class => return None,
            '[' => {
                is_class = true;
                whole.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    whole.push('^');
                }
            }
            ']' => {
                is_class = false;
                whole.push(']');
            }
            '&' | '~' if is_class => return None,
            '-' if is_class && chars.peek() == Some(&'-') => return None,
            '^' | '$' if !is_class => return None,
            // Anchors of one alternative are none of another.
            '|' if !is_class && depth == 0 && (begins || ends) => return None,
            '(' if !is_class => {
                depth += 1;
                match chars.next_if_eq(&'?') {
                    Some(_) => {
                        chars.next_if_eq(&':')?;
                        whole.push_str("(?:");
                    }
                    None => whole.push('('),
                }
            }
            ')' if !is_class => {
                depth = depth.checked_sub(1)?;
                whole.push(')');
            }
            '/' => whole.push_str("\\/"),
            char if char.is_control() => return None,
            char => whole.push(char),
        }
    }
    let anywhere = "(?s:.)*";
    let (before, behind) = (if begins { "" } else { anywhere }, if ends { "" } else { anywhere });
    Some(format!("{before}(?:{whole}){behind}"))
}

impl Builder<'_> {
    /// A value in a notation, as a part of a rule. `None`: it is not known here how to keep to the schema.
    pub(super) fn literal(
        &mut self,
        schema: &Value,
        root: &Value,
        notation: Notation,
        depth: usize,
    ) -> Option<String> {
        let depth = depth.checked_sub(1)?;
        let mut all = Vec::new();
        for choice in choices(schema, root, &mut self.steps)? {
            all.push(match choice {
                Choice::Anything => self.anything(notation),
                Choice::Value(value) => self.written(&value, notation)?,
                Choice::Text(schema) => self.text_literal(&schema, notation)?,
                Choice::Other(kind @ (Kind::Object | Kind::Array), schema) => {
                    // One that contains itself is the rule that is being made.
                    let key = schema.to_string();
                    let known = self.known.iter().find(|(known, of, _)| *known == key && *of == notation);
                    match known {
                        Some((_, _, rule)) => rule.clone(),
                        None => {
                            let rule = self.name("value");
                            self.known.push((key, notation, rule.clone()));
                            let body = self.other_literal(kind, &schema, root, notation, depth)?;
                            self.rule(&rule, &body);
                            rule
                        }
                    }
                }
                Choice::Other(kind, schema) => self.other_literal(kind, &schema, root, notation, depth)?,
            });
        }
        match &all[..] {
            [] => None,
            [one] => Some(one.clone()),
            all => Some(format!("({})", all.join(" | "))),
        }
    }

    pub(super) fn literal_of(&mut self, schema: &Value, root: &Value, notation: Notation) -> Option<String> {
        self.literal(schema, root, notation, MAX_DEPTH)
    }

    fn other_literal(
        &mut self,
        kind: Kind,
        schema: &Value,
        root: &Value,
        notation: Notation,
        depth: usize,
    ) -> Option<String> {
        let fields_of = schema.as_object()?;
        Some(match kind {
            Kind::Text => return None,
            Kind::Boolean | Kind::Null if !has_only(fields_of, &["type"]) => return None,
            Kind::Boolean if notation == Notation::Python => "(\"True\" | \"False\")".to_owned(),
            Kind::Boolean => "(\"true\" | \"false\")".to_owned(),
            Kind::Null if notation == Notation::Python => quoted("None"),
            Kind::Null => quoted("null"),
            Kind::Number => {
                let keys =
                    ["type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
                if !has_only(fields_of, &keys) {
                    return None;
                }
                if !has_only(fields_of, &["type"]) {
                    let bounds: Map<String, Value> = fields_of
                        .iter()
                        .filter(|(key, _)| keys.contains(&key.as_str()))
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect();
                    let rule = self.name("number");
                    self.rule(&rule, &format!("%json {}", Value::Object(bounds)));
                    return Some(rule);
                }
                self.number(fields_of.get("type").is_some_and(|kind| kind == "integer"))
            }
            Kind::Array => {
                if !has_only(fields_of, &["type", "items", "minItems", "maxItems"]) {
                    return None;
                }
                let any = json!(true);
                let item = self.literal(fields_of.get("items").unwrap_or(&any), root, notation, depth)?;
                let count = |keyword: &str| match fields_of.get(keyword) {
                    None => Some(None),
                    Some(count) => count.as_u64().filter(|count| *count <= MAX_COUNT).map(Some),
                };
                let (least, most) = (count("minItems")?.unwrap_or(0), count("maxItems")?);
                let between = quoted(notation.between());
                let more = match most {
                    Some(0) if least == 0 => return Some(quoted("[]")),
                    Some(most) if most < least.max(1) => return None,
                    Some(1) => String::new(),
                    Some(most) => {
                        format!("({between} {item}){{{},{}}}", least.saturating_sub(1), most - 1)
                    }
                    None if least > 1 => format!("({between} {item}){{{},}}", least - 1),
                    None => format!("({between} {item})*"),
                };
                let items = if least == 0 { format!("({item} {more})?") } else { format!("{item} {more}") };
                format!("\"[\" {items} \"]\"")
            }
            Kind::Object => {
                let fields = fields(schema)?;
                // The templates of pythonic models write objects as JSON.
                let inner = if notation == Notation::Python { Notation::Json(&[]) } else { notation };
                let key = |key: &str| match inner {
                    Notation::Marked(_) => is_plain(key).then(|| quoted(&format!("{key}:"))),
                    _ => {
                        let is_good = !inner.marks().iter().any(|mark| key.contains(mark));
                        is_good.then(|| quoted(&format!("{}: ", quoted(key))))
                    }
                };
                let parts = self.fields(&fields, root, inner, depth, &key)?;
                format!("\"{{\" {parts} \"}}\"")
            }
        })
    }

    /// Fields one after the other.
    pub(super) fn fields(
        &mut self,
        fields: &Fields<'_>,
        root: &Value,
        notation: Notation,
        depth: usize,
        key: &dyn Fn(&str) -> Option<String>,
    ) -> Option<String> {
        if let Some(others) = &fields.others {
            let value = self.literal(others, root, notation, depth)?;
            let pair = format!("KEY {} {value}", quoted(if key("a")?.contains('=') { "=" } else { ":" }));
            let pair = match notation {
                Notation::Json(_) => format!("QUOTED_KEY \": \" {value}"),
                _ => pair,
            };
            return Some(format!("({pair} ({} {pair})*)?", quoted(notation.between())));
        }
        let mut named: Vec<_> = fields.named.iter().collect();
        if matches!(notation, Notation::Marked(_)) {
            // Their templates show all objects so.
            named.sort_by_key(|(key, ..)| key.to_lowercase());
        }
        let mut parts = Vec::with_capacity(named.len());
        for (name, schema, is_required) in named {
            let value = self.literal(schema, root, notation, depth)?;
            parts.push((format!("{} {value}", key(name)?), *is_required));
        }
        Some(self.sequence(&parts, notation.between()))
    }

    pub(super) fn fields_of(
        &mut self,
        fields: &Fields<'_>,
        root: &Value,
        notation: Notation,
        key: &dyn Fn(&str) -> Option<String>,
    ) -> Option<String> {
        self.fields(fields, root, notation, MAX_DEPTH, key)
    }

    /// Parts in their order, of which some may be left out, and what stands between two.
    fn sequence(&mut self, parts: &[(String, bool)], between: &str) -> String {
        let between = quoted(between);
        // What may follow once there has been a part.
        let mut more = vec![String::new(); parts.len() + 1];
        for (index, (part, is_required)) in parts.iter().enumerate().skip(1).rev() {
            let rule = self.name("more");
            let mark = if *is_required { "" } else { "?" };
            let body = format!("({between} {part}){mark} {}", more[index + 1]);
            self.rule(&rule, &body);
            more[index] = rule;
        }
        let mut alternatives = Vec::new();
        for (index, (part, is_required)) in parts.iter().enumerate() {
            alternatives.push(format!("{part} {}", more[index + 1]));
            if *is_required {
                return format!("({})", alternatives.join(" | "));
            }
        }
        if alternatives.is_empty() { String::new() } else { format!("({})?", alternatives.join(" | ")) }
    }

    /// A number that is finite.
    fn number(&mut self, is_whole: bool) -> String {
        self.has_numbers = true;
        if is_whole { "INTEGER" } else { "NUMBER" }.to_owned()
    }

    /// Any value at all.
    fn anything(&mut self, notation: Notation) -> String {
        let known = self.known.iter().find(|(known, of, _)| known == "*" && *of == notation);
        if let Some((_, _, rule)) = known {
            return rule.clone();
        }
        let rule = self.name("anything");
        self.known.push(("*".to_owned(), notation, rule.clone()));
        let number = self.number(false);
        let text = self.text_literal(&json!({"type": "string"}), notation).unwrap_or_else(|| quoted(""));
        let words = match notation {
            Notation::Python => "\"True\" | \"False\" | \"None\"",
            _ => "\"true\" | \"false\" | \"null\"",
        };
        let between = quoted(notation.between());
        let (inner, pair) = match notation {
            Notation::Marked(_) => (rule.clone(), format!("KEY \":\" {rule}")),
            Notation::Json(_) => (rule.clone(), format!("QUOTED_KEY \": \" {rule}")),
            Notation::Python => (rule.clone(), format!("QUOTED_KEY \": \" {rule}")),
        };
        let list = format!("\"[\" ({inner} ({between} {inner})*)? \"]\"");
        let object = format!("\"{{\" ({pair} ({between} {pair})*)? \"}}\"");
        self.rule(&rule, &format!("{number} | {text} | {words} | {list} | {object}"));
        rule
    }

    /// A value that is known.
    fn written(&mut self, value: &Value, notation: Notation) -> Option<String> {
        let text = match notation {
            Notation::Json(_) | Notation::Python if !value.is_string() => {
                let text = match (notation, value) {
                    (Notation::Python, Value::Bool(true)) => "True".to_owned(),
                    (Notation::Python, Value::Bool(false)) => "False".to_owned(),
                    (Notation::Python, Value::Null) => "None".to_owned(),
                    _ => value.to_string(),
                };
                quoted(&text)
            }
            Notation::Json(_) => quoted(&value.to_string()),
            Notation::Python => {
                let text = value.as_str().unwrap_or_default();
                let is_plain = !text.contains(['\'', '"', '\\']) && !text.contains(char::is_control);
                match is_plain {
                    true => {
                        format!("({} | {})", quoted(&format!("'{text}'")), quoted(&format!("\"{text}\"")))
                    }
                    false => quoted(&value.to_string()),
                }
            }
            Notation::Marked(mark) => match value {
                Value::String(text) if text.contains(mark) => return None,
                Value::String(text) => {
                    format!("{} {} {}", self.text(mark), quoted(text), self.text(mark))
                }
                Value::Array(values) => {
                    let values: Option<Vec<String>> =
                        values.iter().map(|value| self.written(value, notation)).collect();
                    format!("\"[\" {} \"]\"", values?.join(" \",\" "))
                }
                Value::Object(fields) => {
                    let mut pairs = Vec::with_capacity(fields.len());
                    for (key, value) in fields {
                        is_plain(key).then_some(())?;
                        pairs.push(format!(
                            "{} {}",
                            quoted(&format!("{key}:")),
                            self.written(value, notation)?
                        ));
                    }
                    format!("\"{{\" {} \"}}\"", pairs.join(" \",\" "))
                }
                value => quoted(&value.to_string()),
            },
        };
        let holds = |mark: &str| value.to_string().contains(mark);
        (!notation.marks().iter().any(|mark| holds(mark))).then_some(text)
    }

    /// A text, in quotes or marks.
    fn text_literal(&mut self, schema: &Value, notation: Notation) -> Option<String> {
        if let Notation::Marked(mark) = notation {
            let text = self.text_until(&bounds(schema)?, &[mark], mark);
            return Some(format!("{} {text}", self.text(mark)));
        }
        // In quotes, the characters are not those of the text.
        if !has_only(schema.as_object()?, &["type", "minLength", "maxLength"]) {
            return None;
        }
        let (least, most) = lengths(schema)?;
        let count = match (least, most) {
            (0, None) => "*".to_owned(),
            (least, most) => {
                format!("{{{least},{}}}", most.map_or_else(String::new, |most| most.to_string()))
            }
        };
        let without = self.without(notation.marks());
        let quotes: &[char] = if notation == Notation::Python { &['\'', '"'] } else { &['"'] };
        let token = self.name("QUOTED");
        let all: Vec<String> = quotes
            .iter()
            .map(|quote| format!(r"{quote}([^{quote}\\\x00-\x1f\x7f]|\\[{quote}\\nrt]){count}{quote}"))
            .collect();
        self.rule(&token, &format!("/{}/{without}", all.join("|")));
        Some(token)
    }

    /// That a text has none of these in it, as a part of a terminal.
    pub(super) fn without(&self, marks: &[&str]) -> String {
        if marks.is_empty() {
            return String::new();
        }
        let marks: Vec<String> = marks.iter().map(|mark| pattern(mark)).collect();
        format!(" & ~/(?s:.)*({})(?s:.)*/", marks.join("|"))
    }
}

/// Whether a name of an argument can stand in a tag, or before a value, without quotation marks.
pub(super) fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-.$@/".contains(c))
}

/// Whether a name can be one of an argument in Python.
pub(super) fn is_identifier(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
