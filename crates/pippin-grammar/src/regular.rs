//! Grammars that describe what a regular expression can describe as well. Where an answer is a part of a document, only that can be said
//! of its text: the parser follows no grammar through the escapes of JSON.

use std::collections::HashMap;
use std::fmt;
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
/// contain themselves, `%ignore`, or terminals with anchors. It says in which line.
pub fn pattern_of_grammar(grammar: &str) -> Result<String, GrammarError> {
    let rules = read(grammar).map_err(|problem| GrammarError::Grammar { problem })?;
    let mut writer = Writer { rules: &rules, path: Vec::new() };
    writer.rule("start", None).map_err(|problem| GrammarError::Grammar { problem })
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
    /// What is named, and the line in which that is done.
    Rule(String, usize),
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

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Text(text) => write!(f, "the text {}", quoted(text)),
            Self::Pattern(_) => f.write_str("a regular expression"),
            Self::Number(number) => write!(f, "the number {number}"),
            Self::Mark('>') => f.write_str("`->`"),
            Self::Mark('-') => f.write_str("`..`"),
            Self::Mark(mark) => write!(f, "`{mark}`"),
            Self::End => f.write_str("the end"),
        }
    }
}

/// A text as a grammar has it, and no more than its beginning.
fn quoted(text: &str) -> String {
    const MOST: usize = 40;
    let cut = if text.chars().count() > MOST { "…" } else { "" };
    let begin: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    format!("\"{begin}{cut}\"")
}

fn in_line(line: usize, problem: &str) -> String {
    format!("line {line}: {problem}")
}

/// The parts of a grammar with their lines, counted from 1.
fn tokens(grammar: &str) -> Result<Vec<(Token, usize)>, String> {
    let mut tokens = Vec::new();
    let mut last = 1;
    for (line, number) in grammar.lines().zip(1..) {
        tokens_of_line(line, number, &mut tokens).map_err(|problem| in_line(number, &problem))?;
        last = number;
    }
    tokens.push((Token::End, last));
    Ok(tokens)
}

fn tokens_of_line(line: &str, number: usize, tokens: &mut Vec<(Token, usize)>) -> Result<(), String> {
    // Marks before the name of a rule say how trees are made of what is read.
    let mut chars = line.trim_start().trim_start_matches(['?', '!']).chars().peekable();
    while let Some(char) = chars.next() {
        let token = match char {
            ' ' | '\t' | '\r' => continue,
            '#' => break,
            '/' if chars.peek() == Some(&'/') => break,
            '/' => Token::Pattern(pattern(&mut chars)?),
            '"' => {
                let text = text(&mut chars)?;
                match chars.next_if_eq(&'i') {
                    Some(_) => Token::Pattern(format!("(?i:{})", literal(&text))),
                    None => Token::Text(text),
                }
            }
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
            '{' => return Err("`{` is not expected; repetitions are `~2` and `~2..4`".to_owned()),
            char => return Err(format!("`{}` is not expected", char.escape_debug())),
        };
        tokens.push((token, number));
    }
    Ok(())
}

