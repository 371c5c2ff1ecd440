// All jobs, newest first; those at work move on by themselves.

import { api, unlessDeleted } from "./client.js";
import { add, announce, button, confirmed, el, empty, fill } from "./dom.js";
import { complain, complaining, select } from "./fields.js";
import { stored } from "./pictures.js";
import { can } from "./session.js";
import { far, jobBadge, jobBar, stuck, withStep } from "./progress.js";
import { about, finished, kind, when } from "./words.js";

const PAGE = 20;
const EVERY_MS = 3000;
const MOST = 100;
const MOST_ALONE = 5;

/** @param {HTMLElement} main @param {{signal: AbortSignal}} given */
export async function jobsView(main, { signal }) {
  /** @type {[string, string][]} */
  const states = ["queued", "running", "succeeded", "failed", "cancelled"].map((s) => [s, s]);
  const state = select([["", "all states"], ...states], { id: "jobs-state" });
  const what = select([["", "all kinds"], ["edit", "edits"], ["customize", "teachings"], ["import", "imports"]], { id: "jobs-kind" });
  const list = el("ul", { class: "list", "aria-label": "Jobs" });
  const below = el("div", {});
  const wrong = el("div", { hidden: true });
  /** @type {Map<string, {job: any, row: HTMLElement}>} */
  const rows = new Map();
  /** @type {Set<string>} deleted: an answer that was under way may still list them */
  const gone = new Set();
  let last = ""; // the id of the last job of the pages so far, where there are more: what is older comes with the next one

  /** How many jobs are open stands in the title, to be seen from another tab. */
  const entitle = () => {
    const open = [...rows.values()].filter(({ job }) => !finished(job)).length;
    if (!signal.aborted) document.title = `${open ? `(${open}) ` : ""}Jobs · Custom-Edit`;
  };
  const leave = (id) => { gone.add(id); rows.get(id)?.row.remove(); rows.delete(id); entitle(); };
  const put = (job) => {
    if (gone.has(job.id)) return;
    const made = row(job, wrong, put, leave);
    const before = rows.get(job.id);
    rows.set(job.id, { job, row: made });
    entitle();
    if (!before) list.insertBefore(made, after(rows, job.id));
    else {
      const had = before.row.contains(document.activeElement);
      before.row.replaceWith(made);
      if (had) made.querySelector("a")?.focus();
    }
  };
  const asked = (cursor) => ({ state: state.value, kind: what.value, limit: PAGE, cursor });
  let turn = 0;
  const load = async (cursor = null) => {
    const mine = ++turn;
    const page = await api.jobs(asked(cursor), signal);
    if (mine !== turn) return; // asked for something else meanwhile
    if (!cursor) { rows.clear(); fill(list); entitle(); }
    page.items.forEach((job) => put(job));
    last = page.next_cursor ? page.items.at(-1)?.id || last : "";
    const more = page.next_cursor && button("More", () => load(page.next_cursor).catch((e) => complain(wrong, e)));
    fill(below, more, !rows.size && nothing(state.value || what.value));
  };
  const again = () => load().then(() => announce(`${rows.size} jobs`)).catch((error) => complain(wrong, error));
  state.addEventListener("change", again);
  what.addEventListener("change", again);
  add(main, el("h1", {}, "Jobs"),
    el("div", { class: "row filters" },
      el("span", { class: "row" }, el("label", { for: state.id }, "State"), state),
      el("span", { class: "row" }, el("label", { for: what.id }, "Kind"), what),
      button("Refresh", again)),
    wrong, list, below);
  await load();
  const isListed = (job) => rows.has(job.id) || job.id > last;
  keepFresh(rows, { put, leave, isListed }, asked, signal);
}

