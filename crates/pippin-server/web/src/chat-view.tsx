// The conversation that is open: its head, its messages, and where to write the next.

import { useEffect, useLayoutEffect, useReducer, useRef, useState } from "preact/hooks";

import type { Model } from "./api";
import { app, useApp } from "./app";
import { Composer } from "./composer";
import { count, time } from "./format";
import { Icon, IconButton, Logo } from "./icons";
import { MessageView } from "./message-view";
import { shown } from "./tree";

/** So near to the end counts as the end. */
const NEAR = 48;

export function ChatView() {
  useApp();
  const [edited, setEdited] = useState<string | null>(null);
  const messages = shown(app.current);
  const last = messages.at(-1);
  const editLast = () => {
    const own = messages.findLast((message) => message.role === "user");
    if (own) setEdited(own.id);
  };
  return (
    <main>
      <Head />
      {messages.length === 0 ? (
        <Empty />
      ) : (
        <Scroller key={app.current.id}>
          <h1 class="off-screen">{app.current.title}</h1>
          {messages.map((message) => (
            <MessageView
              key={message.id}
              message={message}
              answer={app.answer?.message === message ? app.answer : undefined}
              isLast={message === last}
              isEdited={edited === message.id}
              setEdited={setEdited}
            />
          ))}
        </Scroller>
      )}
      <Composer onEditLast={editLast} />
    </main>
  );
}

function Head() {
  const { models, current, loading } = app;
  const isKnown = models.some((model) => model.id === current.model);
  return (
    <header class="head">
      <IconButton
        icon="menu"
        label="Conversations"
        class="only-phone"
        expanded={app.isDrawerOpen}
        onClick={() => app.openDrawer("new-chat")}
      />
      <div class="model">
        <select aria-label="Model" value={current.model} disabled={models.length === 0} onChange={(event) => void app.choose(event.currentTarget.value)}>
          {isKnown || !current.model ? null : <option value={current.model}>{current.model} (not here)</option>}
          <Models label="Loaded" models={models.filter((model) => app.isLoaded(model.id))} />
          <Models label="On the server" models={models.filter((model) => !app.isLoaded(model.id))} />
        </select>
        {loading ? <Loading begin={loading.begin} /> : null}
      </div>
      <ContextUse />
      <IconButton icon="setup" label="Settings" onClick={() => app.show("setup")} />
    </header>
  );
}

function Models({ label, models }: { label: string; models: Model[] }) {
  if (models.length === 0) return null;
  return (
    <optgroup label={label}>
      {models.map((model) => (
        <option key={model.id} value={model.id}>
          {model.id}
        </option>
      ))}
    </optgroup>
  );
}

function Loading({ begin }: { begin: number }) {
  const [, tick] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    const clock = setInterval(() => tick(undefined), 500);
    return () => clearInterval(clock);
  }, []);
  const waited = performance.now() - begin;
  return (
    <span class="loading" role="status">
      <span class="pulse" aria-hidden="true" />
      Loading{waited > 3000 ? ` ${time(waited)}` : "…"}
    </span>
  );
}

/** How much of the model's context the conversation fills. */
function ContextUse() {
  const stats = shown(app.current).findLast((message) => message.stats?.promptTokens !== undefined)?.stats;
  const length = app.contexts.get(app.current.model);
  if (!stats?.promptTokens) return <span class="context" />;
  const used = stats.promptTokens + (stats.completionTokens ?? 0);
  const text = length ? `${count(used)} of ${count(length)}` : count(used);
  const share = length ? Math.min(used / length, 1) : 0;
  return (
    <span class={`context ${share > 0.85 ? "is-full" : ""}`} title={`${text} tokens of the context are used`}>
      {length ? (
        <span class="gauge" role="meter" aria-label="Context in use" aria-valuemin={0} aria-valuemax={length} aria-valuenow={used}>
          <span style={{ width: `${share * 100}%` }} />
        </span>
      ) : null}
      <span>{text}</span>
    </span>
  );
}

function Empty() {
  return (
    <div class="empty">
      <Logo />
      {app.problem === null ? (
        <>
          <h1>What can I do for you?</h1>
          <p>Conversations are kept in this browser, and nowhere else.</p>
        </>
      ) : (
        <div class="failure" role="alert">
          <p>{app.problem}</p>
          <button type="button" onClick={() => void app.findModels()}>
            Try again
          </button>
        </div>
      )}
    </div>
  );
}

/** Follows what is written for as long as the reader is at its end. */
function Scroller({ children }: { children: preact.ComponentChildren }) {
  const box = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const isFollowing = useRef(true);
  const [isAway, setAway] = useState(false);
  const toEnd = () => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  };
  const begun = app.answer?.message.id;
  // Whoever asks wants to see the answer.
  useLayoutEffect(() => {
    isFollowing.current = true;
    toEnd();
  }, [begun]);
  useEffect(() => {
    const observer = new ResizeObserver(() => {
      if (isFollowing.current) toEnd();
    });
    for (const element of [box.current, inner.current]) if (element) observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const onScroll = () => {
    const { current } = box;
    if (!current) return;
    const distance = current.scrollHeight - current.scrollTop - current.clientHeight;
    isFollowing.current = distance < NEAR;
    setAway(distance > 4 * NEAR);
  };
  return (
    <div class="scroller-frame">
      <div class="scroller" ref={box} onScroll={onScroll}>
        <div class="messages" ref={inner}>
          {children}
        </div>
      </div>
      {isAway ? (
        <button
          type="button"
          class="to-end"
          aria-label="To the end"
          onClick={() => {
            isFollowing.current = true;
            toEnd();
          }}
        >
          <Icon name="down" />
        </button>
      ) : null}
    </div>
  );
}
