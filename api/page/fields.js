// Labelled fields, and problems shown at the field they are about.

import { Away, Problem } from "./client.js";
import { add, announce, button, el, fill, uid } from "./dom.js";

const fine = () => "";

/** The fields of one form, under the names that the API has for them. */
export class Fields {
  constructor() {
    /** @type {Map<string, {control: HTMLElement, error: HTMLElement, check: () => string}>} */
    this.known = new Map();
    this.summary = el("div", { class: "problem", role: "alert", hidden: true });
    /** The name of the field here that the service calls so; most are called alike. @param {string} name */
    this.alias = (name) => name;
  }

  /**
   * A field with its label, a hint and a place for what is wrong.
   * @param {string} name as the API calls it @param {string} label @param {HTMLElement} control
   * @param {string} [hint] @param {() => string} [check] what is wrong with it now; empty if nothing is
   */
  add(name, label, control, hint = "", check = fine) {
    control.id ||= uid("field");
    return el("div", { class: "field" },
      el("label", { for: control.id }, label), control, this.#below(name, control, hint, check));
  }

  /** A field of several controls; they have labels of their own. */
  group(name, label, control, hint = "", check = fine) {
    const title = uid("title");
    control.setAttribute("role", "group");
    control.setAttribute("aria-labelledby", title);
    control.setAttribute("tabindex", "-1");
    return el("div", { class: "field" },
      el("span", { class: "label", id: title }, label), control, this.#below(name, control, hint, check));
  }

  /** A box to tick. */
  tick(name, label, control, hint = "") {
    control.id ||= uid("field");
    return el("div", { class: "field tick" },
      el("div", { class: "row" }, control, el("label", { for: control.id }, label)),
      this.#below(name, control, hint, fine));
  }

  #below(name, control, hint, check) {
    const said = el("p", { class: "hint", id: uid("hint") }, hint);
    const error = el("p", { class: "error", id: uid("error"), hidden: true });
    control.setAttribute("aria-describedby", hint ? `${said.id} ${error.id}` : error.id);
    this.known.set(name, { control, error, check });
    const mended = () => this.mended(name);
    control.addEventListener("input", mended);
    control.addEventListener("change", mended);
    return [hint && said, error];
  }

  /** Takes away what was said of a field once its check finds nothing more. @param {string} name */
  mended(name) {
    const field = this.known.get(name);
    if (!field || field.error.hidden) return;
    field.error.textContent = field.check();
    if (field.error.textContent) return;
    field.error.hidden = true;
    field.control.removeAttribute("aria-invalid");
    if ([...this.known.values()].every(({ error }) => error.hidden)) this.summary.hidden = true;
  }

  /** Whether all fields that are shown are right; nothing is said. */
  right() {
    return [...this.known.values()].every(({ control, check }) => control.closest("[hidden]") || !check());
  }

  /** Checks all fields that are shown; says what is wrong and moves there. @returns {boolean} whether all are right */
  check() {
    let right = true;
    for (const [name, { control, check }] of this.known) {
      const fault = control.closest("[hidden]") ? "" : check();
      if (fault) {
        this.wrong(name, fault);
        right = false;
      }
    }
    if (!right) this.focus();
    return right;
  }

  /** Takes away all that was wrong. */
  clear() {
    this.summary.hidden = true;
    for (const { control, error } of this.known.values()) {
      error.hidden = true;
      control.removeAttribute("aria-invalid");
    }
  }

  /** Says at a field what is wrong with it; false if there is no such field. */
  wrong(name, text) {
    const field = this.#nearest(name);
    if (!field) return false;
    const more = !field.error.hidden && field.error.textContent;
    field.error.textContent = more ? `${more}; ${text}` : text;
    field.error.hidden = false;
    field.control.setAttribute("aria-invalid", "true");
    for (let up = field.control.parentElement; up; up = up.parentElement) {
      if (up instanceof HTMLDetailsElement) up.open = true;
    }
    return true;
  }

  /** `concepts[0].weight` is shown at `concepts[0].weight`, or `weight`, or `concepts[0]`, or `concepts`. */
  #nearest(called) {
    const name = this.alias(called);
    const last = !this.known.has(name) && this.known.get(name.slice(name.lastIndexOf(".") + 1));
    if (last) return last;
    for (let part = name; part; ) {
      const found = this.known.get(part);
      if (found) return found;
      part = part.slice(0, Math.max(part.lastIndexOf("."), part.lastIndexOf("["), 0));
    }
    return null;
  }

  /** Moves the focus to the first field that is wrong, or to the summary. */
  focus() {
    for (const { control, error } of this.known.values()) {
      if (error.hidden) continue;
      const inner = control.matches("[role=group]") && control.querySelector("input, button, [tabindex='0']");
      /** @type {HTMLElement} */ (inner || control).focus();
      control.scrollIntoView({ block: "center" });
      return;
    }
    this.summary.setAttribute("tabindex", "-1");
    this.summary.focus();
  }

  /** Shows what went wrong: at its fields where it names some, and always in the summary. */
  show(error) {
    const left = error instanceof Problem ? this.#place(error) : [];
    fill(this.summary, told(error, left));
    this.summary.hidden = false;
    this.focus();
  }

  /** Places the problem's errors; gives those that no field is there for. */
  #place(problem) {
    const listed = problem.errors.length
      ? problem.errors
      : problem.field && [{ field: problem.field, problem: problem.detail || problem.title, limit: problem.limit }];
    return (listed || []).filter((one) => !this.wrong(one.field, sentence(one)));
  }
}

