// Which concepts an edit uses, and how strongly.

import { api } from "./client.js";
import { called } from "./concepts.js";
import { add, button, el, empty, fill, uid } from "./dom.js";
import { figure, notice } from "./fields.js";
import { field } from "./schema.js";
import { can } from "./session.js";

const PAGE = 50;

/** The schema's pattern of a token, to be found inside a text. */
const tokens = () => new RegExp(field("CustomizeRequest", "token").pattern.replace(/^\^|\$$/g, ""), "g");

/** The tokens that a prompt names, as the service reads them. @param {string} prompt @returns {string[]} */
export const named = (prompt) => prompt.match(tokens()) || [];

/** The ready concepts, to be chosen, each with a weight. */
export class Chosen {
  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
    this.node = el("div", { class: "chosen" });
    /** @type {{concept: any, box: any, weight: any, row: HTMLElement}[]} */
    this.rows = [];
  }

  /** Fetches the concepts. @param {AbortSignal} signal */
  async load(signal, cursor = null) {
    const page = await api.concepts({ limit: PAGE, cursor }, signal);
    const ready = page.items.filter((concept) => concept.state === "ready");
    ready.forEach((concept) => this.#add(concept));
    this.node.querySelector(".more")?.remove();
    if (page.next_cursor) {
      const failed = (error) => add(this.node, notice(error));
      add(this.node, button("More", () => this.load(signal, page.next_cursor).catch(failed), "quiet small more"));
    } else if (!this.rows.length) {
      fill(this.node, empty("No look is ready", "An edit works by words alone as well. To paint a look, teach one first.",
        can("concepts:write") && el("a", { class: "button quiet", href: "#/teach" }, "Teach a look")));
    }
  }

  #add(concept) {
    if (this.rows.some((row) => row.concept.id === concept.id)) return;
    const id = uid("concept");
    const { minimum, maximum, default: usual } = field("ConceptUse", "weight");
    const shown = el("output", { for: id }, usual.toFixed(2));
    const weight = el("input", { type: "range", min: minimum, max: maximum, step: 0.05, value: usual, id, oninput: () => { shown.textContent = Number(weight.value).toFixed(2); } });
    const slide = el("div", { class: "row weight", hidden: true }, el("label", { for: id }, "Weight"), weight, shown);
    const box = el("input", {
      type: "checkbox", id: uid("take"),
      onchange: () => { slide.hidden = !box.checked; row.classList.toggle("on", box.checked); this.changed(); },
    });
    const row = el("div", { class: "choose" },
      el("div", { class: "row" }, box, el("label", { for: box.id }, called(concept), " ", el("code", {}, concept.token))), slide);
    this.rows.push({ concept, box, weight, row });
    this.node.insertBefore(row, this.node.querySelector(".more"));
  }

  /** Chooses a concept; fetches it if it is not in the list yet. */
  async choose(id, weight = field("ConceptUse", "weight").default) {
    if (!this.rows.some((row) => row.concept.id === id)) {
      const concept = await api.concept(id);
      if (concept.state === "ready") this.#add(concept);
    }
    const row = this.rows.find((one) => one.concept.id === id);
    if (!row) return;
    [row.box.checked, row.weight.value] = [true, weight];
    row.weight.dispatchEvent(new Event("input"));
    row.box.dispatchEvent(new Event("change"));
  }

  get taken() {
    return this.rows.filter((row) => row.box.checked);
  }

  /** What goes into the request. */
  uses() {
    return this.taken.map(({ concept, weight }) => ({ id: concept.id, weight: figure(weight.value) }));
  }

  /** The tokens in `prompt` that no chosen concept has; imported ones may hold more than they say. */
  strangers(prompt) {
    if (this.taken.some(({ concept }) => !concept.references.length)) return [];
    const tokens = this.taken.map(({ concept }) => concept.token);
    return [...new Set(named(prompt))].filter((token) => !tokens.includes(token));
  }

  /** The chosen concepts that `prompt` does not name. */
  idle(prompt) {
    return this.taken.filter(({ concept }) => !named(prompt).includes(concept.token)).map(({ concept }) => concept);
  }
}
