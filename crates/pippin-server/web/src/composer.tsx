// Where the reader writes.

import { useEffect, useRef, useState } from "preact/hooks";

import { app, useApp } from "./app";
import { Icon } from "./icons";
import { fit } from "./message-view";

/** Whether the keyboard is one on the glass, where Enter is for lines. */
const isTouch = matchMedia("(pointer: coarse)");
/** What was written and not sent, by conversation. */
const drafts = new Map<string, string>();

export function Composer({ onEditLast }: { onEditLast: () => void }) {
  useApp();
  const { id } = app.current;
  const [text, setText] = useState("");
  const area = useRef<HTMLTextAreaElement>(null);
  const isAnswering = app.answer !== undefined;
  useEffect(() => {
    setText(drafts.get(id) ?? "");
    if (!isTouch.matches) area.current?.focus();
  }, [id]);
  useEffect(() => fit(area.current), [text]);
  const write = (text: string) => {
    drafts.set(id, text);
    setText(text);
  };
  const canSend = text.trim() !== "" && !isAnswering && app.current.model !== "";
  const send = () => {
    if (!canSend) return;
    write("");
    app.send(text);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey && !isTouch.matches) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && text === "" && !isAnswering) {
      event.preventDefault();
      onEditLast();
    }
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        id="prompt"
        ref={area}
        rows={1}
        value={text}
        aria-label="Message"
        placeholder={app.current.model ? `Message ${app.current.model}` : "Message"}
        onInput={(event) => write(event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
      {isAnswering ? (
        <button type="button" class="send is-stop" aria-label="Stop" title="Stop (Esc)" onClick={() => app.stop()}>
          <span />
        </button>
      ) : (
        <button type="submit" class="send" aria-label="Send" title="Send (Enter)" disabled={!canSend}>
          <Icon name="send" />
        </button>
      )}
    </form>
  );
}
