// Says when the folder, or the model, is another one than on the page; what was typed stays.
import { element, exported, freshPage, get, t } from "./lib.js";

const [SOON, LATE] = [5000, 60000]; // milliseconds between two looks: soon, and after a long time
const FIELDS = "main form :is(textarea, input:not([type=hidden]))";
const typed = () => [...document.querySelectorAll(FIELDS)].some((each) => each.value !== each.defaultValue);
const reload = () => {
  if (!typed() || confirm(t("watch.typed"))) location.reload();
};

let adding = false; // then nothing is said of a change, which is one's own
const stateOf = (key) => get(key ? `/models/${key}/state` : "/state");

// Adds something to a model. A page that was of today is so afterwards: what is drawn of it by the
// explorer, and not by a script, is taken from a fresh copy, which is returned where there is one.
export const added = async (key, add) => {
  const told = document.querySelector(`[data-view="watch"][data-key="${key}"]`);
  if (!told) return add().then(() => null);
  adding = true;
  try {
    const before = (await stateOf(key)).digest;
    await add();
    const fresh = await freshPage().catch(() => null); // it is kept, whatever comes now
    for (const part of document.querySelectorAll("[data-fresh]")) {
      const now = fresh?.querySelector(`[data-fresh="${part.dataset.fresh}"]`);
      if (now) part.replaceWith(document.adoptNode(now));
    }
    if (before === told.dataset.digest)
      told.dataset.digest = fresh?.querySelector('[data-view="watch"]')?.dataset.digest ?? before;
    return fresh;
  } finally {
    adding = false;
  }
};

export function watch(told) {
  if (exported) return;
  const { key } = told.dataset;
  let wait = SOON;
  let timer;
  const say = (word, again) => {
    if (told.dataset.said === word) return;
    told.dataset.said = word;
    told.className = word ? "callout" : "";
    const button = element("button", { type: "button", class: "plain", onclick: reload }, t("load"));
    told.replaceChildren(...(word ? [t(`watch.${word}`), " ", ...(again ? [button] : [])] : []));
  };
  const look = async () => {
    clearTimeout(timer);
    if (document.hidden) return; // one that slept looks when it is seen again
    try {
      const now = await stateOf(key);
      const { digest } = told.dataset; // another one after what was added here
      if (adding);
      else if (!now.there && now.digest !== digest) say("gone", true);
      else say(now.digest === digest ? "" : "changed", true);
    } catch {
      say("silent", false);
    }
    wait = Math.min(wait * 1.2, LATE);
    timer = setTimeout(look, wait);
  };
  const awake = () => {
    wait = SOON;
    look();
  };
  document.addEventListener("visibilitychange", awake);
  addEventListener("online", awake);
  addEventListener("pageshow", (event) => event.persisted && awake());
  timer = setTimeout(look, wait);
}
