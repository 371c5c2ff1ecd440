// Keys of the page, and pictures that are pasted or dropped anywhere in it.

import { announce, button, el, uid } from "./dom.js";
import { dropped } from "./folders.js";
import { can, known } from "./session.js";
import { preference } from "./storage.js";

/** @type {[string, string][]} */
const KEYS = [
  ["Ctrl + Enter", "Send the form"],
  ["Ctrl + V", "Take a picture from the clipboard"],
  ["?", "Show these shortcuts"],
  ["/", "Search"],
  ["e t l p j", "Edit, Teach, Looks, Pictures, Jobs"],
  ["← →", "Before and after: move the line"],
  ["+ − 0", "Before and after: enlarge, reduce, fit"],
  ["Shift + arrows", "Before and after: move the enlarged picture"],
  ["Arrows, Space", "Brush: move, paint"],
  ["[ ] x", "Brush: smaller, larger, add or erase"],
  ["Ctrl + Z, Ctrl + Shift + Z", "Brush: undo, redo"],
];
const VIEWS = { e: "edit", t: "teach", l: "concepts", p: "pictures", j: "jobs" };

const FORM = "#/edit"; // where pictures go from a view that takes none

/** @typedef {(files: File[], note: string) => void} Taker note: what of a folder was passed over */

/** @type {Taker | null} */
let taker = null;
/** @type {import("./folders.js").Given | null} until the form is open */
let waiting = null;

/** Pictures that are pasted or dropped go to `take` while the view is open. @param {Taker} take @param {AbortSignal} signal */
export function takeFiles(take, signal) {
  taker = take;
  signal.addEventListener("abort", () => { if (taker === take) taker = null; });
  if (waiting) take(waiting.files, waiting.note);
  waiting = null;
}

/**
 * Gives files to the view; a view that takes none leads to the form of an edit, which tells what a key may not do.
 * @param {import("./folders.js").Given} given
 */
function give(given) {
  const allowed = can("images:write");
  if (taker) return allowed ? taker(given.files, given.note) : announce("This key may not send pictures");
  if (allowed && can("edits:write")) waiting = given;
  location.hash = FORM;
}

const images = (transfer) => [...(transfer?.files || [])];

/** Whether files are dragged, and not text or a link. @param {DragEvent} event */
export const dragsFiles = (event) => Boolean(event.dataTransfer?.types.includes("Files"));

const NO_TEXT = ["range", "checkbox", "radio", "file", "button", "submit", "reset", "color", "image"];
/** Whether what is typed or pasted at `target` is written there. */
const takesText = (target) => (target instanceof HTMLInputElement ? !NO_TEXT.includes(target.type) : target instanceof HTMLTextAreaElement);
const typing = (target) => target instanceof HTMLElement && Boolean(target.closest("input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select"));

/** Listens for keys, paste and drop. @param {() => boolean} ready whether somebody is signed in */
export function listen(ready) {
  document.addEventListener("paste", (event) => {
    const files = images(event.clipboardData);
    if (!files.length || !ready()) return;
    // programs of tables and texts lay a picture of the text beside it
    if (takesText(event.target) && event.clipboardData?.types.includes("text/plain")) return;
    event.preventDefault();
    give({ files, note: "" });
  });
  let depth = 0;
  const over = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragenter", (event) => {
    if (dragsFiles(event) && ready()) over(++depth > 0);
  });
  document.addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); over(depth > 0); });
  document.addEventListener("dragover", (event) => { if (dragsFiles(event)) event.preventDefault(); });
  document.addEventListener("drop", async (event) => {
    depth = 0;
    over(false);
    if (event.defaultPrevented || !dragsFiles(event)) return; // a place of its own took it, or a field takes the text
    event.preventDefault();
    if (!ready()) return;
    const tenant = known().tenant;
    const given = await dropped(event.dataTransfer);
    if ((given.files.length || given.note) && known()?.tenant === tenant) give(given); // else somebody else signed in meanwhile
  });
  document.addEventListener("keydown", (event) => pressed(event, ready));
  // what waits for the form is of who is signed in, and for the form alone
  window.addEventListener("signedout", () => { waiting = null; });
  window.addEventListener("hashchange", () => { if (!location.hash.startsWith(FORM)) waiting = null; });
}

/** @param {KeyboardEvent} event @param {() => boolean} ready */
function pressed(event, ready) {
  if (event.defaultPrevented || !ready() || document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    const form = event.target instanceof HTMLElement && event.target.closest("form") || document.querySelector("main form.sends");
    if (!(form instanceof HTMLFormElement) || form.hidden) return;
    event.preventDefault();
    return form.requestSubmit();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (event.key === "?" ) return showShortcuts();
  if (!preference.get("single-keys", true)) return;
  if (event.key === "/") {
    const search = document.querySelector("main input[type=search]");
    if (!(search instanceof HTMLElement)) return;
    event.preventDefault();
    return search.focus();
  }
  if (event.key in VIEWS) location.hash = `#/${VIEWS[event.key]}`;
}

/** The list of shortcuts, in a dialog; single keys can be turned off there. */
export function showShortcuts() {
  const heading = uid("shortcuts");
  const tick = el("input", {
    type: "checkbox", id: uid("keys"), checked: preference.get("single-keys", true),
    onchange: () => preference.set("single-keys", tick.checked),
  });
  const box = el("dialog", { class: "shortcuts", "aria-labelledby": heading, onclose: () => box.remove() },
    el("h2", { id: heading }, "Shortcuts"),
    el("dl", {}, KEYS.map(([keys, what]) => [el("dt", {}, el("kbd", {}, keys)), el("dd", {}, what)])),
    el("div", { class: "row" }, tick, el("label", { for: tick.id }, "Single letters lead to views, / to the search")),
    el("div", { class: "row end" }, button("Close", () => box.close())));
  document.body.append(box);
  box.showModal();
}
