// One job: how far it is, and what came of it.

import { api } from "./client.js";
import { add, announce, button, confirmed, el, fill } from "./dom.js";
import { watch } from "./events.js";
import { complaining, notice } from "./fields.js";
import { stored } from "./pictures.js";
import { editResult } from "./result.js";
import { can } from "./session.js";
import { about, badge, bar, far, finished, kind, share, span, when } from "./words.js";

const may = (job) => can(job.kind === "edit" ? "edits:write" : "concepts:write");

/** @param {HTMLElement} main @param {{id: string, signal: AbortSignal}} given */
export async function jobView(main, { id, signal }) {
  const head = el("div", { class: "head" });
  const body = el("div", {});
  const wrong = el("div", { hidden: true });
  const title = el("h1", { tabindex: "-1" }, "Job");
  add(main, el("p", {}, el("a", { href: "#/jobs" }, "← All jobs")), title, head, wrong, body);
  const fresh = () => api.job(id, signal);
  const show = async (job) => {
    title.textContent = about(job);
    fill(head, ...top(job, wrong, show));
    if (finished(job)) fill(body, await outcome(job, fresh));
  };
  const job = await fresh();
  await show(job);
  if (!finished(job)) await follow(job, body, show, fresh, signal);
}

/** What it is, since when, and what can be done with it. */
function top(job, wrong, show) {
  const act = (work) => complaining(wrong, work);
  const cancel = act(async () => {
    await show(await api.cancel(job.id));
    announce("Cancelling");
    /** @type {HTMLElement | null} */ (document.querySelector("main h1"))?.focus(); // the button is gone
  });
  const remove = act(async () => {
    if (!(await confirmed("Delete this job?", "Its pictures go as well. A concept that it made stays.", "Delete"))) return;
    await api.removeJob(job.id);
    location.hash = "#/jobs";
  });
  const took = job.started_at && job.finished_at && (Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000;
  return [
    el("p", { class: "row" }, badge(job.state), el("span", {}, kind(job)), when(job.created_at),
      took && el("span", { class: "faint" }, `took ${span(took)}`), el("code", { class: "faint" }, job.id)),
    el("p", { class: "row" },
      may(job) && !finished(job) && (job.cancel_requested
        ? el("span", { class: "faint" }, "Cancelling…")
        : button("Cancel", cancel, "danger")),
      job.kind === "edit" && can("edits:write") && el("a", { class: "button quiet", href: `#/edit?job=${job.id}` }, "Edit again from here"),
      may(job) && finished(job) && button("Delete", remove, "danger")),
    job.warnings.map((text) => el("p", { class: "warning" }, text)),
  ];
}

/** Shows progress and previews as they come, until the end. */
async function follow(job, body, show, fresh, signal) {
  const progress = bar("Progress");
  const said = el("p", {}, job.state === "queued" ? "Waiting for a worker." : "At work.");
  const link = el("p", { class: "faint", role: "status" });
  const preview = el("div", { class: "previews" });
  fill(body, el("section", { class: "card", "aria-label": "Progress" }, progress.node, said, link, preview));
  let told = "";
  let step = 0;
  const moved = (found) => {
    if (found.preview_url) fill(preview, ...previewed(found, found.step || step, fresh));
    if (!found.steps && found.preview_url) return; // a preview alone, which tells no step
    step = found.step;
    progress.show(found);
    said.textContent = far(found);
    const quarter = `${found.phase} ${Math.floor((share(found) || 0) * 4)}`;
    if (quarter !== told) announce(far(found));
    told = quarter;
  };
  if (job.progress) moved(job.progress);
  const connected = (on) => { link.textContent = on ? "" : "The connection broke; trying again."; };
  for await (const event of watch(job.id, signal, connected)) {
    if (event.event !== "state") moved(event.data);
    else if (event.data.state === "running") said.textContent = "At work.";
    else if (event.data.state === "queued") said.textContent = "Waiting for a worker.";
  }
  if (signal.aborted) return;
  const ended = await fresh();
  announce(`The job ${ended.state === "succeeded" ? "is done" : `is ${ended.state}`}`);
  await show(ended);
}

function previewed(found, step, fresh) {
  const renew = async () => (await fresh()).progress?.preview_url;
  return [
    el("h2", {}, "Preview"),
    stored(found.preview_url, step ? `Preview after ${step} steps` : "Preview", renew),
    step > 0 && el("p", { class: "hint" }, `after ${step} steps`),
  ];
}

/** What came of it. */
async function outcome(job, fresh) {
  if (job.state === "cancelled") {
    return el("section", { class: "card" }, el("p", {}, "It was cancelled; what it had made is removed."));
  }
  if (job.state === "failed") return failure(job);
  try {
    return job.result?.kind === "edit" ? await editResult(job, fresh) : learned(job, fresh);
  } catch (error) {
    return notice(error);
  }
}

function failure(job) {
  const error = job.error || { title: "It failed", detail: "" };
  return el("div", { class: "problem" },
    el("p", {}, el("strong", {}, error.title), error.detail && `: ${error.detail}`),
    error.field && el("p", {}, `Field: ${error.field}`));
}

/** A concept that is ready. */
function learned(job, fresh) {
  const made = job.result;
  return el("section", { class: "card learned" },
    made.preview_url && stored(made.preview_url, `${made.token} on a ${made.noun}`, async () => (await fresh()).result.preview_url),
    el("div", {},
      el("h2", {}, `${made.token} is learned`),
      el("p", {}, `Prompts name it as ${[made.token, made.attribute, made.noun].filter(Boolean).join(" ")}.`),
      made.warnings.map((text) => el("p", { class: "warning" }, text)),
      el("p", { class: "row" },
        can("edits:write") && el("a", { class: "button main", href: `#/edit?concept=${made.concept}` }, "Use it in an edit"),
        el("a", { class: "button quiet", href: "#/concepts" }, "All concepts"))));
}
