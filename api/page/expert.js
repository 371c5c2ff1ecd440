// The expert settings of an edit; what stays empty is left to the service.

import { el } from "./dom.js";
import { box, figure, given, number, select, text, words } from "./fields.js";
import { Pictures } from "./pictures.js";

const EVERY = [
  ["steps", "Steps", "1 to 200; empty: 50"],
  ["guidance", "Guidance", "0 to 50; empty: the base's own"],
  ["feather", "Feather", "0 to 256 pixels around the kept region; empty: 8"],
];
const P2P = [
  ["cross_steps", "Cross-attention share", "0 to 1; instead of the strength"],
  ["self_steps", "Self-attention share", "0 to 1; instead of the strength"],
  ["threshold", "Threshold of the region", "0 to 1"],
  ["blend_start", "Blend from", "0 to 1 of the steps"],
];

/** The expert part of the form of an edit. */
export class Expert {
  /** @param {import("./fields.js").Fields} fields */
  constructor(fields) {
    this.fields = fields;
    this.numbers = new Map(EVERY.map(([name]) => [name, number()]));
    this.p2p = new Map(P2P.map(([name]) => [name, number()]));
    this.inversion = select([["", "direct (as usual)"], ["null-text", "null-text"], ["negative-prompt", "negative-prompt"], ["ddim", "ddim"]]);
    this.way = select([["", "refine (as usual)"], ["replace", "replace"]]);
    this.over = select([["", "as usual"], ["source", "the source's map"], ["union", "both maps"], ["mask", "the mask"], ["none", "nowhere"]]);
    this.blend = text();
    this.maps = box();
    this.everywhere = box();
    this.mask = new Pictures({ most: 1, what: "a mask", alt: () => "The mask" });
    this.p2pOnly = el("fieldset", {}, el("legend", {}, "Prompt-to-Prompt"), el("div", { class: "grid" },
      fields.add("p2p.way", "Way", this.way, "How the prompts are laid against each other"),
      fields.add("p2p.blend_over", "Region", this.over, "What is painted; the rest stays"),
      fields.add("p2p.blend_words", "Words of the region", this.blend, "Commas between; empty: the concept's noun"),
      P2P.map(([name, label, hint]) => fields.add(`p2p.${name}`, label, this.p2p.get(name), hint))));
    this.node = el("details", {}, el("summary", {}, "Expert settings"),
      el("div", { class: "grid" },
        fields.add("inversion", "Inversion", this.inversion, "How the picture is led back to noise"),
        EVERY.map(([name, label, hint]) => fields.add(name, label, this.numbers.get(name), hint))),
      this.p2pOnly,
      fields.group("mask", "Mask", this.mask.node, "White is painted, black stays; of the source's size."),
      fields.tick("everywhere", "Let the concept act on every word", this.everywhere),
      fields.tick("maps", "Keep the attention maps", this.maps));
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
    if (request.inversion !== "direct") write(this.inversion, request.inversion);
    if (request.p2p?.way === "replace") write(this.way, "replace");
    write(this.over, request.p2p?.blend_over);
    if (request.p2p?.blend_words?.length) write(this.blend, request.p2p.blend_words.join(", "));
    this.maps.checked = Boolean(request.maps);
    this.everywhere.checked = Boolean(request.everywhere);
  }
}
