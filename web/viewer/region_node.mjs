/** The widgets of the node Dreamer XL Region as a shape in its viewer, and back. */

import { RegionOverlay, picked } from "./region.mjs";

/** Node types whose viewer shows a region. */
export const REGIONS = ["DreamerXLRegion"];
/** Share of the region's largest side to which places and sizes are rounded. */
const STEP = 1e-4;
/** Of a click, which has no size. */
const DIGITS = 10;
/** CSS pixels that a click may wander. */
const STILL = 4;

/** @param {object} node @param {string} name */
const widget = (node, name) => node.widgets?.find((one) => one.name === `shape.${name}` || one.name === name);

/** @param {object} node @param {string} name */
const number = (node, name) => {
  const value = Number(widget(node, name)?.value);
  return Number.isFinite(value) ? value : 0;
};

/**
 * @param {object} node
 * @returns {import("./region.mjs").Shape | null}
 */
export function shapeOf(node) {
  const shape = widget(node, "shape")?.value;
  const center = ["x", "y", "z"].map((name) => number(node, name));
  if (shape === "box") return { shape, center, size: ["width", "height", "depth"].map((name) => number(node, name)) };
  if (shape === "sphere") return { shape, center, size: Array(3).fill(2 * number(node, "radius")) };
  return shape === "points" ? { shape, center, size: [0, 0, 0] } : null;
}

/**
 * @param {object} node
 * @param {import("./region.mjs").Shape} shape
 */
export function setShape(node, { shape, center, size }) {
  const largest = Math.max(...size);
  const decimals = Math.min(Math.max(Math.ceil(-Math.log10(largest * STEP)), 0), 12);
  const set = (name, value) => {
    const one = widget(node, name);
    if (!one) return;
    const exact = Number(largest > 0 ? value.toFixed(decimals) : value.toPrecision(DIGITS));
    one.value = exact;
    one.callback?.(exact);
    one.value = exact; // the widget's own callback rounds to the digits it shows
  };
  ["x", "y", "z"].forEach((name, axis) => set(name, center[axis]));
  if (shape === "box") ["width", "height", "depth"].forEach((name, axis) => set(name, size[axis]));
  if (shape === "sphere") set("radius", size[0] / 2);
  node.setDirtyCanvas?.(true, true);
}

/**
 * Draw the node's region over its viewer, and let a click choose a point.
 * @param {object} node
 * @param {import("./panel.mjs").ViewerPanel} panel
 */
export function attachRegion(node, panel) {
  const overlay = new RegionOverlay(panel.stage, () => shapeOf(node), (shape) => setShape(node, shape), () => panel.look());
  let down = null;
  panel.stage.addEventListener("pointerdown", (event) => (down = event.button === 0 ? event : null), true);
  panel.stage.addEventListener("pointerup", (event) => {
    const still = down && Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) < STILL;
    const shape = shapeOf(node);
    const view = panel.look();
    if (!still || shape?.shape !== "points" || !view) return;
    const box = panel.stage.getBoundingClientRect();
    const scale = box.width / panel.stage.clientWidth || 1;
    const at = [(event.clientX - box.left) / scale, (event.clientY - box.top) / scale];
    const center = picked(panel.scene?.points() ?? [], view, at);
    if (center) setShape(node, { ...shape, center });
  }, true);
  return overlay;
}
