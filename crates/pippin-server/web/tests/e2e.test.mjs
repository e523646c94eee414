// The page in a browser, with a real `pippin serve` and the model that comes with Pippin. What that model does not do (thinking,
// calls of tools, formulas) is answered in the server's place, in the form that it has on the wire.
//
// CHROMIUM and PIPPIN say where the browser and the binary are, where they are not found by themselves. SCREENSHOTS names a
// folder for pictures of what was seen.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";

import { build } from "esbuild";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "..", "..", "..", "..");
const DESKTOP = { viewport: { width: 1280, height: 860 } };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const WAIT = 120_000;

const first = (paths) => paths.find((path) => path && existsSync(path));
const inPath = (name) => first((process.env.PATH ?? "").split(":").map((folder) => join(folder, name)));
const browserPath = first([process.env.CHROMIUM, ...["chromium", "chromium-browser", "google-chrome"].map(inPath)]);
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
const pippin = first([process.env.PIPPIN, join(target, "release", "pippin"), join(target, "debug", "pippin")]);
const missing = !browserPath ? "no Chromium is installed" : !pippin ? "pippin has not been built" : false;

let browser;
let folder;
let server;
/** What a page has complained about. */
let complaints = [];

function serve(...args) {
  const child = spawn(pippin, ["serve", "pippin-nano", "--only", "--port", "0", ...args], { cwd: root, stdio: ["ignore", "ignore", "pipe"] });
  return new Promise((resolve, reject) => {
    let log = "";
    child.on("exit", (code) => reject(new Error(`pippin serve ended with ${code}: ${log}`)));
    child.stderr.on("data", (data) => {
      log += data;
      const address = /web page at (http:\S+)/.exec(log)?.[1];
      if (address && log.includes("  curl ")) resolve({ child, address });
    });
  });
}

async function openPage(t, options = DESKTOP, address = server.address) {
  const context = await browser.newContext({ locale: "en", permissions: ["clipboard-read", "clipboard-write"], ...options });
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT);
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  page.on("request", (request) => {
    const isOwn = request.url().startsWith(address) || /^(blob|data):/.test(request.url());
    if (!isOwn) complaints.push(`a request to ${request.url()}`);
  });
  await page.goto(address);
  await page.getByRole("textbox", { name: "Message" }).waitFor();
  return page;
}

const button = (scope, name) => scope.getByRole("button", { name, exact: true });
const answers = (page) => page.locator(".answer");
const textOf = (page) => answers(page).last().locator(".markdown").last().innerText();

async function send(page, text) {
  await page.getByRole("textbox", { name: "Message" }).fill(text);
  const before = await page.locator(".bubble").count();
  await button(page, "Send").click();
  await becomes(async () => (await page.locator(".bubble").count()) > before, true);
}

async function finished(page) {
  await page.locator(".numbers", { hasText: /token/ }).last().waitFor();
  await button(page, "Send").waitFor();
}

/** Waits until the browser keeps so many conversations, with all their answers finished. */
async function kept(page, count) {
  const isKept = async (count) => {
    const done = (request) => new Promise((resolve, reject) => ((request.onsuccess = () => resolve(request.result)), (request.onerror = reject)));
    const database = await done(indexedDB.open("pippin"));
    const all = await done(database.transaction("conversations").objectStore("conversations").getAll());
    database.close();
    const isFinished = (message) => message.role !== "assistant" || message.finish;
    return all.length === count && all.every(({ messages }) => [...messages.values()].every(isFinished));
  };
  const begin = Date.now();
  while (!(await page.evaluate(isKept, count))) {
    assert.ok(Date.now() - begin < WAIT, `${count} conversations are not kept`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Waits until what is read is this: the page draws a moment after it was told. */
async function becomes(read, expected) {
  const begin = Date.now();
  for (;;) {
    const actual = await read();
    if (isDeepStrictEqual(actual, expected)) return;
    if (Date.now() - begin > WAIT) assert.deepEqual(actual, expected);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function picture(page, name) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`) });
}

/** Sets fields of the settings, and closes them. */
async function setUp(page, fields) {
  await button(page, "Settings").click();
  const dialog = page.getByRole("dialog", { name: "Settings" });
  for (const [label, value] of Object.entries(fields)) await dialog.getByLabel(label, { exact: true }).fill(value);
  await button(dialog, "Close").click();
}

/** A server for one answer, which a test writes as it likes. */
async function openStream(t) {
  let begin;
  let end;
  const writer = new Promise((resolve) => (begin = resolve));
  const closed = new Promise((resolve) => (end = resolve));
  const stream = createServer((_, response) => {
    response.on("close", end);
    response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();
    begin((delta) => response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta }] })}\n\n`));
  });
  await new Promise((resolve) => stream.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    stream.closeAllConnections();
    stream.close();
  });
  return { address: `http://127.0.0.1:${stream.address().port}/`, writer, closed };
}

