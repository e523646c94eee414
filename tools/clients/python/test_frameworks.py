"""LangChain and LlamaIndex, through their classes for OpenAI's API."""

import pytest
from conftest import ANSWER, MODEL, PARAMETERS, QUESTION
from schemas import Cat


@pytest.fixture
def langchain(address):
    module = pytest.importorskip("langchain_openai")
    return module.ChatOpenAI(base_url=f"{address}/v1", api_key="none", model=MODEL, temperature=0, max_tokens=200)


@pytest.fixture
def llama_index(address):
    module = pytest.importorskip("llama_index.llms.openai_like")
    return module.OpenAILike(
        api_base=f"{address}/v1",
        api_key="none",
        model=MODEL,
        temperature=0,
        max_tokens=20,
        is_chat_model=True,
        context_window=2048,
    )


def test_langchain(langchain):
    answer = langchain.invoke(QUESTION)
    assert answer.content == ANSWER and answer.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in langchain.stream(QUESTION)) == ANSWER


def test_langchain_tools(langchain):
    from langchain_core.messages import HumanMessage, ToolMessage

    tool = {"name": "get_time", "description": "The time.", "parameters": PARAMETERS}
    question = HumanMessage(QUESTION)
    calling = langchain.bind_tools([tool], tool_choice="get_time", strict=True).invoke([question])
    assert calling.tool_calls[0]["name"] == "get_time" and calling.tool_calls[0]["args"]["zone"] in ("UTC", "CET")
    results = [ToolMessage("12:30", tool_call_id=call["id"]) for call in calling.tool_calls]
    assert langchain.bind_tools([tool], tool_choice="none").invoke([question, calling, *results]).content


def test_langchain_structured(langchain):
    assert isinstance(langchain.with_structured_output(Cat, method="json_schema").invoke(QUESTION), Cat)


def test_llama_index(llama_index):
    from llama_index.core.llms import ChatMessage

    messages = [ChatMessage(role="user", content=QUESTION)]
    assert llama_index.chat(messages).message.content == ANSWER
    assert "".join(part.delta for part in llama_index.stream_chat(messages)) == ANSWER
    assert llama_index.complete(QUESTION).text == ANSWER
