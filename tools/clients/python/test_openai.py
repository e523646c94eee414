"""OpenAI's client."""

import json

import openai
import pytest
from conftest import ANSWER, MESSAGES, MODEL, PARAMETERS, QUESTION
from schemas import Cat

TOOL = {"type": "function", "function": {"name": "get_time", "parameters": PARAMETERS, "strict": True}}
OTHER = {"type": "function", "function": {"name": "get_date", "parameters": PARAMETERS, "strict": True}}
NAMED = {"type": "function", "function": {"name": "get_date"}}


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def chat(client, **fields):
    return client.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, "temperature": 0, **fields})


def test_models(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_chat(client):
    answer = chat(client, logprobs=True, top_logprobs=2, n=2, seed=1)
    assert [choice.message.content for choice in answer.choices] == [ANSWER, ANSWER]
    assert answer.choices[0].finish_reason == "stop"
    tokens = answer.choices[0].logprobs.content
    assert "".join(token.token for token in tokens).startswith(ANSWER)
    assert all(token.logprob <= 0 and token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob for token in tokens)
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert chat(client, max_tokens=3).choices[0].finish_reason == "length"


def test_stream(client):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens > 0


def test_a_stream_can_be_left(client):
    with chat(client, stream=True) as stream:
        next(iter(stream))
    assert chat(client).choices[0].message.content == ANSWER


def test_required_tool_and_its_result(client):
    answer = chat(client, tools=[TOOL, OTHER], tool_choice="required", max_tokens=100)
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    call = choice.message.tool_calls[0]
    assert call.function.name in ("get_time", "get_date")
    assert json.loads(call.function.arguments)["zone"] in ("UTC", "CET")
    messages = [
        *MESSAGES,
        choice.message,
        *({"role": "tool", "tool_call_id": call.id, "content": "12:30"} for call in choice.message.tool_calls),
    ]
    last = chat(client, messages=messages, tools=[TOOL, OTHER], tool_choice="none", max_tokens=20)
    assert last.choices[0].message.content
    assert not last.choices[0].message.tool_calls


def test_named_tool(client):
    answer = chat(client, tools=[TOOL, OTHER], tool_choice=NAMED, parallel_tool_calls=False, max_tokens=100)
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "get_date"


def test_streamed_tool(client):
    whole = chat(client, tools=[TOOL, OTHER], tool_choice=NAMED, parallel_tool_calls=False, max_tokens=100)
    fields = {"tools": [TOOL, OTHER], "tool_choice": NAMED, "parallel_tool_calls": False}
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, temperature=0, max_tokens=100, **fields) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.done" in kinds
    assert final.finish_reason == "tool_calls"
    assert final.message.tool_calls[0].function.arguments == whole.choices[0].message.tool_calls[0].function.arguments


def test_parse(client):
    answer = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Cat, max_tokens=300, seed=1)
    assert isinstance(answer.choices[0].message.parsed, Cat)


def test_completions(client):
    answer = client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=4, logprobs=2, echo=True, temperature=0
    )
    [choice] = answer.choices
    assert choice.text.startswith("The capital of France is")
    logprobs = choice.logprobs
    assert logprobs.token_logprobs[0] is None and all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert "".join(logprobs.tokens) == choice.text
    assert len(logprobs.top_logprobs[-1]) >= 2
    streamed = client.completions.create(
        model=MODEL, prompt=["The capital of France is", "Once"], max_tokens=4, temperature=0, stream=True
    )
    texts = ["", ""]
    for chunk in streamed:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert choice.text == "The capital of France is" + texts[0] and texts[1]


def test_responses(client):
    first = client.responses.create(model=MODEL, input=QUESTION, temperature=0)
    assert (first.output_text, first.status) == (ANSWER, "completed")
    second = client.responses.create(model=MODEL, input=QUESTION, temperature=0, previous_response_id=first.id)
    assert second.output_text and second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(first.id).output_text == ANSWER
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_streamed_response(client):
    with client.responses.stream(model=MODEL, input=QUESTION, temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text == ANSWER


def test_responses_with_a_tool(client):
    tool = {"type": "function", "name": "get_time", "parameters": PARAMETERS, "strict": True}
    fields = {"model": MODEL, "tools": [tool], "temperature": 0, "max_output_tokens": 100}
    first = client.responses.create(input=QUESTION, tool_choice="required", **fields)
    calls = [item for item in first.output if item.type == "function_call"]
    assert json.loads(calls[0].arguments)["zone"] in ("UTC", "CET")
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "12:30"} for call in calls]
    second = client.responses.create(input=results, previous_response_id=first.id, tool_choice="none", **fields)
    assert second.output_text


def test_parsed_response(client):
    answer = client.responses.parse(model=MODEL, input=QUESTION, text_format=Cat, max_output_tokens=300)
    assert isinstance(answer.output_parsed, Cat)


def test_embeddings_are_refused_by_name(client):
    with pytest.raises(openai.BadRequestError, match="embeddings are not supported"):
        client.embeddings.create(model=MODEL, input="x")


def test_errors(client):
    with pytest.raises(openai.NotFoundError) as error:
        chat(client, model="nobody")
    assert error.value.code == "model_not_found" and error.value.request_id
    with pytest.raises(openai.BadRequestError) as error:
        chat(client, temperature=-1)
    assert error.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as error:
        chat(client, messages=[{"role": "user", "content": "a b " * 10_000}])
    assert error.value.code == "context_length_exceeded"
