// What a request would do, asked while the form is filled in: the base, sizes, time, warnings.

import { api, Problem } from "./client.js";
import { el, fill } from "./dom.js";
import { behind, forecast } from "./progress.js";

const PAUSE_MS = 700;

/**
 * @typedef {{path: string, body: any, partial?: boolean}} Asked
 * partial: the words are still missing, so only base and sizes are told
 */

/** The box that tells what a form's request would do. Nothing is stored. */
export class Plan {
  /** @param {() => Asked | null} asked what to ask for now; null while too little is filled in @param {AbortSignal} signal */
  constructor(asked, signal) {
    this.asked = asked;
    this.signal = signal;
    this.last = "";
    this.turn = 0;
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
      if (mine === this.turn) fill(this.node, ...told(found, asked.partial));
    } catch (error) {
      if (this.signal.aborted || mine !== this.turn) return;
      const why = error instanceof Problem && error.status === 422 && !asked.partial && (error.errors[0]?.problem || error.detail);
      fill(this.node, why && el("p", {}, `As it stands it would be refused: ${why}`)); // the form tells it where it is sent
    }
  }
}

const by = ([width, height]) => `${width} × ${height}`;

/** @param {any} found a dry run */
function told({ plan, estimate, queue_position: ahead, warnings }, partial = false) {
  const { base, size, working_size: working } = plan;
  const scaled = size && working && (size[0] !== working[0] || size[1] !== working[1]);
  const larger = scaled && size[0] * size[1] > working[0] * working[1];
  return [
    base && el("p", {}, el("strong", {}, base.name), ` draws, made for pictures of ${by([base.side, base.side])} pixels.`),
    scaled && el("p", { class: larger ? "warning" : "" }, larger
      ? `The picture has ${by(size)} pixels. It is reduced to ${by(working)} to be drawn, and the result is enlarged again: fine detail comes from the base.`
      : `The picture has ${by(size)} pixels and is drawn at ${by(working)}.`),
    !partial && [
      el("p", {}, [behind(ahead), estimate.workers > 0 && forecast(estimate)].filter(Boolean).join(" ")),
      plan.region_words?.length > 0 && el("p", {}, `What may change: the region of ${plan.region_words.join(", ")}.`),
      plan.training?.steps && el("p", {}, `${plan.training.steps} steps of training.`),
      warnings.map((text) => el("p", { class: "warning" }, text)),
    ],
  ];
}
