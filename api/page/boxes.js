// Parts of the picture that looks act in: a box for each, drawn on the picture or written as numbers.

import { add, announce, button, el, fill, uid } from "./dom.js";
import { figure, number } from "./fields.js";

/** @typedef {[number, number, number, number]} Sides left, top, right, bottom as shares of the picture's width and height */

const SIDES = ["Left", "Top", "Right", "Bottom"];
const COLOURS = 8; // of tokens.css: as many as an edit has looks
/** @type {Sides} */
const MIDDLE = [0.25, 0.25, 0.75, 0.75];
const STEP = 0.01;
const LEAST = 0.01;
/** Which sides a corner moves. @type {Record<string, [number, number]>} */
const CORNERS = { nw: [0, 1], ne: [2, 1], sw: [0, 3], se: [2, 3] };

const clamp = (value) => Math.min(1, Math.max(0, value));
const rounded = (value) => Math.round(value * 1000) / 1000;
const percent = (share) => String(Math.round(share * 1000) / 10);
const exactly = (share) => String(Number((share * 100).toFixed(8))); // a program's box stays what it was

/** What is wrong with sides as they were written; empty if nothing is. @param {unknown[]} sides */
export function sidesFault(sides) {
  const wrong = sides.findIndex((side) => typeof side !== "number" || side < 0 || side > 1);
  if (wrong >= 0) return `Write for ${SIDES[wrong].toLowerCase()} a number from 0 to 100.`;
  const [left, top, right, bottom] = /** @type {Sides} */ (sides);
  if (left >= right) return "Left must be less than right.";
  if (top >= bottom) return "Top must be less than bottom.";
  return left === 0 && top === 0 && right === 1 && bottom === 1 ? "This is the whole picture: remove the box." : "";
}

/** Sides moved by a way, as far as the picture goes. @param {Sides} sides @param {number} x @param {number} y @returns {Sides} */
export function moved([left, top, right, bottom], x, y) {
  const dx = Math.min(1 - right, Math.max(-left, x));
  const dy = Math.min(1 - bottom, Math.max(-top, y));
  return /** @type {Sides} */ ([left + dx, top + dy, right + dx, bottom + dy].map(rounded));
}

/** The sheet over the picture that the boxes lie on. */
export class Sheet {
  constructor() {
    this.node = el("div", { class: "boxes" });
    /** @type {Set<Box>} */
    this.boxes = new Set();
    /** @type {Box | null} the box that a press beside all others draws anew */
    this.drawing = null;
    /** @type {{box: Box, from: [number, number], sides: Sides, way: "draw" | "move" | [number, number], put: boolean} | null} */
    this.drag = null;
    this.there = false;
    const { node } = this;
    node.addEventListener("pointerdown", (event) => this.#pressed(event));
    node.addEventListener("pointermove", (event) => this.#moved(event));
    node.addEventListener("pointerup", () => this.#ended(true));
    node.addEventListener("pointercancel", () => this.#ended(false));
  }

  /** Whether there is one picture to draw on. @param {boolean} there */
  over(there) {
    this.there = there;
    if (!there) this.draw(null);
    this.boxes.forEach((box) => box.tell());
  }

  /** Lets the next drag over the picture draw `box` anew; null: it does not. @param {Box | null} box */
  draw(box) {
    this.drawing = box;
    this.node.classList.toggle("drawing", box !== null);
    this.boxes.forEach((one) => one.tell());
  }

  /** A colour that no other box has. */
  colour() {
    const taken = [...this.boxes].map(({ colour }) => colour);
    const free = Array.from({ length: COLOURS }, (_, at) => at + 1).find((one) => !taken.includes(one));
    return free || (this.boxes.size % COLOURS) + 1;
  }

  /** @param {PointerEvent} event @returns {[number, number]} */
  #at(event) {
    const area = this.node.getBoundingClientRect();
    return [clamp((event.clientX - area.left) / area.width), clamp((event.clientY - area.top) / area.height)];
  }

  /** @param {PointerEvent} event */
  #pressed(event) {
    if (event.button !== 0 || this.drag) return;
    const target = /** @type {HTMLElement} */ (event.target);
    const held = [...this.boxes].find(({ node }) => node.contains(target));
    const box = held || this.drawing;
    if (!box) return;
    event.preventDefault();
    this.node.setPointerCapture(event.pointerId);
    const corner = CORNERS[target.dataset.corner || ""];
    this.drag = { box, from: this.#at(event), sides: box.placed() || MIDDLE, way: held ? corner || "move" : "draw", put: false };
    if (held) held.node.focus({ preventScroll: true });
  }

  /** @param {PointerEvent} event */
  #moved(event) {
    if (!this.drag) return;
    const { box, from, sides, way } = this.drag;
    const [x, y] = this.#at(event);
    if (way === "move") {
      this.drag.put = true;
      return box.put(moved(sides, x - from[0], y - from[1]));
    }
    const [[ax, ay], [bx, by]] = way === "draw" ? [from, [x, y]] : [[sides[2 - way[0]], sides[4 - way[1]]], [x, y]];
    if (Math.abs(ax - bx) < LEAST || Math.abs(ay - by) < LEAST) return;
    this.drag.put = true;
    box.put(/** @type {Sides} */ ([Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)].map(rounded)));
  }

  /** @param {boolean} kept */
  #ended(kept) {
    if (!this.drag) return;
    const { box, sides, put } = this.drag;
    this.drag = null;
    if (!put) return; // a press without a way
    if (!kept) box.put(sides);
    this.draw(null);
    box.changed();
    if (kept) announce(box.said());
  }
}

