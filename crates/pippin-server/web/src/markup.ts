// From markdown to HTML, and from there to nodes that are safe to show. Whatever a model writes is untrusted: HTML in it is
// shown as the text that it is, but for a few harmless tags, and all that comes out goes through DOMPurify.

import DOMPurify, { type Config } from "dompurify";
import { Marked, type Token, type TokenizerAndRendererExtension, type Tokens } from "marked";

/** Tags that models write where markdown has nothing for it. */
const HARMLESS = /^<\/?(?:br|sub|sup|kbd|u|mark)\s*\/?>$/i;
const IMAGE = /^data:image\/(?:png|jpeg|gif|webp|avif);/i;
const ENTITIES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

export const escape = (text: string): string => text.replace(/[&<>"']/g, (character) => ENTITIES[character]!);

interface Formula extends Tokens.Generic {
  formula: string;
  display: boolean;
}

const formulaHtml = (token: Tokens.Generic): string => {
  const { formula, display } = token as Formula;
  const tag = display ? "div" : "span";
  return `<${tag} data-formula="${display ? "display" : "inline"}">${escape(formula)}</${tag}>`;
};

const formulaBlock: TokenizerAndRendererExtension = {
  name: "formulaBlock",
  level: "block",
  start: (source) => source.match(/^ {0,3}(?:\$\$|\\\[)/m)?.index,
  tokenizer(source) {
    const match = /^ {0,3}(?:\$\$([^$]{1,4000}?)\$\$|\\\[([\s\S]{1,4000}?)\\\])[ \t]*(?:\n|$)/.exec(source);
    if (!match) return undefined;
    return { type: "formulaBlock", raw: match[0], formula: (match[1] ?? match[2] ?? "").trim(), display: true };
  },
  renderer: formulaHtml,
};

// $…$ as pandoc has it: nothing blank inside the signs, and no digit after the last, so that prices stay prices.
const INLINE = [
  /^\$\$([^$]{1,2000}?)\$\$/,
  /^\\\[([\s\S]{1,2000}?)\\\]/,
  /^\\\(([\s\S]{1,2000}?)\\\)/,
  /^\$(?!\s)((?:\\.|[^\\$\n]){1,2000}?)(?<!\s)\$(?!\d)/,
];

const formulaInline: TokenizerAndRendererExtension = {
  name: "formulaInline",
  level: "inline",
  start: (source) => source.match(/\$|\\\(|\\\[/)?.index,
  tokenizer(source) {
    for (const [index, pattern] of INLINE.entries()) {
      const match = pattern.exec(source);
      if (match) return { type: "formulaInline", raw: match[0], formula: match[1]!.trim(), display: index < 2 };
    }
    return undefined;
  },
  // Inside a paragraph a formula on a line of its own is a span, too: a div would end the paragraph.
  renderer: (token) =>
    `<span data-formula="${(token as Formula).display ? "display" : "inline"}">${escape((token as Formula).formula)}</span>`,
};

const marked = new Marked({
  gfm: true,
  extensions: [formulaBlock, formulaInline],
  renderer: {
    html({ text, block }: Tokens.HTML | Tokens.Tag) {
      if (HARMLESS.test(text.trim())) return text;
      return block ? `<p>${escape(text.trim()).replaceAll("\n", "<br>")}</p>` : escape(text);
    },
    // Nothing is fetched because a model says so: an image elsewhere is a link to it.
    image({ href, text }: Tokens.Image) {
      if (IMAGE.test(href)) return `<img src="${escape(href)}" alt="${escape(text)}">`;
      return `<a href="${escape(href)}">${escape(text || href)}</a>`;
    },
    checkbox({ checked }: Tokens.Checkbox) {
      return `<input type="checkbox" disabled ${checked ? 'checked aria-label="done"' : 'aria-label="to do"'}> `;
    },
    code({ text, lang }: Tokens.Code) {
      const language = lang?.match(/^[\w+#.-]{1,30}/)?.[0] ?? "";
      return `<pre data-language="${escape(language)}"><code>${escape(text)}\n</code></pre>`;
    },
  },
});

const purify = DOMPurify();
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** Attributes that hold no address. */
const PLAIN = ["start", "align", "type", "checked", "disabled", "alt", "title", "class", "aria-label", "data-formula", "data-language"];

const ALLOWED: Config & { RETURN_DOM_FRAGMENT: true } = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "input", "kbd", "li",
    "mark", "ol", "p", "pre", "span", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "u", "ul",
  ],
  ALLOWED_ATTR: ["href", "src", ...PLAIN],
  ADD_URI_SAFE_ATTR: PLAIN,
  ALLOW_DATA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};

/** HTML as nodes that can do no harm. */
export function safeNodes(html: string): DocumentFragment {
  return purify.sanitize(html, ALLOWED);
}

/** The blocks of a text, one after the other. */
export function blocksOf(text: string): Token[] {
  return marked.lexer(text);
}

/** A block as safe nodes. */
export function blockNodes(block: Token): DocumentFragment {
  return safeNodes(marked.parser([block]));
}
