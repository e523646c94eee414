//! Templates that are wrong, endless or hostile end in a clear error: no panic, no gigabytes, no overflowing stack.

use pippin_text::{ChatTemplate, Message, RenderInputs, TemplateLimits, TextError};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn render(source: &str) -> Result<String, TextError> {
    let messages = [Message::user("hello")];
    let result = ChatTemplate::from_source("test.jinja", source)
        .and_then(|template| template.render(&RenderInputs::new(&messages)));
    // A panic in the interpreter ends as an error, too.
    if let Err(error) = &result {
        assert!(!error.to_string().contains("internal error"), "{source}: {error}");
    }
    result
}

/// Rendering must end in an error.
#[track_caller]
fn refused(source: &str) -> String {
    let error = render(source).map(|text| text.len()).expect_err(&source[..source.len().min(200)]);
    error.to_string()
}

#[test]
fn endless_work_ends() {
    for source in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{% for a in range(90000) %}{% for b in range(90000) %}{% set x = b %}{% endfor %}{% endfor %}{% endmacro %}{{ m() }}",
        "{% for a in range(100000) if range(1000) | list | length == 5 %}{% endfor %}",
        "{% for a in range(100000) %}{% set x = range(100000).index(a) in range(90000) | reverse %}{% endfor %}",
        "{% set c = cycler(1, 2) %}{% for a in range(100000) %}{% for b in range(90000) %}{{ c.next() if false }}{% endfor %}{% endfor %}",
        "{% for a in range(100000) | select | map('string') %}{% for b in range(90000) | select %}{% endfor %}{% endfor %}",
    ] {
        let error = refused(source);
        assert!(error.contains("test.jinja, line 1") && error.contains("limit"), "{error}");
    }
}

/// Looks at every character of a long text count as the work that they are.
#[test]
fn scans_of_long_texts_are_counted() {
    for look in [
        "s is upper",
        "s is lower",
        "s | int",
        "s | float",
        "s | wordcount",
        "s.isalpha()",
        "s.isdigit()",
        "s.isidentifier()",
        "s.strip('é')",
        "s.rfind('x')",
        "s.count('x')",
        "s | title",
        "s.isprintable()",
    ] {
        let error = refused(&format!(
            "{{% set s = 'é' * 1000000 %}}{{% for i in range(1000) %}}{{% set x = {look} %}}{{% endfor %}}"
        ));
        assert!(error.contains("limit of 50000000 steps"), "{look}: {error}");
    }
}

