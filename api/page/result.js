// What an edit made: before and after, all strengths, and how each was made.

import { api } from "./client.js";
import { compare } from "./compare.js";
import { announce, button, copy, el, fill, uid } from "./dom.js";
import { download, stored } from "./pictures.js";

const SHOWN = [["source", "Like the source"], ["reference", "Like the references"], ["text", "Like the text"]];
const MORE = { outside_psnr: "PSNR outside", outside_ssim: "SSIM outside", dino: "DINO", lpips: "LPIPS" };

/** What tells two outputs of a job apart. */
function title(output) {
  const strength = output.strength === null ? "default strength" : `strength ${output.strength}`;
  return output.seed ? `${strength}, seed ${output.seed}` : strength;
}

const file = (job, what) => `${job.id}-${what}.png`;

/**
 * The result of a succeeded edit.
 * @param {any} job @param {() => Promise<any>} renew gives the job with fresh addresses
 */
export async function editResult(job, renew) {
  const { outputs } = job.result;
  const best = Math.max(0, outputs.findIndex((output) => output.best));
  const stage = el("div", {});
  const facts = el("div", {});
  const show = (number) => {
    const output = outputs[number];
    const fresh = async () => (await renew()).result.outputs[number].url;
    fill(stage, compare(before, { url: output.url, alt: `After: ${job.request.target_prompt}, ${title(output)}`, renew: fresh }));
    fill(facts, ...about(job, output, fresh));
  };
  const before = await source(job, renew);
  show(best);
  return el("div", { class: "result" },
    el("div", { class: "columns wide-left" },
      el("div", {}, stage,
        outputs.length > 1 && strip(job, best, renew, (number) => { show(number); announce(`${title(outputs[number])} is shown`); })),
      el("section", { class: "card", "aria-label": "The chosen picture" }, facts)),
    extras(job, renew));
}

/** The picture before: through the autoencoder, which has the size of the outputs; else as sent. */
async function source(job, renew) {
  const alt = `Before: ${job.request.source_prompt || "the source picture"}`;
  if (job.result.source_url) {
    return { url: job.result.source_url, alt, renew: async () => (await renew()).result.source_url };
  }
  const again = async () => (await api.image(job.request.image)).url;
  return { url: await again().catch(() => ""), alt, renew: again };
}

/** What is known of one output, and what can be done with it. */
function about(job, output, fresh) {
  const more = Object.entries(MORE).filter(([name]) => typeof output.similarities[name] === "number");
  return [
    el("h2", {}, title(output), output.best && outputs(job) > 1 && star()),
    el("dl", { class: "meters" }, SHOWN.map(([name, words]) => meter(words, output.similarities[name]))),
    more.length > 0 && el("p", { class: "hint" },
      more.map(([name, words]) => `${words} ${output.similarities[name].toFixed(2)}`).join(", ")),
    el("div", { class: "row" },
      download("Download", output.url, file(job, `strength-${output.strength}-seed-${output.seed}`), fresh)),
    recipe(output.recipe),
  ];
}

const outputs = (job) => job.result.outputs.length;
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
function strip(job, best, renew, chosen) {
  const name = uid("strip");
  return el("fieldset", { class: "strip" }, el("legend", {}, "All pictures"),
    job.result.outputs.map((output, number) => el("label", { class: "choice" },
      el("input", {
        type: "radio", class: "unseen", name, value: String(number), checked: number === best,
        onchange: () => chosen(number),
      }),
      stored(output.url, title(output), async () => (await renew()).result.outputs[number].url),
      el("strong", {}, title(output)),
      output.best && star(),
      el("span", { class: "hint" }, SHOWN.filter(([key]) => typeof output.similarities[key] === "number")
        .map(([key]) => `${key} ${output.similarities[key].toFixed(2)}`).join(" · ")))));
}

const EXTRAS = [["sheet_url", "sheet", "Sheet of all strengths"], ["mask_url", "mask", "Region that was edited"], ["maps_url", "maps", "Attention maps"]];

/** Sheet, mask and maps, where there are some. */
function extras(job, renew) {
  const there = EXTRAS.filter(([field]) => job.result[field]);
  if (!there.length) return null;
  return el("section", { class: "card" }, el("h2", {}, "More of this edit"),
    el("div", { class: "extras" }, there.map(([field, name, words]) => {
      const fresh = async () => (await renew()).result[field];
      return el("figure", {}, stored(job.result[field], words, fresh),
        el("figcaption", {}, words, " ", download("Open", job.result[field], file(job, name), fresh)));
    })));
}
