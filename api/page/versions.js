// Versions of a picture: what was made from the upload, what was continued from that, and so on.

import { api, unlessDeleted } from "./client.js";
import { el } from "./dom.js";
import { imageItem, stored } from "./pictures.js";
import { jobBadge } from "./progress.js";
import { can } from "./session.js";
import { finished } from "./words.js";

const PAGE = 100;
const PAGES = 3;
const DEEPEST = 50;

/** What tells two outputs of a job apart. */
export function outputTitle(job, output) {
  const change = output.change ?? job.request.change; // of "auto" the one that was chosen
  const amount = typeof change === "number" ? `change ${change}`
    : output.strength === null ? "default strength" : `strength ${output.strength}`;
  return output.seed ? `${amount}, seed ${output.seed}` : amount;
}

/** The number of the best output of a job. */
export const bestOutput = (job) => Math.max(0, (job.result?.outputs || []).findIndex((output) => output.best));

/** An output's id, as the service makes them: the job's and the output's number. */
const OUTPUT = /^out_([0-9a-z]+)_(\d+)$/;

/** The output that a picture is; null for an upload. @param {string} image @returns {{job: string, output: number} | null} */
function outputOf(image) {
  const [, job, number] = OUTPUT.exec(image) || [];
  return job ? { job: `job_${job}`, output: Number(number) } : null;
}

/** The output that a job began from; null for an upload. @returns {{job: string, output: number} | null} */
export const parentOf = (job) => outputOf(job.request.image);

/** Where to go on from an output. @param {string} job its id @param {number} output */
export const continueAddress = (job, output) => `#/edit?from=${job}.${output}`;

/**
 * A picture to edit by its id, an upload or an output.
 * @param {string} id @param {AbortSignal} [signal] @param {string} [name] @returns {Promise<import("./pictures.js").Item>}
 */
export async function pictureItem(id, signal, name = "") {
  const from = outputOf(id);
  return from ? outputItem(await api.job(from.job, signal), from.output) : imageItem(await api.image(id, signal), name);
}

/** An output as a picture to edit. @returns {import("./pictures.js").Item} */
export function outputItem(job, number) {
  const { id, url, width, height } = job.result.outputs[number];
  const name = `${job.request.target_prompt}, ${outputTitle(job, job.result.outputs[number])}`;
  return { file: null, id, url, name, width, height, from: { job: job.id, output: number } };
}

/** The jobs from the first edit of the upload to `job`. @returns {Promise<any[]>} */
export async function ancestors(job, signal) {
  const line = [job];
  for (let up = parentOf(job); up && line.length < DEEPEST; up = parentOf(line[0])) {
    const before = await unlessDeleted(api.job(up.job, signal));
    if (!before) break; // the line begins here
    line.unshift(before);
  }
  return line;
}

/** All versions that the upload behind a job has, as far as its edits were looked through: the newest first. */
export class Family {
  /** @type {Map<string, any>} */
  #jobs = new Map();
  /** @type {Map<string, any[]>} edits by what they began from */
  #children = new Map();

  /** @param {any} job @param {AbortSignal} signal */
  constructor(job, signal) {
    this.job = job;
    this.signal = signal;
    /** @type {any} the first edit of the upload; null until it was looked for */
    this.first = null;
    /** @type {string | null} of the edits that were not looked through yet; null: there are none */
    this.cursor = null;
    this.seen = 0; // edits that were looked through
    /** @type {{url: string, renew: () => Promise<string>} | null} */
    this.upload = null;
  }

