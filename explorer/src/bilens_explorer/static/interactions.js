// The interactions of the inputs of a layer along one output as a heat map, with the strongest pairs
// beside it.
import { largest, paint } from "./charts.js";
import { gestures } from "./gestures.js";
import { control, element, exported, get, lang, number, percent, redrawing, state, t, table, takeaway } from "./lib.js";
import { addressOf } from "./outputs.js";
import { inputName } from "./vectors.js";

const [MOST, SHOWN, LISTED, CLOSEST] = [200, 40, 30, 40]; // features, at first, pairs, zoom
const PIXELS = 800; // of the map, either way

const pairsOf = ({ names, matrix }, least) =>
  matrix
    .flatMap((row, first) => row.slice(0, first + 1).map((value, second) => ({ first, second, value })))
    .filter(({ value }) => value !== 0 && Math.abs(value) >= least)
    .sort((one, other) => Math.abs(other.value) - Math.abs(one.value))
    .map((pair) => ({ ...pair, names: [names[pair.first], names[pair.second]] }));

// A map of { names, matrix } that is looked at through a window; `told` hears of the cell that is
// pointed at, by position in the order, `chosen` of the one that is clicked or gone to by keys.
const heatMap = (name, told, chosen) => {
  const canvas = element("canvas", { width: PIXELS, height: PIXELS, tabindex: 0, role: "application", "aria-label": name, class: "heat-map" });
  const whole = element("canvas"); // a pixel a cell
  const view = { element: canvas, at: [0, 0], zoom: 1, cell: null };
  let [values, count] = [[], 1];
  const look = () => {
    const context = canvas.getContext("2d");
    const side = count / view.zoom;
    view.at = view.at.map((from) => Math.min(Math.max(from, 0), count - side));
    context.imageSmoothingEnabled = false;
    context.drawImage(whole, ...view.at, side, side, 0, 0, PIXELS, PIXELS);
    canvas.classList.toggle("zoomed", view.zoom > 1);
    if (!view.cell) return;
    const size = PIXELS / side;
    const [left, top] = [view.cell[1] - view.at[0], view.cell[0] - view.at[1]].map((from) => from * size);
    for (const [stroke, line] of [["#fff", 6], ["#000", 2.5]]) {
      Object.assign(context, { strokeStyle: stroke, lineWidth: line });
      context.strokeRect(left, top, size, size);
    }
  };
  const place = (at) => at.map((pixels, axis) => view.at[axis] + (pixels / (canvas.clientWidth || 1)) * (count / view.zoom));
  view.zoomBy = (factor, at = [canvas.clientWidth / 2, canvas.clientWidth / 2]) => {
    const [x, y] = place(at);
    const next = Math.min(Math.max(view.zoom * factor, 1), Math.max(1, Math.min(CLOSEST, count / 4)));
    view.at = [x, y].map((from, axis) => from - (from - view.at[axis]) * (view.zoom / next));
    view.zoom = next;
    look();
  };
  // Points at a cell, and moves the window where it is not seen.
  view.point = (cell, follow = false) => {
    view.cell = cell;
    const side = count / view.zoom;
    const seen = cell?.every((index, axis) => index >= view.at[1 - axis] && index < view.at[1 - axis] + side);
    if (cell && follow && !seen) view.at = [cell[1] - side / 2, cell[0] - side / 2];
    look();
    told(cell);
  };
  view.choose = (cell, follow) => {
    view.point(cell, follow);
    chosen(cell);
  };
  view.draw = (rows) => {
    [values, count] = [rows.flat(), Math.max(rows.length, 1)];
    paint(whole, values, [count, count]);
    view.cell = null;
    view.zoomBy(1);
  };
  const moved = gestures(canvas, {
    zoom: view.zoomBy,
    move: (right, down) => {
      const size = count / view.zoom / canvas.clientWidth;
      view.at = [view.at[0] - right * size, view.at[1] - down * size];
      look();
    },
  });
  const under = (event) => {
    const { left, top } = canvas.getBoundingClientRect();
    const [column, row] = place([event.clientX - left, event.clientY - top]).map(Math.floor);
    return Math.min(row, column) >= 0 && Math.max(row, column) < count ? [row, column] : null;
  };
  canvas.addEventListener("pointermove", (event) => {
    const cell = under(event);
    if (cell && String(view.cell) !== String(cell)) view.point(cell);
  });
  canvas.addEventListener("click", (event) => {
    const cell = under(event);
    if (cell && moved() < 4) view.choose(cell); // no drag
  });
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const factor = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, 0: 1 / CLOSEST }[event.key];
    const step = steps[event.key];
    if ((!factor && !step) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (factor) return view.zoomBy(factor);
    const from = view.cell ?? view.at.map(Math.floor).reverse();
    return view.choose(from.map((index, axis) => Math.min(Math.max(index + step[axis], 0), count - 1)), true);
  });
  return view;
};

