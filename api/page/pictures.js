// Pictures: chosen, pasted or dropped, sent at once, and shown from the store.

import { api, Away, isMissing, lane, oneKey, Problem } from "./client.js";
import { add, announce, button, el, fill, uid } from "./dom.js";
import { counted, notice, told } from "./fields.js";
import { chooseFolder, choosesFolders, dropped, TYPES } from "./folders.js";
import { can, known } from "./session.js";
import { dragsFiles } from "./shortcuts.js";
import { size } from "./words.js";

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
 * A picture that was chosen. file: null for one that the service has already; id: of the image once
 * it was sent; url: empty while the service does not give it; error: why it could not be sent yet;
 * from: the output that it is, where it is one.
 * @typedef {{file: File | null, id: string, url: string, name: string, width?: number, height?: number,
 *   warnings?: string[], sending?: Promise<void> | null, error?: string, problem?: unknown,
 *   from?: {job: string, output: number} | null}} Item
 */

/** An item of an image of the service. @returns {Item} */
export const imageItem = (image, name = "") => ({
  file: null, id: image.id, url: image.url, name: name || image.name || `${image.width} × ${image.height}`,
  width: image.width, height: image.height, warnings: image.warnings,
});

/** @param {string} id @param {AbortSignal} signal @param {string} name @returns {Promise<Item>} */
const findImage = async (id, signal, name) => imageItem(await api.image(id, signal), name);

/** Whether a failure is of the service or the way to it, so that all others would fail as well. */
const isOfService = (error) => error instanceof Away || (error instanceof Problem && (error.status === 429 || error.status >= 500));

/** A place to drop or choose pictures, with what was chosen. */
export class Pictures {
  /**
   * @param {{most: number, what: string, alt: (number: number) => string, signal: AbortSignal, changed?: () => void,
   *   taking?: (files: File[]) => void, large?: boolean, find?: (id: string, signal: AbortSignal, name: string) => Promise<Item>}} given
   * what: is asked for, such as "reference pictures"; signal: the view's end; taking: is told of files first, and may
   * raise `most`; large: a single picture is shown by its owner; find: gives the picture of an id
   */
  constructor({ most, what, alt, signal, changed = () => {}, taking, large = false, find = findImage }) {
    this.signal = signal;
    signal.addEventListener("abort", () => this.items.forEach(release)); // what is being sent has the files themselves
    this.find = find;
    this.taking = taking;
    this.most = most;
    this.alt = alt;
    this.what = what;
    this.changed = changed;
    this.large = large;
    /** @type {Item[]} */
    this.items = [];
    this.node = el("div", { class: "pictures" });
    this.said = el("p", { class: "error", role: "alert", hidden: true });
    this.note = el("p", { class: "hint", role: "status" });
    this.away = el("div", { role: "status" });
    this.turn = 0; // of emptying: what comes late is not put into what was emptied since
    this.unseen = 0; // pictures that the service does not give now
    this.why = /** @type {unknown} */ (null);
    this.list = el("ul", { class: "thumbs", "aria-label": `Chosen ${what}` });
    const multiple = most > 1 || Boolean(taking);
    this.input = el("input", {
      type: "file", accept: TYPES.join(","), multiple, id: uid("file"), class: "unseen",
      onchange: () => { this.take([...(this.input.files || [])]); this.input.value = ""; },
      onkeydown: (event) => { // as a button does; the browser would send the form
        if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        this.input.click();
      },
    });
    this.drop = el("label", { class: "drop", for: this.input.id },
      this.ask = el("strong", {}, `Choose ${what}`), el("span", {}, `or drop or paste ${most > 1 ? "them" : "it"} anywhere: PNG, JPEG or WebP`));
    const allowed = can("images:write");
    const folder = multiple && choosesFolders && button("Choose a folder", () => chooseFolder((given) => this.take(given.files, given.note)), "quiet small folder");
    add(this.node, allowed && [this.input, this.drop, folder], this.said, this.note, this.away, this.list, this.#earlier());
    if (allowed) this.#listen();
  }

  #listen() {
    const over = (on) => this.drop.classList.toggle("over", on);
    this.node.addEventListener("dragover", (event) => {
      if (!dragsFiles(event)) return;
      event.preventDefault();
      over(true);
    });
    this.node.addEventListener("dragleave", () => over(false));
    this.node.addEventListener("drop", async (event) => {
      over(false);
      if (!dragsFiles(event)) return;
      event.preventDefault();
      document.body.classList.remove("dropping");
      const { files, note } = await dropped(event.dataTransfer);
      this.take(files, note);
    });
  }

