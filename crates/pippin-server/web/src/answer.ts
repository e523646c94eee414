// An answer on its way: from the request to the last piece.

import { speed } from "./format";
import { ApiError, chat, type Delta } from "./api";
import { requestFor } from "./request";
import type { Conversation, Message, ToolCall } from "./tree";

/** How far an answer is: the model is being loaded, it reads, it thinks, or it writes. */
export type Phase = "loading" | "reading" | "thinking" | "writing";

/** More calls of one answer are a mistake. */
const MAX_CALLS = 128;

export class Answer {
  phase: Phase = "loading";
  readonly begin = performance.now();
  private readonly controller = new AbortController();
  private first: number | undefined;
  private last = 0;
  private thoughtSince: number | undefined;
  private pieces = 0;

  constructor(
    readonly conversation: Conversation,
    readonly message: Message,
    /** Called with each piece, and with each change of the phase. */
    private readonly onChange: () => void,
  ) {}

  /** Ends it. What is there stays. */
  stop(): void {
    this.controller.abort();
  }

  /** How fast it comes. */
  get speed(): string | undefined {
    return speed(this.pieces - 1, this.last - (this.first ?? this.last));
  }

  /** Milliseconds of thinking so far. */
  get thinking(): number {
    return this.message.thinking ?? performance.now() - (this.thoughtSince ?? performance.now());
  }

  /** Asks, and takes what comes. Returns the error that it ended with, if it did. */
  async run(continues: boolean): Promise<ApiError | undefined> {
    const { message } = this;
    try {
      const body = requestFor(this.conversation, message, continues);
      for await (const chunk of chat(body, this.controller.signal, () => this.enter("reading"))) {
        const choice = chunk.choices?.[0];
        if (choice?.delta) this.take(choice.delta);
        if (choice?.finish_reason) message.finish = choice.finish_reason;
        if (chunk.usage) this.count(chunk.usage.prompt_tokens, chunk.usage.completion_tokens, chunk.usage);
      }
      return undefined;
    } catch (error) {
      if (this.controller.signal.aborted) {
        message.finish = "stopped";
        return undefined;
      }
      const known = error instanceof ApiError ? error : new ApiError(String(error), 0);
      message.error = known.message;
      return known;
    } finally {
      this.endThinking();
      this.finishStats();
    }
  }

  private enter(phase: Phase): void {
    this.phase = phase;
    this.onChange();
  }

  private take(delta: Delta): void {
    const { content, reasoning_content: reasoning, tool_calls: calls } = delta;
    if (!content && !reasoning && !calls?.length) return;
    this.last = performance.now();
    this.first ??= this.last;
    this.pieces += 1;
    if (reasoning) {
      this.thoughtSince ??= this.last;
      this.message.reasoning = (this.message.reasoning ?? "") + reasoning;
      this.phase = "thinking";
    }
    if (content || calls?.length) {
      this.endThinking();
      this.message.content += content ?? "";
      this.phase = "writing";
    }
    for (const part of calls ?? []) {
      if (!(part.index >= 0 && part.index < MAX_CALLS)) continue;
      // Parts of a call come by its number, its name and id with the first of them.
      const all = (this.message.toolCalls ??= []);
      const call: ToolCall = (all[part.index] ??= { id: "", name: "", arguments: "" });
      if (part.id) call.id = part.id;
      call.name += part.function?.name ?? "";
      call.arguments += part.function?.arguments ?? "";
    }
    this.onChange();
  }

  private endThinking(): void {
    if (this.thoughtSince !== undefined && this.message.thinking === undefined) {
      this.message.thinking = this.last - this.thoughtSince;
    }
  }

  private count(prompt: number, completion: number, usage: { prompt_tokens_details?: { cached_tokens?: number } | null }) {
    this.message.stats = { ...this.message.stats, promptTokens: prompt, completionTokens: completion };
    const cached = usage.prompt_tokens_details?.cached_tokens;
    if (cached !== undefined) this.message.stats.cachedTokens = cached;
  }

  private finishStats(): void {
    if (this.first === undefined) return;
    const stats = (this.message.stats ??= {});
    stats.firstToken = this.first - this.begin;
    stats.writing = this.last - this.first;
    if (stats.completionTokens === undefined) {
      stats.completionTokens = this.pieces;
      stats.estimated = true;
    }
    // A list with holes would be of no use to anybody.
    if (this.message.toolCalls) this.message.toolCalls = this.message.toolCalls.filter(Boolean);
  }
}