  /** Looks through the newest edits, or through the next ones. */
  async look() {
    const line = this.first ? [] : await ancestors(this.job, this.signal);
    line.forEach((one) => this.#jobs.set(one.id, one));
    let { cursor } = this;
    for (let page = 0; page < PAGES; page++) {
      const found = await api.jobs({ kind: "edit", limit: PAGE, cursor }, this.signal);
      found.items.forEach((one) => { if (!this.#jobs.has(one.id)) this.#jobs.set(one.id, one); });
      this.seen += found.items.length;
      cursor = found.next_cursor;
      if (!cursor) break;
    }
    const first = this.first || line[0];
    const renew = async () => (await api.image(first.request.image)).url;
    this.upload ||= { url: first.result?.source_url || (await renew().catch(() => "")), renew };
    [this.first, this.cursor] = [first, cursor];
    this.#order();
  }

  /** The oldest come first under what they began from. */
  #order() {
    this.#children.clear();
    for (const one of [...this.#jobs.values()].sort((a, b) => a.created_at.localeCompare(b.created_at))) {
      const parent = parentOf(one);
      const name = parent && this.#jobs.has(parent.job) ? `${parent.job}.${parent.output}` : one.request.image;
      this.#children.set(name, [...(this.#children.get(name) || []), one]);
    }
  }

  /** The edits of an output. @param {any} job @param {number} output @returns {any[]} */
  under(job, output) {
    return this.#children.get(`${job.id}.${output}`) || [];
  }

  /** The edits of the upload. @returns {any[]} */
  get roots() {
    return this.#children.get(this.first.request.image) || [];
  }
}

/** A version to compare with. @typedef {{label: string, url: string, renew: () => Promise<any>, id: string}} Version */

/** Every output in the family, the upload first. @param {Family} family @returns {Version[]} */
export function everyVersion(family) {
  const { upload } = family;
  const all = upload ? [{ id: "upload", label: "The upload", ...upload }] : [];
  const walk = (job) => (job.result?.outputs || []).forEach((output, number) => {
    all.push({
      id: `${job.id}.${number}`, label: `${job.request.target_prompt}, ${outputTitle(job, output)}`, url: output.url,
      renew: async () => (await api.job(job.id)).result.outputs[number].url,
    });
    family.under(job, number).forEach(walk);
  });
  family.roots.forEach(walk);
  return all;
}

/**
 * The versions as a list in a list: the upload, its edits, theirs.
 * @param {Family} tree @param {any} current the job that is shown @param {number} shown its output
 */
export function versionsList(tree, current, shown) {
  const { first } = tree;
  const upload = el("div", { class: "version" },
    tree.upload && stored(tree.upload.url, "", tree.upload.renew, { class: "thumb" }),
    el("span", { class: "grow" }, "The upload"),
    can("edits:write") && el("a", { class: "button quiet small", href: `#/edit?image=${first.request.image}`, "aria-label": "Begin again from the upload" }, "Begin again"));
  return el("ul", { class: "versions", "aria-label": "Versions" },
    el("li", {}, upload, tree.roots.length > 0 && el("ul", {}, tree.roots.map((job) => branch(job, tree, current, shown)))));
}

/** A job and what was continued from it: its outputs that are shown, best or continued, the rest counted. */
function branch(job, tree, current, shown) {
  if (!finished(job) || job.state !== "succeeded") {
    return el("li", {}, el("a", { class: "version", href: `#/jobs/${job.id}`, "aria-current": job.id === current.id ? "true" : null },
      el("span", { class: "thumb" }), el("span", { class: "grow" }, job.request.target_prompt), jobBadge(job, null)));
  }
  const { outputs } = job.result;
  const here = job.id === current.id;
  const seen = outputs.map((_, number) => number).filter((number) =>
    tree.under(job, number).length > 0 || (here ? number === shown : number === bestOutput(job)));
  return seen.map((number) => {
    const output = outputs[number];
    const at = here && number === shown;
    const below = tree.under(job, number);
    return el("li", {},
      el("div", { class: at ? "version on" : "version" },
        stored(output.url, "", async () => (await api.job(job.id)).result.outputs[number].url, { class: "thumb" }),
        el("a", { class: "grow", href: `#/jobs/${job.id}?output=${number}`, "aria-current": at ? "true" : null },
          job.request.target_prompt, el("span", { class: "hint" }, outputTitle(job, output),
            outputs.length > seen.length && ` · 1 of ${outputs.length}`)),
        can("edits:write") && el("a", {
          class: "button quiet small", href: continueAddress(job.id, number),
          "aria-label": `Continue from ${job.request.target_prompt}, ${outputTitle(job, output)}`,
        }, "Continue")),
      below.length > 0 && el("ul", {}, below.map((one) => branch(one, tree, current, shown))));
  });
}
