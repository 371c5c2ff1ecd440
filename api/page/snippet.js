// The API call of a run, for curl and for Python, to be copied.

import { announce, button, copy, el, fill, uid } from "./dom.js";
import { usual } from "./schema.js";

const PATHS = { edit: "v1/edits", customize: "v1/concepts" };
const CALLS = { edit: "edit", customize: "customize" };
const REQUESTS = { edit: "EditRequest", customize: "CustomizeRequest" };
/** Models of the client that nested objects are given as. */
const MODELS = {
  p2p: "P2POptions", masactrl: "MasaCtrlOptions", pnp: "PlugAndPlayOptions", ddpm: "DdpmOptions", directedit: "DirectEditOptions",
  flowedit: "FlowEditOptions", sdedit: "SDEditOptions", training: "TrainingOptions", concepts: "ConceptUse",
};

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other ?? null);
/** The object without what is left out or as the service would set it. @param {any} object @param {string} model @param {string} path of its fields, "" or "p2p." */
const short = (object, model, path = "") =>
  Object.fromEntries(Object.entries(object).filter(([name, value]) => value !== null && !same(value, usual(model, path + name))));

/** The request without what is as the service would set it. */
function body(job) {
  const model = REQUESTS[job.kind];
  const parts = Object.entries(short(job.request, model)).map(([name, value]) => {
    if (!MODELS[name]) return [name, value];
    return [name, Array.isArray(value) ? value.map((one) => short(one, MODELS[name])) : short(value, model, `${name}.`)];
  });
  return Object.fromEntries(parts.filter(([, value]) => !same(value, {})));
}

/** A text for the shell, in single quotes. @param {string} text */
const quoted = (text) => `'${text.replace(/'/g, "'\\''")}'`;

/** The call with curl; the key is read from the environment. @param {any} job @param {string} base the service's address */
export function curl(job, base) {
  return [
    `curl ${quoted(new URL(PATHS[job.kind], base).href)} \\`,
    `  -H "Authorization: Bearer $CUSTOMEDIT_KEY" \\`,
    "  -H 'Content-Type: application/json' \\",
    `  -d ${quoted(JSON.stringify(body(job), null, 2))}`,
  ].join("\n");
}

/** A value as Python writes it. @param {any} value @returns {string} */
export function python(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, inner]) => `${JSON.stringify(name)}: ${python(inner)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

/** A box is a tuple. */
const argument = (name, value) => (name === "box" ? `(${python(value).slice(1, -1)})` : python(value));
const made = (model, object) => `${model}(${Object.entries(object).map(([name, value]) => `${name}=${argument(name, value)}`).join(", ")})`;

/** The call with the Python client. @param {any} job @param {string} base */
export function client(job, base) {
  const given = Object.entries(body(job));
  const models = given.map(([name]) => MODELS[name]).filter(Boolean);
  const lines = given.map(([name, value]) => {
    const model = MODELS[name];
    if (!model) return `        ${name}=${python(value)},`;
    return `        ${name}=${Array.isArray(value) ? `[${value.map((one) => made(model, one)).join(", ")}]` : made(model, value)},`;
  });
  return [
    "import os",
    "",
    `from customedit.client import ${["CustomEdit", ...new Set(models)].sort().join(", ")}`,
    "",
    `with CustomEdit(${JSON.stringify(base.replace(/\/$/, ""))}, os.environ["CUSTOMEDIT_KEY"]) as client:`,
    `    job = client.${CALLS[job.kind]}(`,
    ...lines,
    "    )",
    "    print(client.wait(job).result)",
  ].join("\n");
}

/** "API call of this run", folded; null for jobs that are files. @param {any} job */
export function apiCall(job) {
  if (!PATHS[job.kind]) return null;
  const base = document.baseURI.replace(/#.*/, "");
  const kinds = { curl: () => curl(job, base), Python: () => client(job, base) };
  const shown = el("pre", { tabindex: "0" });
  const name = uid("call");
  const show = (kind) => { shown.textContent = kinds[kind](); shown.setAttribute("aria-label", `API call with ${kind}`); };
  const act = button("Copy", async () => {
    await copy(shown.textContent || "");
    act.textContent = "Copied";
    announce("The call is copied");
    setTimeout(() => { act.textContent = "Copy"; }, 2000);
  }, "quiet small");
  const choice = el("fieldset", { class: "switch" }, el("legend", { class: "unseen" }, "Language"));
  fill(choice, el("legend", { class: "unseen" }, "Language"), Object.keys(kinds).map((kind, at) => el("label", { class: "tool" },
    el("input", { type: "radio", class: "unseen", name, checked: at === 0, onchange: () => show(kind) }), kind)));
  show("curl");
  return el("details", { class: "call" }, el("summary", {}, "API call of this run"),
    el("div", { class: "row spread" }, choice, act), shown,
    el("p", { class: "hint" }, "The key is read from the environment variable CUSTOMEDIT_KEY."));
}
