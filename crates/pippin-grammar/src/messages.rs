//! What the parser says, in the words of those who use it: its own name limits that nobody can set.

/// Groups within groups, in a grammar, that the parser reads.
pub(crate) const GROUPS: usize = 28;
/// Schemas that the parser makes of one, the combinations of alternatives included.
const SCHEMAS: usize = 50_000;

/// What a line of the parser says about a constraint.
pub(crate) fn translated(line: &str) -> String {
    let has = |part: &str| line.contains(part);
    match () {
        () if has("grammar.symbols.len()") || has("limit for this grammar") => {
            "it has more parts than the parser can tell apart".to_owned()
        }
        () if has("NoExtensionBias") => "nothing that could follow satisfies it".to_owned(),
        () if has("limits.initial_lexer_fuel") || has("fuel exhausted") || has("check fuel") => {
            "to find out what can follow in it takes more work than is allowed; fewer parts that are optional or repeated take less"
                .to_owned()
        }
        () if has("lark grammar too deeply nested") => {
            format!("its groups are nested too deeply: {GROUPS} within each other are allowed")
        }
        () if line.ends_with("schema too large") => {
            format!(
                "it is too large: with every property and item, and every combination of `allOf`, `anyOf` and `oneOf`, it comes to more than \
                 {SCHEMAS} schemas"
            )
        }
        () if line.starts_with("oneOf constraints are not supported") => {
            "the alternatives of `oneOf` have to exclude each other visibly, by their types or by a property that all require".to_owned()
        }
        () => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_nobody_can_set_are_not_named() {
        for line in [
            "lexer precomputation failed; either increase limits.initial_lexer_fuel or disable limits.precompute_large_lexemes",
            "fuel exhausted when checking relevance of lexemes (1000000)",
            "maximum relevance check fuel 1000000 exceeded",
            "DNF too large, fuel exhausted",
            "initial lexer configuration (grammar) too big (limit for this grammar: 1000000)",
            "lark grammar too deeply nested",
            "at line 1: lark grammar too deeply nested",
            "schema too large",
            "at #/properties/a: schema too large",
        ] {
            let message = translated(line);
            for word in ["limits.", "fuel", "lark", "lexer", "DNF", "schema too large"] {
                assert!(!message.contains(word), "{line}: {message}");
            }
        }
        assert_eq!(translated("unclosed group"), "unclosed group");
    }
}
