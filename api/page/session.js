// Who is signed in, and what the key may do.

import { api } from "./client.js";
import { loadSchemas } from "./schema.js";
import { key } from "./storage.js";

/** @type {any} */
let limits = null;
/** The key that they are of. */
let used = "";

/** What the key's tenant may do; null while nobody is signed in. */
export const known = () => limits;

/** Whether the key has all of `scopes`. @param {...string} scopes */
export const can = (...scopes) =>
  limits !== null && scopes.every((scope) => limits.scopes.includes(scope) || limits.scopes.includes("admin"));

/** Whether the browser has another key by now than the one that is signed in. */
export const otherKey = () => limits !== null && key.get() !== used;

/** Reads the limits again; those of a key that is not in use any more are not taken. @throws {import("./client.js").Problem} */
export async function refresh() {
  const asked = key.get();
  const [current] = await Promise.all([api.limits(), loadSchemas()]);
  if (key.get() === asked) [limits, used] = [current, asked];
  return limits;
}

/** Signs in; a key that is refused is not kept. @param {string} text @param {boolean} shared with all tabs */
export async function signIn(text, shared) {
  key.set(text, shared);
  try {
    return await refresh();
  } catch (error) {
    if (key.get() === text) key.clear();
    throw error;
  }
}

/** Forgets the key; what was typed stays for the next time. */
export function signOut() {
  key.clear();
  forget();
}

/** Forgets who was signed in; what waits for a view of theirs is dropped as well. */
export function forget() {
  limits = null;
  window.dispatchEvent(new CustomEvent("signedout"));
}
