"""How pippin-text shows a conversation to a template, with transformers and Jinja2 for everything that renders.

What it does before and beside transformers is documented in `docs/templates.md`; this is the same once more, in Python.
"""

import copy
import datetime
import json

import jinja2
from transformers.utils import chat_template_utils

NOW = 1_753_500_000  # 2025-07-26 03:20:00 UTC
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
MEDIA = (
    *("image", "image_url", "input_image", "audio", "audio_url", "input_audio"),
    *("video", "video_url", "input_video", "file", "input_file"),
)
REASONING = ("reasoning_content", "thinking", "reasoning")


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)


chat_template_utils.datetime = FixedTime
ALIAS = chat_template_utils._alias_reasoning_fields


def text_of(part):
    """The text of a text part, else None."""
    if isinstance(part, str):
        return part
    kind = part.get("type", "text" if "text" in part else None)
    return part[TEXT_PARTS[kind]] if kind in TEXT_PARTS else None


def is_data(message):
    """Whether the content is what a tool returned, and neither text nor parts."""
    content = message.get("content")
    if content is None or isinstance(content, str) or message["role"] in ("system", "developer", "user", "assistant"):
        return False
    kinds = [part.get("type", "text" if "text" in part else None) for part in content if isinstance(part, dict)] if isinstance(content, list) else [None]
    return not isinstance(content, list) or len(kinds) < len(content) or not all(k in TEXT_PARTS or k in MEDIA for k in kinds)


def joined(content):
    """Text parts as one string. Beside media they stay parts."""
    if not isinstance(content, list):
        return content
    texts = [text_of(part) for part in content]
    if all(text is not None for text in texts):
        return "".join(texts)

    def one(part, text):
        plain = text is None or isinstance(part, dict) and part.get("type", "text") == "text"
        return part if plain else {"type": "text", "text": text}

    return [one(part, text) for part, text in zip(content, texts)]


def parsed(text):
    """The object that arguments hold as text; None if they hold none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def functions(message):
    return [call.get("function") or call for call in message.get("tool_calls") or []]


def is_unreadable(function):
    text = function.get("arguments")
    return isinstance(text, str) and bool(text.strip()) and parsed(text) is None


def arguments(value, objects):
    if value is None or isinstance(value, str) and not value.strip():
        value = {}
    if isinstance(value, str):
        if objects == "text":
            return value
        held = parsed(value)
        value = held if held is not None else {"arguments": value} if objects == "wrapped" else value
    return json.dumps(value, ensure_ascii=False) if objects == "text" else value


def message_in(form, message):
    missing, objects, bare = form
    message = copy.deepcopy(message)
    if is_data(message):
        if objects != "object":
            message["content"] = json.dumps(message["content"], ensure_ascii=False)
    elif message.get("content") is not None:
        message["content"] = joined(message["content"])
    elif missing != "absent":
        message["content"] = None if missing == "none" else ""
    for function in functions(message):
        function["arguments"] = arguments(function.get("arguments"), objects)
    if bare and message.get("tool_calls") == []:
        del message["tool_calls"]
    keep_none = missing == "none"
    return {key: value for key, value in message.items() if value is not None or keep_none and key == "content"}


def other_forms(messages, template, refused):
    """The forms to try after the first; see `Form::others` in pippin-text."""
    missing, objects, bare = ["absent"], ["object"], [False]
    if not refused and any(message.get("content") is None for message in messages):
        missing += ["none", "empty"] if "none" in template or "None" in template else ["empty"]
    if not refused and any(is_data(message) for message in messages):
        objects.append("data")
    if not refused and any(message.get("tool_calls") for message in messages):
        objects.append("text")
    if any(is_unreadable(function) for message in messages for function in functions(message)):
        objects.append("wrapped")
    if any(
        message.get("tool_calls") == [] or any(message.get(name) is not None for name in REASONING) for message in messages
    ):
        bare.append(True)
    return [(m, o, b) for b in bare for m in missing for o in objects][1:]


def outcome(render):
    try:
        return {"text": render()}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"error": "syntax", "message": str(error)}
    except jinja2.exceptions.TemplateError as error:
        refused = type(error) is jinja2.exceptions.TemplateError
        return {"error": "refused" if refused else "runtime", "message": str(error)}
    except Exception as error:  # what a template's own mistake raises: TypeError, ValueError, …
        cannot_continue = isinstance(error, ValueError) and str(error).startswith("continue_final_message")
        kind = "continue" if cannot_continue else "runtime"
        if isinstance(error, RecursionError):
            kind = "recursion"
        return {"error": kind, "message": f"{type(error).__name__}: {error}"}


def render_in(form, case, template):
    def render():
        chat_template_utils._alias_reasoning_fields = (lambda chat: chat) if form[2] else ALIAS
        if case.get("continue_final_message") and case["messages"][-1].get("content") is None:
            raise ValueError("continue_final_message is set but there is nothing to continue")
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[[message_in(form, message) for message in case["messages"]]],
            tools=case.get("tools") or None,
            chat_template=template,
            add_generation_prompt=case.get("add_generation_prompt", False),
            continue_final_message=case.get("continue_final_message", False),
            **case.get("special_tokens", {}),
            **case.get("extra", {}),
        )
        return rendered[0]

    return outcome(render)


def conversation(case, template):
    """The outcome for a conversation. `form` is in it when it is not that of transformers itself."""
    first = render_in(("absent", "object", False), case, template)
    if first.get("error") not in ("refused", "runtime"):
        return first
    for form in other_forms(case["messages"], template, first["error"] == "refused"):
        other = render_in(form, case, template)
        if other.get("error") in ("refused", "runtime"):
            continue
        missing, objects, bare = form
        names = [missing] * (missing != "absent") + [objects] * (objects != "object") + ["bare"] * bare
        return {"form": "+".join(names), "first": first, **other}
    return first


def snippet(case):
    return outcome(lambda: chat_template_utils._compile_jinja_template(case["source"]).render(**case.get("context", {})))
