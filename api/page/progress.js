// How far a whole job is: one bar over all its phases, and what it waits for.

import { el } from "./dom.js";
import { badge, finished, phase, span } from "./words.js";

/**
 * The phases of each kind of job as its worker reports them, in order, with their shares of its time as measured on the
 * bundled base; a phase that is left out (an inversion that is kept already) is passed over at once.
 * @type {Record<string, [string, number][]>}
 */
const PHASES = {
  edit: [["fetch", 3], ["invert", 25], ["null-text", 5], ["reconstruct", 2], ["edit", 50], ["measure", 10], ["upload", 5]],
  customize: [["fetch", 2], ["encode", 5], ["class images", 13], ["train", 72], ["preview", 5], ["upload", 3]],
  import: [["fetch", 20], ["read", 30], ["preview", 40], ["upload", 10]],
};
const SILENT_S = 45;
const OLD_S = 15; // what the service said of a job's end so long ago counts no more

/**
 * The phase that a running job is in. A worker draws the preview of a concept as it draws an edit, and may call it so; a
 * training that tells neither steps nor a preview has not come to them yet.
 */
function phaseOf({ kind, progress }) {
  if (kind === "edit") return progress.phase;
  if (progress.phase === "edit") return "preview";
  return progress.phase === "train" && !progress.steps && !progress.preview_url ? "encode" : progress.phase;
}

/**
 * `job`, with the step that was known `before` of the same phase where a preview alone was told since, without a step.
 * @param {any} job @param {any} before the same job; undefined: it was not known
 */
export function withStep(job, before) {
  const [now, then] = [job.progress, before?.progress];
  const same = now && then && now.phase === then.phase && job.attempt === before.attempt;
  if (same && now.preview_url && !now.steps) Object.assign(now, { step: then.step, steps: then.steps });
  return job;
}

/** How far the job is, from 0 to 1; null before its first phase is known. @param {any} job */
export function whole(job) {
  const { progress } = job;
  if (job.state === "succeeded") return 1;
  if (job.state === "queued") return 0;
  if (!progress) return null;
  const phases = PHASES[job.kind] || [];
  const at = phases.findIndex(([name]) => name === phaseOf(job));
  if (at < 0) return null;
  const before = phases.slice(0, at).reduce((sum, [, share]) => sum + share, 0);
  const within = progress.steps ? Math.min(1, progress.step / progress.steps) : 0;
  return (before + phases[at][1] * within) / 100;
}

/**
 * Notes when the page read what is said of a job's end: the seconds in it count from then.
 * @template T @param {T} read a job or its progress @returns {T}
 */
export const justRead = (read) => Object.assign(/** @type {any} */ (read), { read_at: Date.now() });

const age = (read) => (read.read_at ? (Date.now() - read.read_at) / 1000 : 0);

/**
 * Seconds to the end of a running job: what the service expects of all its phases; where it does not know, or was not
 * heard lately, what the worker says of the phase at work. 0 where neither is known, its time is over, or the worker is silent.
 */
function left(job) {
  const { estimate, progress } = job;
  if (age(progress) > SILENT_S) return 0;
  const whole = typeof estimate?.seconds === "number" && age(job) < OLD_S;
  return Math.max(0, whole ? estimate.seconds - age(job) : (progress.eta_s ?? 0) - age(progress));
}

/** How far a job is, in words. @param {any} job */
export function far(job) {
  const { progress } = job;
  if (job.state === "queued") return waits(job);
  const at = progress ? phase(phaseOf(job)) + (progress.steps ? ` ${progress.step} of ${progress.steps}` : "") : "At work";
  if (stuck(job)) return `${at}. ${idle(job)} The job is kept and is taken up again when one is started.`;
  const seconds = progress ? left(job) : 0;
  return progress ? at + (seconds ? `, ${span(seconds)} left` : "") : `${at}.`;
}

/** What a queued job waits for. @param {any} job */
export function waits(job) {
  const { estimate, queue_position: ahead } = job;
  if (stuck(job)) return `${idle(job)} The job is kept and begins when one is started.`;
  return ["Waiting for a worker.", behind(ahead), forecast(estimate)].filter(Boolean).join(" ");
}

/** Whether nothing will happen by itself: no worker is there for it. @param {any} job or a batch */
export const stuck = (job) => !finished(job) && Boolean(job.estimate) && !job.estimate.workers;

const idle = (job) => job.estimate.unknown || "No worker is running.";

/** The state of a job, how far it is, and that no worker is there, if so. @param {any} job @param {number | null} [done] 0 to 1; null: not said */
export const jobBadge = (job, done = whole(job)) => badge(job.state, done, stuck(job) ? "no worker" : "");

/** How many jobs come first. @param {number | null | undefined} ahead */
export const behind = (ahead) => (ahead ? `${ahead} ${ahead === 1 ? "job is" : "jobs are"} before it.` : "");

/** How long it will take, in a sentence. @param {any} estimate */
export function forecast(estimate) {
  if (!estimate) return "";
  if (estimate.seconds === null || estimate.seconds === undefined) return estimate.unknown || "";
  return `It will be done in about ${span(estimate.seconds)}${estimate.wait_seconds >= 2 ? `, of which it waits ${span(estimate.wait_seconds)}` : ""}.`;
}

/** A bar of how far a job is; it never goes back while one attempt lasts. @param {string} label */
export function jobBar(label) {
  const track = el("progress", { max: 1, "aria-label": label });
  let attempt = 0;
  return {
    node: track,
    /** @param {any} job */
    show(job) {
      const done = whole(job);
      if (job.attempt !== attempt || done === null) track.removeAttribute("value");
      attempt = job.attempt;
      if (done !== null) track.value = Math.max(done, track.hasAttribute("value") ? track.value : 0);
    },
    /** How far it stands, 0 to 1; null where that is not known. */
    done: () => (track.hasAttribute("value") ? track.value : null),
  };
}

/** The page's title while a job is looked at. @param {any} job @param {string} words what it is about @param {number | null} [done] */
export function jobTitle(job, words, done = whole(job)) {
  const mark = { succeeded: "✓", failed: "✕", cancelled: "–", queued: "○" }[job.state];
  return `${mark || (done === null ? "◐" : `${Math.round(done * 100)} %`)} ${words} · Custom-Edit`;
}

/** Says when a running job has not reported for a while. @param {AbortSignal} signal @param {(text: string) => void} say */
export function silence(signal, say) {
  let heard = Date.now();
  const timer = setInterval(() => {
    const quiet = (Date.now() - heard) / 1000;
    say(quiet > SILENT_S ? `The worker has not reported for ${span(quiet)}. If it is lost, another one takes the job over.` : "");
  }, 5000);
  const stop = () => clearInterval(timer);
  signal.addEventListener("abort", stop);
  return { heard: () => { heard = Date.now(); say(""); }, stop };
}
