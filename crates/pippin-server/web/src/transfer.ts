// Conversations as a file. What comes from a file is checked field by field: it may come from anywhere.

import { type Conversation, type Message, type Parameters, type Role, type Stats, THINKING, type Thinking, type ToolCall } from "./tree";

const FORMAT = "pippin-conversations";
const VERSION = 1;
const MAX_BYTES = 64 << 20;

/** Says which field of a file is wrong. */
export class ImportError extends Error {}

export function exportText(conversations: Conversation[]): string {
  const plain = conversations.map(({ messages, children: _, ...rest }) => ({
    ...rest,
    messages: [...messages.values()].map(({ children: _, ...message }) => message),
  }));
  const file = { format: FORMAT, version: VERSION, exported: new Date().toISOString(), conversations: plain };
  return JSON.stringify(file, null, 1);
}

/** Reads what `exportText` has written. */
export function importText(text: string): Conversation[] {
  if (text.length > MAX_BYTES) throw new ImportError("the file has more than 64 MiB");
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch (error) {
    throw new ImportError(`the file is no JSON: ${error instanceof Error ? error.message : error}`);
  }
  const fields = object(file, "the file");
  if (fields["format"] !== FORMAT) throw new ImportError(`format must be "${FORMAT}"`);
  if (fields["version"] !== VERSION) throw new ImportError(`version must be ${VERSION}`);
  return list(fields["conversations"], "conversations").map((value, index) =>
    conversation(value, `conversations[${index}]`),
  );
}

function conversation(value: unknown, at: string): Conversation {
  const fields = object(value, at);
  const result: Conversation = {
    id: id(fields["id"], `${at}.id`),
    title: text(fields["title"], `${at}.title`),
    named: boolean(fields["named"], `${at}.named`),
    created: number(fields["created"], `${at}.created`),
    updated: number(fields["updated"], `${at}.updated`),
    model: text(fields["model"], `${at}.model`),
    system: text(fields["system"], `${at}.system`),
    tools: text(fields["tools"], `${at}.tools`),
    parameters: parameters(fields["parameters"], `${at}.parameters`),
    messages: new Map(),
    children: [],
    chosen: null,
  };
  set(result, "thinking", optional(fields["thinking"], `${at}.thinking`, effort));
  list(fields["messages"], `${at}.messages`).forEach((value, index) => {
    const where = `${at}.messages[${index}]`;
    const read = message(value, where);
    if (result.messages.has(read.id)) throw new ImportError(`${where}.id is there twice`);
    // Parents stand before their children, so there is no way round in a circle.
    const parent = read.parent === null ? result : result.messages.get(read.parent);
    if (!parent) throw new ImportError(`${where}.parent is no message before it`);
    parent.children.push(read.id);
    result.messages.set(read.id, read);
  });
  result.chosen = branch(fields["chosen"], result.children);
  for (const message of result.messages.values()) message.chosen = branch(message.chosen, message.children);
  return result;
}

function message(value: unknown, at: string): Message {
  const fields = object(value, at);
  const result: Message = {
    id: id(fields["id"], `${at}.id`),
    parent: fields["parent"] === null ? null : id(fields["parent"], `${at}.parent`),
    role: role(fields["role"], `${at}.role`),
    content: text(fields["content"], `${at}.content`),
    created: number(fields["created"], `${at}.created`),
    children: [],
    chosen: typeof fields["chosen"] === "string" ? fields["chosen"] : null,
  };
  for (const name of ["reasoning", "toolCallId", "model", "finish", "error"] as const) {
    set(result, name, optional(fields[name], `${at}.${name}`, text));
  }
  set(result, "thinking", optional(fields["thinking"], `${at}.thinking`, number));
  set(result, "edited", optional(fields["edited"], `${at}.edited`, boolean));
  set(result, "toolCalls", optional(fields["toolCalls"], `${at}.toolCalls`, calls));
  set(result, "stats", optional(fields["stats"], `${at}.stats`, stats));
  return result;
}

/** The branch that is shown: the one that was, if it is there, or the newest. */
function branch(value: unknown, children: string[]): string | null {
  return children.find((child) => child === value) ?? children.at(-1) ?? null;
}

function calls(value: unknown, at: string): ToolCall[] {
  return list(value, at).map((item, index) => {
    const fields = object(item, `${at}[${index}]`);
    return {
      id: text(fields["id"], `${at}[${index}].id`),
      name: text(fields["name"], `${at}[${index}].name`),
      arguments: text(fields["arguments"], `${at}[${index}].arguments`),
    };
  });
}

function stats(value: unknown, at: string): Stats {
  const fields = object(value, at);
  const result: Stats = {};
  for (const name of ["promptTokens", "cachedTokens", "completionTokens", "firstToken", "writing"] as const) {
    set(result, name, optional(fields[name], `${at}.${name}`, number));
  }
  set(result, "estimated", optional(fields["estimated"], `${at}.estimated`, boolean));
  return result;
}

function parameters(value: unknown, at: string): Parameters {
  const fields = object(value, at);
  const result: Parameters = {};
  const names = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "repetition_penalty"] as const;
  for (const name of names) set(result, name, optional(fields[name], `${at}.${name}`, number));
  const stop = optional(fields["stop"], `${at}.stop`, list);
  set(result, "stop", stop?.map((item, index) => text(item, `${at}.stop[${index}]`)));
  return result;
}

/** Sets a field unless there is nothing to set. */
function set<T, K extends keyof T>(target: T, name: K, value: T[K] | undefined): void {
  if (value !== undefined) target[name] = value as T[K];
}

function optional<T>(value: unknown, at: string, read: (value: unknown, at: string) => T): T | undefined {
  return value === undefined || value === null ? undefined : read(value, at);
}

function object(value: unknown, at: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ImportError(`${at} must be an object`);
  }
  return value as Record<string, unknown>;
}

function list(value: unknown, at: string): unknown[] {
  if (!Array.isArray(value)) throw new ImportError(`${at} must be a list`);
  return value;
}

function text(value: unknown, at: string): string {
  if (typeof value !== "string") throw new ImportError(`${at} must be a text`);
  return value;
}

function boolean(value: unknown, at: string): boolean {
  if (typeof value !== "boolean") throw new ImportError(`${at} must be true or false`);
  return value;
}

function number(value: unknown, at: string): number {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new ImportError(`${at} must be a number`);
  return value;
}

function id(value: unknown, at: string): string {
  if (typeof value !== "string" || !/^[0-9A-Za-z-]{1,64}$/.test(value)) {
    throw new ImportError(`${at} must be up to 64 letters and digits`);
  }
  return value;
}

function effort(value: unknown, at: string): Thinking {
  const known = THINKING.find((word) => word === value);
  if (!known) throw new ImportError(`${at} must be one of ${THINKING.join(", ")}`);
  return known;
}

function role(value: unknown, at: string): Role {
  if (value === "user" || value === "assistant" || value === "tool") return value;
  throw new ImportError(`${at} must be user, assistant or tool`);
}
