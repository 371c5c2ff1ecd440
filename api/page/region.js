// Where an edit may change the picture: found from the words, painted, or everywhere.

import { api, isMissing, oneKey } from "./client.js";
import { Brush } from "./brush.js";
import { add, announce, button, el, fill, uid } from "./dom.js";
import { complain, notice, text, words } from "./fields.js";
import { maskSource } from "./mask.js";
import { stored } from "./pictures.js";
import { hint, names } from "./schema.js";
import { can } from "./session.js";
import { pictureItem } from "./versions.js";

/** @type {[string, string, string][]} */
const MODES = [
  ["words", "From the words", "The service finds the region of the words that change."],
  ["painted", "Painted", "Paint over the picture; the rest stays as it is."],
  ["everywhere", "Everywhere", "All of the picture may change."],
];

/**
 * Where a mask begins: a mask that was uploaded, with what in it marks the region where that is not white, or the
 * region that a job found.
 * @typedef {{image: string, marks?: string} | {job: string}} Start
 */

/** The pixels of a mask. @param {Start} start */
async function pixelsOf(start) {
  if ("job" in start) return maskSource(await api.maskFile(start.job));
  return maskSource(await api.imageFile(start.image), start.marks);
}

const finds = (method) => names("EditRequest", method).includes("blend_words");

/** The picture that is edited, with the region on it. */
export class Region {
  /**
   * @param {import("./fields.js").Fields} fields @param {HTMLElement} boxes what lies over the picture beside the brush
   * @param {AbortSignal} signal the view's end
   */
  constructor(fields, boxes, signal) {
    this.fields = fields;
    this.boxes = boxes;
    this.signal = signal;
    this.mode = "words";
    this.wanted = "words"; // what was chosen: it is back with a method that has it
    /** @type {Start | null} */
    this.start = null;
    /** @type {import("./mask.js").Action[] | null} what was painted on a mask that the service has not given yet */
    this.late = null;
    this.turn = 0; // of the masks that the brush begins from
    this.sent = { of: "", id: "" };
    this.brush = new Brush(() => this.#changed());
    this.words = text();
    this.stage = el("div", { class: "stage" });
    this.wrong = el("div", { hidden: true });
    this.explained = el("p", { class: "hint" });
    const name = uid("region");
    this.radios = new Map(MODES.map(([mode]) => [mode, el("input", {
      type: "radio", name, value: mode, checked: mode === this.mode, class: "unseen", onchange: () => this.choose(mode),
    })]));
    this.file = el("input", {
      type: "file", accept: "image/png,image/jpeg,image/webp", class: "unseen", tabindex: "-1", "aria-label": "A mask picture",
      onchange: () => { const [file] = this.file.files || []; this.file.value = ""; if (file) this.#take(file); },
    });
    this.wordsField = fields.add("blend_words", "Words of the region", this.words, hint("EditRequest", "p2p.blend_words"));
    this.paint = el("div", {}, this.brush.tools, el("p", { class: "row" },
      can("images:write") && [button("Load a mask picture", () => this.file.click(), "quiet small"), this.file]), this.wrong);
    this.choice = el("div", {},
      el("div", { class: "switch wide" }, MODES.map(([mode, title]) =>
        el("label", { class: "tool" }, /** @type {HTMLElement} */ (this.radios.get(mode)), title))),
      this.explained, this.wordsField, this.paint);
    this.node = fields.group("mask", "Where it may change", this.choice, "", () => this.fault());
    this.choose("words");
  }

  #changed() {
    this.choice.dispatchEvent(new Event("change", { bubbles: true }));
  }

  /** @param {string} mode */
  choose(mode) {
    this.wanted = mode;
    this.#show(mode);
  }

  #show(mode) {
    this.mode = mode;
    /** @type {HTMLInputElement} */ (this.radios.get(mode)).checked = true;
    this.explained.textContent = MODES.find(([name]) => name === mode)?.[2] || "";
    this.wordsField.hidden = mode !== "words";
    this.paint.hidden = mode !== "painted";
    const paints = mode === "painted" && !this.late;
    this.brush.surface.hidden = !paints;
    this.brush.tools.hidden = Boolean(this.late);
    this.stage.classList.toggle("painting", paints);
  }

  /** Shows what `method` has: SDEdit finds no region by itself. @param {string} method */
  follow(method) {
    /** @type {HTMLElement} */ (this.radios.get("words")?.parentElement).hidden = !finds(method);
    const mode = this.wanted === "words" && !finds(method) ? "everywhere" : this.wanted;
    if (mode !== this.mode) this.#show(mode);
  }

  /** Shows the picture under the brush; null for none, and for several. @param {import("./pictures.js").Item | null} item */
  show(item) {
    this.item = item;
    this.stage.hidden = !item?.url;
    if (!item?.url) return fill(this.stage);
    if (this.shown === item.url && this.stage.firstChild) return;
    this.shown = item.url;
    const renew = async () => (item.id ? (await pictureItem(item.id)).url : null);
    const image = stored(item.url, "The picture to edit", renew);
    image.addEventListener("load", () => { if (this.item?.url === item.url) this.brush.fit(image.naturalWidth, image.naturalHeight); });
    fill(this.stage, image, this.brush.surface, this.boxes);
  }

