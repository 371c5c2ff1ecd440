// A mask as pixels: drawn from strokes, read from a picture, written as one.

import { el } from "./dom.js";

const LONGEST = 1024;

/**
 * One action on the mask. size and soft: shares of the picture's width and of the size;
 * points: x, y as shares of width and height, and pressure.
 * @typedef {{act: "add" | "erase" | "invert" | "clear", size?: number, soft?: number, points?: [number, number, number][]}} Action
 */

/**
 * Draws lines with round ends. @param {CanvasRenderingContext2D} pen
 * @param {[number, number][][]} paths the places of each line, in pixels @param {number[]} widths of each
 * @param {number} x @param {number} y where they are moved to
 */
function lines(pen, paths, widths, x, y) {
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = "#fff";
  paths.forEach(([first, ...rest], number) => {
    pen.beginPath();
    pen.moveTo(first[0] + x, first[1] + y);
    if (!rest.length) pen.lineTo(first[0] + x + 0.01, first[1] + y); // a dot
    rest.forEach((place) => pen.lineTo(place[0] + x, place[1] + y));
    pen.lineWidth = widths[number];
    pen.stroke();
  });
}

/** From where to where lines reach along an axis, in whole pixels within bounds. @param {number[]} places @param {number} width @param {number} least @param {number} most */
const span = (places, width, least, most) => [
  Math.max(least, Math.floor(Math.min(...places) - width / 2 - 1)), Math.min(most, Math.ceil(Math.max(...places) + width / 2 + 1)),
];

/** The mask as pixels: white with alpha where the edit may reach. */
export class MaskPixels {
  /** @param {number} width of the picture @param {number} height of the picture */
  constructor(width, height) {
    const scale = Math.min(1, LONGEST / Math.max(width, height));
    this.width = Math.max(1, Math.round(width * scale));
    this.height = Math.max(1, Math.round(height * scale));
    this.canvas = el("canvas", { width: this.width, height: this.height });
    this.pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d", { willReadFrequently: true }));
  }

  /** @param {CanvasImageSource | null} start @param {Action[]} actions */
  draw(start, actions) {
    this.pen.clearRect(0, 0, this.width, this.height);
    if (start) this.pen.drawImage(start, 0, 0, this.width, this.height);
    actions.forEach((action) => this.apply(action));
  }

  /** @param {Action} action */
  apply(action) {
    const { pen, width, height } = this;
    if (action.act === "clear") return pen.clearRect(0, 0, width, height);
    pen.save();
    if (action.act === "invert") {
      pen.globalCompositeOperation = "xor"; // with an opaque sheet: alpha becomes 1 - alpha
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, width, height);
    } else this.#stroke(action);
    pen.restore();
  }

  /**
   * A stroke. Its soft edge is the shadow of something that lies outside the canvas, which every browser can draw: of one
   * line, or of a picture of many lines where a pen's pressure varies. The shadows of many lines would add up to a hard edge.
   * @param {Action} action
   */
  #stroke({ act, size = 0.1, soft = 0, points = [] }) {
    const { pen, width, height } = this;
    const away = width + 4 * LONGEST;
    const line = size * width;
    const pressures = points.map(([, , pressure]) => pressure || 1);
    const blur = soft * line * (pressures.reduce((sum, one) => sum + one, 0) / pressures.length); // in proportion to the line
    const thick = (/** @type {number} */ pressure) => Math.max(1, line * (1 - soft / 2) * pressure);
    pen.globalCompositeOperation = act === "erase" ? "destination-out" : "source-over";
    pen.shadowColor = "#fff";
    pen.shadowBlur = blur;
    pen.shadowOffsetX = away;
    const places = points.map(([x, y]) => /** @type {[number, number]} */ ([x * width, y * height]));
    if (pressures.every((pressure) => pressure === pressures[0])) {
      return lines(pen, [places], [thick(pressures[0])], -away, 0);
    }
    const widest = thick(Math.max(...pressures));
    const margin = Math.ceil(2 * blur); // beyond it nothing shines into the picture
    const [left, right] = span(places.map(([x]) => x), widest, -margin, width + margin);
    const [top, bottom] = span(places.map(([, y]) => y), widest, -margin, height + margin);
    if (right <= left || bottom <= top) return;
    const sheet = el("canvas", { width: right - left, height: bottom - top });
    const parts = places.slice(1).map((place, number) => [places[number], place]);
    lines(/** @type {CanvasRenderingContext2D} */ (sheet.getContext("2d")), parts, pressures.slice(1).map(thick), -left, -top);
    pen.drawImage(sheet, left - away, top);
  }

  /** The share of the picture that is inside, in [0, 1], and whether any of it is outside. */
  cover() {
    const { data } = this.pen.getImageData(0, 0, this.width, this.height);
    let sum = 0;
    let [most, least] = [0, 255];
    for (let at = 3; at < data.length; at += 4) {
      sum += data[at];
      most = Math.max(most, data[at]);
      least = Math.min(least, data[at]);
    }
    return { share: sum / 255 / (this.width * this.height), most: most / 255, least: least / 255 };
  }

  /** White on black, as the service reads masks. @returns {Promise<File>} */
  async file() {
    const sheet = el("canvas", { width: this.width, height: this.height });
    const pen = /** @type {CanvasRenderingContext2D} */ (sheet.getContext("2d"));
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, this.width, this.height);
    pen.drawImage(this.canvas, 0, 0);
    const blob = await new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
    return new File([/** @type {Blob} */ (blob)], "mask.png", { type: "image/png" });
  }
}

/**
 * A picture of a mask as white with alpha. marks: what in it is inside, white (on black, or on transparent) or
 * transparent, as the service reads it.
 * @param {Blob} blob @param {string} [marks]
 */
export async function maskSource(blob, marks = "white") {
  const bitmap = await createImageBitmap(blob);
  const sheet = el("canvas", { width: bitmap.width, height: bitmap.height });
  const pen = /** @type {CanvasRenderingContext2D} */ (sheet.getContext("2d", { willReadFrequently: true }));
  pen.drawImage(bitmap, 0, 0);
  const pixels = pen.getImageData(0, 0, sheet.width, sheet.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const [r, g, b, a] = pixels.data.subarray(at, at + 4);
    pixels.data.set([255, 255, 255, marks === "transparent" ? 255 - a : Math.round(Math.max(r, g, b) * a / 255)], at);
  }
  pen.putImageData(pixels, 0, 0);
  return sheet;
}
