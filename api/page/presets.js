// Settings of edits under names: saved, used again, deleted.

import { api } from "./client.js";
import { add, announce, button, confirmed, el, fill } from "./dom.js";
import { box, complaining, Fields, select, text } from "./fields.js";
import { names } from "./schema.js";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const WORDS = ["source_prompt", "target_prompt", "concepts"];

/** The folded part of the form with the presets. */
export class Presets {
  /** @param {() => Record<string, any>} values what the form asks for now @param {(settings: any) => Promise<void>} use fills the form in */
  constructor(values, use) {
    this.values = values;
    this.use = use;
    /** @type {any[]} */
    this.items = [];
    this.fields = new Fields();
    this.choice = select([]);
    this.name = text({ onkeydown: (event) => { if (event.key === "Enter" && !event.ctrlKey) { event.preventDefault(); save.click(); } } });
    this.words = box();
    this.wrong = el("div", { hidden: true });
    const act = (work) => button(work.words, complaining(this.wrong, work.act), work.kind || "quiet small");
    const save = act({ words: "Save", act: () => this.#save() });
    this.chosen = el("div", { class: "row" }, this.choice,
      act({ words: "Use", act: () => this.#use() }), act({ words: "Delete", act: () => this.#remove(), kind: "danger small" }));
    this.choice.setAttribute("aria-label", "Preset");
    this.node = el("details", { class: "presets", ontoggle: complaining(this.wrong, async () => { if (this.node.open) await this.load(); }) },
      el("summary", {}, "Presets"), this.chosen,
      this.fields.add("name", "Save these settings as", this.name, "A name of letters, digits, ., _ and -. A preset of this name is replaced.",
        () => (NAME.test(this.name.value.trim()) ? "" : "Write a name of letters, digits, ., _ and -, such as gentle.")),
      this.fields.tick("words", "With the words and looks", this.words),
      el("p", { class: "row" }, save), this.wrong);
  }

  /** What a draft keeps. @returns {Record<string, any>} */
  controls() {
    return { preset_name: this.name, preset_words: this.words };
  }

  /** Fetches the presets. @param {string} [name] the one to choose */
  async load(name) {
    this.items = (await api.presets()).items;
    this.chosen.hidden = !this.items.length;
    fill(this.choice);
    add(this.choice, this.items.map((preset) => el("option", { value: preset.name }, preset.name)));
    if (name) this.choice.value = name;
  }

  async #use() {
    const preset = this.items.find(({ name }) => name === this.choice.value);
    if (!preset) return;
    await this.use(preset.settings);
    announce(`The settings of ${preset.name} are in the form`);
  }

  async #remove() {
    const name = this.choice.value;
    if (!(await confirmed(`Delete the preset ${name}?`, "Edits that were made with it stay.", "Delete"))) return;
    await api.removePreset(name);
    await this.load();
    announce(`The preset ${name} is deleted`);
  }

  async #save() {
    this.fields.clear();
    if (!this.fields.check()) return;
    const held = names("PresetSettings").filter((name) => this.words.checked || !WORDS.includes(name)); // no pictures, and it calls nobody
    const settings = Object.fromEntries(Object.entries(this.values()).filter(([name, value]) => held.includes(name) && value !== ""));
    const name = this.name.value.trim();
    await api.savePreset(name, settings);
    await this.load(name);
    this.name.value = "";
    this.name.dispatchEvent(new Event("input", { bubbles: true })); // a draft keeps it no more
    announce(`Saved as ${name}`);
  }
}
