// A message with what can be done to it.

import { useEffect, useRef, useState } from "preact/hooks";

import type { Answer } from "./answer";
import { AnswerView } from "./answer-view";
import { app } from "./app";
import { copy } from "./clipboard";
import { Icon, IconButton } from "./icons";
import { type Message, siblings } from "./tree";

export function MessageView(props: {
  message: Message;
  answer: Answer | undefined;
  isLast: boolean;
  isEdited: boolean;
  setEdited: (id: string | null) => void;
}) {
  const { message, answer, isLast, isEdited, setEdited } = props;
  if (message.role === "tool") return <Result message={message} />;
  const isOwn = message.role === "user";
  const close = () => setEdited(null);
  const save = (text: string) => {
    close();
    if (isOwn) app.editQuestion(message, text);
    else if (text !== message.content) app.editAnswer(message, text);
  };
  return (
    <article class={`message ${isOwn ? "own" : "answer"} ${isLast ? "is-last" : ""}`} aria-label={isOwn ? "You" : message.model || "Answer"}>
      {isOwn ? null : <p class="author">{message.model}</p>}
      {isEdited ? (
        <Editor text={message.content} label={isOwn ? "Send" : "Save"} onSave={save} onClose={close} />
      ) : isOwn ? (
        <div class="bubble">{message.content}</div>
      ) : (
        <AnswerView message={message} answer={answer} />
      )}
      {message.error ? <Failure message={message} /> : null}
      {!answer && isLast && message.toolCalls?.length ? <Results message={message} /> : null}
      {isEdited || answer ? null : <Actions message={message} onEdit={() => setEdited(message.id)} />}
    </article>
  );
}

function Actions({ message, onEdit }: { message: Message; onEdit: () => void }) {
  const [isCopied, setCopied] = useState(false);
  const isAnswer = message.role === "assistant";
  const copyText = () => {
    void copy(message.content).then((isDone) => {
      setCopied(isDone);
      setTimeout(() => setCopied(false), 1500);
    });
  };
  const isCut = isAnswer && message.content !== "" && message.children.length === 0 && !message.toolCalls?.length;
  const canGoOn = isCut && (message.finish !== "stop" || message.edited === true);
  return (
    <div class="actions">
      <Branches message={message} />
      <IconButton icon={isCopied ? "check" : "copy"} label={isCopied ? "Copied" : "Copy"} onClick={copyText} />
      <IconButton icon="edit" label={isAnswer ? "Edit answer" : "Edit"} onClick={onEdit} />
      {isAnswer ? <IconButton icon="regenerate" label="Regenerate" onClick={() => app.regenerate(message)} /> : null}
      {canGoOn ? <IconButton icon="next" label="Continue" onClick={() => app.resume(message)} /> : null}
    </div>
  );
}

function Branches({ message }: { message: Message }) {
  const all = siblings(app.current, message);
  const place = all.indexOf(message.id);
  if (all.length < 2) return null;
  const go = (step: number) => {
    const id = all[place + step];
    if (id) app.switchTo(id);
  };
  return (
    <div class="branches" role="group" aria-label="Branches">
      <IconButton icon="branchBack" label="Previous branch" disabled={place === 0} onClick={() => go(-1)} />
      <span>
        {place + 1}/{all.length}
      </span>
      <IconButton icon="branchOn" label="Next branch" disabled={place === all.length - 1} onClick={() => go(1)} />
    </div>
  );
}

function Editor(props: { text: string; label: string; onSave: (text: string) => void; onClose: () => void }) {
  const [text, setText] = useState(props.text);
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    const { current } = area;
    current?.focus();
    current?.setSelectionRange(current.value.length, current.value.length);
  }, []);
  useEffect(() => fit(area.current), [text]);
  const save = () => {
    if (text.trim()) props.onSave(text);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      props.onClose();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      save();
    }
  };
  return (
    <div class="editor">
      <textarea ref={area} rows={1} aria-label="Text" value={text} onInput={(event) => setText(event.currentTarget.value)} onKeyDown={onKeyDown} />
      <div class="buttons">
        <button type="button" onClick={props.onClose}>
          Cancel
        </button>
        <button type="button" class="primary" disabled={!text.trim()} onClick={save}>
          {props.label}
        </button>
      </div>
    </div>
  );
}

/** Makes a text area as high as its text, up to what its style allows. */
export function fit(area: HTMLTextAreaElement | null): void {
  if (!area) return;
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}

function Failure({ message }: { message: Message }) {
  return (
    <div class="failure" role="alert">
      <p>{message.error}</p>
      <button type="button" onClick={() => app.again(app.current, message)}>
        Try again
      </button>
    </div>
  );
}

/** The result of a call, as it was given. */
function Result({ message }: { message: Message }) {
  return (
    <article class="message result" aria-label="Result of a tool">
      <p class="author">
        <Icon name="tool" /> Result
      </p>
      <pre tabIndex={0}>{message.content}</pre>
    </article>
  );
}

/** Where the reader says what the calls of an answer have returned. */
function Results({ message }: { message: Message }) {
  const calls = message.toolCalls ?? [];
  const [texts, setTexts] = useState<string[]>([]);
  const submit = (event: Event) => {
    event.preventDefault();
    app.giveResults(message, texts);
  };
  return (
    <form class="results" onSubmit={submit}>
      {calls.map((call, index) => (
        <label key={index}>
          Result of {call.name}
          <textarea
            rows={2}
            value={texts[index] ?? ""}
            onInput={(event) => setTexts(calls.map((_, place) => (place === index ? event.currentTarget.value : (texts[place] ?? ""))))}
          />
        </label>
      ))}
      <div class="buttons">
        <button type="submit" class="primary">
          Give results
        </button>
      </div>
    </form>
  );
}
