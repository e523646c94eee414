"""Writes what transformers renders with the chat templates of published models, as hashes.

    python tools/templates/published.py                          writes the goldens
    python tools/templates/published.py --show MODEL CONVERSATION   prints an expected text
    python tools/templates/published.py --table                  prints the exceptions of docs/templates.md

reads   crates/pippin-text/tests/goldens/{published/*.jinja, published.conversations.json}
writes  crates/pippin-text/tests/goldens/published.expected.json

All texts together have ten megabytes. So of each only its length, its hash, and two characters for each 128 bytes are kept:
the hash of all bytes up to there. A test that fails says to 128 bytes where its text begins to differ, and `--show` has the
rest. Forms that are not those of transformers itself are named; see `docs/templates.md`.
"""

import argparse
import json
import pathlib
import re

import jinja2
import transformers

import forms

GOLDENS = pathlib.Path(__file__).resolve().parents[2] / "crates/pippin-text/tests/goldens"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
# Where pippin-text means to differ: `safe` gives a plain string. In Jinja2 it marks one as HTML, and whatever this model's
# template then appends is escaped (`&#34;`), which the model has never seen. See docs/templates.md.
WITHOUT_SAFE = {"meetkai-functionary-medium-v3.1"}
BLOCK = 128
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def fingerprint(text):
    """Length, FNV-1a, and its lowest twelve bits after each block."""
    data = text.encode("utf-8")
    state, blocks = 0xCBF29CE484222325, []
    for at, byte in enumerate(data, 1):
        state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
        if at % BLOCK == 0:
            blocks.append(DIGITS[state >> 6 & 63] + DIGITS[state & 63])
    return f"{len(data)} {state:016x} {''.join(blocks)}".rstrip()


def templates():
    sources = {path.stem: path.read_text(encoding="utf-8") for path in sorted((GOLDENS / "published").glob("*.jinja"))}
    return {name: re.sub(r"\|\s*safe\b", "", text) if name in WITHOUT_SAFE else text for name, text in sources.items()}


def conversations():
    cases = json.loads((GOLDENS / "published.conversations.json").read_text(encoding="utf-8"))
    return {case["name"]: {"special_tokens": TOKENS, **case} for case in cases}


def stored(result):
    if "error" in result:
        return {"refused": result["message"]} if result["error"] == "refused" else {"error": result["error"]}
    entry = {"text": fingerprint(result["text"])}
    return {**entry, "form": result["form"]} if "form" in result else entry["text"]


def table(results):
    """The conversations that transformers refuses and pippin-text renders, by form."""
    rows = {}
    for model, outcomes in results.items():
        for name, result in outcomes.items():
            if "form" in result:
                rows.setdefault((result["form"], name), []).append(model)
    for (form, name), models in sorted(rows.items()):
        print(f"| {form} | {name} | {len(models)} | {', '.join(models)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", nargs=2, metavar=("MODEL", "CONVERSATION"))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.show:
        model, name = args.show
        print(json.dumps(forms.conversation(conversations()[name], templates()[model]), ensure_ascii=False, indent=1))
        return
    cases = conversations()
    results = {
        model: {name: forms.conversation(case, template) for name, case in cases.items()}
        for model, template in templates().items()
    }
    if args.table:
        table(results)
        return
    document = {
        "made_with": {"transformers": transformers.__version__, "jinja2": jinja2.__version__},
        "now": forms.NOW,
        "special_tokens": TOKENS,
        "expected": {model: {name: stored(result) for name, result in each.items()} for model, each in results.items()},
    }
    path = GOLDENS / "published.expected.json"
    path.write_text(json.dumps(document, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    every = [result for each in results.values() for result in each.values()]
    count = lambda test: sum(1 for result in every if test(result))
    print(
        f"{len(results)} templates, {len(cases)} conversations: {count(lambda r: 'text' in r)} texts, "
        f"{count(lambda r: 'form' in r)} of them in another form; {count(lambda r: r.get('error') == 'refused')} refused, "
        f"{count(lambda r: r.get('error') not in (None, 'refused'))} other errors"
    )


if __name__ == "__main__":
    main()
