//! Puts a schema so that the parser reads it exactly, or more narrowly, never more widely.

use serde_json::{Map, Number, Value, json};

/// Integers up to here are themselves as floating-point numbers, and so are their neighbours: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Bounds are up to here, because the parser has 64 bits for them.
const LARGEST: f64 = 9e18;
/// Digits of a larger bound that are kept: as many as every floating-point number has.
const DIGITS: u32 = 15;
/// Characters of a text that the parser can count. No answer has so many, so that a text may as well have no more.
pub(crate) const LONGEST: u32 = u32::MAX;

/// Keywords that count something.
const COUNTS: [&str; 6] =
    ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"];

/// A day that there is: the parser's own form has a 29th of February every year.
const DAY: &str = "([0-9]{4}-((0[13-9]|1[0-2])-[0-9]{2}|02-([01][0-9]|2[0-8]))\
    |([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)";
/// A time without leap seconds, of which there are hardly any; the parser's own form has one in every minute.
const TIME: &str = "[0-9]{2}:[0-9]{2}:[0-5][0-9]([.zZ+-].*)?";

/// Rewrites one schema, not those within it. It has passed the checks.
pub(crate) fn rewrite(fields: &mut Map<String, Value>) {
    // Written often, and says nothing.
    if fields.get("uniqueItems") == Some(&Value::Bool(false)) {
        fields.shift_remove("uniqueItems");
    }
    for (key, value) in fields.iter_mut() {
        match key.as_str() {
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                if let Ok(Some(narrow)) = bound(key, value) {
                    *value = narrow;
                }
            }
            key if COUNTS.contains(&key) => {
                // A count may be written as 2.0.
                if let Some(count) = value.as_f64().filter(|count| count.fract() == 0.0 && *count >= 0.0) {
                    let count = value.as_u64().unwrap_or(count as u64);
                    let most = if key == "maxLength" { LONGEST.into() } else { u64::MAX };
                    *value = json!(count.min(most));
                }
            }
            _ => {}
        }
    }
    let narrow = match fields.get("format").and_then(Value::as_str) {
        Some("date") => Some(format!("^{DAY}$")),
        Some("time") => Some(format!("^{TIME}$")),
        Some("date-time") => Some(format!("^{DAY}[tT]{TIME}$")),
        _ => None,
    };
    if let Some(narrow) = narrow {
        // What has a pattern of its own keeps it.
        fields.entry("pattern").or_insert_with(|| narrow.into());
    }
    // The parser takes keywords by groups, between which it forgets what `items` was.
    if let Some(place) = fields.keys().position(|key| key == "items")
        && let Some(additional) = fields.shift_remove("additionalItems")
    {
        let place = fields.keys().position(|key| key == "items").unwrap_or(place);
        fields.shift_insert(place + 1, "additionalItems".to_owned(), additional);
    }
}

/// What is to stand in place of a bound, where it cannot stay: the next value inside of it that the parser reads exactly.
pub(crate) fn bound(key: &str, value: &Value) -> Result<Option<Value>, String> {
    // Booleans are those of an older draft.
    let Some(number) = value.as_f64() else { return Ok(None) };
    let is_upper = key.ends_with("aximum");
    let is_exclusive = key.starts_with("exclusive");
    if number.abs() < EXACT {
        return Ok(None);
    }
    let leads_inside = is_upper == (number > 0.0);
    if number.abs() > LARGEST {
        // Beyond, nothing is written.
        return match leads_inside {
            true => Ok(Some(json!(LARGEST.copysign(number) as i64))),
            false => Err(format!("`{key}` is supported up to 9·10^18")),
        };
    }
    if is_exclusive {
        return Err(format!("`{key}` is supported up to 2^53"));
    }
    let exact = value.as_i64().map_or(number as i128, i128::from);
    let unit = 10_i128.pow(exact.unsigned_abs().ilog10() + 1 - DIGITS);
    let mut narrow = match is_upper {
        true => exact.div_euclid(unit) * unit,
        false => -((-exact).div_euclid(unit) * unit),
    };
    // What it is as a floating-point number may lie on the other side.
    let is_outside = |narrow: i128| {
        let read = narrow as f64 as i128;
        if is_upper { read > exact } else { read < exact }
    };
    while is_outside(narrow) {
        narrow += if is_upper { -unit } else { unit };
    }
    Ok(i64::try_from(narrow).ok().map(|narrow| json!(narrow)))
}

/// Whether a number is itself when it is read as a floating-point number.
pub(crate) fn is_exact(number: &Number) -> bool {
    match (number.as_i64(), number.as_u64()) {
        (Some(exact), _) => (exact as f64) as i128 == i128::from(exact),
        (None, Some(_)) => false,
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_become_narrower_and_never_wider() {
        let narrow = |key: &str, value: Value| bound(key, &value).expect("supported");
        for small in [json!(5), json!(-1.5), json!(9_007_199_254_740_991_i64)] {
            assert_eq!(narrow("maximum", small), None);
        }
        assert_eq!(narrow("maximum", json!(i64::MAX)), Some(json!(9_000_000_000_000_000_000_i64)));
        assert_eq!(narrow("minimum", json!(i64::MIN)), Some(json!(-9_000_000_000_000_000_000_i64)));
        assert_eq!(narrow("maximum", json!(1e300)), Some(json!(9_000_000_000_000_000_000_i64)));
        assert_eq!(
            narrow("maximum", json!(1_234_567_890_123_456_789_i64)),
            Some(json!(1_234_567_890_123_450_000_i64))
        );
        assert_eq!(
            narrow("minimum", json!(1_234_567_890_123_456_789_i64)),
            Some(json!(1_234_567_890_123_460_000_i64))
        );
        assert_eq!(
            narrow("maximum", json!(-1_234_567_890_123_456_789_i64)),
            Some(json!(-1_234_567_890_123_460_000_i64))
        );
        assert!(bound("minimum", &json!(1e19)).is_err() && bound("exclusiveMaximum", &json!(1e17)).is_err());
    }

    #[test]
    fn texts_have_no_more_characters_than_can_be_counted() {
        for (most, rewritten) in [(json!(7), 7), (json!(4_294_967_296_u64), LONGEST), (json!(1e300), LONGEST)]
        {
            let mut fields = json!({"maxLength": most, "maxItems": 4_294_967_296_u64});
            let fields = fields.as_object_mut().expect("an object");
            rewrite(fields);
            assert_eq!(fields["maxLength"], json!(rewritten));
            assert_eq!(fields["maxItems"], json!(4_294_967_296_u64));
        }
    }

    #[test]
    fn keywords_that_belong_together_stand_together() {
        let mut fields =
            json!({"additionalItems": false, "minItems": 2.0, "allOf": [], "items": [{}], "maxItems": 3});
        let fields = fields.as_object_mut().expect("an object");
        rewrite(fields);
        assert_eq!(
            fields.keys().collect::<Vec<_>>(),
            ["minItems", "allOf", "items", "additionalItems", "maxItems"]
        );
        assert_eq!(fields["minItems"].to_string(), "2");
    }
}
