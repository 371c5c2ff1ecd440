// Pictures: uploads and results, searched, chosen, edited together, deleted.

import { api, oneKey, unlessDeleted } from "./client.js";
import { add, announce, button, confirmed, el, empty, fill, uid } from "./dom.js";
import { complain, complaining } from "./fields.js";
import { stored } from "./pictures.js";
import { can } from "./session.js";
import { takeFiles } from "./shortcuts.js";
import { continueAddress, outputTitle } from "./versions.js";
import { size, when } from "./words.js";

const PAGE = 48;

/**
 * A picture of the gallery. of: what is deleted with it; text: what a search finds; act: where its main link leads.
 * @typedef {{id: string, of: string, url: string, renew: () => Promise<string>, title: string, note: any[], text: string,
 *   href: string, act: string, image: string, remove: () => Promise<unknown>, gone: string, may: string}} Entry
 */

const uploads = {
  words: "Uploads",
  none: ["No uploads yet", "Pictures that you send are here, to be edited or used as references again."],
  page: (cursor, signal) => api.images({ limit: PAGE, cursor }, signal),
  /** @returns {Entry[]} */
  entries: (image) => [{
    id: image.id, of: image.id, url: image.url, renew: async () => (await api.image(image.id)).url,
    title: image.name || `${image.width} × ${image.height}`,
    note: [image.name && `${image.width} × ${image.height} · `, size(image.bytes), " · ", when(image.created_at)],
    text: `${image.name} ${image.width} × ${image.height} ${image.media_type} ${image.id}`,
    href: `#/edit?image=${image.id}`, act: "Edit", image: image.id, may: "images:write",
    remove: () => api.removeImage(image.id), gone: "Edits that were made of it stay.",
  }],
};

const results = {
  words: "Results",
  none: ["No results yet", "What your edits make is here."],
  page: (cursor, signal) => api.jobs({ kind: "edit", state: "succeeded", limit: 20, cursor }, signal),
  /** @returns {Entry[]} */
  entries: (job) => job.result.outputs.map((output, number) => ({
    id: `${job.id}.${number}`, of: job.id, url: output.url, renew: async () => (await api.job(job.id)).result.outputs[number].url,
    title: job.request.target_prompt, note: [outputTitle(job, output), " · ", when(job.finished_at)],
    text: `${job.request.target_prompt} ${job.request.source_prompt} ${job.id}`,
    href: `#/jobs/${job.id}?output=${number}`, act: "See it", image: "", may: "edits:write",
    remove: () => api.removeJob(job.id), gone: job.result.outputs.length > 1 ? "All pictures of its edit go with it." : "",
  })),
};

