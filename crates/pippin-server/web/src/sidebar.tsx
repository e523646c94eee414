// The list of conversations.

import { useEffect, useRef, useState } from "preact/hooks";

import { app, useApp } from "./app";
import { period } from "./format";
import { Icon, IconButton, Logo } from "./icons";
import type { Conversation } from "./tree";

export function Sidebar() {
  useApp();
  const found = app.library.conversations.filter((conversation) => matches(conversation, app.search));
  const now = Date.now();
  const groups = Map.groupBy(found, (conversation) => period(conversation.updated, now));
  return (
    <nav id="conversations" class="sidebar" aria-label="Conversations">
      <header>
        <Logo />
        <span class="name">Pippin</span>
        <IconButton icon="close" label="Close the list" class="only-phone" onClick={() => app.closeDrawer()} />
      </header>
      <button type="button" id="new-chat" class="new" onClick={() => app.begin()}>
        <Icon name="add" /> New chat
      </button>
      <label class="search">
        <Icon name="search" />
        <input
          id="search"
          type="search"
          placeholder="Search"
          aria-label="Search conversations"
          value={app.search}
          onInput={(event) => {
            app.search = event.currentTarget.value;
            app.changed();
          }}
          onKeyDown={(event) => {
            if (event.key === "Enter" && found[0]) app.open(found[0]);
          }}
        />
      </label>
      <div class="list">
        {[...groups].map(([name, conversations]) => (
          <section key={name}>
            <h2>{name}</h2>
            <ul>
              {conversations.map((conversation) => (
                <Item key={conversation.id} conversation={conversation} />
              ))}
            </ul>
          </section>
        ))}
        {found.length === 0 ? <p class="hint">{app.search ? "Nothing found." : "No conversations yet."}</p> : null}
      </div>
      <Footer />
    </nav>
  );
}

function matches(conversation: Conversation, search: string): boolean {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const texts = [conversation.title, ...[...conversation.messages.values()].map((message) => message.content)];
  const all = texts.map((text) => text.toLowerCase());
  return words.every((word) => all.some((text) => text.includes(word)));
}

function Item({ conversation }: { conversation: Conversation }) {
  const [isOpen, setOpen] = useState(false);
  const [isNamed, setNamed] = useState(false);
  const item = useRef<HTMLLIElement>(null);
  const isCurrent = conversation === app.current;
  useEffect(() => {
    if (!isOpen) return;
    const closeElsewhere = (event: Event) => {
      if (!item.current?.contains(event.target as Node)) setOpen(false);
    };
    addEventListener("pointerdown", closeElsewhere);
    addEventListener("focusin", closeElsewhere);
    return () => {
      removeEventListener("pointerdown", closeElsewhere);
      removeEventListener("focusin", closeElsewhere);
    };
  }, [isOpen]);
  const act = (action: () => void) => () => {
    setOpen(false);
    action();
  };
  if (isNamed) return <NameField conversation={conversation} onDone={() => setNamed(false)} />;
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "Escape" || !isOpen) return;
    event.stopPropagation();
    setOpen(false);
  };
  return (
    <li ref={item} class={isCurrent ? "is-current" : ""} onKeyDown={onKeyDown}>
      <a href={`#c=${conversation.id}`} aria-current={isCurrent ? "page" : undefined} onClick={(event) => {
        event.preventDefault();
        app.open(conversation);
      }} onDblClick={() => setNamed(true)}>
        {app.answers.has(conversation.id) ? <span class="pulse" aria-label="answering" /> : null}
        <span class="title">{conversation.title || "Untitled"}</span>
      </a>
      <IconButton icon="more" label="More" expanded={isOpen} onClick={() => setOpen(!isOpen)} />
      {isOpen ? (
        <div class="menu">
          <button type="button" onClick={act(() => setNamed(true))}>
            <Icon name="edit" /> Rename
          </button>
          <button type="button" onClick={act(() => app.library.export([conversation]))}>
            <Icon name="export" /> Export
          </button>
          <button type="button" class="danger" onClick={act(() => app.remove(conversation))}>
            <Icon name="remove" /> Delete
          </button>
        </div>
      ) : null}
    </li>
  );
}

function NameField({ conversation, onDone }: { conversation: Conversation; onDone: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  const isOver = useRef(false);
  useEffect(() => field.current?.select(), []);
  const end = (isKept: boolean) => {
    if (isOver.current) return;
    isOver.current = true;
    if (isKept) app.rename(conversation, field.current?.value ?? "");
    onDone();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
    event.stopPropagation();
    end(event.key === "Enter");
  };
  return (
    <li class="is-named">
      <input ref={field} aria-label="Name" defaultValue={conversation.title} maxLength={200} onKeyDown={onKeyDown} onBlur={() => end(true)} />
    </li>
  );
}

function Footer() {
  const picker = useRef<HTMLInputElement>(null);
  const take = () => {
    const file = picker.current?.files?.[0];
    if (file) void app.library.import(file).then((text) => app.say(text));
    // The same file may be taken again.
    if (picker.current) picker.current.value = "";
  };
  return (
    <footer>
      <button type="button" disabled={app.library.conversations.length === 0} onClick={() => app.library.export(app.library.conversations)}>
        <Icon name="export" /> Export
      </button>
      <button type="button" onClick={() => picker.current?.click()}>
        <Icon name="import" /> Import
      </button>
      <input ref={picker} type="file" accept="application/json,.json" aria-label="File of conversations" hidden onChange={take} />
    </footer>
  );
}
