// An edit: a picture, what it shows, what it is to show.

import { api, Sending } from "./client.js";
import { Chosen } from "./chosen.js";
import { add, announce, button, el, fill } from "./dom.js";
import { area, box, busy, complain, Fields, figures, form, given, select, text } from "./fields.js";
import { Expert } from "./expert.js";
import { Pictures } from "./pictures.js";
import { choices, field, hint } from "./schema.js";
import { known } from "./session.js";

const METHODS = { p2p: "Prompt-to-Prompt: keeps the shape", sdedit: "SDEdit: paints more freely" };
const about = (name) => hint("EditRequest", name);
const SEVERAL = [["0.5", "0.5"], ["0.3, 0.5, 0.7", "0.3, 0.5, 0.7"], ["0.1 to 0.9", "0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9"]];

/** @param {HTMLElement} main @param {{signal: AbortSignal, query: URLSearchParams}} given */
export async function editView(main, { signal, query }) {
  const view = new Edit();
  add(main,
    el("h1", {}, "Edit a picture"),
    el("p", { class: "lead" }, "Say what the picture shows and what it is to show. Name a look by its token."),
    view.node);
  await view.open(signal, query);
}

class Edit {
  constructor() {
    this.fields = new Fields();
    this.sending = new Sending();
    this.picture = new Pictures({ most: 1, what: "a picture to edit", alt: () => "The picture to edit" });
    this.source = area();
    this.target = area({ oninput: () => this.tell() });
    this.chosen = new Chosen(() => this.tell());
    this.method = select(choices("EditRequest", "method").map((name) => [name, METHODS[name] || name]), { onchange: () => this.tell() });
    this.strengths = text();
    this.seeds = text({ value: field("EditRequest", "seeds").default.join(", ") });
    this.preserve = box();
    this.chips = el("div", { class: "row chips" });
    this.advice = el("p", { class: "warning", role: "status" });
    this.submit = el("button", { class: "main", type: "submit" }, "Edit");
    this.expert = new Expert(this.fields);
    this.node = this.#form();
    this.tell();
  }

  #form() {
    const { fields } = this;
    const several = el("div", { class: "row chips" }, SEVERAL.map(([words, value]) =>
      button(words, () => { this.strengths.value = value; }, "chip", { "aria-label": `Strengths: ${value}` })));
    return form(fields, () => this.#send(),
      el("div", { class: "columns" },
        el("div", {},
          el("section", { class: "card" }, fields.group("image", "Picture", this.picture.node)),
          el("section", { class: "card" }, fields.group("concepts", "Looks", this.chosen.node))),
        el("section", { class: "card" },
          fields.add("source_prompt", "What it shows", this.source, "Such as: a photo of a cup on a table"),
          fields.add("target_prompt", "What it is to show", this.target, "Such as: a photo of a <plaid> patterned cup on a table"),
          this.chips, this.advice,
          fields.add("method", "Method", this.method, about("method")),
          fields.add("strengths", "Strengths", this.strengths, about("strengths")), several,
          fields.add("seeds", "Seeds", this.seeds, `${about("seeds")} Strengths times seeds make at most ${known().max_edits_per_job} pictures.`),
          fields.tick("preserve", "Keep the picture's own pixels outside the region", this.preserve),
          this.expert.node, fields.summary,
          el("div", { class: "row send" }, this.submit))));
  }

  /** Shows the chips of the chosen looks, and what the prompt says amiss. */
  tell() {
    const prompt = this.target.value;
    this.expert.method(this.method.value);
    const taken = this.chosen.taken.map(({ concept }) => concept);
    fill(this.chips,
      taken.map((concept) => button(`Insert ${concept.token}`, () => this.#insert(concept.token), "chip")),
      taken.length === 1 && button("Write it from the line above", () => this.#write(taken[0]), "chip"));
    const strangers = this.chosen.strangers(prompt);
    const idle = this.chosen.idle(prompt).map((concept) => concept.token);
    this.advice.textContent = strangers.length
      ? `${strangers.join(", ")}: no look with this token is chosen.`
      : prompt && idle.length ? `The line does not name ${idle.join(", ")}, so that look has no effect.` : "";
  }

  /** Puts a token where the cursor stands in the target prompt. */
  #insert(token) {
    const { target } = this;
    const [start, end] = [target.selectionStart, target.selectionEnd];
    const space = (text) => (text && !/\s$/.test(text) ? " " : "");
    const before = target.value.slice(0, start);
    const after = target.value.slice(end).replace(/^\s*/, "");
    target.value = `${before}${space(before)}${token} ${after}`;
    target.focus();
    target.selectionStart = target.selectionEnd = target.value.length - after.length;
    this.tell();
  }

  /** The source prompt with the look before its noun. */
  #write({ token, attribute, noun }) {
    const look = [token, attribute, noun].filter(Boolean).join(" ");
    const plain = noun.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const source = this.source.value.trim();
    const written = noun && source.replace(new RegExp(`\\b${plain}\\b`), () => look);
    this.target.value = written && written !== source ? written : [source, look].filter(Boolean).join(" ");
    announce(`Written: ${this.target.value}`);
    this.target.focus();
    this.tell();
  }

  async #send() {
    const { fields, chosen, target } = this;
    const strangers = chosen.strangers(target.value);
    if (!this.picture.items.length) fields.wrong("image", "Choose a picture.");
    if (!target.value.trim()) fields.wrong("target_prompt", "Say what the picture is to show.");
    if (strangers.length) {
      fields.wrong("target_prompt", `${strangers.join(", ")}: choose the look with this token, or take it out.`);
    }
    if (!this.picture.items.length || !target.value.trim() || strangers.length) return fields.focus();
    await busy(this.submit, "Sending…", async () => {
      const [image] = await this.picture.sent();
      const job = await this.sending.send("v1/edits", { image, ...(await this.#values()) });
      location.hash = `#/jobs/${job.id}`;
    });
  }

  async #values() {
    const uses = this.chosen.uses();
    return given({
      source_prompt: this.source.value.trim(),
      target_prompt: this.target.value.trim(),
      concepts: uses.length ? uses : undefined,
      method: this.method.value,
      strengths: figures(this.strengths.value),
      seeds: figures(this.seeds.value),
      preserve: this.preserve.checked || undefined,
      ...(await this.expert.values(this.method.value)),
    });
  }

  /** Fetches the looks, and what the address names: a concept to use, or a job to begin from. */
  async open(signal, query) {
    await this.chosen.load(signal);
    try {
      const concept = query.get("concept");
      if (concept) await this.chosen.choose(concept);
      const job = query.get("job");
      if (job) await this.#take((await api.job(job, signal)).request);
    } catch (error) {
      complain(this.fields.summary, error);
    }
  }

  async #take(request) {
    this.source.value = request.source_prompt || "";
    this.target.value = request.target_prompt || "";
    this.method.value = request.method || "p2p";
    this.strengths.value = (request.strengths || []).join(", ");
    this.seeds.value = (request.seeds || [0]).join(", ");
    this.preserve.checked = Boolean(request.preserve);
    this.expert.take(request);
    for (const use of request.concepts || []) await this.chosen.choose(use.id, use.weight).catch(() => null);
    await Promise.all([[this.picture, request.image], [this.expert.mask, request.mask]].map(async ([place, id]) => {
      const image = id && (await api.image(id).catch(() => null)); // it may be deleted by now
      if (image) place.put({ file: null, id, url: image.url, name: `${image.width} × ${image.height}` });
    }));
    this.tell();
  }
}
