// A batch: many pictures edited in one way, each of them a job.

import { api } from "./client.js";
import { add, announce, button, confirmed, el, fill } from "./dom.js";
import { complain, complaining } from "./fields.js";
import { stored } from "./pictures.js";
import { far, forecast, jobBadge, stuck } from "./progress.js";
import { can } from "./session.js";
import { bestOutput, continueAddress, pictureItem } from "./versions.js";
import { badge, when } from "./words.js";

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
  /** @type {Map<string, {shown: string, tile: HTMLElement}>} */
  const tiles = new Map();
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
    const stands = `${state} ${stuck(batch)}`;
    said.classList.toggle("warning", stuck(batch));
    if (head.dataset.stands !== stands) {
      head.dataset.stands = stands;
      const had = head.contains(document.activeElement);
      fill(head, el("p", { class: "row" }, state === "finished" ? badge("succeeded") : jobBadge(batch, null), `${jobs.length} pictures`, when(batch.created_at)),
        can("edits:write") && el("p", { class: "row" }, state === "finished" ? button("Delete", remove, "danger small") : button("Cancel", cancel, "danger small")));
      if (had) /** @type {HTMLElement | null} */ (head.querySelector("button"))?.focus();
    }
    for (const job of jobs) {
      const shown = JSON.stringify([job.state, job.progress?.phase, job.progress?.step, job.estimate?.workers]);
      const before = tiles.get(job.id);
      if (before?.shown === shown) {
        const told = before.tile.querySelector(".far");
        if (told) told.textContent = far(job); // its end comes nearer within a step
        continue;
      }
      const made = tile(job);
      before ? before.tile.replaceWith(made) : list.append(made);
      tiles.set(job.id, { shown, tile: made });
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

/** A picture of the batch: its best output, or the source while there is none. */
function tile(job) {
  const best = job.result && job.result.outputs[bestOutput(job)];
  const alt = `See ${job.request.target_prompt}`;
  const picture = el("a", { href: `#/jobs/${job.id}`, "aria-label": alt }); // named before its picture has come
  if (best) fill(picture, stored(best.url, alt, async () => (await api.job(job.id)).result.outputs[bestOutput(job)].url));
  else pictureItem(job.request.image).then(({ url }) => fill(picture, el("img", { src: url, alt, class: "waiting" })), () => fill(picture, alt));
  return el("li", { class: "tile" }, picture,
    el("p", { class: "row" }, jobBadge(job, null)),
    job.state === "running" && el("p", { class: "hint far" }, far(job)),
    job.error && el("p", { class: "error" }, job.error.detail || job.error.title),
    best && can("edits:write") && el("a", { class: "button quiet small", href: continueAddress(job.id, bestOutput(job)) }, "Continue"));
}
