// The looks that were taught.

import { api } from "./client.js";
import { add, announce, button, confirmed, el, empty, fill } from "./dom.js";
import { complain } from "./fields.js";
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
  /** @type {Map<string, {concept: any, card: HTMLElement}>} */
  const cards = new Map();
  const none = () => fill(below, nothing());
  const put = (concept) => {
    const made = card(concept, wrong, () => { cards.get(concept.id)?.card.remove(); cards.delete(concept.id); if (!cards.size) none(); });
    const before = cards.get(concept.id);
    before ? before.card.replaceWith(made) : list.append(made);
    cards.set(concept.id, { concept, card: made });
  };
  const load = async (cursor = null) => {
    const page = await api.concepts({ limit: PAGE, cursor }, signal);
    page.items.forEach(put);
    const more = page.next_cursor && button("More", () => load(page.next_cursor).catch((e) => complain(wrong, e)));
    fill(below, more);
    if (!cards.size) none();
  };
  add(main,
    el("div", { class: "row spread" }, el("h1", {}, "Concepts"),
      can("concepts:write") && el("a", { class: "button main", href: "#/teach" }, "Teach a look")),
    wrong, list, below);
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

const nothing = () => empty("No concepts yet",
  "A concept is a look that the service has learnt. Teach one from three to six pictures.",
  can("concepts:write") && el("a", { class: "button main", href: "#/teach" }, "Teach a look"));

/** What people call a concept. */
export const called = (concept) => concept.name || [concept.attribute, concept.noun].filter(Boolean).join(" ") || concept.token;

function card(concept, wrong, gone) {
  const ready = concept.state === "ready";
  const act = (work) => async () => {
    try {
      await work();
    } catch (error) {
      complain(wrong, error);
      wrong.scrollIntoView({ block: "center" });
    }
  };
  const weights = (format) => act(async () => {
    const file = await api.weights(concept.id, format);
    el("a", { href: file.url, download: file.filename, rel: "noopener" }).click(); // sent as an attachment: the page stays
  });
  const remove = act(async () => {
    const sure = await confirmed(`Delete ${called(concept)}?`, "Its files are removed. Pictures that were made with it stay.", "Delete");
    if (!sure) return;
    await api.removeConcept(concept.id);
    gone();
    announce("The concept is deleted");
  });
  return el("li", { class: "card concept" }, picture(concept),
    el("h2", {}, called(concept)),
    el("p", { class: "row" }, badge(concept.state), el("code", {}, concept.token), concept.noun),
    el("p", { class: "faint" }, when(concept.created_at), ready && ` · ${size(concept.bytes)}`),
    concept.warnings.map((text) => el("p", { class: "warning" }, text)),
    el("div", { class: "row" },
      ready && can("edits:write") && el("a", { class: "button main small", href: `#/edit?concept=${concept.id}` }, "Use it in an edit"),
      el("a", { class: "button quiet small", href: `#/jobs/${concept.job}` }, ready ? "Its job" : "See its job")),
    el("details", {}, el("summary", {}, "More"),
      ready && el("div", { class: "row" },
        button("Download weights", weights("customedit"), "quiet small"),
        button("For diffusers", weights("diffusers"), "quiet small", { "aria-label": "Download weights for diffusers" })),
      el("p", { class: "hint" }, "Id ", el("code", {}, concept.id), ready && [", base ", el("code", {}, concept.base)]),
      can("concepts:write") && button("Delete", remove, "danger small", { "aria-label": `Delete ${called(concept)}` })));
}

function picture(concept) {
  if (!concept.preview_url) return el("div", { class: "preview none", "aria-hidden": "true" }, concept.token);
  return stored(concept.preview_url, `Preview of ${called(concept)}`,
    async () => (await api.concept(concept.id)).preview_url, { class: "preview" });
}
