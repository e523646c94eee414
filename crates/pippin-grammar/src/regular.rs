//! Grammars that describe what a regular expression can describe as well. Where an answer is a part of a document, only that can be said
//! of its text: the parser follows no grammar through the escapes of JSON.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::Chars;

use crate::GrammarError;
use crate::compile::literal;

/// Bytes of the expression. Rules stand in it as often as they are named.
const MOST_BYTES: usize = 32 << 10;
/// Rules within rules, and groups within groups.
const DEEPEST: usize = 64;

/// What a Lark grammar describes, as a regular expression of the whole text.
///
/// # Errors
///
/// [`GrammarError::Grammar`] for a grammar that cannot be read, and for one that no regular expression can stand for: with rules that
/// contain themselves, `%ignore`, or terminals with flags.
pub fn pattern_of_grammar(grammar: &str) -> Result<String, GrammarError> {
    let rules = read(grammar).map_err(|problem| GrammarError::Grammar { problem })?;
    let mut writer = Writer { rules: &rules, path: Vec::new() };
    writer.rule("start").map_err(|problem| GrammarError::Grammar { problem })
}

type Rules = HashMap<String, Expression>;

enum Expression {
    /// One of them.
    Any(Vec<Self>),
    /// One behind the other.
    All(Vec<Self>),
    /// So many times; the mark is that of an expression.
    Repeated(Box<Self>, String),
    /// An expression that is one already.
    Pattern(String),
    Rule(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Name(String),
    Text(String),
    Pattern(String),
    Number(u32),
    /// `:`, `|`, `(`, `)`, `[`, `]`, `?`, `*`, `+`, `~`, `%`; `>` for `->`, `-` for `..`, and `.`.
    Mark(char),
    End,
}

fn tokens(grammar: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    for line in grammar.lines() {
        // Marks before the name of a rule say how trees are made of what is read.
        let mut chars = line.trim_start().trim_start_matches(['?', '!']).chars().peekable();
        while let Some(char) = chars.next() {
            tokens.push(match char {
                ' ' | '\t' | '\r' => continue,
                '#' => break,
                '/' if chars.peek() == Some(&'/') => break,
                '/' => Token::Pattern(pattern(&mut chars)?),
                '"' => Token::Text(text(&mut chars)?),
                '-' if chars.next_if_eq(&'>').is_some() => Token::Mark('>'),
                '.' if chars.next_if_eq(&'.').is_some() => Token::Mark('-'),
                ':' | '|' | '(' | ')' | '[' | ']' | '?' | '*' | '+' | '~' | '%' | '.' => Token::Mark(char),
                char if char.is_ascii_digit() => {
                    let mut digits = String::from(char);
                    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                        digits.push(digit);
                    }
                    Token::Number(digits.parse().map_err(|_| format!("the number {digits} is too large"))?)
                }
                char if char.is_ascii_alphabetic() || char == '_' => {
                    let mut name = String::from(char);
                    while let Some(char) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        name.push(char);
                    }
                    Token::Name(name)
                }
                char => return Err(format!("{char:?} is not expected in {line:?}")),
            });
        }
    }
    tokens.push(Token::End);
    Ok(tokens)
}

/// An expression between slashes, of which the first has been read.
fn pattern(chars: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let (mut pattern, mut is_class) = (String::new(), false);
    loop {
        match chars.next().ok_or("a regular expression does not end")? {
            '/' if !is_class => break,
            '\\' => match chars.next().ok_or("a regular expression does not end")? {
                '/' => pattern.push_str("\\/"),
                escaped => pattern.extend(['\\', escaped]),
            },
            '^' | '$' if !is_class => {
                return Err("a terminal of a grammar has no anchors (`^`, `$`)".to_owned());
            }
            '[' if !is_class => {
                is_class = true;
                pattern.push('[');
                // A `]` that comes first is one of the characters, and `^` is no anchor.
                pattern.extend(chars.next_if_eq(&'^'));
                if chars.next_if_eq(&']').is_some() {
                    pattern.push_str("\\]");
                }
            }
            ']' => {
                is_class = false;
                pattern.push(']');
            }
            char => pattern.push(char),
        }
    }
    if chars.peek().is_some_and(char::is_ascii_alphabetic) {
        return Err("flags of a regular expression are not supported here".to_owned());
    }
    Ok(pattern)
}

