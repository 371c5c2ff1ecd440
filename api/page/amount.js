// How much an edit changes: one slider, or several values of which the best is kept.

import { el } from "./dom.js";
import { box, slider, slideTo } from "./fields.js";

const USUAL_CHANGE = 0.5; // at which methods have their own defaults
const USUAL_OF = { sdedit: 0.6 }; // but this one

/** The field of how much changes; strengths of the expert settings take its place. */
export class Amount {
  /** @param {() => void} changed */
  constructor(changed) {
    this.change = slider({ min: 0, max: 1, value: USUAL_CHANGE, oninput: changed });
    this.auto = box({ onchange: changed });
    this.figure = el("output", { class: "figure" });
    this.explained = el("p", { class: "hint" });
  }

  /**
   * The field of a form.
   * @param {import("./fields.js").Fields} fields
   * @param {() => boolean} compared whether there is a look, by whose references the best of several is known
   */
  node(fields, compared) {
    const made = fields.add("change", "How much changes", this.change, "", () =>
      (this.#several && !compared() ? "Choose a look: its references tell which of several is best." : ""));
    made.classList.add("amount");
    this.change.before(this.figure);
    this.auto.id = `${this.change.id}-auto`;
    made.append(this.explained, el("div", { class: "row tick" }, this.auto,
      el("label", { for: this.auto.id }, "Try several and keep the best")));
    return made;
  }

  get #several() {
    return this.auto.checked && !this.auto.disabled;
  }

  /** Shows what has an effect. @param {string} strengths as written under the expert settings */
  tell(strengths) {
    this.auto.disabled = strengths !== "";
    this.change.disabled = strengths !== "" || this.auto.checked;
    this.figure.textContent = this.change.disabled ? "–" : `${Math.round(Number(this.change.value) * 1000) / 10} %`;
    this.explained.textContent = strengths ? `Strengths ${strengths} are set under expert settings.`
      : this.auto.checked ? "Several values are drawn; the best by source and references is kept, and the result shows what each scored."
        : "0 % gives the picture back, 100 % changes most.";
  }

  /** What goes into the request. @returns {number | "auto"} */
  value() {
    return this.auto.checked ? "auto" : Number(this.change.value);
  }

  /** Fills in what an earlier request had. @param {unknown} change a number, "auto", or nothing for the usual one of `method` @param {string} method */
  take(change, method) {
    this.auto.checked = change === "auto";
    slideTo(this.change, typeof change === "number" ? change : USUAL_OF[method] ?? USUAL_CHANGE);
  }
}
