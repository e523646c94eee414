//! Python's two ways to format a string: `"%s" % value` and `"{}".format(value)`.

use super::eval::{Args, Fault, Interpreter, Outcome, describe, fail};
use super::value::Value;

/// Widths and precisions.
const MAX_SIZE: usize = 1000;

/// How one value is to be shown.
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    comma: bool,
    precision: Option<usize>,
    kind: Option<char>,
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn number(chars: &mut Chars<'_>) -> Outcome<Option<usize>> {
    let mut result = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let value = result.unwrap_or(0) * 10 + digit as usize;
        if value > MAX_SIZE {
            return Err(Fault::Limit("characters of width or precision", MAX_SIZE as u64));
        }
        result = Some(value);
    }
    Ok(result)
}

impl Spec {
    fn apply(&self, vm: &mut Interpreter, value: &Value) -> Outcome<String> {
        let mut numeric = true;
        let kind = self.kind.unwrap_or(match value {
            Value::Int(_) => 'd',
            Value::Float(_) => 'g',
            _ => 's',
        });
        let body = match kind {
            's' | 'r' | 'a' => {
                numeric = false;
                let mut text = if kind == 's' {
                    vm.string(value)?.to_string()
                } else {
                    vm.reserve(value.weight().saturating_mul(4))?;
                    let mut out = String::new();
                    value.repr(&mut out);
                    out
                };
                if let Some(precision) = self.precision {
                    text = text.chars().take(precision).collect();
                }
                text
            }
            'c' => {
                numeric = false;
                match value {
                    Value::Str(text) => text.to_string(),
                    other => {
                        let code = other.as_int().and_then(|code| u32::try_from(code).ok());
                        code.and_then(char::from_u32)
                            .ok_or_else(|| Fault::Error(format!("{} is no character", describe(other))))?
                            .to_string()
                    }
                }
            }
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'b' => {
                let integer = match value {
                    Value::Float(number) if number.is_finite() && self.kind != Some('x') => {
                        Some(number.trunc() as i128)
                    }
                    other => other.as_int(),
                };
                let Some(integer) = integer else {
                    return fail(format!("{} is not an integer", describe(value)));
                };
                let digits = match kind {
                    'x' => format!("{:x}", integer.unsigned_abs()),
                    'X' => format!("{:X}", integer.unsigned_abs()),
                    'o' => format!("{:o}", integer.unsigned_abs()),
                    'b' => format!("{:b}", integer.unsigned_abs()),
                    _ => integer.unsigned_abs().to_string(),
                };
                let prefix = match kind {
                    'x' | 'X' | 'o' | 'b' if self.alternate => format!("0{kind}"),
                    _ => String::new(),
                };
                self.signed(integer < 0, &(prefix + &self.grouped(&digits)))
            }
            'f' | 'F' | 'e' | 'E' | 'g' | 'G' | '%' => {
                let Some(number) = value.as_float() else {
                    return fail(format!("{} is not a number", describe(value)));
                };
                let precision = self.precision.unwrap_or(6);
                let size = number.abs();
                let digits = match kind {
                    'f' | 'F' => self.grouped(&format!("{size:.precision$}")),
                    '%' => format!("{:.precision$}%", size * 100.0),
                    'e' | 'E' => exponential(&format!("{size:.precision$e}")),
                    // Without type and precision: as `str` shows it.
                    _ if self.kind.is_none() && self.precision.is_none() => {
                        let mut out = String::new();
                        super::value::float_repr(size, &mut out);
                        self.grouped(&out)
                    }
                    _ => general(size, precision.max(1)),
                };
                let digits = if kind.is_ascii_uppercase() { digits.to_uppercase() } else { digits };
                self.signed(number.is_sign_negative() && !number.is_nan(), &digits)
            }
            other => return fail(format!("unknown format character '{other}'")),
        };
        Ok(self.padded(&body, numeric))
    }

    fn signed(&self, negative: bool, digits: &str) -> String {
        match (negative, self.sign) {
            (true, _) => format!("-{digits}"),
            (false, Some(sign @ ('+' | ' '))) => format!("{sign}{digits}"),
            _ => digits.to_owned(),
        }
    }

    fn grouped(&self, digits: &str) -> String {
        if !self.comma {
            return digits.to_owned();
        }
        let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
        let mut out = String::new();
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        out + rest
    }

    fn padded(&self, body: &str, numeric: bool) -> String {
        let missing = self.width.saturating_sub(body.chars().count());
        let align = self.align.unwrap_or(match (numeric, self.zero) {
            (true, true) => '=',
            (true, false) => '>',
            _ => '<',
        });
        let fill = self.fill.unwrap_or(if self.zero && numeric { '0' } else { ' ' });
        let pad = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
        match align {
            '<' => body.to_owned() + &pad(missing),
            '^' => pad(missing / 2) + body + &pad(missing - missing / 2),
            '=' => {
                let sign = usize::from(body.starts_with(['+', '-', ' ']));
                format!("{}{}{}", &body[..sign], pad(missing), &body[sign..])
            }
            _ => pad(missing) + body,
        }
    }
}

