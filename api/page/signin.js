// Signing in with an API key.

import { Problem } from "./client.js";
import { el } from "./dom.js";
import { box, busy, Fields, form, text } from "./fields.js";
import { signIn } from "./session.js";
import { preference } from "./storage.js";

/** @param {HTMLElement} main @param {{said: string, done: () => void}} given said: why one is here */
export function signInView(main, { said, done }) {
  const fields = new Fields();
  const key = text({ type: "password", autocomplete: "off", required: true });
  const shared = box({ checked: preference.get("shared-key", false) });
  const submit = el("button", { class: "main", type: "submit" }, "Sign in");
  const send = () => busy(submit, "Signing in…", async () => {
    const written = key.value.trim();
    if (!written) {
      fields.wrong("key", "Paste your API key.");
      return fields.focus();
    }
    try {
      await signIn(written, shared.checked);
    } catch (error) {
      const why = refused(error);
      if (!why) throw error;
      fields.wrong("key", why);
      return fields.focus();
    }
    if (shared.checked !== preference.get("shared-key", false)) preference.set("shared-key", shared.checked);
    done();
  });
  main.append(el("div", { class: "signin" },
    el("img", { src: "page/icon.svg", alt: "", width: 56, height: 56 }),
    el("h1", {}, "Custom-Edit"),
    el("p", { class: "lead" }, "Teach a look from a few pictures, then paint it into any picture with a sentence."),
    said && el("p", { class: "warning", role: "status" }, said),
    el("section", { class: "card" },
      form(fields, send,
        fields.add("key", "API key", key, "It begins with ce_ and stays in this tab until you close it or sign out."),
        fields.tick("shared", "Stay signed in, in all tabs of this browser", shared, "Only on a computer that is yours: the key is kept until you sign out."),
        fields.summary, submit)),
    el("p", { class: "hint" },
      "On your own machine the service writes a key to ", el("code", {}, "customedit-data/api-key"),
      "; elsewhere the people who run it give you one.")));
  key.focus();
}

/** Why the key is refused; empty for what is no fault of the key. */
function refused(error) {
  if (!(error instanceof Problem)) return "";
  if (error.status === 401) return "This key is not known here: it may be mistyped, revoked or expired.";
  if (error.status === 403) return "This key may not read, and this page needs to (scope read).";
  return "";
}
