// Plots: bars, curves, heat maps and images, each with a name for those who cannot see it.
import { element, number, palette, svg } from "./lib.js";

export const colour = (value, scale) => {
  const middle = (palette.length - 1) / 2;
  const share = scale > 0 ? Math.max(-1, Math.min(1, value / scale)) : 0;
  return palette[Math.round(middle + share * middle)];
};
export const largest = (values) => values.reduce((most, each) => Math.max(most, Math.abs(each)), 0);

const parsed = palette.map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
// Paints numbers row by row: signed ones from red over white to blue, others from black to white.
export const paint = (canvas, values, [rows, columns], { scale, grey = false } = {}) => {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  const most = scale ?? largest(values);
  const middle = (palette.length - 1) / 2;
  values.forEach((value, index) => {
    const share = most > 0 ? Math.max(-1, Math.min(1, value / most)) : 0;
    const shade = Math.round(255 * Math.max(0, share));
    const [red, green, blue] = grey ? [shade, shade, shade] : parsed[Math.round(middle + share * middle)];
    picture.data.set([red, green, blue, 255], 4 * index);
  });
  context.putImageData(picture, 0, 0);
  return canvas;
};
export const image = (name, values, shape, options = {}) =>
  paint(element("canvas", { role: "img", "aria-label": name, class: "pixels" }), values, shape, options);

// A step of 1, 2 or 5 times a power of ten, and its multiples within a range.
export const ticks = (low, high, most = 5) => {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / most));
  const step = power * [1, 2, 5, 10].find((factor) => span / (factor * power) <= most);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + 1e-9 * span; at += 1) found.push(at * step + 0); // no −0
  return found;
};

// So many digits as tell neighbouring ticks apart.
const digitsOf = (at) =>
  at.length < 2 ? 3 : Math.max(3, Math.floor(Math.log10(largest(at))) - Math.floor(Math.log10(at[1] - at[0])) + 1);

const DOTS = 60; // at most, of a curve; of one with more points some tell theirs
const LEFT = 70; // room for −0.00015
const BOTTOM = 34;
const TOP = 16;
// The frame of a plot, and where values lie in it; `counted`: across stand things that are counted from 1.
const framed = (name, { width, height, x, y, xName, yName, counted }) => {
  const [right, base] = [width - 10, height - BOTTOM];
  const across = (value) => LEFT + ((right - LEFT) * (value - x[0])) / (x[1] - x[0] || 1);
  const upwards = (value) => base - ((base - TOP) * (value - y[0])) / (y[1] - y[0] || 1);
  const text = (left, top, content, anchor = "middle") =>
    svg("text", { x: left, y: top, "text-anchor": anchor, class: "tick" }, content);
  const [xs, ys] = [counted ? ticks(1, x[1]).filter(Number.isInteger) : ticks(...x), ticks(...y)];
  const drawn = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": name, class: "plot" },
    ys.map((value) => [
      svg("line", { x1: LEFT, x2: right, y1: upwards(value), y2: upwards(value), class: "grid" }),
      text(LEFT - 6, upwards(value) + 4, number(value, digitsOf(ys)), "end"),
    ]).flat(),
    xs.map((value) => text(across(counted ? value - 0.5 : value), base + 16, number(value, digitsOf(xs)))),
    text((LEFT + right) / 2, height - 5, xName ?? ""),
    text(LEFT, TOP - 5, yName ?? "", "start"),
  );
  const told = text(right, TOP - 5, "", "end");
  drawn.append(told);
  return { drawn, across, upwards, told };
};

const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1 };
// Marks of a plot, [what is drawn, its number in words], say it where they are pointed at or walked
// to by arrow keys, at first to the one at `from`; Enter is a click.
const walkable = ({ drawn, told }, marks, from) => {
  marks.forEach(([mark, words], index) => {
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", words);
    mark.setAttribute("tabindex", index === from ? 0 : -1);
    drawn.append(mark);
  });
  const at = ({ target }) => marks.findIndex(([mark]) => mark.contains(target));
  const tell = (event) => (told.textContent = marks[at(event)]?.[1] ?? "");
  for (const kind of ["focusin", "pointerover"]) drawn.addEventListener(kind, tell);
  for (const kind of ["focusout", "pointerleave"]) drawn.addEventListener(kind, () => (told.textContent = ""));
  drawn.addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.target.dispatchEvent(new MouseEvent("click"));
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    const next = marks[at(event) + STEPS[event.key]]?.[0];
    if (!next) return;
    event.target.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  });
};

