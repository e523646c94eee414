// What needs no browser: streams, files, trees, requests.

import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const source = join(dirname(fileURLToPath(import.meta.url)), "..", "src");

async function load(name) {
  const result = await build({ entryPoints: [join(source, name)], bundle: true, format: "esm", write: false });
  return import(`data:text/javascript;base64,${Buffer.from(result.outputFiles[0].contents).toString("base64")}`);
}

const { events } = await load("sse.ts");
const { exportText, importText, ImportError } = await load("transfer.ts");
const tree = await load("tree.ts");
const { speed } = await load("format.ts");
const { requestFor, readTools } = await load("request.ts");

const SETUP = { system: "", parameters: {}, tools: "" };

function talk() {
  const conversation = tree.newConversation("quince", SETUP);
  const question = tree.add(conversation, null, { role: "user", content: "What is\n 17 plus 25?" });
  const first = tree.add(conversation, question.id, { role: "assistant", content: "41" });
  const second = tree.add(conversation, question.id, { role: "assistant", content: "42" });
  return { conversation, question, first, second };
}

async function read(chunks) {
  const body = new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  const all = [];
  for await (const data of events(body)) all.push(data);
  return all;
}

test("events come out whole however the bytes were cut", async () => {
  const bytes = new TextEncoder().encode('data: {"a": "ä€🍏"}\n\n: keep-alive\n\ndata: one\r\ndata: two\r\n\r\nevent: x\ndata:three\n\ndata: [DONE]\n\n');
  const expected = ['{"a": "ä€🍏"}', "one\ntwo", "three", "[DONE]"];
  assert.deepEqual(await read([bytes]), expected);
  for (let size = 1; size < 12; size++) {
    const chunks = [];
    for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.slice(at, at + size));
    assert.deepEqual(await read(chunks), expected, `pieces of ${size}`);
  }
});

test("branches are shown one at a time", () => {
  const { conversation, question, first, second } = talk();
  assert.deepEqual(tree.shown(conversation).map((message) => message.content), [question.content, "42"]);
  tree.choose(conversation, first.id);
  assert.deepEqual(tree.shown(conversation).map((message) => message.content), [question.content, "41"]);
  assert.deepEqual(tree.siblings(conversation, second), [first.id, second.id]);
  assert.deepEqual(tree.before(conversation, second), [question]);
  assert.equal(tree.titleOf(conversation), "What is 17 plus 25?");
});

test("what is exported can be imported", () => {
  const { conversation, first, second } = talk();
  Object.assign(second, { reasoning: "17 and 25", thinking: 12, stats: { promptTokens: 4, estimated: true }, finish: "stop" });
  Object.assign(first, { toolCalls: [{ id: "a", name: "add", arguments: "{}" }], error: "broke off" });
  conversation.thinking = "low";
  conversation.parameters = { temperature: 0.2, stop: ["\n"] };
  tree.choose(conversation, first.id);
  assert.deepEqual(importText(exportText([conversation])), [conversation]);
});

test("what cannot be imported is named", () => {
  const { conversation } = talk();
  const good = JSON.parse(exportText([conversation]));
  const messages = good.conversations[0].messages;
  const changed = (change) => {
    const copy = structuredClone(good);
    change(copy, copy.conversations[0], copy.conversations[0].messages);
    return JSON.stringify(copy);
  };
  const cases = [
    ["{", /no JSON/],
    ["[]", /the file must be an object/],
    [changed((file) => (file.format = "x")), /format must be/],
    [changed((file) => (file.version = 2)), /version must be 1/],
    [changed((_, one) => (one.messages = {})), /conversations\[0\]\.messages must be a list/],
    [changed((_, one) => (one.parameters.temperature = "hot")), /parameters\.temperature must be a number/],
    [changed((_, one) => (one.parameters.stop = [1])), /parameters\.stop\[0\] must be a text/],
    [changed((_, one) => (one.thinking = true)), /conversations\[0\]\.thinking must be one of off, on/],
    [changed((_, one) => (one.id = "__proto__")), /conversations\[0\]\.id/],
    [changed((_, __, all) => (all[1].role = "system")), /messages\[1\]\.role must be user/],
    [changed((_, __, all) => (all[0].parent = messages[1].id)), /messages\[0\]\.parent is no message before it/],
    [changed((_, __, all) => (all[2].id = all[1].id)), /messages\[2\]\.id is there twice/],
    [changed((_, __, all) => (all[1].toolCalls = [{}])), /toolCalls\[0\]\.id must be a text/],
    [changed((_, __, all) => delete all[1].content), /messages\[1\]\.content must be a text/],
  ];
  for (const [text, expected] of cases) {
    assert.throws(() => importText(text), (error) => error instanceof ImportError && expected.test(error.message), `${expected}`);
  }
  const odd = importText(changed((_, one, all) => ((one.chosen = "nobody"), (all[0].chosen = 7))));
  assert.equal(tree.shown(odd[0]).at(-1).content, "42");
});

test("a request holds what stands before the answer", () => {
  const { conversation, question, first } = talk();
  first.reasoning = "old thoughts";
  const next = tree.add(conversation, first.id, { role: "user", content: "Sure?" });
  const calls = [{ id: "c1", name: "add", arguments: '{"a": 17}' }];
  const call = tree.add(conversation, next.id, { role: "assistant", content: "", reasoning: "I add", toolCalls: calls });
  const result = tree.add(conversation, call.id, { role: "tool", content: "42", toolCallId: "c1" });
  const answer = tree.add(conversation, result.id, { role: "assistant", content: "Yes" });
  Object.assign(conversation, { system: "Be short.", thinking: "on", tools: '[{"type": "function"}]', parameters: { seed: 1 } });
  const body = requestFor(conversation, answer, false);
  assert.deepEqual(body, {
    model: "quince",
    seed: 1,
    chat_template_kwargs: { enable_thinking: true },
    tools: [{ type: "function" }],
    messages: [
      { role: "system", content: "Be short." },
      { role: "user", content: question.content },
      { role: "assistant", content: "41" },
      { role: "user", content: "Sure?" },
      {
        role: "assistant",
        content: "",
        reasoning_content: "I add",
        tool_calls: [{ id: "c1", type: "function", function: { name: "add", arguments: '{"a": 17}' } }],
      },
      { role: "tool", tool_call_id: "c1", content: "42" },
    ],
  });
  conversation.thinking = "off";
  assert.equal(requestFor(conversation, answer, false).reasoning_effort, "none");
  const more = requestFor(conversation, answer, true);
  assert.deepEqual(more.messages.at(-1), { role: "assistant", content: "Yes" });
  assert.deepEqual([more.continue_final_message, more.add_generation_prompt], [true, false]);
  for (const bad of ["{}", "[1]", "["]) assert.throws(() => readTools(bad), bad);
  assert.deepEqual(readTools("  "), []);
});

test("a speed is only shown where there was time to measure one", () => {
  assert.equal(speed(11, 3), undefined);
  assert.equal(speed(1000, 250), "4,000 tokens/s");
  assert.equal(speed(5, 2000), "2.5 tokens/s");
});