/** What is wrong with a field and what it must keep to, in one line. */
function sentence({ field, problem, limit }) {
  const said = problem.startsWith(`${field}: `) ? problem.slice(field.length + 2) : problem;
  return limit && !said.includes(limit.replace(/^pattern /, "")) ? `${said} (${limit})` : said;
}

/**
 * A problem in words: title, detail, limit, and the id to ask the service's people with.
 * @param {unknown} error @param {{field: string, problem: string, limit: string}[]} [more]
 */
export function told(error, more = []) {
  if (!(error instanceof Problem)) {
    if (!(error instanceof Away)) console.error(error);
    return [el("p", {}, error instanceof Away ? error.message : "Something went wrong in this page.")];
  }
  const listed = more.map((one) => el("li", {}, `${one.field}: ${sentence(one)}`));
  return [
    el("p", {}, el("strong", {}, error.title), error.detail && `: ${error.detail}`),
    listed.length > 0 && el("ul", {}, listed),
    error.limit && !error.errors.length && el("p", {}, `Limit: ${error.limit}`),
    error.retryS > 0 && el("p", {}, `Try again in ${error.retryS} s.`),
    error.requestId && el("p", { class: "faint" }, "Request ", el("code", {}, error.requestId)),
  ];
}

/** A notice that says what went wrong. */
export const notice = (error, ...actions) =>
  el("div", { class: "problem", role: "alert" }, told(error), actions.length > 0 && el("p", { class: "row" }, actions));

/** Puts a message of a problem into `place`. */
export function complain(place, error) {
  fill(place, notice(error));
  place.hidden = false;
}

/** What a button does: `work`, whose problem is told in `place`. */
export const complaining = (place, work) => async () => {
  try {
    await work();
  } catch (error) {
    complain(place, error);
  }
};

export const text = (more = {}) => el("input", { type: "text", autocomplete: "off", spellcheck: "false", ...more });
export const number = (more = {}) => text({ inputmode: "decimal", ...more });
export const area = (more = {}) => el("textarea", { rows: 2, spellcheck: "false", ...more });
export const box = (more = {}) => el("input", { type: "checkbox", ...more });

const HUNDREDTH = 0.01;

/** A slider in hundredths. @param {Record<string, any>} given attributes; oninput: what is done when it is moved */
export function slider({ oninput, ...given }) {
  const range = el("input", {
    type: "range", ...given, step: HUNDREDTH,
    oninput: (event) => { range.step = String(HUNDREDTH); oninput(event); },
  });
  slideTo(range, given.value);
  return range;
}

/** Puts `value` on a slider. One between two steps stays as it is until the slider is moved. @param {HTMLInputElement} range @param {number | string} value */
export function slideTo(range, value) {
  const steps = Number(value) / HUNDREDTH;
  range.step = Math.abs(steps - Math.round(steps)) < 1e-6 ? String(HUNDREDTH) : "any";
  range.value = String(value);
}

/** @param {[string, string][]} choices value and words */
export const select = (choices, more = {}) =>
  el("select", more, choices.map(([value, words]) => el("option", { value }, words)));

/** A count with its noun. @param {number} count @param {string} what */
export const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

/** A number if it is one; else as it was written, so that the service says what it must keep to. */
export function figure(written) {
  const trimmed = written.trim();
  if (trimmed === "") return undefined;
  return Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
}

/** Figures with commas between. */
export function figures(written) {
  const parts = written.split(/[,;\s]+/).filter(Boolean);
  return parts.length ? parts.map(figure) : undefined;
}

/** Words with commas between. */
export function words(written) {
  const parts = written.split(",").map((part) => part.trim()).filter(Boolean);
  return parts.length ? parts : undefined;
}

/** The object without what is undefined; undefined if nothing is left. */
export function given(object) {
  const set = Object.entries(object).filter(([, value]) => value !== undefined && value !== "");
  return set.length ? Object.fromEntries(set) : undefined;
}

/** Lets `button` do `work` once at a time, and says what it does. */
export async function busy(button, words, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  const before = button.textContent;
  button.setAttribute("aria-disabled", "true");
  button.textContent = words;
  announce(words);
  try {
    await work();
  } finally {
    button.removeAttribute("aria-disabled");
    button.textContent = before;
  }
}

/** A form that sends by `send`; what goes wrong is shown in it. */
export function form(fields, send, ...children) {
  const made = el("form", {
    novalidate: true,
    onsubmit: async (event) => {
      event.preventDefault();
      fields.clear();
      try {
        await send();
      } catch (error) {
        if (made.isConnected) fields.show(error);
        else announce(`What was sent from another view was not taken: ${error.message}`);
      }
    },
  });
  add(made, children);
  return made;
}

/**
 * Buttons that fill in a value.
 * @param {[string, string][]} choices words and value @param {string} called what a value is, for screen readers
 * @param {(value: string) => void} fill
 */
export const chips = (choices, called, fill) =>
  el("div", { class: "row chips" }, choices.map(([words, value]) =>
    button(words, () => fill(value), "chip", { "aria-label": `${called}${words}` })));

/** The values of controls by name, as a draft keeps them. @param {Record<string, any>} controls */
export const kept = (controls) =>
  Object.fromEntries(Object.entries(controls).map(([name, control]) => [name, control.type === "checkbox" ? control.checked : control.value]));

/** Fills in what a draft kept. @param {Record<string, any>} controls @param {Record<string, any>} values */
export function restore(controls, values) {
  for (const [name, control] of Object.entries(controls)) {
    if (values[name] === undefined) continue;
    if (control.type === "checkbox") control.checked = values[name];
    else if (control.type === "range") slideTo(control, values[name]);
    else control.value = values[name];
  }
}
