// How the base reads the lines, while they are written: tokens counted, words that it does not know.

import { api, Problem } from "./client.js";
import { button, el, fill } from "./dom.js";

const PAUSE_MS = 600;

/** Counts the tokens of lines and names the words in them that the base does not know. */
export class Reading {
  /** @param {HTMLTextAreaElement[]} lines @param {() => string[]} concepts ids of the looks that they name @param {AbortSignal} signal */
  constructor(lines, concepts, signal) {
    this.lines = lines;
    this.concepts = concepts;
    this.signal = signal;
    this.last = "";
    this.turn = 0;
    this.places = lines.map(() => el("div", { class: "reading" }));
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    signal.addEventListener("abort", () => clearTimeout(this.timer));
  }

  /** Reads a moment after the last call. */
  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#read(), PAUSE_MS);
  }

  async #read() {
    const body = { prompts: this.lines.map((line) => line.value), concepts: this.concepts() };
    const text = JSON.stringify(body);
    if (text === this.last) return;
    this.last = text;
    const mine = ++this.turn;
    const found = await api.readPrompts(body, this.signal).catch((error) => { // the form works without
      const refused = error instanceof Problem && error.status === 422;
      if (!refused && mine === this.turn) this.last = ""; // not answered: the next call asks again
      return { items: [] };
    });
    if (mine !== this.turn || this.signal.aborted) return;
    this.places.forEach((place, k) => fill(place, ...this.#told(found.items[k], found.base, this.lines[k])));
  }

  #told(reading, base, line) {
    if (!reading || !line.value.trim()) return [];
    const { tokens, limit, unknown_words: unknown } = reading;
    const over = tokens > limit;
    return [
      el("p", { class: over ? "error" : "hint count" }, `${tokens} of ${limit} tokens`, over && `: too long by ${tokens - limit}`),
      unknown.map(({ word, near }) => el("p", { class: "warning" }, `${base || "The base"} was not trained with “${word}”. `,
        near.map((other) => button(`Did you mean ${other}?`, () => this.#replace(line, word, other), "small")))),
    ];
  }

  #replace(line, word, other) {
    line.value = line.value.replace(new RegExp(`\\b${word}\\b`, "gi"), other); // words are of a to z alone
    line.focus();
    line.dispatchEvent(new Event("input", { bubbles: true }));
  }
}
