// The looks that were taught or imported: searched, used, downloaded, deleted.

import { api } from "./client.js";
import { showReferences } from "./chosen.js";
import { add, announce, button, confirmed, el, empty, fill, uid } from "./dom.js";
import { complain, complaining } from "./fields.js";
import { importBegun, importForm } from "./importing.js";
import { stored } from "./pictures.js";
import { can } from "./session.js";
import { badge, size, when } from "./words.js";

const PAGE = 24;
const EVERY_MS = 5000;

/** @param {HTMLElement} main @param {{signal: AbortSignal}} given */
export async function conceptsView(main, { signal }) {
  const list = el("ul", { class: "cards", "aria-label": "Concepts" });
  const below = el("div", {});
  const wrong = el("div", { hidden: true });
  const importing = el("div", {});
  /** @type {Map<string, {concept: any, card: HTMLElement}>} */
  const cards = new Map();
  /** @type {Set<string>} deleted: a page that was under way may still list them */
  const gone = new Set();
  let cursor = null;
  const search = el("input", { type: "search", id: uid("search"), placeholder: "name, token or noun", oninput: () => find() });
  const put = (concept) => {
    if (gone.has(concept.id)) return;
    const made = card(concept, wrong, () => { gone.add(concept.id); cards.get(concept.id)?.card.remove(); cards.delete(concept.id); tell(); });
    const before = cards.get(concept.id);
    before ? before.card.replaceWith(made) : list.append(made);
    cards.set(concept.id, { concept, card: made });
  };
  /** Shows the cards that have all words of the search. */
  const tell = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { concept, card } of cards.values()) {
      const text = [called(concept), concept.token, concept.noun, concept.attribute, concept.id].join(" ").toLowerCase();
      card.hidden = !words.every((word) => text.includes(word));
      shown += Number(!card.hidden);
    }
    fill(below, cursor && button("More", () => load().catch((e) => complain(wrong, e))),
      !cards.size ? nothing() : !shown && !cursor && empty("None like that", "No look has these words."));
    return shown;
  };
  const load = async () => {
    const page = await api.concepts({ limit: PAGE, cursor }, signal);
    cursor = page.next_cursor;
    page.items.forEach(put);
    return tell();
  };
  let searching = false;
  /** Fetches the rest while a search finds too little. */
  const find = async () => {
    let shown = tell();
    if (searching) return;
    searching = true;
    try {
      while (search.value && cursor && shown < PAGE) shown = await load();
      if (search.value) announce(`${shown} looks`);
    } catch (error) {
      complain(wrong, error);
    } finally {
      searching = false;
    }
  };
  const open = () => { if (!importing.firstChild) add(importing, importForm(() => fill(importing), signal)); };
  const begin = button("Import", () => { open(); importing.querySelector("input")?.focus(); }, "quiet");
  if (can("concepts:write") && importBegun()) open();
  add(main,
    el("div", { class: "row spread" }, el("h1", {}, "Looks"),
      el("span", { class: "row" },
        el("span", { class: "row search" }, el("label", { for: search.id }, "Search"), search),
        can("concepts:write") && [begin, el("a", { class: "button main", href: "#/teach" }, "Teach a look")])),
    importing, wrong, list, below);
  await load();
  const timer = setInterval(async () => {
    if (document.hidden) return;
    for (const { concept } of [...cards.values()].filter((c) => c.concept.state === "training").slice(0, 5)) {
      const now = await api.concept(concept.id, signal).catch(() => null); // the next round asks again
      if (now && now.state !== "training" && cards.has(now.id)) put(now);
    }
  }, EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

const nothing = () => empty("No looks yet",
  "A look is a concept that the service has learnt. Teach one from three to six pictures.",
  can("concepts:write") && el("a", { class: "button main", href: "#/teach" }, "Teach a look"));

/** What people call a concept. */
export const called = (concept) => concept.name || [concept.attribute, concept.noun].filter(Boolean).join(" ") || concept.token;

function card(concept, wrong, gone) {
  const ready = concept.state === "ready";
  const act = (work) => complaining(wrong, async () => {
    try {
      await work();
    } catch (error) {
      wrong.scrollIntoView({ block: "center" });
      throw error;
    }
  });
  const weights = (format) => act(async () => {
    const file = await api.weights(concept.id, format);
    el("a", { href: file.url, download: file.filename, rel: "noopener" }).click(); // sent as an attachment: the page stays
  });
  const remove = act(async () => {
    const sure = await confirmed(`Delete ${called(concept)}?`, "Its files are removed. Pictures that were made with it stay.", "Delete");
    if (!sure) return;
    await api.removeConcept(concept.id);
    gone();
    announce("The look is deleted");
  });
  const references = el("div", { class: "references" });
  const more = el("details", {
    ontoggle: () => { if (more.open && !references.firstChild) showReferences(references, concept); },
  }, el("summary", {}, "More"),
    references,
    ready && el("div", { class: "row" },
      button("Download weights", weights("customedit"), "quiet small"),
      button("For diffusers", weights("diffusers"), "quiet small", { "aria-label": "Download weights for diffusers" })),
    el("p", { class: "hint" }, "Id ", el("code", {}, concept.id), ready && [", base ", el("code", {}, concept.base)]),
    can("concepts:write") && button("Delete", remove, "danger small", { "aria-label": `Delete ${called(concept)}` }));
  return el("li", { class: "card concept" }, picture(concept),
    el("h2", {}, called(concept)),
    el("p", { class: "row" }, badge(concept.state), el("code", {}, concept.token), concept.noun),
    el("p", { class: "faint" }, when(concept.created_at), ready && ` · ${size(concept.bytes)}`),
    concept.warnings.map((text) => el("p", { class: "warning" }, text)),
    el("div", { class: "row" },
      ready && can("edits:write") && el("a", { class: "button main small", href: `#/edit?concept=${concept.id}` }, "Use it in an edit"),
      el("a", { class: "button quiet small", href: `#/jobs/${concept.job}` }, ready ? "Its job" : "See its job")),
    more);
}

function picture(concept) {
  if (!concept.preview_url) {
    return el("div", { class: "preview none", "aria-hidden": "true" }, concept.token);
  }
  return stored(concept.preview_url, `Preview of ${called(concept)}`,
    async () => (await api.concept(concept.id)).preview_url, { class: "preview" });
}
