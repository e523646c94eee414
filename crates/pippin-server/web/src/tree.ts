// A conversation is a tree of messages: whoever regenerates or edits begins a branch beside the old one, and nothing is lost.

export type Role = "user" | "assistant" | "tool";

export interface ToolCall {
  id: string;
  name: string;
  /** JSON, as the model wrote it; it may be broken. */
  arguments: string;
}

/** The numbers of an answer. Times are in milliseconds. */
export interface Stats {
  promptTokens?: number;
  cachedTokens?: number;
  completionTokens?: number;
  /** The tokens were counted by pieces of the stream, for the server did not say. */
  estimated?: boolean;
  firstToken?: number;
  /** From the first token to the last. */
  writing?: number;
}

export interface Message {
  id: string;
  /** `null`: it begins the conversation. */
  parent: string | null;
  role: Role;
  content: string;
  /** Milliseconds since 1970. */
  created: number;
  reasoning?: string;
  /** How long the thinking took, in milliseconds. */
  thinking?: number;
  toolCalls?: ToolCall[];
  /** The call that a message of the role `tool` answers. */
  toolCallId?: string;
  model?: string;
  /** Why the answer ended, as OpenAI has it; `stopped` where the reader stopped it. */
  finish?: string;
  error?: string;
  edited?: boolean;
  stats?: Stats;
  /** The branches that go on from here, oldest first. */
  children: string[];
  /** The one that is shown. */
  chosen: string | null;
}

export interface Parameters {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  max_tokens?: number;
  seed?: number;
  repetition_penalty?: number;
  stop?: string[];
}

export const THINKING = ["off", "on", "low", "medium", "high"] as const;
export type Thinking = (typeof THINKING)[number];

/** What a conversation is answered with. */
export interface Setup {
  system: string;
  parameters: Parameters;
  /** Whether the model is to think first, or how much; absent: as it likes. */
  thinking?: Thinking;
  /** Tools in the form of the OpenAI API, as JSON text. */
  tools: string;
}

export interface Conversation extends Setup {
  id: string;
  title: string;
  /** The title was given by the reader, and stays. */
  named: boolean;
  created: number;
  updated: number;
  model: string;
  messages: Map<string, Message>;
  children: string[];
  chosen: string | null;
}

/** 96 random bits. `crypto.randomUUID` is missing on pages without TLS. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(model: string, setup: Setup): Conversation {
  const now = Date.now();
  return {
    ...structuredClone(setup),
    id: newId(),
    title: "",
    named: false,
    created: now,
    updated: now,
    model,
    messages: new Map(),
    children: [],
    chosen: null,
  };
}

/** What has branches: a message, or the conversation as a whole. */
function branchesOf(conversation: Conversation, id: string | null): { children: string[]; chosen: string | null } {
  return (id === null ? null : conversation.messages.get(id)) ?? conversation;
}

/** Adds a message as the newest branch of its parent, and shows it. */
export function add(
  conversation: Conversation,
  parent: string | null,
  fields: Pick<Message, "role" | "content"> & Partial<Message>,
): Message {
  const message: Message = { created: Date.now(), ...fields, id: newId(), parent, children: [], chosen: null };
  conversation.messages.set(message.id, message);
  const place = branchesOf(conversation, parent);
  place.children.push(message.id);
  place.chosen = message.id;
  return message;
}

/** The messages that are shown, from the first to the last. */
export function shown(conversation: Conversation): Message[] {
  const path: Message[] = [];
  let next = conversation.chosen;
  while (next !== null) {
    const message = conversation.messages.get(next);
    if (!message) break;
    path.push(message);
    next = message.chosen;
  }
  return path;
}

/** The messages before this one, from the first to its parent. */
export function before(conversation: Conversation, message: Message): Message[] {
  const path: Message[] = [];
  let id = message.parent;
  while (id !== null) {
    const parent = conversation.messages.get(id);
    if (!parent) break;
    path.push(parent);
    id = parent.parent;
  }
  return path.reverse();
}

/** The branches among which this message is one. */
export function siblings(conversation: Conversation, message: Message): string[] {
  return branchesOf(conversation, message.parent).children;
}

/** Shows another branch. */
export function choose(conversation: Conversation, id: string): void {
  const message = conversation.messages.get(id);
  if (message) branchesOf(conversation, message.parent).chosen = id;
}

/** A title from how it begins. */
export function titleOf(conversation: Conversation): string {
  if (conversation.named) return conversation.title;
  const first = shown(conversation).find((message) => message.role === "user");
  const text = first?.content.trim().split(/\s+/).join(" ") ?? "";
  return text.length > 60 ? `${text.slice(0, 58).trimEnd()}…` : text;
}
