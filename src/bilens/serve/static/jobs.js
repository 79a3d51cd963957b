// Jobs: started by forms, and kept as they are now: what changed is taken from a fresh copy of the page.
import { freshPage, post, t } from "./lib.js";

const number = (row) => row.cells[0].textContent;
const rowsOf = (part) => [...part.querySelectorAll(".queue tbody tr")];

// What has the keyboard keeps it, or its row does.
function exchange(before, after) {
  const held = before.contains(document.activeElement);
  const tag = document.activeElement.tagName;
  before.replaceWith(after);
  if (held) (after.querySelector(tag) ?? after.querySelector("a"))?.focus();
}

function renew(root, fresh) {
  const body = root.querySelector(".queue tbody");
  if (!body) {
    root.querySelector("p.queue").replaceWith(fresh.querySelector("p.queue, .scroll"));
    return;
  }
  const there = new Map(rowsOf(root).map((row) => [number(row), row]));
  for (const row of rowsOf(fresh).reverse()) {
    const before = there.get(number(row));
    if (!before) body.prepend(row);
    else if (before.outerHTML !== row.outerHTML) {
      const [was, is] = [before, row].map((each) => each.cells[3].textContent);
      exchange(before, row);
      if (was !== is) root.querySelector(".said").textContent = t("job_is", { number: number(row), state: is });
    }
  }
  const [wrote, now] = [root, fresh].map((part) => part.querySelector(".wrote"));
  if (wrote && wrote.outerHTML !== now.outerHTML && !wrote.contains(document.activeElement)) wrote.replaceWith(now);
}

export function jobs(root) {
  const said = root.querySelector(".said");
  let source = null;
  let asking = Promise.resolve();
  const refresh = () => {
    asking = asking.then(async () => {
      try {
        const now = (await freshPage()).querySelector("[data-view=jobs]");
        if (now) renew(root, document.adoptNode(now));
      } catch {
        // the server is away; when it is back, it is heard again
      }
    });
  };
  const listen = () => {
    source?.close(); // browsers keep few connections to one machine: none for a page nobody sees
    if (document.hidden) return;
    source = new EventSource("/api/v1/events");
    source.addEventListener("jobs", refresh);
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 10000);
    });
  };
  document.addEventListener("visibilitychange", listen);
  listen();
  root.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-cancel]");
    if (!button) return;
    try {
      await post(`/jobs/${button.dataset.cancel}/cancel`, {});
      refresh();
    } catch (error) {
      said.textContent = error.message;
    }
  });
}

export function start(root) {
  const form = root.querySelector("form"); // has a control named `dataset`
  form.hidden = false;
  const sent = form.querySelector("output");
  const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = { command: root.dataset.command, model: root.dataset.key };
    for (const { name, type, value } of form.elements) {
      if (!name || !value.trim()) continue;
      body[name] = type === "number" ? Number(value) : type === "textarea" ? lines(value) : value;
    }
    try {
      sent.textContent = t("job_asked", { number: (await post("/jobs", body)).number });
    } catch (error) {
      sent.textContent = error.message;
    }
  });
}
