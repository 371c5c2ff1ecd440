// The expert settings of an edit; what stays empty is left to the service.

import { el } from "./dom.js";
import { box, chips, figure, figures, given, number, select, text } from "./fields.js";
import { choices, field, hint, names, numberFault, options, usual } from "./schema.js";
import { known } from "./session.js";

const EVERY = [
  ["steps", "Steps"],
  ["guidance", "Guidance"],
  ["guidance_start", "Guidance from"],
  ["guidance_end", "Guidance until"],
  ["feather", "Feather"],
];
const LABELS = {
  way: "Way", blend_over: "Attention maps of the region", threshold: "Threshold of the region", blend_start: "Blend from",
  cross_steps: "Cross-attention share", self_steps: "Self-attention share",
};
const REGION = ["blend_over", "threshold", "blend_start"]; // they have an effect where the words give the region
const MAPS = { source: "the source's", union: "those of source and target" };
/** @type {[string, string][]} */
const YES_OR_NO = [["", "chosen by the service"], ["true", "yes"], ["false", "no"]];
/** @type {[string, string][]} */
const SEVERAL = [["0.3, 0.5, 0.7", "0.3, 0.5, 0.7"], ["0.1 to 0.9", "0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9"]];
export const METHODS = {
  p2p: "Prompt-to-Prompt: keeps the shape", sdedit: "SDEdit: paints more freely", masactrl: "MasaCtrl: shares keys and values",
  pnp: "Plug-and-Play: shares features", ddpm: "Edit-friendly DDPM: shares noise", directedit: "DirectEdit", flowedit: "FlowEdit: for bases of flow matching",
};
/** Methods that draw by chance, so that several seeds make several pictures. */
const BY_CHANCE = ["sdedit", "ddpm", "flowedit"];
/** Whether a method starts from an inversion of the picture, which the base makes without any look. @param {string} method */
export const inverts = (method) => !BY_CHANCE.includes(method);
const called = (method) => (METHODS[method] || method).split(":")[0];
const about = (name) => hint("EditRequest", name);
const fault = (name, control) => () => numberFault("EditRequest", name, control.value);
const spoken = (name) => LABELS[name] || (name[0].toUpperCase() + name.slice(1)).replace(/_/g, " ");

const hide = (control, hidden) => { control.closest(".field").hidden = hidden; };
/** What is in a control; nothing where it is hidden. */
const shown = (control) => (control.closest(".field[hidden]") ? "" : control.value);
/** The same as a value of the request: a number, a truth, or a word. */
const value = (control) => {
  const written = shown(control);
  return written === "true" || written === "false" ? written === "true" : figure(written);
};

/** A control for a setting of a method; null for lists and tables, which the page leaves to the API. */
function control(path) {
  const { type, enum: values, const: value } = field("EditRequest", path);
  if (path.endsWith(".blend_over")) return select(options("EditRequest", path, MAPS).filter(([name]) => name === "" || name in MAPS));
  if (values || value) return select(options("EditRequest", path));
  if (type === "boolean") return select(YES_OR_NO);
  return type === "number" || type === "integer" ? number() : null;
}

