// What every view needs: data, words, elements, numbers, the address, and taking things away.
const read = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");
export const given = read("given");
const embedded = read("embedded"); // of the one-file export: address → JSON, packed
export const exported = embedded !== null;
export const palette = given.palette; // from negative over white to positive
// In the export the page's address, and what is looked at in it, stand behind `#`.
export const here = () => (exported ? location.hash.slice(1) || "/" : location.pathname + location.search);
const query = () => new URLSearchParams(here().split("?")[1]);
const root = document.documentElement;
export const lang = (exported && query().get("lang")) || root.lang;
root.lang = lang;
const words = exported ? given.words[lang] : given.words;
const API = "/api/v1";

// ---- data

// Why there is no answer: `parts` say it in the reader's language, and mark what is in another.
const failure = (said, { status, headers }) => {
  const known = `failed.${status}` in words ? status : "other";
  const [before, after] = t(`failed.${known}`, { told: "\0" }).split("\0");
  const own = element("span", { lang: headers?.get("content-language") ?? "en" }, said);
  return Object.assign(new Error(said), { status, parts: [before, own, after] });
};
export const whyNot = (error) => error.parts ?? [error.message];

async function asked(path, options, tries = 15) {
  let answer;
  let found;
  try {
    answer = await fetch(API + path, { ...options, headers: { ...options?.headers, "Accept-Language": lang } });
    found = await answer.json();
  } catch {
    throw new Error(t("watch.silent")); // nobody answers, or somebody who speaks no JSON
  }
  const pause = answer.headers.get("retry-after"); // of a server that is busy
  if (pause && tries) {
    await new Promise((done) => setTimeout(done, 1000 * pause));
    return asked(path, options, tries - 1);
  }
  if (!answer.ok) throw failure(found.error, answer);
  return found;
}

// A page as the explorer sends it now: this one, where no other is named.
export const freshPage = async (address = location.href) => {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(t("watch.silent"));
  return new DOMParser().parseFromString(await answer.text(), "text/html");
};

// Whether a view can ask for an address: in the export, whether it is in the file.
const keyOf = (address) => {
  const [path, query] = address.split("?");
  return `${path}?${JSON.stringify([...new URLSearchParams(query)].sort())}`;
};
export const holds = (address) => !exported || keyOf(address) in embedded;

// Returns what the export holds under an address, undefined where it holds nothing. Behind the JSON
// stand the bytes of its arrays: the first one of every number, the second one of every number, …
export const unpack = async (key) => {
  if (!(key in embedded)) return undefined;
  const packed = Uint8Array.from(atob(embedded[key]), (letter) => letter.charCodeAt(0));
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(plain).arrayBuffer());
  let at = bytes.indexOf(0) + 1;
  const head = new TextDecoder().decode(bytes.subarray(0, at - 1));
  return JSON.parse(head, function (name, length) {
    if (name !== "base64" || typeof length !== "number") return length;
    const found = new Uint8Array(length);
    const size = this.dtype === "float64" ? 8 : 4;
    for (let place = 0; place < size; place += 1)
      for (let index = place; index < length; index += size) found[index] = bytes[at++];
    return found;
  });
};
export const get = async (address) => {
  if (!exported) return asked(address);
  const found = await unpack(keyOf(address));
  if (found === undefined) throw new Error(t("not_exported"));
  if (found.error) throw failure(found.error, { status: 400 });
  return found;
};

let { secret } = given;
const sent = (path, body) =>
  asked(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Bilens-Secret": secret },
    body: JSON.stringify(body),
  });
// A page of an earlier start of the explorer takes the secret of this one, and sends once more.
export const post = async (path, body) => {
  try {
    return await sent(path, body);
  } catch (error) {
    const now = error.status === 403 && (await freshPage().catch(() => null))?.getElementById("given");
    if (!now) throw error;
    ({ secret } = JSON.parse(now.textContent));
    return sent(path, body);
  }
};

// ---- words and numbers

// `{count}` is filled in; `{count:layer|layers}` is the first word beside 1, else the second.
const HOLE = /\{(\w+)(?::([^{}|]*)\|([^{}]*))?\}/g;
export const t = (key, values = {}) =>
  words[key].replace(HOLE, (_, name, one, many) =>
    one === undefined ? String(values[name]) : String(values[name]) === "1" ? one : many,
  );
// What a record says in English of what a layer reads, in the reader's language where that is known.
export const inWords = (text) => {
  const [, name, included, behind] = /^what (.+?) gives(, its weights included)?(?:, behind (.+))?$/s.exec(text) ?? [];
  if (!name) return `words.${text}` in words ? t(`words.${text}`) : text;
  return t("gives", { name }) + (included ? t("gives.included") : "") + (behind ? t("gives.behind", { name: behind }) : "");
};

