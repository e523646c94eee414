// The OpenAI API of the server that this page comes from.

import { events } from "./sse";
import { remember, remembered } from "./store";

/** A request that was not answered, or an answer that broke off. */
export class ApiError extends Error {
  constructor(
    message: string,
    /** The HTTP status; 0 where there was no answer at all. */
    readonly status: number,
  ) {
    super(message);
  }
}

export interface Model {
  id: string;
  /** Tokens of the context, where the server says. */
  max_model_len?: number;
  /** `loaded`, `loading` or `unloaded`, where the server says. */
  status?: { value?: string };
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number } | null;
}

export interface Delta {
  content?: string | null;
  reasoning_content?: string | null;
  tool_calls?: {
    index: number;
    id?: string | null;
    function?: { name?: string | null; arguments?: string | null };
  }[];
}

export interface Chunk {
  choices?: { delta?: Delta; finish_reason?: string | null }[];
  usage?: Usage | null;
}

let key: string | null = null;

/** The key that is shown to the server, if there is one. */
export function currentKey(): string | null {
  if (key !== null) return key;
  try {
    key = sessionStorage.getItem("pippin.key");
  } catch {
    // Then it is asked for again.
  }
  return (key ??= remembered("key"));
}

/** Takes a key: until the tab is closed, or for as long as the browser keeps it. */
export function setKey(value: string, isKept: boolean): void {
  key = value;
  remember("key", isKept && value ? value : null);
  try {
    if (!isKept && value) sessionStorage.setItem("pippin.key", value);
    else sessionStorage.removeItem("pippin.key");
  } catch {
    // Then it holds until the page is closed.
  }
}

export const isKeyKept = (): boolean => remembered("key") !== null;

async function send(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers = new Headers();
  const shownKey = currentKey();
  if (shownKey) headers.set("authorization", `Bearer ${shownKey}`);
  const init: RequestInit = { headers, credentials: "omit", redirect: "error", referrerPolicy: "no-referrer" };
  if (signal) init.signal = signal;
  if (body !== undefined) {
    headers.set("content-type", "application/json");
    init.method = "POST";
    init.body = JSON.stringify(body);
  }
  let response: Response;
  try {
    response = await fetch(new URL(path, document.baseURI), init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The server cannot be reached. Is it still running?", 0);
  }
  if (response.ok) return response;
  const after = Number(response.headers.get("retry-after") ?? Number.NaN);
  const message = messageOf(await response.json().catch(() => null)) ?? `The server answered with ${response.status}.`;
  const advice = after > 0 ? ` Try again in ${after} s.` : "";
  throw new ApiError(message + advice, response.status);
}

/** The message of an error's body, as a sentence. */
function messageOf(body: unknown): string | undefined {
  const error = (body as { error?: unknown } | null)?.error;
  const text = typeof error === "string" ? error : (error as { message?: unknown } | undefined)?.message;
  if (typeof text !== "string" || !text) return undefined;
  const sentence = text[0]!.toUpperCase() + text.slice(1);
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}

export async function models(): Promise<Model[]> {
  const { data } = (await (await send("v1/models")).json()) as { data?: Model[] };
  return (data ?? []).filter((model) => typeof model?.id === "string");
}

/** What `/health` says of the server: `ok`, `loading` or another word; `null` if it cannot be reached. */
export async function health(): Promise<string | null> {
  try {
    const response = await fetch(new URL("health", document.baseURI), { cache: "no-store" });
    return ((await response.json()) as { status?: string }).status ?? "ok";
  } catch {
    return null;
  }
}

/** Has a model loaded, if it is not, and returns the tokens that its context holds. */
export async function load(model: string, signal?: AbortSignal): Promise<number | undefined> {
  const response = await send("tokenize", { model, prompt: "" }, signal);
  const { max_model_len: length } = (await response.json()) as { max_model_len?: number };
  return typeof length === "number" ? length : undefined;
}

/** The pieces of an answer. `onAccepted` is called when the model is there and begins to read. */
export async function* chat(
  body: Record<string, unknown>,
  signal: AbortSignal,
  onAccepted: () => void,
): AsyncGenerator<Chunk> {
  const whole = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await send("v1/chat/completions", whole, signal);
  onAccepted();
  if (!response.body) throw new ApiError("The server sent nothing.", response.status);
  let isWhole = false;
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") {
        isWhole = true;
        break;
      }
      const chunk: unknown = JSON.parse(data);
      const message = messageOf(chunk);
      if (message) throw new ApiError(message, response.status);
      yield chunk as Chunk;
    }
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
    throw new ApiError("The connection to the server broke off.", 0);
  }
  if (!isWhole) throw new ApiError("The answer broke off before its end.", 0);
}
