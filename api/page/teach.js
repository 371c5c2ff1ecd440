// Teaching a look: reference pictures, words, and how it is trained.

import { Sending } from "./client.js";
import { el } from "./dom.js";
import { busy, Fields, figure, form, given, number, select, text } from "./fields.js";
import { Pictures } from "./pictures.js";
import { known } from "./session.js";

const FEW = 3;
const HOW = [
  ["way", "Way", "What is learned: the token and the attention's keys and values, or the token alone."],
  ["steps", "Steps", "1 to 20000"],
  ["rate", "Learning rate", "above 0, to 1"],
  ["batch", "Batch", "1 to 32"],
  ["class_images", "Class pictures", "0 to 1000: pictures of the noun that keep the model from drifting"],
  ["class_steps", "Steps of a class picture", "1 to 1000"],
  ["prior_weight", "Weight of class pictures", "0 to 100"],
  ["crops", "Crops of a reference", "1 to 1000"],
  ["augment_crops", "Vary the crops", ""],
  ["preview_every", "Preview every", "steps; 0: none"],
  ["checkpoint_every", "Checkpoint every", "steps"],
  ["seed", "Seed", "a whole number from 0; empty: 0"],
];
const CHOICES = {
  way: [["", "as the base has it"], ["custom-diffusion", "Custom Diffusion"], ["textual-inversion", "Textual Inversion"]],
  augment_crops: [["", "as the base has it"], ["true", "yes"], ["false", "no"]],
};

/** @param {HTMLElement} main */
export function teachView(main) {
  const fields = new Fields();
  const sending = new Sending();
  const few = el("p", { class: "warning", role: "status" });
  const pictures = new Pictures({
    most: known().max_references,
    what: "reference pictures",
    alt: (n) => `Reference ${n + 1}`,
    changed: () => { few.textContent = advice(pictures.items.length); },
  });
  const noun = text({ required: true });
  const attribute = text({ value: "patterned" });
  const token = text({ value: "<look>", required: true });
  const name = text();
  const training = new Map(HOW.map(([field]) => [field, CHOICES[field] ? select(CHOICES[field]) : number()]));
  const submit = el("button", { class: "main", type: "submit" }, "Teach this look");

  const body = () => ({
    noun: noun.value.trim(),
    attribute: attribute.value.trim(),
    token: token.value.trim(),
    name: name.value.trim(),
    training: options(training),
  });
  const send = async () => {
    if (!pictures.items.length) fields.wrong("references", "Choose at least one picture.");
    if (!noun.value.trim()) fields.wrong("noun", "Say what the pictures show, such as cup.");
    if (!pictures.items.length || !noun.value.trim()) return fields.focus();
    await busy(submit, "Sending…", async () => {
      const references = await pictures.sent();
      const job = await sending.send("v1/concepts", { references, ...body() });
      location.hash = `#/jobs/${job.id}`;
    });
  };

  main.append(
    el("h1", {}, "Teach a look"),
    el("p", { class: "lead" },
      "Show the look on three to six pictures of one kind of thing. It takes some minutes; then it can be painted into any picture."),
    form(fields, send,
      el("div", { class: "columns" },
        el("section", { class: "card" },
          fields.group("references", "Reference pictures", pictures.node), few),
        el("section", { class: "card" },
          fields.add("noun", "What the pictures show", noun, "One noun, such as cup or vase."),
          fields.add("attribute", "Word for the look", attribute, "Stands before the noun in prompts: a patterned cup."),
          fields.add("token", "Token", token, "What prompts call the look: < > around small letters, digits, - or _, such as <plaid>."),
          fields.add("name", "Name", name, "For you, to find it again. May stay empty."),
          el("details", {}, el("summary", {}, "How it is trained"),
            el("p", { class: "hint" }, "What stays empty is chosen for the base."),
            el("div", { class: "grid" }, HOW.map(([field, label, hint]) =>
              fields.add(`training.${field}`, label, training.get(field), hint)))),
          fields.summary,
          el("div", { class: "row send" }, submit)))),
  );
}

function advice(count) {
  if (count === 0 || count >= FEW) return "";
  return `${count === 1 ? "One picture is" : "Two pictures are"} few: the look may be learnt too narrowly. Three to six serve best.`;
}

/** The training's options that were filled in. */
function options(training) {
  const found = {};
  for (const [field, control] of training) {
    const value = CHOICES[field] ? control.value || undefined : figure(control.value);
    found[field] = value === "true" ? true : value === "false" ? false : value;
  }
  return given(found) || {};
}
