// Where the words of the target prompt attended to: a map over the picture while a word is looked at.

import { el } from "./dom.js";
import { stored } from "./pictures.js";

/**
 * The words of a result, each a button that shows its map: while it is hovered or focused, or until
 * it is pressed again.
 */
export class Heat {
  /**
   * @param {{url: string, words: string[], rows: number, columns: number}} maps a row of tiles for each output, a column for each word
   * @param {HTMLElement} over where the map is drawn @param {() => Promise<string | null | undefined>} renew
   */
  constructor(maps, over, renew) {
    this.maps = maps;
    this.over = over;
    this.renew = renew;
    this.output = 0;
    /** @type {{hover: number | null, focus: number | null, pinned: number | null}} */
    this.at = { hover: null, focus: null, pinned: null };
    this.canvas = el("canvas", { width: maps.columns, height: maps.rows });
    /** @type {HTMLImageElement | null} */
    this.tiles = null;
    this.words = maps.words.map((word, number) => this.#word(word, number));
    this.node = el("div", { class: "words" },
      el("p", { class: "hint" }, "Where each word looked while it was drawn: point at one, or press it to keep it."),
      el("p", { class: "row chips", role: "group", "aria-label": "Attention of the words" }, this.words));
  }

  #word(word, number) {
    const say = (name, value) => () => { this.at[name] = value; this.#draw(); };
    return el("button", {
      type: "button", class: "chip", "aria-pressed": "false", "aria-label": `Attention of ${word}`,
      onpointerenter: say("hover", number), onpointerleave: say("hover", null),
      onfocus: say("focus", number), onblur: say("focus", null),
      onclick: () => { this.at.pinned = this.at.pinned === number ? null : number; this.#draw(); },
    }, word);
  }

  /** Shows the maps of another output. @param {number} output */
  show(output) {
    this.output = output;
    this.#draw();
  }

  #draw() {
    const { hover, focus, pinned } = this.at;
    const number = hover ?? focus ?? pinned;
    this.words.forEach((word, k) => word.setAttribute("aria-pressed", String(k === pinned)));
    this.over.classList.toggle("on", number !== null);
    if (number === null) return this.over.replaceChildren();
    if (!this.tiles) { // fetched when it is first wanted
      this.tiles = stored(this.maps.url, "", this.renew);
      this.tiles.addEventListener("load", () => this.#draw());
    }
    const { rows, columns } = this.maps;
    const brush = this.canvas.getContext("2d");
    brush?.clearRect(0, 0, columns, rows);
    if (this.tiles.complete && this.tiles.naturalWidth) {
      brush?.drawImage(this.tiles, number * columns, this.output * rows, columns, rows, 0, 0, columns, rows);
    }
    if (!this.canvas.isConnected) this.over.replaceChildren(this.canvas);
  }
}