/** Where one look acts: everywhere, in a box, or where a mask of an earlier request is white. */
export class Box {
  /** @param {string} token @param {Sheet} sheet */
  constructor(token, sheet) {
    this.token = token;
    this.sheet = sheet;
    this.colour = 0;
    this.on = false;
    this.mask = "";
    this.inputs = SIDES.map(() => number({ class: "side", maxlength: 12, oninput: () => this.#show() }));
    this.node = el("div", { class: "box", tabindex: "0", role: "application", "aria-roledescription": "box of a look", onkeydown: (event) => this.#key(event) },
      el("span", { class: "boxname", "aria-hidden": "true" }, token),
      Object.keys(CORNERS).map((corner) => el("span", { class: `corner ${corner}`, "data-corner": corner, "aria-hidden": "true" })));
    this.drawButton = button("Draw on the picture", () => this.#draw(), "quiet small");
    /** What the form shows of it. */
    this.control = el("div", { class: "part" });
    this.tell();
  }

  /** Says to the form that it is another one. */
  changed() {
    this.control.dispatchEvent(new Event("change", { bubbles: true }));
  }

  /** The sides as numbers where they can be drawn, else null. @returns {Sides | null} */
  placed() {
    const sides = this.#written();
    return this.on && !sidesFault(sides).startsWith("Write") ? /** @type {Sides} */ (sides) : null;
  }

  /** The sides as they are written: shares, or what is no number. */
  #written() {
    return this.inputs.map((input) => {
      const written = figure(input.value);
      return typeof written === "number" ? Number((written / 100).toFixed(10)) : written;
    });
  }

  /** What goes into the request. @returns {{box?: unknown[], mask?: string}} */
  value() {
    if (this.mask) return { mask: this.mask };
    return this.on ? { box: this.#written().map((side) => side ?? "") } : {};
  }

  /** What is wrong with it; empty if nothing is. */
  fault() {
    return this.on ? sidesFault(this.#written()) : "";
  }

  /** Takes what an earlier request or a draft had. @param {{box?: any, mask?: any}} use */
  take({ box, mask }) {
    this.mask = mask || "";
    this.on = Array.isArray(box);
    if (this.on) this.inputs.forEach((input, side) => { input.value = typeof box[side] === "number" ? exactly(box[side]) : box[side]; });
    this.tell();
  }

  /** @param {Sides} sides */
  put(sides) {
    this.inputs.forEach((input, side) => { input.value = percent(sides[side]); });
    this.#show();
  }

  /** The box in words. */
  said() {
    const sides = this.placed();
    if (!sides) return `Where ${this.token} acts`;
    const [left, top, right, bottom] = sides.map(percent);
    return `${this.token} acts from ${left} to ${right} percent across and ${top} to ${bottom} percent down`;
  }

  /** Shows what there is: a button, the numbers of a box, or the mask. */
  tell() {
    if (this.on) {
      if (!this.colour) this.colour = this.sheet.colour();
      this.sheet.boxes.add(this);
    } else {
      this.colour = 0;
      this.sheet.boxes.delete(this);
      if (this.sheet.drawing === this) this.sheet.draw(null);
    }
    const kind = this.on ? "box" : this.mask ? "mask" : "none";
    if (this.kind !== kind) this.#fill(kind);
    this.kind = kind;
    this.drawButton.toggleAttribute("disabled", !this.sheet.there);
    this.drawButton.setAttribute("aria-pressed", String(this.sheet.drawing === this));
    this.node.classList.toggle("drawn", this.sheet.drawing === this);
    this.#show();
  }

  /** @param {string} kind */
  #fill(kind) {
    if (kind === "none") return fill(this.control, button("Only in a part of the picture", () => this.#begin(), "quiet small"));
    const remove = button(`Remove the ${kind}`, () => this.remove(), "quiet small");
    if (kind === "mask") return fill(this.control, el("p", {}, "It acts where the mask of the earlier request is white."), remove);
    fill(this.control,
      el("div", { class: "sides" }, this.inputs.map((input, side) => {
        input.id ||= uid("side");
        return el("span", {}, el("label", { for: input.id }, SIDES[side]), input);
      })),
      el("p", { class: "hint" }, "Percent of the picture's width and height, from its upper left corner."),
      el("div", { class: "row" }, el("span", { class: `swatch look-${this.colour}`, "aria-hidden": "true" }), this.drawButton, remove));
  }

  /** Shows the rectangle on the picture. */
  #show() {
    const sides = this.placed();
    if (!sides) return this.node.remove();
    const [left, top, right, bottom] = sides;
    const share = (value) => `${Math.max(0, value) * 100}%`;
    Object.assign(this.node.style, { left: share(left), top: share(top), width: share(right - left), height: share(bottom - top) });
    for (let colour = 1; colour <= COLOURS; colour++) this.node.classList.toggle(`look-${colour}`, colour === this.colour);
    this.node.setAttribute("aria-label", `${this.said()}. Arrow keys move the box, Shift and arrow keys change its size, Delete removes it.`);
    if (!this.node.isConnected || this.node.parentElement !== this.sheet.node) add(this.sheet.node, this.node);
  }

  #begin() {
    this.on = true;
    this.put(MIDDLE);
    this.tell();
    this.changed();
    if (this.sheet.there) this.sheet.draw(this);
    this.inputs[0].focus();
    announce(`${this.said()}. Draw on the picture, or write other numbers.`);
  }

  #draw() {
    this.sheet.draw(this.sheet.drawing === this ? null : this);
  }

  /** Lets the look act everywhere. */
  remove() {
    this.on = false;
    this.mask = "";
    this.tell();
    this.changed();
    announce(`${this.token} acts in all of the picture`);
    this.control.querySelector("button")?.focus();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const ways = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
    const sides = this.placed();
    if (event.ctrlKey || event.metaKey || event.altKey || !sides) return;
    if (event.key === "Delete" || event.key === "Backspace") this.remove();
    else if (event.key in ways) {
      const [x, y] = ways[event.key];
      const [left, top, right, bottom] = sides;
      const larger = /** @type {Sides} */ ([left, top, clamp(Math.max(left + LEAST, right + x)), clamp(Math.max(top + LEAST, bottom + y))].map(rounded));
      this.put(event.shiftKey ? larger : moved(sides, x, y));
      this.changed();
      announce(this.said());
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
