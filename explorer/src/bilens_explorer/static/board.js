// A board to draw an image on: by mouse or finger, and by keyboard; pixels are from 0 to 1.
import { paint } from "./charts.js";
import { control, element, t } from "./lib.js";

export const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

// Lays a mark over a cell of a canvas of so many rows and columns.
export const over = (mark, [row, column], [rows, columns]) =>
  Object.assign(mark.style, { left: `${(100 * column) / columns}%`, top: `${(100 * row) / rows}%`, width: `${100 / columns}%`, height: `${100 / rows}%` });

export const drawingBoard = ([rows, columns], changed) => {
  const pixels = new Float64Array(rows * columns);
  const canvas = element("canvas", {
    class: "pixels",
    tabindex: 0,
    role: "application",
    "aria-label": t("play.board"),
    "aria-describedby": "board-keys",
  });
  const mark = element("div", { class: "board-cursor", "aria-hidden": "true" });
  const size = element("input", { type: "range", min: 0.5, max: 4, step: 0.25, value: Math.max(0.5, rows / 20) });
  const erasing = element("input", { type: "checkbox" });
  const cursor = [Math.floor(rows / 2), Math.floor(columns / 2)];

  const show = () => {
    paint(canvas, pixels, [rows, columns], { scale: 1, grey: true });
    over(mark, cursor, [rows, columns]);
  };
  const update = () => {
    show();
    changed();
  };
  // A soft disc around a point, in pixels; where it is darker than the image, nothing changes.
  const stamp = (row, column, erase) => {
    const reach = Number(size.value);
    for (let i = Math.max(0, Math.floor(row - reach - 1)); i < Math.min(rows, row + reach + 1); i += 1)
      for (let j = Math.max(0, Math.floor(column - reach - 1)); j < Math.min(columns, column + reach + 1); j += 1) {
        const ink = Math.max(0, Math.min(1, reach + 0.5 - Math.hypot(i + 0.5 - row, j + 0.5 - column)));
        const at = i * columns + j;
        pixels[at] = erase ? Math.min(pixels[at], 1 - ink) : Math.max(pixels[at], ink);
      }
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientY - box.top) * rows) / box.height, ((event.clientX - box.left) * columns) / box.width];
  };
  let last = null;
  const stroke = (event) => {
    const here = place(event);
    const from = last ?? here;
    const parts = Math.max(1, Math.ceil(2 * Math.hypot(here[0] - from[0], here[1] - from[1])));
    for (let part = 1; part <= parts; part += 1)
      stamp(...from.map((value, axis) => value + ((here[axis] - value) * part) / parts), erasing.checked);
    last = here;
    update();
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    last = null;
    stroke(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    for (const one of event.getCoalescedEvents?.() ?? []) stroke(one);
    stroke(event);
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = ARROWS[event.key];
    const key = event.key.toLowerCase();
    if (!step && key !== " " && key !== "e") return;
    event.preventDefault();
    if (step) {
      cursor[0] = Math.max(0, Math.min(rows - 1, cursor[0] + step[0]));
      cursor[1] = Math.max(0, Math.min(columns - 1, cursor[1] + step[1]));
      if (!event.shiftKey) return show();
    }
    stamp(cursor[0] + 0.5, cursor[1] + 0.5, key === "e" || erasing.checked);
    return update();
  });

  const set = (values) => {
    pixels.set(values);
    update();
  };
  const shift = ([down, right]) =>
    set(pixels.map((_, at) => {
      const row = Math.floor(at / columns) - down;
      const column = (at % columns) - right;
      return row < 0 || row >= rows || column < 0 || column >= columns ? 0 : pixels[row * columns + column];
    }));
  const button = (name, act, label) => element("button", { type: "button", onclick: act, "aria-label": label }, name);
  const tools = element(
    "div",
    { class: "controls" },
    button(t("play.clear"), () => set(pixels.map(() => 0))),
    button(t("play.invert"), () => set(pixels.map((value) => 1 - value))),
    Object.entries({ "←": "ArrowLeft", "→": "ArrowRight", "↑": "ArrowUp", "↓": "ArrowDown" }).map(([sign, key]) =>
      button(sign, () => shift(ARROWS[key]), t("play.shift", { arrow: sign })),
    ),
    control(t("play.brush"), size),
    control(t("play.erase"), erasing),
  );
  show();
  const keys = element("p", { class: "quiet", id: "board-keys" }, t("play.keys"));
  return { box: element("div", { class: "board" }, element("div", { class: "sheet" }, canvas, mark), keys, tools), canvas, pixels, set };
};
