// The REST API v1, and nothing else: every request of the page goes through here.

import { key, Unanswered } from "./storage.js";

/** The service refused: an RFC 9457 problem. */
export class Problem extends Error {
  /** @param {any} told the problem document @param {Response} answer */
  constructor(told, answer) {
    super(told.detail || told.title || `HTTP ${answer.status}`);
    this.status = answer.status;
    this.title = told.title || "The service refused";
    this.detail = told.detail || "";
    this.limit = told.limit || "";
    this.slug = String(told.type || "").split("/").pop();
    /** @type {{field: string, problem: string, limit: string}[]} */
    this.errors = told.errors || [];
    this.field = told.field || "";
    this.requestId = told.request_id || answer.headers.get("X-Request-Id") || "";
    this.retryS = Number(answer.headers.get("Retry-After")) || 0;
  }
}

/** The service did not answer, or was not asked. */
export class Away extends Error {
  constructor(why = "The service does not answer. Is it running, and are you online?") {
    super(why);
  }
}

/**
 * A request; the answer whatever its status, unless it is a problem.
 * @param {string} path relative to the page's address, such as "v1/jobs"
 * @param {RequestInit & {headers?: Record<string, string>}} [asked]
 * @returns {Promise<Response>}
 * @throws {Problem | Away}
 */
export async function request(path, asked = {}) {
  const used = key.get();
  const headers = { Authorization: `Bearer ${used}`, ...asked.headers };
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), { ...asked, headers, cache: "no-store" });
  } catch (error) {
    if (asked.signal?.aborted) throw error;
    throw new Away();
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  const problem = new Problem(told, answer);
  if (answer.status === 401 && used === key.get()) window.dispatchEvent(new CustomEvent("unauthenticated"));
  throw problem;
}

/** Whether what was asked for is not there: it was deleted. Every other failure may pass. @param {unknown} error */
export const isMissing = (error) => error instanceof Problem && error.status === 404;

/**
 * What was asked for; null where it was deleted.
 * @template T @param {Promise<T>} asked @returns {Promise<T | null>} @throws {unknown} another failure
 */
export const unlessDeleted = (asked) => asked.catch((error) => {
  if (isMissing(error)) return null;
  throw error;
});

const AT_ONCE = 4;

/**
 * Lets few requests of many be under way at once: a tenant's are counted.
 * @returns {<T>(ask: () => Promise<T>) => Promise<T>} does `ask` once there is room
 */
export function lane() {
  let free = AT_ONCE;
  /** @type {((value?: unknown) => void)[]} */
  const waiting = [];
  return async (ask) => {
    if (free > 0) free--;
    else await new Promise((resolve) => waiting.push(resolve));
    try {
      return await ask();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else free++;
    }
  };
}

const read = async (path, signal) => (await request(path, { signal })).json();
const id = (text) => encodeURIComponent(text);

/** @param {Record<string, string | number | null | undefined>} given */
function query(given) {
  const set = Object.entries(given).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return new URLSearchParams(set.map(([name, value]) => [name, String(value)])).toString();
}

