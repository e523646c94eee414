use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::{JsonCompileOptions, Matcher, panic_utils};
use pippin_sampling::Constraint;
use serde_json::{Value, json};

use crate::guide::{Guide, Start};
use crate::numbers::{Follower, Place};
use crate::schema::{self, Checked};
use crate::{GrammarError, Vocabulary, messages};

/// What compiling a constraint may take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a JSON schema.
    pub schema_bytes: usize,
    /// Bytes of a grammar.
    pub grammar_bytes: usize,
    /// Bytes of a regular expression, or of all choices together.
    pub regex_bytes: usize,
    /// Time. What takes longer is given up; it still ends by itself, because what it may do is bounded.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            schema_bytes: 1 << 20,
            grammar_bytes: 256 << 10,
            regex_bytes: 64 << 10,
            time: Duration::from_secs(10),
        }
    }
}

/// The stack of the thread that compiles. The parser recurses along references; only what is used of it is ever real memory.
const STACK: usize = 512 << 20;
/// How many constraints are compiled at a time, those included that nobody waits for any more.
const AT_A_TIME: usize = 8;
/// How long the place of an error is looked for.
const SEARCH_TIME: Duration = Duration::from_secs(1);
/// Groups within groups, in a grammar.
const NESTING: usize = 200;
/// Parts of a grammar that may be left out or repeated. Of those that stand one behind the other, the parser keeps all in mind at once,
/// and takes seconds to find that they are too many for it.
const LOOSE_PARTS: usize = 8192;

/// Makes a constraint into a guide. It is compiled on a thread of its own while the caller waits.
///
/// # Errors
///
/// Whatever cannot be followed exactly, with its place in the constraint.
pub fn compile(
    vocabulary: &Arc<Vocabulary>,
    constraint: &Constraint,
    start: Start,
    limits: &Limits,
) -> Result<Guide, GrammarError> {
    let source = Source::new(constraint, limits)?;
    let what = source.name();
    let vocabulary = Arc::clone(vocabulary);
    on_thread(what, limits.time, move || {
        // A thought is followed by white space as the model likes; only the beginning of an answer is trimmed.
        let is_trimmed = vocabulary.trims_first_space && !matches!(start, Start::After(_));
        let (matcher, place) = source.matcher(&vocabulary, is_trimmed)?;
        let mut guide = Guide::new(vocabulary, matcher, &start, place)?;
        // The first mask is the most work, and shows whether there is anything to begin with.
        guide.warm_up().map_err(|error| match error {
            GrammarError::Step { problem } => source.error(problem),
            error => error,
        })?;
        Ok(guide)
    })
}

/// Looks at a JSON schema without compiling it: whether answers can be held to what it says.
///
/// # Errors
///
/// A keyword that is not supported, or too much of something, with its place. A schema that passes may still turn out to be one that
/// nothing satisfies.
pub fn check_schema(schema: &Value, limits: &Limits) -> Result<(), GrammarError> {
    let source = Source::new(&Constraint::JsonSchema(schema.clone()), limits)?;
    let Source::Schema(schema) = source else { return Ok(()) };
    // References are followed by recursion.
    on_thread("JSON schema", limits.time, move || schema::check(&schema).map(drop))
}

/// A constraint that has passed the first checks: those that need no stack.
enum Source {
    Schema(Value),
    Regex(String),
    Choice(String),
    Grammar(String),
}

impl Source {
    fn new(constraint: &Constraint, limits: &Limits) -> Result<Self, GrammarError> {
        match constraint {
            Constraint::JsonSchema(value) => {
                schema::check_depth(value)?;
                within("JSON schema", value.to_string().len(), limits.schema_bytes)?;
                Ok(Self::Schema(value.clone()))
            }
            Constraint::JsonObject => Ok(Self::Schema(json!({"type": "object"}))),
            Constraint::Regex(pattern) => {
                within("regular expression", pattern.len(), limits.regex_bytes)?;
                Ok(Self::Regex(whole(pattern).to_owned()))
            }
            Constraint::Choice(texts) => {
                let refuse = |problem: &str| GrammarError::Choice { problem: problem.to_owned() };
                if texts.is_empty() {
                    return Err(refuse("there are none"));
                }
                if texts.iter().any(String::is_empty) {
                    return Err(refuse("one of them is empty"));
                }
                within("list of choices", texts.iter().map(String::len).sum(), limits.regex_bytes)?;
                let texts: Vec<String> = texts.iter().map(|text| literal(text)).collect();
                Ok(Self::Choice(texts.join("|")))
            }
            Constraint::Grammar(grammar) => {
                within("grammar", grammar.len(), limits.grammar_bytes)?;
                check_grammar(grammar)?;
                Ok(Self::Grammar(grammar.clone()))
            }
            _ => Err(GrammarError::Grammar { problem: "a kind of constraint that is not known".to_owned() }),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Schema(_) => "JSON schema",
            Self::Regex(_) => "regular expression",
            Self::Choice(_) => "list of choices",
            Self::Grammar(_) => "grammar",
        }
    }