/// A text between quotation marks, of which the first has been read.
fn text(chars: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    const OPEN: &str = "a text does not end";
    let mut text = String::new();
    loop {
        match chars.next().ok_or(OPEN)? {
            '"' => break,
            '\\' => text.push(match chars.next().ok_or(OPEN)? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'f' => '\u{c}',
                kind @ ('x' | 'u') => {
                    let digits: String = chars.by_ref().take(if kind == 'x' { 2 } else { 4 }).collect();
                    let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                    code.ok_or_else(|| format!("\\{kind}{digits} is no character"))?
                }
                escaped @ ('\\' | '"' | '/') => escaped,
                escaped => return Err(format!("the escape \\{escaped} is not known")),
            }),
            char => text.push(char),
        }
    }
    match chars.peek() {
        Some('i') => Err("texts in any case (`\"…\"i`) are not supported here".to_owned()),
        _ => Ok(text),
    }
}

fn read(grammar: &str) -> Result<Rules, String> {
    let tokens = tokens(grammar)?;
    let mut reader = Reader { tokens: &tokens, at: 0, depth: 0 };
    let mut rules = Rules::new();
    loop {
        match reader.next() {
            Token::End => break,
            Token::Mark('%') => {
                let (name, pattern) = reader.import()?;
                rules.insert(name, Expression::Pattern(pattern));
            }
            Token::Name(name) => {
                if reader.take('.') {
                    // A priority: where two fit, the text is the same.
                    reader.next();
                }
                if !reader.take(':') {
                    return Err(format!("after {name} there is no `:`"));
                }
                let expression = reader.any()?;
                if rules.insert(name.clone(), expression).is_some() {
                    return Err(format!("there are two rules {name}"));
                }
            }
            token => return Err(format!("a rule begins with {token:?}")),
        }
    }
    Ok(rules)
}

struct Reader<'t> {
    tokens: &'t [Token],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn take(&mut self, mark: char) -> bool {
        let found = *self.peek() == Token::Mark(mark);
        self.at += usize::from(found);
        found
    }

    /// What stands behind a `%`.
    fn import(&mut self) -> Result<(String, String), String> {
        let words: Vec<Token> = (0..4).map(|_| self.next()).collect();
        let [Token::Name(directive), Token::Name(from), Token::Mark('.'), Token::Name(name)] = &words[..]
        else {
            return Err("of directives, only %import common.NAME is supported here".to_owned());
        };
        if directive != "import" || from != "common" {
            return Err(format!("%{directive} {from} is not supported here, only %import common.NAME"));
        }
        let known = COMMON.iter().find(|(known, _)| known == name);
        let (_, pattern) = known.ok_or_else(|| format!("common.{name} is not known here"))?;
        let name = match self.take('>') {
            true => match self.next() {
                Token::Name(name) => name,
                token => return Err(format!("a name is expected instead of {token:?}")),
            },
            false => name.clone(),
        };
        Ok((name, (*pattern).to_owned()))
    }

    fn any(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("its groups are nested too deeply".to_owned());
        }
        self.take('|');
        let mut all = vec![self.all()?];
        while self.take('|') {
            all.push(self.all()?);
        }
        self.depth -= 1;
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::Any(all) })
    }

    fn all(&mut self) -> Result<Expression, String> {
        let mut all = Vec::new();
        loop {
            let one = match self.peek().clone() {
                Token::Name(_) if self.begins_rule() => break,
                Token::Name(name) => {
                    self.at += 1;
                    Expression::Rule(name)
                }
                Token::Pattern(pattern) => {
                    self.at += 1;
                    Expression::Pattern(pattern)
                }
                Token::Text(text) => {
                    self.at += 1;
                    match self.take('-') {
                        true => Expression::Pattern(range(&text, &self.next())?),
                        false => Expression::Pattern(literal(&text)),
                    }
                }
                Token::Mark('(') => {
                    self.at += 1;
                    self.group(')')?
                }
                Token::Mark('[') => {
                    self.at += 1;
                    Expression::Repeated(Box::new(self.group(']')?), "?".to_owned())
                }
                Token::Mark('>') => {
                    // The name of a branch in a tree.
                    self.at += 2;
                    continue;
                }
                _ => break,
            };
            all.push(self.repeated(one)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::All(all) })
    }

    /// Whether a name is that of the next rule, which may have a priority.
    fn begins_rule(&self) -> bool {
        let is_mark = |offset: usize, mark| self.tokens.get(self.at + offset) == Some(&Token::Mark(mark));
        is_mark(1, ':') || is_mark(1, '.') && is_mark(3, ':')
    }

    fn group(&mut self, end: char) -> Result<Expression, String> {
        let inner = self.any()?;
        if self.take(end) { Ok(inner) } else { Err(format!("a group does not end with `{end}`")) }
    }

    fn repeated(&mut self, one: Expression) -> Result<Expression, String> {
        let mark = match self.peek() {
            Token::Mark(mark @ ('?' | '*' | '+')) => mark.to_string(),
            Token::Mark('~') => {
                self.at += 1;
                let Token::Number(least) = *self.peek() else {
                    return Err("behind `~` there is no number".to_owned());
                };
                self.at += 1;
                if !self.take('-') {
                    return Ok(Expression::Repeated(Box::new(one), format!("{{{least}}}")));
                }
                let Token::Number(most) = *self.peek() else {
                    return Err("behind `..` there is no number".to_owned());
                };
                format!("{{{least},{most}}}")
            }
            _ => return Ok(one),
        };
        self.at += 1;
        Ok(Expression::Repeated(Box::new(one), mark))
    }
}

