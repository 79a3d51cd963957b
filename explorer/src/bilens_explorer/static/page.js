// Every part of a page that names a view is drawn by it; all can be read without this.
import { auditAgain } from "./audit_again.js";
import { circuits } from "./circuits.js";
import { compare, compareWith, takeTable } from "./compare.js";
import { home } from "./home.js";
import { element, exported, given, here, lang, state, t, unpack } from "./lib.js";
import { people } from "./people.js";
import { playground } from "./playground.js";
import { spectra } from "./spectra.js";
import { watch } from "./watch.js";

const VIEWS = { auditAgain, circuits, compare, compareWith, home, people, playground, spectra, takeTable, watch };
const mount = (page) => {
  for (const root of page.querySelectorAll("[data-view]")) VIEWS[root.dataset.view](root);
};

// In the export all pages are in the file, and one is shown; `moved` by a link, it is announced.
const open = async (moved) => {
  const path = here().split("?")[0];
  const main = document.getElementById("main");
  const found = main.querySelector(`template[data-path="${CSS.escape(path)}"][lang="${lang}"]`);
  const report = found ? undefined : ((await unpack(`${path}@${lang}`)) ?? (await unpack(path)));
  const shown = element("div", { class: "page" });
  if (found) shown.append(found.content.cloneNode(true));
  else if (report) {
    const { title } = new DOMParser().parseFromString(report, "text/html"); // runs nothing
    const language = path.endsWith("/summary") ? [] : [element("p", { class: "quiet" }, t("report_language", { language: given.language }))];
    const frame = element("iframe", { title, tabindex: 0, srcdoc: report });
    shown.append(element("h1", {}, title), ...language, frame);
  } else shown.append(element("h1", {}, path), element("p", { class: "callout" }, t("not_exported")));
  main.querySelector(".page").replaceWith(shown);
  const heading = shown.querySelector("h1");
  document.title = `${heading.textContent} – bilens`;
  state.set({ lang });
  mount(shown);
  heading.tabIndex = -1;
  if (moved) heading.focus({ preventScroll: true });
  scrollTo(0, 0);
};

if (exported) {
  addEventListener("hashchange", (event) => {
    const [before, after] = [event.oldURL, event.newURL].map((url) => new URL(url).hash.split("?"));
    const wanted = new URLSearchParams(after[1]).get("lang") ?? lang;
    if (wanted !== lang) location.reload();
    else if (before[0] !== after[0] && after[0] !== "#main") open(true);
  });
  for (const one of document.querySelectorAll(".languages a")) if (one.lang === lang) one.setAttribute("aria-current", "true");
  open(false);
} else mount(document);