    fn error(&self, problem: String) -> GrammarError {
        match self {
            Self::Schema(_) => GrammarError::Schema { path: "#".to_owned(), problem },
            Self::Regex(_) => GrammarError::Regex { problem },
            Self::Choice(_) => GrammarError::Choice { problem },
            Self::Grammar(_) => GrammarError::Grammar { problem },
        }
    }

    /// The parser, and where it begins as far as numbers of documents go.
    fn matcher(
        &self,
        vocabulary: &Vocabulary,
        is_trimmed: bool,
    ) -> Result<(Matcher, Option<Follower>), GrammarError> {
        let grammar = match self {
            Self::Schema(schema) => {
                let checked = schema::check(schema)?;
                let grammar = GrammarWithLexer::from_json_schema(with_options(checked.schema.clone()));
                let matcher = parse(vocabulary, grammar, is_trimmed)
                    .map_err(|problem| locate(vocabulary, &checked, problem))?;
                return Ok((matcher, Some(Follower::Document(Place::default()))));
            }
            Self::Regex(pattern) | Self::Choice(pattern) => GrammarWithLexer::from_regex(pattern),
            Self::Grammar(grammar) => {
                let (grammar, documents) = check_schemas(grammar)?;
                let matcher = parse(vocabulary, GrammarWithLexer::from_lark(grammar), is_trimmed)
                    .map_err(|problem| locate_in(vocabulary, &documents, problem))?;
                let place = (!documents.is_empty()).then(|| Follower::Parts(Place::default()));
                return Ok((matcher, place));
            }
        };
        let matcher = parse(vocabulary, grammar, is_trimmed).map_err(|problem| self.error(problem))?;
        Ok((matcher, None))
    }
}

fn parse(vocabulary: &Vocabulary, grammar: GrammarWithLexer, is_trimmed: bool) -> Result<Matcher, String> {
    let mut top = TopLevelGrammar { grammars: vec![grammar], max_tokens: None };
    if is_trimmed {
        // The space that decoding takes away from the first token.
        top.grammars[0].name = Some("answer".to_owned());
        top.grammars.insert(0, GrammarWithLexer::from_lark("start: \" \" @answer".to_owned()));
    }
    let parser = panic_utils::catch_unwind(AssertUnwindSafe(|| vocabulary.factory.create_parser(top)));
    let mut matcher = Matcher::new(Ok(parser.map_err(|error| one_line(&format!("{error:#}")))?));
    match matcher.get_error() {
        Some(error) => Err(one_line(&error)),
        // A grammar that is complete before it has begun.
        None if matcher.is_stopped() => Err("nothing can be said".to_owned()),
        None => match matcher.grammar_warnings().into_iter().next() {
            Some(warning) => Err(one_line(&warning)),
            None => Ok(matcher),
        },
    }
}