/** Answers in the server's place, with these deltas. Returns the bodies of the requests. */
async function answerWith(page, deltas, finish = "stop") {
  const bodies = [];
  await page.route("**/v1/chat/completions", (route) => {
    bodies.push(route.request().postDataJSON());
    const chunks = deltas.map((delta) => ({ choices: [{ index: 0, delta, finish_reason: null }] }));
    chunks.push({ choices: [{ index: 0, delta: {}, finish_reason: finish }] });
    chunks.push({ choices: [], usage: { prompt_tokens: 30, completion_tokens: deltas.length } });
    const body = `${chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join("")}data: [DONE]\n\n`;
    return route.fulfill({ contentType: "text/event-stream", body });
  });
  return bodies;
}

if (missing) console.log(`The web page is not tested in a browser: ${missing}`);

before(async () => {
  if (missing) return;
  folder = mkdtempSync(join(tmpdir(), "pippin-page-"));
  browser = await chromium.launch({ executablePath: browserPath, args: ["--no-sandbox"] });
  server = await serve();
});

after(async () => {
  server?.child.removeAllListeners("exit").kill();
  await browser?.close();
  if (folder) rmSync(folder, { recursive: true });
});

// Nothing that any test does makes the page break its own policy, or talk to others.
afterEach(() => {
  const found = complaints;
  complaints = [];
  assert.deepEqual(found, []);
});

const check = (name, run) => test(name, { skip: missing }, run);

check("a question is answered, and the answer says how fast", async (t) => {
  const page = await openPage(t);
  await picture(page, "empty");
  await setUp(page, { Temperature: "0" });
  await button(page, "Settings").click();
  await page.getByRole("combobox", { name: /^Thinking/ }).selectOption("off");
  await page.keyboard.press("Escape");
  await page.getByRole("textbox", { name: "Message" }).fill("What is 17 plus 25?");
  await page.keyboard.press("Enter");
  await finished(page);
  assert.match(await textOf(page), /42/);
  assert.match(await answers(page).locator(".numbers").innerText(), /^[\d,]+ tokens · ([\d.,]+ tokens\/s · )?first after /);
  // Context in use, of the model's.
  await page.getByRole("meter", { name: "Context in use" }).waitFor();
  await page.locator(".context", { hasText: /^[\d,]+ of [\d,]+$/ }).waitFor();
  await answers(page).hover();
  await button(answers(page), "Copy").click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await textOf(page));
  await picture(page, "answered");
});

check("an answer is stopped and goes on", async (t) => {
  const page = await openPage(t);
  // One that does not come to an end by itself.
  await page.route("**/v1/chat/completions", (route) => {
    const body = { ...route.request().postDataJSON(), ignore_eos: true };
    return route.continue({ postData: JSON.stringify(body) });
  });
  await send(page, "Tell me a story.");
  await page.waitForFunction(() => (document.querySelector(".answer .markdown")?.textContent ?? "").length > 10);
  await page.keyboard.press("Escape");
  await finished(page);
  assert.match(await answers(page).locator(".numbers").innerText(), /stopped/);
  const text = await textOf(page);
  await setUp(page, { "Max tokens": "8" });
  await button(page, "Continue").click();
  await page.locator(".numbers", { hasText: "cut at the limit" }).waitFor();
  const longer = await page.evaluate(() => document.querySelector(".answer .markdown").textContent);
  assert.ok(longer.length >= text.length, `${longer} after ${text}`);
});