const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const minus = (text) =>
  text
    .replace(/E(-?)(\d+)/, (_, sign, power) => `\u00a0×\u00a010${sign && "⁻"}${power.replace(/\d/g, (digit) => RAISED[digit])}`)
    .replaceAll("-", "−");
const forms = {};
const formOf = (maximumSignificantDigits, roundingMode, notation) =>
  (forms[[maximumSignificantDigits, roundingMode, notation]] ??= new Intl.NumberFormat(lang, { maximumSignificantDigits, roundingMode, notation }));
// One value has one form on a page: four digits that count, whole numbers whole. A bound is shown
// with `rounding` "floor" where it is one from below, with "ceil" from above: never better than it is.
export const number = (value, digits = 4, rounding = "halfExpand") => {
  if (value === null || value === undefined) return "—";
  const size = Math.abs(value);
  const form = size !== 0 && (size < 1e-4 || size >= 1e6) ? formOf(Math.max(3, digits), rounding, "scientific") : formOf(Number.isInteger(value) ? 6 : digits, rounding, "standard");
  return minus(form.format(value || 0)); // no negative zero
};
const ONE = 1 - 1e-9; // what is nearer to one differs by rounding errors alone
// A share of one, such as R² or a cosine: never shown larger than it is.
export const share = (value) => number(value, 3, value < ONE ? "floor" : "halfExpand");
// What is not all is not rounded to all, nor what is more than nothing to nothing.
export const percent = (value, digits = 1) => {
  const least = 10 ** -(digits + 2);
  const [tiny, roundingMode] = [value > 0 && value < least / 2, value < ONE && value > 1 - least ? "trunc" : "halfExpand"];
  const form = new Intl.NumberFormat(lang, { style: "percent", minimumFractionDigits: tiny ? 0 : digits, maximumFractionDigits: digits, roundingMode, signDisplay: "negative" });
  return minus(`${tiny ? "<" : ""}${form.format(tiny ? least : value)}`);
};

// ---- elements

const make = (found, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      found.setAttribute(name, value === true ? "" : value);
  }
  found.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return found;
};
export const element = (tag, attributes = {}, ...children) =>
  make(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) =>
  make(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

let labelled = 0;
// A control behind its visible name.
export const control = (name, input) => {
  input.id ||= `control-${(labelled += 1)}`;
  return element("span", { class: "control" }, element("label", { for: input.id }, name), input);
};
export const choice = (options, chosen, onchange) => {
  const made = options.map(([value, name]) =>
    element("option", { value, selected: String(value) === String(chosen) }, name),
  );
  return element("select", { onchange: (event) => onchange(event.target.value) }, made);
};
// A wide thing in a box of its own that scrolls, by keyboard too.
export const scrolling = (name, ...children) =>
  element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, children);
// The heads of columns: what fields of a record are called, and beside the pointer what they mean.
export const fields = (record, ...names) =>
  names.map((name) => element("th", { scope: "col", title: t(`field.${record}.${name}.about`) }, t(`field.${record}.${name}`)));
export const table = (name, heads, rows) =>
  scrolling(
    name,
    element(
      "table",
      {},
      element("caption", {}, element("span", { class: "caption" }, name)),
      element("thead", {}, element("tr", {}, heads.map((head) => (head instanceof Element ? head : element("th", { scope: "col" }, head))))),
      element("tbody", {}, rows.map((row) => element("tr", {}, row.map((cell) => element("td", {}, cell))))),
    ),
  );

// Runs what draws a view; where it fails, the view says why.
export const drawing = async (root, draw) => {
  root.setAttribute("aria-busy", "true");
  try {
    await draw();
  } catch (error) {
    root.append(element("p", { class: "callout wrong", role: "alert" }, whyNot(error)));
  } finally {
    root.removeAttribute("aria-busy");
  }
};

// What draws a part anew, however often it is asked to: `draw` hears whether it is still the last one.
export const redrawing = (part) => {
  let turn = 0;
  return (draw) => {
    const mine = (turn += 1);
    const current = () => mine === turn;
    part.replaceChildren(element("p", { class: "quiet", role: "status" }, t("waiting")));
    return drawing(part, async () => {
      try {
        await draw(current);
      } catch (error) {
        if (!current()) return;
        part.replaceChildren();
        throw error;
      }
    });
  };
};

