// Markdown that grows. A text is cut into blocks; while it is being written only those are made anew that have changed, and only
// the last ones are read again, so that a long answer costs no more per word than a short one.

import type { Token } from "marked";
import { blockNodes, blocksOf, safeNodes } from "./markup";

interface Block {
  type: string;
  raw: string;
  nodes: Element[];
}

export class MarkdownView {
  private blocks: Block[] = [];
  /** So many blocks, which are this text, do not change any more. */
  private settled = 0;
  private settledText = "";
  private isDone = false;
  private text = "";

  constructor(private readonly root: HTMLElement) {}

  /** Shows a text; `isDone` says that it does not grow any further. */
  show(source: string, isDone: boolean): void {
    const text = source.replace(/\r\n?/g, "\n");
    if (text === this.text && isDone === this.isDone) return;
    // At the end all is read once more, as a whole: links may be defined below their use.
    if (isDone || !text.startsWith(this.settledText)) {
      this.settled = 0;
      this.settledText = "";
    }
    const tail = text.slice(this.settledText.length);
    const tokens = blocksOf(tail);
    const defines = isDone && tokens.some((token) => token.type === "def");
    const visible = tokens.filter((token) => token.type !== "space" && token.type !== "def");
    visible.forEach((token, index) => this.place(this.settled + index, token, defines));
    for (const block of this.blocks.splice(this.settled + visible.length)) remove(block);
    this.settle(tokens, visible, tail);
    this.text = text;
    this.isDone = isDone;
  }

  private place(index: number, token: Token, isForced: boolean): void {
    const old = this.blocks[index];
    if (old && old.type === token.type && old.raw === token.raw && !isForced) return;
    const nodes = finished(blockNodes(token));
    if (old && growsCode(old, nodes)) {
      old.raw = token.raw;
      return;
    }
    const next = this.blocks.slice(index + 1).find((block) => block.nodes.length > 0)?.nodes[0] ?? null;
    if (old) remove(old);
    for (const node of nodes) this.root.insertBefore(node, next);
    this.blocks[index] = { type: token.type, raw: token.raw, nodes };
  }

  /** What stands before the last two blocks stays as it is. The last may still join the one before: "2" after a list becomes its item. */
  private settle(tokens: Token[], visible: Token[], tail: string): void {
    const open = visible.at(-2);
    if (!open) return;
    const length = tokens.slice(0, tokens.indexOf(open)).reduce((sum, token) => sum + token.raw.length, 0);
    if (!tail.startsWith(open.raw, length)) return;
    this.settled += visible.length - 2;
    this.settledText += tail.slice(0, length);
  }
}

function remove(block: Block): void {
  for (const node of block.nodes) node.remove();
}

/** The same block of code with more in it keeps its place, so that what a reader has marked or is about to press stays. */
function growsCode(old: Block, nodes: Element[]): boolean {
  const [before, after] = [old.nodes[0], nodes[0]];
  if (!before?.matches("figure.code") || !after?.matches("figure.code")) return false;
  if (before.getAttribute("data-language") !== after.getAttribute("data-language")) return false;
  const [code, more] = [before.querySelector("code"), after.querySelector("code")];
  if (!code || !more) return false;
  code.replaceChildren(...more.childNodes);
  if (!code.querySelector("span")) colour(code, before.getAttribute("data-language") ?? "");
  return true;
}

/** Nodes as elements, with code and formulas as they are to be shown. */
function finished(fragment: DocumentFragment): Element[] {
  for (const formula of fragment.querySelectorAll<HTMLElement>("[data-formula]")) showFormula(formula);
  for (const pre of fragment.querySelectorAll("pre")) pre.replaceWith(codeFigure(pre));
  for (const table of fragment.querySelectorAll("table")) {
    const box = document.createElement("div");
    box.className = "table";
    box.tabIndex = 0;
    table.replaceWith(box);
    box.append(table);
  }
  const elements: Element[] = [];
  for (const node of [...fragment.childNodes]) {
    if (node instanceof Element) {
      elements.push(node);
    } else if (node.textContent?.trim()) {
      const paragraph = document.createElement("p");
      paragraph.append(node);
      elements.push(paragraph);
    }
  }
  return elements;
}

type MathModule = typeof import("./math");
type CodeModule = typeof import("./code");
let math: MathModule | undefined;
let code: CodeModule | undefined;

function showFormula(element: HTMLElement): void {
  const formula = element.textContent ?? "";
  const show = (module: MathModule) => module.render(element, formula, element.dataset["formula"] === "display");
  if (math) return show(math);
  void import("./math").then((module) => show((math = module)), () => {});
}

function codeFigure(pre: Element): HTMLElement {
  const language = pre.getAttribute("data-language") ?? "";
  const figure = document.createElement("figure");
  figure.className = "code";
  figure.dataset["language"] = language;
  const caption = document.createElement("figcaption");
  const name = document.createElement("span");
  name.textContent = language || "text";
  const copy = document.createElement("button");
  copy.type = "button";
  copy.textContent = "Copy";
  copy.dataset["copy"] = "";
  caption.append(name, copy);
  const box = document.createElement("pre");
  box.tabIndex = 0;
  box.append(...pre.childNodes);
  figure.append(caption, box);
  const inner = box.querySelector("code");
  if (inner) colour(inner, language);
  return figure;
}

function colour(element: Element, language: string): void {
  if (!language) return;
  const text = element.textContent ?? "";
  const show = (module: CodeModule) => {
    const html = module.highlight(text, language.toLowerCase());
    // It may have grown meanwhile; then whoever made it grow sees to it.
    if (html !== undefined && element.textContent === text) element.replaceChildren(safeNodes(html));
  };
  if (code) return show(code);
  void import("./code").then((module) => show((code = module)), () => {});
}
