// The dialog for the key of a server that asks for one.

import { useState } from "preact/hooks";

import { currentKey, isKeyKept } from "./api";
import { app } from "./app";
import { Modal } from "./setup";

export function KeyDialog() {
  const [key, setKey] = useState("");
  const [isKept, setKept] = useState(isKeyKept());
  const submit = (event: Event) => {
    event.preventDefault();
    app.giveKey(key.trim(), isKept);
  };
  const isWrong = currentKey() !== null && currentKey() !== "";
  return (
    <Modal title="Key" onClose={() => app.show("none")}>
      <form onSubmit={submit}>
        <p>
          {isWrong && app.problem !== null
            ? "The server does not know the key that it was shown."
            : "This server asks for one of its keys. Whoever runs it has them in a file."}
        </p>
        <label class="wide">
          Key
          <input type="password" autofocus autocomplete="off" value={key} onInput={(event) => setKey(event.currentTarget.value)} />
        </label>
        <label class="check">
          <input type="checkbox" checked={isKept} onChange={(event) => setKept(event.currentTarget.checked)} />
          Keep it in this browser; otherwise it is forgotten with this tab
        </label>
        <div class="buttons">
          {isWrong ? (
            <button type="button" onClick={() => app.giveKey("", false)}>
              Forget the key
            </button>
          ) : null}
          <button type="submit" class="primary" disabled={!key.trim()}>
            Use
          </button>
        </div>
      </form>
    </Modal>
  );
}
