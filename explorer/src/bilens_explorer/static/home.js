// The models of the folder: searched, chosen by decision and rule, sorted, two of them compared.
import { element, exported, inOrder, lang, markSorted, sortButtons, state, t } from "./lib.js";

const PAGE = 100; // rows in the page at first, and with each step further down
const FIELDS = ["search", "decision", "rule"];

export function home(root) {
  const whole = root.querySelector("table.models");
  const body = whole.tBodies[0];
  const later = body.querySelector("template")?.content.children ?? [];
  let rows = [...body.rows, ...later];
  const textOf = (row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
  const texts = new Map(rows.map((row) => [row, textOf(row)]));
  const controls = root.querySelector(".controls");
  const fields = FIELDS.map((name) => controls.querySelector(`#${name}`));
  const shown = controls.querySelector("output");
  const more = element("button", { type: "button", class: "plain", onclick: () => draw(drawn + PAGE) });
  const compare = element("a", { class: "plain compare" }, t("compare"));
  controls.hidden = false;
  const absent = element("span", { class: "quiet", role: "status" });
  controls.append(compare, absent);
  root.append(more);

  // What a narrow page needs, where rows are blocks: roles, and the name of the column in each cell.
  const names = [...whole.tHead.rows[0].cells].map((head) => head.textContent);
  const labelled = (row) => {
    if (row.role) return row;
    row.role = "row";
    [...row.cells].forEach((cell, index) => {
      cell.role = cell.tagName === "TH" ? "rowheader" : "cell";
      if (cell.role === "cell") cell.dataset.label = names[index];
    });
    return row;
  };

  let found = rows;
  let drawn = PAGE;
  const draw = (most) => {
    drawn = most;
    body.replaceChildren(...found.slice(0, drawn).map(labelled));
    const left = found.length - drawn;
    more.hidden = left <= 0;
    more.textContent = t("more", { count: Math.min(left, PAGE) });
  };
  const choose = () => {
    const [search, decision, rule] = fields.map((field) => field.value);
    const words = search.toLowerCase().split(/\s+/);
    found = rows.filter(
      (row) =>
        (!decision || row.dataset.answer === decision) &&
        (!rule || row.dataset.rules.split(" ").includes(rule)) &&
        words.every((word) => texts.get(row).includes(word)),
    );
    shown.textContent = t("shown", { count: found.length, total: rows.length });
    state.set({ search, decision, rule });
    draw(PAGE);
  };
  const sort = (column, up) => {
    markSorted(whole, column, up);
    rows = inOrder(rows, column, up);
    state.set({ sort: `${column}${up ? "" : "-"}` });
    choose();
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
  const watch = root.querySelector("#watch");
  watch?.addEventListener("change", () => {
    state.set({ watch: watch.value });
    location.reload(); // the numbers of one rule are in the page
  });
  if (exported) {
    watch?.parentElement.remove();
    whole.classList.toggle("alone", !document.querySelector('template[data-path^="/compare/"]'));
  }
  link();
  const [, column, down] = /^(\d+)(-?)$/.exec(state.get("sort")) ?? [];
  if (column > 0 && whole.tHead.rows[0].cells[column]) sort(Number(column), !down);
  else choose();
}