check("answers and questions have branches", async (t) => {
  const page = await openPage(t);
  await setUp(page, { Temperature: "0" });
  await send(page, "What is 17 plus 25?");
  await finished(page);
  await button(page, "Regenerate").click();
  await page.getByText("2/2", { exact: true }).waitFor();
  await finished(page);
  assert.match(await textOf(page), /42/);
  await button(answers(page), "Previous branch").click();
  await page.getByText("1/2", { exact: true }).waitFor();

  // Another question is a branch of its own, with an answer of its own.
  await page.getByRole("textbox", { name: "Message" }).focus();
  await page.keyboard.press("ArrowUp");
  await page.getByRole("textbox", { name: "Text" }).fill("What is 20 plus 30?");
  await button(page.locator(".editor"), "Send").click();
  await page.getByText("What is 20 plus 30?").first().waitFor();
  await finished(page);
  const own = page.locator(".own");
  await becomes(() => own.locator(".branches span").innerText(), "2/2");
  await becomes(() => answers(page).locator(".branches").count(), 0);
  await button(own, "Previous branch").click();
  await page.locator(".bubble", { hasText: "17 plus 25" }).waitFor();
  await becomes(() => answers(page).locator(".branches span").innerText(), "1/2");

  // So is another text of an answer; what was said stays.
  await button(answers(page), "Edit answer").click();
  await page.getByRole("textbox", { name: "Text" }).fill("It is **43**.");
  await button(page.locator(".editor"), "Save").click();
  await page.getByText("3/3", { exact: true }).waitFor();
  await becomes(() => answers(page).locator("strong").innerText(), "43");
  assert.match(await answers(page).locator(".numbers").innerText(), /edited/);
  await picture(page, "branches");
});

check("conversations are kept, searched, renamed, exported, deleted and imported", async (t) => {
  const page = await openPage(t);
  await setUp(page, { Temperature: "0", "Max tokens": "4" });
  await send(page, "What is 17 plus 25?");
  await finished(page);
  await page.keyboard.press("Control+Shift+O");
  await page.getByRole("heading", { name: "What can I do for you?" }).waitFor();
  await send(page, "Where is Paris?");
  await finished(page);
  const list = page.getByRole("navigation", { name: "Conversations" });
  const titles = () => list.locator(".title").allInnerTexts();
  await becomes(titles, ["Where is Paris?", "What is 17 plus 25?"]);

  await list.getByRole("listitem").first().hover();
  await button(list.getByRole("listitem").first(), "More").click();
  await button(list, "Rename").click();
  await list.getByRole("textbox", { name: "Name" }).fill("About France");
  await page.keyboard.press("Enter");
  await becomes(titles, ["About France", "What is 17 plus 25?"]);

  await page.keyboard.press("Control+k");
  await page.keyboard.type("plus 17");
  await becomes(titles, ["What is 17 plus 25?"]);
  await page.keyboard.press("Enter");
  await page.locator(".bubble", { hasText: "17 plus 25" }).waitFor();
  await page.getByRole("searchbox").fill("");

  const download = page.waitForEvent("download");
  await button(list.locator("footer"), "Export").click();
  const path = join(folder, "conversations.json");
  await (await download).saveAs(path);
  const file = JSON.parse(readFileSync(path, "utf8"));
  assert.deepEqual(file.conversations.map((conversation) => conversation.title), ["About France", "What is 17 plus 25?"]);

  for (let left = 2; left > 0; left--) {
    await list.getByRole("listitem").first().hover();
    await button(list.getByRole("listitem").first(), "More").click();
    await button(list, "Delete").click();
    await becomes(async () => (await titles()).length, left - 1);
  }
  await button(page, "Undo").click();
  await becomes(titles, ["What is 17 plus 25?"]);

  await page.getByLabel("File of conversations").setInputFiles(path);
  await page.getByText("1 conversation imported, 1 were here already").waitFor();
  // They are there when the page comes back.
  await kept(page, 2);
  await page.reload();
  await list.getByText("About France").click();
  await page.locator(".bubble", { hasText: "Where is Paris?" }).waitFor();
  await becomes(async () => (await titles()).sort(), ["About France", "What is 17 plus 25?"]);

  const broken = join(folder, "broken.json");
  file.conversations[0].messages[0].role = "nobody";
  writeFileSync(broken, JSON.stringify(file));
  await page.getByLabel("File of conversations").setInputFiles(broken);
  await page.getByText("Nothing was imported: conversations[0].messages[0].role must be user, assistant or tool.").waitFor();
});