export const api = {
  openapi: (signal) => read("openapi.json", signal),
  limits: (signal) => read("v1/limits", signal),
  image: (name, signal) => read(`v1/images/${id(name)}`, signal),
  images: (given, signal) => read(`v1/images?${query(given)}`, signal),
  concept: (name, signal) => read(`v1/concepts/${id(name)}`, signal),
  concepts: (given, signal) => read(`v1/concepts?${query(given)}`, signal),
  weights: (name, format) => read(`v1/concepts/${id(name)}/weights?${query({ format })}`),
  removeConcept: (name) => request(`v1/concepts/${id(name)}`, { method: "DELETE" }),
  /** How the base reads prompts: tokens, unknown words. @param {{prompts: string[], concepts: string[]}} body */
  readPrompts: async (body, signal) =>
    (await request("v1/prompts/read", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal })).json(),
  presets: (signal) => read("v1/presets", signal),
  savePreset: (name, settings) =>
    request(`v1/presets/${id(name)}`, { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(settings) }),
  removePreset: (name) => request(`v1/presets/${id(name)}`, { method: "DELETE" }),
  batch: (name, signal) => read(`v1/batches/${id(name)}`, signal),
  cancelBatch: async (name) => (await request(`v1/batches/${id(name)}/cancel`, { method: "POST" })).json(),
  removeBatch: (name) => request(`v1/batches/${id(name)}`, { method: "DELETE" }),
  job: (name, signal) => read(`v1/jobs/${id(name)}`, signal),
  jobs: (given, signal) => read(`v1/jobs?${query(given)}`, signal),
  /** The bytes of an image. @returns {Promise<Blob>} */
  imageFile: async (name) => (await request(`v1/images/${id(name)}/file`)).blob(),
  /** The bytes of the region that an edit changed. @returns {Promise<Blob>} */
  maskFile: async (job) => (await request(`v1/jobs/${id(job)}/mask/file`)).blob(),
  cancel: async (name) => (await request(`v1/jobs/${id(name)}/cancel`, { method: "POST" })).json(),
  removeJob: (name) => request(`v1/jobs/${id(name)}`, { method: "DELETE" }),
  removeImage: (name) => request(`v1/images/${id(name)}`, { method: "DELETE" }),
  keys: (signal) => read("v1/keys", signal),
  /** @param {{name?: string, scopes?: string[], days?: unknown}} body @returns {Promise<any>} the key with its text */
  makeKey: async (body) =>
    (await request("v1/keys", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json(),
  revokeKey: async (name) => (await request(`v1/keys/${id(name)}/revoke`, { method: "POST" })).json(),
  deliveries: (given, signal) => read(`v1/webhooks/deliveries?${query(given)}`, signal),
  webhookSecret: (signal) => read("v1/webhooks/secret", signal),
  makeWebhookSecret: async () => (await request("v1/webhooks/secret", { method: "POST" })).json(),
  events: (name, given) => request(`v1/jobs/${id(name)}/events`, given),
  /** What a request would do; nothing is stored. @param {string} path @param {object} body */
  dryRun: async (path, body, signal) =>
    (await request(`${path}?dry_run=true`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal })).json(),
  async upload(file) {
    const body = new FormData();
    body.append("file", file);
    return (await request("v1/images", { method: "POST", body })).json();
  },
};

/** A word nobody else has; `randomUUID` is missing where the page has no secure context. */
function word() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const TRIES = 3;
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** What is sent in parts goes on under the key that it began with: the next one may be another tenant's. */
export function oneKey() {
  const used = key.get();
  return () => { if (key.get() !== used) throw new Away("The key was changed while this was sent."); };
}

/** A body as text, to tell it from others: of files their names, sizes and times. @param {object | FormData} body */
const written = (body) => JSON.stringify(!(body instanceof FormData) ? body : [...body].map(([name, value]) =>
  (value instanceof File ? [name, value.name, value.size, value.lastModified] : [name, value])));

/** Sends one request once: a body that may have arrived goes again under the same key, after a reload as well. */
export class Sending {
  /** @param {string} tenant @param {string} form such as "edit" */
  constructor(tenant, form) {
    this.unanswered = new Unanswered(tenant, form);
  }

  /** @param {string} path @param {object | FormData} body @returns {Promise<any>} the job */
  async send(path, body) {
    const text = written(body);
    const name = `${path} ${text}`;
    const used = this.unanswered.keyOf(name) || word();
    this.unanswered.note(name, used);
    const check = oneKey();
    for (let tried = 1; ; tried++) {
      try {
        const made = await this.#post(path, body instanceof FormData ? body : text, used);
        this.unanswered.drop(used);
        return made;
      } catch (error) {
        const busy = error instanceof Problem && error.slug === "idempotency-in-flight";
        if (!busy && error instanceof Problem) {
          if (error.status < 500) this.unanswered.drop(used); // refused for certain: what comes is another try
          throw error;
        }
        if (tried === TRIES) throw error;
        await pause((error instanceof Problem && error.retryS) || tried);
        check();
      }
    }
  }

  /** @param {string} path @param {string | FormData} body JSON, or a form whose type the browser writes @param {string} used the key */
  async #post(path, body, used) {
    const headers = { "Idempotency-Key": used, ...(typeof body === "string" && { "Content-Type": "application/json" }) };
    return (await request(path, { method: "POST", headers, body })).json();
  }
}
