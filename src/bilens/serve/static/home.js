// The models of the folder: searched and sorted.
import { sortable, state } from "./lib.js";

export function home(root) {
  const whole = root.querySelector("table.models");
  const tools = root.querySelector(".tools");
  const search = tools.querySelector("input");
  const shown = tools.querySelector("output");
  tools.hidden = false;
  const find = () => {
    const words = search.value.toLowerCase().split(/\s+/);
    let count = 0;
    for (const row of whole.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} / ${whole.tBodies[0].rows.length}`;
    state.set({ search: search.value });
  };
  search.value = state.get("search");
  search.addEventListener("input", find);
  find();
  sortable(whole);
}
