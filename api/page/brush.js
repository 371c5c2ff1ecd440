// The brush that paints a mask over a picture, with mouse, finger, pen or keyboard.

import { announce, button, el, uid } from "./dom.js";
import { MaskPixels } from "./mask.js";

const LEAST_SHARE = 1 / 4096;

/** @typedef {import("./mask.js").Action} Action */

/** A slider from 0 to 100 with its label. @param {string} label @param {number} value @param {() => void} oninput */
function tool(label, value, oninput) {
  const input = el("input", { type: "range", min: 0, max: 100, step: 1, value, id: uid("tool"), oninput });
  return { input, node: el("span", { class: "slide" }, el("label", { for: input.id }, label), input) };
}

/** The brush over a picture, with its tools. */
export class Brush {
  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
    /** @type {Action[]} */
    this.actions = [];
    /** @type {Action[]} */
    this.undone = [];
    /** @type {HTMLCanvasElement | null} */
    this.start = null;
    /** @type {HTMLCanvasElement | null} what is painted, without the stroke at work */
    this.done = null;
    /** @type {MaskPixels | null} */
    this.pixels = null;
    /** @type {Action | null} */
    this.stroke = null;
    this.at = [0.5, 0.5];
    this.act = /** @type {"add" | "erase"} */ ("add");
    this.view = el("canvas", { class: "mask" });
    this.ring = el("span", { class: "ring", "aria-hidden": "true", hidden: true });
    this.surface = el("div", {
      class: "surface", tabindex: "0", role: "application", "aria-roledescription": "mask brush",
      "aria-label": "Paint where the picture may change. Arrow keys move the brush, Space paints, X adds or erases, brackets change its size, Ctrl and Z undo.",
    }, this.view, this.ring);
    this.size = tool("Size", 24, () => this.#showRing());
    this.soft = tool("Soft edge", 30, () => this.#showRing());
    this.undoButton = button("Undo", () => this.undo(), "quiet small");
    this.redoButton = button("Redo", () => this.redo(), "quiet small");
    this.tools = this.#tools();
    this.#listen();
  }

  #tools() {
    const name = uid("act");
    const radio = (act, words) => {
      const input = el("input", { type: "radio", name, value: act, checked: act === this.act, class: "unseen", onchange: () => { this.act = act; } });
      return el("label", { class: "tool" }, input, words);
    };
    return el("div", { class: "tools" },
      el("fieldset", { class: "switch" }, el("legend", { class: "unseen" }, "Brush"), radio("add", "Add"), radio("erase", "Erase")),
      this.size.node, this.soft.node,
      el("span", { class: "row" }, this.undoButton, this.redoButton,
        button("Invert", () => this.do({ act: "invert" }), "quiet small"),
        button("Clear", () => this.do({ act: "clear" }), "quiet small")));
  }

  /** The diameter as a share of the picture's width, from 1 to 50 percent. */
  get diameter() {
    return 0.01 + 0.49 * (Number(this.size.input.value) / 100) ** 1.6;
  }

  /** Sets the picture's size; what was painted stays. */
  fit(width, height) {
    if (this.pixels && this.picture === `${width} ${height}`) return;
    this.picture = `${width} ${height}`;
    this.pixels = new MaskPixels(width, height);
    this.view.width = this.pixels.width;
    this.view.height = this.pixels.height;
    this.redraw();
  }

  /** Begins from a mask and actions; null and none for an empty one. */
  begin(start, actions = []) {
    this.start = start;
    this.actions = actions;
    this.undone = [];
    this.redraw();
  }

  do(action) {
    this.actions.push(action);
    this.undone = [];
    this.redraw();
    this.changed();
  }

  undo() {
    const last = this.actions.pop();
    if (!last) return announce("Nothing to undo");
    this.undone.push(last);
    this.redraw();
    this.changed();
    announce("Undone");
  }

  redo() {
    const next = this.undone.pop();
    if (!next) return announce("Nothing to redo");
    this.actions.push(next);
    this.redraw();
    this.changed();
    announce("Done again");
  }

  redraw() {
    this.undoButton.toggleAttribute("disabled", !this.actions.length);
    this.redoButton.toggleAttribute("disabled", !this.undone.length);
    if (!this.pixels) return;
    this.pixels.draw(this.start, this.actions);
    this.done = el("canvas", { width: this.pixels.width, height: this.pixels.height });
    this.done.getContext("2d")?.drawImage(this.pixels.canvas, 0, 0);
    this.#show();
  }