/// One of the characters from one to another.
fn range(from: &str, to: &Token) -> Result<String, String> {
    let single = |text: &str| {
        let mut chars = text.chars();
        chars.next().filter(|char| chars.next().is_none() && char.is_ascii_alphanumeric())
    };
    match (single(from), to) {
        (Some(from), Token::Text(to)) => match single(to) {
            Some(to) if from <= to => Ok(format!("[{from}-{to}]")),
            _ => Err(format!("{from:?}..{to:?} is no range of letters or digits")),
        },
        _ => Err("a range is not one of letters or digits".to_owned()),
    }
}

/// The terminals of Lark's library that are regular and plain.
const COMMON: [(&str, &str); 17] = [
    ("LF", "\\n"),
    ("CR", "\\r"),
    ("NEWLINE", "(?:\\r?\\n)+"),
    ("WS", "[ \\t\\f\\r\\n]+"),
    ("WS_INLINE", "[ \\t]+"),
    ("DIGIT", "[0-9]"),
    ("HEXDIGIT", "[0-9a-fA-F]"),
    ("INT", "[0-9]+"),
    ("SIGNED_INT", "[+-]?[0-9]+"),
    ("DECIMAL", "(?:[0-9]+\\.[0-9]*|\\.[0-9]+)"),
    ("NUMBER", "(?:[0-9]+(?:\\.[0-9]*)?|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?"),
    ("SIGNED_NUMBER", "[+-]?(?:[0-9]+(?:\\.[0-9]*)?|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?"),
    ("UCASE_LETTER", "[A-Z]"),
    ("LCASE_LETTER", "[a-z]"),
    ("LETTER", "[A-Za-z]"),
    ("WORD", "[A-Za-z]+"),
    ("CNAME", "[A-Za-z_][A-Za-z0-9_]*"),
];

struct Writer<'r> {
    rules: &'r Rules,
    /// The rules that are being written.
    path: Vec<String>,
}

