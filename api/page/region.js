// Where an edit may change the picture: found from the words, painted, or everywhere.

import { api } from "./client.js";
import { Brush } from "./brush.js";
import { announce, button, el, fill, uid } from "./dom.js";
import { complain, text, words } from "./fields.js";
import { maskSource } from "./mask.js";
import { stored } from "./pictures.js";
import { hint } from "./schema.js";
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

/** Without words of what it shows, which other methods need. */
const UNSAID = "Without words of what the picture shows, all of it may change.";

/** The picture that is edited, with the region on it. */
export class Region {
  /** @param {import("./fields.js").Fields} fields @param {HTMLElement} boxes what lies over the picture beside the brush */
  constructor(fields, boxes) {
    this.fields = fields;
    this.boxes = boxes;
    this.mode = "words";
    this.method = "";
    /** @type {Start | null} */
    this.start = null;
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
    this.mode = mode;
    /** @type {HTMLInputElement} */ (this.radios.get(mode)).checked = true;
    this.#explain();
    this.wordsField.hidden = mode !== "words";
    this.paint.hidden = mode !== "painted";
    this.brush.surface.hidden = mode !== "painted";
    this.stage.classList.toggle("painting", mode === "painted");
  }

  #explain() {
    const about = MODES.find(([name]) => name === this.mode)?.[2] || "";
    this.explained.textContent = this.mode === "words" && this.method === "sdedit" ? `${about} ${UNSAID}` : about;
  }

  /** Shows what holds for `method`. @param {string} method */
  follow(method) {
    this.method = method;
    this.#explain();
  }

  /** Shows the picture under the brush; null for none, and for several. @param {import("./pictures.js").Item | null} item */
  show(item) {
    this.item = item;
    this.stage.hidden = !item;
    if (!item) return fill(this.stage);
    if (this.shown === item.url && this.stage.firstChild) return;
    this.shown = item.url;
    const renew = async () => (item.id ? (await pictureItem(item.id)).url : null);
    const image = stored(item.url, "The picture to edit", renew);
    image.addEventListener("load", () => { if (this.item?.url === item.url) this.brush.fit(image.naturalWidth, image.naturalHeight); });
    fill(this.stage, image, this.brush.surface, this.boxes);
  }

  /** Begins the brush from a mask. @param {Start | null} start @param {import("./mask.js").Action[]} [actions] */
  async begin(start, actions = []) {
    this.start = start;
    const pixels = start && (await ("job" in start ? api.maskFile(start.job).then((file) => maskSource(file))
      : api.imageFile(start.image).then((file) => maskSource(file, start.marks))));
    if (this.start === start) this.brush.begin(pixels, actions); // else another one was begun meanwhile
  }

  async #take(file) {
    try {
      const image = await api.upload(file);
      this.brush.begin(await maskSource(file));
      this.start = { image: image.id };
      this.#changed();
      announce("The mask is loaded; it can be painted on");
    } catch (error) {
      complain(this.wrong, error);
    }
  }

  fault() {
    if (this.mode !== "painted") return "";
    return this.item ? this.brush.fault() : "A painted region goes with one picture: choose one, or another kind of region.";
  }

  /** What goes into the request, with what belongs to the method's settings; sends the mask. @returns {Promise<{mask?: string, mask_marks?: string, settings: Record<string, any>}>} */
  async values() {
    if (this.mode !== "painted") return { settings: this.planned() };
    const { start, brush } = this;
    const stored = this.stored();
    if (stored.mask) return { ...stored, settings: {} };
    const of = JSON.stringify([start, brush.actions, brush.picture]);
    if (this.sent.of !== of) {
      const file = await /** @type {import("./mask.js").MaskPixels} */ (brush.pixels).file();
      this.sent = { of, id: (await api.upload(file)).id };
    }
    return { mask: this.sent.id, settings: {} };
  }

  /** The mask that the service has already, as long as nothing is painted on it. @returns {{mask?: string, mask_marks?: string}} */
  stored() {
    const { start, brush, mode } = this;
    return mode === "painted" && start && "image" in start && !brush.actions.length ? { mask: start.image, mask_marks: start.marks } : {};
  }

  /** What it adds to the method's settings; a mask that is not sent yet is left out, as a dry run needs it. */
  planned() {
    if (this.mode === "everywhere") return { blend_over: "none" };
    return this.mode === "words" ? { blend_words: words(this.words.value) } : {};
  }

  /** What a draft keeps. */
  kept() {
    return { mode: this.mode, words: this.words.value, start: this.start, actions: this.brush.actions };
  }

  /** Shows again what a draft kept. */
  async restore({ mode, words: written, start, actions }) {
    this.words.value = written || "";
    this.choose(mode || "words");
    await this.begin(start || null, actions || []).catch((error) => complain(this.wrong, error));
  }

  /** Fills in what an earlier request had. @param {any} request */
  async take(request) {
    const settings = request[request.method || "p2p"];
    this.words.value = (settings?.blend_words || []).join(", ");
    // runs of earlier versions: there SDEdit found no region, and had no settings
    const free = settings?.blend_over === "none" || (request.method === "sdedit" && request.source_prompt && !settings);
    this.choose(request.mask ? "painted" : free ? "everywhere" : "words");
    const marks = request.mask_marks === "white" ? undefined : request.mask_marks;
    await this.begin(request.mask ? { image: request.mask, marks } : null).catch((error) => complain(this.wrong, error));
  }

  /** Fills in the region that a preset holds, which has no mask; without one all stays as it is. @param {any} settings */
  apply(settings) {
    const { blend_over: over, blend_words: written = [] } = settings[settings.method || "p2p"] || {};
    if (written.length) this.words.value = written.join(", ");
    if (over === "none") this.choose("everywhere");
    else if (written.length || over === "source" || over === "union") this.choose("words");
  }
}
