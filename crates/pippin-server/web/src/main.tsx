// The page of `pippin serve`.

import "katex/dist/katex.min.css";
import "./style.css";
import "./text.css";

import { render } from "preact";
import { useEffect } from "preact/hooks";

import { app, useApp } from "./app";
import { ChatView } from "./chat-view";
import { KeyDialog } from "./key";
import { SetupDialog } from "./setup";
import { Sidebar } from "./sidebar";

function Page() {
  useApp();
  useEffect(() => {
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, []);
  const skip = (event: Event) => {
    event.preventDefault();
    document.getElementById("prompt")?.focus();
  };
  return (
    <div class={`page ${app.isDrawerOpen ? "is-drawer-open" : ""}`}>
      <a class="skip" href="#prompt" onClick={skip}>
        Skip to the message box
      </a>
      <Sidebar />
      <div class="shade" onClick={() => app.closeDrawer()} />
      <ChatView />
      {app.dialog === "setup" ? <SetupDialog /> : null}
      {app.dialog === "key" ? <KeyDialog /> : null}
      <div class="toasts" role="status">
        {app.toast ? (
          <div class="toast">
            <span>{app.toast.text}</span>
            {app.toast.action ? (
              <button type="button" onClick={app.toast.action.run}>
                {app.toast.action.label}
              </button>
            ) : null}
          </div>
        ) : null}
      </div>
      <div class="off-screen" role="status">
        {app.announcement}
      </div>
    </div>
  );
}

function onKeyDown(event: KeyboardEvent): void {
  const isCommand = event.ctrlKey || event.metaKey;
  if (event.key === "Escape" && !event.isComposing) {
    if (app.isDrawerOpen) app.closeDrawer();
    else app.stop();
  } else if (isCommand && !event.shiftKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    app.openDrawer("search");
  } else if (isCommand && event.shiftKey && event.key.toLowerCase() === "o") {
    event.preventDefault();
    app.begin();
  }
}

await app.start();
render(<Page />, document.body);