/** @param {HTMLElement} main @param {{signal: AbortSignal, query: URLSearchParams}} given */
export async function galleryView(main, { signal, query }) {
  const kind = query.get("of") === "results" ? results : uploads;
  const list = el("ul", { class: "gallery", "aria-label": kind.words });
  const below = el("div", {});
  const wrong = el("div", { hidden: true });
  const bar = el("div", { class: "row chosenbar", role: "status" });
  /** @type {Map<string, {entry: Entry, tile: HTMLElement, tick: HTMLInputElement}>} */
  const tiles = new Map();
  /** @type {Set<string>} deleted: a page that was under way may still list them */
  const gone = new Set();
  let cursor = null;
  const search = el("input", { type: "search", id: uid("search"), placeholder: kind === uploads ? "file name, size" : "words", oninput: () => find() });
  const ticked = () => [...tiles.values()].filter(({ tick }) => tick.checked);
  const choose = () => {
    const chosen = ticked();
    const ids = chosen.map(({ entry }) => entry.image).filter(Boolean);
    fill(bar, chosen.length > 0 && [
      el("strong", {}, `${chosen.length} chosen`),
      ids.length > 0 && can("edits:write") && el("a", { class: "button main small", href: `#/edit?${ids.map((id) => `image=${id}`).join("&")}` },
        ids.length > 1 ? `Edit ${ids.length} together` : "Edit it"),
      button("Delete", complaining(wrong, () => removeAll(chosen)), "danger small"),
      button("Choose none", () => { chosen.forEach(({ tick }) => { tick.checked = false; }); choose(); }, "quiet small"),
    ]);
  };
  const removeAll = async (chosen) => {
    const notes = [...new Set(chosen.map(({ entry }) => entry.gone))].join(" ");
    const what = chosen.length > 1 ? `${chosen.length} pictures` : "this picture";
    const check = oneKey();
    if (!(await confirmed(`Delete ${what}?`, notes || "This cannot be undone.", "Delete"))) return;
    try {
      for (const { entry } of chosen) {
        if (gone.has(entry.of)) continue; // with another picture of its edit
        check();
        await unlessDeleted(entry.remove());
        gone.add(entry.of);
        for (const [id, other] of tiles) {
          if (other.entry.of !== entry.of) continue;
          other.tile.remove();
          tiles.delete(id);
        }
      }
      announce(`${what} deleted`);
    } finally {
      choose();
      tell();
    }
  };
  const put = (entry) => {
    if (tiles.has(entry.id) || gone.has(entry.of)) return;
    const tick = el("input", { type: "checkbox", onchange: choose, "aria-label": `Choose ${entry.title}` });
    const tile = el("li", { class: "tile" },
      el("a", { href: entry.href, title: entry.title }, stored(entry.url, `${entry.act}: ${entry.title}`, entry.renew, { loading: "lazy" })),
      can(entry.may) && el("span", { class: "pickbox" }, tick),
      el("p", { class: "name" }, entry.title),
      el("p", { class: "hint" }, entry.note),
      kind === results && can("edits:write") && el("a", {
        class: "button quiet small", href: continueAddress(...split(entry.id)), "aria-label": `Continue from ${entry.title}`,
      }, "Continue"));
    tiles.set(entry.id, { entry, tile, tick });
    list.append(tile);
  };
  const tell = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { entry, tile } of tiles.values()) {
      tile.hidden = !words.every((word) => entry.text.toLowerCase().includes(word));
      shown += Number(!tile.hidden);
    }
    fill(below, cursor && button("More", () => load().catch((e) => complain(wrong, e))),
      !tiles.size ? empty(kind.none[0], kind.none[1]) : !shown && !cursor && empty("None like that", "No picture has these words."));
    return shown;
  };
  const show = (page) => {
    cursor = page.next_cursor;
    page.items.flatMap(kind.entries).forEach(put);
    return tell();
  };
  const load = async () => show(await kind.page(cursor, signal));
  const reload = async () => {
    const page = await kind.page(null, signal);
    tiles.clear();
    gone.clear(); // a picture that is sent again has its old id
    fill(list);
    choose(); // nothing is ticked any more
    show(page);
  };
  let searching = false;
  const find = async () => {
    let shown = tell();
    if (searching) return;
    searching = true;
    try {
      while (search.value && cursor && shown < PAGE) shown = await load();
    } catch (error) {
      complain(wrong, error);
    } finally {
      searching = false;
    }
  };
  const file = el("input", {
    type: "file", multiple: true, accept: "image/png,image/jpeg,image/webp", class: "unseen", tabindex: "-1", "aria-label": "Pictures to upload",
    onchange: () => { send([...(file.files || [])]); file.value = ""; },
  });
  const note = el("p", { class: "hint", role: "status" });
  /** Sends files, one after the other. A view that was left begins with none: a dialog of files stays open behind it. */
  const send = complainingWith(wrong, async (files, passed = "") => {
    if (signal.aborted) return;
    const check = oneKey();
    note.textContent = passed;
    let sent = 0;
    try {
      for (const one of files) {
        check(); // it goes on when the view is left, and not for somebody else
        announce(`Sending picture ${sent + 1} of ${files.length}`);
        await api.upload(one);
        sent++;
      }
    } finally {
      const told = `${sent} of ${files.length} pictures were sent.`;
      if (sent < files.length) note.textContent = `${told} ${passed}`;
      if (signal.aborted) announce(told);
      else await reload();
    }
  });
  const tab = (one, href) => el("a", { href, "aria-current": one === kind ? "page" : null }, one.words);
  add(main,
    el("div", { class: "row spread" }, el("h1", {}, "Pictures"),
      el("span", { class: "row" },
        el("span", { class: "row search" }, el("label", { for: search.id }, "Search"), search),
        kind === uploads && can("images:write") && [button("Upload pictures", () => file.click(), "main"), file])),
    el("nav", { class: "tabs", "aria-label": "Kinds of pictures" }, tab(uploads, "#/pictures"), tab(results, "#/pictures?of=results")),
    bar, wrong, note, list, below);
  if (kind === uploads && can("images:write")) takeFiles(send, signal);
  await load();
}

/** @param {string} id @returns {[string, number]} */
const split = (id) => [id.slice(0, id.lastIndexOf(".")), Number(id.slice(id.lastIndexOf(".") + 1))];

/** Does `work` with what it is given; its problem is told in `place`, while that is shown. */
const complainingWith = (place, work) => async (...given) => {
  try {
    place.hidden = true;
    await work(...given);
  } catch (error) {
    if (place.isConnected) complain(place, error);
  }
};
