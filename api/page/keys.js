// API keys of the tenant: listed, made and revoked by whoever has one of the scope admin.

import { api } from "./client.js";
import { add, announce, button, confirmed, copy, el, fill, uid } from "./dom.js";
import { box, busy, complaining, Fields, figure, form, given, kept, number, restore, text } from "./fields.js";
import { choices, field, hint, numberFault } from "./schema.js";
import { can, known } from "./session.js";
import { Draft } from "./storage.js";
import { badge, when } from "./words.js";

export const MAY = {
  "images:write": "send and delete pictures", "edits:write": "edit pictures", "concepts:write": "teach and import looks",
  read: "see what is there", admin: "all of it, make and revoke keys, make the secret of webhooks",
};

/** A secret that is shown this once, to be copied. @param {string} what @param {string} secret */
export function shownOnce(what, secret) {
  const act = button("Copy", async () => { await copy(secret); announce(`${what} is copied`); act.textContent = "Copied"; }, "quiet small");
  return { node: [el("p", {}, `${what}, shown this once:`), el("p", { class: "row" }, el("code", { class: "grow" }, secret), act)], act };
}

/** The section of the account with the keys. */
export class Keys {
  /** @param {AbortSignal} signal the view's end */
  constructor(signal) {
    this.signal = signal;
    this.draft = new Draft(known().tenant, "key"); // of what is typed; a key that was made is kept nowhere
    this.list = el("ul", { class: "plain keys", "aria-label": "API keys" });
    this.made = el("div", { role: "status" });
    this.wrong = el("div", { hidden: true });
    this.fields = new Fields();
    this.name = text({ maxlength: 200 });
    this.days = number();
    this.scopes = new Map(choices("KeyRequest", "scopes").map((scope) => [scope, box({
      id: uid("scope"), value: scope, checked: field("KeyRequest", "scopes").default.includes(scope),
    })]));
    this.submit = el("button", { type: "submit", class: "quiet" }, "Make a key");
    this.node = el("section", { class: "card" }, el("h2", {}, "API keys"),
      can("admin") ? [this.wrong, this.list, this.made, this.#form()]
        : el("p", { class: "hint" }, "Keys are listed, made and revoked with a key of the scope admin, or by who runs the service with ", el("code", {}, "customedit keys"), "."));
  }

  #form() {
    const ticks = el("div", {}, [...this.scopes].map(([scope, tick]) =>
      el("div", { class: "row tick" }, tick, el("label", { for: tick.id }, MAY[scope] || scope, " ", el("code", {}, scope)))));
    const made = form(this.fields, () => this.#make(),
      this.fields.add("name", "Name of the key", this.name, hint("KeyRequest", "name")),
      this.fields.group("scopes", "It may", ticks, "", () => (this.#chosen().length ? "" : "Choose at least one.")),
      this.fields.add("days", "Days until it expires", this.days, hint("KeyRequest", "days"), () => numberFault("KeyRequest", "days", this.days.value)),
      this.fields.summary, el("p", { class: "row" }, this.submit));
    const controls = { name: this.name, days: this.days, ...Object.fromEntries(this.scopes) };
    const was = this.draft.read();
    if (was) restore(controls, was);
    this.draft.follow(made, () => kept(controls), this.signal);
    return el("details", { open: Boolean(was) }, el("summary", {}, "Make a key"), made);
  }

  #chosen() {
    return [...this.scopes].filter(([, tick]) => tick.checked).map(([scope]) => scope);
  }

  /** Fetches the keys. @param {AbortSignal} [signal] */
  async load(signal) {
    if (!can("admin")) return;
    const { items } = await api.keys(signal);
    fill(this.list, items.map((key) => this.#row(key)));
  }

  #row(key) {
    const named = key.name || key.prefix;
    const revoke = button("Revoke", complaining(this.wrong, () => this.#revoke(key)), "danger small", { "aria-label": `Revoke ${named}` });
    return el("li", {},
      el("div", { class: "row spread" },
        el("span", { class: "grow" }, el("strong", {}, key.name || "without a name"), " ", badge(key.state), key.current && " this key"),
        key.state === "valid" && !key.current && revoke),
      el("p", { class: "hint" }, el("code", {}, `${key.prefix}…`), ` may ${key.scopes.join(", ")}`),
      el("p", { class: "hint" }, "Made ", when(key.created_at), key.made_by && [" with ", el("code", {}, key.made_by)],
        key.last_used_at ? [", used ", when(key.last_used_at)] : ", never used",
        key.state === "valid" && key.expires_at && `, expires ${new Date(key.expires_at).toLocaleDateString()}`,
        key.revoked_at && [", revoked ", when(key.revoked_at)]));
  }

  async #make() {
    fill(this.made);
    if (!this.fields.check()) return;
    await busy(this.submit, "Making it…", async () => {
      const key = await api.makeKey(given({ name: this.name.value.trim(), scopes: this.#chosen(), days: figure(this.days.value) }) || {});
      const { node, act } = shownOnce("The key", key.key);
      fill(this.made, node);
      this.name.value = this.days.value = "";
      if (!this.signal.aborted) this.draft.clear(); // else there may be words for another key by now
      await this.load();
      act.focus();
    });
  }

  async #revoke(key) {
    const named = key.name || key.prefix;
    if (!(await confirmed(`Revoke ${named}?`, "Programs that use it are refused from now on, for good.", "Revoke"))) return;
    fill(this.wrong);
    await api.revokeKey(key.id);
    await this.load();
    announce(`${named} is revoked`);
    this.list.setAttribute("tabindex", "-1");
    this.list.focus();
  }
}
