/** Where splats come from: snapshots of a running node, and the files of a finished one. */

import { api } from "../../../scripts/api.js";

const CLIENT_HEADER = "Dreamer-XL-Client";

/**
 * @typedef {object} SnapshotMessage
 * @property {string} node execution id, "12:7" inside a subgraph
 * @property {string | null} workflow id of the workflow it was queued from
 * @property {string} id of the snapshot
 * @property {number} step
 * @property {number} steps
 * @property {number} shown Gaussians in the snapshot
 * @property {number} count Gaussians there are
 */

/** @typedef {{filename: string, subfolder: string, type: string}} Place */
/** @typedef {{file: Place, pictures: Place, count: number}} ResultEntry */

const url = (id) => `/dreamerxl/snapshots/${encodeURIComponent(id)}`;

/** @param {HeadersInit} more */
const headers = (more = {}) => ({ [CLIENT_HEADER]: api.clientId ?? "", ...more });

/**
 * Bytes of the newest snapshot and its step, or null when it is gone or the one at `known` is still the newest.
 * @param {string} id
 * @param {number} known
 * @returns {Promise<{bytes: ArrayBuffer, step: number} | null>}
 */
export async function fetchSnapshot(id, known) {
  const reply = await api.fetchApi(url(id), { headers: headers({ "If-None-Match": `"${known}"` }), cache: "no-store" });
  if (reply.status !== 200) return null;
  return { bytes: await reply.arrayBuffer(), step: Number(reply.headers.get("ETag")?.replaceAll('"', "")) };
}

/**
 * Tell the server that nobody looks at a snapshot any more.
 * @param {string} id
 */
export function freeSnapshot(id) {
  api.fetchApi(url(id), { method: "DELETE", headers: headers(), keepalive: true }).catch(() => {});
}

/**
 * The address of a node's file.
 * @param {Place} place
 */
export function placeUrl({ filename, subfolder, type }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

/**
 * A node's file, or null when ComfyUI has dropped it (temporary files live until its next start). The server is always
 * asked: left to itself, a browser keeps a file for a tenth of its age, and would show one that is gone or replaced.
 * @param {Place} place
 * @returns {Promise<ArrayBuffer | null>}
 */
export async function fetchPlace(place) {
  const reply = await fetch(placeUrl(place), { cache: "no-cache" });
  return reply.ok ? reply.arrayBuffer() : null;
}
