/**
 * One splat on one canvas, drawn by the frontend's own three.js and spark.
 *
 * Both come from an internal interface of the frontend, so everything is probed: `findEngine` says whether it is there,
 * and whatever throws later makes the panel fall back to pictures.
 */

import { viewOf } from "./region.mjs";

/** @typedef {{createLoad3d: Function, SplatModelAdapter: Function}} Engine */
/** @typedef {{x: number, y: number, z: number}} Vector */
/** @typedef {{center: Vector, radius: number}} Sphere */

const DIRECTION = { azimuth: 25, elevation: 15 };
/** Share of the opacity that a fit brings into the picture: the rest are floaters. */
const FITTED = 0.98;
const MARGIN = 1.12;
/** How many Gaussians are enough to measure an object. */
const SAMPLES = 20_000;
/** Milliseconds and frames in which an orbit's inertia has come to rest and the splat is sorted for its end. */
const SETTLE = 1500;
const SETTLING_FRAMES = 12;
/** Milliseconds that a frame takes where it is drawn without a graphics card, and how many frames tell. */
const SLOW_FRAME = 100;
const FEW_FRAMES = 3;
/** Milliseconds in which spark has sorted new data, also on a slow machine. */
const PATIENCE = 10_000;

/** @returns {boolean} */
function hasWebGL() {
  const context = document.createElement("canvas").getContext("webgl2");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return context !== null;
}

/** @type {boolean | undefined} */
let webgl;

/**
 * The frontend's splat viewer, or null where this frontend or browser has none.
 * @returns {Engine | null}
 */
export function findEngine() {
  const createLoad3d = window.comfyAPI?.createLoad3d?.createLoad3d;
  const SplatModelAdapter = window.comfyAPI?.SplatModelAdapter?.SplatModelAdapter;
  if (typeof createLoad3d !== "function" || typeof SplatModelAdapter !== "function") return null;
  webgl ??= hasWebGL();
  return webgl ? { createLoad3d, SplatModelAdapter } : null;
}

export class SplatScene {
  /**
   * @param {HTMLElement} container gets the canvas; its size is the picture's
   * @param {Engine} engine
   * @param {() => number} pixelScale device pixels per CSS pixel of the container
   */
  constructor(container, engine, pixelScale) {
    this.container = container;
    this.adapter = new engine.SplatModelAdapter();
    this.pixelScale = pixelScale;
    this.drawnScale = pixelScale();
    this.view = engine.createLoad3d(container, { getZoomScale: pixelScale });
    this.view.sceneManager.toggleGrid(false);
    this.view.viewHelperManager.visibleViewHelper(false);
    /** The object in the scene. */
    this.object = null;
    /** @type {Sphere | null} What the camera was last fitted to. */
    this.fitted = null;
    this.touched = false;
    /** Pointers that are down. @type {Set<number>} */
    this.dragging = new Set();
    this.disposed = false;
    /** Counts the loads: only what was asked for last is shown. */
    this.ticket = 0;
    /** Counts the changes between drawing and resting. */
    this.turn = 0;
    this.listen();
  }

  listen() {
    const { controls } = this;
    controls?.addEventListener?.("start", () => {
      this.touched = true;
      this.wake();
    });
    controls?.addEventListener?.("end", () => this.settle());
    // Orbit controls listen for the rest of a drag on the document, which Nodes 2.0 keeps such events from.
    this.container.addEventListener("pointerdown", (event) => this.dragging.add(event.pointerId));
    for (const name of ["pointermove", "pointerup"]) {
      this.container.addEventListener(name, (event) => this.forward(event));
    }
    this.container.addEventListener("pointercancel", (event) => this.dragging.delete(event.pointerId));
  }

  /** @param {PointerEvent} event */
  forward(event) {
    if (!this.dragging.has(event.pointerId)) return;
    if (event.type === "pointerup") this.dragging.delete(event.pointerId);
    event.stopPropagation();
    document.dispatchEvent(new PointerEvent(event.type, event));
  }

  get controls() {
    return this.view.controlsManager?.controls;
  }

