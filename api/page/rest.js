// What an earlier request or a preset had and the form has no control for: kept, told, and sent along.

import { announce, button, el, fill } from "./dom.js";
import { counted, given } from "./fields.js";
import { names, usual } from "./schema.js";

/** Fields that the form fills in from a request in other ways; those of `preset` stand in the request themselves. */
const TAKEN = ["image", "mask", "mask_marks", "concepts", "preset"];
/** Settings of a method about where it may change: they go with the kind of region that they came with. */
const OF_REGION = ["blend_over", "blend_words", "blend_target_words", "subtract", "threshold", "blend_start"];

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other ?? null);
const range = (value) => (Array.isArray(value) ? value.join(" to ") : value);

/** A field with its value, for people. */
function said([name, value]) {
  if (name === "references") return counted(value.length, "picture") + " to compare with";
  const words = Array.isArray(value) ? value.join(", ")
    : typeof value === "object" ? Object.entries(value).map(([word, of]) => `${word} ${range(of)}`).join(", ") : String(value);
  return `${name.replace(/_/g, " ")}: ${words}`;
}

/** The fields of `object` that `sent` lacks and that are not as the service would set them. @param {string} path of the fields, "" or "p2p." */
const lacking = (object, sent, path) => Object.fromEntries(Object.entries(object).filter(([name, value]) =>
  value !== null && sent[name] === undefined && !same(value, usual("EditRequest", path + name))));

/**
 * fields: of the request; settings: of its method; region: the kind of region that it had; from: where all of it is from.
 * @typedef {{fields: Record<string, any>, method: string, settings: Record<string, any>, region: string, from: string}} Held
 */

/** @returns {Held} */
const nothing = () => ({ fields: {}, method: "", settings: {}, region: "", from: "" });

/** The line of what is kept, with a button that drops it. */
export class Rest {
  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
    this.held = nothing();
    this.node = el("div", { tabindex: "-1" });
  }

  /**
   * Keeps what `request` has beyond what the form sends.
   * @param {any} request @param {Record<string, any>} sent what the form sends @param {string} region the kind that the form has
   * @param {string} from such as "that run"
   */
  take(request, sent, region, from) {
    const method = request.method || "p2p";
    const others = Object.fromEntries(Object.entries(request).filter(([name]) => name !== method && !TAKEN.includes(name)));
    this.held = {
      fields: lacking(others, sent, ""), method, settings: lacking(request[method] || {}, sent[method] || {}, `${method}.`), region, from,
    };
  }

  /** What a preset cannot hold. */
  beyondPresets() {
    const kept = names("PresetSettings");
    return Object.fromEntries(Object.entries(this.held.fields).filter(([name]) => !kept.includes(name)));
  }

  /** What is sent along. @param {string} method @param {string} region the kind of region @returns {{fields: Record<string, any>, settings: Record<string, any>}} */
  values(method, region) {
    const { held } = this;
    const settings = held.method !== method ? {} : Object.fromEntries(Object.entries(held.settings).filter(([name]) =>
      region === held.region || !OF_REGION.includes(name)));
    return { fields: held.fields, settings };
  }

  /** `request` with what is sent along; its own fields come first. @param {Record<string, any>} request @param {string} region */
  beside(request, region) {
    const { method } = request;
    const { fields, settings } = this.values(method, region);
    const own = given({ ...settings, ...request[method] });
    return { ...fields, ...request, ...(own && { [method]: own }) };
  }

  /** Shows what is sent along. @param {string} method @param {string} region */
  tell(method, region) {
    const { fields, settings } = this.values(method, region);
    const lines = [...Object.entries(fields), ...Object.entries(settings)].map(said);
    const shown = lines.length > 0 && `Also kept from ${this.held.from}: ${lines.join("; ")}.`;
    if (this.shown === shown) return;
    this.shown = shown;
    fill(this.node, shown && el("p", { class: "notice row" }, el("span", { class: "grow" }, shown), button("Leave it out", () => this.#drop(), "quiet small")));
  }

  #drop() {
    this.clear();
    this.changed();
    announce("It is left out");
    this.node.focus();
  }

  clear() {
    this.held = nothing();
  }

  /** Shows again what a draft kept. @param {Held | undefined} held */
  restore(held) {
    this.held = held || nothing();
  }
}
