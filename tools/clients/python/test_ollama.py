"""Ollama's client."""

import ollama
import pytest
from conftest import ANSWER, MESSAGES, MODEL, PARAMETERS
from schemas import Cat

GREEDY = {"temperature": 0, "num_predict": 20}
TOOL = {"type": "function", "function": {"name": "get_time", "description": "The time.", "parameters": PARAMETERS}}


@pytest.fixture(scope="module")
def client(address):
    return ollama.Client(host=address)


def test_models(client):
    # A name without a tag is one with `latest`.
    assert [model.model.removesuffix(":latest") for model in client.list().models] == [MODEL]
    assert client.chat(model=f"{MODEL}:latest", messages=MESSAGES, options=GREEDY).message.content == ANSWER
    assert [model.model.removesuffix(":latest") for model in client.ps().models] == [MODEL]
    assert "completion" in client.show(MODEL).capabilities


def test_chat(client):
    answer = client.chat(model=MODEL, messages=MESSAGES, options=GREEDY)
    assert (answer.message.content, answer.done, answer.done_reason) == (ANSWER, True, "stop")
    assert answer.eval_count > 0 and answer.total_duration > 0
    parts = list(client.chat(model=MODEL, messages=MESSAGES, options=GREEDY, stream=True))
    assert "".join(part.message.content for part in parts) == ANSWER
    assert [part.done for part in parts].count(True) == 1


def test_schema(client):
    answer = client.chat(model=MODEL, messages=MESSAGES, format=Cat.model_json_schema(), options={"num_predict": 300})
    Cat.model_validate_json(answer.message.content)


def test_tools_are_shown_and_results_taken(client):
    call = {"function": {"name": "get_time", "arguments": {"zone": "UTC"}}}
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "get_time", "content": "12:30"},
    ]
    with_tools = client.chat(model=MODEL, messages=messages, tools=[TOOL], options=GREEDY)
    without = client.chat(model=MODEL, messages=messages, options=GREEDY)
    assert with_tools.prompt_eval_count > without.prompt_eval_count


def test_generate(client):
    assert client.generate(model=MODEL, prompt="What is 17 plus 25?", options=GREEDY).response == ANSWER
    parts = client.generate(model=MODEL, prompt="What is 17 plus 25?", options=GREEDY, stream=True)
    assert "".join(part.response for part in parts) == ANSWER


def test_errors(client):
    with pytest.raises(ollama.ResponseError) as error:
        client.chat(model="nobody", messages=MESSAGES)
    assert error.value.status_code == 404 and "nobody" in error.value.error
    with pytest.raises(ollama.ResponseError, match="embed"):
        client.embed(model=MODEL, input="x")
    # Managing models has to be allowed.
    with pytest.raises(ollama.ResponseError) as error:
        client.delete(MODEL)
    assert error.value.status_code == 403
