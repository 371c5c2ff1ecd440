// The expert settings of an edit; what stays empty is left to the service.

import { el } from "./dom.js";
import { box, figure, given, number, select, text, words } from "./fields.js";
import { Pictures } from "./pictures.js";
import { field, hint, options } from "./schema.js";

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
const REGIONS = { source: "the source's map", union: "both maps", mask: "the mask", none: "no region" };
const about = (name) => hint("EditRequest", name);

/** The expert part of the form of an edit. */
export class Expert {
  /** @param {import("./fields.js").Fields} fields */
  constructor(fields) {
    this.fields = fields;
    this.numbers = new Map(EVERY.map(([name]) => [name, number()]));
    this.p2p = new Map(P2P.map(([name]) => [name, number()]));
    this.inversion = select(options("EditRequest", "inversion"));
    this.way = select(options("EditRequest", "p2p.way"));
    this.over = select(options("EditRequest", "p2p.blend_over", REGIONS));
    this.blend = text();
    this.maps = box();
    this.everywhere = box();
    this.mask = new Pictures({ most: 1, what: "a mask", alt: () => "The mask" });
    this.p2pOnly = el("fieldset", {}, el("legend", {}, "Prompt-to-Prompt"), el("div", { class: "grid" },
      fields.add("p2p.way", "Way", this.way, about("p2p.way")),
      fields.add("p2p.blend_over", "Region", this.over, about("p2p.blend_over")),
      fields.add("p2p.blend_words", "Words of the region", this.blend, about("p2p.blend_words")),
      P2P.map(([name, label]) => fields.add(`p2p.${name}`, label, /** @type {HTMLElement} */ (this.p2p.get(name)), about(`p2p.${name}`)))));
    this.node = el("details", {}, el("summary", {}, "Expert settings"),
      el("div", { class: "grid" },
        fields.add("inversion", "Inversion", this.inversion, about("inversion")),
        EVERY.map(([name, label]) => fields.add(name, label, /** @type {HTMLElement} */ (this.numbers.get(name)), about(name)))),
      this.p2pOnly,
      fields.group("mask", "Mask", this.mask.node, about("mask")),
      fields.tick("everywhere", "Let the concept act on every word", this.everywhere, about("everywhere")),
      fields.tick("maps", "Keep the attention maps", this.maps, about("maps")));
  }

  /** Shows what `method` has. @param {string} method */
  method(method) {
    this.p2pOnly.hidden = method !== "p2p";
  }

  /** What was filled in; sends the mask. @param {string} method */
  async values(method) {
    const read = (controls) => Object.fromEntries([...controls].map(([name, control]) => [name, figure(control.value)]));
    const p2p = given({
      way: this.way.value, blend_over: this.over.value, blend_words: words(this.blend.value), ...read(this.p2p),
    });
    const [mask] = await this.mask.sent();
    return given({
      inversion: this.inversion.value, ...read(this.numbers), mask, p2p: method === "p2p" ? p2p : undefined,
      everywhere: this.everywhere.checked || undefined, maps: this.maps.checked || undefined,
    }) || {};
  }

  /** Fills in what an earlier request had. @param {any} request */
  take(request) {
    const write = (control, value) => { if (value !== undefined && value !== null) control.value = String(value); };
    for (const [name, control] of this.numbers) write(control, request[name]);
    for (const [name, control] of this.p2p) write(control, request.p2p?.[name]);
    const unusual = (name, value) => (value === field("EditRequest", name).default ? undefined : value);
    write(this.inversion, unusual("inversion", request.inversion));
    write(this.way, unusual("p2p.way", request.p2p?.way));
    write(this.over, request.p2p?.blend_over);
    if (request.p2p?.blend_words?.length) write(this.blend, request.p2p.blend_words.join(", "));
    this.maps.checked = Boolean(request.maps);
    this.everywhere.checked = Boolean(request.everywhere);
  }
}