check("what a model writes is shown and never obeyed", async (t) => {
  const page = await openPage(t);
  const text = [
    "# Title <script>document.title = 'owned'</script>",
    '<img src=x onerror="document.title = \'owned\'"> <b onclick="x()">bold</b> and a<br>break',
    "![picture](https://evil.example/x.png) [link](javascript:document.title='owned') [good](https://example.org/)",
    "Costs $5 or $10, and $a^2$, \\(b\\), `$c$`.",
    "$$\\vec{v} = \\sqrt{x} \\href{javascript:alert(1)}{y}$$",
    "```rust\nfn main() {} // </code><script>\n```",
    "| a | b |\n|--:|---|\n| 1 | 2 |",
    "- [x] done",
  ].join("\n\n");
  await answerWith(page, text.match(/[\s\S]{1,7}/g).map((content) => ({ content })));
  await send(page, "Show all.");
  await finished(page);
  const answer = answers(page).locator(".markdown");
  await answer.locator(".katex").nth(2).waitFor();
  await answer.locator(".hljs-keyword").waitFor();
  assert.equal(await answer.locator("script, img, b, [onclick], [onerror], [style*=evil]").count(), 0);
  assert.match(await answer.locator("h1").innerText(), /<script>/);
  const links = await answer.locator("a").evaluateAll((all) => all.map((link) => [link.getAttribute("href"), link.target, link.rel]));
  const rel = "noopener noreferrer nofollow";
  assert.deepEqual(links.filter(([href]) => href), [["https://evil.example/x.png", "_blank", rel], ["https://example.org/", "_blank", rel]]);
  assert.equal(await answer.locator(".katex").count(), 3);
  assert.match(await answer.innerText(), /Costs \$5 or \$10/);
  assert.equal(await answer.locator("td").first().getAttribute("align"), "right");
  assert.equal(await answer.getByRole("checkbox", { name: "done", checked: true, disabled: true }).count(), 1);
  await button(answer, "Copy").click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "fn main() {} // </code><script>");
  assert.notEqual(await page.title(), "owned");
  await picture(page, "markdown");
});

check("markdown that grows looks like markdown that came whole", async (t) => {
  const page = await browser.newPage();
  t.after(() => page.close());
  await page.setContent("<!doctype html><title>Markdown</title>");
  const source = join(here, "..", "src", "markdown.ts");
  const bundle = await build({ entryPoints: [source], bundle: true, format: "iife", globalName: "markdown", write: false });
  await page.addScriptTag({ content: bundle.outputFiles[0].text });
  const parts = [
    "Text *one* and [a link][1]",
    "- a\n- b\n\n  more\n- c\n  1. d",
    "```js\nlet a = 1;\n\nlet b;\n```",
    "> q\n> r",
    "| a | b |\n|---|--:|\n| c | d |",
    "1. x\n\n2. y",
    "$$\na\n$$",
    "Title\n=====",
    "\tcode\r\n\tmore",
    "<details>\nx\n</details>",
    "End $x$ ~~no~~",
  ];
  const text = `${[...parts, ...parts.toReversed()].join("\n\n")}\n\n[1]: https://example.org/`;
  const differing = await page.evaluate(async (text) => {
    const show = async (step) => {
      const root = document.createElement("div");
      const view = new markdown.MarkdownView(root);
      for (let length = 1; length < text.length; length += step) view.show(text.slice(0, length), false);
      view.show(text, true);
      // Formulas and colours come a little later the first time.
      await new Promise((resolve) => setTimeout(resolve, 100));
      return root.innerHTML;
    };
    await show(text.length);
    const whole = await show(text.length);
    const found = whole.includes("katex") && whole.includes("hljs-keyword") ? [] : [whole];
    // On the way, too: what is shown of a beginning is what would be shown of it alone, but for links that are defined later.
    const root = document.createElement("div");
    const view = new markdown.MarkdownView(root);
    for (let length = 1; length < text.indexOf("\n\n[1]:"); length++) {
      const alone = document.createElement("div");
      new markdown.MarkdownView(alone).show(text.slice(0, length), false);
      view.show(text.slice(0, length), false);
      if (root.innerHTML !== alone.innerHTML) found.push(`of ${length} characters: ${root.innerHTML}\n\n${alone.innerHTML}`);
    }
    for (const step of [1, 2, 7, 50]) {
      const grown = await show(step);
      if (grown !== whole) found.push(`in steps of ${step}: ${grown}`);
    }
    return found;
  }, text);
  assert.deepEqual(differing, []);
});

