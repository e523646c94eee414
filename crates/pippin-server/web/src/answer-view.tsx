// What an answer consists of: thoughts, text, calls of tools, and its numbers.

import { useEffect, useReducer, useRef, useState } from "preact/hooks";

import type { Answer } from "./answer";
import { app } from "./app";
import { count, speed, time, tokens } from "./format";
import { Icon } from "./icons";
import { MarkdownText } from "./markdown-text";
import type { Message, ToolCall } from "./tree";

/** Renders with each piece of an answer, as often as the screen shows something new and no more than the page can keep up with. */
function useLive(message: Message, answer: Answer | undefined): void {
  const [, render] = useReducer((count: number) => count + 1, 0);
  const begun = useRef(0);
  const cost = useRef(0);
  const frame = useRef(0);
  useEffect(() => {
    cost.current = performance.now() - begun.current;
  });
  useEffect(() => {
    if (!answer) return;
    let last = 0;
    const draw = (now: number) => {
      // Where drawing takes long, three quarters of the time are left for everything else.
      if (now - last < cost.current * 3) {
        frame.current = requestAnimationFrame(draw);
        return;
      }
      frame.current = 0;
      last = begun.current = now;
      render(undefined);
    };
    const ask = () => (frame.current ||= requestAnimationFrame(draw));
    const end = app.watchLive(message.id, ask);
    // Clocks go on where no pieces come.
    const clock = setInterval(ask, 500);
    return () => {
      end();
      clearInterval(clock);
      cancelAnimationFrame(frame.current);
      frame.current = 0;
    };
  }, [message, answer]);
}

export function AnswerView({ message, answer }: { message: Message; answer: Answer | undefined }) {
  useLive(message, answer);
  return (
    <>
      {message.reasoning ? <Thoughts message={message} answer={answer} /> : null}
      {answer ? <Waiting message={message} answer={answer} /> : null}
      <MarkdownText text={message.content} isDone={!answer} />
      {message.toolCalls?.map((call, index) => <Call key={index} call={call} isWritten={!!answer} />)}
      {answer ? <p class="numbers">{answer.speed ?? ""}</p> : <Numbers message={message} />}
    </>
  );
}

/** What happens while there is no text yet. */
function Waiting({ message, answer }: { message: Message; answer: Answer }) {
  const { phase } = answer;
  if (phase === "writing" || phase === "thinking") return null;
  const waited = performance.now() - answer.begin;
  const isLoading = phase === "loading" && waited > 700 && !app.isLoaded(message.model ?? "");
  const text = phase === "reading" ? "Reading the conversation" : isLoading ? `Loading ${message.model}` : "Waiting";
  return (
    <div class="waiting">
      <span class="pulse" aria-hidden="true" />
      <span>
        {text}…{waited > 3000 ? ` ${time(waited)}` : ""}
      </span>
      {isLoading ? <div class="bar" aria-hidden="true" /> : null}
    </div>
  );
}

function Thoughts({ message, answer }: { message: Message; answer: Answer | undefined }) {
  const [isOpen, setOpen] = useState(false);
  const isThinking = answer?.phase === "thinking";
  const taken = isThinking ? answer.thinking : message.thinking;
  const label = isThinking ? "Thinking" : "Thought";
  return (
    <section class={`thoughts ${isThinking ? "is-live" : ""}`}>
      <button type="button" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
        <Icon name="thought" />
        <span>
          {label}
          {taken === undefined ? "" : ` for ${time(taken)}`}
        </span>
        <Icon name="branchOn" />
      </button>
      {isOpen ? (
        <div class="thoughts-text">
          <MarkdownText text={message.reasoning ?? ""} isDone={!isThinking} />
        </div>
      ) : null}
    </section>
  );
}

/** A call as its name and its arguments, one in each line where they can be read. */
function Call({ call, isWritten }: { call: ToolCall; isWritten: boolean }) {
  return (
    <section class="call" aria-label={`Call of ${call.name}`}>
      <header>
        <Icon name="tool" />
        <span>Calls</span>
        <code>{call.name || "…"}</code>
      </header>
      <CallArguments text={call.arguments} isWritten={isWritten} />
    </section>
  );
}

function CallArguments({ text, isWritten }: { text: string; isWritten: boolean }) {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    if (!text) return null;
    return (
      <>
        <pre tabIndex={0}>{text}</pre>
        {isWritten ? null : <p class="hint">These arguments are no JSON.</p>}
      </>
    );
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return <pre tabIndex={0}>{JSON.stringify(value, null, 2)}</pre>;
  }
  const entries = Object.entries(value);
  if (entries.length === 0) return null;
  return (
    <dl>
      {entries.map(([name, argument]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{typeof argument === "string" ? argument : JSON.stringify(argument, null, 2)}</dd>
        </div>
      ))}
    </dl>
  );
}

function Numbers({ message }: { message: Message }) {
  const { stats, finish } = message;
  const parts: string[] = [];
  if (stats?.completionTokens) {
    parts.push(`${stats.estimated ? "about " : ""}${tokens(stats.completionTokens)}`);
    // The first token was there before the clock began.
    const rate = speed(stats.completionTokens - 1, stats.writing ?? 0);
    if (rate && stats.completionTokens > 1) parts.push(rate);
  }
  if (stats?.firstToken !== undefined) parts.push(`first after ${time(stats.firstToken)}`);
  if (finish === "length") parts.push("cut at the limit of tokens");
  if (finish === "stopped") parts.push("stopped");
  if (message.edited) parts.push("edited");
  const title = stats?.promptTokens
    ? `${tokens(stats.promptTokens)} read, ${count(stats.cachedTokens ?? 0)} of them remembered from before`
    : undefined;
  return parts.length > 0 ? (
    <p class="numbers" title={title}>
      {parts.join(" · ")}
    </p>
  ) : null;
}