  /** Shows the mask in the colour of the overlay. */
  #show() {
    const pen = /** @type {CanvasRenderingContext2D} */ (this.view.getContext("2d"));
    pen.globalCompositeOperation = "copy";
    pen.drawImage(/** @type {MaskPixels} */ (this.pixels).canvas, 0, 0);
    pen.globalCompositeOperation = "source-in";
    pen.fillStyle = getComputedStyle(this.view).getPropertyValue("--overlay") || "#e0359a";
    pen.fillRect(0, 0, this.view.width, this.view.height);
  }

  #showRing(shown = true) {
    this.ring.hidden = !shown;
    const box = this.surface.getBoundingClientRect();
    const side = this.diameter * box.width;
    Object.assign(this.ring.style, { left: `${this.at[0] * 100}%`, top: `${this.at[1] * 100}%`, width: `${side}px`, height: `${side}px` });
  }

  #place(event) {
    const box = this.surface.getBoundingClientRect();
    this.at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const pressure = event.pointerType === "pen" ? Math.round(Math.max(0.15, event.pressure) * 100) / 100 : 1;
    return /** @type {[number, number, number]} */ ([Math.round(this.at[0] * 1e4) / 1e4, Math.round(this.at[1] * 1e4) / 1e4, pressure]);
  }

  #begun(point) {
    this.stroke = { act: this.act, size: this.diameter, soft: Number(this.soft.input.value) / 100, points: [point] };
    this.#moved();
  }

  /** The mask with the stroke that is being painted. */
  #moved() {
    if (!this.pixels || !this.stroke) return;
    this.pixels.draw(this.done, []);
    this.pixels.apply(this.stroke);
    this.#show();
  }

  #ended() {
    if (!this.stroke) return;
    const { stroke } = this;
    this.stroke = null;
    this.do(stroke);
  }

  #listen() {
    const { surface } = this;
    surface.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      surface.focus({ preventScroll: true });
      surface.setPointerCapture(event.pointerId);
      this.#begun(this.#place(event));
      this.#showRing();
    });
    surface.addEventListener("pointermove", (event) => {
      const point = this.#place(event);
      this.#showRing();
      if (!this.stroke) return;
      this.stroke.points?.push(...(event.getCoalescedEvents?.().map((part) => this.#place(part)) || []), point);
      this.#moved();
    });
    surface.addEventListener("pointerup", () => this.#ended());
    surface.addEventListener("pointercancel", () => this.#ended());
    surface.addEventListener("pointerleave", () => this.#showRing(document.activeElement === surface));
    surface.addEventListener("focus", () => this.#showRing());
    surface.addEventListener("blur", () => { this.#ended(); this.#showRing(false); });
    surface.addEventListener("keydown", (event) => this.#key(event));
    surface.addEventListener("keyup", (event) => { if (event.key === " ") this.#ended(); });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const undo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
    const step = Math.max(0.01, this.diameter / 4);
    const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const point = () => /** @type {[number, number, number]} */ ([this.at[0], this.at[1], 1]);
    if (undo) event.shiftKey ? this.redo() : this.undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key in ways) {
      this.at = this.at.map((value, axis) => Math.min(1, Math.max(0, value + ways[event.key][axis])));
      this.stroke?.points?.push(point());
      this.#moved();
    } else if (event.key === " ") {
      if (!this.stroke) this.#begun(point());
    } else if (event.key === "x") this.#turn();
    else if (event.key === "[" || event.key === "]") {
      this.size.input.value = String(Number(this.size.input.value) + (event.key === "]" ? 5 : -5));
    } else return;
    event.preventDefault();
    this.#showRing();
  }

  #turn() {
    const other = /** @type {HTMLInputElement} */ (this.tools.querySelector("input[type=radio]:not(:checked)"));
    other.checked = true;
    this.act = /** @type {"add" | "erase"} */ (other.value);
    announce(this.act === "add" ? "The brush adds" : "The brush erases");
  }

  /** What is wrong with the mask; empty if it can be used. */
  fault() {
    if (!this.pixels) return "Choose a picture first.";
    const { share, most, least } = this.pixels.cover();
    if (most < 0.5) return "Nothing is painted: paint where the picture may change.";
    if (least >= 0.5) return "All of it is painted: erase where the picture is to stay, or choose “Everywhere”.";
    return share < LEAST_SHARE ? "Too little is painted; make it larger." : "";
  }
}
