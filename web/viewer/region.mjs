/**
 * A region drawn over a splat, and moved by mouse: a box, a ball or a point, in the world of the viewer (Y up).
 *
 * It is an SVG over the canvas. The camera's matrices are read as plain numbers, so nothing of three.js is needed.
 */

/** @typedef {{shape: "box" | "sphere" | "points", center: number[], size: number[]}} Shape size: whole sides; of a ball three times its diameter */
/** @typedef {{project: (point: number[]) => number[] | null}} View gives x, y in CSS pixels and the depth, or null behind the camera */

const AXES = ["x", "y", "z"];
const SVG = "http://www.w3.org/2000/svg";
const CORNERS = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => [i & 1, (i >> 1) & 1, (i >> 2) & 1].map((bit) => bit - 0.5));
/** Pairs of corners that differ along one axis. */
const EDGES = CORNERS.flatMap((_, i) => [1, 2, 4].filter((bit) => !(i & bit)).map((bit) => [i, i | bit]));
const ROUND = 48;
/** Of a side, as the node allows; and as a share of what it was before a drag. */
const SMALLEST = 1e-6;
const SHRINK = 1e-2;

/** @param {number} axis @param {number} length */
const along = (axis, length) => [0, 1, 2].map((i) => (i === axis ? length : 0));
/** @param {number[]} a @param {number[]} b @param {number} scale */
const plus = (a, b, scale = 1) => a.map((value, i) => value + scale * b[i]);

/**
 * What a camera of three.js shows where.
 * @param {{projectionMatrix: {elements: number[]}, matrixWorldInverse: {elements: number[]}}} camera
 * @param {number} width CSS pixels
 * @param {number} height
 * @returns {View}
 */
export function viewOf(camera, width, height) {
  const times = (m, [x, y, z, w]) => [0, 1, 2, 3].map((i) => m[i] * x + m[i + 4] * y + m[i + 8] * z + m[i + 12] * w);
  const [view, lens] = [camera.matrixWorldInverse.elements, camera.projectionMatrix.elements];
  return {
    project(point) {
      const [x, y, , w] = times(lens, times(view, [...point, 1]));
      return w > 1e-6 ? [((x / w + 1) / 2) * width, ((1 - y / w) / 2) * height, w] : null;
    },
  };
}

/**
 * How far along an axis a handle moves for a drag on the screen: the nearest point of the axis' picture to the pointer.
 * @param {View} view
 * @param {number[]} from where the handle is
 * @param {number} axis
 * @param {number[]} drag in CSS pixels
 * @param {number} unit a length of the region's size
 */
export function dragAlong(view, from, axis, drag, unit) {
  const [a, b] = [view.project(from), view.project(plus(from, along(axis, unit / 100)))];
  if (!a || !b) return 0;
  const slope = [b[0] - a[0], b[1] - a[1]].map((d) => (d * 100) / unit);
  const length = slope[0] ** 2 + slope[1] ** 2;
  // An axis that points at the camera has no picture to drag along.
  return length * unit ** 2 < 16 ? 0 : (drag[0] * slope[0] + drag[1] * slope[1]) / length;
}

/**
 * How far a point moves in the plane of the screen, in world units along the three axes.
 * @param {View} view
 * @param {number[]} from
 * @param {number[]} drag
 * @param {number} unit
 */
export function dragInPlane(view, from, drag, unit) {
  const start = view.project(from);
  const ends = [0, 1, 2].map((axis) => view.project(plus(from, along(axis, unit / 100))));
  if (!start || ends.some((end) => !end)) return [0, 0, 0];
  // The least squares of J d = drag with J [2, 3]: J^T (J J^T)^-1 drag, the shortest move that follows the pointer.
  const J = [0, 1].map((row) => ends.map((end) => ((end[row] - start[row]) * 100) / unit));
  const dot = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0);
  const [p, q, r] = [dot(J[0], J[0]), dot(J[0], J[1]), dot(J[1], J[1])];
  const determinant = p * r - q * q;
  if (Math.abs(determinant) < 1e-12) return [0, 0, 0];
  const weights = [(r * drag[0] - q * drag[1]) / determinant, (p * drag[1] - q * drag[0]) / determinant];
  return [0, 1, 2].map((axis) => J[0][axis] * weights[0] + J[1][axis] * weights[1]);
}

/**
 * The shape after a handle was dragged: the middle moves all of it; a handle on a side moves that side of a box, or
 * makes a ball larger.
 * @param {Shape} shape as the drag began
 * @param {View} view as the drag began
 * @param {{axis: number, side: number} | null} handle null: the middle
 * @param {number[]} drag in CSS pixels
 * @returns {Shape}
 */
export function dragged(shape, view, handle, drag) {
  const unit = Math.max(...shape.size, SMALLEST);
  if (handle === null) return { ...shape, center: plus(shape.center, dragInPlane(view, shape.center, drag, unit)) };
  const { axis, side } = handle;
  const at = plus(shape.center, along(axis, (side * shape.size[axis]) / 2));
  const moved = side * dragAlong(view, at, axis, drag, unit);
  if (shape.shape === "sphere") {
    const diameter = Math.max(shape.size[0] + 2 * moved, SHRINK * shape.size[0], 2 * SMALLEST);
    return { ...shape, size: [diameter, diameter, diameter] };
  }
  const grown = Math.max(shape.size[axis] + moved, SHRINK * shape.size[axis], SMALLEST);
  const size = shape.size.map((value, i) => (i === axis ? grown : value));
  return { ...shape, size, center: plus(shape.center, along(axis, (side * (grown - shape.size[axis])) / 2)) };
}