#[test]
fn endless_recursion_ends() {
    for source in [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{% if true %}{% for x in [1] %}{{ a() | upper }}{% endfor %}{% endif %}{% endmacro %}{{ a() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
        "{% macro m(x=m()) %}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ [[[[(m(),)]]]][0][0][0] }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{% set x %}{% filter upper %}{{ {'a': m() ~ 'x'}.a | replace('x', 'y') }}{% endfilter %}{% endset %}{{ x }}{% endmacro %}{{ m() }}",
    ] {
        let error = refused(source);
        assert!(error.contains("recursion"), "{error}");
    }
}

#[test]
fn output_is_bounded() {
    let long = "x".repeat(100_000);
    assert!(
        refused(&format!("{{% for a in range(100000) %}}{long}{{% endfor %}}")).contains("bytes of output")
    );
    // Also where it does not reach the output.
    refused(&format!("{{% set t %}}{{% for a in range(100000) %}}{long}{{% endfor %}}{{% endset %}}"));
    refused(&format!(
        "{{% macro m() %}}{{% for a in range(100000) %}}{long}{{% endfor %}}{{% endmacro %}}{{% set x = m() %}}"
    ));
    refused("{% set s = 'x' * 1000000 %}{% for a in range(100000) %}{{ s }}{% endfor %}");
}

#[test]
fn memory_is_bounded() {
    let doubling = |seed: &str, step: &str| {
        format!(
            "{{% set ns = namespace(x={seed}) %}}{{% for i in range(200) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
        )
    };
    for source in [
        doubling("'ab'", "ns.x ~ ns.x"),
        doubling("'ab'", "ns.x + ns.x"),
        doubling("'ab'", "ns.x * 2"),
        doubling("'ab'", "'%s%s' % (ns.x, ns.x)"),
        doubling("'ab'", "'{0}{0}'.format(ns.x)"),
        doubling("'ab'", "ns.x.replace('a', ns.x)"),
        doubling("'ab'", "ns.x | replace('a', ns.x)"),
        doubling("'ab'", "ns.x.join(['', '', ''])"),
        doubling("'ab'", "[ns.x, ns.x] | join"),
        doubling("'ab'", "ns.x | indent(100000, true)"),
        doubling("'\"'", "ns.x | tojson"),
        doubling("'ab'", "(ns.x, ns.x) | string"),
        doubling("[1]", "ns.x + ns.x"),
        doubling("(1,)", "ns.x + ns.x"),
        doubling("[1]", "ns.x * 2"),
        doubling("[1]", "[ns.x, ns.x] | sum(start=[])"),
        // Shared parts: small in memory, endless to walk.
        doubling("[1]", "[ns.x, ns.x]"),
        doubling("{}", "{'a': ns.x, 'b': ns.x}"),
        doubling("(1,)", "(ns.x, ns.x)"),
        doubling("[1]", "dict(a=ns.x, b=ns.x)"),
        doubling("[1]", "[ns.x, ns.x] | list"),
        doubling("[1]", "[ns.x, ns.x] | map('first') | list + [ns.x, ns.x]"),
        doubling("[1]", "[ns.x, ns.x].copy"),
        // Deep: dropping it would overflow the stack.
        doubling("[]", "[ns.x]"),
        doubling("[]", "{'a': ns.x}"),
        doubling("[]", "[ns.x] | batch(1) | list"),
        doubling("[]", "[[1, ns.x]] | groupby(0) | list + [ns.x]"),
        "{{ 'x' * 10 ** 12 }}".to_owned(),
        "{{ [1] * 10 ** 12 }}".to_owned(),
        "{{ [[]] * 10 ** 30 }}".to_owned(),
        "{{ ('x' * 99999999) ~ ('x' * 99999999) ~ ('x' * 99999999) }}".to_owned(),
        "{{ '%1000000000d' % 1 }}".to_owned(),
        "{{ '%.1000000000f' % 1 }}".to_owned(),
        "{{ '{:1000000000}'.format(1) }}".to_owned(),
        "{{ 'x'.center(10 ** 12) }}{{ 'x' | center(10 ** 12) }}".to_owned(),
        "{{ 'x'.zfill(10 ** 9) }}".to_owned(),
        "{{ 'x' | indent(10 ** 9, true) }}".to_owned(),
        "{{ [1] | batch(10 ** 9, 'x') | list }}".to_owned(),
        "{{ [1] | slice(10 ** 9, 'x') | list }}".to_owned(),
        "{{ range(10 ** 9) }}".to_owned(),
        "{{ ('\\t' * 100000).expandtabs(100000) }}".to_owned(),
        "{% set t = (1,) * 1000000 %}{% for i in range(100000) %}{% set d = {t: i} %}{% endfor %}".to_owned(),
        "{% set t = (1,) * 1000000 %}{% for i in range(100000) %}{% set d = t in {} %}{% endfor %}".to_owned(),
        "{% set d = dict.fromkeys(range(100000)) %}{% for i in range(100000) %}{% set x = d.items() | list %}{% endfor %}".to_owned(),
        "{% set d = dict.fromkeys(range(100000)) %}{% for i in range(100000) %}{% set x = d.items() | string %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=range(9)) %}{% for i in range(100000) %}{% set ns.x = cycler(ns.x, *range(99999)) %}{% endfor %}".to_owned(),
        "{{ range(0 - 10 ** 30, 10 ** 30, 1) }}".to_owned(),
        "{{ [1] | tojson(indent=10 ** 9) ~ nothing.x }}".to_owned(),
        "{{ [1] | tojson(separators=('x' * 100000, ':')) }}".to_owned(),
        "{% set s = 'a,' * 50000000 %}{{ s.split(',') | length }}".to_owned(),
        "{% set s = 'a ' * 50000000 %}{{ s.split() | length }}".to_owned(),
        "{% set s = 'a\n' * 50000000 %}{{ s.splitlines() | length }}".to_owned(),
        "{% set s = 'a' * 50000000 %}{{ s | list | length }}".to_owned(),
        "{% set s = 'a' * 50000000 %}{% for c in s %}{% endfor %}".to_owned(),
        "{% set s = 'a' * 1000000 %}{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + [s ~ i] %}{% endfor %}".to_owned(),
    ] {
        let error = refused(&source);
        assert!(error.contains("limit") || error.contains("nested") || error.contains("'x'") || error.contains("too long"), "{source}: {error}");
    }
}

#[test]
fn values_cannot_contain_themselves() {
    assert_eq!(
        render("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}{{ ns.me.me.me.me == ns }}{{ [ns] }}")
            .unwrap(),
        "<Namespace {'me': <Namespace {...}>}>True[<Namespace {...}>]"
    );
    refused("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns | tojson }}");
    // A loop that is over cannot be used, even when a new one stands in its place.
    let escaped = "{% set ns = namespace() %}{% for a in [1] %}{% set ns.l = loop %}{% endfor %}{% for b in [1] %}{{ ns.l.index }}{% endfor %}";
    assert!(refused(escaped).contains("has ended"));
}

#[test]
fn sources_cannot_overflow_the_stack() {
    let nested = |open: &str, inner: &str, close: &str, count: usize| {
        format!("{}{inner}{}", open.repeat(count), close.repeat(count))
    };
    for count in [50, 200, 2_000, 30_000] {
        for source in [
            format!("{{{{ {} }}}}", nested("(", "1", ")", count)),
            format!("{{{{ {} }}}}", nested("[", "1", "]", count)),
            format!("{{{{ {} }}}}", nested("{'a':", "1", "}", count)),
            format!("{{{{ {}1 }}}}", "not ".repeat(count)),
            format!("{{{{ {}1 }}}}", "- ".repeat(count)),
            format!("{{{{ 1{} }}}}", " + 1".repeat(count)),
            format!("{{{{ 1{} }}}}", " ~ 1".repeat(count)),
            format!("{{{{ 1{} }}}}", " and 1".repeat(count)),
            format!("{{{{ 1{} }}}}", " ** 1".repeat(count)),
            format!("{{{{ 1{} }}}}", " < 1".repeat(count)),
            format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(count)),
            format!("{{{{ 'a'{} }}}}", " | upper".repeat(count)),
            format!("{{{{ a{} }}}}", ".b".repeat(count)),
            format!("{{{{ a{} }}}}", "[0]".repeat(count)),
            format!("{{{{ a{} }}}}", "()".repeat(count)),
            format!("{{{{ {} }}}}", nested("a(", "1", ")", count)),
            format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(count)),
            nested("{% if 1 %}", "x", "{% endif %}", count),
            nested("{% for a in [1] %}", "x", "{% endfor %}", count),
            nested("{% set a %}", "x", "{% endset %}", count),
            nested("{% macro m() %}", "x", "{% endmacro %}", count),
            nested("{% filter upper %}", "x", "{% endfilter %}", count),
            nested("{% with %}", "x", "{% endwith %}", count),
            nested("{% generation %}", "x", "{% endgeneration %}", count),
            format!("{{% filter upper{} %}}x{{% endfilter %}}", " | upper".repeat(count)),
            format!("{{% set {} = 1 %}}", nested("(", "a,", ")", count)),
            format!("{{% for {} in [1] %}}{{% endfor %}}", nested("(", "a,", ")", count)),
        ] {
            let result = render(&source);
            assert!(
                count < 200
                    || result.is_err()
                    || source.contains("~")
                    || source.contains("<")
                    || source.contains("elif")
                    || count < 2000,
                "{}",
                &source[..60]
            );
        }
    }
}