  /** Draw every frame from now on. */
  wake() {
    this.turn++;
    if (this.disposed) return;
    if (this.drawnScale !== this.pixelScale()) {
      this.drawnScale = this.pixelScale();
      this.view.handleResize();
    }
    this.view.updateStatusMouseOnScene(true);
  }

  /**
   * Draw until what is under way has come to rest: nothing is drawn while nothing moves.
   * @param {boolean} moving whether an orbit may have inertia; if not, a few frames are enough where they are slow
   */
  settle(moving = true) {
    this.wake();
    const turn = this.turn;
    const began = performance.now();
    let frames = 0;
    let late = 0;
    const next = () => {
      if (turn !== this.turn || this.disposed) return;
      const passed = performance.now() - began;
      const slow = !moving && ++frames >= FEW_FRAMES && passed > frames * SLOW_FRAME;
      if (!slow && (passed < SETTLE || ++late < SETTLING_FRAMES)) requestAnimationFrame(next);
      else this.sleep();
    };
    requestAnimationFrame(next);
  }

  /** Stop drawing, but for the last sort. */
  async sleep() {
    const turn = ++this.turn;
    const sorted = this.view.sceneManager.awaitNextSparkDirty?.();
    this.view.updateStatusMouseOnScene(false);
    await Promise.race([sorted, new Promise((resolve) => setTimeout(resolve, SETTLE))]);
    if (turn === this.turn && !this.disposed) this.view.forceRender();
  }

  /**
   * Put a splat file in place of what is shown; the camera stays where the user left it.
   * @param {ArrayBuffer} bytes
   * @param {string} filename its suffix tells the format
   */
  async show(bytes, filename) {
    const context = { setOriginalModel() {} };
    const ticket = ++this.ticket;
    const { object } = await this.adapter.load(context, "", filename, async () => bytes);
    if (this.disposed || ticket !== this.ticket) return this.adapter.disposeModel(object);
    const { scene } = this.view.sceneManager;
    const old = this.object;
    this.object = object;
    scene.add(object);
    if (old) scene.remove(old);
    this.follow();
    await this.drawn();
    if (old) this.adapter.disposeModel(old);
  }

  /** Draw until spark has taken in and sorted the new data; resolves then, or after a while in any case. */
  async drawn() {
    this.wake();
    const end = performance.now() + PATIENCE;
    do {
      const dirty = this.view.sceneManager.awaitNextSparkDirty?.();
      await Promise.race([dirty, new Promise((resolve) => setTimeout(resolve, 300))]);
      if (this.disposed) return;
      this.view.forceRender();
    } while (!this.painted() && performance.now() < end);
    this.settle(this.dragging.size > 0);
  }

  /** Whether anything but the background is on the canvas. */
  painted() {
    const size = 24;
    const small = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
    const canvas = this.container.querySelector("canvas");
    if (!canvas?.width || !small) return true;
    small.drawImage(canvas, 0, 0, size, size);
    const { data } = small.getImageData(0, 0, size, size);
    return data.some((value, i) => Math.abs(value - data[i % 4]) > 8);
  }

  /** Fit again while nobody has turned the object, and it no longer sits well in the picture. */
  follow() {
    if (this.touched) return;
    const now = this.measure();
    const last = this.fitted;
    const moved = last && Math.hypot(now.center.x - last.center.x, now.center.y - last.center.y, now.center.z - last.center.z);
    if (!last || moved > 0.12 * last.radius || Math.abs(now.radius / last.radius - 1) > 0.12) this.fit(now);
  }

  /** Bring the whole object into the picture, seen from the front and a little above. */
  fit(sphere = this.measure()) {
    if (!this.object) return;
    const camera = this.view.cameraManager.perspectiveCamera;
    const half = ((camera.fov / 2) * Math.PI) / 180;
    const wide = Math.atan(Math.tan(half) * Math.min(1, this.aspect));
    const distance = (sphere.radius / Math.sin(wide)) * MARGIN;
    const azimuth = (DIRECTION.azimuth * Math.PI) / 180;
    const elevation = (DIRECTION.elevation * Math.PI) / 180;
    const { center } = sphere;
    const position = {
      x: center.x + distance * Math.sin(azimuth) * Math.cos(elevation),
      y: center.y + distance * Math.sin(elevation),
      z: center.z + distance * Math.cos(azimuth) * Math.cos(elevation),
    };
    this.halt();
    this.view.setCameraState({ position, target: center, zoom: 1, cameraType: "perspective" });
    this.fitted = sphere;
    this.touched = false;
    this.settle();
  }

