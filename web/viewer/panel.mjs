/** The viewer of one node: a canvas or a picture, a line of text and buttons. Knows nothing of nodes and graphs. */

import { fetchPlace, fetchSnapshot, freeSnapshot, placeUrl } from "./feed.mjs";
import { icon } from "./icons.mjs";
import { SplatScene, findEngine } from "./scene.mjs";

/** @typedef {import("./feed.mjs").SnapshotMessage} SnapshotMessage */
/** @typedef {import("./feed.mjs").ResultEntry} ResultEntry */

/** Name -> colour behind the object; null shows the checkerboard behind the canvas. */
const BACKGROUNDS = { dark: "#2a2a2e", black: "#000000", grey: "#808080", white: "#ffffff", checker: null };

/** After a snapshot that took a while to draw nothing is drawn for so many times as long, and milliseconds at most. */
const PAUSE = 3;
const LONGEST_PAUSE = 30_000;

/** What would otherwise move the node or the graph. */
const STOPPED = ["pointerdown", "mousedown", "wheel", "contextmenu"];

/** @param {number} count */
const number = (count) => count.toLocaleString("en-US");

/**
 * @param {string} tag
 * @param {string} name of the class
 * @param {Record<string, unknown>} [properties]
 */
function element(tag, name, properties = {}) {
  return Object.assign(document.createElement(tag), { className: `dxl-${name}` }, properties);
}

export class ViewerPanel {
  /**
   * @param {object} options
   * @param {string} options.hint shown while there is nothing else
   * @param {() => number} options.pixelScale device pixels per CSS pixel
   * @param {(name: string) => void} options.onBackground the user chose another background
   * @param {(has3d: boolean) => void} options.onMode whether splats are drawn, or pictures shown
   */
  constructor({ hint, pixelScale, onBackground, onMode }) {
    this.options = { pixelScale, onBackground, onMode };
    this.element = element("div", "viewer", { tabIndex: -1 });
    this.stage = element("div", "stage");
    this.picture = element("img", "picture", { alt: "The object from all around", hidden: true, draggable: false });
    this.hint = element("div", "hint", { textContent: hint });
    this.status = element("div", "status");
    this.bar = element("div", "bar");
    this.element.append(this.stage, this.picture, this.hint, this.status, this.bar);
    for (const name of STOPPED) this.element.addEventListener(name, (event) => event.stopPropagation());
    this.element.addEventListener("contextmenu", (event) => event.preventDefault());
    // Nodes 2.0 leaves the wheel to a widget that asks for it and has the focus.
    this.element.dataset.captureWheel = "true";
    this.element.addEventListener("pointerdown", () => this.element.focus({ preventScroll: true }));
    this.makeButtons();

    /** @type {SplatScene | null} */
    this.scene = null;
    this.background = "dark";
    /** @type {ResultEntry[]} */
    this.entries = [];
    this.index = 0;
    /** What is on the screen, for the download button. @type {{bytes: ArrayBuffer, name: string} | null} */
    this.shown = null;
    /** Snapshots of this node that the server may still hold. @type {Set<string>} */
    this.held = new Set();
    /** @type {SnapshotMessage | null} The newest that came while another was being drawn. */
    this.waiting = null;
    this.busy = false;
    this.step = -1;
    /** Counts what was asked for, so that a slow answer never replaces a newer one. */
    this.generation = 0;
    this.has3d = findEngine() !== null;
    this.options.onMode(this.has3d);
    this.setBackground(this.background);
    this.setState("empty", "");
  }

  makeButtons() {
    const button = (name, title, act) => {
      const made = element("button", "button", { type: "button", title, ariaLabel: title, onclick: act });
      made.dataset.action = name;
      made.append(icon(name));
      return made;
    };
    this.buttons = {
      previous: button("previous", "Previous object", () => this.turn(-1)),
      next: button("next", "Next object", () => this.turn(1)),
      fit: button("fit", "Fit the object into the view", () => this.scene?.fit()),
      background: button("background", "Background", () => this.nextBackground()),
      download: button("download", "Download what is shown", () => this.download()),
      fullscreen: button("fullscreen", "Full screen", () => this.toggleFullscreen()),
    };
    this.bar.append(...Object.values(this.buttons));
    this.buttons.fullscreen.hidden = !document.fullscreenEnabled;
  }

  /**
   * @param {"empty" | "live" | "stopped" | "result" | "missing"} state
   * @param {string} text
   */
  setState(state, text) {
    this.element.dataset.state = state;
    this.status.textContent = text;
    this.status.hidden = text === "";
    this.hint.hidden = state !== "empty" && state !== "missing";
    this.buttons.previous.hidden = this.buttons.next.hidden = this.entries.length < 2 || state === "live";
    this.buttons.download.hidden = state === "empty" || state === "missing";
    this.buttons.fit.hidden = this.buttons.background.hidden = !this.has3d || this.buttons.download.hidden;
    this.buttons.fullscreen.hidden = this.buttons.download.hidden || !document.fullscreenEnabled;
  }

  // The running optimisation

