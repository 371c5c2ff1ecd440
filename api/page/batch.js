// A batch: many pictures edited in one way, each of them a job.

import { api, isMissing, lane } from "./client.js";
import { add, announce, button, confirmed, el, fill } from "./dom.js";
import { complain, complaining } from "./fields.js";
import { stored } from "./pictures.js";
import { far, forecast, jobBadge, stuck, withStep } from "./progress.js";
import { can } from "./session.js";
import { bestOutput, continueAddress, pictureItem } from "./versions.js";
import { badge, finished, when } from "./words.js";

const EVERY_MS = 3000;

/** @param {HTMLElement} main @param {{id: string, signal: AbortSignal}} given */
export async function batchView(main, { id, signal }) {
  const head = el("div", { class: "head" });
  const wrong = el("div", { hidden: true });
  const bar = el("progress", { max: 1, value: 0, "aria-label": "Progress of the batch" });
  const said = el("p", { role: "status" });
  const list = el("ul", { class: "gallery", "aria-label": "Pictures of the batch" });
  const title = el("h1", { tabindex: "-1" }, "Batch");
  add(main, el("p", {}, el("a", { href: "#/jobs" }, "← All jobs")), title, head, wrong,
    el("section", { class: "card", "aria-label": "Progress" }, bar, said), list);
  /** @type {Map<string, Tile>} */
  const tiles = new Map();
  const inLane = lane(); // of the pictures that wait for their turn
  let batch = await api.batch(id, signal);
  const act = (work) => complaining(wrong, work);
  const cancel = act(async () => { batch = await api.cancelBatch(id); show(); announce("The batch is cancelled"); });
  const remove = act(async () => {
    if (!(await confirmed("Delete this batch?", "Its jobs and all of their pictures go.", "Delete"))) return;
    await api.removeBatch(id);
    announce("The batch is deleted");
    if (!signal.aborted) location.hash = "#/jobs";
  });
  const show = () => {
    const { state, counts, progress, request, estimate, jobs } = batch;
    title.textContent = request.target_prompt || "Batch";
    document.title = `${state === "finished" ? "✓" : `${Math.round(progress * 100)} %`} ${title.textContent} · Custom-Edit`;
    bar.value = progress;
    const told = Object.entries(counts).filter(([, count]) => count).map(([name, count]) => `${count} ${name}`).join(", ");
    said.textContent = `${told}. ${state === "finished" ? "" : forecast(estimate)}`;
    const open = jobs.filter((job) => !finished(job));
    const cancelled = open.length > 0 && open.every(({ cancel_requested }) => cancel_requested);
    const stands = `${state} ${stuck(batch)} ${cancelled}`;
    said.classList.toggle("warning", stuck(batch));
    if (head.dataset.stands !== stands) {
      head.dataset.stands = stands;
      const had = head.contains(document.activeElement);
      fill(head, el("p", { class: "row" }, state === "finished" ? badge("succeeded") : jobBadge(batch, null), `${jobs.length} pictures`, when(batch.created_at)),
        can("edits:write") && el("p", { class: "row" }, state === "finished" ? button("Delete", remove, "danger small")
          : cancelled ? el("span", { class: "faint" }, "Cancelling…") : button("Cancel", cancel, "danger small")));
      if (had) /** @type {HTMLElement} */ (head.querySelector("button") || title).focus();
    }
    for (const job of jobs) {
      const tile = tiles.get(job.id) || new Tile(inLane, signal);
      if (!tiles.has(job.id)) list.append(tile.node);
      tiles.set(job.id, tile);
      tile.show(job);
    }
  };
  show();
  const timer = setInterval(async () => {
    if (document.hidden || batch.state === "finished") return;
    try {
      batch = await api.batch(id, signal);
      wrong.hidden = true;
      show();
    } catch (error) {
      if (!signal.aborted) complain(wrong, error); // asked again the next time
    }
  }, EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

/** A picture of the batch. Its link and its picture stay where they are while what is said of it changes. */
class Tile {
  /** @param {ReturnType<typeof lane>} inLane @param {AbortSignal} signal the view's end */
  constructor(inLane, signal) {
    this.inLane = inLane;
    this.signal = signal;
    this.link = el("a", {});
    this.node = el("li", { class: "tile" }, this.link);
    this.said = ""; // what is said by now, to tell whether something changed
    this.seen = ""; // "best", "source" or "gone", which it does not come back from
    /** @type {any} */
    this.job = null;
  }

  /** Shows how it stands. @param {any} job */
  show(job) {
    this.job = withStep(job, this.job);
    const said = JSON.stringify([job.state, job.progress?.phase, job.progress?.step, job.estimate?.workers]);
    if (this.said === said) {
      const told = this.node.querySelector(".far");
      if (told) told.textContent = far(job); // its end comes nearer within a step
      return;
    }
    this.said = said;
    this.#picture();
    this.#tell();
  }

  /** Its best output, or the source while there is none. */
  #picture() {
    const { job, link } = this;
    const alt = `See ${job.request.target_prompt}`;
    link.href = `#/jobs/${job.id}`;
    link.setAttribute("aria-label", alt); // named before its picture has come
    const best = job.result && job.result.outputs[bestOutput(job)];
    if (best && this.seen !== "best") {
      this.seen = "best";
      fill(link, stored(best.url, alt, async () => (await api.job(job.id)).result.outputs[bestOutput(job)].url));
    } else if (!this.seen) this.#source(job.request.image, alt);
  }

  /** Asks for the source; one that does not come is asked for with the next step. */
  async #source(image, alt) {
    const find = () => this.inLane(() => pictureItem(image, this.signal));
    this.seen = "source";
    try {
      const { url } = await find();
      if (this.seen === "source") fill(this.link, stored(url, alt, async () => (await find()).url, { class: "waiting" }));
    } catch (error) {
      if (this.seen !== "source") return;
      this.seen = isMissing(error) ? "gone" : "";
      fill(this.link, alt);
    }
  }

  #tell() {
    const { job, link, node } = this;
    const had = node.contains(document.activeElement) && document.activeElement !== link;
    while (link.nextSibling) link.nextSibling.remove();
    add(node,
      el("p", { class: "row" }, jobBadge(job, null)),
      job.state === "running" && el("p", { class: "hint far" }, far(job)),
      job.error && el("p", { class: "error" }, job.error.detail || job.error.title),
      job.result && can("edits:write") && el("a", { class: "button quiet small", href: continueAddress(job.id, bestOutput(job)) }, "Continue"));
    if (had) link.focus();
  }
}