// Map, threshold and list of { names, matrix }.
const mapPart = (title, found) => {
  const scale = largest(found.matrix.flat());
  const said = element("output", { class: "told" });
  const list = element("div");
  let share = Math.min(Math.max(Number(state.get("least", "0")) || 0, 0), 100);
  let rows = [];
  const map = heatMap(title, (cell) => {
    said.textContent = cell ? `${cell.map((index) => found.names[index]).join(" × ")}: ${number(rows[cell[0]][cell[1]])}` : "";
  }, (cell) => state.set({ cell: cell.join("-") }));
  const draw = () => {
    const least = (share / 100) * scale;
    rows = found.matrix.map((row) => row.map((value) => (Math.abs(value) >= least ? value : 0)));
    map.draw(rows);
    const kept = state.get("cell").split("-").map(Number);
    if (kept.length === 2 && kept.every((index) => index in rows)) map.point(kept, true);
    const pairs = pairsOf(found, least);
    const cells = pairs.slice(0, LISTED).map(({ first, second, names, value }) => {
      const look = (way) => () => map[way]([first, second], true);
      return [element("button", { type: "button", class: "link", onclick: look("choose"), onfocus: look("point") }, names.join(" × ")), number(value)];
    });
    list.replaceChildren(
      table(t("pairs", { shown: cells.length, count: new Intl.NumberFormat(lang).format(pairs.length) }), [t("pair"), t("value")], cells),
      takeaway(title, {
        rows: () => [["first", "second", "value"], ...pairs.map(({ names, value }) => [...names, value])],
        data: () => ({ names: found.names, matrix: rows }),
        drawn: map.element,
      }),
    );
  };
  const slider = element("input", {
    type: "range",
    min: 0,
    max: 100,
    value: share,
    oninput: () => {
      share = Number(slider.value);
      least.textContent = percent(share / 100, 0);
      state.set({ least: share || null });
      draw();
    },
  });
  const least = element("output", {}, percent(share / 100, 0));
  const zooms = [["+", "in", 1.5], ["−", "out", 1 / 1.5], ["1:1", "whole", 1 / CLOSEST]].map(([text, key, factor]) =>
    element("button", { type: "button", "aria-label": t(`zoom.${key}`), title: t(`zoom.${key}`), onclick: () => map.zoomBy(factor) }, text),
  );
  draw();
  return [
    element("p", { class: "controls" }, control(t("least"), slider), least, zooms),
    element("div", { class: "side" }, element("div", {}, map.element, said), list),
    element("p", { class: "quiet" }, t("heat.how")),
  ];
};

// The interactions of one output of a layer below its spectrum: of the strongest inputs, or of those named.
export const interactionPart = (key, layer, output) => {
  const part = element("div");
  const redraw = redrawing(part);
  const show = () =>
    redraw(async (current) => {
      const more = {};
      for (const name of ["count", "inputs"]) if (state.get(name)) more[name] = state.get(name);
      const found = await get(addressOf(key, "interactions", layer, output, more));
      if (!current()) return;
      const names = found.inputs.map((input, index) => found.names?.[index] ?? inputName(input, found.shape));
      const told = t("heat.of", { output: found.output, count: names.length, width: found.d_in, share: percent(found.share) });
      part.replaceChildren(element("p", {}, told), ...mapPart(t("heat"), { ...found, names }));
    });
  const set = (name) => (event) => {
    if (!event.target.checkValidity()) return;
    state.set({ [name]: event.target.value, cell: null });
    show();
  };
  const count = element("input", { type: "number", min: 1, max: MOST, value: state.get("count", String(SHOWN)), onchange: set("count"), disabled: exported });
  const inputs = element("input", { type: "text", maxlength: 4000, value: state.get("inputs"), onchange: set("inputs"), disabled: exported });
  const controls = element("p", { class: "controls" }, control(t("heat.count"), count), control(t("heat.inputs"), inputs));
  return { drawn: element("section", { class: "interactions" }, element("h3", {}, t("heat")), controls, part), show };
};
