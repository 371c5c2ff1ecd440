// Which concepts an edit uses, how strongly, and where.

import { Box } from "./boxes.js";
import { api, isMissing } from "./client.js";
import { called } from "./concepts.js";
import { add, button, el, empty, fill, uid } from "./dom.js";
import { counted, figure, notice, slider, slideTo, told } from "./fields.js";
import { stored } from "./pictures.js";
import { named } from "./prompts.js";
import { field } from "./schema.js";
import { can } from "./session.js";

const PAGE = 50;
const MOST_REFERENCES = 4;

/** A look as a request has it. @typedef {{id: string, weight?: number, box?: any, mask?: any}} Use */

/** The ready concepts, to be chosen, each with a weight and the part of the picture that it acts in. */
export class Chosen {
  /**
   * @param {import("./fields.js").Fields} fields @param {import("./boxes.js").Sheet} sheet over the picture
   * @param {() => string} prompt what the picture is to show @param {() => void} changed
   */
  constructor(fields, sheet, prompt, changed) {
    this.fields = fields;
    this.sheet = sheet;
    this.prompt = prompt;
    this.changed = changed;
    this.away = el("div", { role: "status" });
    this.node = el("div", { class: "chosen" }, this.away);
    /** @type {Use[]} looks that are chosen though the service does not give them now */
    this.missing = [];
    this.turn = 0; // of emptying: what comes late is not chosen in what was emptied since
    /** @type {{concept: any, box: any, weight: any, part: Box, row: HTMLElement}[]} */
    this.rows = [];
    fields.alias = (name) => this.#fieldOf(name);
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
      add(this.node, empty("No look is ready", "An edit works by words alone as well. To paint a look, teach one first.",
        can("concepts:write") && el("a", { class: "button quiet", href: "#/teach" }, "Teach a look")));
    }
  }

  #add(concept) {
    if (this.rows.some((row) => row.concept.id === concept.id)) return;
    const id = uid("concept");
    const { minimum, maximum, default: usual } = field("ConceptUse", "weight");
    const shown = el("output", { for: id, class: "weighs" }, usual.toFixed(2));
    const weight = slider({ min: minimum, max: maximum, value: usual, id, oninput: () => this.#weighed(weight) });
    const slide = el("div", { class: "row weight", hidden: true }, el("label", { for: id }, "Weight"), weight, shown);
    const part = new Box(concept.token, this.sheet);
    const where = this.fields.group(`concepts.${concept.id}.box`, `Where ${concept.token} acts`, part.control, "", () => this.#partFault(concept, part));
    where.hidden = true;
    const box = el("input", {
      type: "checkbox", id: uid("take"),
      onchange: () => {
        slide.hidden = references.hidden = where.hidden = !box.checked;
        if (!box.checked) part.take({});
        row.classList.toggle("on", box.checked);
        if (box.checked && !references.firstChild) showReferences(references, concept);
        this.changed();
      },
    });
    const references = el("div", { class: "references", hidden: true });
    const row = el("div", { class: "choose" },
      el("div", { class: "row" }, box, lookThumb(concept),
        el("label", { for: box.id }, called(concept), " ", el("code", {}, concept.token))), references, slide, where);
    this.rows.push({ concept, box, weight, part, row });
    this.node.insertBefore(row, this.node.querySelector(".more"));
  }

  /** Shows how much a look weighs. @param {HTMLInputElement} weight */
  #weighed(weight) {
    /** @type {HTMLElement} */ (weight.parentElement?.querySelector(".weighs")).textContent = Number(weight.value).toFixed(2);
  }

  /** What is wrong with the part of the picture that a look acts in. @param {any} concept @param {Box} part */
  #partFault(concept, part) {
    if (part.on && this.idle(this.prompt()).includes(concept)) return `The line does not name ${concept.token}: name it, or remove the box.`;
    return part.fault();
  }

  /** The field of `concepts[1].box`: the list has only those that are chosen. @param {string} name */
  #fieldOf(name) {
    const at = /^concepts\[(\d+)\]\.(box|mask)/.exec(name);
    const row = at && this.taken[Number(at[1])];
    return row ? `concepts.${row.concept.id}.box` : name;
  }

  /** Takes back what was said of the parts that are right by now. */
  mended() {
    this.taken.forEach(({ concept }) => this.fields.mended(`concepts.${concept.id}.box`));
  }

  /** The tokens of all looks in the list. @returns {string[]} */
  get tokens() {
    return this.rows.map(({ concept }) => concept.token);
  }

  /** Chooses the newest look with a token. @param {string} token */
  chooseToken(token) {
    const row = this.rows.find(({ concept }) => concept.token === token);
    return row && this.choose(row.concept.id);
  }

  /** Takes back what was chosen. */
  clear() {
    this.turn++;
    this.missing = [];
    fill(this.away);
    this.taken.forEach(({ box, weight }) => {
      box.checked = false;
      slideTo(weight, field("ConceptUse", "weight").default);
      this.#weighed(weight);
      box.dispatchEvent(new Event("change"));
    });
  }

  /**
   * Chooses the looks of a draft, or of an earlier request. One that was deleted is told, and left out; one that the
   * service does not give now is told, and stays chosen.
   * @param {Use[]} uses
   */
  async take(uses) {
    /** @type {Use[]} */
    const missing = [];
    let [gone, why] = [0, /** @type {unknown} */ (null)];
    const mine = this.turn;
    for (const use of uses) {
      await this.choose(use.id, use).catch((error) => {
        if (isMissing(error)) return gone++;
        why = error;
        return missing.push(use);
      });
    }
    if (mine !== this.turn) return;
    this.missing = missing;
    const again = () => this.take(missing).then(() => this.changed());
    const leave = () => { this.missing = []; fill(this.away); this.changed(); };
    fill(this.away, gone > 0 && el("p", { class: "hint" }, `${counted(gone, "look")} of this form ${gone === 1 ? "was" : "were"} deleted meanwhile.`),
      missing.length > 0 && el("div", { class: "warning" },
        `${counted(missing.length, "look")} cannot be shown now, and ${missing.length === 1 ? "stays" : "stay"} chosen.`, told(why),
        el("p", { class: "row" }, button("Try again", again, "small"), button("Leave them out", leave, "quiet small"))));
  }

  /**
   * Chooses a concept; fetches it if it is not in the list yet.
   * @param {string} id @param {Omit<Use, "id"> | null} [use] as an earlier request had it; null: as it is
   */
  async choose(id, use = null) {
    if (!this.rows.some((row) => row.concept.id === id)) {
      const mine = this.turn;
      const concept = await api.concept(id);
      if (mine !== this.turn) return;
      if (concept.state === "ready") this.#add(concept);
    }
    const row = this.rows.find((one) => one.concept.id === id);
    if (!row) return;
    row.box.checked = true;
    if (use) {
      slideTo(row.weight, use.weight ?? field("ConceptUse", "weight").default);
      this.#weighed(row.weight);
      row.part.take(use);
    }
    row.box.dispatchEvent(new Event("change"));
  }

  get taken() {
    return this.rows.filter((row) => row.box.checked);
  }

  /** What goes into the request. */
  uses() {
    const shown = this.taken.map(({ concept, weight, part }) => ({ id: concept.id, weight: figure(weight.value), ...part.value() }));
    return [...shown, ...this.missing.filter(({ id }) => !shown.some((use) => use.id === id))];
  }

  /** The tokens in `prompt` that no chosen concept has; imported ones may hold more than they say, as may those that are not shown. */
  strangers(prompt) {
    if (this.missing.length || this.taken.some(({ concept }) => !concept.references.length)) return [];
    const tokens = this.taken.map(({ concept }) => concept.token);
    return [...new Set(named(prompt))].filter((token) => !tokens.includes(token));
  }

  /** The chosen concepts that `prompt` does not name. */
  idle(prompt) {
    return this.taken.filter(({ concept }) => !named(prompt).includes(concept.token)).map(({ concept }) => concept);
  }
}

/** A look, small: its preview, or else its token. */
export function lookThumb(concept) {
  if (!concept.preview_url) return el("span", { class: "thumb none", "aria-hidden": "true" }, concept.token.slice(1, 3));
  return stored(concept.preview_url, "", async () => (await api.concept(concept.id)).preview_url, { class: "thumb" });
}

/** Shows the pictures that a look was taught with, as far as they are still there. @param {HTMLElement} place */
export async function showReferences(place, concept) {
  const images = await Promise.all(concept.references.slice(0, MOST_REFERENCES).map((id) => api.image(id).catch(() => null)));
  fill(place, images.map((image, number) => image &&
    stored(image.url, `Reference ${number + 1} of ${called(concept)}`, async () => (await api.image(image.id)).url, { class: "thumb" })));
}
