// The models of the folder: searched, chosen by decision and rule, sorted, two of them compared.
import { element, exported, freshPage, inOrder, lang, markSorted, sortButtons, state, t } from "./lib.js";

const PAGE = 50; // rows in the page at first, and with each step further down
const FIELDS = ["search", "decision", "rule"];

export function home(root) {
  const whole = root.querySelector("table.models");
  const body = whole.tBodies[0];
  const total = Number(whole.dataset.total);
  let rows = [...body.rows];
  // Rows that are not in the page are fetched where a reader asks for more than it has.
  const addOthers = async () => {
    const fresh = await freshPage(`/?every=&lang=${lang}`).catch(() => null); // the watch says so
    const known = new Set(rows.map((row) => row.querySelector("input").value));
    const others = [...(fresh?.querySelector("table.models").tBodies[0].rows ?? [])];
    rows = [...rows, ...others.filter((row) => !known.has(row.querySelector("input").value))];
  };
  const textOf = (row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
  const controls = root.querySelector(".controls");
  const fields = FIELDS.map((name) => controls.querySelector(`#${name}`));
  const shown = controls.querySelector("output");
  const more = element("button", { type: "button", class: "plain", onclick: () => draw(drawn + PAGE) });
  const compare = element("a", { class: "plain compare" }, t("compare"));
  controls.hidden = false;
  const absent = element("span", { class: "quiet", role: "status" });
  controls.append(compare, absent);
  root.append(more);

  let order;
  let drawn = PAGE;
  const draw = async (most) => {
    drawn = most;
    const asked = order || most > PAGE || fields.some((field) => field.value);
    if (asked && rows.length < total) await addOthers();
    const [search, decision, rule] = fields.map((field) => field.value);
    const words = search.toLowerCase().split(/\s+/);
    const found = (order ? inOrder(rows, ...order) : rows).filter(
      (row) =>
        (!decision || row.dataset.answer === decision) &&
        (!rule || row.dataset.rules.split(" ").includes(rule)) &&
        words.every((word) => textOf(row).includes(word)),
    );
    const count = asked ? found.length : total;
    shown.textContent = t("shown", { count, total });
    body.replaceChildren(...found.slice(0, drawn));
    const left = count - drawn;
    more.hidden = left <= 0;
    more.textContent = t("more", { count: Math.min(left, PAGE) });
  };
  const choose = () => {
    state.set(Object.fromEntries(fields.map((field) => [field.id, field.value])));
    return draw(PAGE);
  };
  const sort = (column, up) => {
    markSorted(whole, column, up);
    order = [column, up];
    state.set({ sort: `${column}${up ? "" : "-"}` });
    return draw(PAGE);
  };
  const link = () => {
    const two = rows.map((row) => row.querySelector("input")).filter((box) => box.checked);
    const [a, b] = two.map((box) => box.value);
    const held = `/compare/${[a, b].sort().join("/")}`;
    const there = !exported || document.querySelector(`template[data-path="${held}"]`) !== null;
    compare.hidden = two.length !== 2 || !there;
    compare.href = exported ? `#${held}` : `/compare?a=${a}&b=${b}&lang=${lang}`;
    absent.textContent = two.length === 2 && !there ? t("compare.absent") : "";
  };

  sortButtons(whole, sort, 1);
  fields.forEach((field, index) => {
    field.value = state.get(FIELDS[index]);
    if (field.selectedIndex < 0) field.value = "";
    field.addEventListener("input", choose);
  });
  body.addEventListener("change", link);
  if (exported) whole.classList.toggle("alone", !document.querySelector('template[data-path^="/compare/"]'));
  link();
  const [, column, down] = /^(\d+)(-?)$/.exec(state.get("sort")) ?? [];
  if (column > 0 && whole.tHead.rows[0].cells[column]) sort(Number(column), !down);
  else choose();
}
