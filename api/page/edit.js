// An edit: a picture, what it shows, what it is to show, and where and how much it changes.

import { Sheet } from "./boxes.js";
import { api, Sending } from "./client.js";
import { add, button, el, fill, uid } from "./dom.js";
import { busy, complain, Fields, form, given, kept, restore, select } from "./fields.js";
import { Expert, METHODS } from "./expert.js";
import { Lines } from "./lines.js";
import { Pictures } from "./pictures.js";
import { Plan } from "./plan.js";
import { Presets } from "./presets.js";
import { plain } from "./prompts.js";
import { Region } from "./region.js";
import { choices } from "./schema.js";
import { known } from "./session.js";
import { takeFiles } from "./shortcuts.js";
import { Draft } from "./storage.js";
import { outputItem, pictureItem, showTrail } from "./versions.js";

const USUAL_CHANGE = 0.5; // at which Prompt-to-Prompt has its own defaults

/** @param {HTMLElement} main @param {{signal: AbortSignal, query: URLSearchParams, moved: boolean}} given moved: not by a reload */
export async function editView(main, { signal, query, moved }) {
  const view = new Edit(signal);
  add(main,
    el("div", { class: "row spread" }, el("h1", {}, "Edit a picture"), button("Start anew", () => view.startAnew(), "quiet small")),
    view.said, view.node);
  await view.open(query, moved);
}