/// Says how a document is laid out: with room for indentation, but not for endless white space.
fn with_options(mut schema: Value) -> Value {
    let options = JsonCompileOptions {
        whitespace_flexible: true,
        whitespace_pattern: Some(r"( |\n[ ]{0,40})".to_owned()),
        // Without `u`, so that a text is written in one way only: a name that is taken would be free as `\u0061` again.
        json_allowed_escapes: Some(r#"nrbtf\""#.to_owned()),
        ..JsonCompileOptions::default()
    };
    // `true` and `false` have no place for it.
    if let (Value::Object(fields), Ok(options)) = (&mut schema, serde_json::to_value(options)) {
        fields.insert("x-guidance".to_owned(), options);
    }
    schema
}

/// The innermost schema that fails with the same problem.
fn locate(vocabulary: &Vocabulary, checked: &Checked, problem: String) -> GrammarError {
    let end = Instant::now() + SEARCH_TIME;
    let fails = |place: &&String| {
        let Some(part) = schema::part(&checked.schema, place) else { return false };
        let grammar = GrammarWithLexer::from_json_schema(with_options(part));
        Instant::now() < end && parse(vocabulary, grammar, false).is_err_and(|found| found == problem)
    };
    let mut path = checked.places.iter().find(fails).map_or("#", String::as_str).to_owned();
    // Which of its keywords it is, for those of which a value can be wrong by itself.
    let part = schema::part(&checked.schema, &path);
    let is_at_fault = |key: &&str| {
        let Some(Value::Object(mut part)) = part.clone() else { return false };
        let grammar = |part| GrammarWithLexer::from_json_schema(with_options(Value::Object(part)));
        part.remove(*key).is_some()
            && Instant::now() < end
            && parse(vocabulary, grammar(part), false).err().as_ref() != Some(&problem)
    };
    if let Some(key) = ["format", "pattern", "patternProperties"].into_iter().find(is_at_fault) {
        path += &format!("/{key}");
    }
    GrammarError::Schema { path, problem }
}

/// What is wrong with a grammar: with one of the schemas in it, if one of them fails by itself.
fn locate_in(vocabulary: &Vocabulary, documents: &[(usize, Checked)], problem: String) -> GrammarError {
    let end = Instant::now() + SEARCH_TIME;
    for (line, checked) in documents {
        if Instant::now() >= end {
            break;
        }
        let grammar = GrammarWithLexer::from_json_schema(with_options(checked.schema.clone()));
        let Err(problem) = parse(vocabulary, grammar, false) else { continue };
        return in_grammar(locate(vocabulary, checked, problem), *line);
    }
    GrammarError::Grammar { problem }
}

/// An error of a schema that stands in this line of a grammar.
fn in_grammar(error: GrammarError, line: usize) -> GrammarError {
    match error {
        GrammarError::Schema { path, problem } => {
            GrammarError::Grammar { problem: format!("line {line}: %json at {path}: {problem}") }
        }
        error => error,
    }
}

/// Runs work on a thread of its own for a limited time.
fn on_thread<T: Send + 'static>(
    what: &'static str,
    time: Duration,
    work: impl FnOnce() -> Result<T, GrammarError> + Send + 'static,
) -> Result<T, GrammarError> {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    struct Place;
    impl Drop for Place {
        fn drop(&mut self) {
            RUNNING.fetch_sub(1, Ordering::AcqRel);
        }
    }

    let begin = Instant::now();
    let is_free = |running| (running < AT_A_TIME).then_some(running + 1);
    // Most are done in a few milliseconds: worth waiting for.
    while RUNNING.fetch_update(Ordering::AcqRel, Ordering::Acquire, is_free).is_err() {
        if begin.elapsed() > time {
            return Err(GrammarError::Busy);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let place = Place;
    let (sender, receiver) = sync_channel(1);
    let run = move || {
        let _place = place;
        let outcome = panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(work())));
        let failed = |error| GrammarError::Grammar { problem: one_line(&format!("{error:#}")) };
        // A failed send means that nobody waits any more.
        let _ = sender.send(outcome.unwrap_or_else(|error| Err(failed(error))));
    };
    let thread = std::thread::Builder::new().name("pippin-grammar".to_owned()).stack_size(STACK).spawn(run);
    if thread.is_err() {
        return Err(GrammarError::Busy);
    }
    match receiver.recv_timeout(time) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(GrammarError::TooSlow { what, seconds: time.as_secs() }),
        // Not reached: a panic has been caught.
        Err(RecvTimeoutError::Disconnected) => Err(GrammarError::Busy),
    }
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), GrammarError> {
    match found > limit {
        true => Err(GrammarError::TooLarge { what, unit: "bytes", found, limit }),
        false => Ok(()),
    }
}

/// A pattern without the anchors at its ends: it always matches as a whole.
fn whole(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    match pattern.strip_suffix('$') {
        Some(rest) if (rest.len() - rest.trim_end_matches('\\').len()).is_multiple_of(2) => rest,
        _ => pattern,
    }
}

