// Importing a concept from a file of weights.

import { Sending } from "./client.js";
import { announce, button, el } from "./dom.js";
import { box, busy, Fields, form, kept, restore, text } from "./fields.js";
import { hint, textFits } from "./schema.js";
import { known } from "./session.js";
import { Draft } from "./storage.js";
import { size } from "./words.js";

const draftOf = () => new Draft(known().tenant, "import");

/** Whether an import was begun and neither sent nor given up. */
export function importBegun() {
  const was = draftOf().read();
  return Boolean(was && (was.file || Object.values(was.controls).some(Boolean)));
}

/**
 * The form of an import, with what was typed in it before; it leads to its job.
 * @param {() => void} close @param {AbortSignal} signal the view's end
 */
export function importForm(close, signal) {
  const draft = draftOf();
  const was = draft.read();
  const fields = new Fields();
  const sending = new Sending(known().tenant, "import");
  const file = el("input", { type: "file", accept: ".safetensors,.bin,.pt,.ckpt,.zip" });
  const token = text();
  const noun = text();
  const name = text();
  const unused = box();
  const controls = { token, noun, name, unused };
  const again = el("p", { class: "hint" }, was?.file && `Choose ${was.file} again: the browser keeps what was typed, and no files.`);
  const submit = el("button", { class: "main", type: "submit" }, "Import");
  const most = known().max_import_bytes;
  const about = (field) => schemaHint(field);
  const send = async () => {
    if (!fields.check()) return;
    await busy(submit, "Sending…", async () => {
      const body = new FormData();
      const [chosen] = file.files || [];
      body.append("file", chosen);
      for (const [field, control] of Object.entries({ token, noun, name })) {
        if (control.value.trim()) body.append(field, control.value.trim());
      }
      if (unused.checked) body.append("allow_unused", "true");
      const job = await sending.send("v1/concepts/import", body);
      if (!submit.isConnected) return announce("The file is sent, and is being imported"); // the view was left meanwhile
      draft.end();
      draft.clear();
      location.hash = `#/jobs/${job.id}`;
    });
  };
  const giveUp = () => {
    draft.end();
    draft.clear();
    close();
  };
  const shape = form(fields, send,
    fields.add("file", "File of weights", file, `A concept of this service, or a LoRA, textual inversion or Custom Diffusion file; at most ${size(most)}.`, () => {
      const [chosen] = file.files || [];
      if (!chosen) return "Choose a file.";
      return chosen.size > most ? `It has ${size(chosen.size)}; at most ${size(most)}.` : "";
    }),
    again,
    el("div", { class: "grid" },
      fields.add("token", "Token", token, about("token"), () =>
        (!token.value.trim() || textFits("CustomizeRequest", "token", token.value.trim()) ? "" : "A token is < > around small letters, digits, - or _, such as <plaid>.")),
      fields.add("noun", "What the pictures show", noun, about("noun")),
      fields.add("name", "Name", name, about("name"))),
    fields.tick("allow_unused", "Take it though the base cannot use all of it", unused),
    fields.summary,
    el("div", { class: "row send" }, submit, button("Cancel", giveUp)));
  file.addEventListener("change", () => { again.textContent = ""; });
  if (was) restore(controls, was.controls);
  draft.follow(shape, () => ({ controls: kept(controls), file: file.files?.[0]?.name || was?.file || "" }), signal);
  return el("section", { class: "card", "aria-label": "Import a concept" }, el("h2", {}, "Import a concept"), shape);
}

/** The import's own words where the document has them; it is a form there, without a schema of its name. */
function schemaHint(field) {
  const own = { token: "A new token; left empty, the one in the file is kept.", noun: "What the references showed, if it is known." };
  return own[field] || hint("CustomizeRequest", field);
}
