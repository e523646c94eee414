"""Anthropic's client."""

import anthropic
import pytest
from conftest import ANSWER, MESSAGES, MODEL, PARAMETERS

TOOL = {"name": "get_time", "input_schema": PARAMETERS}
# The client has no parameter for it any more.
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def client(address):
    return anthropic.Anthropic(base_url=address, api_key="none", max_retries=0)


def test_messages(client):
    answer = client.messages.create(model=MODEL, max_tokens=20, messages=MESSAGES, system="Be brief.", extra_body=GREEDY)
    assert answer.content[0].type == "text" and answer.content[0].text
    answer = client.messages.create(model=MODEL, max_tokens=20, messages=MESSAGES, extra_body=GREEDY)
    assert (answer.content[0].text, answer.stop_reason) == (ANSWER, "end_turn")
    # Both count the same prompt.
    cached = answer.usage.cache_read_input_tokens or 0
    counted = client.messages.count_tokens(model=MODEL, messages=MESSAGES)
    assert counted.input_tokens == answer.usage.input_tokens + cached


def test_stream(client):
    with client.messages.stream(model=MODEL, max_tokens=20, messages=MESSAGES, extra_body=GREEDY) as stream:
        assert "".join(stream.text_stream) == ANSWER
        assert stream.get_final_message().stop_reason == "end_turn"


def test_stop_sequence(client):
    answer = client.messages.create(
        model=MODEL, max_tokens=20, messages=MESSAGES, stop_sequences=["plus"], extra_body=GREEDY
    )
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "plus")


def test_tool_and_its_result(client):
    fields = {"model": MODEL, "max_tokens": 100, "tools": [TOOL]}
    answer = client.messages.create(messages=MESSAGES, tool_choice={"type": "any"}, **fields)
    assert answer.stop_reason == "tool_use"
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert calls[0].name == "get_time" and calls[0].input["zone"] in ("UTC", "CET")
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "12:30"} for call in calls]
    messages = [*MESSAGES, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    last = client.messages.create(messages=messages, tool_choice={"type": "none"}, **fields)
    assert last.content[0].type == "text"


def test_streamed_tool(client):
    choice = {"type": "tool", "name": "get_time", "disable_parallel_tool_use": True}
    with client.messages.stream(
        model=MODEL, max_tokens=100, messages=MESSAGES, tools=[TOOL], tool_choice=choice
    ) as stream:
        [block] = stream.get_final_message().content
    assert block.type == "tool_use" and block.input["zone"] in ("UTC", "CET")


def test_errors(client):
    with pytest.raises(anthropic.NotFoundError) as error:
        client.messages.create(model="nobody", max_tokens=1, messages=MESSAGES)
    assert error.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(model=MODEL, max_tokens=1, messages=MESSAGES, extra_body={"temperature": -1})