  /** End the inertia of the last orbit: without damping, an update uses it up. */
  halt() {
    const { controls } = this;
    if (!controls?.enableDamping) return;
    controls.enableDamping = false;
    controls.update();
    controls.enableDamping = true;
  }

  get aspect() {
    return this.container.clientWidth / this.container.clientHeight || 1;
  }

  /**
   * A sphere around the object without its floaters.
   * @returns {Sphere}
   */
  measure() {
    const count = this.object?.children?.[0]?.packedSplats?.numSplats ?? 0;
    const points = this.points(Math.max(1, Math.floor(count / SAMPLES)));
    return points.length > 0 ? sphereAround(points) : this.box();
  }

  /**
   * Rows of x, y, z, opacity and the largest scale, in our world.
   * @param {number} every how many splats share a row
   */
  points(every = 1) {
    /** @type {number[][]} */
    const points = [];
    // The mesh is turned half around X: files are Y down.
    this.object?.children?.[0]?.forEachSplat?.((index, { x, y, z }, scales, _rotation, opacity) => {
      if (index % every === 0) points.push([x, -y, -z, opacity, Math.max(scales.x, scales.y, scales.z)]);
    });
    return points;
  }

  /** What the camera shows where, in CSS pixels of the container. */
  look() {
    const camera = this.view.cameraManager.perspectiveCamera;
    return viewOf(camera, this.container.clientWidth, this.container.clientHeight);
  }

  /** The same from the bounding box, where the splat does not tell its parts. */
  box() {
    const box = this.object && this.adapter.computeBounds?.(this.object);
    if (!box || box.isEmpty()) return { center: { x: 0, y: 0, z: 0 }, radius: 1 };
    const { min, max } = box;
    const center = { x: (min.x + max.x) / 2, y: (min.y + max.y) / 2, z: (min.z + max.z) / 2 };
    return { center, radius: Math.hypot(max.x - min.x, max.y - min.y, max.z - min.z) / 2 };
  }

  /**
   * A colour, or what lies behind the canvas.
   * @param {string | null} color
   */
  setBackground(color) {
    const { sceneManager } = this.view;
    if (sceneManager.backgroundMesh) sceneManager.backgroundMesh.visible = color !== null;
    if (color !== null) sceneManager.setBackgroundColor(color);
    this.view.forceRender();
  }

  dispose() {
    if (this.disposed) return;
    this.disposed = true;
    if (this.object) {
      this.view.sceneManager.scene.remove(this.object);
      this.adapter.disposeModel(this.object);
    }
    this.view.remove();
  }
}

/**
 * The middle of the object's extent and the radius that holds most of its opacity.
 * @param {number[][]} points rows of x, y, z, opacity, scale
 * @returns {Sphere}
 */
export function sphereAround(points) {
  const total = points.reduce((sum, point) => sum + point[3], 0);
  const quantile = (values, share) => {
    let seen = 0;
    for (const [value, weight] of values) if ((seen += weight) >= share * total) return value;
    return values.at(-1)[0];
  };
  const sorted = (value) => points.map((point) => [value(point), point[3]]).sort((a, b) => a[0] - b[0]);
  const tail = (1 - FITTED) / 2;
  const [x, y, z] = [0, 1, 2].map((axis) => {
    const values = sorted((point) => point[axis]);
    return (quantile(values, tail) + quantile(values, 1 - tail)) / 2;
  });
  const reach = sorted((point) => Math.hypot(point[0] - x, point[1] - y, point[2] - z) + point[4]);
  return { center: { x, y, z }, radius: Math.max(quantile(reach, FITTED), 1e-3) };
}