  /**
   * Adds files; says which cannot be taken. A view that was left takes none: a dialog of files stays open behind it, and
   * somebody else may have signed in.
   * @param {File[]} files @param {string} [note] what of a folder was passed over
   */
  take(files, note = "") {
    if (this.signal.aborted) return;
    this.taking?.(files);
    this.note.textContent = note;
    const most = known().max_upload_bytes;
    const bad = files.filter((f) => !TYPES.includes(f.type) || f.size > most);
    const good = files.filter((f) => !bad.includes(f));
    for (const file of good) this.put({ file, id: "", url: URL.createObjectURL(file), name: file.name || "pasted picture" });
    if (bad.length) this.say(bad.map((f) =>
      TYPES.includes(f.type) ? `${f.name} has ${size(f.size)}; at most ${size(most)}` : `${f.name} is no PNG, JPEG or WebP`,
    ).join("; "));
  }

  /** Adds a picture; where only one is taken it replaces the one before. @param {Item} item */
  put(item) {
    this.say("");
    if (this.most === 1) this.items.splice(0).forEach(release);
    if (this.items.length >= this.most) {
      release(item);
      return this.say(`At most ${this.most} pictures.`);
    }
    if (item.id && this.items.some((other) => other.id === item.id)) return;
    this.items.push(item);
    if (item.file) this.#send(item);
    this.draw();
  }

  /** Takes as many as `most` from now on; those beyond it go. @param {number} most */
  limit(most) {
    this.most = most;
    this.items.splice(most).forEach(release);
    this.draw();
  }

  /** Takes one picture in place of all others. @param {Item} item */
  only(item) {
    this.items.splice(0).forEach(release);
    this.put(item);
  }

