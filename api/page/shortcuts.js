// Keys of the page, and pictures that are pasted or dropped anywhere in it.

import { button, el, uid } from "./dom.js";
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

/** @type {((files: File[]) => void) | null} */
let taker = null;
/** @type {File[]} */
let waiting = [];

/** Pictures that are pasted or dropped go to `take` while the view is open. @param {(files: File[]) => void} take @param {AbortSignal} signal */
export function takeFiles(take, signal) {
  taker = take;
  signal.addEventListener("abort", () => { if (taker === take) taker = null; });
  if (waiting.length) take(waiting.splice(0));
}

/** Gives files to the view; a view that takes none leads to the form of an edit. */
function give(files) {
  if (taker) return taker(files);
  waiting = files;
  location.hash = "#/edit";
}

const images = (transfer) => [...(transfer?.files || [])];
const typing = (target) => target instanceof HTMLElement && Boolean(target.closest("input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select"));

/** Listens for keys, paste and drop. @param {() => boolean} ready whether somebody is signed in */
export function listen(ready) {
  document.addEventListener("paste", (event) => {
    const files = images(event.clipboardData);
    if (!files.length || !ready()) return;
    event.preventDefault();
    give(files);
  });
  let depth = 0;
  const over = (on) => document.body.classList.toggle("dropping", on);
  document.addEventListener("dragenter", (event) => {
    if (event.dataTransfer?.types.includes("Files") && ready()) over(++depth > 0);
  });
  document.addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); over(depth > 0); });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    depth = 0;
    over(false);
    if (event.defaultPrevented) return; // a place of its own took it
    event.preventDefault();
    const files = images(event.dataTransfer);
    if (files.length && ready()) give(files);
  });
  document.addEventListener("keydown", (event) => pressed(event, ready));
}

/** @param {KeyboardEvent} event @param {() => boolean} ready */
function pressed(event, ready) {
  if (event.defaultPrevented || !ready()) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    const form = event.target instanceof HTMLElement && event.target.closest("form") || document.querySelector("main form.sends");
    if (!(form instanceof HTMLFormElement)) return;
    event.preventDefault();
    return form.requestSubmit();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector("dialog[open]")) return;
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
