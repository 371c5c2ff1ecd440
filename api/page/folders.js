// Folders of pictures, chosen or dropped: the pictures in them, and how many other files were passed over.

import { el } from "./dom.js";

export const TYPES = ["image/png", "image/jpeg", "image/webp"];

const MOST_READ = 5000; // files: more is a whole disk rather than pictures to edit

/** What was given. note: what of folders was passed over, for people; empty where all was taken. @typedef {{files: File[], note: string}} Given */

const { compare } = new Intl.Collator("en", { numeric: true });
const isPicture = (file) => TYPES.includes(file.type);
const many = (count) => `${count} ${count === 1 ? "file" : "files"}`;

/** The pictures among the files of a folder. @param {File[]} files @returns {Given} */
function ofFolder(files) {
  const pictures = files.filter(isPicture);
  const passed = files.length - pictures.length;
  const note = [
    !pictures.length && "There is no PNG, JPEG or WebP in the folder.",
    passed > 0 && `${many(passed)} ${passed === 1 ? "is no picture and was" : "are no pictures and were"} passed over.`,
    files.length >= MOST_READ && `Only the first ${MOST_READ} files were looked at.`,
  ].filter(Boolean).join(" ");
  return { files: pictures, note };
}

/**
 * What was dropped: files as they are, of folders the pictures. It must be called while the event is handled, since the
 * browser forgets afterwards what was dropped.
 * @param {DataTransfer | null} transfer @returns {Promise<Given>}
 */
export async function dropped(transfer) {
  const files = [...(transfer?.files || [])]; // with a file that cannot be read for each folder
  const entries = [...(transfer?.items || [])].filter(({ kind }) => kind === "file").map((item) => item.webkitGetAsEntry?.() || null);
  if (!entries.some((entry) => entry?.isDirectory)) return { files, note: "" };
  /** @type {File[]} */
  const within = [];
  for (const entry of entries) if (entry?.isDirectory) await read(entry, within);
  const { files: pictures, note } = ofFolder(within);
  return { files: [...files.filter((_, at) => !entries[at]?.isDirectory), ...pictures], note };
}

/** Adds the files of a folder and of the folders in it, by their names. @param {any} folder @param {File[]} found */
async function read(folder, found) {
  const reader = folder.createReader();
  /** @type {any[]} */
  const entries = [];
  for (;;) { // it gives a hundred at a time
    const part = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!part.length) break;
    entries.push(...part);
  }
  for (const entry of entries.sort((a, b) => compare(a.name, b.name))) {
    if (found.length >= MOST_READ) return;
    if (entry.isDirectory) await read(entry, found);
    else {
      const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null))); // null: gone, or not to be read
      if (file) found.push(file);
    }
  }
}

/** Whether the browser lets choose folders. */
export const choosesFolders = "webkitdirectory" in HTMLInputElement.prototype;

/** Asks for a folder. @param {(given: Given) => void} take */
export function chooseFolder(take) {
  const input = el("input", {
    type: "file", webkitdirectory: true,
    onchange: () => {
      const files = [...(input.files || [])].sort((a, b) => compare(a.webkitRelativePath, b.webkitRelativePath));
      take(ofFolder(files.slice(0, MOST_READ)));
    },
  });
  input.click();
}
