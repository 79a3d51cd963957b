// A circuit as a graph in columns: tokens, input latents, their products, the output latent, and
// the tokens that it promotes. Seen through a window that is moved and zoomed.
import { gestures } from "./gestures.js";
import { largest } from "./charts.js";
import { element, number, svg, t } from "./lib.js";
import { word } from "./passages.js";

const COLUMNS = [120, 180, 180, 180, 130]; // widths
const [GAP, ROW, HEIGHT, MARGIN] = [75, 38, 30, 12];
const LEFT = COLUMNS.map((_, at) => MARGIN + at * GAP + COLUMNS.slice(0, at).reduce((sum, one) => sum + one, 0));
const WIDTH = LEFT[4] + COLUMNS[4] + MARGIN;
const [NEAREST, FARTHEST] = [4, 0.2]; // zoom

// Nodes and lines of a circuit. A product's number is its coefficient or, `there`, its part of the
// circuit at the strongest context. A line has the number of what it leads to or comes from.
export const graphOf = (circuit, inputs, names, there) => {
  const nodes = new Map();
  const lines = [];
  const add = (id, column, name, more = {}) => nodes.set(id, { id, column, name, value: 0, ...more });
  const join = (from, to, value) => lines.push({ from, to, value });
  const z = circuit.features.map((_, m) => (there ? circuit.example[m] : 1));
  const { output } = circuit;
  add("out", 3, names.output(output), { reading: output });
  circuit.features.forEach((latent, m) => {
    const reading = inputs.get(latent);
    add(`in:${latent}`, 1, names.input(reading), { reading, activation: circuit.example[m] });
    const peaks = new Map();
    for (const one of reading.contexts) {
      const value = one.activations[one.peak];
      peaks.set(one.tokens[one.peak], Math.max(value, peaks.get(one.tokens[one.peak]) ?? value));
    }
    for (const [text, value] of [...peaks].slice(0, 2)) {
      add(`peak:${text}`, 0, word(text));
      join(`peak:${text}`, `in:${latent}`, value);
    }
  });
  const product = (id, value, parts) => {
    if (value === 0) return;
    add(id, 2, parts.map((latent) => `z${latent}`).join(" · "), { value, parts });
    for (const latent of new Set(parts)) join(`in:${latent}`, id, value);
    join(id, "out", value);
  };
  circuit.features.forEach((m, row) => {
    product(`pair:${m}`, circuit.linear[row] * z[row], [m]);
    circuit.features.slice(0, row + 1).forEach((n, column) => {
      const coefficient = circuit.matrix[row][column] * (row === column ? 1 : 2);
      product(`pair:${n}x${m}`, coefficient * z[row] * z[column], [n, m]);
    });
  });
  const first = output.contexts[0];
  const strength = there && first ? first.activations[first.peak] : 1;
  for (const token of [...output.tokens.high, ...output.tokens.low]) {
    if (nodes.has(`token:${token.id}`)) continue; // of few tokens, one may stand at both ends
    add(`token:${token.id}`, 4, word(token.text), { value: strength * token.value });
    join("out", `token:${token.id}`, strength * token.value);
  }
  return { nodes, lines };
};

// What is drawn: products and promoted tokens above the threshold, and what belongs to them.
const drawnOf = ({ nodes, lines }, least) => {
  const most = [2, 4].map((column) => largest([...nodes.values()].filter((node) => node.column === column).map((node) => node.value)));
  const shown = new Set(["out"]);
  for (const { id, column, value } of nodes.values())
    if ((column === 2 || column === 4) && Math.abs(value) >= least * most[column / 2 - 1]) shown.add(id);
  for (const column of [2, 1])
    for (const { from, to } of lines)
      if (nodes.get(to).column === column && shown.has(to)) shown.add(from);
  return { nodes: new Map([...nodes].filter(([id]) => shown.has(id))), lines: lines.filter(({ from, to }) => shown.has(from) && shown.has(to)) };
};

