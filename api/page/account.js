// The account: limits, what the key may do, and webhooks with the secret that signs them.

import { api, Problem } from "./client.js";
import { add, button, confirmed, el, fill } from "./dom.js";
import { complaining } from "./fields.js";
import { Keys, MAY, shownOnce } from "./keys.js";
import { jobBadge } from "./progress.js";
import { can, known } from "./session.js";
import { showShortcuts } from "./shortcuts.js";
import { key } from "./storage.js";
import { about, size, span, when } from "./words.js";

/** @param {any} limits */
export const facts = (limits) => [
  ["May", limits.scopes.join(", ")],
  ["Jobs now", `${limits.jobs_now} of ${limits.jobs_at_once}`],
  ["Requests a minute", `${limits.requests_left} of ${limits.requests_per_minute} left`],
  ["Largest picture", `${size(limits.max_upload_bytes)}, ${Math.round(limits.max_upload_pixels / 1e6)} megapixels`],
].map(([words, value]) => [el("dt", {}, words), el("dd", {}, value)]);

const LISTED = 100; // jobs that are looked through for webhooks
const SHOWN = 5; // of one address

/** How the message of a job's end was delivered, in words. @param {any} delivery undefined: the job has not ended */
function delivered(delivery) {
  if (!delivery) return "not sent yet";
  const { state, attempts, last_status: status, last_problem: problem, last_attempt_at: tried, next_attempt_at: next } = delivery;
  const tries = `${attempts} ${attempts === 1 ? "attempt" : "attempts"}`;
  if (state === "delivered") return [`delivered (${status}) `, when(tried), attempts > 1 && `, after ${tries}`];
  const why = problem ? `: ${problem}` : "";
  if (state === "failed") return `given up after ${tries}${why}`;
  if (!attempts) return "about to be sent";
  return `not delivered after ${tries}${why}; tried again ${ahead(next)}`;
}

/** When a time in the future is. */
const ahead = (iso) => {
  const seconds = (Date.parse(iso) - Date.now()) / 1000;
  return seconds < 1 ? "now" : `in ${span(seconds)}`;
};

/** @param {HTMLElement} main @param {{signal: AbortSignal}} given */
export async function accountView(main, { signal }) {
  const secret = el("div", {});
  const called = el("div", {});
  const keys = new Keys(signal);
  add(main, el("h1", {}, "Account"),
    el("div", { class: "columns" },
      el("section", { class: "card" }, el("h2", {}, known().tenant),
        el("dl", { class: "facts" }, facts(known())),
        el("p", { class: "row" }, button("Shortcuts", showShortcuts), el("a", { class: "button quiet", href: "docs" }, "The API"))),
      el("section", { class: "card" }, el("h2", {}, "This key"),
        el("p", {}, "It may:"),
        el("ul", { class: "plain" }, known().scopes.map((scope) => el("li", {}, MAY[scope] || scope, " ", el("code", {}, scope)))),
        el("p", { class: "hint" }, key.shared()
          ? "The key is kept in this browser for all tabs until you sign out."
          : "The key is kept in this tab alone. Sign in again to share it with all tabs.")),
      keys.node,
      el("section", { class: "card" }, el("h2", {}, "Webhooks"),
        el("p", {}, "A job that names a webhook sends a message there at its end, signed as Standard Webhooks are. The field is under the expert settings of the forms."),
        secret, called)));
  if (can("admin")) await showSecret(secret, signal);
  else fill(secret, el("p", { class: "hint" }, "The secret that signs them is managed with a key of the scope admin."));
  await Promise.all([showCalled(called, signal), keys.load(signal)]);
}

/** The addresses that the last jobs name, each with its last job. */
async function showCalled(place, signal) {
  const [{ items }, told] = await Promise.all([api.jobs({ limit: LISTED }, signal), api.deliveries({ limit: LISTED }, signal)]);
  const deliveries = new Map(told.items.map((delivery) => [delivery.job, delivery]));
  /** @type {Map<string, any[]>} */
  const jobs = new Map();
  for (const job of items) {
    const { webhook } = job.request;
    if (webhook) jobs.set(webhook, [...(jobs.get(webhook) || []), job]);
  }
  if (!jobs.size) return fill(place, el("p", { class: "hint" }, "None of your last jobs names a webhook."));
  fill(place, el("h3", {}, "Named by your last jobs"), el("ul", { class: "plain" }, [...jobs].map(([address, [last, ...more]]) =>
    el("li", {}, el("code", {}, address), " ", more.length > 0 && `by ${more.length + 1} jobs, last `,
      el("a", { href: `#/jobs/${last.id}` }, about(last)), " ", jobBadge(last, null),
      el("ul", { class: "plain", "aria-label": `Deliveries to ${address}` }, [last, ...more].slice(0, SHOWN).map((job) =>
        el("li", { class: "hint" }, more.length > 0 && `${about(job)}: `, delivered(deliveries.get(job.id)))))))));
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
    const { node, act } = shownOnce("The secret", secret);
    fill(place, node);
    act.focus();
  });
  fill(place, made && el("p", {}, "A secret was made ", when(made.created_at), "."),
    button(made ? "Make a new secret" : "Make a secret", make), wrong);
}
