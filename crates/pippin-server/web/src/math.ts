// Formulas, by KaTeX. It is fetched when the first formula is there.

import katex from "katex";

// KaTeX sets the style of an SVG as an attribute, which the page's policy forbids. The same through the object model is allowed.
interface SvgNode {
  attributes: Record<string, string>;
  toNode(): SVGElement;
}
const prototype = (katex as unknown as { __domTree: { SvgNode: { prototype: SvgNode } } }).__domTree.SvgNode.prototype;
const toNode = prototype.toNode;
prototype.toNode = function (this: SvgNode) {
  const { style, ...attributes } = this.attributes;
  this.attributes = attributes;
  const node = toNode.call(this);
  if (style) node.style.cssText = style;
  return node;
};

/** Shows a formula in an element; one that makes no sense stays as it was written. */
export function render(element: HTMLElement, formula: string, isDisplay: boolean): void {
  const box = document.createElement("span");
  try {
    katex.render(formula, box, {
      displayMode: isDisplay,
      throwOnError: true,
      strict: "ignore",
      trust: false,
      maxExpand: 500,
      maxSize: 20,
    });
    element.replaceChildren(box);
  } catch (error) {
    element.classList.add("formula-error");
    element.title = error instanceof Error ? error.message : "";
  }
}
