// Pictures: chosen or dropped, shown before they are sent, and shown from the store.

import { api } from "./client.js";
import { add, announce, button, el, fill, uid } from "./dom.js";
import { notice } from "./fields.js";
import { can, known } from "./session.js";
import { size } from "./words.js";

const TYPES = ["image/png", "image/jpeg", "image/webp"];

/**
 * A picture from the store. Its address holds for minutes: when it does not load, `renew` is asked
 * for a fresh one, once for each failure that follows a success.
 * @param {string} src @param {string} alt
 * @param {() => Promise<string | null | undefined>} renew @param {object} [more] attributes
 */
export function stored(src, alt, renew, more = {}) {
  let tried = false;
  return el("img", {
    src, alt, decoding: "async", ...more,
    onload: () => { tried = false; },
    onerror: async (event) => {
      const image = event.currentTarget;
      if (tried) return image.classList.add("gone");
      tried = true;
      const fresh = await renew().catch(() => null);
      if (fresh) image.src = fresh;
      else image.classList.add("gone");
    },
  });
}

/** Whether a presigned address is over, or nearly so. @param {string} url */
export function stale(url) {
  const asked = new URL(url, document.baseURI).searchParams;
  const at = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(asked.get("X-Amz-Date") || "");
  if (!at) return false;
  const [year, month, ...rest] = at.slice(1).map(Number);
  const made = Date.UTC(year, month - 1, ...rest);
  return Date.now() > made + (Number(asked.get("X-Amz-Expires")) - 30) * 1000;
}

/**
 * A link to a file of the store; `renew` gives a fresh address of it. What the store sends as an
 * attachment is downloaded, the rest opens in a tab of its own.
 */
export function download(words, url, name, renew) {
  const attached = new URL(url, document.baseURI).searchParams.has("response-content-disposition");
  return el("a", {
    class: "button quiet", href: url, download: name, rel: "noopener", target: attached ? "_self" : "_blank",
    onclick: async (event) => {
      const link = event.currentTarget;
      if (!stale(link.href)) return;
      event.preventDefault();
      link.href = (await renew()) || link.href;
      if (!stale(link.href)) link.click();
    },
  }, words);
}

/**
 * @typedef {{file: File | null, id: string, url: string, name: string}} Item
 * A picture that was chosen; id: of the image once it was sent.
 */

/** A place to drop or choose pictures, with what was chosen. */
export class Pictures {
  /**
   * @param {{most: number, what: string, alt: (number: number) => string, changed?: () => void}} given
   * what: is asked for, such as "reference pictures"
   */
  constructor({ most, what, alt, changed = () => {} }) {
    this.most = most;
    this.alt = alt;
    this.changed = changed;
    /** @type {Item[]} */
    this.items = [];
    this.node = el("div", { class: "pictures" });
    this.said = el("p", { class: "error", role: "alert", hidden: true });
    this.list = el("ul", { class: "thumbs", "aria-label": `Chosen ${what}` });
    this.input = el("input", {
      type: "file", accept: TYPES.join(","), multiple: most > 1, id: uid("file"), class: "unseen",
      onchange: () => { this.take([...(this.input.files || [])]); this.input.value = ""; },
    });
    this.drop = el("label", { class: "drop", for: this.input.id },
      el("strong", {}, `Choose ${what}`), el("span", {}, `or drop ${most > 1 ? "them" : "it"} here: PNG, JPEG or WebP`));
    const allowed = can("images:write");
    add(this.node, allowed && [this.input, this.drop], this.said, this.list, this.#earlier());
    if (allowed) this.#listen();
  }

  #listen() {
    const over = (on) => (event) => { event.preventDefault(); this.drop.classList.toggle("over", on); };
    this.node.addEventListener("dragover", over(true));
    this.node.addEventListener("dragleave", over(false));
    this.node.addEventListener("drop", (event) => {
      over(false)(event);
      this.take([...(event.dataTransfer?.files || [])]);
    });
  }

  /** Adds files; says which cannot be taken. @param {File[]} files */
  take(files) {
    const most = known().max_upload_bytes;
    const bad = files.filter((f) => !TYPES.includes(f.type) || f.size > most);
    const good = files.filter((f) => !bad.includes(f));
    for (const file of good) this.put({ file, id: "", url: URL.createObjectURL(file), name: file.name });
    this.say(bad.map((f) =>
      TYPES.includes(f.type) ? `${f.name} has ${size(f.size)}; at most ${size(most)}` : `${f.name} is no PNG, JPEG or WebP`,
    ).join("; "));
  }

  /** Adds a picture; where only one is taken it replaces the one before. @param {Item} item */
  put(item) {
    if (this.most === 1) this.items.splice(0).forEach(release);
    if (this.items.length >= this.most) return this.say(`at most ${this.most} pictures`);
    if (item.id && this.items.some((other) => other.id === item.id)) return;
    this.items.push(item);
    this.draw();
  }

  say(words) {
    this.said.textContent = words;
    this.said.hidden = !words;
  }

  draw() {
    fill(this.list, this.items.map((item, number) => el("li", {},
      el("img", { src: item.url, alt: this.alt(number) }),
      el("span", { class: "name" }, item.name),
      button("Remove", () => this.remove(item), "quiet small", { "aria-label": `Remove ${item.name}` }))));
    this.node.classList.toggle("full", this.items.length > 0);
    this.changed();
  }

  remove(item) {
    this.items.splice(this.items.indexOf(item), 1).forEach(release);
    this.draw();
    announce(`${item.name} removed`);
    (this.list.querySelector("button") || this.input).focus();
  }

  /** The images' ids; sends those that were not sent yet. @returns {Promise<string[]>} */
  async sent() {
    const waiting = this.items.filter((item) => !item.id);
    for (const [number, item] of waiting.entries()) {
      announce(`Sending picture ${number + 1} of ${waiting.length}`);
      item.id = (await api.upload(item.file)).id;
    }
    return this.items.map((item) => item.id);
  }

  /** Pictures that were sent before, fetched when they are asked for. */
  #earlier() {
    const place = el("div", {});
    const load = async (cursor) => {
      const page = await api.images({ limit: 12, cursor });
      if (!page.items.length && !cursor) fill(place, el("p", { class: "hint" }, "There are none yet."));
      const names = page.items.map((image) => `${image.width} × ${image.height}, ${size(image.bytes)}`);
      add(place, el("div", { class: "thumbs" }, page.items.map((image, number) =>
        el("button", {
          type: "button", class: "pick", "aria-label": `Take the picture of ${names[number]}`,
          onclick: () => this.put({ file: null, id: image.id, url: image.url, name: names[number] }),
        }, stored(image.url, "", async () => (await api.image(image.id)).url)))));
      if (page.next_cursor) {
        const more = button("More", () => { more.remove(); load(page.next_cursor).catch(failed); }, "quiet small");
        add(place, more);
      }
    };
    const failed = (error) => fill(place, notice(error));
    return el("details", {
      class: "earlier",
      ontoggle: (event) => { if (event.currentTarget.open && !place.firstChild) load(null).catch(failed); },
    }, el("summary", {}, "Take one that was sent before"), place);
  }
}

const release = (item) => { if (item.file) URL.revokeObjectURL(item.url); };