// A text as the number that it writes (−1,234.5, 33.3%, 1.01 × 10⁶), or as it is.
export const asNumber = (text) => {
  const power = (_, sign, digits) => `e${sign && "-"}${[...digits].map((digit) => RAISED.indexOf(digit)).join("")}`;
  const plain = text.replaceAll("−", "-").replace(/\s×\s10(⁻?)([⁰¹²³⁴⁵⁶⁷⁸⁹]+)$/, power).replace(/,(?=\d{3})|%$/g, "");
  return plain.trim() === "" || Number.isNaN(Number(plain)) ? text : Number(plain);
};
// The rows of a table by `data-value` of a column, else by its text; what is not known is last.
export const inOrder = (rows, column, up) => {
  const compare = new Intl.Collator(lang, { numeric: true }).compare;
  const unknown = (text) => text === "—" || text === "";
  const keyed = rows.map((row) => [row.cells[column].dataset.value ?? String(asNumber(row.cells[column].textContent)), row]);
  const numeric = keyed.every(([text]) => unknown(text) || !Number.isNaN(Number(text)));
  const order = numeric ? (a, b) => Number(a) - Number(b) : compare;
  keyed.sort(([a], [b]) => unknown(a) - unknown(b) || (unknown(a) ? 0 : (up ? 1 : -1) * order(a, b)));
  return keyed.map(([, row]) => row);
};
export const markSorted = (whole, column, up) =>
  [...whole.tHead.rows[0].cells].forEach((head, at) => {
    if (at === column) head.setAttribute("aria-sort", up ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  });
// Buttons in the heads of a table that sort it, from a column on.
export const sortButtons = (whole, sort, first = 0) =>
  [...whole.tHead.rows[0].cells].forEach((head, column) => {
    if (column < first) return;
    const button = element("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") !== "ascending"));
  });
// A table whose rows are sorted in the page; returns what sorts rows that have come since.
export const sortable = (whole) => {
  let sorted = [];
  const sort = (...asked) => {
    sorted = asked.length ? asked : sorted;
    if (!sorted.length) return;
    markSorted(whole, ...sorted);
    whole.tBodies[0].append(...inOrder([...whole.tBodies[0].rows], ...sorted));
  };
  sortButtons(whole, sort);
  return () => sort();
};

// ---- the address keeps what is looked at

export const state = {
  get: (name, otherwise = "") => query().get(name) ?? otherwise,
  set(changes) {
    const found = query();
    for (const [name, value] of Object.entries(changes)) {
      if (value === null || value === "") found.delete(name);
      else found.set(name, value);
    }
    const place = `${here().split("?")[0]}${found.size ? `?${found}` : ""}`;
    history.replaceState(null, "", exported ? `#${place}` : place);
    for (const link of document.querySelectorAll(".languages a")) {
      found.set("lang", link.lang);
      link.href = `${exported ? `#${here().split("?")[0]}` : ""}?${found}`;
    }
  },
};

// ---- taking away

export const save = (name, content, type) => {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
};

// A text that a spreadsheet would take for a formula begins with an apostrophe.
const cell = (value) => {
  const text = typeof value === "number" ? String(value) : String(value ?? "").replace(/^(?=[=+\-@\t\r])/, "'");
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
export const csv = (rows) => rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");

const LOOK = ["fill", "stroke", "stroke-width", "opacity", "font-size", "font-family", "font-weight", "text-anchor"];
// A drawing as a file of its own: what the style sheet gives it is written into it.
const standing = (drawn) => {
  const copy = drawn.cloneNode(true);
  const parts = copy.querySelectorAll("*");
  drawn.querySelectorAll("*").forEach((part, index) => {
    const look = getComputedStyle(part);
    for (const name of LOOK) parts[index].setAttribute(name, look.getPropertyValue(name));
    parts[index].removeAttribute("tabindex");
  });
  const { width, height } = drawn.viewBox.baseVal;
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const ground = getComputedStyle(document.body).backgroundColor;
  copy.prepend(svg("rect", { width: "100%", height: "100%", fill: ground }));
  return new XMLSerializer().serializeToString(copy);
};
const asPng = (text, drawn, name) => {
  const { width, height } = drawn.viewBox.baseVal;
  const picture = new Image();
  picture.onload = () => {
    const canvas = element("canvas", { width: 2 * width, height: 2 * height });
    canvas.getContext("2d").drawImage(picture, 0, 0, 2 * width, 2 * height);
    canvas.toBlob((blob) => save(`${name}.png`, blob));
  };
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
};

// Buttons for what can be taken away of a plot or a table: `rows` as CSV (the first one names the
// columns), `data` as JSON, `drawn` (an SVG or a canvas) as a picture.
export const takeaway = (name, { rows, data, drawn }) => {
  const button = (kind, act) =>
    element("button", { type: "button", onclick: act, "aria-label": t("take", { name, kind }) }, kind);
  const found = [];
  const value = (what) => (typeof what === "function" ? what() : what);
  if (rows) found.push(button("CSV", () => save(`${name}.csv`, csv(value(rows)), "text/csv")));
  if (data) found.push(button("JSON", () => save(`${name}.json`, JSON.stringify(value(data), null, 1), "application/json")));
  if (drawn instanceof HTMLCanvasElement) found.push(button("PNG", () => drawn.toBlob((blob) => save(`${name}.png`, blob))));
  else if (drawn) {
    found.push(button("SVG", () => save(`${name}.svg`, standing(drawn), "image/svg+xml")));
    found.push(button("PNG", () => asPng(standing(drawn), drawn, name)));
  }
  return element("p", { class: "takeaway" }, found);
};