class Edit {
  /** @param {AbortSignal} signal the view's end */
  constructor(signal) {
    this.signal = signal;
    this.fields = new Fields();
    this.origin = "";
    this.sent = false; // as it stands: it needs no bringing back then
    this.draft = new Draft(known().tenant, "edit");
    this.before = new Draft(known().tenant, "edit-before");
    this.sending = new Sending();
    this.said = el("div", {});
    this.several = el("input", { type: "checkbox", id: uid("several"), onchange: () => this.#count() });
    this.picture = new Pictures({ most: 1, what: "a picture to edit", alt: (n) => `Picture ${n + 1} to edit`, large: true,
      changed: () => this.#pictured(), taking: (files) => this.#severalAt(files), find: pictureItem });
    this.trail = el("div", {});
    this.sheet = new Sheet();
    this.lines = new Lines(this.fields, this.sheet, () => { this.tell(); this.draft.save(() => this.#state()); }, signal);
    this.method = select(choices("EditRequest", "method").map((name) => [name, METHODS[name] || name]), { onchange: () => this.tell() });
    this.change = el("input", { type: "range", min: 0, max: 1, step: 0.05, value: USUAL_CHANGE, oninput: () => this.tell() });
    this.auto = el("input", { type: "checkbox", id: uid("auto"), onchange: () => this.tell() });
    this.amount = el("output", { class: "figure" });
    this.amountHint = el("p", { class: "hint" });
    this.submit = el("button", { class: "main", type: "submit", title: "Ctrl + Enter" }, "Edit");
    this.region = new Region(this.fields, this.sheet.node);
    this.expert = new Expert(this.fields, () => this.tell());
    this.plan = new Plan(() => this.#planned(), signal);
    this.presets = new Presets(() => this.#words(this.region.planned()) || {}, (settings) => this.#preset(settings));
    this.usual = kept(this.#controls());
    this.node = this.#form();
    this.tell();
  }

  #form() {
    const { fields } = this;
    const slide = fields.add("change", "How much changes", this.change, "", () =>
      (this.change.disabled && this.auto.checked && !this.auto.disabled && !this.lines.chosen.taken.length
        ? "Choose a look: its references tell which of several is best." : ""));
    slide.classList.add("amount");
    this.change.before(this.amount);
    slide.append(this.amountHint, el("div", { class: "row tick" }, this.auto,
      el("label", { for: this.auto.id }, "Try several and mark the best")));
    const made = form(fields, () => this.#send(),
      el("div", { class: "studio" },
        el("div", {},
          el("section", { class: "card" },
            fields.group("image", "Picture", el("div", {}, this.region.stage, this.trail, this.picture.node,
              el("div", { class: "row tick" }, this.several, el("label", { for: this.several.id }, "Several pictures with the same words"))),
              "", () => (this.picture.items.length ? "" : "Choose a picture.")),
            this.region.node)),
        el("section", { class: "card" },
          this.lines.nodes(() => this.method.value !== "sdedit"), slide,
          fields.add("method", "Method", this.method),
          this.expert.node, this.presets.node, this.plan.node, fields.summary,
          el("div", { class: "row send" }, this.submit, el("span", { class: "hint" }, el("kbd", {}, "Ctrl"), " + ", el("kbd", {}, "Enter"))))));
    made.classList.add("sends");
    return made;
  }

  /** Takes one picture, or as many as are ticked. */
  #count() {
    this.picture.most = this.several.checked ? known().max_pictures_per_batch : 1;
    while (this.picture.items.length > this.picture.most) this.picture.items.pop();
    this.picture.draw();
  }

  /** Several files at once become several edits. @param {File[]} files */
  #severalAt(files) {
    if (files.length < 2 || this.several.checked) return;
    this.several.checked = true;
    this.#count();
  }

  /** Shows the chosen picture large, and where it comes from. */
  #pictured() {
    const { items } = this.picture;
    const [item] = items;
    this.region.show(items.length === 1 ? item : null);
    this.sheet.over(items.length === 1);
    this.submit.textContent = items.length > 1 ? `Edit ${items.length} pictures` : "Edit";
    const from = items.length === 1 ? item.from : null;
    if (!from) fill(this.trail);
    else if (this.shown !== `${from.job}.${from.output}`) {
      showTrail(this.trail, from, (other) => this.picture.put(other), this.signal).catch(() => fill(this.trail)); // the form works without
    }
    this.shown = from ? `${from.job}.${from.output}` : "";
  }

  /** Shows what the lines say amiss, how much changes, and what has an effect. */
  tell() {
    const method = this.method.value;
    this.region.follow(method);
    this.expert.follow(method, this.region.mode === "words");
    const strengths = this.expert.strengths.value.trim();
    this.auto.disabled = strengths !== "";
    this.change.disabled = strengths !== "" || this.auto.checked;
    this.amount.textContent = this.change.disabled ? "–" : `${Math.round(Number(this.change.value) * 100)} %`;
    this.amountHint.textContent = strengths ? `Strengths ${strengths} are set under expert settings.`
      : this.auto.checked ? "Several are drawn; the best of source and references is marked." : "0 % gives the picture back, 100 % changes most.";
    this.lines.tell();
    this.fields.mended("change");
    this.fields.mended("target_prompt");
    this.fields.mended("seeds");
    this.fields.mended("source_prompt");
  }

  async #send() {
    if (!this.fields.check()) return;
    await busy(this.submit, "Sending…", async () => {
      const images = await this.picture.sent();
      const values = await this.#values();
      const one = images.length === 1;
      const made = one ? await this.sending.send("v1/edits", { image: images[0], ...values })
        : await this.sending.send("v1/batches", { images, ...values });
      this.sent = true;
      this.draft.save(() => this.#state());
      this.draft.flush();
      location.hash = one ? `#/jobs/${made.id}` : `#/batches/${made.id}`;
    });
  }

  async #values() {
    const { settings, ...mask } = await this.region.values();
    return given({ ...this.#words(settings), ...mask });
  }

  /** What goes into the request, but for pictures. @param {Record<string, any>} region what it adds to the method's settings */
  #words(region) {
    const expert = this.expert.values(this.method.value, region);
    return given({
      ...this.lines.values(),
      method: this.method.value,
      change: expert.strengths ? undefined : this.auto.checked ? "auto" : Number(this.change.value),
      ...expert,
    });
  }

  /** What to ask of the service while the form is filled in: without words, which base and size. */
  #planned() {
    const image = this.picture.items[0]?.id;
    if (!image) return null;
    if (this.fields.right()) return { path: "v1/edits", body: { image, ...this.#words(this.region.planned()) } };
    return { path: "v1/edits", body: { image, target_prompt: "a photo", method: "sdedit" }, partial: true };
  }

  #controls() {
    const { lines: { source, target }, method, change, auto, several } = this;
    return { source, target, method, change, auto, several, ...this.expert.controls() };
  }

  /** What a draft keeps. */
  #state() {
    return {
      origin: this.origin, sent: this.sent, controls: kept(this.#controls()), pictures: this.picture.kept(),
      concepts: this.lines.chosen.uses(), region: this.region.kept(),
    };
  }

  async #restore(state) {
    this.sent = Boolean(state.sent);
    restore(this.#controls(), state.controls);
    this.#count();
    this.tell();
    await Promise.all([
      ...state.concepts.map((use) => this.lines.chosen.choose(use.id, use).catch(() => null)),
      this.picture.restore(state.pictures, this.signal),
      this.region.restore(state.region),
    ]);
    this.tell();
  }

  /** Empties the form; what was in it can be brought back. */
  startAnew() {
    this.#offer({ ...this.#state(), sent: false });
    restore(this.#controls(), this.usual);
    this.lines.chosen.clear();
    this.picture.items.splice(0);
    this.#count();
    this.region.restore({ mode: "words", words: "", start: null, actions: [] });
    this.fields.clear();
    this.tell();
    this.draft.clear();
    if (location.hash !== "#/edit") history.replaceState(null, "", "#/edit");
    this.lines.source.focus();
  }

  /** Keeps what was typed before, and offers it. */
  #offer(state) {
    if (!state || state.sent || !(state.controls.source || state.controls.target || state.pictures.length)) return;
    this.before.save(() => state);
    this.before.flush();
    const back = async () => { fill(this.said); await this.#restore(this.before.read()); this.draft.save(() => this.#state()); };
    fill(this.said, el("p", { class: "notice row" }, "What was in this form before is kept.", button("Bring it back", back, "quiet small")));
  }

  /** Fetches the looks, and what the address names; else what was typed before. */
  async open(query, moved) {
    const { signal } = this;
    const was = this.draft.read();
    this.origin = query.toString();
    const names = ["job", "from", "image"].some((name) => query.get(name));
    await this.lines.chosen.load(signal);
    try {
      if (was && !(names && (moved || was.origin !== this.origin))) await this.#restore(was);
      else if (names) {
        this.#offer(was);
        await this.#take(query);
      }
      const concept = query.get("concept");
      if (concept) await this.lines.chosen.choose(concept);
    } catch (error) {
      if (!signal.aborted) complain(this.fields.summary, error);
    }
    if (signal.aborted) return;
    this.tell();
    for (const event of ["input", "change"]) this.node.addEventListener(event, () => { this.sent = false; });
    this.draft.follow(this.node, () => this.#state(), signal);
    this.node.addEventListener("input", () => this.plan.later());
    this.node.addEventListener("change", () => this.plan.later());
    this.plan.later();
    this.draft.save(() => this.#state());
    takeFiles((files) => this.picture.take(files), signal);
  }

  /** Begins from a job, from an output of one, or from images. @param {URLSearchParams} query */
  async #take(query) {
    const job = query.get("job");
    const [from, output] = (query.get("from") || "").split(".");
    if (job) {
      const { request } = await api.job(job, this.signal);
      await this.#request(request);
      await this.picture.restore([{ id: request.image, name: "" }], this.signal);
      if (query.get("region") === "found") {
        this.region.choose("painted");
        await this.region.begin({ job });
      }
    } else if (from) {
      const made = await api.job(from, this.signal);
      this.#continued(made.request);
      this.picture.put(outputItem(made, Number(output)));
      this.lines.target.focus({ preventScroll: true });
    }
    const images = query.getAll("image");
    if (images.length > 1) this.several.checked = true;
    if (images.length) this.#count();
    for (const id of images) this.picture.put(await pictureItem(id, this.signal));
  }

  /** The words of a picture that is continued from: it shows now what was asked for. */
  #continued(request) {
    this.lines.source.value = plain(request.target_prompt || "");
    this.lines.target.value = this.lines.source.value;
    this.method.value = request.method || "p2p";
    if (typeof request.change === "number") this.change.value = String(request.change);
  }

  /** Fills in settings; words that they do not hold stay. */
  async #preset(settings) {
    const { source, target, chosen } = this.lines;
    await this.#request({ source_prompt: source.value, target_prompt: target.value, concepts: chosen.uses(), ...settings });
    this.tell();
    this.draft.save(() => this.#state());
  }

  async #request(request) {
    restore(this.expert.controls(), this.usual);
    this.lines.chosen.clear();
    this.lines.source.value = request.source_prompt || "";
    this.lines.target.value = request.target_prompt || "";
    this.method.value = request.method || "p2p";
    this.auto.checked = request.change === "auto";
    this.change.value = String(typeof request.change === "number" ? request.change : USUAL_CHANGE);
    this.expert.take(request);
    for (const use of request.concepts || []) await this.lines.chosen.choose(use.id, use).catch(() => null);
    await this.region.take(request);
  }
}
