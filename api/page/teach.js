// Teaching a look: reference pictures, words, and how it is trained.

import { Sending } from "./client.js";
import { el } from "./dom.js";
import { busy, Fields, figure, form, given, number, select, text } from "./fields.js";
import { Pictures } from "./pictures.js";
import { field, hint, options } from "./schema.js";
import { known } from "./session.js";

const FEW = 3;
const HOW = [
  ["way", "Way"],
  ["recipe", "Recipe"],
  ["steps", "Steps"],
  ["rate", "Learning rate"],
  ["batch", "Batch"],
  ["class_images", "Class pictures"],
  ["class_steps", "Steps of a class picture"],
  ["prior_weight", "Weight of class pictures"],
  ["crops", "Crops of a reference"],
  ["augment_crops", "Vary the crops"],
  ["preview_every", "Preview every"],
  ["checkpoint_every", "Checkpoint every"],
  ["seed", "Seed"],
  ["columns", "Columns it acts on"],
  ["rate_schedule", "Fall of the rate"],
  ["rank", "Rank"],
  ["ema", "Moving average"],
  ["snr_gamma", "Min-SNR gamma"],
  ["crop_cells", "Smallest crop, in cells"],
  ["weigh_cells", "Cells weigh the same"],
  ["focus", "Where the loss counts"],
  ["prior_classes", "Classes of class pictures"],
  ["lora_layers", "Layers of a LoRA"],
  ["alpha", "Alpha of a LoRA"],
  ["train_text_encoder", "LoRA of the text encoder"],
];
const CHOICES = ["recipe", "columns", "rate_schedule", "focus", "lora_layers"];
const SWITCHES = ["augment_crops", "weigh_cells", "train_text_encoder"];
const WAYS = { "custom-diffusion": "Custom Diffusion", "textual-inversion": "Textual Inversion", lora: "LoRA" };
const YES_OR_NO = [["", "chosen by the service"], ["true", "yes"], ["false", "no"]];
const about = (name) => hint("CustomizeRequest", name);

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
  const attribute = text({ value: field("CustomizeRequest", "attribute").default });
  const token = text({ value: field("CustomizeRequest", "token").default, required: true });
  const name = text();
  const lists = { way: options("CustomizeRequest", "training.way", WAYS) };
  for (const name of CHOICES) lists[name] = options("CustomizeRequest", `training.${name}`);
  for (const name of SWITCHES) lists[name] = YES_OR_NO;
  const training = new Map(HOW.map(([name]) => [name, lists[name] ? select(lists[name]) : number()]));
  const submit = el("button", { class: "main", type: "submit" }, "Teach this look");

  const body = () => ({
    noun: noun.value.trim(),
    attribute: attribute.value.trim(),
    token: token.value.trim(),
    name: name.value.trim(),
    training: filled(training, lists),
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
            el("div", { class: "grid" }, HOW.map(([name, label]) =>
              fields.add(`training.${name}`, label, /** @type {HTMLElement} */ (training.get(name)), about(`training.${name}`))))),
          fields.summary,
          el("div", { class: "row send" }, submit)))),
  );
}

function advice(count) {
  if (count === 0 || count >= FEW) return "";
  return `${count === 1 ? "One picture is" : "Two pictures are"} few: the concept may learn what they show by chance. Three to six are best.`;
}

/** The training's options that were filled in. */
function filled(training, lists) {
  const values = {};
  for (const [name, control] of training) {
    const value = lists[name] ? control.value || undefined : figure(control.value);
    values[name] = value === "true" ? true : value === "false" ? false : value;
  }
  return given(values) || {};
}