  /** Sends a file at once, so that it is there after a reload; a failure is told and tried again later. */
  #send(item) {
    item.error = "";
    item.sending = api.upload(item.file).then((image) => {
      const { id, width, height, warnings } = image;
      Object.assign(item, { id, width, height, warnings });
    }, (error) => {
      item.error = error instanceof Problem ? error.detail || error.title : "not sent yet: the service does not answer";
      item.problem = error;
    }).finally(() => {
      item.sending = null;
      if (this.items.includes(item)) this.draw();
    });
  }

  say(words) {
    this.said.textContent = words;
    this.said.hidden = !words;
  }

  draw() {
    if (this.signal.aborted) return;
    const alone = this.large && this.items.length === 1;
    const had = this.list.contains(document.activeElement);
    fill(this.list, this.items.map((item, number) => el("li", {},
      !alone && item.url && el("img", { src: item.url, alt: this.alt(number) }),
      el("span", { class: "name", title: item.name }, item.sending ? `Sending ${item.name}…` : item.name),
      item.error && el("span", { class: "error" }, item.error),
      (item.warnings || []).map((text) => el("span", { class: "warning" }, text)),
      button("Remove", () => this.remove(item), "quiet small", { "aria-label": `Remove ${item.name}` }))));
    if (had) this.list.querySelector("button")?.focus();
    this.#tellUnseen();
    this.node.classList.toggle("full", this.items.length > 0);
    this.node.classList.toggle("alone", alone);
    this.ask.textContent = alone ? "Choose another" : `Choose ${this.what}`;
    this.changed();
    this.node.dispatchEvent(new Event("change", { bubbles: true }));
  }

  /** Takes all of them away. */
  clear() {
    this.turn++;
    this.items.splice(0).forEach(release);
    this.note.textContent = "";
    this.draw();
  }

  remove(item) {
    this.items.splice(this.items.indexOf(item), 1).forEach(release);
    this.draw();
    announce(`${item.name} removed`);
    (this.list.querySelector("button") || this.input).focus();
  }

  /** The images' ids; sends those that could not be sent before. @returns {Promise<string[]>} @throws {Problem} */
  async sent() {
    const check = oneKey();
    for (let item; (item = this.items.find(({ id }) => !id)); ) { // some may come and go meanwhile
      check();
      if (!item.sending) this.#send(item);
      announce(`Sending picture ${this.items.indexOf(item) + 1} of ${this.items.length}`);
      await item.sending;
      if (!item.id && this.items.includes(item)) throw item.problem;
    }
    check();
    return this.items.map((item) => item.id);
  }

  /** What a draft keeps: the pictures that the service has. */
  kept() {
    return this.items.filter(({ id }) => id).map(({ id, name }) => ({ id, name }));
  }

  /**
   * Shows again what a draft kept. What was deleted meanwhile is left out, which is told; what the service does not give
   * now stays chosen without being seen.
   * @param {{id: string, name: string}[]} kept
   */
  async restore(kept) {
    const mine = this.turn;
    const found = await this.#ask(kept);
    if (this.signal.aborted || mine !== this.turn) return;
    for (const item of found) if (item) this.put(item);
  }

  /** Asks for pictures by their ids, few at a time; tells how many were deleted. @param {{id: string, name: string}[]} kept */
  async #ask(kept) {
    const inLane = lane();
    /** @type {unknown} why one was not given */
    let error = null;
    const found = await Promise.all(kept.map(({ id, name }) => inLane(async () => {
      try {
        if (isOfService(error)) throw error; // one is enough: the others are not asked for
        return await this.find(id, this.signal, name === id ? "" : name);
      } catch (failed) {
        if (isMissing(failed)) return null;
        error = failed;
        return /** @type {Item} */ ({ file: null, id, url: "", name: name || id });
      }
    })));
    const gone = found.filter((item) => !item).length;
    if (gone) this.note.textContent = `${counted(gone, "picture")} of this form ${gone === 1 ? "was" : "were"} deleted meanwhile.`;
    this.why = error;
    this.unseen = 0; // told anew
    return found;
  }

  /** Tells how many of the chosen pictures the service does not give now, and why. */
  #tellUnseen() {
    const unseen = this.items.filter(({ url }) => !url);
    if (unseen.length === this.unseen) return;
    this.unseen = unseen.length;
    fill(this.away, unseen.length > 0 && el("div", { class: "warning" },
      `${counted(unseen.length, "picture")} cannot be shown now, and ${unseen.length === 1 ? "stays" : "stay"} chosen.`, told(this.why),
      el("p", { class: "row" }, button("Try again", () => this.#askAgain(unseen), "small"))));
  }

  /** Asks again for pictures that are chosen and not shown. @param {Item[]} unseen */
  async #askAgain(unseen) {
    const found = await this.#ask(unseen);
    if (this.signal.aborted) return;
    unseen.forEach((item, at) => {
      const now = found[at];
      if (now) Object.assign(item, now);
      else if (this.items.includes(item)) this.items.splice(this.items.indexOf(item), 1);
    });
    fill(this.away);
    this.draw();
    /** @type {HTMLElement} */ (this.away.querySelector("button") || this.list.querySelector("button") || this.input).focus(); // what was pressed is gone
  }

  /** Pictures that were sent before, fetched when they are asked for. */
  #earlier() {
    const place = el("div", {});
    const load = async (cursor) => {
      const page = await api.images({ limit: 12, cursor });
      if (!page.items.length && !cursor) fill(place, el("p", { class: "hint" }, "There are none yet."));
      add(place, el("div", { class: "thumbs" }, page.items.map((image) => {
        const name = [image.name, `${image.width} × ${image.height}`, size(image.bytes)].filter(Boolean).join(", ");
        return el("button", {
          type: "button", class: "pick", "aria-label": `Take the picture of ${name}`, title: name, onclick: () => this.put(imageItem(image)),
        }, stored(image.url, "", async () => (await api.image(image.id)).url));
      })));
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
