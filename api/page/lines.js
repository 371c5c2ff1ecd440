// The two lines of an edit, what the picture shows and is to show, and the looks that they name.

import { Chosen } from "./chosen.js";
import { announce, button, el, fill } from "./dom.js";
import { area } from "./fields.js";
import { insertToken, named, nearest, plain, withLook } from "./prompts.js";
import { Reading } from "./reading.js";

/** The lines with their looks, chips that write for you, and advice. */
export class Lines {
  /**
   * @param {import("./fields.js").Fields} fields @param {import("./boxes.js").Sheet} sheet over the picture
   * @param {() => void} changed @param {AbortSignal} signal the view's end
   */
  constructor(fields, sheet, changed, signal) {
    this.fields = fields;
    this.changed = changed;
    this.inverted = () => true;
    this.source = area({ oninput: changed });
    this.target = area({ oninput: changed });
    this.chosen = new Chosen(fields, sheet, () => this.target.value, changed);
    this.reading = new Reading([this.source, this.target], () => this.chosen.uses().map(({ id }) => id), signal);
    this.chips = el("div", { class: "row chips" });
    this.advice = el("div", { class: "advice", role: "status" });
  }

  /**
   * The parts of a form, in order.
   * @param {() => boolean} compared whether the method compares the lines
   * @param {() => boolean} inverted whether it starts from an inversion of the picture
   */
  nodes(compared, inverted) {
    const { fields } = this;
    this.inverted = inverted;
    const [ofSource, ofTarget] = this.reading.places;
    return [
      fields.add("source_prompt", "What it shows", this.source, "Such as: a photo of a cup on a table", () =>
        (!compared() || this.source.value.trim() ? this.#strange() && `${this.#strange()}: describe the picture without it.`
          : "Say what the picture shows: the method compares the two lines.")),
      ofSource,
      fields.add("target_prompt", "What it is to show", this.target, "Such as: a photo of a <plaid> patterned cup on a table", () => this.#fault()),
      ofTarget, this.chips, this.advice,
      fields.group("concepts", "Looks", this.chosen.node),
    ];
  }

  /** The tokens in the line of what it shows, where the picture is inverted: by the base, which does not know them. */
  #strange() {
    return this.inverted() ? [...new Set(named(this.source.value))].join(", ") : "";
  }

  #fault() {
    if (!this.target.value.trim()) return "Say what the picture is to show.";
    const strangers = this.chosen.strangers(this.target.value);
    return strangers.length ? `${strangers.join(", ")}: choose the look with this token, or take it out.` : "";
  }

  /** Shows the chips of the chosen looks, and what the lines say amiss. */
  tell() {
    const taken = this.chosen.taken.map(({ concept }) => concept);
    fill(this.chips,
      taken.map((concept) => button(`Insert ${concept.token}`, () => { insertToken(this.target, concept.token); this.#written(); }, "chip")),
      taken.length === 1 && button("Write it from the line above", () => this.#write(taken[0]), "chip"));
    fill(this.advice, ...this.#advice());
    this.chosen.mended();
    this.reading.later();
  }

  /** What the lines say amiss, with what mends it. */
  #advice() {
    const prompt = this.target.value;
    const warn = (text, ...actions) => el("div", { class: "warning" }, text, actions.length > 0 && el("span", { class: "row" }, actions));
    const strangers = this.chosen.strangers(prompt);
    const idle = this.chosen.idle(prompt).map((concept) => concept.token);
    const strange = this.#strange();
    const found = strange ? [warn(`${strange} stands in the line of what it shows, which is read without any look. `,
      button("Take it out", () => this.#plain(), "small"))] : [];
    found.push(...strangers.map((token) => {
      if (this.chosen.tokens.includes(token)) {
        return warn(`${token}: no look with this token is chosen. `,
          button(`Choose ${token}`, () => this.chosen.chooseToken(token), "small"));
      }
      return warn(`${token}: no look with this token is chosen. `, ...nearest(token, this.chosen.tokens).slice(0, 2).map((other) =>
        button(`Did you mean ${other}?`, () => this.#replace(token, other), "small")));
    }));
    if (prompt && idle.length) found.push(warn(`The line does not name ${idle.join(", ")}, so that look has no effect.`));
    if (prompt.trim() && prompt.trim() === this.source.value.trim()) found.push(warn("Both lines are the same, so nothing would change."));
    return found;
  }

  #plain() {
    this.source.value = plain(this.source.value);
    this.source.dispatchEvent(new Event("input", { bubbles: true }));
    this.source.focus();
  }

  #replace(token, other) {
    this.target.value = this.target.value.split(token).join(other);
    this.chosen.chooseToken(other);
    this.#written();
    this.target.focus();
  }

  #write(concept) {
    this.target.value = withLook(this.source.value.trim(), concept);
    announce(`Written: ${this.target.value}`);
    this.target.focus();
    this.#written();
  }

  /** After a line was written by a button. */
  #written() {
    this.target.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** What goes into the request. */
  values() {
    const uses = this.chosen.uses();
    return { source_prompt: this.source.value.trim(), target_prompt: this.target.value.trim(), concepts: uses.length ? uses : undefined };
  }
}
