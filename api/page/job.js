// One job: how far it is, and what came of it.

import { api } from "./client.js";
import { add, announce, button, confirmed, el, fill } from "./dom.js";
import { watch } from "./events.js";
import { complaining, notice } from "./fields.js";
import { stored } from "./pictures.js";
import { far, jobBadge, jobBar, jobTitle, justRead, silence, stuck, whole } from "./progress.js";
import { editResult } from "./result.js";
import { can } from "./session.js";
import { apiCall } from "./snippet.js";
import { about, finished, kind, span, when } from "./words.js";

const ASK_MS = 5000;

const may = (job) => can(job.kind === "edit" ? "edits:write" : "concepts:write");

/** @param {HTMLElement} main @param {{id: string, signal: AbortSignal, query: URLSearchParams}} given */
export async function jobView(main, { id, signal, query }) {
  const head = el("div", { class: "head" });
  const body = el("div", {});
  const wrong = el("div", { hidden: true });
  const title = el("h1", { tabindex: "-1" }, "Job");
  const below = el("div", {});
  add(main, el("p", {}, el("a", { href: "#/jobs" }, "← All jobs")), title, head, wrong, body, below);
  const fresh = () => api.job(id);
  const output = query.get("output");
  const outputShown = output === null ? null : Number(output);
  const say = (job) => {
    if (!signal.aborted) document.title = jobTitle(job, about(job));
    const had = head.contains(document.activeElement);
    fill(head, ...top(job, wrong, show));
    if (had) /** @type {HTMLElement | null} */ (head.querySelector("button, a"))?.focus();
  };
  const show = async (job) => {
    title.textContent = about(job);
    say(job);
    if (finished(job)) fill(body, await outcome(job, fresh, { output: outputShown, signal }));
  };
  const job = justRead(await api.job(id, signal));
  add(below, apiCall(job));
  await show(job);
  if (!finished(job)) await follow(job, body, { head, show, say, fresh, signal });
}

/** What it is, since when, and what can be done with it. */
function top(job, wrong, show) {
  const act = (work) => complaining(wrong, work);
  const cancel = act(async () => {
    const now = await api.cancel(job.id);
    job.cancel_requested = now.cancel_requested; // as its head is drawn again while it is followed
    await show(now);
    announce("Cancelling");
    /** @type {HTMLElement | null} */ (document.querySelector("main h1"))?.focus(); // the button is gone
  });
  const remove = act(async () => {
    if (!(await confirmed("Delete this job?", "Its pictures go as well. A concept that it made stays.", "Delete"))) return;
    await api.removeJob(job.id);
    announce("The job is deleted");
    if (wrong.isConnected) location.hash = "#/jobs"; // else the view was left meanwhile
  });
  const took = job.started_at && job.finished_at && (Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000;
  return [
    el("p", { class: "row" }, jobBadge(job), el("span", {}, kind(job)), when(job.created_at),
      took && el("span", { class: "faint" }, `took ${span(took)}`), el("code", { class: "faint" }, job.id),
      job.batch && el("a", { href: `#/batches/${job.batch}` }, "of a batch")),
    el("p", { class: "row" },
      may(job) && !finished(job) && (job.cancel_requested
        ? el("span", { class: "faint" }, "Cancelling…")
        : button("Cancel", cancel, "danger small")),
      job.kind === "edit" && job.state !== "succeeded" && can("edits:write") &&
        el("a", { class: "button quiet small", href: `#/edit?job=${job.id}` }, "Edit again from here"),
      may(job) && finished(job) && button("Delete", remove, "danger small")),
    job.warnings.map((text) => el("p", { class: "warning" }, text)),
  ];
}

/** Shows progress and previews as they come, until the end. */
async function follow(job, body, { head, show, say, fresh, signal }) {
  const progress = jobBar("Progress");
  const said = el("p", { class: "saying" });
  const link = el("p", { class: "faint", role: "status" });
  const quiet = el("p", { class: "warning", role: "status" });
  const preview = el("div", { class: "previews" });
  fill(body, el("section", { class: "card", "aria-label": "Progress" }, progress.node, said, link, quiet, preview));
  let told = "";
  let state = "";
  const tell = () => {
    progress.show(job);
    said.textContent = far(job);
    said.classList.toggle("warning", stuck(job));
    if (state !== job.state) say(job);
    document.title = jobTitle(job, about(job), progress.done());
    head.querySelector(".badge")?.replaceWith(jobBadge(job, progress.done()));
    head.querySelector("time")?.replaceWith(when(job.created_at));
    state = job.state;
    const quarter = `${job.state} ${job.progress?.phase} ${Math.floor((whole(job) || 0) * 4)} ${stuck(job)}`;
    if (quarter !== told) announce(said.textContent);
    told = quarter;
  };
  const moved = (found) => {
    const step = found.step || job.progress?.step || 0;
    if (found.preview_url) fill(preview, ...previewed(found, step, fresh));
    if (!found.steps && found.preview_url && job.progress) return; // a preview alone, which tells no step
    job.progress = justRead(found);
  };
  if (job.progress) moved({ ...job.progress });
  tell();
  /** The events tell how far it is; its place in the queue, its end, its warnings, and whether it is cancelled and a worker is there are asked for. */
  const ask = async () => {
    const now = await api.job(job.id, signal).catch(() => null); // asked again next time
    if (signal.aborted || finished(job)) return;
    if (now) {
      const news = now.warnings.length > job.warnings.length || now.cancel_requested !== job.cancel_requested;
      const { estimate, queue_position, warnings, cancel_requested } = now;
      justRead(Object.assign(job, { estimate, queue_position, warnings, cancel_requested }));
      if (news) say(job); // a warning in time to cancel; that somebody cancels it
    }
    tell();
  };
  const asking = setInterval(() => { if (!document.hidden) ask(); }, ASK_MS);
  const watching = silence(signal, (text) => { quiet.textContent = job.state === "running" && !stuck(job) ? text : ""; });
  signal.addEventListener("abort", () => clearInterval(asking));
  const connected = (on) => { link.textContent = on ? "" : "The connection broke; trying again. The job goes on meanwhile."; };
  for await (const event of watch(job.id, signal, connected)) {
    watching.heard();
    if (event.event === "progress" || event.event === "preview") moved(event.data);
    else if (event.event === "state") {
      Object.assign(job, event.data);
      if (!finished(job)) ask(); // as it runs now
    }
    tell();
  }
  clearInterval(asking);
  watching.stop();
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
async function outcome(job, fresh, given) {
  if (job.state === "cancelled") {
    return el("section", { class: "card" }, el("p", {}, "It was cancelled; what it had made is removed."));
  }
  if (job.state === "failed") return failure(job);
  try {
    return job.result?.kind === "edit" ? await editResult(job, fresh, given) : learned(job, fresh);
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
