/**
 * Inputs marked as advanced, folded away in the classic renderer, too: Nodes 2.0 does it by itself, with a button of its
 * own and the same property of the node, `showAdvanced`.
 */

import { app } from "../../scripts/app.js";
import { chain } from "./viewer/nodes.mjs";

const BUTTON = "advanced_inputs";
const SHOW = "Show advanced inputs";
const HIDE = "Hide advanced inputs";
/** ComfyUI's setting that unfolds all nodes. */
const ALWAYS = "Comfy.Node.AlwaysShowAdvancedWidgets";

/**
 * Fold a node's advanced inputs away and give it the button that shows them. Linked ones stay in sight.
 * @param {object} node
 */
export function fold(node) {
  const always = () => app.extensionManager?.setting?.get(ALWAYS);
  const isAdvanced = (widget) => Boolean(widget.options?.advanced);
  const isLinked = (widget) => node.inputs?.some((input) => input.widget?.name === widget.name && input.link != null);
  const isFolded = (widget) => isAdvanced(widget) && !node.showAdvanced && !always() && !isLinked(widget);
  const hasAdvanced = () => (node.widgets ?? []).some(isAdvanced);
  const { isWidgetVisible, getLayoutWidgets } = node;
  if (!isWidgetVisible || !getLayoutWidgets || !hasAdvanced()) return;

  const button = node.addWidget("button", BUTTON, null, () => node.toggleAdvanced(), { canvasOnly: true, serialize: false });
  button.serialize = false;
  node.hasAdvancedWidgets = hasAdvanced;
  node.isWidgetVisible = (widget) => {
    if (widget === button && (window.LiteGraph?.vueNodesMode || always() || !hasAdvanced())) return false;
    return isWidgetVisible.call(node, widget) && !isFolded(widget);
  };
  node.getLayoutWidgets = () => {
    button.label = node.showAdvanced ? HIDE : SHOW;
    const shown = getLayoutWidgets.call(node).filter((widget) => widget === button || !isFolded(widget));
    for (const widget of node.widgets) if (!shown.includes(widget)) widget.y = button.y; // and with it its socket
    return shown.filter((widget) => widget !== button || node.isWidgetVisible(button) || node.collapsed);
  };
  const { toggleAdvanced } = node;
  node.toggleAdvanced = () => {
    const before = node.computeSize()[1];
    const height = node.size[1];
    toggleAdvanced.call(node);
    node.setSize([node.size[0], height + node.computeSize()[1] - before]);
  };
  chain(node, "onConfigure", () => (button.label = node.showAdvanced ? HIDE : SHOW));
  node.setSize([node.size[0], node.computeSize()[1]]);
}
