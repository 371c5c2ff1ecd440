// The way from an upload to a picture that was continued from it: steps to go back to, and forward again.

import { api, isMissing, unlessDeleted } from "./client.js";
import { el, fill } from "./dom.js";
import { imageItem, stored } from "./pictures.js";
import { plain } from "./prompts.js";
import { ancestors, outputItem, parentOf, pictureItem } from "./versions.js";

/**
 * A step. words: what its picture shows; name: of its button; title: what the button does.
 * @typedef {{item: import("./pictures.js").Item, words: string, name: string, title: string}} Step
 */

/** The steps, of which the picture that is edited is one. They stay as long as it is. */
export class Trail {
  /** @param {(to: Step, from: Step) => void} go takes the picture of a step in place of another's @param {AbortSignal} signal */
  constructor(go, signal) {
    this.go = go;
    this.signal = signal;
    this.node = el("div", {});
    /** @type {Step[]} */
    this.steps = [];
    /** @type {import("./pictures.js").Item["from"]} the output at its end */
    this.end = null;
    this.at = ""; // the id of the picture that is edited
    this.turn = 0;
    this.loading = false;
  }

  /** Shows where a picture is on the way; of one that is not on it, its own. @param {import("./pictures.js").Item | null} item */
  show(item) {
    const before = this.at;
    this.at = item?.id || "";
    if (before === this.at) return;
    if (this.#current()) this.#draw();
    else if (item?.from) this.lead(item.from);
    else if (!this.loading) this.clear();
  }

  /**
   * Fetches the way to an output; it is shown if the picture that is edited is on it. A draft keeps the end from now on:
   * the way may come late, or not at all this time.
   * @param {{job: string, output: number}} end
   */
  async lead(end) {
    const mine = ++this.turn;
    this.end = end;
    this.steps = [];
    this.loading = true;
    /** @type {Step[] | null} null: not this time; the form works without */
    const steps = await way(end, this.signal).catch((error) => (isMissing(error) ? [] : null));
    if (mine !== this.turn || this.signal.aborted) return;
    this.loading = false;
    if (steps) this.steps = steps;
    if (this.#current()) this.#draw();
    else if (steps) this.clear();
    else fill(this.node);
  }

  #current() {
    return this.steps.find(({ item }) => item.id === this.at);
  }

  /** Forgets the way. */
  clear() {
    this.turn++;
    this.loading = false;
    this.steps = [];
    this.end = null;
    fill(this.node);
  }

  #draw() {
    const current = this.#current();
    const had = this.node.contains(document.activeElement);
    fill(this.node, el("ol", { class: "trail", "aria-label": "Versions of this picture" }, this.steps.map((step) => el("li", {},
      el("button", {
        type: "button", class: "step", title: step === current ? "The picture that is edited" : step.title,
        "aria-current": step === current ? "step" : null, onclick: () => { if (current && step !== current) this.go(step, current); },
      }, stored(step.item.url, "", async () => (await pictureItem(step.item.id)).url, { class: "thumb" }), step.name)))));
    if (had) /** @type {HTMLElement | null} */ (this.node.querySelector("[aria-current]"))?.focus();
  }
}

/** The steps from the upload to an output; without the upload where it is deleted. @param {{job: string, output: number}} end @returns {Promise<Step[]>} */
async function way(end, signal) {
  const line = await ancestors(await api.job(end.job, signal), signal);
  const upload = await unlessDeleted(api.image(line[0].request.image, signal));
  const outputs = line.map((_, at) => (at + 1 < line.length ? parentOf(line[at + 1])?.output ?? 0 : end.output));
  const versions = line.map((job, at) => ({
    item: outputItem(job, outputs[at]), words: plain(job.request.target_prompt || ""),
    name: `Version ${at + 1}`, title: `Go to ${job.request.target_prompt}`,
  }));
  const first = upload && { item: imageItem(upload), words: line[0].request.source_prompt || "", name: "Upload", title: "Go back to the upload" };
  return [...(first ? [first] : []), ...versions];
}
