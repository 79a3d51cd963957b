// Audits a model again: a button starts the recorded command, and the page follows it to its end.
import { exported, freshPage, get, post, whyNot } from "./lib.js";

const PAUSE = 1000; // milliseconds between two looks at an audit that runs

export function auditAgain(root) {
  if (exported) return;
  const { key, shown } = root.dataset; // the number of the audit whose command the page shows
  const said = root.querySelector("[role=status]");
  let known = "";
  let timer;
  const part = () => root.querySelector(".run");
  const button = () => part().querySelector("[data-action]");
  const state = () => part().querySelector(".state")?.textContent ?? "";
  // What has the keyboard keeps it, or the button does that came in its place.
  const renew = async () => {
    const fresh = (await freshPage()).querySelector("[data-view=auditAgain] .run");
    if (!fresh) return;
    const [held, before] = [part().contains(document.activeElement), state()];
    part().replaceWith(document.adoptNode(fresh));
    button().hidden = false;
    if (held) button().focus();
    if (state() !== before) said.textContent = state();
  };
  const look = async () => {
    clearTimeout(timer);
    try {
      const now = JSON.stringify(await get(`/models/${key}/audit`));
      if (now !== known) await renew();
      known = now;
    } catch {
      // the server is away; when it is back, it is heard again
    }
    if (part().dataset.live !== undefined) timer = setTimeout(look, PAUSE);
  };
  root.addEventListener("click", async (event) => {
    const action = event.target.closest("[data-action]")?.dataset.action;
    if (!action) return;
    try {
      await post(`/models/${key}/audit${action === "cancel" ? "/cancel" : ""}`, { audit: Number(shown) });
      await look();
    } catch (error) {
      said.classList.remove("unseen");
      said.replaceChildren(...whyNot(error));
    }
  });
  button().hidden = false;
  if (part().dataset.live !== undefined) look();
}