#[test]
fn refusals_carry_the_words_of_the_template() {
    let error = render("line 1\n{% if messages %}\n{{ raise_exception('Roles must alternate: ' ~ messages[0].role) }}{% endif %}").unwrap_err();
    assert!(
        matches!(&error, TextError::TemplateRefused { message, line: 3, .. } if message == "Roles must alternate: user")
    );
    assert!(error.to_string().contains("Roles must alternate: user"), "{error}");
}

#[test]
fn errors_name_file_and_line() {
    for (source, line, part) in [
        ("a\n{{ 1 +", 2, "unexpected end"),
        ("a\n\n{{ x.y }}", 3, "'x' is undefined"),
        ("{{ 'a' | nope }}", 1, "no filter named 'nope'"),
        ("\n{{ 'a' is nope }}", 2, "no test named 'nope'"),
        ("{% include 'x' %}", 1, "unknown statement include"),
        ("{{ 1 + 'a' }}", 1, "cannot compute 1 + \"a\""),
        ("{% for x in 5 %}{% endfor %}", 1, "cannot be iterated"),
    ] {
        match render(source).unwrap_err() {
            TextError::Template { origin, line: at, problem } => {
                assert_eq!((origin.as_str(), at), ("test.jinja", line), "{problem}");
                assert!(problem.contains(part), "{problem}");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn engine_variables_cannot_be_overridden() {
    let messages = [Message::user("hello")];
    let template = ChatTemplate::from_source("test", "{{ messages[0].content }}{{ mood }}").unwrap();
    for name in [
        "messages",
        "tools",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
        "raise_exception",
        "namespace",
        "loop",
        "chat_template",
    ] {
        let extra = [(name.to_owned(), serde_json::json!("x"))].into_iter().collect();
        let error = template.render(&RenderInputs::new(&messages).with_extra(&extra)).unwrap_err();
        assert!(matches!(&error, TextError::ReservedVariable { name: found } if found == name), "{error}");
    }
    let tokens = [("image_token", "<img>")].into_iter().collect();
    let extra = [("image_token".to_owned(), serde_json::json!("x"))].into_iter().collect();
    let inputs = RenderInputs::new(&messages).with_extra(&extra);
    assert!(template.render(&inputs.with_special_tokens(&tokens)).is_err());
    let extra = [("mood".to_owned(), serde_json::json!("!"))].into_iter().collect();
    assert_eq!(template.render(&RenderInputs::new(&messages).with_extra(&extra)).unwrap(), "hello!");
}

#[test]
fn limits_can_be_set() {
    let messages = [Message::user("hello")];
    let template = ChatTemplate::from_source("test", "{% for i in range(100) %}{{ i }}{% endfor %}").unwrap();
    assert!(template.render(&RenderInputs::new(&messages)).is_ok());
    let limits = TemplateLimits { steps: 100, ..TemplateLimits::default() };
    let error = template.with_limits(limits).render(&RenderInputs::new(&messages)).unwrap_err();
    assert!(matches!(error, TextError::TemplateLimit { what: "steps", limit: 100, .. }), "{error}");
}

#[test]
fn long_conversations_stay_far_below_the_limits() {
    let source =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/templates/qwen3.jinja"))
            .unwrap();
    let template = ChatTemplate::from_source("qwen3", source).unwrap();
    let template =
        template.with_limits(TemplateLimits { steps: 5_000_000, output: 8 << 20, memory: 64 << 20 });
    let text = "some words of an answer ".repeat(100);
    let messages: Vec<Message> = (0..2000)
        .map(
            |turn| {
                if turn % 2 == 0 { Message::user(text.as_str()) } else { Message::assistant(text.as_str()) }
            },
        )
        .collect();
    let prompt = template.render(&RenderInputs::new(&messages)).unwrap();
    assert!(prompt.len() > 4_000_000);
}

/// Pieces that, strung together at random, are often nearly templates.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "{%-",
        "-%}",
        "{{-",
        "-}}",
        " ",
        "\n",
        "\r\n",
        "if",
        "elif",
        "else",
        "endif",
        "for",
        "in",
        "endfor",
        "set",
        "endset",
        "macro",
        "endmacro",
        "call",
        "endcall",
        "filter",
        "with",
        "endwith",
        "raw",
        "endraw",
        "generation",
        "endgeneration",
        "is",
        "not",
        "and",
        "or",
        "a",
        "messages",
        "loop",
        "namespace",
        "range",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        ".",
        "|",
        "~",
        "+",
        "-",
        "*",
        "**",
        "/",
        "//",
        "%",
        "=",
        "==",
        "<",
        "'x'",
        "\"é",
        "1",
        "2.5",
        "0",
        "9999999999999999999999",
        "none",
        "true",
        "tojson",
        "upper",
        "split",
        "join",
        "items",
        "recursive",
        "break",
        "continue",
        "é",
        "🙂",
        "\\",
        "'",
        "\u{0}",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.join(""))
}

/// Templates that parse: statements around expressions.
fn templates() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(vec![
        "1",
        "-2",
        "2.5",
        "'aé🙂'",
        "''",
        "none",
        "true",
        "nothing",
        "messages",
        "messages[0]",
        "messages[0].content",
        "[]",
        "{}",
        "()",
        "range(3)",
        "loop",
        "loop.index",
        "ns",
        "ns.x",
        "x",
        "m",
        "m(1)",
        "caller",
        "dict",
        "namespace(x=1)",
        "{}.items()",
        "{(1, 2.5): x}",
        "cycler(x, 2)",
        "joiner()",
        "joiner()()",
        "m(1, 2, a=3)",
        "'%s|%5.2f'",
    ])
    .prop_map(str::to_owned);
    let expression = atom.prop_recursive(4, 24, 3, |inner| {
        let filter = prop::sample::select(vec![
            "list",
            "int",
            "float",
            "round(2)",
            "tojson(indent=1)",
            "first",
            "last",
            "sort",
            "sum",
            "abs",
            "length",
            "batch(2, 'x')",
            "slice(2)",
            "indent(2, true)",
            "title",
            "map('upper')",
            "map(attribute='a.0')",
            "unique",
            "min",
            "max",
            "truncate(3)",
            "center(9)",
            "groupby('a')",
            "dictsort(by='value')",
            "items",
            "replace('a', 'bb', 1)",
            "trim('a')",
            "join('-')",
            "selectattr('a', 'eq', 1)",
            "reject('odd')",
            "default('d', true)",
            "format(1, 2)",
            "wordcount",
            "reverse",
            "e",
            "attr('x')",
        ]);
        let method = prop::sample::select(vec![
            "split()",
            "split('a', 1)",
            "rsplit('é')",
            "strip('a')",
            "splitlines(true)",
            "get('a', 1)",
            "items()",
            "keys()",
            "values()",
            "format(1, a=2)",
            "partition('a')",
            "zfill(5)",
            "center(7, '*')",
            "title()",
            "swapcase()",
            "find('é')",
            "count('a')",
            "join(['a', 'b'])",
            "startswith(('a', 'b'))",
            "x",
            "index(1)",
            "copy()",
            "cycle(1, 2)",
            "changed(1)",
            "next()",
            "current",
            "start",
            "expandtabs(2)",
            "istitle()",
            "isdisjoint([1])",
            "rindex('é', -1, 9)",
            "fromkeys('ab')",
            "format_map({'a': 1})",
            "pop",
        ]);
        let operator = prop::sample::select(vec![
            "+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or",
        ]);
        let slice = prop::sample::select(vec![
            "[0]",
            "[-1]",
            "['a']",
            "[1:]",
            "[::-1]",
            "[:-1:2]",
            "[2:0:-1]",
            "[none:none]",
            "[9:-9:-3]",
        ]);
        let test = prop::sample::select(vec![
            "is defined",
            "is not none",
            "is odd",
            "is divisibleby 3",
            "is mapping",
            "is in [1]",
            "is sameas none",
            "is lower",
            "is sequence",
        ]);
        prop_oneof![
            (inner.clone(), filter).prop_map(|(a, filter)| format!("({a}) | {filter}")),
            (inner.clone(), method).prop_map(|(a, method)| format!("({a}).{method}")),
            (inner.clone(), slice).prop_map(|(a, slice)| format!("({a}){slice}")),
            (inner.clone(), test).prop_map(|(a, test)| format!("({a}) {test}")),
            (inner.clone(), operator, inner.clone())
                .prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {{'a': {b}}}]")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} if {b} else {c})")),
        ]
    });
    let statement = (expression.clone(), expression, 0..9usize).prop_map(|(a, b, kind)| match kind {
        0 => format!("{{{{ {a} }}}}"),
        1 => format!("{{% for x in {a} %}}{{{{ {b} }}}}{{% else %}}none{{% endfor %}}"),
        2 => format!("{{% for x, y in {a} recursive %}}{{{{ loop({b}) }}}}{{% endfor %}}"),
        3 => format!("{{% set ns.x = {a} %}}{{{{ {b} }}}}"),
        4 => format!("{{% macro m(x, y={a}) %}}{{{{ {b} }}}}{{% endmacro %}}{{{{ m(1) }}}}"),
        5 => format!("{{% set x %}}{{{{ {a} }}}}{{% endset %}}{{{{ x }}}}"),
        6 => format!("{{% if {a} %}}{{{{ {b} }}}}{{% elif {b} %}}b{{% endif %}}"),
        7 => format!("{{% call(x) m({a}) %}}{{{{ {b} }}}}{{% endcall %}}"),
        _ => format!("{{% with x = {a} %}}{{% filter upper %}}{{{{ {b} }}}}{{% endfilter %}}{{% endwith %}}"),
    });
    let prologue =
        "{% set ns = namespace(x=[1]) %}{% macro m(x) %}{{ x }}{{ caller() if caller }}{% endmacro %}";
    prop::collection::vec(statement, 1..4)
        .prop_map(move |statements| format!("{prologue}{}", statements.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn no_source_panics(source in pieces()) {
        let _ = render(&source);
    }

    #[test]
    fn no_template_panics(source in templates()) {
        let _ = render(&source);
    }

    #[test]
    fn no_expression_panics(
        left in prop::sample::select(vec!["1", "0", "-7", "2.5", "'aé'", "[1, 'b']", "(1,)", "{'a': 1}", "none", "nothing", "true", "10 ** 38", "range(3)", "loop", "1e308"]),
        operator in prop::sample::select(vec!["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "and", "not in"]),
        right in prop::sample::select(vec!["1", "0", "-3", "2.5", "'%s %d'", "[1]", "(1,)", "{'a': 1}", "none", "nothing", "127", "-1e308", "'x'"]),
        filter in prop::sample::select(vec!["", "| list", "| int", "| float", "| round(2)", "| tojson", "| first", "| sort", "| sum", "| abs", "| length", "| batch(2)", "| slice(2)", "| indent", "| title", "| map('upper')", "| unique", "| min", "| round(-400)", "| int(base=99)", "| truncate(-5)", "| center(-5)", "| groupby('a')", "| dictsort", "| items", "[1:]", "[::-1]", "[-9:9:-2]", "[9999999999999999999999]"]),
    ) {
        let _ = render(&format!("{{{{ ({left} {operator} {right}) {filter} }}}}"));
    }
}