impl Writer<'_> {
    fn rule(&mut self, name: &str) -> Result<String, String> {
        let Some(expression) = self.rules.get(name) else { return Err(format!("there is no rule {name}")) };
        if self.path.iter().any(|known| known == name) {
            return Err(format!("the rule {name} contains itself, which is not supported here"));
        }
        if self.path.len() >= DEEPEST {
            return Err("its rules are nested too deeply".to_owned());
        }
        self.path.push(name.to_owned());
        let written = self.written(expression);
        self.path.pop();
        written
    }

    /// What can stand beside others, and be repeated.
    fn written(&mut self, expression: &Expression) -> Result<String, String> {
        let written = match expression {
            Expression::Pattern(pattern) => format!("(?:{pattern})"),
            Expression::Rule(name) => self.rule(name)?,
            Expression::Repeated(inner, mark) => format!("(?:{}{mark})", self.written(inner)?),
            Expression::All(all) => format!("(?:{})", self.joined(all, "")?),
            Expression::Any(all) => format!("(?:{})", self.joined(all, "|")?),
        };
        match written.len() > MOST_BYTES {
            true => Err(format!("as a regular expression it has more than {MOST_BYTES} bytes")),
            false => Ok(written),
        }
    }

    fn joined(&mut self, all: &[Expression], between: &str) -> Result<String, String> {
        let mut joined = String::new();
        for (index, one) in all.iter().enumerate() {
            if index > 0 {
                joined.push_str(between);
            }
            joined += &self.written(one)?;
            if joined.len() > MOST_BYTES {
                return Err(format!("as a regular expression it has more than {MOST_BYTES} bytes"));
            }
        }
        Ok(joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(grammar: &str, text: &str) -> bool {
        let pattern = pattern_of_grammar(grammar).expect("regular");
        regex::Regex::new(&format!("^(?:{pattern})$")).expect("a pattern").is_match(text)
    }

    /// What Codex sends.
    const PATCH: &str = r#"start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
update_hunk: "*** Update File: " filename LF change_move? change?

filename: /(.+)/
add_line: "+" /(.*)/ LF -> line

change_move: "*** Move to: " filename LF
change: (change_context | change_line)+ eof_line?
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.*)/ LF
eof_line: "*** End of File" LF

%import common.LF
"#;

    #[test]
    fn patches_are_regular() {
        for text in [
            "*** Begin Patch\n*** Add File: a.txt\n+Hello\n+\n*** End Patch",
            "*** Begin Patch\n*** Update File: a (1).txt\n*** Move to: b\n@@ fn main\n-old\n+new\n *** End of File\n*** End of File\n*** Delete File: c\n*** End Patch\n",
        ] {
            assert!(is_match(PATCH, text), "{text}");
        }
        for text in [
            "",
            "*** Begin Patch\n*** End Patch",
            "*** Begin Patch\n*** Add File: a.txt\n*** End Patch",
            "*** Begin Patch\n*** Update File: a\nold\n*** End Patch",
            "*** Begin Patch\n*** Delete File: \n*** End Patch",
        ] {
            assert!(!is_match(PATCH, text), "{text}");
        }
    }

    #[test]
    fn notation_is_read_as_lark_reads_it() {
        let grammar = r#"
            // Something of everything.
            ?start: item ("," item)* -> list
                  | "none"
            !item.2: NAME ["=" value] | value~2..3 # behind it
            value: "a".."f" | /[^\]\/"\n]\// | "\"\\\u0041\x42\t" | INT~2
            NAME.1: /[A-Z]+/
            %import common.INT
        "#;
        for text in ["none", "AB=a", "AB", "ab", "abc,X", "x/y/,Y=12", "\"\\AB\ta", "NN=12,12c"] {
            assert!(is_match(grammar, text), "{text}");
        }
        for text in ["", "nones", "a", "abcd", "g", "AB=", "]/a", "//a"] {
            assert!(!is_match(grammar, text), "{text}");
        }
    }

    #[test]
    fn what_is_not_regular_is_refused() {
        let deep: String = (0..100).map(|i| format!("r{i}: r{}\n", i + 1)).collect();
        let wide: String = (0..40).map(|i| format!("r{i}: r{} r{}\n", i + 1, i + 1)).collect();
        for (grammar, part) in [
            ("start: \"(\" start? \")\"", "contains itself"),
            ("start: a\na: b | \"x\"\nb: a", "contains itself"),
            ("start: a", "no rule a"),
            ("begin: \"a\"", "no rule start"),
            ("start: \"a\"\nstart: \"b\"", "two rules"),
            ("start: \"a\"\n%ignore \" \"", "%import common"),
            ("start: \"a\"i", "any case"),
            ("start: /a/i", "flags"),
            ("start: /^a$/", "anchors"),
            ("start: \"a", "does not end"),
            ("start: (\"a\"", "does not end"),
            ("start: <[7]>", "not expected"),
            ("start: %json {}", "not expected"),
            ("start: \"a\" )", "a rule begins"),
            ("start: \"\\q\"", "escape"),
            ("start: \"a\"\n%import common.NOTHING", "not known"),
            (&format!("start: r0\n{deep}r100: \"x\""), "deeply"),
            (&format!("start: r0\n{wide}r40: \"x\""), "bytes"),
            (&format!("start: {}\"a\"{}", "(".repeat(200), ")".repeat(200)), "deeply"),
        ] {
            let error = pattern_of_grammar(grammar).expect_err(grammar).to_string();
            assert!(error.contains(part), "{grammar}: {error}");
        }
    }
}
