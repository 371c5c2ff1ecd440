// Building the DOM. Data goes in as text and attributes, never as markup.

/**
 * What an element can hold; what is empty or false is left out, lists may be in lists.
 * @typedef {Node | string | number | null | undefined | false | ChildList} Child
 * @typedef {Child[]} ChildList
 */

/**
 * An element. A property that begins with "on" is a listener, `value` and `checked` are set as
 * properties, all others are attributes; null, undefined and false leave one out.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, unknown>} [given]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), /** @type {any} */ (value));
    else if (name === "value" || name === "checked") made[name] = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  add(made, ...children);
  return made;
}

/**
 * An element of a drawing, as `el` makes them of a page.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, unknown>} [given]
 * @param {...Child} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function shape(tag, given = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), /** @type {any} */ (value));
    else made.setAttribute(name, String(value));
  }
  add(made, ...children);
  return made;
}

/** Appends what is there. @param {Element} parent @param {...Child} children */
export function add(parent, ...children) {
  for (const child of /** @type {Exclude<Child, ChildList>[]} */ (children.flat(3))) {
    if (child !== null && child !== undefined && child !== false) {
      parent.append(child instanceof Node ? child : String(child));
    }
  }
}

/** Puts `children` in place of all that is in `parent`. @param {Element} parent @param {...Child} children */
export function fill(parent, ...children) {
  parent.replaceChildren();
  add(parent, ...children);
}

let count = 0;
/** A name that no other element has. @param {string} stem */
export const uid = (stem) => `${stem}-${++count}`;

/** Lets screen readers say `text`, without moving the focus. @param {string} text */
export function announce(text) {
  const live = document.getElementById("live");
  if (live) live.textContent = text;
}

/**
 * A button.
 * @param {string} text @param {(event: MouseEvent) => void} onclick
 * @param {string} [kind] "main", "quiet" or "danger" @param {object} [more] attributes
 */
export const button = (text, onclick, kind = "quiet", more = {}) =>
  el("button", { type: "button", class: kind, onclick, ...more }, text);

/** What to do where there is nothing yet. @param {string} title @param {string} text @param {...Child} actions */
export const empty = (title, text, ...actions) =>
  el("div", { class: "empty" }, el("h2", {}, title), el("p", {}, text), el("p", { class: "row" }, actions));

/**
 * Asks before what cannot be undone. When the view is left behind it, by whoever signs in or out in another tab or by
 * going back, the answer is no.
 * @param {string} title @param {string} text @param {string} act what the button says
 * @returns {Promise<boolean>}
 */
export function confirmed(title, text, act) {
  const heading = uid("ask");
  const left = new AbortController();
  return new Promise((resolve) => {
    const box = el(
      "dialog",
      { "aria-labelledby": heading, onclose: () => { left.abort(); box.remove(); resolve(box.returnValue === "yes"); } },
      el("h2", { id: heading }, title),
      el("p", {}, text),
      el("div", { class: "row end" },
        button("Keep it", () => box.close("no")),
        button(act, () => box.close("yes"), "danger")),
    );
    for (const event of ["signedout", "hashchange"]) window.addEventListener(event, () => box.close("no"), { signal: left.signal });
    document.body.append(box);
    box.showModal();
  });
}

/** Copies `text`; also where the page has no secure context, as on an address in the local network. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = el("textarea", { class: "unseen", value: text, "aria-label": "to copy" });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