check("thinking is told of while it lasts", async (t) => {
  const page = await openPage(t);
  const stream = await openStream(t);
  await page.route("**/v1/chat/completions", (route) => route.continue({ url: stream.address }));
  await send(page, "Why?");
  const write = await stream.writer;
  await page.getByText("Reading the conversation").waitFor();
  write({ reasoning_content: "Because" });
  await button(page, /^Thinking for /).click();
  await page.getByText("Because", { exact: true }).waitFor();
  write({ reasoning_content: " it is." });
  await page.getByText("Because it is.").waitFor();
  await picture(page, "thinking");
  write({ content: "So" });
  await button(page, /^Thought for /).waitFor();
  // What is being written is stopped by its button, and then the server has nobody to write to.
  await button(page, "Stop").click();
  await stream.closed;
  await finished(page);
  assert.equal(await textOf(page), "So");
});

check("a model that is chosen is loaded, and that is told of", async (t) => {
  const page = await openPage(t);
  const model = (id, value) => ({ id, object: "model", status: { value } });
  const listed = [model("pippin-nano", "loaded"), model("other-model", "unloaded")];
  await page.route("**/v1/models", (route) => route.fulfill({ json: { data: listed } }));
  await page.reload();
  const picker = page.getByRole("combobox", { name: "Model" });
  await picker.locator("optgroup[label=Loaded]").waitFor({ state: "attached" });
  let load;
  await page.route("**/tokenize", (route) => (load = route));
  await picker.selectOption("other-model");
  await page.getByText("Loading…").waitFor();
  await picture(page, "loading");
  listed[1] = { ...model("other-model", "loaded"), max_model_len: 64 };
  await load.fulfill({ json: { count: 0, tokens: [], max_model_len: 64 } });
  await page.getByText("Loading…").waitFor({ state: "hidden" });
  const bodies = await answerWith(page, [{ content: "Yes." }]);
  await send(page, "Are you there?");
  await finished(page);
  assert.equal(bodies[0].model, "other-model");
  assert.equal(await answers(page).locator(".author").innerText(), "other-model");
  await becomes(() => page.locator(".context").innerText(), "31 of 64");
});

check("thoughts are folded, calls are shown, and results go back", async (t) => {
  const page = await openPage(t);
  const call = (index, fields) => ({ tool_calls: [{ index, ...fields }] });
  const bodies = await answerWith(
    page,
    [
      { reasoning_content: "I need " },
      { reasoning_content: "the weather." },
      { content: "One moment." },
      call(0, { id: "call_1", type: "function", function: { name: "get_weather", arguments: "" } }),
      call(0, { function: { arguments: '{"city": "Ber' } }),
      call(1, { id: "call_2", type: "function", function: { name: "get_time", arguments: '{"zone": {"name": "CET"}}' } }),
      call(0, { function: { arguments: 'lin"}' } }),
    ],
    "tool_calls",
  );
  const tools = '[{"type": "function", "function": {"name": "get_weather"}}]';
  await button(page, "Settings").click();
  await page.getByText("Tools", { exact: true }).click();
  await page.getByLabel("A JSON list").fill(tools);
  await page.keyboard.press("Escape");
  await send(page, "What is the weather?");
  await finished(page);
  const thoughts = button(page, /^Thought for /);
  assert.equal(await thoughts.getAttribute("aria-expanded"), "false");
  assert.equal(await page.getByText("I need the weather.").count(), 0);
  await thoughts.click();
  await page.getByText("I need the weather.").waitFor();
  const weather = page.getByRole("region", { name: "Call of get_weather" });
  assert.deepEqual((await weather.locator("dl").innerText()).split(/\s+/), ["city", "Berlin"]);
  assert.match(await page.getByRole("region", { name: "Call of get_time" }).locator("dl").innerText(), /"name": "CET"/);
  await picture(page, "tools");

  await page.getByLabel("Result of get_weather").fill("18 °C");
  await page.getByLabel("Result of get_time").fill("noon");
  await button(page, "Give results").click();
  await page.waitForFunction(() => document.querySelectorAll(".answer").length === 2);
  await finished(page);
  const { messages } = bodies[1];
  assert.deepEqual(bodies[0].tools, JSON.parse(tools));
  assert.deepEqual(messages.map((message) => message.role), ["user", "assistant", "tool", "tool"]);
  assert.equal(messages[1].reasoning_content, "I need the weather.");
  assert.deepEqual(messages[1].tool_calls.map((call) => call.function.arguments), ['{"city": "Berlin"}', '{"zone": {"name": "CET"}}']);
  assert.deepEqual(messages.slice(2).map((message) => [message.tool_call_id, message.content]), [["call_1", "18 °C"], ["call_2", "noon"]]);
});