/// Rust writes `1.5e3`, Python `1.5e+03`.
fn exponential(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// The format `g`: so many significant digits, trailing zeros dropped.
fn general(number: f64, precision: usize) -> String {
    let scientific = format!("{number:.0$e}", precision - 1);
    let exponent: i32 =
        scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if exponent < -4 || exponent >= precision as i32 {
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        exponential(&format!("{}e{exponent}", trim(mantissa)))
    } else {
        let digits = usize::try_from(precision as i32 - 1 - exponent).unwrap_or(0);
        trim(&format!("{number:.digits$}"))
    }
}

/// `format % argument`.
pub(crate) fn percent(vm: &mut Interpreter, format: &str, argument: &Value) -> Outcome<Value> {
    let mut positional: Vec<Value> = match argument {
        Value::Tuple(seq) => seq.items.clone(),
        other => vec![other.clone()],
    };
    positional.reverse();
    let mut used_names = false;
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut name = None;
        if chars.next_if_eq(&'(').is_some() {
            name = Some(chars.by_ref().take_while(|c| *c != ')').collect::<String>());
        }
        let mut spec = Spec { align: Some('>'), ..Spec::default() };
        while let Some(flag) = chars.next_if(|c| "-+ #0".contains(*c)) {
            match flag {
                '-' => spec.align = Some('<'),
                '0' => spec.zero = true,
                '#' => spec.alternate = true,
                sign => spec.sign = Some(sign),
            }
        }
        spec.width = number(&mut chars)?.unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(number(&mut chars)?.unwrap_or(0));
        }
        let Some(kind) = chars.next() else { return fail("incomplete format") };
        spec.kind = Some(kind);
        if spec.zero && spec.align == Some('>') && !"srac".contains(kind) {
            spec.align = Some('=');
        }
        let value = match name {
            Some(name) => {
                used_names = true;
                let Value::Dict(dict) = argument else { return fail("format requires a mapping") };
                match dict.map.get(name.as_str()) {
                    Some(value) => value.clone(),
                    None => return fail(format!("format: no value named '{name}'")),
                }
            }
            None => match positional.pop() {
                Some(value) => value,
                None => return fail("not enough arguments for format string"),
            },
        };
        let text = spec.apply(vm, &value)?;
        vm.reserve(text.len() as u64)?;
        out.push_str(&text);
    }
    // Whatever could be a mapping may go unused.
    let indexable = matches!(argument, Value::Dict(_) | Value::List(_) | Value::Undefined(_));
    if !positional.is_empty() && !used_names && !indexable {
        return fail("not all arguments converted during string formatting");
    }
    vm.text(out)
}

/// `format.format(…)`.
pub(crate) fn braces(vm: &mut Interpreter, format: &str, args: Args) -> Outcome<Value> {
    let mut out = String::new();
    let mut next = 0;
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' if chars.next_if_eq(&'{').is_some() => out.push('{'),
            '}' if chars.next_if_eq(&'}').is_some() => out.push('}'),
            '{' => {
                let field: String = chars.by_ref().take_while(|c| *c != '}').collect();
                let (path, spec) = field.split_once(':').unwrap_or((&field, ""));
                let (path, conversion) = path.split_once('!').unwrap_or((path, ""));
                let value = field_value(vm, path, &args, &mut next)?;
                let mut spec = parse_spec(spec)?;
                match conversion {
                    "" => {}
                    "s" => spec.kind = Some('s'),
                    "r" | "a" => spec.kind = Some('r'),
                    other => return fail(format!("unknown conversion '{other}'")),
                }
                let text = spec.apply(vm, &value)?;
                vm.reserve(text.len() as u64)?;
                out.push_str(&text);
            }
            '}' => return fail("single '}' in format string"),
            c => out.push(c),
        }
    }
    vm.text(out)
}

/// The value of a field: a position or a name, then attributes and items.
fn field_value(vm: &mut Interpreter, path: &str, args: &Args, next: &mut usize) -> Outcome<Value> {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (first, mut rest) = path.split_at(end);
    let position = if first.is_empty() {
        *next += 1;
        Some(*next - 1)
    } else {
        first.parse().ok()
    };
    let found = match position {
        Some(position) => args.positional.get(position),
        None => args.named.iter().find(|(name, _)| name.as_ref() == first).map(|(_, value)| value),
    };
    let Some(value) = found else { return fail(format!("format: no argument '{first}'")) };
    let mut value = value.clone();
    while let Some(separator) = rest.chars().next() {
        let body = &rest[1..];
        let end = body
            .find(if separator == '[' { "]" } else { "." })
            .or_else(|| (separator == '.').then(|| body.find('[')).flatten());
        let name = &body[..end.unwrap_or(body.len())];
        rest = &body[end.unwrap_or(body.len())..];
        rest = rest.strip_prefix(']').unwrap_or(rest);
        let index = match name.parse::<i128>() {
            Ok(index) if separator == '[' => Value::Int(index),
            _ => Value::str(name),
        };
        value = match (&index, separator) {
            (Value::Str(name), '.') => vm.attribute(&value, name)?,
            _ => vm.item(&value, &index)?,
        };
    }
    if let Value::Undefined(reason) = &value {
        return fail(reason.as_ref());
    }
    Ok(value)
}

fn parse_spec(text: &str) -> Outcome<Spec> {
    let mut spec = Spec::default();
    let mut chars = text.chars().peekable();
    let mut ahead = text.chars();
    let (first, second) = (ahead.next(), ahead.next());
    let is_align = |c: Option<char>| c.is_some_and(|c| "<>^=".contains(c));
    if is_align(second) {
        (spec.fill, spec.align) = (first, second);
        chars.next();
        chars.next();
    } else if is_align(first) {
        spec.align = first;
        chars.next();
    }
    spec.sign = chars.next_if(|c| "+- ".contains(*c));
    spec.alternate = chars.next_if_eq(&'#').is_some();
    spec.zero = chars.next_if_eq(&'0').is_some();
    spec.width = number(&mut chars)?.unwrap_or(0);
    spec.comma = chars.next_if(|c| ",_".contains(*c)).is_some();
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = number(&mut chars)?;
    }
    spec.kind = chars.next();
    if chars.next().is_some() {
        return fail(format!("invalid format specifier '{text}'"));
    }
    Ok(spec)
}
