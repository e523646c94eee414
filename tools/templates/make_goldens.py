"""Writes the expected outputs of pippin-text's template tests with transformers and Jinja2.

    python tools/templates/make_goldens.py

reads   crates/pippin-text/tests/goldens/{templates/*.jinja, conversations.json, snippets.json}
writes  crates/pippin-text/tests/goldens/{conversations.expected.json, snippets.expected.json}

The Rust tests need neither this script nor Python. Run it again after adding a template, a conversation or a snippet.
Templates of published models are apart: `published.py`.
"""

import json
import pathlib

import jinja2
import transformers

import forms

GOLDENS = pathlib.Path(__file__).resolve().parents[2] / "crates/pippin-text/tests/goldens"


def conversation(case):
    template = (GOLDENS / "templates" / case["template"]).read_text(encoding="utf-8")
    result = forms.conversation(case, template)
    result.pop("first", None)
    return result


def main():
    for name, run in [("conversations", conversation), ("snippets", forms.snippet)]:
        cases = json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))
        document = {
            "made_with": {"transformers": transformers.__version__, "jinja2": jinja2.__version__},
            "now": forms.NOW,
            "expected": [run(case) for case in cases],
        }
        path = GOLDENS / f"{name}.expected.json"
        path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        errors = sum("error" in result for result in document["expected"])
        print(f"{path.relative_to(GOLDENS)}: {len(cases)} cases, {errors} of them errors")


if __name__ == "__main__":
    main()
