/** Viewers and the nodes of the graph they belong to. */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { freeSnapshot } from "./feed.mjs";
import { ViewerPanel } from "./panel.mjs";
import { REGIONS, attachRegion } from "./region_node.mjs";

/** @typedef {import("./feed.mjs").SnapshotMessage} SnapshotMessage */
/** @typedef {import("./feed.mjs").ResultEntry} ResultEntry */

/** Node id -> what its viewer says while there is nothing to show. */
export const HINTS = {
  DreamerXLOptimize: "The object appears here while it is made.",
  DreamerXLPreview: "Queue to see the splat here.",
  DreamerXLRestyle: "The splat appears here while it changes.",
  DreamerXLEdit: "The splat appears here while it changes.",
  DreamerXLRegion: "Queue to see the splat here, then move the region by mouse.",
};
/** The key in a node's ui output. */
const OUTPUT = "dreamer_xl_view";
/** Where a node remembers what it shows, in the workflow. */
const PROPERTY = "dreamer_xl_view";
const MIN_HEIGHT = 280;
const MIN_WIDTH = 340;

/** @type {Map<object, ViewerPanel>} */
const panels = new Map();

/** Device pixels per CSS pixel of a widget: the classic renderer scales widgets with the canvas. */
function pixelScale() {
  const zoom = document.fullscreenElement ? 1 : (app.canvas?.ds?.scale ?? 1);
  return Math.min(2, Math.max(0.25, zoom * window.devicePixelRatio));
}

/**
 * Call `after` with its result and arguments when the object's own method has returned.
 * @param {object} object
 * @param {string} name
 * @param {Function} after
 */
export function chain(object, name, after) {
  const before = object[name];
  object[name] = function (...values) {
    const result = before?.apply(this, values);
    after(result, ...values);
    return result;
  };
}

/**
 * Give a node its viewer.
 * @param {object} node
 */
export function attach(node) {
  const hint = HINTS[node.constructor.comfyClass];
  const panel = new ViewerPanel({
    hint,
    pixelScale,
    onBackground: (background) => remember(node, { background }),
    onMode: (has3d) => setMode(node, has3d),
  });
  panel.element.dataset.mode = panel.has3d ? "3d" : "pictures";
  panels.set(node, panel);
  const widget = node.addDOMWidget("viewer", "dreamer_xl_viewer", panel.element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => MIN_HEIGHT,
  });
  widget.serialize = false;
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width, MIN_WIDTH), Math.max(node.size[1], height)]);

  chain(node, "onExecuted", (_, output) => {
    if (isOwn()) showOutput(node, output);
  });
  chain(node, "onConfigure", () => restore(node));
  const overlay = REGIONS.includes(node.constructor.comfyClass) ? attachRegion(node, panel) : null;
  chain(node, "onRemoved", () => {
    panel.release();
    overlay?.release();
  });
}

/**
 * In 3D, the classic renderer's picture of the progress is not drawn below the widgets.
 * @param {object} node
 * @param {boolean} has3d
 */
function setMode(node, has3d) {
  const panel = panels.get(node);
  if (panel) panel.element.dataset.mode = has3d ? "3d" : "pictures";
  if (has3d) node.onDrawBackground = () => {};
  else delete node.onDrawBackground;
}

/**
 * @param {object} node
 * @param {object} more
 */
function remember(node, more) {
  node.setProperty(PROPERTY, { ...node.properties?.[PROPERTY], ...more });
  // Into the draft that a reload opens.
  app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.captureCanvasState?.();
}

/** @param {object} node */
function restore(node) {
  const { background, result } = node.properties?.[PROPERTY] ?? {};
  const panel = panels.get(node);
  if (!panel) return;
  if (background) panel.setBackground(background);
  if (isResult(result)) panel.showResult(result);
}

/**
 * @param {unknown} value
 * @returns {value is ResultEntry[]}
 */
function isResult(value) {
  return Array.isArray(value) && value.length > 0 && value.every((entry) => entry?.file?.filename && entry?.pictures);
}

/**
 * @param {object} node
 * @param {Record<string, unknown> | undefined} output ui of an executed node
 */
function showOutput(node, output) {
  const result = output?.[OUTPUT];
  if (!isResult(result)) return;
  const known = node.properties?.[PROPERTY]?.result;
  panels.get(node)?.showResult(result);
  if (JSON.stringify(known) !== JSON.stringify(result)) remember(node, { result });
}

/**
 * Outputs that were restored: a job of the history, another tab's workflow.
 * @param {Record<string, Record<string, unknown>>} outputs by locator: "7", or "<subgraph>:7"
 */
export function showOutputs(outputs) {
  for (const [locator, output] of Object.entries(outputs ?? {})) {
    if (!isResult(output?.[OUTPUT]) || isStray(output[OUTPUT])) continue;
    const node = byLocator(locator);
    if (panels.has(node)) showOutput(node, output);
  }
  showLate();
}

