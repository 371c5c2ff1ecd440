// A job's server-sent events. EventSource cannot send a key, so the stream is read by hand.

import { api, Away, Problem } from "./client.js";

const LONGEST_WAIT_MS = 30_000;
const FINAL = ["succeeded", "failed", "cancelled"];

/**
 * @typedef {{id: string, event: string, data: any}} Event
 * Its data: a state change, or a progress.
 */

/** Takes text as it comes and gives the events that are whole. */
export class Parser {
  constructor() {
    this.rest = "";
    this.lines = /** @type {string[]} */ ([]);
    this.lastId = "";
    this.retryMs = 2000;
  }

  /** @param {string} text @returns {Event[]} */
  feed(text) {
    // A lone \r at the end may be half of \r\n: it waits for what follows.
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() || "";
    const found = [];
    for (const line of lines) {
      if (line !== "") this.lines.push(line);
      else if (this.lines.length) {
        const event = this.#event(this.lines.splice(0));
        if (event) found.push(event);
      }
    }
    return found;
  }

  #event(lines) {
    const made = { id: "", event: "message", data: "" };
    for (const line of lines) {
      const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line) || [];
      if (name === "data") made.data += (made.data && "\n") + value;
      else if (name === "event") made.event = value;
      else if (name === "id") this.lastId = value;
      else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
    }
    return made.data ? { ...made, id: this.lastId, data: JSON.parse(made.data) } : null;
  }
}

/**
 * The events of a job until its end. A connection that breaks is made again, and goes on after
 * the last event that was seen.
 * @param {string} job its id
 * @param {AbortSignal} signal ends it
 * @param {(connected: boolean) => void} told whether the stream stands
 * @returns {AsyncGenerator<Event>}
 * @throws {Problem} the service refuses, for example since the job was deleted
 */
export async function* watch(job, signal, told) {
  let lastId = "";
  let failed = 0;
  while (!signal.aborted) {
    const parser = new Parser();
    parser.lastId = lastId;
    try {
      const headers = lastId ? { "Last-Event-ID": lastId } : {};
      const answer = await api.events(job, { signal, headers });
      told(true);
      for await (const event of events(answer, parser)) {
        [lastId, failed] = [event.id, 0];
        yield event;
        if (event.event === "state" && FINAL.includes(event.data.state)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      const lasting = error instanceof Problem && error.status < 500 && error.status !== 429;
      if (lasting) throw error;
      if (error instanceof Problem && error.retryS) parser.retryMs = error.retryS * 1000;
      if (!(error instanceof Away || error instanceof Problem || error instanceof TypeError)) throw error;
    }
    told(false);
    await pause(Math.min(LONGEST_WAIT_MS, parser.retryMs * 2 ** failed++), signal);
  }
}

/** @param {Response} answer @param {Parser} parser */
async function* events(answer, parser) {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield* parser.feed(value);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
