import { useEffect, useRef } from "preact/hooks";

import { copy } from "./clipboard";
import { MarkdownView } from "./markdown";

/** Markdown, whole or still growing. */
export function MarkdownText({ text, isDone }: { text: string; isDone: boolean }) {
  const root = useRef<HTMLDivElement>(null);
  const view = useRef<MarkdownView | null>(null);
  useEffect(() => {
    view.current ??= new MarkdownView(root.current!);
    view.current.show(text, isDone);
  }, [text, isDone]);
  return <div class="markdown" ref={root} onClick={copyCode} />;
}

/** What the buttons of code blocks do. */
function copyCode(event: MouseEvent): void {
  const button = (event.target as Element).closest("[data-copy]");
  const code = button?.closest("figure")?.querySelector("code");
  if (!button || !code) return;
  void copy((code.textContent ?? "").replace(/\n$/, "")).then((isCopied) => {
    button.textContent = isCopied ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
