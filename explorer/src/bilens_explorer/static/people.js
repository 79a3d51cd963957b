// What people say of a model: labels of anything, and what was said of a subject, last first.
import { control, element, exported, freshPage, get, post, t, whyNot } from "./lib.js";
import { added } from "./watch.js";

// What was said of each model is fetched once, and again after something was added to it.
const remarks = new Map();
export const remarksOf = (key) => {
  if (!remarks.has(key)) {
    const found = { entries: [], weights: null, writable: true, shown: new Map() };
    found.load = async (fresh) => {
      const { audits, entries, writable } = await get(`/models/${key}`);
      Object.assign(found, { entries, writable, weights: audits[0]?.weights_sha256 || null });
      for (const [part, show] of found.shown) {
        if (part.isConnected) show(fresh);
        else found.shown.delete(part);
      }
    };
    found.of = (subject) => found.entries.filter((one) => one.subject === subject);
    // Keeps a part of the page as it is said; where nothing can be fetched, a form says so later.
    found.show = (part, show) => {
      found.ready.then(show);
      found.shown.set(part, show);
    };
    found.ready = found.load().catch(() => {});
    remarks.set(key, found);
  }
  return remarks.get(key);
};

const today = () => new Date().toISOString().slice(0, 10); // in UTC, as the explorer counts

// The label that counts: the last one, unless it was taken back.
export const labelOf = (entries) => {
  const last = entries.find((one) => one.action === "label" || one.action === "withdraw");
  return last?.action === "label" ? last : null;
};

export const remarkList = (entries) =>
  element(
    "ol",
    { class: "entries" },
    entries.map((one) =>
      element(
        "li",
        {},
        element("time", { datetime: one.date }, one.date.slice(0, 10)),
        " ",
        element("strong", {}, one.author),
        ` ${t(`said.${one.action}`)} `,
        one.text ? element("q", {}, one.text) : null,
        one.until === null ? null : t("said.until", { day: one.until }),
      ),
    ),
  );

const AUTHOR = "bilens.author"; // whose name is offered next time, where the browser keeps it
const remembered = (name) => {
  try {
    if (name) localStorage.setItem(AUTHOR, name);
    return localStorage.getItem(AUTHOR) ?? "";
  } catch {
    return name ?? "";
  }
};

// Whom a proxy names as the author; null where people name themselves, or where nobody answers.
let visitor;
const named = () => (visitor ??= get("/visitor").then(({ user }) => user, () => (visitor = null)));

// A form that says something of a subject. What was typed stays until it is kept; what others said
// since this form was opened is shown before anything is sent once more.
const sayForm = (key, subject, action, what, close, of, user) => {
  const found = remarksOf(key);
  const newest = () => found.of(subject)[0]?.number ?? 0;
  let after = newest();
  const field = (name, tag, attributes) =>
    control(t(`say.${name}`), element(tag, { name, ...attributes }));
  const problem = element("div", { role: "alert" });
  const send = element("button", {}, t(`say.send.${action}`));
  const cancel = element("button", { type: "button", onclick: () => close() }, t("say.cancel"));
  const kept = { required: action !== "withdraw", maxlength: 4000 };
  const form = element(
    "form",
    {
      class: "say",
      "aria-label": `${t(`say.do.${action}`)}: ${what}`,
      onkeydown: (event) => {
        if (event.key === "Escape") close();
      },
    },
    action === "label"
      ? field("label", "input", { ...kept, value: labelOf(found.of(subject))?.text ?? "", autocomplete: "off" })
      : field(action === "note" ? "note" : "why", "textarea", { ...kept, rows: 2 }),
    action === "accept" ? field("until", "input", { type: "date", min: today() }) : null,
    field("author", "input", { required: true, maxlength: 100, value: user ?? remembered(), readonly: user !== null, autocomplete: "name" }),
    element("p", {}, send, " ", cancel),
    problem,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { label, note, why, until, author } = Object.fromEntries(new FormData(form));
    const body = { action, subject, text: label ?? note ?? why, author, after, ...of };
    if (until) body.until = until;
    problem.replaceChildren();
    send.setAttribute("aria-disabled", "true");
    try {
      const fresh = await added(key, () => post(`/models/${key}/entries`, body));
      if (user === null) remembered(author);
      await found.load(fresh);
      close();
    } catch (error) {
      await found.load(await freshPage().catch(() => null)).catch(() => {});
      const since = found.of(subject).filter((one) => one.number > after);
      after = newest();
      if (since.length) problem.append(element("p", {}, t("say.since")), remarkList(since));
      else problem.append(...whyNot(error));
      send.textContent = t(since.length ? "say.anyway" : `say.send.${action}`);
    }
    send.removeAttribute("aria-disabled");
  });
  return form;
};