/** While the page is looked at and some job is not finished: what is listed is asked for again. */
function keepFresh(rows, { put, leave, isListed }, asked, signal) {
  const round = async () => {
    const open = [...rows.values()].filter(({ job }) => !finished(job));
    if (document.hidden || !open.length) return;
    const filter = asked(null);
    const page = await api.jobs({ ...filter, limit: Math.min(MOST, Math.max(PAGE, rows.size)) }, signal);
    const listed = new Set(page.items.map(({ id }) => id));
    const away = open.filter(({ job }) => !listed.has(job.id)).slice(0, MOST_ALONE); // the filter lets them go
    const alone = await Promise.all(away.map(({ job }) => unlessDeleted(api.job(job.id, signal))));
    if (JSON.stringify(filter) !== JSON.stringify(asked(null))) return;
    away.forEach(({ job }, at) => { if (!alone[at]) leave(job.id); }); // deleted elsewhere
    for (const job of [...page.items, ...alone].filter((one) => one && isListed(one))) {
      const before = rows.get(job.id);
      withStep(job, before?.job);
      if (shown(before?.job) !== shown(job)) put(job);
      else if (before && !finished(job)) retell(before, job);
    }
  };
  const timer = setInterval(() => round().catch(() => {}), EVERY_MS); // the next round asks again
  signal.addEventListener("abort", () => clearInterval(timer));
}

/** The row that a job stands before: the first of an older one, whose id is smaller. @returns {HTMLElement | null} null: it is the last */
function after(rows, id) {
  const older = [...rows.keys()].filter((other) => other < id).sort().pop();
  return older ? rows.get(older).row : null;
}

/** What a row shows of a job that may change; what is said of its end changes all the time, and alone. */
const shown = (job) => job && JSON.stringify([job.state, job.progress?.step, job.progress?.phase, job.cancel_requested, job.queue_position, job.estimate?.workers,
  Boolean(job.progress?.preview_url)]);

/** Says anew how far a job is. @param {{job: any, row: HTMLElement}} entry @param {any} job */
function retell(entry, job) {
  entry.job = job;
  const said = entry.row.querySelector(".hint");
  if (said) said.textContent = far(job);
}

function nothing(filtered) {
  if (filtered) return empty("None like that", "No job has this state and kind.");
  return empty("No jobs yet", "What you teach and edit is listed here, with its result.",
    can("concepts:write") && el("a", { class: "button main", href: "#/teach" }, "Teach a look"),
    can("edits:write") && el("a", { class: "button quiet", href: "#/edit" }, "Edit a picture"));
}

/** A job in the list. put: shows a newer version; gone: takes it away. */
function row(job, wrong, put, gone) {
  const may = can(job.kind === "edit" ? "edits:write" : "concepts:write");
  const act = (work) => complaining(wrong, work);
  const remove = act(async () => {
    if (!(await confirmed("Delete this job?", "Its pictures go as well. A concept that it made stays.", "Delete"))) return;
    await api.removeJob(job.id);
    gone(job.id);
    announce("The job is deleted");
  });
  return el("li", { class: "item" }, picture(job),
    el("div", { class: "grow" },
      el("a", { class: "title", href: `#/jobs/${job.id}` }, about(job)),
      el("p", { class: "row faint" }, jobBadge(job), kind(job), when(job.created_at),
        job.batch && el("a", { href: `#/batches/${job.batch}` }, "of a batch")),
      !finished(job) && at(job),
      job.error && el("p", { class: "error" }, job.error.title, job.error.detail && `: ${job.error.detail}`)),
    may && el("div", { class: "row" },
      !finished(job) && !job.cancel_requested &&
        button("Cancel", act(async () => put(await api.cancel(job.id))), "quiet small", { "aria-label": `Cancel ${about(job)}` }),
      finished(job) && button("Delete", remove, "quiet small", { "aria-label": `Delete ${about(job)}` })));
}

function at(job) {
  const said = el("p", { class: stuck(job) ? "hint warning" : "hint" }, far(job));
  if (job.state === "queued") return said;
  const progress = jobBar(`Progress of ${about(job)}`);
  progress.show(job);
  return [progress.node, said];
}

/** What it made, or is making, small. */
function picture(job) {
  const url = made(job);
  if (!url) return el("span", { class: "thumb", "aria-hidden": "true" });
  return stored(url, "", async () => made(await api.job(job.id)), { class: "thumb" });
}

function made({ state, result, progress }) {
  if (state === "running") return progress?.preview_url;
  return result?.preview_url || (result?.outputs?.find((o) => o.best) || result?.outputs?.[0])?.url;
}
