// The words of an edit: tokens that are inserted, mistyped or not chosen.

import { field } from "./schema.js";

/** The schema's pattern of a token, to be found inside a text. */
const tokens = () => new RegExp(field("CustomizeRequest", "token").pattern.replace(/^\^|\$$/g, ""), "g");

/** The tokens that a prompt names, as the service reads them. @param {string} prompt @returns {string[]} */
export const named = (prompt) => prompt.match(tokens()) || [];

/** A prompt without its tokens: what its picture shows in words that every base knows. @param {string} prompt */
export const plain = (prompt) => prompt.replace(tokens(), "").replace(/\s+/g, " ").trim();

/** How many characters have to change to make `b` of `a` (Levenshtein). @param {string} a @param {string} b */
export function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + Number(a[i - 1] !== b[j - 1]));
    }
    row = next;
  }
  return row[b.length];
}

/** Of `known` tokens those that `token` may have been meant as, nearest first. @param {string} token @param {string[]} known */
export function nearest(token, known) {
  const most = Math.max(1, Math.floor(token.length / 3));
  return known.map((other) => ({ other, far: distance(token.toLowerCase(), other) }))
    .filter(({ far }) => far <= most)
    .sort((a, b) => a.far - b.far)
    .map(({ other }) => other);
}

/**
 * The source prompt with a look before its noun.
 * @param {string} source @param {{token: string, attribute: string, noun: string}} concept
 */
export function withLook(source, { token, attribute, noun }) {
  const look = [token, attribute, noun].filter(Boolean).join(" ");
  const escaped = noun.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const written = noun && source.replace(new RegExp(`\\b${escaped}\\b`), () => look);
  return written && written !== source ? written : [source, look].filter(Boolean).join(" ");
}

/** Puts `token` where the cursor of `area` stands. @param {HTMLTextAreaElement} area @param {string} token */
export function insertToken(area, token) {
  const space = (text) => (text && !/\s$/.test(text) ? " " : "");
  const before = area.value.slice(0, area.selectionStart);
  const after = area.value.slice(area.selectionEnd).replace(/^\s*/, "");
  area.value = `${before}${space(before)}${token} ${after}`;
  area.focus();
  area.selectionStart = area.selectionEnd = area.value.length - after.length;
}
