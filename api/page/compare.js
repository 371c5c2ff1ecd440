// Before and after in one frame: a line between them, and both enlarged and moved together.

import { button, el, fill, uid } from "./dom.js";
import { stored } from "./pictures.js";

const MOST_ZOOM = 16;
const NEAR_PX = 28;

/**
 * A picture of the comparison. name: what its corner says.
 * @typedef {{url: string, alt: string, name: string, renew: () => Promise<string | null | undefined>}} Shown
 */

/**
 * Two pictures over each other. What is chosen, the line and the part that is looked at stay where
 * they are when another picture is shown.
 */
export class Compare {
  constructor() {
    this.line = 50; // percent of the frame's width that shows the picture before
    this.zoom = 1;
    this.centre = [0.5, 0.5]; // the picture's point in the middle of the frame
    const id = uid("compare");
    this.slider = el("input", {
      type: "range", min: 0, max: 100, value: 50, step: 1, id, "aria-label": "How much of the picture before is shown",
      oninput: () => { this.line = Number(this.slider.value); this.#place(); },
      onkeydown: (event) => this.#key(event),
    });
    this.before = el("div", { class: "layer before" });
    this.after = el("div", { class: "layer after" });
    this.over = el("div", { class: "layer over", "aria-hidden": "true" }); // what is shown over both
    this.left = el("span", { class: "tag left", "aria-hidden": "true" });
    this.right = el("span", { class: "tag right", "aria-hidden": "true" });
    this.frame = el("div", { class: "frame" }, this.after, this.before, this.over, this.left, this.right,
      el("span", { class: "handle", "aria-hidden": "true" }), this.slider);
    this.level = el("output", { for: id, class: "figure" });
    this.node = el("figure", { class: "compare" }, this.frame,
      el("figcaption", { class: "row hint" },
        el("span", { class: "grow" }, "Drag the line; pinch, Ctrl + wheel or a double click enlarges."),
        el("span", { class: "row zooms" },
          button("−", () => this.enlarge(1 / 1.5), "quiet small", { "aria-label": "Reduce" }), this.level,
          button("+", () => this.enlarge(1.5), "quiet small", { "aria-label": "Enlarge" }),
          button("Fit", () => this.fit(), "quiet small"))));
    this.#listen();
    this.#place();
  }

  /** @param {Shown} shown */
  showBefore(shown) {
    this.left.textContent = shown.name;
    fill(this.before, stored(shown.url, shown.alt, shown.renew));
  }

  /** @param {Shown} shown */
  showAfter(shown) {
    this.right.textContent = shown.name;
    fill(this.after, stored(shown.url, shown.alt, shown.renew));
  }

  fit() {
    this.zoom = 1;
    this.#place();
  }

  /** Enlarges around a point of the frame, given as shares of its sides. */
  enlarge(factor, at = [0.5, 0.5]) {
    const zoom = Math.min(MOST_ZOOM, Math.max(1, this.zoom * factor));
    this.centre = this.centre.map((value, axis) => value + (at[axis] - 0.5) * (1 / this.zoom - 1 / zoom));
    this.zoom = zoom;
    this.#place();
  }

  /** Moves the picture by shares of the frame. */
  #move(x, y) {
    this.centre = [this.centre[0] - x / this.zoom, this.centre[1] - y / this.zoom];
    this.#place();
  }

  #place() {
    const half = 0.5 / this.zoom;
    this.centre = this.centre.map((value) => Math.min(1 - half, Math.max(half, value)));
    const [x, y] = this.centre.map((value) => (0.5 - value) * this.zoom * 100);
    const { style } = this.frame;
    style.setProperty("--at", `${this.line}%`);
    style.setProperty("--zoom", String(this.zoom));
    style.setProperty("--x", `${x}%`);
    style.setProperty("--y", `${y}%`);
    this.frame.classList.toggle("enlarged", this.zoom > 1);
    this.level.textContent = `${Math.round(this.zoom * 100)} %`;
    this.slider.value = String(this.line);
    this.slider.setAttribute("aria-valuetext", `${Math.round(this.line)} percent before`);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const ways = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    if (event.shiftKey && event.key in ways) this.#move(ways[event.key][0], ways[event.key][1]);
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key === "+" || event.key === "=") this.enlarge(1.5);
    else if (event.key === "-") this.enlarge(1 / 1.5);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }

  /** Pointers: one drags the line, or the enlarged picture where the line is not near; two pinch. */
  #listen() {
    const { frame } = this;
    /** @type {Map<number, {x: number, y: number}>} */
    const down = new Map();
    let lining = false;
    const share = (event) => {
      const box = frame.getBoundingClientRect();
      return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height, width: box.width };
    };
    const apart = () => {
      const [a, b] = [...down.values()];
      return { far: Math.hypot(a.x - b.x, a.y - b.y), at: [(a.x + b.x) / 2, (a.y + b.y) / 2] };
    };
    const line = (x) => { this.line = Math.round(Math.min(1, Math.max(0, x)) * 100); this.#place(); };
    frame.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      this.slider.focus({ preventScroll: true });
      frame.setPointerCapture(event.pointerId);
      const at = share(event);
      down.set(event.pointerId, at);
      lining = down.size === 1 && (this.zoom === 1 || Math.abs(at.x - this.line / 100) * at.width < NEAR_PX);
      if (lining) line(at.x);
    });
    frame.addEventListener("pointermove", (event) => {
      const last = down.get(event.pointerId);
      if (!last) return;
      const at = share(event);
      if (down.size === 2) {
        const before = apart();
        down.set(event.pointerId, at);
        const now = apart();
        this.#move(now.at[0] - before.at[0], now.at[1] - before.at[1]);
        return this.enlarge(now.far / (before.far || 1), now.at);
      }
      down.set(event.pointerId, at);
      if (lining) line(at.x);
      else this.#move(at.x - last.x, at.y - last.y);
    });
    const up = (event) => { down.delete(event.pointerId); };
    frame.addEventListener("pointerup", up);
    frame.addEventListener("pointercancel", up);
    frame.addEventListener("dblclick", (event) => {
      const { x, y } = share(event);
      this.zoom > 1 ? this.fit() : this.enlarge(3, [x, y]);
    });
    frame.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return; // the page scrolls
      event.preventDefault();
      const { x, y } = share(event);
      this.enlarge(Math.exp(-event.deltaY / 200), [x, y]);
    }, { passive: false });
  }
}
