// An edit: a picture, what it shows, what it is to show, and where and how much it changes.

import { Amount } from "./amount.js";
import { Sheet } from "./boxes.js";
import { api, oneKey, Sending } from "./client.js";
import { add, announce, button, el, fill, uid } from "./dom.js";
import { busy, complain, Fields, form, given, kept, restore, select } from "./fields.js";
import { Expert, inverts, METHODS } from "./expert.js";
import { Lines } from "./lines.js";
import { Pictures } from "./pictures.js";
import { Plan, sizeRequest } from "./plan.js";
import { Presets } from "./presets.js";
import { plain } from "./prompts.js";
import { Region } from "./region.js";
import { Rest } from "./rest.js";
import { choices } from "./schema.js";
import { known } from "./session.js";
import { takeFiles } from "./shortcuts.js";
import { Draft } from "./storage.js";
import { Trail } from "./trail.js";
import { outputItem, pictureItem } from "./versions.js";

/** @param {HTMLElement} main @param {{signal: AbortSignal, query: URLSearchParams, moved: boolean}} given moved: not by a reload */
export async function editView(main, { signal, query, moved }) {
  const view = new Edit(signal);
  add(main,
    el("div", { class: "row spread" }, el("h1", {}, "Edit a picture"), view.anew),
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
    this.sending = new Sending(known().tenant, "edit");
    this.said = el("div", {});
    this.anew = button("Start anew", () => this.startAnew(), "quiet small", { hidden: true });
    this.several = el("input", { type: "checkbox", id: uid("several"), onchange: () => this.#count() });
    this.picture = new Pictures({ most: 1, what: "a picture to edit", alt: (n) => `Picture ${n + 1} to edit`, large: true, signal,
      changed: () => this.#pictured(), taking: (files) => this.#severalAt(files), find: pictureItem });
    this.trail = new Trail((to, from) => this.#go(to, from), signal);
    this.filled = ""; // what the form itself wrote last into the line of what the picture shows
    this.sheet = new Sheet();
    this.lines = new Lines(this.fields, this.sheet, () => { this.tell(); this.draft.save(); }, signal);
    this.method = select(choices("EditRequest", "method").map((name) => [name, METHODS[name] || name]), { onchange: () => this.tell() });
    this.amount = new Amount(() => this.tell());
    this.submit = el("button", { class: "main", type: "submit", title: "Ctrl + Enter" }, "Edit");
    this.region = new Region(this.fields, this.sheet.node, signal);
    this.region.node.addEventListener("change", () => this.tell());
    this.expert = new Expert(this.fields, () => this.tell());
    this.rest = new Rest(() => { this.tell(); this.draft.save(); this.plan.later(); });
    this.plan = new Plan(() => this.#planned(), signal);
    this.presets = new Presets(() => this.#words(this.region.planned()), (settings) => this.#preset(settings));
    this.usual = kept(this.#controls());
    this.node = this.#form();
    this.tell();
  }

  #form() {
    const { fields } = this;
    const made = form(fields, () => this.#send(),
      el("div", { class: "studio" },
        el("div", {},
          el("section", { class: "card" },
            fields.group("image", "Picture", el("div", {}, this.region.stage, this.trail.node, this.picture.node,
              el("div", { class: "row tick" }, this.several, el("label", { for: this.several.id }, "Several pictures with the same words"))),
              "", () => (this.picture.items.length ? "" : "Choose a picture.")),
            this.region.node)),
        el("section", { class: "card" },
          this.lines.nodes(() => this.method.value !== "sdedit", () => inverts(this.method.value)),
          this.amount.node(fields, () => this.lines.chosen.uses().length > 0),
          fields.add("method", "Method", this.method),
          this.expert.node, this.presets.node, this.rest.node, this.plan.node, fields.summary,
          el("div", { class: "row send" }, this.submit, el("span", { class: "hint" }, el("kbd", {}, "Ctrl"), " + ", el("kbd", {}, "Enter"))))));
    made.classList.add("sends");
    made.hidden = true; // until what it begins with is in it: nothing that is typed is overwritten
    return made;
  }

  /** Takes one picture, or as many as are ticked. */
  #count() {
    this.picture.limit(this.several.checked ? known().max_pictures_per_batch : 1);
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
    this.trail.show(items.length === 1 ? item : null);
    this.#name();
  }

  /** Says on the button what it does; while it sends, it says that. */
  #name() {
    const { items } = this.picture;
    if (this.submit.getAttribute("aria-disabled") !== "true") this.submit.textContent = items.length > 1 ? `Edit ${items.length} pictures` : "Edit";
  }

  /**
   * Takes the picture of a step, and the words of what it shows where nobody changed those of the step before.
   * @param {import("./trail.js").Step} to @param {import("./trail.js").Step} from
   */
  #go(to, from) {
    const { source, target } = this.lines;
    const untouched = ["", from.words.trim(), this.filled.trim()];
    if (target.value.trim() && untouched.includes(target.value.trim())) target.value = to.words;
    if (untouched.includes(source.value.trim())) source.value = this.filled = to.words;
    this.picture.only(to.item);
    source.dispatchEvent(new Event("input", { bubbles: true }));
    announce(`${to.name}: ${source.value}`);
  }

  /** Shows what the lines say amiss, how much changes, and what has an effect. */
  tell() {
    const method = this.method.value;
    this.region.follow(method);
    this.expert.follow(method, this.region.mode === "words");
    this.amount.tell(this.expert.strengths.value.trim());
    this.lines.tell();
    this.rest.tell(method, this.region.mode);
    for (const name of ["change", "target_prompt", "seeds", "source_prompt"]) this.fields.mended(name);
  }

  async #send() {
    if (!this.fields.check()) return;
    await busy(this.submit, "Sending…", async () => {
      const check = oneKey();
      const images = await this.picture.sent();
      const values = await this.#values();
      check();
      const one = images.length === 1;
      const made = one ? await this.sending.send("v1/edits", { image: images[0], ...values })
        : await this.sending.send("v1/batches", { images, ...values });
      if (this.signal.aborted) return announce(one ? "The edit is sent" : "The batch is sent"); // the view was left meanwhile
      this.sent = true;
      this.draft.save();
      this.draft.end();
      location.hash = one ? `#/jobs/${made.id}` : `#/batches/${made.id}`;
    }).finally(() => this.#name()); // there may be fewer pictures by now
  }

  async #values() {
    const { settings, ...mask } = await this.region.values();
    return { ...this.#words(settings), ...given(mask) };
  }

  /** What goes into the request, but for pictures. @param {Record<string, any>} region what it adds to the method's settings @returns {Record<string, any>} */
  #words(region) {
    const method = this.method.value;
    const expert = this.expert.values(method, region);
    const words = given({
      ...this.lines.values(),
      method,
      change: expert.strengths ? undefined : this.amount.value(),
      ...expert,
    });
    return this.rest.beside(words || {}, this.region.mode);
  }

  /** What to ask of the service while the form is filled in: without words, which base and size. */
  #planned() {
    const image = this.picture.items[0]?.id;
    if (!image) return null;
    const sent = this.picture.items.filter(({ id }) => id).map(({ id, width, height }) => ({ id, width, height }));
    const pictures = sent.length > 1 ? sent : undefined;
    if (this.fields.right()) return { path: "v1/edits", body: { image, ...this.#words(this.region.planned()), ...given(this.region.stored()) }, pictures };
    return { path: "v1/edits", body: sizeRequest(image), partial: true, pictures };
  }

  #controls() {
    const { lines: { source, target }, method, amount: { change, auto }, several } = this;
    return { source, target, method, change, auto, several, ...this.expert.controls(), ...this.presets.controls() };
  }

  /** What a draft keeps. */
  #state() {
    return {
      origin: this.origin, sent: this.sent, controls: kept(this.#controls()), pictures: this.picture.kept(),
      concepts: this.lines.chosen.uses(), region: this.region.kept(), rest: this.rest.held,
      filled: this.filled, trail: this.trail.end,
    };
  }

  /** Shows a draft in place of what is in the form. */
  async #restore(state) {
    this.sent = Boolean(state.sent);
    this.filled = state.filled || "";
    this.lines.chosen.clear();
    restore(this.#controls(), { ...this.usual, ...state.controls });
    this.rest.restore(state.rest);
    this.trail.clear();
    this.picture.clear();
    this.#count();
    this.tell();
    await Promise.all([this.lines.chosen.take(state.concepts), this.picture.restore(state.pictures), this.region.restore(state.region)]);
    if (state.trail) this.trail.lead(state.trail);
    if (this.presets.name.value) this.presets.node.open = true;
    this.tell();
  }

  /** Empties the form; what was in it can be brought back. */
  startAnew() {
    this.#offer({ ...this.#state(), sent: false });
    restore(this.#controls(), this.usual);
    this.lines.chosen.clear();
    this.rest.clear();
    this.trail.clear();
    this.picture.clear();
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
    this.before.write(state);
    const back = async () => {
      fill(this.said);
      await this.#restore(state);
      this.draft.save();
      this.plan.later();
    };
    fill(this.said, el("p", { class: "notice row" }, "What was in this form before is kept.", button("Bring it back", back, "quiet small")));
  }

  /** Fetches the looks, and what the address names; else what was typed before. The form is shown when all of it is there. */
  async open(query, moved) {
    const { signal } = this;
    const was = this.draft.read();
    this.origin = query.toString();
    const names = ["job", "from", "image"].some((name) => query.get(name));
    await this.lines.chosen.load(signal);
    const again = was && !(names && (moved || was.origin !== this.origin));
    let whole = true;
    try {
      if (again) await this.#restore(was);
      else if (names) await this.#take(query);
      const concept = query.get("concept");
      if (concept) await this.lines.chosen.choose(concept);
    } catch (error) {
      if (signal.aborted) return;
      whole = false;
      this.origin = ""; // not all that the address names is in the form: after a reload it is asked for again
      complain(this.fields.summary, error);
    }
    if (signal.aborted) return;
    this.tell();
    this.node.hidden = this.anew.hidden = false;
    if (names && !again) this.#offer(was);
    if (query.get("from") && !again) this.lines.target.focus({ preventScroll: true });
    for (const event of ["input", "change"]) this.node.addEventListener(event, () => { this.sent = false; this.plan.later(); });
    this.draft.follow(this.node, () => this.#state(), signal);
    this.plan.later();
    if (whole) this.draft.save(); // else what was typed before stays kept until something is typed here
    takeFiles((files, note) => this.picture.take(files, note), signal);
  }

  /** Begins from a job, from an output of one, or from images. @param {URLSearchParams} query */
  async #take(query) {
    const job = query.get("job");
    const [from, output] = (query.get("from") || "").split(".");
    if (job) {
      const { request } = await api.job(job, this.signal);
      await this.#request(request);
      await this.picture.restore([{ id: request.image, name: "" }]);
      if (query.get("region") === "found") {
        this.region.choose("painted");
        await this.region.begin({ job });
      }
      this.#slide(query.get("change"));
    } else if (from) {
      const made = await api.job(from, this.signal);
      this.#continued(made.request);
      this.picture.put(outputItem(made, Number(output)));
    }
    const images = query.getAll("image");
    if (images.length > 1) this.several.checked = true;
    if (images.length) this.#count();
    await this.picture.restore(images.map((id) => ({ id, name: "" })));
  }

  /** Another value of how much changes than the run had. @param {string | null} written */
  #slide(written) {
    const change = Number(written || NaN);
    if (!(change >= 0 && change <= 1)) return;
    this.expert.strengths.value = "";
    this.amount.take(change, this.method.value);
  }

  /** The words of a picture that is continued from: it shows now what was asked for. */
  #continued(request) {
    this.lines.source.value = this.lines.target.value = this.filled = plain(request.target_prompt || "");
    this.method.value = request.method || "p2p";
    if (typeof request.change === "number") this.amount.take(request.change, this.method.value);
  }

  /** Fills in the settings of a preset. What it holds takes the place of what is there; what it cannot hold, and words and region that it does not, stay. */
  async #preset(settings) {
    const { source, target, chosen } = this.lines;
    const stay = { source_prompt: source.value, target_prompt: target.value, concepts: chosen.uses(), webhook: this.expert.webhook.value, maps: this.expert.maps.checked };
    const beyond = this.rest.beyondPresets();
    await this.#fill({ ...stay, ...settings });
    this.region.apply(settings);
    this.tell();
    this.rest.take(settings, this.#words(this.region.planned()), this.region.mode, "the preset");
    Object.assign(this.rest.held.fields, beyond);
    this.tell();
    this.draft.save();
    this.plan.later();
  }

  /** Fills in what an earlier request had. */
  async #request(request) {
    await this.#fill(request);
    await this.region.take(request);
    this.tell();
    this.rest.take(request, this.#words(this.region.planned()), this.region.mode, "that run");
  }

  /** Fills in all that has a control, but for pictures and region. */
  async #fill(request) {
    const method = request.method || "p2p";
    restore(this.expert.controls(), this.usual);
    this.rest.clear();
    this.lines.chosen.clear();
    this.lines.source.value = this.filled = request.source_prompt || "";
    this.lines.target.value = request.target_prompt || "";
    this.method.value = method;
    this.amount.take(request.change, method);
    this.expert.take(request);
    await this.lines.chosen.take(request.concepts || []);
  }
}
