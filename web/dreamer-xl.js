/** Dreamer XL in the frontend: a 3D view in the nodes that make or show a splat, and
 * advanced inputs folded away. ComfyUI imports this file. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { translate } from "./earlier.mjs";
import { fold } from "./fold.mjs";
import { HINTS, announce, attach, noteResult, showOutputs, startRun, stopAll, sweep, watchLoading, watchQueue } from "./viewer/nodes.mjs";

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("./viewer/viewer.css", import.meta.url).href;
document.head.append(style);

app.registerExtension({
  name: "DreamerXL.Viewer",
  setup() {
    watchLoading();
    watchQueue();
    api.addEventListener("execution_start", ({ detail }) => startRun(detail.prompt_id));
    api.addEventListener("executed", ({ detail }) => noteResult(detail));
    api.addEventListener("dreamerxl.snapshot", ({ detail }) => announce(detail));
    api.addEventListener("execution_interrupted", stopAll);
    api.addEventListener("execution_error", stopAll);
  },
  nodeCreated(node) {
    const ours = node.constructor.comfyClass?.startsWith("DreamerXL");
    if (ours) fold(node); // before the viewer, which takes what is left of the node's height
    if (node.constructor.comfyClass in HINTS) attach(node);
    if (ours) translate(node);
  },
  afterConfigureGraph: sweep,
  onNodeOutputsUpdated: showOutputs,
});