check("errors are shown, and what failed can be tried again", async (t) => {
  const page = await openPage(t);
  await page.route("**/v1/chat/completions", (route) =>
    route.fulfill({ status: 200, contentType: "text/event-stream", body: 'data: {"error": {"message": "the model has died"}}\n\n' }),
  );
  await send(page, "What is 17 plus 25?");
  await page.getByRole("alert").getByText("The model has died.").waitFor();
  await picture(page, "error");
  await page.unroute("**/v1/chat/completions");
  await setUp(page, { Temperature: "0" });
  await button(page, "Try again").click();
  await finished(page);
  assert.equal(await page.getByRole("alert").count(), 0);
  assert.match(await textOf(page), /42/);

  // The real server's own words.
  await page.getByRole("textbox", { name: "Message" }).fill("x ".repeat(40_000));
  await button(page, "Send").click();
  await page.getByRole("alert").waitFor();
  assert.match(await page.getByRole("alert").innerText(), /token|long|context/i);
  // The browser itself tells of a status that is no success.
  complaints = complaints.filter((complaint) => !complaint.includes("the server responded with a status of 400"));
});

check("what is set is sent, and what cannot be is said", async (t) => {
  const page = await openPage(t);
  const bodies = await answerWith(page, [{ content: "Yes." }]);
  await setUp(page, {
    "System prompt": "Be short.",
    Temperature: "0.5",
    "Top p": "0.9",
    "Top k": "40",
    "Min p": "0.1",
    "Repetition penalty": "1.1",
    "Max tokens": "100",
    Seed: "7",
    "Stop sequences, one per line": "END\n\\n\\n",
  });
  await button(page, "Settings").click();
  await page.getByRole("combobox", { name: /^Thinking/ }).selectOption("high");
  await page.keyboard.press("Escape");
  await send(page, "Really?");
  await finished(page);
  assert.deepEqual(bodies[0], {
    model: "pippin-nano",
    messages: [{ role: "system", content: "Be short." }, { role: "user", content: "Really?" }],
    temperature: 0.5,
    top_p: 0.9,
    top_k: 40,
    min_p: 0.1,
    repetition_penalty: 1.1,
    max_tokens: 100,
    seed: 7,
    reasoning_effort: "high",
    stop: ["END", "\n\n"],
    stream: true,
    stream_options: { include_usage: true },
  });
  await button(page, "Settings").click();
  await page.getByLabel("Top p", { exact: true }).fill("2");
  await page.getByText("a number from 0 to 1").waitFor();
  await page.getByLabel("Max tokens", { exact: true }).fill("1.5");
  await page.getByText("a whole number from 1", { exact: true }).waitFor();
  await picture(page, "settings");
});

check("colours follow the system, and can be set", async (t) => {
  const page = await openPage(t, { ...DESKTOP, colorScheme: "dark" });
  const isDark = () =>
    page.evaluate(() => {
      const [red] = getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g).map(Number);
      return red < 128;
    });
  assert.equal(await isDark(), true);
  await picture(page, "dark");
  await button(page, "Settings").click();
  await page.getByRole("radio", { name: "Light" }).check();
  await becomes(isDark, false);
  await page.reload();
  await page.getByRole("textbox", { name: "Message" }).waitFor();
  assert.equal(await isDark(), false);
  await button(page, "Settings").click();
  await page.getByRole("radio", { name: "System" }).check();
  await becomes(isDark, true);
});

