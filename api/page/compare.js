// Before and after in one frame, with a slider between them.

import { el, uid } from "./dom.js";
import { stored } from "./pictures.js";

/**
 * Both pictures have the same size. The slider covers the frame, so it is dragged anywhere, and
 * moved with the arrow keys.
 * @param {{url: string, alt: string, renew: () => Promise<string | null | undefined>}} before
 * @param {{url: string, alt: string, renew: () => Promise<string | null | undefined>}} after
 */
export function compare(before, after) {
  const frame = el("div", { class: "frame" });
  const id = uid("compare");
  const slider = el("input", {
    type: "range", min: 0, max: 100, value: 50, step: 1, id, "aria-label": "How much of the picture before is shown",
  });
  const move = () => {
    frame.style.setProperty("--at", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} percent before`);
  };
  slider.addEventListener("input", move);
  frame.append(
    stored(after.url, after.alt, after.renew, { class: "after" }),
    stored(before.url, before.alt, before.renew, { class: "before" }),
    el("span", { class: "tag left", "aria-hidden": "true" }, "Before"),
    el("span", { class: "tag right", "aria-hidden": "true" }, "After"),
    el("span", { class: "handle", "aria-hidden": "true" }),
    slider,
  );
  move();
  return el("figure", { class: "compare" }, frame,
    el("figcaption", { class: "hint" }, "Drag the line, or focus the picture and use the arrow keys."));
}