  /**
   * A snapshot was made; while one is being drawn, only the newest waits.
   * @param {SnapshotMessage} message
   */
  async announce(message) {
    this.held.add(message.id);
    if (!this.has3d) return;
    this.waiting = message;
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.waiting) {
        const next = this.waiting;
        const began = performance.now();
        this.waiting = null;
        await this.showSnapshot(next);
        await this.pause(began);
      }
    } finally {
      this.busy = false;
    }
  }

  /**
   * Leave the machine to the optimisation: where one snapshot takes long to draw, the next waits so much the longer.
   * @param {number} began when the last one did
   */
  pause(began) {
    const long = Math.min(PAUSE * (performance.now() - began), LONGEST_PAUSE);
    return new Promise((resolve) => setTimeout(resolve, long));
  }

  /** @param {SnapshotMessage} message */
  async showSnapshot(message) {
    if (this.element.dataset.state !== "live") this.step = -1;
    const generation = ++this.generation;
    const found = await fetchSnapshot(message.id, this.step).catch(() => null); // the server is away
    if (found === null || generation !== this.generation) return;
    this.step = found.step;
    this.entries = [];
    if (!(await this.draw(found.bytes, "snapshot.splat", generation))) return;
    const some = message.shown < message.count ? `${number(message.shown)} of ${number(message.count)}` : number(message.count);
    this.setState("live", `step ${found.step}/${message.steps} · ${some} Gaussians`);
  }

  /** The run ended without a result. */
  stop() {
    this.waiting = null;
    if (this.busy) this.generation++; // what is on its way comes too late
    if (this.element.dataset.state === "live") this.setState("stopped", `stopped at ${this.status.textContent}`);
  }

  // What a run left

  /**
   * @param {ResultEntry[]} entries one per object
   * @param {number} index of the one to show
   */
  async showResult(entries, index = 0) {
    this.waiting = null;
    this.held.clear();
    this.entries = entries;
    this.index = index;
    const entry = entries[index];
    const generation = ++this.generation;
    const bytes = await fetchPlace(entry.file).catch(() => null);
    if (generation !== this.generation) return;
    if (bytes === null) return this.miss();
    if (this.has3d && !(await this.draw(bytes, entry.file.filename, generation)) && this.has3d) return;
    if (!this.has3d) this.showPictures(entry, bytes);
    const which = entries.length > 1 ? `${index + 1} of ${entries.length} · ` : "";
    this.setState("result", `${which}${number(entry.count)} Gaussians`);
  }

  /** The files of the last run are gone: ComfyUI was started anew. */
  miss() {
    this.dropScene();
    this.picture.hidden = true;
    this.hint.textContent = "The preview is no longer there: queue again.";
    this.setState("missing", "");
  }

  /** @param {number} by */
  turn(by) {
    const count = this.entries.length;
    return this.showResult(this.entries, (this.index + by + count) % count);
  }

  // Drawing

  /**
   * Whether the bytes are on the screen now.
   * @param {ArrayBuffer} bytes
   * @param {string} name
   * @param {number} generation
   */
  async draw(bytes, name, generation) {
    try {
      if (this.scene === null) {
        const engine = findEngine();
        if (engine === null) throw new Error("this frontend or browser draws no splats");
        this.scene = new SplatScene(this.stage, engine, this.options.pixelScale);
        this.scene.setBackground(BACKGROUNDS[this.background]);
      }
      await this.scene.show(bytes.slice(0), name);
    } catch (error) {
      console.info("Dreamer XL: pictures instead of the 3D view:", error);
      this.dropScene();
      this.has3d = false;
      this.options.onMode(false);
      return false;
    }
    if (generation !== this.generation || this.scene === null) return false;
    this.shown = { bytes, name };
    return true;
  }

  /**
   * @param {ResultEntry} entry
   * @param {ArrayBuffer} bytes
   */
  showPictures(entry, bytes) {
    this.picture.src = placeUrl(entry.pictures);
    this.picture.hidden = false;
    this.shown = { bytes, name: entry.file.filename };
  }

  /** What the camera shows where, or null while nothing is drawn. */
  look() {
    return this.shown && this.scene ? this.scene.look() : null;
  }

  /** @param {string} name */
  setBackground(name) {
    this.background = name in BACKGROUNDS ? name : "dark";
    this.element.dataset.background = this.background;
    this.buttons.background.title = `Background: ${this.background}`;
    this.scene?.setBackground(BACKGROUNDS[this.background]);
  }

  nextBackground() {
    const names = Object.keys(BACKGROUNDS);
    this.setBackground(names[(names.indexOf(this.background) + 1) % names.length]);
    this.options.onBackground(this.background);
  }

  download() {
    if (!this.shown) return;
    const { bytes, name } = this.shown;
    const suffix = name.slice(name.lastIndexOf("."));
    const link = element("a", "link", { href: URL.createObjectURL(new Blob([bytes])), download: `dreamer-xl${suffix}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  async toggleFullscreen() {
    const own = document.fullscreenElement === this.element;
    await (own ? document.exitFullscreen() : this.element.requestFullscreen()).catch(() => {}); // the browser refuses
  }

  dropScene() {
    this.scene?.dispose();
    this.scene = null;
    this.shown = null;
  }

  /** Give back graphics memory and what the server keeps; the panel can be used again. */
  release() {
    this.generation++;
    this.waiting = null;
    for (const id of this.held) freeSnapshot(id);
    this.held.clear();
    this.dropScene();
    this.setState("empty", "");
  }
}
