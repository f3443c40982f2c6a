/** Graphs of earlier versions: values that a widget of today knows under another name. */

import { chain } from "./viewer/nodes.mjs";

/**
 * A switch that was a Boolean and has become a choice of on and off: true and false are shown and sent as these.
 * @param {object} node
 */
export function translate(node) {
  for (const widget of node.widgets ?? []) {
    const words = widget.options?.values;
    if (!Array.isArray(words) || !words.includes("on") || !words.includes("off")) continue;
    const settle = () => {
      if (typeof widget.value === "boolean") widget.value = widget.value ? "on" : "off";
    };
    chain(node, "onConfigure", settle); // workflows
    chain(widget, "callback", settle); // API graphs
  }
}
