// OpenAI's client for Node.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const model = "pippin-nano";
const question = "What is 17 plus 25?";
const answer = "17 plus 25 is 42.";
const messages = [{ role: "user", content: question }];
const client = new OpenAI({ baseURL: `${process.env.PIPPIN_ADDRESS}/v1`, apiKey: "none", maxRetries: 0 });
// Bounded in all its parts: a model of this size writes texts and lists without end.
const parameters = {
  type: "object",
  properties: { zone: { enum: ["UTC", "CET"] } },
  required: ["zone"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "get_time", parameters, strict: true } }];
const greedy = { model, messages, temperature: 0, max_tokens: 100 };

test("models", async () => {
  assert.deepEqual((await client.models.list()).data.map((one) => one.id), [model]);
});

test("chat, whole and streamed", async () => {
  const whole = await client.chat.completions.create({ ...greedy, logprobs: true, top_logprobs: 1 });
  assert.equal(whole.choices[0].message.content, answer);
  assert.ok(whole.choices[0].logprobs.content.length > 1);
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...greedy, stream: true })) {
    text += chunk.choices[0].delta.content ?? "";
  }
  assert.equal(text, answer);
});

test("a stream that is left does no harm", async () => {
  for await (const _ of await client.chat.completions.create({ ...greedy, stream: true })) break;
  assert.equal((await client.chat.completions.create(greedy)).choices[0].message.content, answer);
});

test("required and streamed tools, and their results", async () => {
  const first = await client.chat.completions.create({ ...greedy, tools, tool_choice: "required" });
  const { message, finish_reason } = first.choices[0];
  assert.equal(finish_reason, "tool_calls");
  assert.ok(["UTC", "CET"].includes(JSON.parse(message.tool_calls[0].function.arguments).zone));
  const results = message.tool_calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: "12:30" }));
  const conversation = [...messages, message, ...results];
  const last = await client.chat.completions.create({ ...greedy, messages: conversation, tools, tool_choice: "none" });
  assert.ok(last.choices[0].message.content);
  const named = { type: "function", function: { name: "get_time" } };
  const stream = client.chat.completions.stream({ ...greedy, tools, tool_choice: named });
  const [call] = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
  assert.ok(["UTC", "CET"].includes(JSON.parse(call.function.arguments).zone));
});

test("structured answers", async () => {
  const format = { type: "json_schema", json_schema: { name: "zone", schema: parameters, strict: true } };
  const parsed = await client.chat.completions.parse({ ...greedy, response_format: format });
  assert.ok(["UTC", "CET"].includes(JSON.parse(parsed.choices[0].message.content).zone));
});

test("completions with log-probabilities", async () => {
  const prompt = "The capital of France is";
  const [choice] = (await client.completions.create({ model, prompt, max_tokens: 4, logprobs: 1, echo: true })).choices;
  assert.ok(choice.text.startsWith(prompt));
  assert.equal(choice.logprobs.token_logprobs[0], null);
});

test("responses, whole and streamed", async () => {
  const first = await client.responses.create({ model, input: question, temperature: 0 });
  assert.equal(first.output_text, answer);
  const next = { model, input: question, temperature: 0, previous_response_id: first.id, stream: true };
  let last;
  for await (const event of await client.responses.create(next)) last = event;
  assert.equal(last.type, "response.completed");
  assert.equal(last.response.previous_response_id, first.id);
});

test("errors", async () => {
  await assert.rejects(client.chat.completions.create({ ...greedy, model: "nobody" }), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ ...greedy, temperature: -1 }), { status: 400, param: "temperature" });
  await assert.rejects(client.embeddings.create({ model, input: "x" }), /embeddings are not supported/);
});