const laidOut = (nodes) => {
  const columns = COLUMNS.map((_, column) =>
    [...nodes.values()]
      .filter((node) => node.column === column)
      .sort((a, b) => Math.abs(b.value) - Math.abs(a.value)),
  );
  const rows = Math.max(...columns.map((column) => column.length));
  for (const column of columns)
    column.forEach((node, row) => {
      node.x = LEFT[node.column];
      node.y = MARGIN + (row + (rows - column.length) / 2) * ROW;
    });
  return { columns, height: 2 * MARGIN + rows * ROW };
};

const cut = (text, width) => {
  const most = Math.floor(width / (/[\u1100-\uffef]/.test(text) ? 13 : 7.2));
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text;
};

// A graph that is looked at; `looked` has { least, view }, whose changes are told to `onchange`, and
// the node that is looked at to `onchoose`.
export const graphView = (name, looked, { onchange, onchoose }) => {
  const canvas = svg("svg", { class: "graph", role: "group", "aria-label": name, tabindex: 0, preserveAspectRatio: "xMidYMid meet" });
  const view = { element: canvas, here: "out", nodes: new Map(), lines: [] };
  let [graph, columns, height] = [{ nodes: new Map(), lines: [] }, [], 1];

  // ---- the window
  const box = () => [canvas.clientWidth || 800, canvas.clientHeight || 500];
  const look = () => {
    const [x, y, zoom] = looked.view;
    const [wide, high] = box();
    canvas.setAttribute("viewBox", [x, y, wide / zoom, high / zoom].map((value) => Math.round(value * 10) / 10).join(" "));
  };
  const fitted = () => {
    const [wide, high] = box();
    const zoom = Math.min(Math.max(Math.min(wide / WIDTH, high / height), FARTHEST), 1.5);
    const middle = (size, whole) => (size / zoom > whole ? (whole - size / zoom) / 2 : 0);
    return [middle(wide, WIDTH), middle(high, height), zoom];
  };
  const turn = (next) => {
    looked.view = next;
    look();
    onchange();
  };
  view.fit = () => turn(fitted());
  // Zooms so that what lies at a place of the window stays there.
  view.zoom = (factor, at = box().map((size) => size / 2)) => {
    const [x, y, zoom] = looked.view;
    const next = Math.min(Math.max(zoom * factor, FARTHEST), NEAREST);
    turn([x + at[0] / zoom - at[0] / next, y + at[1] / zoom - at[1] / next, next]);
  };
  const move = (right, down) => {
    const [x, y, zoom] = looked.view;
    turn([x + right / zoom, y + down / zoom, zoom]);
  };
  const travelled = gestures(canvas, { zoom: view.zoom, move: (right, down) => move(-right, -down) });

  // ---- nodes
  view.choose = (id) => {
    view.here = id;
    view.draw();
    onchoose(view.nodes.get(id));
  };
  const focus = (id) => {
    view.here = id;
    view.draw();
    const node = view.nodes.get(id);
    const [x, y, zoom] = looked.view;
    const [wide, high] = box().map((size) => size / zoom);
    const inside = node.x >= x && node.x + COLUMNS[node.column] <= x + wide && node.y >= y && node.y + HEIGHT <= y + high;
    if (!inside) turn([node.x + COLUMNS[node.column] / 2 - wide / 2, node.y - high / 2, zoom]);
    canvas.querySelector('.node[tabindex="0"]').focus({ preventScroll: true });
  };
  const neighbour = (node, key) => {
    const column = columns[node.column];
    if (key === "ArrowUp" || key === "ArrowDown") return column[column.indexOf(node) + (key === "ArrowUp" ? -1 : 1)];
    const step = key === "ArrowLeft" ? -1 : 1;
    let at = node.column + step;
    while (columns[at] && columns[at].length === 0) at += step;
    return columns[at]?.toSorted((a, b) => Math.abs(a.y - node.y) - Math.abs(b.y - node.y))[0];
  };
  const PAN = { ArrowLeft: [-60, 0], ArrowRight: [60, 0], ArrowUp: [0, -60], ArrowDown: [0, 60] };
  const act = (key, node) => {
    if (key === "+" || key === "=") view.zoom(1.25);
    else if (key === "-") view.zoom(0.8);
    else if (key === "0") view.fit();
    else if (!node) {
      if (!PAN[key]) return false;
      move(...PAN[key]);
    } else if (key === "Enter") view.choose(node.id);
    else if (PAN[key]) {
      const next = neighbour(node, key);
      if (next) focus(next.id);
    } else return false;
    return true;
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const node = view.nodes.get(event.target.dataset.id);
    if (act(event.key, node)) event.preventDefault();
  });
  canvas.addEventListener("click", (event) => {
    const id = event.target.closest(".node")?.dataset.id;
    if (travelled() <= 4 && id) view.choose(id);
  });

  const drawNode = (node) => {
    const said = [t(`graph.column.${node.column}`), node.name, node.column % 2 === 0 && node.column > 0 ? number(node.value) : ""];
    const width = COLUMNS[node.column];
    return svg(
      "g",
      {
        class: `node column-${node.column}${node.id === view.here ? " here" : ""}`,
        "data-id": node.id,
        role: "button",
        tabindex: node.id === view.here ? 0 : -1,
        "aria-label": said.filter(Boolean).join(", "),
        transform: `translate(${node.x} ${node.y})`,
      },
      svg("title", {}, node.name),
      svg("rect", { width, height: HEIGHT, rx: 6 }),
      svg("text", { x: 8, y: 20 }, cut(node.name, width - 16 - (node.column === 2 || node.column === 4 ? 50 : 0))),
      node.column === 2 || node.column === 4 ? svg("text", { x: width - 8, y: 20, "text-anchor": "end", class: "number" }, number(node.value, 2)) : null,
    );
  };
  const drawLine = ({ from, to, value }, most) => {
    const [a, b] = [view.nodes.get(from), view.nodes.get(to)];
    const [x, y, right, down] = [a.x + COLUMNS[a.column], a.y + HEIGHT / 2, b.x, b.y + HEIGHT / 2];
    const middle = (x + right) / 2;
    return svg(
      "path",
      {
        d: `M${x} ${y}C${middle} ${y} ${middle} ${down} ${right} ${down}`,
        class: `line ${value < 0 ? "neg" : "pos"}${from === view.here || to === view.here ? " here" : ""}`,
        "stroke-width": (0.75 + 5 * (most ? Math.abs(value) / most : 0)).toFixed(2),
      },
      svg("title", {}, `${a.name} → ${b.name}: ${number(value)}`),
    );
  };
  view.draw = () => {
    Object.assign(view, drawnOf(graph, looked.least));
    ({ columns, height } = laidOut(view.nodes));
    if (!view.nodes.has(view.here)) view.here = "out";
    if (!view.nodes.has("out")) view.here = view.nodes.keys().next().value;
    const focused = canvas.contains(document.activeElement) && document.activeElement !== canvas;
    const most = (column) => largest(view.lines.filter((line) => view.nodes.get(line.from).column === column).map((line) => line.value));
    const scales = COLUMNS.map((_, column) => most(column));
    canvas.replaceChildren(
      ...view.lines.map((line) => drawLine(line, scales[view.nodes.get(line.from).column])),
      ...columns.flat().map(drawNode),
    );
    if (focused) canvas.querySelector('.node[tabindex="0"]')?.focus({ preventScroll: true });
    view.ondraw?.();
  };
  view.show = (next) => {
    graph = next;
    view.draw();
  };
  view.counts = () => [2, 4].map((column) => [...view.nodes.values()].filter((node) => node.column === column).length);
  new ResizeObserver(() => {
    looked.view ??= fitted();
    look();
  }).observe(canvas);
  return view;
};

// What people read of a graph's lines: what a node is joined with, the strongest first.
export const linesOf = (view, id) =>
  view.lines
    .filter((line) => line.from === id || line.to === id)
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
    .map((line) => [view.nodes.get(line.from).name, view.nodes.get(line.to).name, line.value]);

