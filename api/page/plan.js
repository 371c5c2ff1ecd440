// What a request would do, asked while the form is filled in: the base, sizes, time, warnings.

import { api, Problem } from "./client.js";
import { el, fill } from "./dom.js";
import { behind, forecast } from "./progress.js";

const PAUSE_MS = 700;
const MOST_SIZES = 12; // that are asked for at once: each is a request

/** A request that is complete but for its words, to ask which base and size. @param {string} image */
export const sizeRequest = (image) => ({ image, target_prompt: "a photo", method: "sdedit" });

/**
 * A picture of a batch, with its size as far as it is known.
 * @typedef {{id: string, width?: number, height?: number}} Sized
 */
/**
 * @typedef {{path: string, body: any, partial?: boolean, pictures?: Sized[]}} Asked
 * partial: the words are still missing, so only base and sizes are told; pictures: all those of a batch, of which the body
 * has the first
 */

/** The box that tells what a form's request would do. Nothing is stored. */
export class Plan {
  /** @param {() => Asked | null} asked what to ask for now; null while too little is filled in @param {AbortSignal} signal */
  constructor(asked, signal) {
    this.asked = asked;
    this.signal = signal;
    this.last = "";
    this.turn = 0;
    this.base = ""; // whose sizes are known
    /** @type {Map<string, keyof Sizes>} */
    this.sizes = new Map();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.node = el("div", { class: "plan", role: "status", "aria-label": "What this would do" });
    signal.addEventListener("abort", () => clearTimeout(this.timer));
  }

  /** Asks a moment after the last call, if what is asked for is new. */
  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#ask(), PAUSE_MS);
  }

  async #ask() {
    const asked = this.asked();
    const text = JSON.stringify(asked);
    if (text === this.last) return;
    this.last = text;
    const mine = ++this.turn;
    if (!asked) return fill(this.node);
    try {
      const found = await api.dryRun(asked.path, asked.body, this.signal);
      const sizes = asked.pictures ? await this.#sizes(asked.pictures, found.plan, mine) : null;
      if (mine === this.turn) fill(this.node, ...told(found, asked.partial, sizes));
    } catch (error) {
      if (this.signal.aborted || mine !== this.turn) return;
      const refused = error instanceof Problem && error.status === 422;
      if (!refused) this.last = ""; // not answered: the next call asks again
      const why = refused && !asked.partial && (error.errors[0]?.problem || error.detail);
      fill(this.node, why && el("p", {}, `As it stands it would be refused: ${why}`)); // the form tells it where it is sent
    }
  }

  /**
   * How the pictures of a batch are scaled: the service knows, and is asked once for each size.
   * @param {Sized[]} pictures @param {any} plan of the first @param {number} mine the turn
   * @returns {Promise<Sizes>}
   */
  async #sizes(pictures, plan, mine) {
    const base = JSON.stringify(plan.base);
    if (base !== this.base) this.sizes.clear();
    this.base = base;
    const counts = { same: 0, reduced: 0, other: 0, unknown: 0 };
    const note = (of) => { if (scaling(of) !== "unknown") this.sizes.set(`${of.size}`, scaling(of)); };
    note(plan);
    let asked = 0;
    for (const { id, width, height } of pictures) {
      const size = `${width},${height}`;
      if (plan.base && !this.sizes.has(size) && mine === this.turn && asked++ < MOST_SIZES) {
        await api.dryRun("v1/edits", sizeRequest(id), this.signal).then((found) => note(found.plan), () => {}); // one that is unknown is counted as such
      }
      counts[this.sizes.get(size) || "unknown"]++;
    }
    return counts;
  }
}

/** @typedef {{same: number, reduced: number, other: number, unknown: number}} Sizes how many pictures of a batch are scaled how */

/** Whether a picture is drawn at another size than it has, and whether at a smaller one. @param {any} plan @returns {keyof Sizes} */
function scaling({ size, working_size: working }) {
  if (!size || !working) return "unknown";
  if (size[0] === working[0] && size[1] === working[1]) return "same";
  return size[0] * size[1] > working[0] * working[1] ? "reduced" : "other";
}

const by = ([width, height]) => `${width} × ${height}`;

/** How many pictures of a batch are drawn at another size. @param {Sizes} sizes */
function toldOfMany(sizes) {
  const { same, reduced, other, unknown } = sizes;
  const of = (count) => `${unknown ? "At least " : ""}${count} of ${same + reduced + other + unknown} pictures ${count === 1 ? "is" : "are"}`;
  return [
    reduced > 0 && el("p", { class: "warning" }, `${of(reduced)} reduced to be drawn, and the result is enlarged again: fine detail comes from the base.`),
    other > 0 && el("p", {}, `${of(other)} drawn at another size.`),
  ];
}

/** How the picture is drawn at another size. @param {any} plan */
function toldOfOne(plan) {
  const { size, working_size: working } = plan;
  const kind = scaling(plan);
  if (kind === "reduced") return el("p", { class: "warning" }, `The picture has ${by(size)} pixels. It is reduced to ${by(working)} to be drawn, and the result is enlarged again: fine detail comes from the base.`);
  return kind === "other" && el("p", {}, `The picture has ${by(size)} pixels and is drawn at ${by(working)}.`);
}

/** What a dry run warns of the size: it is told in other words here, and for all pictures of a batch. */
const OF_SIZE = /^The picture of \d+ x \d+ pixels is drawn at /;

/** @param {any} found a dry run @param {boolean} [partial] @param {Sizes | null} [sizes] of a batch */
function told({ plan, estimate, queue_position: ahead, warnings }, partial = false, sizes = null) {
  const { base } = plan;
  return [
    base && el("p", {}, el("strong", {}, base.name), ` draws, made for pictures of ${by([base.side, base.side])} pixels.`),
    sizes ? toldOfMany(sizes) : toldOfOne(plan),
    !partial && [
      el("p", {}, [behind(ahead), estimate.workers > 0 && forecast(estimate)].filter(Boolean).join(" ")),
      plan.region_words?.length > 0 && el("p", {}, `What may change: the region of ${plan.region_words.join(", ")}.`),
      plan.training?.steps && el("p", {}, `${plan.training.steps} steps of training.`),
      warnings.filter((text) => !OF_SIZE.test(text)).map((text) => el("p", { class: "warning" }, text)),
    ],
  ];
}
