// How things are said: states, times, figures.

import { el } from "./dom.js";

const MARKS = { queued: "○", running: "◐", training: "◐", succeeded: "✓", ready: "✓", failed: "✕", cancelled: "–", valid: "✓", revoked: "✕", expired: "–" };
const KINDS = { edit: "Edit", customize: "Teaching", import: "Import" };
const PHASES = {
  fetch: "Fetching", train: "Learning", preview: "Drawing a preview", upload: "Storing", invert: "Inverting",
  edit: "Painting", measure: "Measuring", read: "Reading", encode: "Encoding pictures", "class images": "Drawing class pictures",
  "null-text": "Refining the inversion", reconstruct: "Checking the inversion",
};

/** Whether nothing will happen to a job, or to a batch, any more. */
export const finished = (job) => ["succeeded", "failed", "cancelled", "finished"].includes(job.state);
export const kind = (job) => KINDS[job.kind] || job.kind;
/** A phase in words. @param {string} name */
export const phase = (name) => PHASES[name] || name;

/**
 * A state as a mark and a word, never by colour alone; while it runs, how far.
 * @param {string} state @param {number | null} [done] 0 to 1 @param {string} [wrong] what is wrong with it
 */
export const badge = (state, done = null, wrong = "") =>
  el("span", { class: `badge ${state}${wrong && " stuck"}` }, el("span", { "aria-hidden": "true" }, MARKS[state] || "·"),
    ` ${state}`, state === "running" && done !== null && ` ${Math.round(done * 100)} %`, wrong && `, ${wrong}`);

/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** When, as "5 minutes ago", with the exact time as its title. */
export function when(iso) {
  if (!iso) return "";
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  /** @type {[Intl.RelativeTimeFormatUnit, number]} */
  const [unit, size] = UNITS.find(([, s]) => seconds >= s) || ["second", 1];
  const said = seconds < 10 ? "just now" : ago.format(-Math.floor(seconds / size), unit);
  return el("time", { datetime: iso, title: new Date(iso).toLocaleString() }, said);
}

/** Seconds as people say them. */
export function span(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export const size = (bytes) =>
  bytes >= 2 ** 20 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${Math.max(1, Math.round(bytes / 1024))} KiB`;

/** What a job is about, in a line. */
export function about(job) {
  const { request } = job;
  if (job.kind === "edit") return request.target_prompt || "";
  return request.name || [request.token, request.noun].filter(Boolean).join(", ") || job.id;
}
