// The dialog with what a conversation is answered with, and what the page looks like.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { currentKey } from "./api";
import { app, type Theme, useApp } from "./app";
import { IconButton } from "./icons";
import { readTools } from "./request";
import { type Parameters, THINKING } from "./tree";

interface Field {
  name: Exclude<keyof Parameters, "stop">;
  label: string;
  low: number;
  high?: number;
  step: number;
  /** What holds where nothing is given. */
  otherwise: string;
}

const FIELDS: Field[] = [
  { name: "temperature", label: "Temperature", low: 0, step: 0.1, otherwise: "0.6" },
  { name: "top_p", label: "Top p", low: 0, high: 1, step: 0.05, otherwise: "off" },
  { name: "top_k", label: "Top k", low: 0, step: 1, otherwise: "off" },
  { name: "min_p", label: "Min p", low: 0, high: 1, step: 0.01, otherwise: "off" },
  { name: "repetition_penalty", label: "Repetition penalty", low: 0, step: 0.05, otherwise: "off" },
  { name: "max_tokens", label: "Max tokens", low: 1, step: 1, otherwise: "no limit" },
  { name: "seed", label: "Seed", low: 0, high: Number.MAX_SAFE_INTEGER, step: 1, otherwise: "random" },
];

/** A dialog of the browser's own, which keeps the focus and closes with Escape. */
export function Modal({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const isGone = useRef(false);
  useEffect(() => {
    dialog.current?.showModal();
    return () => {
      isGone.current = true;
    };
  }, []);
  // A dialog that is taken away closes, too; what stands in its place then is not meant.
  const close = () => {
    if (!isGone.current) onClose();
  };
  const onClick = (event: MouseEvent) => {
    if (event.target === dialog.current) onClose();
  };
  return (
    <dialog ref={dialog} aria-label={title} onClose={close} onClick={onClick} onKeyDown={(event) => event.stopPropagation()}>
      <header>
        <h2>{title}</h2>
        <IconButton icon="close" label="Close" onClick={onClose} />
      </header>
      <div class="content">{children}</div>
    </dialog>
  );
}

export function SetupDialog() {
  useApp();
  const { current } = app;
  const setParameter = <K extends keyof Parameters>(name: K, value: Parameters[K] | undefined) => {
    const parameters = { ...current.parameters };
    if (value === undefined) delete parameters[name];
    else parameters[name] = value;
    app.setUp({ parameters });
  };
  const setThinking = (value: string) => {
    const thinking = THINKING.find((word) => word === value);
    if (!thinking) delete current.thinking;
    app.setUp(thinking ? { thinking } : {});
  };
  return (
    <Modal title="Settings" onClose={() => app.show("none")}>
      <section>
        <h3>This chat</h3>
        <label class="wide">
          System prompt
          <textarea rows={4} value={current.system} placeholder="How the model is to answer" onInput={(event) => app.setUp({ system: event.currentTarget.value })} />
        </label>
        <div class="grid">
          {FIELDS.map((field) => (
            <NumberField key={`${current.id}-${field.name}`} field={field} value={current.parameters[field.name]} onValue={(value) => setParameter(field.name, value)} />
          ))}
          <label>
            Thinking
            <select value={current.thinking ?? ""} onChange={(event) => setThinking(event.currentTarget.value)}>
              <option value="">default</option>
              {THINKING.map((word) => (
                <option key={word} value={word}>
                  {word}
                </option>
              ))}
            </select>
          </label>
        </div>
        <StopField key={`${current.id}-stop`} value={current.parameters.stop} onValue={(stop) => setParameter("stop", stop)} />
        <ToolsField key={`${current.id}-tools`} />
        <div class="buttons">
          <button type="button" onClick={() => {
            delete current.thinking;
            app.setUp({ system: "", parameters: {}, tools: "" });
          }}>
            Reset
          </button>
          <button type="button" onClick={() => app.makeDefault()}>
            Use for new chats
          </button>
        </div>
      </section>
      <section>
        <h3>This page</h3>
        <fieldset class="choice">
          <legend>Colours</legend>
          {(["system", "light", "dark"] as Theme[]).map((theme) => (
            <label key={theme}>
              <input type="radio" name="theme" checked={app.theme === theme} onChange={() => app.setTheme(theme)} />
              <span>{theme === "system" ? "System" : theme === "light" ? "Light" : "Dark"}</span>
            </label>
          ))}
        </fieldset>
        <div class="row">
          <span>{currentKey() ? "A key is shown to the server." : "No key is shown to the server."}</span>
          <button type="button" onClick={() => app.show("key")}>
            Key…
          </button>
        </div>
        {app.library.isLasting ? null : <p class="hint">This browser keeps no conversations: they are gone when the page is closed.</p>}
        <p class="hint">
          <kbd>Enter</kbd> sends, <kbd>Shift Enter</kbd> begins a line, <kbd>Esc</kbd> stops, <kbd>↑</kbd> edits your last message, <kbd>Ctrl K</kbd> searches,{" "}
          <kbd>Ctrl Shift O</kbd> begins a chat. The <a href="assets/LICENCES.txt" target="_blank" rel="noopener">licences</a> of what this page is made with.
        </p>
      </section>
    </Modal>
  );
}

function NumberField({ field, value, onValue }: { field: Field; value: number | undefined; onValue: (value: number | undefined) => void }) {
  const [text, setText] = useState(value?.toString() ?? "");
  const [problem, setProblem] = useState("");
  useEffect(() => {
    if (value === undefined && !problem) setText("");
  }, [value]);
  const read = (text: string) => {
    setText(text);
    const number = Number(text);
    const isFine = text.trim() === "" || (Number.isFinite(number) && number >= field.low && number <= (field.high ?? Infinity) && (field.step < 1 || Number.isSafeInteger(number)));
    const range = field.high === undefined || field.high > 1 ? `from ${field.low}` : `from ${field.low} to ${field.high}`;
    setProblem(isFine ? "" : `a ${field.step < 1 ? "" : "whole "}number ${range}`);
    if (isFine) onValue(text.trim() === "" ? undefined : number);
  };
  return (
    <label>
      {field.label}
      <input inputMode={field.step < 1 ? "decimal" : "numeric"} value={text} placeholder={field.otherwise} aria-invalid={problem !== ""} onInput={(event) => read(event.currentTarget.value)} />
      {problem ? <span class="problem">{problem}</span> : null}
    </label>
  );
}

/** Sequences that end an answer, one per line; `\n` in one is the end of a line. */
function StopField({ value, onValue }: { value: string[] | undefined; onValue: (value: string[] | undefined) => void }) {
  const [text, setText] = useState((value ?? []).map((stop) => stop.replaceAll("\n", "\\n")).join("\n"));
  useEffect(() => {
    if (value === undefined) setText("");
  }, [value]);
  const read = (text: string) => {
    setText(text);
    const stops = text.split("\n").filter(Boolean).map((stop) => stop.replaceAll("\\n", "\n"));
    if (text) onValue(stops.length > 0 ? stops : undefined);
    else onValue(undefined);
  };
  return (
    <label class="wide">
      Stop sequences, one per line
      <textarea rows={2} value={text} onInput={(event) => read(event.currentTarget.value)} />
    </label>
  );
}

function ToolsField() {
  const [text, setText] = useState(app.current.tools);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    if (app.current.tools === "" && !problem) setText("");
  }, [app.current.tools]);
  const read = (text: string) => {
    setText(text);
    try {
      readTools(text);
      setProblem("");
      app.setUp({ tools: text });
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <details open={text !== ""}>
      <summary>Tools</summary>
      <label class="wide">
        A JSON list, as in the OpenAI API. The page shows calls, and you give the results.
        <textarea class="code" rows={5} spellcheck={false} value={text} aria-invalid={problem !== ""} onInput={(event) => read(event.currentTarget.value)} />
        {problem ? <span class="problem">{problem}</span> : null}
      </label>
    </details>
  );
}