/// A text as a regular expression.
pub(crate) fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            _ if r"\.+*?()|[]{}^$".contains(char) => pattern.extend(['\\', char]),
            char if char.is_control() => pattern += &format!("\\x{{{:x}}}", u32::from(char)),
            char => pattern.push(char),
        }
    }
    pattern
}

/// Refuses a grammar that is nested too deeply, that has too many parts which may be left out, or that sets options of the parser.
fn check_grammar(grammar: &str) -> Result<(), GrammarError> {
    if grammar.contains("x-guidance") {
        let problem = "options of the parser (`x-guidance`) are not taken from a grammar".to_owned();
        return Err(GrammarError::Grammar { problem });
    }
    let (mut depth, mut deepest, mut loose, mut chars) = (0_usize, 0, 0, grammar.chars());
    // Groups of the grammar itself, of which the parser reads fewer than of an expression's or a schema's.
    let (mut groups, mut most_groups, mut braces) = (0_usize, 0, 0_usize);
    let mut quote = None;
    while let Some(char) = chars.next() {
        match (quote, char) {
            (_, '\\') => {
                chars.next();
            }
            // A comment.
            (None, char) if char == '#' || char == '/' && chars.as_str().starts_with('/') => {
                chars.find(|char| *char == '\n');
            }
            (Some(end), char) if end == char || char == '\n' => quote = None,
            // Groups of a regular expression nest as well.
            (Some('"'), _) => {}
            (None, '"' | '/') => quote = Some(char),
            (None, '?' | '*') => loose += 1,
            (_, '(' | '[' | '{') => depth += 1,
            (_, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        match (quote, char) {
            (None, '{') => braces += 1,
            (None, '}') => braces = braces.saturating_sub(1),
            (None, '(' | '[') if braces == 0 => groups += 1,
            (None, ')' | ']') if braces == 0 => groups = groups.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        most_groups = most_groups.max(groups);
    }
    for (unit, found, limit) in [
        ("groups within groups", most_groups, messages::GROUPS),
        ("groups within groups", deepest, NESTING),
        ("parts that may be left out or repeated", loose, LOOSE_PARTS),
    ] {
        if found > limit {
            return Err(GrammarError::TooLarge { what: "grammar", unit, found, limit });
        }
    }
    Ok(())
}

/// Looks at the schemas within a grammar as at others, and lays their documents out alike. Returns them with their lines as well.
fn check_schemas(grammar: &str) -> Result<(String, Vec<(usize, Checked)>), GrammarError> {
    const MARK: &str = "%json";
    let mut documents = Vec::new();
    let mut checked = String::with_capacity(grammar.len());
    let mut rest = grammar;
    while let Some(at) = rest.find(MARK) {
        let (before, behind) = rest.split_at(at + MARK.len());
        checked.push_str(before);
        rest = behind;
        let mut values = serde_json::Deserializer::from_str(behind).into_iter::<Value>();
        // The parser says what is wrong with what is no JSON.
        let Some(Ok(schema)) = values.next() else { continue };
        rest = &behind[values.byte_offset()..];
        schema::check_depth(&schema)?;
        let line = grammar[..grammar.len() - behind.len()].lines().count();
        let found = schema::check(&schema).map_err(|error| in_grammar(error, line))?;
        checked.push(' ');
        checked.push_str(&with_options(found.schema.clone()).to_string());
        documents.push((line, found));
    }
    checked.push_str(rest);
    Ok((checked, documents))
}

/// What a message of the parser says, in a line: of several, the one with the problem. What it quotes may be as long as the input.
pub(crate) fn one_line(message: &str) -> String {
    let problem = |line: &&str| line.starts_with("error: ");
    let first = || message.lines().find(|line| !line.trim().is_empty());
    let line = message.lines().find(problem).or_else(first).unwrap_or("an unknown problem").trim();
    let line = messages::translated(line.strip_prefix("error: ").unwrap_or(line));
    let chars = line.chars().count();
    if chars <= 300 {
        return line;
    }
    let (begin, end): (String, String) =
        (line.chars().take(80).collect(), line.chars().skip(chars - 200).collect());
    format!("{begin}…{end}")
}
