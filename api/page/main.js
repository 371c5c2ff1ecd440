// Where the page begins: who is signed in, which view the address names.

import { accountView, facts } from "./account.js";
import { batchView } from "./batch.js";
import { conceptsView } from "./concepts.js";
import { Problem } from "./client.js";
import { add, button, el, empty, fill } from "./dom.js";
import { editView } from "./edit.js";
import { notice } from "./fields.js";
import { galleryView } from "./gallery.js";
import { jobView } from "./job.js";
import { jobsView } from "./jobs.js";
import { can, forget, known, otherKey, refresh, signOut } from "./session.js";
import { listen, showShortcuts } from "./shortcuts.js";
import { signInView } from "./signin.js";
import { key } from "./storage.js";
import { teachView } from "./teach.js";

const VIEWS = [
  { path: "edit", words: "Edit", title: "Edit a picture", scopes: ["edits:write"], view: editView },
  { path: "teach", words: "Teach", title: "Teach a look", scopes: ["concepts:write"], view: teachView },
  { path: "concepts", words: "Looks", title: "Looks", scopes: [], view: conceptsView },
  { path: "pictures", words: "Pictures", title: "Pictures", scopes: [], view: galleryView },
  { path: "jobs", words: "Jobs", title: "Jobs", scopes: [], view: jobsView },
];
const OTHERS = [
  { path: "account", words: "Account", title: "Account", scopes: [], view: accountView },
  { path: "batches", words: "Batch", title: "Batch", scopes: [], view: batchView },
];
const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const bar = /** @type {HTMLElement} */ (document.getElementById("bar"));
const views = /** @type {HTMLElement} */ (document.getElementById("nav"));
const who = /** @type {HTMLElement} */ (document.getElementById("account"));
let leaving = new AbortController();
let said = "";

/** The view that the address names, such as `#/jobs/job_...` or `#/edit?concept=con_...`. */
function asked() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, id] = path.split("/");
  const found = [...VIEWS, ...OTHERS].find((view) => view.path === name);
  const home = VIEWS.find((view) => can(...view.scopes));
  return { view: found || (name ? null : home), id, query: new URLSearchParams(query) };
}

/** @param {boolean} [arrived] by a link, not by a reload or after signing in */
async function show(arrived = false) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  // A fresh element for each view: what an old one still waits for goes nowhere.
  const place = el("div", { class: "view" });
  fill(main, place);
  frame();
  if (!known()) {
    document.title = "Sign in · Custom-Edit";
    signInView(place, { said, done: () => show() });
    said = "";
    return;
  }
  const { view, id, query } = asked();
  document.title = `${view ? view.title : "Not found"} · Custom-Edit`;
  try {
    await open(view, place, { id, query, signal, moved: arrived });
  } catch (error) {
    if (!signal.aborted && known()) add(place, notice(error, button("Try again", () => show())));
  }
}

async function open(view, place, given) {
  if (!view) return add(place, el("h1", {}, "Not found"), empty("No such page", "This address names nothing.", el("a", { class: "button main", href: "#/" }, "To the start")));
  const missing = view.scopes.filter((scope) => !can(scope));
  if (missing.length) {
    return add(place, el("h1", {}, view.title), empty("This key may not do that",
      `It lacks the scope ${missing.join(", ")}. What is there can be looked at.`,
      el("a", { class: "button main", href: "#/jobs" }, "See the jobs")));
  }
  const opened = view.path === "jobs" && given.id ? jobView(place, given) : view.view(place, given);
  focusHeading(place);
  await opened;
}

/** Screen readers and the keyboard go on from the new view's heading. */
function focusHeading(place) {
  const heading = place.querySelector("h1");
  if (!heading || !moved) return;
  heading.setAttribute("tabindex", "-1");
  heading.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}
let moved = false;

/** The bar with the views that the key may use. */
function frame() {
  bar.hidden = !known();
  if (!known()) return;
  const { view } = asked();
  fill(views, VIEWS.filter(({ scopes }) => can(...scopes)).map((one) =>
    el("a", { href: `#/${one.path}`, "aria-current": one === view ? "page" : null }, one.words)));
  fill(who, account());
}

/** Who is signed in and what they may do. */
function account() {
  const place = el("dl", { class: "facts" });
  const tell = (limits) => fill(place, facts(limits));
  tell(known());
  const leave = () => { signOut(); said = "You are signed out."; show(); };
  return el("details", {
    class: "account",
    ontoggle: (event) => { if (event.currentTarget.open) refresh().then(tell).catch(() => {}); }, // old figures do
    onkeydown: (event) => { if (event.key === "Escape") event.currentTarget.open = false; },
  }, el("summary", {}, known().tenant), el("div", { class: "card" }, place, el("p", { class: "row" },
    el("a", { class: "button quiet small", href: "#/account" }, "Account"),
    button("Shortcuts", showShortcuts, "quiet small"), button("Sign out", leave, "quiet small"))));
}

/** A key that was good and is not any more. */
window.addEventListener("unauthenticated", () => {
  if (!known()) return;
  signOut();
  said = "Your key is not valid any more.";
  show();
});
document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // the hash names the view
  main.focus();
});
window.addEventListener("hashchange", () => { moved = true; show(true); });
listen(() => Boolean(known()));
key.watch(async () => {
  if (known() && !key.get()) {
    signOut();
    said = "You were signed out in another tab.";
    await show();
  } else if (otherKey()) { // of somebody else, perhaps
    forget();
    await show();
    await begin();
  } else if (!known() && key.get()) await begin();
});

async function begin() {
  if (key.get()) {
    try {
      await refresh();
    } catch (error) {
      if (!(error instanceof Problem && (error.status === 401 || error.status === 403))) {
        return fill(main, el("h1", {}, "Custom-Edit"), notice(error, button("Try again", begin)));
      }
      signOut();
      said = "Your key is not valid any more.";
    }
  }
  await show();
}

await begin();
