"""Writes the expected outputs of pippin-text's template tests with transformers and Jinja2.

    python tools/templates/make_goldens.py

reads   crates/pippin-text/tests/goldens/{templates/*.jinja, conversations.json, snippets.json}
writes  crates/pippin-text/tests/goldens/{conversations.expected.json, snippets.expected.json}

The Rust tests need neither this script nor Python. Run it again after adding a template, a conversation or a snippet.
"""

import datetime
import json
import pathlib

import jinja2
import transformers
from transformers.utils import chat_template_utils

GOLDENS = pathlib.Path(__file__).resolve().parents[2] / "crates/pippin-text/tests/goldens"
NOW = 1_753_500_000  # 2025-07-26 03:20:00 UTC


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)


chat_template_utils.datetime = FixedTime


def outcome(render):
    try:
        return {"text": render()}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"error": "syntax", "message": str(error)}
    except jinja2.exceptions.TemplateError as error:
        refused = type(error) is jinja2.exceptions.TemplateError
        return {"error": "refused" if refused else "runtime", "message": str(error)}
    except Exception as error:  # what a template's own mistake raises: TypeError, ValueError, …
        return {"error": "runtime", "message": f"{type(error).__name__}: {error}"}


def normalized(message):
    """What transformers (`None` is absent) and mlx-lm (text parts are joined) do before they render."""
    message = {key: value for key, value in message.items() if value is not None}
    content = message.get("content")
    if isinstance(content, list) and all(part["type"] == "text" for part in content):
        message["content"] = "".join(part["text"] for part in content)
    return message


def conversation(case):
    template = (GOLDENS / "templates" / case["template"]).read_text(encoding="utf-8")

    def render():
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[[normalized(message) for message in case["messages"]]],
            tools=case.get("tools"),
            chat_template=template,
            add_generation_prompt=case.get("add_generation_prompt", False),
            continue_final_message=case.get("continue_final_message", False),
            **case.get("special_tokens", {}),
            **case.get("extra", {}),
        )
        return rendered[0]

    return outcome(render)


def snippet(case):
    return outcome(lambda: chat_template_utils._compile_jinja_template(case["source"]).render(**case.get("context", {})))


def main():
    for name, run in [("conversations", conversation), ("snippets", snippet)]:
        cases = json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))
        document = {
            "made_with": {"transformers": transformers.__version__, "jinja2": jinja2.__version__},
            "now": NOW,
            "expected": [run(case) for case in cases],
        }
        path = GOLDENS / f"{name}.expected.json"
        path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        errors = sum("error" in result for result in document["expected"])
        print(f"{path.relative_to(GOLDENS)}: {len(cases)} cases, {errors} of them errors")


if __name__ == "__main__":
    main()
