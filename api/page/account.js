// The account: what the key may do, and the secret that signs webhooks.

import { api, Problem } from "./client.js";
import { add, announce, button, confirmed, copy, el, fill } from "./dom.js";
import { complaining } from "./fields.js";
import { can, known } from "./session.js";
import { showShortcuts } from "./shortcuts.js";
import { key } from "./storage.js";
import { size, when } from "./words.js";

/** @param {any} limits */
export const facts = (limits) => [
  ["May", limits.scopes.join(", ")],
  ["Jobs now", `${limits.jobs_now} of ${limits.jobs_at_once}`],
  ["Requests a minute", `${limits.requests_left} of ${limits.requests_per_minute} left`],
  ["Largest picture", `${size(limits.max_upload_bytes)}, ${Math.round(limits.max_upload_pixels / 1e6)} megapixels`],
].map(([words, value]) => [el("dt", {}, words), el("dd", {}, value)]);

/** @param {HTMLElement} main @param {{signal: AbortSignal}} given */
export async function accountView(main, { signal }) {
  const secret = el("div", {});
  add(main, el("h1", {}, "Account"),
    el("div", { class: "columns" },
      el("section", { class: "card" }, el("h2", {}, known().tenant),
        el("dl", { class: "facts" }, facts(known())),
        el("p", { class: "hint" }, key.shared()
          ? "The key is kept in this browser for all tabs until you sign out."
          : "The key is kept in this tab alone. Sign in again to share it with all tabs."),
        el("p", { class: "row" }, button("Shortcuts", showShortcuts), el("a", { class: "button quiet", href: "docs" }, "The API"))),
      el("section", { class: "card" }, el("h2", {}, "Webhooks"),
        el("p", {}, "A job that names a webhook sends a message there at its end, signed as Standard Webhooks are. The field is under the expert settings of the forms."),
        secret)));
  if (!can("admin")) return fill(secret, el("p", { class: "hint" }, "The secret that signs them is managed with a key of the scope admin."));
  await showSecret(secret, signal);
}

async function showSecret(place, signal) {
  const made = await api.webhookSecret(signal).catch((error) => {
    if (error instanceof Problem && error.status === 404) return null;
    throw error;
  });
  const wrong = el("div", { hidden: true });
  const make = complaining(wrong, async () => {
    const sure = !made || (await confirmed("Make a new secret?", "The one before signs as well for a day, so that receivers can change over.", "Make it"));
    if (!sure) return;
    const { secret } = await api.makeWebhookSecret();
    const act = button("Copy", async () => { await copy(secret); announce("The secret is copied"); act.textContent = "Copied"; }, "quiet small");
    fill(place, el("p", {}, "The secret, shown this once:"), el("p", { class: "row" }, el("code", { class: "grow" }, secret), act));
    act.focus();
  });
  fill(place, made && el("p", {}, "A secret was made ", when(made.created_at), "."),
    button(made ? "Make a new secret" : "Make a secret", make), wrong);
}