// Bars above and below zero. `band` is [low, high] of what chance gives; a click chooses a bar.
export const bars = (name, values, { band, y: given, chosen, onchoose, told, xName, yName, width = 640, height = 220 } = {}) => {
  const ends = [...values, 0, ...(band ?? [])];
  const y = given ?? [Math.min(...ends), Math.max(...ends)];
  const plot = framed(name, { width, height, x: [0, values.length], y, xName, yName, counted: true });
  const { drawn, across, upwards } = plot;
  if (band) {
    const top = upwards(band[1]);
    const high = upwards(band[0]) - top;
    drawn.append(svg("rect", { x: LEFT, width: across(values.length) - LEFT, y: top, height: high, class: "band" }));
  }
  const marks = values.map((value, index) => {
    const [from, to] = [upwards(Math.max(value, 0)), upwards(Math.min(value, 0))];
    const [left, wide] = [across(index), across(1) - across(0)];
    const bar = svg(
      "g",
      {},
      svg("rect", { x: left, width: wide, y: TOP, height: height - BOTTOM - TOP, class: "hit" }),
      svg("rect", {
        x: left + Math.min(0.5, wide / 8),
        width: Math.max(wide - 1, 0.75 * wide),
        y: from,
        height: Math.max(to - from, 0.5),
        class: `${value < 0 ? "neg" : "pos"}${index === chosen ? " chosen" : ""}`,
      }),
    );
    if (onchoose) bar.addEventListener("click", () => onchoose(index));
    return [bar, told ? told(index) : number(value)];
  });
  walkable(plot, marks, Math.max(chosen ?? 0, 0));
  const line = (at, kind) =>
    drawn.append(svg("line", { x1: LEFT, x2: width - 10, y1: upwards(at), y2: upwards(at), class: kind }));
  for (const edge of band ?? []) if (edge !== 0) line(edge, "edge");
  line(0, "zero");
  return drawn;
};

// Curves over a shared axis: series of { name, points: [[x, y]], class }; `marker` is an x that is
// pointed out; `told` writes the number of a point.
export const curves = (name, series, { x, y, marker, told = (value) => number(value), xName, yName, width = 640, height = 220 } = {}) => {
  const points = series.flatMap((one) => one.points);
  const range = (at) => [Math.min(...points.map((p) => p[at])), Math.max(...points.map((p) => p[at]))];
  const plot = framed(name, { width, height, x: x ?? range(0), y: y ?? range(1), xName, yName });
  const { drawn, across, upwards } = plot;
  const marks = series.flatMap((one, index) => {
    const path = one.points.map(([a, b]) => `${across(a).toFixed(1)},${upwards(b).toFixed(1)}`).join(" ");
    drawn.append(svg("polyline", { points: path, class: `curve series-${index}` }, svg("title", {}, one.name)));
    const every = Math.ceil(one.points.length / DOTS);
    const look = every === 1 ? { r: 2.5, class: `dot series-${index}` } : { r: 5, class: "hit" };
    return one.points.filter((_, place) => place % every === 0).map(([a, b]) => [
      svg("circle", { cx: across(a), cy: upwards(b), ...look }),
      `${one.name}: ${number(a, 6)}, ${told(b)}`,
    ]);
  });
  walkable(plot, marks, 0);
  if (marker !== undefined)
    drawn.append(svg("line", { x1: across(marker), x2: across(marker), y1: TOP, y2: height - BOTTOM, class: "marker" }));
  return drawn;
};

// Which colour is which curve.
export const legend = (names) =>
  element("ul", { class: "legend-list" }, names.map((name, index) => element("li", { class: `series-${index}` }, name)));

// A list of named bars, blue to the right and red to the left, with their numbers.
export const namedBars = (name, items, { scale } = {}) => {
  const most = scale ?? largest(items.map((item) => item.value));
  const rows = items.map(({ name: label, value }) => {
    const share = most > 0 ? Math.min(Math.abs(value) / most, 1) : 0;
    const bar = svg(
      "svg",
      { viewBox: "0 0 200 12", class: "strip", "aria-hidden": "true", preserveAspectRatio: "none" },
      svg("rect", { x: value < 0 ? 100 - 100 * share : 100, width: 100 * share, y: 1, height: 10, class: value < 0 ? "neg" : "pos" }),
      svg("line", { x1: 100, x2: 100, y1: 0, y2: 12, class: "zero" }),
    );
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, label),
      element("td", {}, bar),
      element("td", { class: "num" }, number(value)),
    );
  });
  return element("table", { class: "named-bars" }, element("caption", { class: "unseen" }, name), element("tbody", {}, rows));
};
