// What the browser keeps: the key, what was typed, and the person's choices.

const KEY = "customedit.key";

/** Reads a text; empty where the browser keeps nothing. @param {Storage} place @param {string} name */
function read(place, name) {
  try {
    return place.getItem(name) || "";
  } catch {
    return ""; // storage is turned off
  }
}

/** Writes a text; a full or disabled storage keeps the page working. */
function write(place, name, text) {
  try {
    place.setItem(name, text);
  } catch (error) {
    console.info("not kept by the browser", name, String(error));
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The key: kept for this tab, or for all tabs of this browser when the person wishes so. */
export const key = {
  get: () => read(sessionStorage, KEY) || read(localStorage, KEY),
  /** Whether all tabs share it. */
  shared: () => read(localStorage, KEY) !== "",
  /** @param {string} text @param {boolean} [shared] */
  set(text, shared = false) {
    write(shared ? localStorage : sessionStorage, KEY, text);
    (shared ? sessionStorage : localStorage).removeItem(KEY);
  },
  clear() {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
  },
  /** Calls `changed` when another tab signs in or out. @param {() => void} changed */
  watch(changed) {
    window.addEventListener("storage", (event) => {
      if (event.storageArea === localStorage && (event.key === KEY || event.key === null)) changed();
    });
  },
};

/**
 * What was typed in a form, kept for this tab; with a shared key the newest of all tabs is found in
 * a new tab as well. Each tenant has its own. It is written while it follows a form, not before and
 * not after: what a view that was left still waits for must not take the place of newer words.
 */
export class Draft {
  /** @type {(() => any) | null} what is in the form that it follows */
  #current = null;
  #waiting = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer = undefined;

  /** @param {string} tenant @param {string} form such as "edit" */
  constructor(tenant, form) {
    this.name = `customedit.draft.${tenant}.${form}`;
  }

  /** @returns {any} what was kept, or null */
  read() {
    return parsed(read(sessionStorage, this.name) || (key.shared() ? read(localStorage, this.name) : ""));
  }

  /** Keeps `state`, now. */
  write(state) {
    const text = JSON.stringify(state);
    write(sessionStorage, this.name, text);
    if (key.shared()) write(localStorage, this.name, text);
  }

  /** Keeps what is in the form, a moment later; called again meanwhile, only the last counts. */
  save() {
    if (!this.#current) return;
    clearTimeout(this.#timer);
    this.#waiting = true;
    this.#timer = setTimeout(() => this.flush(), 250);
  }

  /** Keeps what waits to be kept, now. */
  flush() {
    clearTimeout(this.#timer);
    if (this.#waiting && this.#current) this.write(this.#current());
    this.#waiting = false;
  }

  clear() {
    clearTimeout(this.#timer);
    this.#waiting = false;
    sessionStorage.removeItem(this.name);
    localStorage.removeItem(this.name);
  }

  /** Ends to follow; nothing more is kept. */
  end() {
    this.flush();
    this.#current = null;
  }

  /** Saves on every input in `node` until `signal` ends, and before the page goes. */
  follow(node, current, signal) {
    if (signal.aborted) return;
    this.#current = current;
    const save = () => this.save();
    node.addEventListener("input", save);
    node.addEventListener("change", save);
    window.addEventListener("pagehide", () => this.flush(), { signal });
    signal.addEventListener("abort", () => this.end());
  }
}

/**
 * The request of a form that may have arrived though no answer came, kept for this tab: under the key that it went under
 * it makes no second job. Each tenant has its own.
 */
export class Unanswered {
  /** @type {{body: string, key: string} | null} where the browser keeps nothing */
  #last = null;

  /** @param {string} tenant @param {string} form such as "edit" */
  constructor(tenant, form) {
    this.name = `customedit.unanswered.${tenant}.${form}`;
  }

  /** The key that `body` went under; empty if it did not go, or was answered. @param {string} body @returns {string} */
  keyOf(body) {
    return [this.#kept(), this.#last].find((one) => one?.body === body)?.key || "";
  }

  /** Keeps that `body` goes. @param {string} body @param {string} key */
  note(body, key) {
    this.#last = { body, key };
    write(sessionStorage, this.name, JSON.stringify(this.#last));
  }

  /** Forgets what went under `key`: it was answered. @param {string} key */
  drop(key) {
    if (this.#last?.key === key) this.#last = null;
    if (this.#kept()?.key === key) sessionStorage.removeItem(this.name);
  }

  #kept() {
    return parsed(read(sessionStorage, this.name));
  }
}

/** A choice of the person for this browser, such as whether single keys are shortcuts. */
export const preference = {
  get: (name, usual) => parsed(read(localStorage, `customedit.preference.${name}`)) ?? usual,
  set: (name, value) => write(localStorage, `customedit.preference.${name}`, JSON.stringify(value)),
};
