// Who is signed in, and what the key may do.

import { api } from "./client.js";
import { loadSchemas } from "./schema.js";
import { key } from "./storage.js";

/** @type {any} */
let limits = null;

/** What the key's tenant may do; null while nobody is signed in. */
export const known = () => limits;

/** Whether the key has all of `scopes`. @param {...string} scopes */
export const can = (...scopes) =>
  limits !== null && scopes.every((scope) => limits.scopes.includes(scope) || limits.scopes.includes("admin"));

/** Reads the limits again. @throws {import("./client.js").Problem} */
export async function refresh() {
  const [current] = await Promise.all([api.limits(), loadSchemas()]);
  limits = current;
  return limits;
}

/** Signs in; a key that is refused is not kept. @param {string} text @param {boolean} shared with all tabs */
export async function signIn(text, shared) {
  key.set(text, shared);
  try {
    return await refresh();
  } catch (error) {
    key.clear();
    throw error;
  }
}

/** Forgets the key; what was typed stays for the next time. */
export function signOut() {
  key.clear();
  limits = null;
}
