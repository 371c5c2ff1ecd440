// What an edit made: before and after, all outputs, its versions, and how each was made.

import { api } from "./client.js";
import { Compare } from "./compare.js";
import { changeCurve } from "./curve.js";
import { add, announce, button, copy, el, fill, uid } from "./dom.js";
import { complaining, notice } from "./fields.js";
import { Heat } from "./heat.js";
import { download, stored } from "./pictures.js";
import { can } from "./session.js";
import { bestOutput, continueAddress, everyVersion, Family, outputTitle, parentOf, versionsList } from "./versions.js";

const SHOWN = [["source", "Like the source"], ["reference", "Like the references"], ["text", "Like the text"]];
const MORE = { outside_psnr: "PSNR outside", outside_ssim: "SSIM outside", dino: "DINO", lpips: "LPIPS" };

const file = (job, what) => `${job.id}-${what}.png`;

/**
 * The result of a succeeded edit.
 * @param {any} job @param {() => Promise<any>} renew gives the job with fresh addresses
 * @param {{output: number | null, signal: AbortSignal}} given output: the number of the one to show first
 */
export async function editResult(job, renew, { output: asked, signal }) {
  const { outputs } = job.result;
  const compare = new Compare();
  const facts = el("div", {});
  const versions = el("section", { class: "card", "aria-label": "Versions of the picture" });
  const maps = job.result.word_maps;
  const heat = maps && new Heat(maps, compare.over, async () => (await renew()).result.word_maps.url);
  const before = await source(job, renew);
  compare.showBefore(before);
  const others = new Others(compare, before);
  const family = new Family(job, signal);
  let shown = -1;
  const wrong = el("div", { hidden: true });
  const drawVersions = () => {
    if (!family.first) return;
    others.list(everyVersion(family), `${job.id}.${shown}`);
    fill(versions, el("h2", {}, "Versions"), versionsList(family, job, shown), family.cursor && el("div", {},
      el("p", { class: "hint" }, `Looked for among your newest ${family.seen} edits: older ones may be missing here.`),
      button("Look through older edits", complaining(wrong, look), "quiet small")), wrong);
  };
  const look = async () => {
    wrong.hidden = true;
    await family.look();
    drawVersions();
    /** @type {HTMLElement | null} */ (versions.querySelector("a, button"))?.focus(); // what was pressed is gone
    announce(`Versions are listed, of your newest ${family.seen} edits`);
  };
  const show = (number) => {
    shown = number;
    const output = outputs[number];
    const fresh = async () => (await renew()).result.outputs[number].url;
    compare.showAfter({ url: output.url, alt: `After: ${job.request.target_prompt}, ${outputTitle(job, output)}`, name: "After", renew: fresh });
    heat?.show(number);
    fill(facts, ...about(job, number, fresh));
    drawVersions();
  };
  const choose = (number) => {
    show(number);
    history.replaceState(null, "", `#/jobs/${job.id}?output=${number}`);
    announce(`${outputTitle(job, outputs[number])} is shown`);
  };
  show(asked !== null && outputs[asked] ? asked : bestOutput(job));
  family.look().then(drawVersions, (error) => { if (!signal.aborted) fill(versions, el("h2", {}, "Versions"), notice(error)); });
  return el("div", { class: "result" },
    el("div", { class: "columns wide-left" },
      el("div", {}, compare.node, heat?.node, others.node,
        outputs.length > 1 && strip(job, shown, renew, choose), changeCurve(job)),
      el("div", {},
        el("section", { class: "card", "aria-label": "The chosen picture" }, facts),
        versions)),
    extras(job, renew));
}

/** The picture before: as it was uploaded, or the version that was continued. @returns {Promise<import("./compare.js").Shown>} */
async function source(job, renew) {
  const alt = `Before: ${job.request.source_prompt || "the source picture"}`;
  const again = async () => (await api.image(job.request.image)).url;
  const { source_url: url } = job.result;
  return {
    url: url || (await again().catch(() => "")), alt, name: parentOf(job) ? "Version before" : "Before",
    renew: url ? async () => (await renew()).result.source_url : again,
  };
}

