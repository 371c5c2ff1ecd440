// What "Try several and keep the best" measured: each value of how much changes, and the one that was kept.

import { el, shape } from "./dom.js";
import { can } from "./session.js";

const [WIDTH, HEIGHT] = [340, 170]; // of the drawing, in its own units
const [LEFT, RIGHT, TOP, BOTTOM] = [34, 26, 14, 30];
const percent = (value) => `${Math.round(value * 1000) / 10} %`;
const across = (value) => LEFT + value * (WIDTH - LEFT - RIGHT);
const up = (score) => HEIGHT - BOTTOM - score * (HEIGHT - TOP - BOTTOM);

/** The form of an edit with all of a run's request, but with another value. @param {string} job its id @param {number} value */
const again = (job, value) => `#/edit?job=${job}&change=${value}`;

/**
 * The section with the curve of an edit whose change was "auto"; null for others.
 * @param {any} job
 */
export function changeCurve(job) {
  const curve = job.result.change_curve;
  if (!curve) return null;
  const { values, score, chosen } = curve;
  const may = can("edits:write");
  const found = score.some((one) => one > 0);
  return el("section", { class: "card curve", "aria-label": "How much was tried" },
    el("h2", {}, "How much was tried"),
    el("p", { class: "hint" }, found
      ? `${values.length} values were drawn. ${percent(chosen)} has the greatest score and was kept: it keeps most of the source for what it gains of the look.`
      : `${values.length} values were drawn. None came nearer to the references, so ${percent(chosen)}, the usual one, was kept.`,
    may && " Press a value to edit again with it."),
    drawing(job, curve, may), table(job, curve, may));
}

/** The scores as a line with a point for each value; the table beside it has the same for screen readers and keys. */
function drawing(job, { values, score, chosen }, may) {
  const line = values.map((value, k) => `${across(value).toFixed(1)},${up(score[k]).toFixed(1)}`).join(" ");
  const text = (x, y, anchor, words) => shape("text", { x, y, "text-anchor": anchor }, words);
  return shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true", focusable: "false" },
    shape("path", { class: "axes", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}` }),
    text(LEFT - 6, up(1) + 4, "end", "1"), text(LEFT - 6, up(0) + 4, "end", "0"), text(LEFT + 6, up(1) + 4, "start", "score"),
    [0, 0.5, 1].map((value) => text(across(value), HEIGHT - BOTTOM + 18, "middle", percent(value))),
    shape("polyline", { class: "line", points: line }),
    values.map((value, k) => shape("g", {
      class: [value === chosen ? "point chosen" : "point", may && "use"].filter(Boolean).join(" "),
      onclick: may ? () => { location.hash = again(job.id, value); } : null,
    }, shape("title", {}, `${percent(value)}: score ${score[k].toFixed(2)}`),
    shape("circle", { class: "reach", cx: across(value), cy: up(score[k]), r: 14 }), // fingers need more than the point
    shape("circle", { cx: across(value), cy: up(score[k]), r: value === chosen ? 7 : 4.5 }))));
}

function table(job, { values, score, source, reference, chosen }, may) {
  const cell = (value) => el("td", { class: "figure" }, value.toFixed(2));
  return el("table", {},
    el("caption", { class: "unseen" }, "The values that were tried"),
    el("thead", {}, el("tr", {}, ["Change", "Score", "Like the source", "Like the references"].map((words) => el("th", { scope: "col" }, words)))),
    el("tbody", {}, values.map((value, k) => el("tr", { class: value === chosen && "chosen" },
      el("th", { scope: "row" },
        may ? el("a", { href: again(job.id, value), "aria-label": `Edit again with ${percent(value)}` }, percent(value)) : percent(value),
        value === chosen && el("span", { class: "best" }, "kept")),
      cell(score[k]), cell(source[k]), cell(reference[k])))));
}