check("on a phone the list is a drawer, and nothing is wider than the screen", async (t) => {
  const page = await openPage(t, PHONE);
  const list = page.getByRole("navigation", { name: "Conversations" });
  await answerWith(page, [{ content: `\`\`\`rust\n${"let wide = 1; ".repeat(20)}\n\`\`\`\n\n${"long".repeat(60)}\n\n$$${"x+".repeat(60)}y$$` }]);
  assert.equal(await list.isVisible(), false);
  await send(page, "What is 17 plus 25?");
  await finished(page);
  const overflow = await page.evaluate(() => {
    const wide = [...document.querySelectorAll(".scroller, main, body")];
    return wide.filter((element) => element.scrollWidth > element.clientWidth).map((element) => element.className || element.tagName);
  });
  assert.deepEqual(overflow, []);
  await picture(page, "phone");
  await button(page, "Conversations").click();
  await list.waitFor({ state: "visible" });
  await picture(page, "phone-drawer");
  await button(list, "New chat").click();
  await list.waitFor({ state: "hidden" });
  await page.getByRole("heading", { name: "What can I do for you?" }).waitFor();
  // Enter is for lines where there are no other keys for them.
  await page.getByRole("textbox", { name: "Message" }).fill("one");
  await page.keyboard.press("Enter");
  await becomes(() => page.getByRole("textbox", { name: "Message" }).inputValue(), "one\n");
});

check("the page can be used by keyboard alone", async (t) => {
  const page = await openPage(t);
  const skip = page.getByRole("link", { name: "Skip to the message box" });
  const isSeen = async () => (await skip.boundingBox()).y >= 0;
  assert.equal(await isSeen(), false);
  // It comes before all else.
  assert.equal(await page.evaluate(() => document.querySelector("a, button, input").className), "skip");
  await skip.focus();
  assert.equal(await isSeen(), true);
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "prompt");
  await page.keyboard.type("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  assert.equal(await page.getByRole("textbox", { name: "Message" }).inputValue(), "one\ntwo");
  const nameless = await page.evaluate(() => {
    const all = [...document.querySelectorAll("button, input, select, textarea, a")];
    const isNamed = (element) => element.getAttribute("aria-label") || element.textContent.trim() || element.labels?.length;
    return all.filter((element) => !isNamed(element)).map((element) => element.outerHTML);
  });
  assert.deepEqual(nameless, []);
});

check("two tabs know of each other's conversations", async (t) => {
  const page = await openPage(t);
  const other = await page.context().newPage();
  await other.goto(server.address);
  await other.getByRole("textbox", { name: "Message" }).waitFor();
  await answerWith(page, [{ content: "Yes." }]);
  await send(page, "Are you there?");
  await finished(page);
  await kept(page, 1);
  // A tab that comes to the front is told so; headless ones never leave it.
  await other.evaluate(() => dispatchEvent(new Event("visibilitychange")));
  await other.getByRole("navigation").getByText("Are you there?").click();
  await other.getByText("Yes.").waitFor();
});

check("a server with keys is asked with one", async (t) => {
  const keys = join(folder, "keys");
  writeFileSync(keys, "the-only-key\n");
  const closed = await serve("--keys-file", keys);
  t.after(() => closed.child.removeAllListeners("exit").kill());
  const page = await openPage(t, DESKTOP, closed.address);
  const dialog = page.getByRole("dialog", { name: "Key" });
  await dialog.getByLabel("Key", { exact: true }).fill("a-wrong-key");
  await page.keyboard.press("Enter");
  await dialog.getByText("does not know the key").waitFor();
  await dialog.getByLabel("Key", { exact: true }).fill("the-only-key");
  await picture(page, "key");
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "hidden" });
  await page.getByRole("combobox", { name: "Model" }).getByText("pippin-nano").waitFor({ state: "attached" });
  await setUp(page, { Temperature: "0" });
  await send(page, "What is 17 plus 25?");
  await finished(page);
  assert.match(await textOf(page), /42/);
  await button(page, "Settings").click();
  await button(page, "Key…").click();
  await page.getByRole("dialog", { name: "Key" }).getByRole("button", { name: "Forget the key" }).waitFor();
  await page.waitForTimeout(300);
  assert.equal(await page.getByRole("dialog").getAttribute("aria-label"), "Key");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  // It is forgotten with the tab, unless it was to be kept.
  const kept = await page.evaluate(() => [sessionStorage.getItem("pippin.key"), localStorage.getItem("pippin.key")]);
  assert.deepEqual(kept, ["the-only-key", null]);
  complaints = complaints.filter((complaint) => !complaint.includes("the server responded with a status of 401"));
});
