"""Writes what Jinja2's filters make of every kind of value: nothing, falsy ones and wrong ones above all.

    python tools/templates/filters.py

writes  crates/pippin-text/tests/goldens/filters.json, in the form of random.json
"""

import json
import pathlib
import re

import forms

GOLDENS = pathlib.Path(__file__).resolve().parents[2] / "crates/pippin-text/tests/goldens"
VALUES = [
    *("none", "missing", "0", "5", "1.5", "false", "true", "''", "'ab'", "'a/b c\\n'", "{}", "{'b': 1, 'a': 2}", "[]"),
    *("[2, 1]", "[[2, 'x'], [1, 'y']]", "[{'a': 1}, {'a': none}, {}]", "()", "namespace(a=1)", "range(3)"),
    *("{'a': 1}.items()", "[1, 2] | map('string')"),
]
FILTERS = [
    *("list", "first", "last", "join", "join(', ')", "join('-', attribute='a')", "reverse | list", "sort"),
    *("sort(attribute='a')", "sort(reverse=true)", "unique | list", "unique(attribute='a') | list", "min", "max"),
    *("min(attribute='a')", "sum", "sum(attribute='a')", "sum(start=3)", "items | list", "dictsort"),
    *("dictsort(by='value')", "batch(2) | list", "batch(2, 'z') | list", "slice(2) | list", "groupby('a')", "length"),
    *("tojson", "string", "map('upper') | list", "map(attribute='a') | list", "map(attribute='a', default=7) | list"),
    *("map('length') | list", "map | list", "select | list", "select('odd') | list", "reject | list"),
    *("selectattr('a') | list", "selectattr('a', 'equalto', 1) | list", "rejectattr('a') | list"),
    *("rejectattr('a', 'none') | list", "abs", "int", "int(default=9)", "float", "float(3.5)", "round"),
    *("round(1, 'floor')", "lower", "upper", "title", "capitalize", "trim", "replace('a', 'b')", "indent", "center(5)"),
    *("truncate(1)", "truncate(4)", "truncate(4, leeway=0)", "truncate(4, leeway=-1)", "wordcount", "urlencode"),
    *("escape", "default('d')", "default('d', true)", "attr('a')", "format(1)", "first | default('d')"),
]


def main():
    cases = []
    for applied in FILTERS:
        for value in VALUES:
            source = f"{{{{ ({value}) | {applied} }}}}"
            expected = forms.snippet({"source": source})
            # Generators print with an address.
            if re.search(r"[ao]t 0x|bt 0x|<gener", expected.get("text", ""), re.IGNORECASE):
                continue
            if value.startswith("[1, 2] | map") and applied == "wordcount":
                continue
            expected = {"error": expected["error"]} if expected.get("error") == "runtime" else expected
            cases.append(json.dumps({"source": source, "expected": expected}, ensure_ascii=False))
    path = GOLDENS / "filters.json"
    lines = ",\n".join(cases)
    path.write_text(f'{{"context": {{}}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{path.relative_to(GOLDENS)}: {len(cases)} cases")


if __name__ == "__main__":
    main()