/** The expert part of the form of an edit. */
export class Expert {
  /** @param {import("./fields.js").Fields} fields @param {() => void} changed the strengths */
  constructor(fields, changed) {
    this.chosen = field("EditRequest", "method").default;
    this.numbers = new Map(EVERY.map(([name]) => [name, number()]));
    this.strengths = number({ oninput: changed });
    this.seeds = number({ value: field("EditRequest", "seeds").default.join(", ") });
    this.inversion = select(options("EditRequest", "inversion"));
    this.preserve = select([["", "wherever the edit has a region (default)"], ["true", "yes"], ["false", "no"]]);
    this.webhook = text({ inputmode: "url" });
    this.maps = box();
    this.everywhere = box();
    /** @type {Map<string, {node: HTMLElement, controls: Map<string, any>}>} the settings of each method that has some */
    this.methods = new Map(choices("EditRequest", "method").map((method) => [method, this.#method(fields, method)]));
    const several = chips(SEVERAL, "Strengths: ", (value) => { this.strengths.value = value; this.strengths.dispatchEvent(new Event("input", { bubbles: true })); });
    const line = (name, label, control) => fields.add(name, label, control, about(name), fault(name, control));
    this.node = el("details", {}, el("summary", {}, "Expert settings"),
      fields.add("strengths", "Strengths", this.strengths, `${about("strengths")} Takes the place of the slider.`, () => this.#strengthsFault()),
      several,
      el("div", { class: "grid" },
        fields.add("seeds", "Seeds", this.seeds, `${about("seeds")} Of methods that draw by chance.`, () => this.#seedsFault()),
        fields.add("inversion", "Inversion", this.inversion, about("inversion")),
        EVERY.map(([name, label]) => line(name, label, this.numbers.get(name))),
        fields.add("preserve", "Keep the picture's own pixels outside the region", this.preserve)),
      [...this.methods.values()].map(({ node }) => node),
      fields.tick("everywhere", "Let the concept act on every word", this.everywhere, about("everywhere")),
      fields.tick("maps", "Keep the attention maps", this.maps, about("maps")),
      fields.add("webhook", "Webhook", this.webhook, about("webhook"), () => webhookFault(this.webhook.value)));
  }

  #method(fields, method) {
    const controls = new Map(names("EditRequest", method).flatMap((name) => {
      const made = control(`${method}.${name}`);
      return made ? [[name, made]] : [];
    }));
    const node = el("fieldset", {}, el("legend", {}, called(method)), el("div", { class: "grid" },
      [...controls].map(([name, made]) => {
        const path = `${method}.${name}`;
        const explained = name === "blend_over" ? "Which maps decide the region that the words give." : about(path);
        return fields.add(path, spoken(name), made, explained, made.matches("select") ? undefined : fault(path, made));
      })));
    return { node, controls };
  }

  #seedsFault() {
    const count = (figures(this.seeds.value) || []).length;
    return fault("seeds", this.seeds)() || (count > 1 && !BY_CHANCE.includes(this.chosen)
      ? `${called(this.chosen)} draws nothing by chance: ${count} seeds would make the same picture ${count} times. Write one seed, or choose ${BY_CHANCE.map(called).join(", ")}.` : "");
  }

  #strengthsFault() {
    const most = known().max_edits_per_job;
    const count = (figures(this.strengths.value) || [0]).length * (figures(this.seeds.value) || [0]).length;
    return numberFault("EditRequest", "strengths", this.strengths.value) ||
      (count > most ? `Strengths times seeds make ${count} pictures; at most ${most}.` : "");
  }

  /** Shows what has an effect. @param {string} method @param {boolean} words whether the words give the region */
  follow(method, words) {
    this.chosen = method;
    for (const [name, { node, controls }] of this.methods) {
      node.hidden = name !== method || !controls.size;
      for (const setting of REGION) if (controls.has(setting)) hide(controls.get(setting), !words);
    }
    hide(this.inversion, method !== "p2p");
  }

  /** All controls by name, for a draft. @returns {Record<string, any>} */
  controls() {
    const { strengths, seeds, inversion, preserve, webhook, maps, everywhere } = this;
    const own = [...this.methods].flatMap(([method, { controls }]) => [...controls].map(([name, made]) => [`${method}.${name}`, made]));
    return { ...Object.fromEntries([...this.numbers, ...own]), strengths, seeds, inversion, preserve, webhook, maps, everywhere };
  }

  /** What was filled in. @param {string} method @param {Record<string, any>} region what the region adds to the method's settings */
  values(method, region) {
    const read = (controls) => Object.fromEntries([...controls].map(([name, made]) => [name, value(made)]));
    const controls = this.methods.get(method)?.controls || new Map();
    return given({
      strengths: figures(this.strengths.value),
      seeds: figures(this.seeds.value),
      inversion: shown(this.inversion), ...read(this.numbers),
      ...(names("EditRequest", method).length > 0 && { [method]: given({ ...read(controls), ...region }) }),
      preserve: value(this.preserve),
      everywhere: this.everywhere.checked || undefined, maps: this.maps.checked || undefined, webhook: this.webhook.value.trim(),
    }) || {};
  }

  /** Fills in what an earlier request had. @param {any} request */
  take(request) {
    const write = (made, written) => { if (written !== undefined && written !== null) made.value = String(written); };
    const unusual = (path, written) => (written === usual("EditRequest", path) ? undefined : written);
    for (const [name, made] of this.numbers) write(made, unusual(name, request[name]));
    const settings = request[request.method || "p2p"] || {};
    for (const [name, made] of this.methods.get(request.method || "p2p")?.controls || []) {
      const written = unusual(`${request.method || "p2p"}.${name}`, settings[name]);
      if (name !== "blend_over" || (written || "") in MAPS) write(made, written);
    }
    this.strengths.value = (request.strengths || []).join(", ");
    this.seeds.value = (request.seeds || [0]).join(", ");
    write(this.inversion, unusual("inversion", request.inversion));
    write(this.preserve, request.preserve);
    write(this.webhook, request.webhook);
    this.maps.checked = Boolean(request.maps);
    this.everywhere.checked = Boolean(request.everywhere);
  }
}

/** What is wrong with the address of a webhook. */
export const webhookFault = (written) =>
  !written.trim() || /^https:\/\/[^\s/]+/.test(written.trim()) ? "" : "Write an https address, such as one of your own server.";
