// Teaching a look: reference pictures, words, and how it is trained.

import { Sending } from "./client.js";
import { announce, button, el } from "./dom.js";
import { busy, Fields, figure, form, given, kept, number, restore, select, text } from "./fields.js";
import { webhookFault } from "./expert.js";
import { Pictures } from "./pictures.js";
import { Plan } from "./plan.js";
import { field, hint, numberFault, options, textFits } from "./schema.js";
import { known } from "./session.js";
import { takeFiles } from "./shortcuts.js";
import { Draft } from "./storage.js";

const FEW = 3;
const PREVIEW_EVERY = 50; // steps: the person sees early whether the look is learned
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

/** @param {HTMLElement} main @param {{signal: AbortSignal}} given */
export async function teachView(main, { signal }) {
  const fields = new Fields();
  const sending = new Sending(known().tenant, "teach");
  const draft = new Draft(known().tenant, "teach");
  const few = el("p", { class: "warning", role: "status" });
  const pictures = new Pictures({
    most: known().max_references,
    what: "reference pictures",
    alt: (n) => `Reference ${n + 1}`,
    signal,
    changed: () => { few.textContent = advice(pictures.items.length); },
  });
  const noun = text({ required: true });
  const attribute = text({ value: field("CustomizeRequest", "attribute").default });
  const token = text({ value: field("CustomizeRequest", "token").default, required: true });
  const name = text();
  const webhook = text({ inputmode: "url" });
  const lists = { way: options("CustomizeRequest", "training.way", WAYS) };
  for (const name of CHOICES) lists[name] = options("CustomizeRequest", `training.${name}`);
  for (const name of SWITCHES) lists[name] = YES_OR_NO;
  const training = new Map(HOW.map(([name]) => [name, lists[name] ? select(lists[name]) : number()]));
  /** @type {any} */ (training.get("preview_every")).value = String(PREVIEW_EVERY);
  const controls = { noun, attribute, token, name, webhook, ...Object.fromEntries(training) };
  const usual = kept(controls);
  const submit = el("button", { class: "main", type: "submit", title: "Ctrl + Enter" }, "Teach this look");
  const was = draft.read();
  let coming = was?.pictures || []; // not shown yet
  const state = () => ({ controls: kept(controls), pictures: [...coming, ...pictures.kept()] });

  const body = () => given({
    noun: noun.value.trim(),
    token: token.value.trim(),
    name: name.value.trim(),
    training: filled(training, lists),
    webhook: webhook.value.trim(),
  });
  const plan = new Plan(() => {
    const references = pictures.items.map(({ id }) => id).filter(Boolean);
    return references.length && fields.right() ? { path: "v1/concepts", body: { references, attribute: attribute.value.trim(), ...body() } } : null;
  }, signal);
  const send = async () => {
    if (!fields.check()) return;
    await busy(submit, "Sending…", async () => {
      const references = await pictures.sent();
      const job = await sending.send("v1/concepts", { references, attribute: attribute.value.trim(), ...body() });
      if (signal.aborted) return announce("The look is sent, and is being taught"); // the view was left meanwhile
      draft.end();
      draft.clear();
      location.hash = `#/jobs/${job.id}`;
    });
  };
  const anew = () => {
    restore(controls, usual);
    coming = [];
    pictures.clear();
    fields.clear();
    draft.clear();
    noun.focus();
  };
  const phrase = (path, control) => (textFits("CustomizeRequest", path, control.value.trim()) ? "" : "Write words of letters, such as cup or tea pot.");

  const shape = form(fields, send,
    el("div", { class: "columns" },
      el("section", { class: "card" },
        fields.group("references", "Reference pictures", pictures.node, "", () => (pictures.items.length ? "" : "Choose at least one picture.")), few),
      el("section", { class: "card" },
        fields.add("noun", "What the pictures show", noun, "One noun, such as cup or vase.",
          () => (noun.value.trim() ? phrase("noun", noun) : "Say what the pictures show, such as cup.")),
        fields.add("attribute", "Word for the look", attribute, "Stands before the noun in prompts: a patterned cup. Empty: all of the object is learned.",
          () => (attribute.value.trim() ? phrase("noun", attribute) : "")),
        fields.add("token", "Token", token, "What prompts call the look: < > around small letters, digits, - or _, such as <plaid>.",
          () => (textFits("CustomizeRequest", "token", token.value.trim()) ? "" : tokenFault(token.value.trim()))),
        fields.add("name", "Name", name, "For you, to find it again. May stay empty."),
        el("details", {}, el("summary", {}, "How it is trained"),
          el("p", { class: "hint" }, "What stays empty is chosen for the base."),
          el("div", { class: "grid" }, HOW.map(([name, label]) =>
            fields.add(`training.${name}`, label, /** @type {HTMLElement} */ (training.get(name)), about(`training.${name}`),
              lists[name] ? undefined : () => numberFault("CustomizeRequest", `training.${name}`, /** @type {any} */ (training.get(name)).value)))),
          fields.add("webhook", "Webhook", webhook, about("webhook"), () => webhookFault(webhook.value))),
        plan.node, fields.summary,
        el("div", { class: "row send" }, submit, el("span", { class: "hint" }, el("kbd", {}, "Ctrl"), " + ", el("kbd", {}, "Enter"))))));
  shape.classList.add("sends");
  main.append(
    el("div", { class: "row spread" }, el("h1", {}, "Teach a look"), button("Start anew", anew, "quiet small")),
    el("p", { class: "lead" },
      "Show the look on three to six pictures of one kind of thing. It takes some minutes; then it can be painted into any picture."),
    shape);

  if (was) restore(controls, was.controls);
  draft.follow(shape, state, signal);
  shape.addEventListener("input", () => plan.later());
  shape.addEventListener("change", () => plan.later());
  takeFiles((files, note) => pictures.take(files, note), signal);
  await pictures.restore(coming);
  coming = [];
}

/** What a token should look like, from what was written. @param {string} written */
function tokenFault(written) {
  const inner = written.toLowerCase().replace(/[^a-z0-9_-]+/g, "-").replace(/^-+|-+$/g, "");
  return `A token is < > around small letters, digits, - or _${inner ? `: write <${inner}>.` : ", such as <plaid>."}`;
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
