// The expert settings of an edit; what stays empty is left to the service.

import { el } from "./dom.js";
import { box, chips, figure, figures, given, number, select, text } from "./fields.js";
import { field, hint, numberFault, options } from "./schema.js";
import { known } from "./session.js";

const EVERY = [
  ["steps", "Steps"],
  ["guidance", "Guidance"],
  ["feather", "Feather"],
];
const P2P = [
  ["cross_steps", "Cross-attention share"],
  ["self_steps", "Self-attention share"],
  ["threshold", "Threshold of the region"],
  ["blend_start", "Blend from"],
];
const MAPS = { source: "the source's", union: "those of source and target" };
const YES_OR_NO = { true: "yes", false: "no" };
/** @type {[string, string][]} */
const SEVERAL = [["0.3, 0.5, 0.7", "0.3, 0.5, 0.7"], ["0.1 to 0.9", "0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9"]];
const about = (name) => hint("EditRequest", name);
const fault = (name, control) => () => numberFault("EditRequest", name, control.value);

const hide = (control, hidden) => { control.closest(".field").hidden = hidden; };
/** What is in a control; nothing where it is hidden. */
const shown = (control) => (control.closest(".field[hidden]") ? "" : control.value);

/** The expert part of the form of an edit. */
export class Expert {
  /** @param {import("./fields.js").Fields} fields @param {() => void} changed the strengths */
  constructor(fields, changed) {
    this.numbers = new Map(EVERY.map(([name]) => [name, number()]));
    this.p2p = new Map(P2P.map(([name]) => [name, number()]));
    this.strengths = number({ oninput: changed });
    this.seeds = number({ value: field("EditRequest", "seeds").default.join(", ") });
    this.inversion = select(options("EditRequest", "inversion"));
    this.way = select(options("EditRequest", "p2p.way"));
    this.over = select(options("EditRequest", "p2p.blend_over", MAPS).filter(([value]) => value === "" || value in MAPS));
    this.preserve = select([["", "wherever the edit has a region (default)"], ...Object.entries(YES_OR_NO)]);
    this.webhook = text({ inputmode: "url" });
    this.maps = box();
    this.everywhere = box();
    const several = chips(SEVERAL, "Strengths: ", (value) => { this.strengths.value = value; this.strengths.dispatchEvent(new Event("input", { bubbles: true })); });
    const line = (name, label, control) => fields.add(name, label, control, about(name), fault(name, control));
    this.p2pOnly = el("fieldset", {}, el("legend", {}, "Prompt-to-Prompt"), el("div", { class: "grid" },
      fields.add("p2p.way", "Way", this.way, about("p2p.way")),
      fields.add("p2p.blend_over", "Attention maps of the region", this.over, "Which maps decide the region that the words give."),
      P2P.map(([name, label]) => line(`p2p.${name}`, label, this.p2p.get(name)))));
    this.node = el("details", {}, el("summary", {}, "Expert settings"),
      fields.add("strengths", "Strengths", this.strengths, `${about("strengths")} Takes the place of the slider.`, () => this.#strengthsFault()),
      several,
      el("div", { class: "grid" },
        line("seeds", "Seeds", this.seeds),
        fields.add("inversion", "Inversion", this.inversion, about("inversion")),
        EVERY.map(([name, label]) => line(name, label, this.numbers.get(name))),
        fields.add("preserve", "Keep the picture's own pixels outside the region", this.preserve)),
      this.p2pOnly,
      fields.tick("everywhere", "Let the concept act on every word", this.everywhere, about("everywhere")),
      fields.tick("maps", "Keep the attention maps", this.maps, about("maps")),
      fields.add("webhook", "Webhook", this.webhook, about("webhook"), () => webhookFault(this.webhook.value)));
  }

  #strengthsFault() {
    const most = known().max_edits_per_job;
    const count = (figures(this.strengths.value) || [0]).length * (figures(shown(this.seeds)) || [0]).length;
    return numberFault("EditRequest", "strengths", this.strengths.value) ||
      (count > most ? `Strengths times seeds make ${count} pictures; at most ${most}.` : "");
  }

  /** Shows what has an effect. @param {string} method @param {boolean} words whether the words give the region */
  follow(method, words) {
    this.p2pOnly.hidden = method !== "p2p";
    const shown = { threshold: words, blend_start: words };
    for (const [name, there] of Object.entries(shown)) hide(this.p2p.get(name), !there);
    hide(this.over, !words);
    hide(this.seeds, method === "p2p"); // which draws nothing by chance
    hide(this.inversion, method !== "p2p");
  }

  /** All controls by name, for a draft. @returns {Record<string, HTMLInputElement | HTMLSelectElement>} */
  controls() {
    const { strengths, seeds, inversion, way, over, preserve, webhook, maps, everywhere } = this;
    return { ...Object.fromEntries([...this.numbers, ...this.p2p]), strengths, seeds, inversion, way, over, preserve, webhook, maps, everywhere };
  }

  /** What was filled in. @param {string} method @param {Record<string, any>} region what the region adds to p2p */
  values(method, region) {
    const read = (controls) => Object.fromEntries([...controls].map(([name, control]) => [name, figure(shown(control))]));
    const p2p = given({ way: this.way.value, ...read(this.p2p), blend_over: shown(this.over), ...region });
    return given({
      strengths: figures(this.strengths.value),
      seeds: figures(shown(this.seeds)),
      inversion: shown(this.inversion), ...read(this.numbers), p2p: method === "p2p" ? p2p : undefined,
      preserve: this.preserve.value ? this.preserve.value === "true" : undefined,
      everywhere: this.everywhere.checked || undefined, maps: this.maps.checked || undefined, webhook: this.webhook.value.trim(),
    }) || {};
  }

  /** Fills in what an earlier request had. @param {any} request */
  take(request) {
    const write = (control, value) => { if (value !== undefined && value !== null) control.value = String(value); };
    for (const [name, control] of this.numbers) write(control, request[name]);
    for (const [name, control] of this.p2p) write(control, request.p2p?.[name]);
    const unusual = (name, value) => (value === field("EditRequest", name).default ? undefined : value);
    this.strengths.value = (request.strengths || []).join(", ");
    this.seeds.value = (request.seeds || [0]).join(", ");
    write(this.inversion, unusual("inversion", request.inversion));
    write(this.way, unusual("p2p.way", request.p2p?.way));
    if ((request.p2p?.blend_over || "") in MAPS) write(this.over, request.p2p.blend_over);
    write(this.preserve, request.preserve);
    this.maps.checked = Boolean(request.maps);
    this.everywhere.checked = Boolean(request.everywhere);
  }
}

/** What is wrong with the address of a webhook. */
export const webhookFault = (written) =>
  !written.trim() || /^https:\/\/[^\s/]+/.test(written.trim()) ? "" : "Write an https address, such as one of your own server.";