/** A list of all versions, to compare the shown one with another than its source. */
class Others {
  /** @param {Compare} compare @param {import("./compare.js").Shown} before what is compared with at first */
  constructor(compare, before) {
    this.compare = compare;
    this.before = before;
    /** @type {import("./versions.js").Version[]} */
    this.all = [];
    this.choice = el("select", { id: uid("with"), onchange: () => this.#compare() });
    this.node = el("div", { class: "other" });
  }

  /** Lists all versions but the one that is shown; what was chosen stays. @param {import("./versions.js").Version[]} all @param {string} shown */
  list(all, shown) {
    this.all = all;
    const chosen = this.choice.value;
    fill(this.choice, el("option", { value: "" }, "the picture before it"),
      all.filter(({ id }) => id !== shown).map(({ id, label }) => el("option", { value: id }, label)));
    this.choice.value = chosen;
    if (this.choice.value !== chosen) { // it is the one that is shown now
      this.choice.value = "";
      this.compare.showBefore(this.before);
    }
    if (!this.node.firstChild) add(this.node, el("div", { class: "row" }, el("label", { for: this.choice.id }, "Compare with"), this.choice));
  }

  #compare() {
    const other = this.all.find(({ id }) => id === this.choice.value);
    this.compare.showBefore(other ? { ...other, alt: `Before: ${other.label}`, name: other.id === "upload" ? "Upload" : "Other" } : this.before);
    announce(other ? `Compared with ${other.label}` : "Compared with the picture before");
  }
}

/** What is known of one output, and what can be done with it. */
function about(job, number, fresh) {
  const output = job.result.outputs[number];
  const more = Object.entries(MORE).filter(([name]) => typeof output.similarities[name] === "number");
  return [
    el("h2", {}, outputTitle(job, output), output.best && job.result.outputs.length > 1 && star()),
    can("edits:write") && el("p", { class: "row" },
      el("a", { class: "button main", href: continueAddress(job.id, number) }, "Continue from this picture")),
    el("div", { class: "row" },
      can("edits:write") && el("a", { class: "button quiet", href: `#/edit?job=${job.id}` }, "Edit again from here"),
      can("edits:write") && job.result.mask_url &&
        el("a", { class: "button quiet", href: `#/edit?job=${job.id}&region=found` }, "Adjust the region"),
      download("Download", output.url, file(job, `strength-${output.strength}-seed-${output.seed}`), fresh)),
    el("dl", { class: "meters" }, SHOWN.map(([name, words]) => meter(words, output.similarities[name]))),
    more.length > 0 && el("p", { class: "hint" },
      more.map(([name, words]) => `${words} ${output.similarities[name].toFixed(2)}`).join(", ")),
    job.result.region_words?.length > 0 && el("p", { class: "hint" }, `Region of: ${job.result.region_words.join(", ")}`),
    recipe(output.recipe),
  ];
}

const star = () => el("span", { class: "best" }, el("span", { "aria-hidden": "true" }, "★ "), "best");

/** A similarity as a bar and a figure. CLIP's cosines lie between 0 and 1 in practice. */
function meter(words, value) {
  if (typeof value !== "number") return [el("dt", {}, words), el("dd", { class: "faint" }, "not measured")];
  const bar = el("span", { class: "meter", "aria-hidden": "true" });
  bar.style.setProperty("--share", `${Math.max(0, Math.min(1, value)) * 100}%`);
  return [el("dt", {}, words), el("dd", {}, bar, el("span", { class: "figure" }, value.toFixed(2)))];
}

/** The recipe as JSON, to be copied. */
function recipe(found) {
  const shown = JSON.stringify(found, null, 2);
  const act = button("Copy", async () => {
    await copy(shown);
    act.textContent = "Copied";
    announce("The recipe is copied");
    setTimeout(() => { act.textContent = "Copy"; }, 2000);
  }, "quiet small");
  return el("details", {}, el("summary", {}, "Show recipe"), el("p", { class: "row end" }, act),
    el("pre", { tabindex: "0", "aria-label": "Recipe as JSON" }, shown));
}

/** All outputs to choose from: radio buttons, so that the arrow keys go along them. */
function strip(job, shown, renew, chosen) {
  const name = uid("strip");
  return el("fieldset", { class: "strip" }, el("legend", {}, "All pictures"),
    job.result.outputs.map((output, number) => el("label", { class: "choice" },
      el("input", {
        type: "radio", class: "unseen", name, value: String(number), checked: number === shown,
        onchange: () => chosen(number),
      }),
      stored(output.url, outputTitle(job, output), async () => (await renew()).result.outputs[number].url),
      el("strong", {}, outputTitle(job, output)),
      output.best && star(),
      el("span", { class: "hint" }, SHOWN.filter(([key]) => typeof output.similarities[key] === "number")
        .map(([key]) => `${key} ${output.similarities[key].toFixed(2)}`).join(" · ")))));
}

const EXTRAS = [["sheet_url", "sheet", "Sheet of all strengths"], ["mask_url", "mask", "Region that was edited"]];

/** Sheet, mask and maps, where there are some. */
function extras(job, renew) {
  const there = EXTRAS.filter(([field]) => job.result[field]);
  const maps = job.result.maps_url;
  if (!there.length && !maps) return null;
  return el("section", { class: "card" }, el("h2", {}, "More of this edit"),
    el("div", { class: "extras" }, there.map(([field, name, words]) => {
      const fresh = async () => (await renew()).result[field];
      return el("figure", {}, stored(job.result[field], words, fresh),
        el("figcaption", {}, words, " ", download("Open", job.result[field], file(job, name), fresh)));
    })),
    maps && el("p", { class: "row" }, download("Attention maps", maps, `${job.id}-maps.safetensors`, async () => (await renew()).result.maps_url),
      el("span", { class: "hint" }, "of every word and step, as safetensors")));
}
