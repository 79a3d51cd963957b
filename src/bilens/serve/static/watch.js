// Says when the folder, or the model, is another one than on the page; what was typed stays.
import { element, exported, get, t } from "./lib.js";

const [SOON, LATE] = [5000, 60000]; // milliseconds between two looks: soon, and after a long time
const FIELDS = "main form :is(textarea, input:not([type=hidden]))";
const typed = () => [...document.querySelectorAll(FIELDS)].some((each) => each.value !== each.defaultValue);
const reload = () => {
  if (!typed() || confirm(t("watch.typed"))) location.reload();
};

export function watch(told) {
  if (exported) return;
  const { key, digest } = told.dataset;
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
      const now = await get(key ? `/models/${key}/state` : "/state");
      if (!now.there && now.digest !== digest) say("gone", true);
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