/** @param {string} locator */
function byLocator(locator) {
  const [id, subgraph] = locator.split(":").reverse();
  const graph = subgraph ? app.rootGraph?.subgraphs?.get(subgraph) : app.rootGraph;
  return graph?.getNodeById(id);
}

/**
 * @param {string} id execution id: the way through the subgraphs
 */
function byExecutionId(id) {
  const path = String(id).split(":");
  let graph = app.rootGraph;
  for (const outer of path.slice(0, -1)) graph = graph?.getNodeById(outer)?.subgraph;
  return graph?.getNodeById(path.at(-1));
}

/**
 * Show a snapshot on its node, or free it where there is none in this workflow.
 * @param {SnapshotMessage} message
 */
export function announce(message) {
  const here = (!message.workflow || message.workflow === app.rootGraph?.id) && isOwn();
  const panel = here ? panels.get(byExecutionId(message.node)) : undefined;
  if (panel) panel.announce(message);
  else freeSnapshot(message.id);
}

// The frontend hands every result to the open workflow, also when the run was queued from another one whose nodes have
// the same ids, as those of two tabs with one template do.

/** Prompt id -> path of the workflow that it was queued from: graphs' ids are not unique. @type {Map<string, string>} */
const origins = new Map();
/** Path of a workflow -> execution id -> a result that came for it and is not shown yet. @type {Map<string, Map<string, ResultEntry[]>>} */
const late = new Map();
/** The same results as JSON, with their path, until it is known which workflow the frontend gave them to. @type {{path: string, text: string}[]} */
const lost = [];
/** Path of a workflow -> results, as JSON, that the frontend gave to it and that are another's. @type {Map<string, Set<string>>} */
const strays = new Map();
/** Id of the prompt that runs. @type {string | undefined} */
let running;
/** How many graphs are being opened. */
let loading = 0;

const openPath = () => app.extensionManager?.workflow?.activeWorkflow?.path;

/** Know when a graph is being opened: its nodes are there before their workflow is the open one, up to seconds. */
export function watchLoading() {
  for (const name of ["loadGraphData", "loadApiJson"]) {
    const load = app[name];
    app[name] = async function (...values) {
      loading += 1;
      try {
        return await load.apply(this, values);
      } finally {
        loading -= 1;
        showLate();
      }
    };
  }
}

/** Remember where prompts are queued from. */
export function watchQueue() {
  chain(api, "queuePrompt", async (reply) => {
    const path = openPath();
    // A refused prompt rejects the reply, which is for who asked to tell.
    const accepted = await Promise.resolve(reply).catch(() => undefined);
    if (path && accepted) origins.set(accepted.prompt_id, path);
  });
}

/** @param {string} promptId */
export function startRun(promptId) {
  running = promptId;
}

/**
 * Whether the running prompt was queued from the open workflow: not from another one that is open, too. False while one
 * is being opened, for then it cannot be told.
 */
function isOwn() {
  const origin = origins.get(running);
  if (origin === undefined) return true;
  if (loading) return false;
  const open = app.extensionManager?.workflow?.openWorkflows ?? [];
  return origin === openPath() || !open.some(({ path }) => path === origin);
}

/**
 * Note whose result this is.
 * @param {{prompt_id: string, node: string, display_node?: string, output: Record<string, unknown>}} message
 */
export function noteResult({ prompt_id, node, display_node, output }) {
  const path = origins.get(prompt_id);
  const result = output?.[OUTPUT];
  if (path === undefined || !isResult(result)) return;
  const id = String(display_node ?? node);
  const text = JSON.stringify(result);
  if (isOwn() && byExecutionId(id)) {
    strays.get(path)?.delete(text);
    return;
  }
  if (!late.has(path)) late.set(path, new Map());
  late.get(path).set(id, result);
  lost.push({ path, text });
  showLate();
}

/**
 * Whether a result is in the open workflow's outputs only because that was in front when it came.
 * @param {ResultEntry[]} result
 */
function isStray(result) {
  return strays.get(openPath())?.has(JSON.stringify(result)) ?? false;
}

/** Show what came for this workflow while another was in front, once it is clear which one is now. */
function showLate() {
  if (loading) return;
  const front = openPath();
  if (!strays.has(front)) strays.set(front, new Set());
  for (const { path, text } of lost.splice(0)) if (path !== front) strays.get(front).add(text);
  const results = late.get(front) ?? [];
  late.delete(front);
  for (const [id, result] of results) {
    const node = byExecutionId(id);
    if (panels.has(node)) showOutput(node, { [OUTPUT]: result });
  }
}

/** The run ended early: what is on the screen stays. */
export function stopAll() {
  for (const panel of panels.values()) panel.stop();
}

/** Release the viewers of nodes that are no longer in the graph. */
export function sweep() {
  const graphs = new Set([app.rootGraph, ...(app.rootGraph?.subgraphs?.values() ?? [])]);
  for (const [node, panel] of panels) {
    if (graphs.has(node.graph) && node.graph.getNodeById(node.id) === node) continue;
    panel.release();
    panels.delete(node);
  }
}