/// An expression between slashes, of which the first has been read.
fn pattern(chars: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let (mut pattern, mut is_class) = (String::new(), false);
    loop {
        match chars.next().ok_or("a regular expression does not end")? {
            '/' if !is_class => break,
            '\\' => match chars.next().ok_or("a regular expression does not end")? {
                '/' => pattern.push_str("\\/"),
                anchor @ ('A' | 'z' | 'Z' | 'b' | 'B' | 'G' | '<' | '>') if !is_class => {
                    return Err(format!("a terminal of a grammar has no anchors (`\\{anchor}`)"));
                }
                escaped => pattern.extend(['\\', escaped]),
            },
            anchor @ ('^' | '$') if !is_class => {
                return Err(format!("a terminal of a grammar has no anchors (`{anchor}`)"));
            }
            '(' if !is_class && chars.next_if_eq(&'?').is_some() => {
                pattern.push_str("(?");
                check_group(chars.clone())?;
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
    if let Err(error) = regex_syntax::parse(&pattern) {
        let kind = match error {
            regex_syntax::Error::Parse(error) => error.kind().to_string(),
            regex_syntax::Error::Translate(error) => error.kind().to_string(),
            _ => "it cannot be read".to_owned(),
        };
        return Err(format!("a regular expression is none: {kind}"));
    }
    flagged(pattern, chars)
}

/// What is between `(?` and what it begins: a group may have flags that change which texts there are, and look at nothing else.
fn check_group(mut chars: Peekable<Chars<'_>>) -> Result<(), String> {
    let named = |mut chars: Peekable<Chars<'_>>| chars.next().is_some_and(|c| c.is_alphabetic() || c == '_');
    match chars.next() {
        Some('P') if chars.next_if_eq(&'<').is_some() => return Ok(()),
        Some('<') if named(chars.clone()) => return Ok(()),
        Some('=' | '!' | '<') => return Err("look-around is not supported here".to_owned()),
        Some(':') => return Ok(()),
        Some('i' | 's' | '-') => {}
        _ => return Err(FLAGS.to_owned()),
    }
    while chars.next_if(|char| matches!(char, 'i' | 's' | '-')).is_some() {}
    match chars.next() {
        Some(':' | ')') => Ok(()),
        _ => Err(FLAGS.to_owned()),
    }
}

const FLAGS: &str = "of flags, only `i` and `s` are supported here";

/// An expression with the flags that stand behind it.
fn flagged(pattern: String, chars: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut flags = String::new();
    while let Some(flag) = chars.next_if(char::is_ascii_alphabetic) {
        match flag {
            'i' | 's' if flags.contains(flag) => {}
            'i' | 's' => flags.push(flag),
            _ => return Err(FLAGS.to_owned()),
        }
    }
    Ok(if flags.is_empty() { pattern } else { format!("(?{flags}:{pattern})") })
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
    Ok(text)
}

fn read(grammar: &str) -> Result<Rules, String> {
    let tokens = tokens(grammar)?;
    let mut reader = Reader { tokens: &tokens, at: 0, depth: 0 };
    reader.rules().map_err(|problem| in_line(reader.line(), &problem))
}

struct Reader<'t> {
    tokens: &'t [(Token, usize)],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn rules(&mut self) -> Result<Rules, String> {
        let mut rules = Rules::new();
        loop {
            match self.next() {
                Token::End => break,
                Token::Mark('%') => {
                    let (name, pattern) = self.import()?;
                    rules.insert(name, Expression::Pattern(pattern));
                }
                Token::Name(name) => {
                    let begin = self.at;
                    if self.take('.') {
                        // A priority: where two fit, the text is the same.
                        self.next();
                    }
                    if !self.take(':') {
                        return Err(format!("after `{name}` there is no `:`"));
                    }
                    let expression = self.any()?;
                    if rules.insert(name.clone(), expression).is_some() {
                        self.at = begin;
                        return Err(format!("there are two rules `{name}`"));
                    }
                }
                token => return Err(format!("a rule does not begin with {token}")),
            }
        }
        Ok(rules)
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    /// The line of what has been read last.
    fn line(&self) -> usize {
        let last = self.at.saturating_sub(1).min(self.tokens.len().saturating_sub(1));
        self.tokens.get(last).map_or(1, |(_, line)| *line)
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
        let begin = self.at;
        let words: Vec<Token> = (0..4).map(|_| self.next()).collect();
        // What is wrong is wrong in the line in which it begins.
        let end = std::mem::replace(&mut self.at, begin);
        let [Token::Name(directive), Token::Name(from), Token::Mark('.'), Token::Name(name)] = &words[..]
        else {
            return Err("of directives, only %import common.NAME is supported here".to_owned());
        };
        if directive != "import" || from != "common" {
            return Err(format!("%{directive} {from} is not supported here, only %import common.NAME"));
        }
        let known = COMMON.iter().find(|(known, _)| known == name);
        let (_, pattern) = known.ok_or_else(|| {
            let names: Vec<&str> = COMMON.iter().map(|(name, _)| *name).collect();
            format!("common.{name} is not known here, only {}", names.join(", "))
        })?;
        self.at = end;
        let name = match self.take('>') {
            true => match self.next() {
                Token::Name(name) => name,
                token => return Err(format!("a name is expected instead of {token}")),
            },
            false => name.clone(),
        };
        Ok((name, (*pattern).to_owned()))
    }

    fn any(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("its groups are nested too deeply: {DEEPEST} within each other are allowed"));
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
                    Expression::Rule(name, self.line())
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
        let is_mark = |offset: usize, mark| {
            self.tokens.get(self.at + offset).is_some_and(|(token, _)| *token == Token::Mark(mark))
        };
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
                if most < least {
                    return Err(format!("`~{least}..{most}` ends before it begins"));
                }
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
    let Token::Text(to) = to else {
        return Err(format!("{}.. is no range of letters or digits", quoted(from)));
    };
    match (single(from), single(to)) {
        (Some(first), Some(last)) if first <= last => Ok(format!("[{first}-{last}]")),
        _ => Err(format!("{}..{} is no range of letters or digits", quoted(from), quoted(to))),
    }
}

/// The terminals of Lark's library, as the parser has them where it follows a grammar itself.
const COMMON: [(&str, &str); 25] = [
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
    ("_EXP", "[eE][+-]?[0-9]+"),
    ("FLOAT", "(?:(?:[0-9]+\\.[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)"),
    ("SIGNED_FLOAT", "[+-]?(?:(?:[0-9]+\\.[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)"),
    ("ESCAPED_STRING", "\"(?:[^\"\\\\]|\\\\.)*\""),
    ("SH_COMMENT", "#[^\\n]*"),
    ("CPP_COMMENT", "//[^\\n]*"),
    ("C_COMMENT", "/\\*[^*]*\\*+(?:[^/*][^*]*\\*+)*/"),
    ("SQL_COMMENT", "--[^\\n]*"),
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
    /// A rule that is named in this line.
    fn rule(&mut self, name: &str, line: Option<usize>) -> Result<String, String> {
        let problem = |problem: String| line.map_or_else(|| problem.clone(), |line| in_line(line, &problem));
        let Some(expression) = self.rules.get(name) else {
            return Err(problem(format!("there is no rule `{name}`")));
        };
        if self.path.iter().any(|known| known == name) {
            return Err(problem(format!("the rule `{name}` contains itself, which is not supported here")));
        }
        if self.path.len() >= DEEPEST {
            return Err(problem(format!(
                "its rules are nested too deeply: {DEEPEST} within each other are allowed"
            )));
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
            Expression::Rule(name, line) => self.rule(name, Some(*line))?,
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
            ("start: a", "no rule `a`"),
            ("begin: \"a\"", "no rule `start`"),
            ("start: \"a\"\nstart: \"b\"", "two rules"),
            ("start: \"a\"\n%ignore \" \"", "%import common"),
            ("start: /a/x", "flags"),
            ("start: /(?x)a b/", "flags"),
            ("start: /(?-u:a)/", "flags"),
            ("start: /^a$/", "anchors"),
            (r"start: /\Aa\z/", "anchors"),
            (r"start: /\bfoo\b/", "anchors"),
            ("start: /a(?=b)/", "look-around"),
            ("start: /(?<!b)a/", "look-around"),
            ("start: /(/", "unclosed group"),
            ("start: \"a", "does not end"),
            ("start: (\"a\"", "does not end"),
            ("start: <[7]>", "not expected"),
            ("start: %json {}", "not expected"),
            ("start: \"a\" )", "a rule does not begin"),
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

    #[test]
    fn flags_and_texts_in_any_case() {
        let grammar = "start: \"Get \"i /[a-c]./is /(?i:x)(?<n>y)/";
        for text in ["get adxy", "GET B\nXy"] {
            assert!(is_match(grammar, text), "{text}");
        }
        for text in ["get ddxy", "get adxY"] {
            assert!(!is_match(grammar, text), "{text}");
        }
    }

    #[test]
    fn the_library_is_known() {
        for (name, texts) in [
            ("ESCAPED_STRING", [r#""""#, r#""a \"b\" \\""#]),
            ("FLOAT", ["1e-3", ".5"]),
            ("SIGNED_FLOAT", ["-1.", "+.5E1"]),
            ("_EXP", ["e1", "E+20"]),
            ("SH_COMMENT", ["#", "# a"]),
            ("CPP_COMMENT", ["//", "// a"]),
            ("C_COMMENT", ["/**/", "/* a\n**/"]),
            ("SQL_COMMENT", ["--", "-- a"]),
        ] {
            for text in texts {
                let grammar = format!("start: {name}\n%import common.{name}");
                assert!(is_match(&grammar, text), "{name}: {text}");
            }
        }
        assert!(!is_match("start: ESCAPED_STRING\n%import common.ESCAPED_STRING", r#""a"b""#));
    }

    #[test]
    fn problems_have_lines_and_name_what_the_grammar_says() {
        for (grammar, expected) in [
            ("\n( \"b\"", "line 2: a rule does not begin with `(`"),
            ("start: a\n.. x", "line 2: a rule does not begin with `..`"),
            ("start: a\na: \"a\"{2,4}", "line 2: `{` is not expected; repetitions are `~2` and `~2..4`"),
            ("start: \"z\"..\"a\"", "line 1: \"z\"..\"a\" is no range of letters or digits"),
            ("start: \"a\".. b", "line 1: \"a\".. is no range of letters or digits"),
            ("start: a\na: \"a\"~5..2", "line 2: `~5..2` ends before it begins"),
            ("start: a\n\na: b", "line 3: there is no rule `b`"),
            ("start: a\na: \"x\"\na: \"y\"\nb: \"z\"", "line 3: there are two rules `a`"),
            ("start: a\na: \"x\" a", "line 2: the rule `a` contains itself"),
            ("start: a\n%ignore \" \"\na: \"x\"", "line 2: of directives"),
            ("start: a\n%import common.X\na: \"x\"", "line 2: common.X is not known here, only LF"),
            ("start: (\"a\"\nb: \"x\"", "line 1: a group does not end"),
            ("# nothing\nstart \"a\"", "line 2: after `start` there is no `:`"),
            ("start: a\na: /x(/", "line 2: a regular expression is none"),
        ] {
            let GrammarError::Grammar { problem } = pattern_of_grammar(grammar).expect_err(grammar) else {
                panic!("{grammar}")
            };
            assert!(problem.starts_with(expected), "{grammar}: {problem}");
            assert!(!problem.contains("Mark(") && !problem.contains('\''), "{problem}");
        }
    }
}