  /**
   * Begins the brush from a mask. One that does not come is told, and kept with what was painted on it; one that was
   * deleted is told, and left out.
   * @param {Start | null} start @param {import("./mask.js").Action[]} [actions]
   */
  async begin(start, actions = []) {
    const mine = ++this.turn;
    this.wrong.hidden = true;
    this.start = start;
    this.late = start && actions;
    try {
      const pixels = start && (await pixelsOf(start));
      if (mine === this.turn) this.#begun(pixels, actions); // else another one was begun meanwhile
    } catch (error) {
      if (mine !== this.turn) return;
      if (isMissing(error)) {
        this.start = null;
        this.#begun(null, actions);
        fill(this.wrong, el("p", { class: "warning" }, "The mask was deleted meanwhile. What was painted on it stays."));
        this.wrong.hidden = false;
        return;
      }
      this.#show(this.mode);
      const again = () => this.begin(start, actions).then(() => this.brush.surface.focus()); // the button is gone
      const leave = () => { this.begin(null); this.#changed(); };
      fill(this.wrong, notice(error, button("Load the mask again", again, "small"), button("Leave the mask out", leave, "quiet small")));
      this.wrong.hidden = false;
    }
  }

  /** @param {HTMLCanvasElement | null} pixels @param {import("./mask.js").Action[]} [actions] */
  #begun(pixels, actions = []) {
    this.late = null;
    this.brush.begin(pixels, actions);
    this.#show(this.mode);
  }

  /** Begins from a picture of a mask. @param {File} file */
  async #take(file) {
    if (this.signal.aborted) return; // the dialog of files was open behind the view
    const mine = ++this.turn;
    if (!this.late) this.wrong.hidden = true;
    try {
      const image = await api.upload(file);
      const pixels = await maskSource(file);
      if (mine !== this.turn) return; // the form was emptied, or another mask was begun meanwhile
      this.start = { image: image.id };
      this.wrong.hidden = true;
      this.#begun(pixels);
      this.#changed();
      announce("The mask is loaded; it can be painted on");
    } catch (error) {
      if (mine !== this.turn) return;
      if (this.late) add(this.wrong, notice(error)); // beside what mends the mask of before
      else complain(this.wrong, error);
    }
  }

  fault() {
    if (this.mode !== "painted") return "";
    if (!this.item) return "A painted region goes with one picture: choose one, or another kind of region.";
    if (!this.late) return this.brush.fault();
    return this.stored().mask ? "" : "The mask was not loaded: load it again, or leave it out.";
  }

  /** What goes into the request, with what belongs to the method's settings; sends the mask. @returns {Promise<{mask?: string, mask_marks?: string, settings: Record<string, any>}>} */
  async values() {
    if (this.mode !== "painted") return { settings: this.planned() };
    const { start, brush } = this;
    const stored = this.stored();
    if (stored.mask) return { ...stored, settings: {} };
    const of = JSON.stringify([start, brush.actions, brush.picture]);
    if (this.sent.of !== of) {
      const check = oneKey();
      const file = await /** @type {import("./mask.js").MaskPixels} */ (brush.pixels).file();
      check();
      this.sent = { of, id: (await api.upload(file)).id };
    }
    return { mask: this.sent.id, settings: {} };
  }

  /** The mask that the service has already, as long as nothing is painted on it. @returns {{mask?: string, mask_marks?: string}} */
  stored() {
    const { start, mode } = this;
    return mode === "painted" && start && "image" in start && !this.#actions().length ? { mask: start.image, mask_marks: start.marks } : {};
  }

  /** What is painted on the mask that the brush begins from. */
  #actions() {
    return this.late || this.brush.actions;
  }

  /** What it adds to the method's settings; a mask that is not sent yet is left out, as a dry run needs it. */
  planned() {
    if (this.mode === "everywhere") return { blend_over: "none" };
    return this.mode === "words" ? { blend_words: words(this.words.value) } : {};
  }

  /** What a draft keeps. */
  kept() {
    return { mode: this.wanted, words: this.words.value, start: this.start, actions: this.#actions() };
  }

  /** Shows again what a draft kept. */
  async restore({ mode, words: written, start, actions }) {
    this.words.value = written || "";
    this.choose(mode || "words");
    await this.begin(start || null, actions || []);
  }

  /** Fills in what an earlier request had. @param {any} request */
  async take(request) {
    const settings = request[request.method || "p2p"];
    this.words.value = (settings?.blend_words || []).join(", ");
    this.choose(request.mask ? "painted" : settings?.blend_over === "none" ? "everywhere" : "words");
    const marks = request.mask_marks === "white" ? undefined : request.mask_marks;
    await this.begin(request.mask ? { image: request.mask, marks } : null);
  }

  /** Fills in the region that a preset holds, which has no mask; without one all stays as it is. @param {any} settings */
  apply(settings) {
    const { blend_over: over, blend_words: written = [] } = settings[settings.method || "p2p"] || {};
    if (written.length) this.words.value = written.join(", ");
    if (over === "none") this.choose("everywhere");
    else if (written.length || over === "source" || over === "union") this.choose("words");
  }
}