// A button that opens a form in `place`, and has the focus again when that is closed; `of` says of
// which weights, or of which audit, it is said.
const sayButton = (key, subject, action, what, place, of = {}) => {
  const name = t(`say.do.${action}`);
  const attributes = { type: "button", class: "plain", "aria-label": `${name}: ${what}`, "aria-expanded": "false" };
  const button = element("button", attributes, name);
  const close = () => {
    place.replaceChildren();
    button.setAttribute("aria-expanded", "false");
    button.focus();
  };
  named(); // asked before the click, so that what is typed right after it arrives in the form
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-expanded") === "true") return close();
    await remarksOf(key).ready;
    const user = await named();
    for (const other of place.parentElement.querySelectorAll("[aria-expanded]"))
      other.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-expanded", "true");
    place.replaceChildren(sayForm(key, subject, action, what, close, of, user));
    place.querySelector("input, textarea").focus();
  });
  return button;
};

// The label of a subject, `class:3:positive:0` or `latent:17`, and a button that sets it; `what` is
// the subject in words, and `weights` those that are drawn beside it; without them those that were
// audited last count. In the one-file export there is the label alone.
export const nameable = (key, subject, what = subject, weights = null) => {
  const label = element("strong", { class: "label" });
  const more = element("small");
  const place = element("div");
  const whole = element("span", { class: "nameable" }, label, " ", more);
  const button = exported ? null : sayButton(key, subject, "label", what, place, weights ? { weights } : {});
  if (button) whole.append(" ", button, place);
  const found = remarksOf(key);
  found.show(whole, () => {
    const given = labelOf(found.of(subject));
    if (button) button.hidden = !found.writable;
    label.textContent = given?.text ?? "";
    label.title = given ? `${given.author}, ${given.date.slice(0, 10)}` : "";
    const drawn = weights ?? found.weights;
    const isOther = given && drawn && given.weights_sha256 !== drawn;
    more.textContent = isOther ? `(${given.weights_sha256 ? t("people.earlier") : t("people.unaudited")})` : "";
  });
  return whole;
};

// Buttons at the findings of the last audit, which the page holds with what was said of them.
export const people = (root) => {
  if (exported) return; // nobody is there to keep it
  const { key } = root.dataset;
  const read = JSON.parse(root.dataset.read);
  const found = remarksOf(key);
  for (const part of root.querySelectorAll("[data-subject]")) {
    const { subject, what } = part.dataset;
    const place = element("div");
    const actions = subject.startsWith("rule:") ? ["note", "accept", "reject", "withdraw"] : ["note"];
    const judged = (action) => (action === "accept" || action === "reject" ? read : {});
    const buttons = actions.map((action) => sayButton(key, subject, action, what, place, judged(action)));
    const tools = element("p", { class: "takeaway" }, buttons);
    part.append(tools, place);
    found.show(part, (fresh) => {
      const now = fresh?.querySelector(`[data-subject="${CSS.escape(subject)}"] .thread`);
      if (now) part.querySelector(".thread").replaceWith(document.adoptNode(now));
      tools.hidden = !found.writable;
      if (buttons[3]) buttons[3].hidden = !part.querySelector(".because"); // nothing is to be taken back
    });
  }
};