export class RegionOverlay {
  /**
   * @param {HTMLElement} stage what it lies over
   * @param {() => Shape | null} read the region as the node's widgets say it; null: none that can be drawn
   * @param {(shape: Shape) => void} write
   * @param {() => View | null} look
   */
  constructor(stage, read, write, look) {
    Object.assign(this, { stage, read, write, look });
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.classList.add("dxl-region");
    stage.append(this.svg);
    /** What is drawn now, so that nothing is done while nothing changes. */
    this.drawn = "";
    this.drag = null;
    const next = () => {
      if (this.released) return;
      this.draw();
      requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  }

  release() {
    this.released = true;
    this.svg.remove();
  }

  draw() {
    if (!this.stage.isConnected) return;
    const [shape, view] = [this.read(), this.look()];
    const lines = shape && view ? linesOf(shape).map((line) => line.map(view.project)) : [];
    const handles = shape && view ? handlesOf(shape).map((handle) => ({ ...handle, at: view.project(handle.point) })) : [];
    const now = JSON.stringify([lines, handles.map(({ at }) => at)]);
    if (now === this.drawn) return;
    this.drawn = now;
    const paths = lines.map((line) => {
      const path = document.createElementNS(SVG, "path");
      let pen = "M";
      const steps = line.map((at) => {
        if (!at) pen = "M";
        const step = at ? `${pen}${at[0].toFixed(1)} ${at[1].toFixed(1)}` : "";
        if (at) pen = "L";
        return step;
      });
      path.setAttribute("d", steps.join(""));
      return path;
    });
    const dots = handles.filter(({ at }) => at).map((handle) => this.dot(handle));
    this.svg.replaceChildren(...paths, ...dots);
  }

  dot({ at, axis, side, middle }) {
    const dot = document.createElementNS(SVG, "circle");
    dot.setAttribute("cx", at[0]);
    dot.setAttribute("cy", at[1]);
    dot.setAttribute("r", middle ? 7 : 5);
    dot.classList.add(middle ? "dxl-middle" : `dxl-${AXES[axis]}`);
    dot.dataset.handle = middle ? "middle" : `${side > 0 ? "+" : "-"}${AXES[axis]}`;
    dot.addEventListener("pointerdown", (event) => this.begin(event, middle ? null : { axis, side }));
    return dot;
  }

  /**
   * @param {PointerEvent} event
   * @param {{axis: number, side: number} | null} handle
   */
  begin(event, handle) {
    event.preventDefault();
    event.stopPropagation();
    const [shape, view] = [this.read(), this.look()];
    if (!shape || !view) return;
    // Widgets are scaled with the canvas in the classic renderer.
    const scale = this.stage.getBoundingClientRect().width / this.stage.clientWidth || 1;
    const move = (to) => {
      to.stopPropagation();
      const drag = [(to.clientX - event.clientX) / scale, (to.clientY - event.clientY) / scale];
      this.write(dragged(shape, view, handle, drag));
    };
    const end = (to) => {
      to.stopPropagation();
      window.removeEventListener("pointermove", move, true);
      window.removeEventListener("pointerup", end, true);
      window.removeEventListener("pointercancel", end, true);
    };
    window.addEventListener("pointermove", move, true);
    window.addEventListener("pointerup", end, true);
    window.addEventListener("pointercancel", end, true);
  }
}

/** @param {Shape} shape @returns {number[][][]} lines of points */
function linesOf({ shape, center, size }) {
  if (shape === "points") return [];
  if (shape === "box") {
    const corners = CORNERS.map((corner) => plus(center, corner.map((half, axis) => half * size[axis])));
    return EDGES.map(([a, b]) => [corners[a], corners[b]]);
  }
  return [0, 1, 2].map((axis) =>
    Array.from({ length: ROUND + 1 }, (_, i) => {
      const angle = (2 * Math.PI * i) / ROUND;
      const point = [Math.cos(angle), Math.sin(angle)].map((value) => (value * size[0]) / 2);
      return plus(center, [0, 1, 2].map((other) => (other === axis ? 0 : point[(other - axis + 2) % 3])));
    }),
  );
}

/** @param {Shape} shape */
function handlesOf({ shape, center, size }) {
  const middle = { point: center, axis: 0, side: 0, middle: true };
  if (shape === "points") return [middle];
  const sides = [0, 1, 2].flatMap((axis) =>
    [-1, 1].map((side) => ({ point: plus(center, along(axis, (side * size[axis]) / 2)), axis, side, middle: false })),
  );
  return [...sides, middle];
}

/**
 * The Gaussian under a click: of those near the pointer the one in front.
 * @param {number[][]} points rows of x, y, z, opacity
 * @param {View} view
 * @param {number[]} at in CSS pixels
 * @returns {number[] | null} its place
 */
export function picked(points, view, at) {
  const near = points
    .filter((point) => point[3] > 0.3)
    .map((point) => ({ point, seen: view.project(point.slice(0, 3)) }))
    .filter(({ seen }) => seen && Math.hypot(seen[0] - at[0], seen[1] - at[1]) < 8);
  near.sort((a, b) => a.seen[2] - b.seen[2]);
  return near.length ? near[0].point.slice(0, 3) : null;
}
