// The layers of a model as a table, and of the output that is chosen spectrum, eigenvectors, what is
// left when few of them are kept, and the interactions of inputs.
import { bars, curves, largest, legend } from "./charts.js";
import { interactionPart } from "./interactions.js";
import { control, drawing, element, exported, fields, get, holds, lang, number, percent, redrawing, share, sortable, state, t, table, takeaway } from "./lib.js";
import { addressOf, approximated, outputControls } from "./outputs.js";
import { nameable } from "./people.js";
import { subjectOf, vectorFigure, vectorTakeaway } from "./vectors.js";

const WORDS = ["reads", "gives"];
const NUMBERS = ["d_in", "d_hidden", "d_out", "parameters", "norm", "rank", "dead"];
const WHOLE = new Intl.NumberFormat(lang);
const COLUMNS = ["name", "exact", ...WORDS, "activation", ...NUMBERS];

// ---- layers

const exactness = (layer) => {
  if (layer.broken) return t("layer.broken");
  if (layer.exact) return t("layer.exact");
  if (layer.r_squared === null && layer.usable !== false) return t("layer.approximate");
  const r2 = layer.r_squared === null ? "−∞" : share(layer.r_squared);
  if (!layer.usable) return t("layer.refused", { r2 });
  return t(layer.seen ? "layer.r2" : "layer.assumed", { r2 });
};
const cellOf = (layer, name) => {
  if (name === "exact") return exactness(layer);
  if (WORDS.includes(name)) return t(`layer.value.${layer[name].replace(" ", "_")}`);
  return layer[name];
};

const layerTable = (key, layers, audit, choose) => {
  const there = layers.map((layer) => holds(addressOf(key, "spectrum", layer, 0)));
  const buttons = layers.map((layer, index) =>
    element("button", { type: "button", class: "link", disabled: !there[index], onclick: () => choose(layer, true) }, layer.name),
  );
  const rows = layers.map((layer, index) =>
    COLUMNS.map((name) => {
      if (name === "name") return buttons[index];
      const value = cellOf(layer, name);
      if (Number.isInteger(value)) return WHOLE.format(value);
      return NUMBERS.includes(name) ? number(value) : value;
    }),
  );
  const listed = table(t("layers"), fields("LayerRow", ...COLUMNS), rows);
  const body = listed.querySelector("tbody");
  [...body.rows].forEach((row, index) => {
    row.addEventListener("click", (event) => event.target === buttons[index] || (there[index] && choose(layers[index], true)));
    row.cells[1].dataset.value = layers[index].exact ? 1 : (layers[index].r_squared ?? "");
    for (const [column, name] of COLUMNS.entries()) {
      if (!NUMBERS.includes(name)) continue;
      row.cells[column].className = "num";
      row.cells[column].dataset.value = layers[index][name] ?? "";
    }
  });
  sortable(listed.querySelector("table"));
  const shown = element("output");
  const search = element("input", {
    type: "search",
    oninput: () => {
      const words = search.value.toLowerCase().split(/\s+/);
      let count = 0;
      for (const row of body.rows) {
        row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
        count += row.hidden ? 0 : 1;
      }
      shown.textContent = `${count} / ${layers.length}`;
      listed.scrollTop = 0;
    },
  });
  const told = audit === null ? t("layers.no_audit") : t("layers.audit", { audit });
  const data = [COLUMNS, ...layers.map((layer) => COLUMNS.map((name) => cellOf(layer, name)))];
  return {
    drawn: [
      element("p", { class: "controls" }, control(t("layers.search"), search), shown),
      listed,
      element("p", { class: "quiet" }, told),
      takeaway(t("layers"), { rows: data, data: layers }),
    ],
    mark: (chosen) =>
      layers.forEach((layer, index) => {
        const here = layer.name === chosen.name;
        buttons[index].setAttribute("aria-current", String(here));
        const [top, high] = [body.rows[0].parentElement.offsetTop, listed.clientHeight / 2];
        if (here && !listed.contains(document.activeElement)) listed.scrollTop = buttons[index].closest("tr").offsetTop - top - high;
      }),
  };
};

// ---- one spectrum

const completeness = ({ form, whole, d_in: width }) => {
  const count = form.pairs.length;
  if (whole) return t("spectrum.whole", { count, width });
  return t(form.complete ? "spectrum.leading" : "spectrum.unproven", { count, width });
};

// Positive and negative eigenvalues side by side, over what chance gives.
const spectrumPlots = ({ form }, band, chosen, choose) => {
  const values = form.pairs.map((pair) => pair.eigenvalue);
  const edges = band?.samples ? [band.lower, band.upper] : null;
  const top = Math.max(largest(values), edges ? largest(edges) : 0);
  return [1, -1].map((sign) => {
    const ranks = values.flatMap((value, index) => (sign * value > 0 ? [index + 1] : []));
    const key = sign > 0 ? "positive" : "negative";
    const drawn = bars(
      t(`spectrum.${key}`),
      ranks.map((rank) => values[rank - 1]),
      {
        band: edges && (sign > 0 ? [0, Math.max(edges[1], 0)] : [Math.min(edges[0], 0), 0]),
        y: sign > 0 ? [0, top] : [-top, 0],
        chosen: ranks.indexOf(chosen),
        onchoose: (index) => choose(ranks[index]),
        told: (index) => t("vector.of", { rank: ranks[index], value: number(values[ranks[index] - 1]) }),
        xName: t("spectrum.order"),
        yName: "λ",
        width: 480,
      },
    );
    return { drawn, name: t(`spectrum.${key}`), rows: ranks.map((rank) => [rank, values[rank - 1]]) };
  });
};

const bandTold = (band, { form }) => {
  if (!band.samples) return t("null.too_long");
  const values = form.pairs.map((pair) => pair.eigenvalue);
  const told = t("null.edges", {
    samples: band.samples,
    lower: number(band.lower),
    upper: number(band.upper),
    above: values.filter((value) => value > band.upper).length,
    below: values.filter((value) => value < band.lower).length,
  });
  if (form.effective_rank === null) return told;
  const { low, high } = band.effective_rank;
  return `${told} ${t("null.rank", { rank: number(form.effective_rank, 3), low: number(low, 3), high: number(high, 3) })}`;
};

// ---- few eigenvectors

const measuredAt = (points, k, name) => {
  const found = points.find((point) => point.k === k);
  if (found) return percent(found[name]);
  const [before, after] = [points.findLast((point) => point.k < k), points.find((point) => point.k > k)];
  return [before, after]
    .filter(Boolean)
    .map((point) => t("kept.near", { k: point.k, value: percent(point[name]) }))
    .join(" · ");
};

// A slider over how many eigenvectors are kept, and what that costs.
const truncationPart = (found, curve) => {
  const { bounds, d_in: width } = found;
  const most = bounds.length - 1;
  const clamped = (text, low, high, otherwise) => {
    const value = Number(text);
    return text !== "" && value >= low && value <= high ? value : otherwise;
  };
  let k = clamped(state.get("k"), 0, most, Math.min(4, most));
  let radius = clamped(state.get("r"), 0, 1e9, Math.sqrt(width));
  const said = element("dl", { class: "readout" });
  const plots = element("div", { class: "side" });
  const shown = element("output", { class: "num" });
  const draw = () => {
    shown.textContent = `${k} / ${most}`;
    const bound = bounds[k] === null ? null : radius * radius * bounds[k];
    const unmeasured = curve.audit === null;
    const told = [
      ...["accuracy", "agreement"].map((name) => [
        t(`kept.${name}`),
        unmeasured ? t("kept.unmeasured") : measuredAt(curve.points, k, name),
      ]),
      [t("kept.bound"), bound === null ? t("kept.unproven") : t("kept.proven", { bound: number(bound, 4, "ceil") })],
    ];
    said.replaceChildren(...told.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    slider.setAttribute("aria-valuetext", [shown.textContent, ...told.map((one) => one.join(": "))].join("; "));
    const proven = bounds.flatMap((size, index) => (size === null ? [] : [[index, radius * radius * size]]));
    const top = largest(proven.map(([, size]) => size));
    const names = ["accuracy", "agreement"].map((name) => t(`kept.${name}`));
    const within = curve.points.filter((point) => point.k <= most);
    const series = ["accuracy", "agreement"].map((name, index) => ({
      name: names[index],
      points: within.map((point) => [point.k, point[name]]),
    }));
    const axis = { x: [0, most], marker: k, xName: t("kept.k"), width: 480 };
    const drawn = [
      [t("kept.measured"), within.length ? series : null, names, { ...axis, y: [0, 1], told: percent }],
      [t("kept.bound"), proven.length ? [{ name: t("kept.bound"), points: proven }] : null, null, { ...axis, y: [0, top], told: (size) => number(size, 4, "ceil") }],
    ];
    plots.replaceChildren(
      ...drawn.flatMap(([name, lines, key, options]) => {
        if (!lines) return [];
        const plot = curves(name, lines, options);
        const rows = [["k", ...lines.map((line) => line.name)]];
        lines[0].points.forEach(([at], index) => rows.push([at, ...lines.map((line) => line.points[index][1])]));
        const heading = element("figcaption", {}, name);
        return [element("figure", {}, heading, plot, key ? legend(key) : "", takeaway(name, { rows, data: rows, drawn: plot }))];
      }),
    );
  };
  const slider = element("input", {
    type: "range",
    min: 0,
    max: most,
    value: k,
    oninput: () => go(Number(slider.value)),
  });
  const go = (wanted) => {
    k = wanted;
    slider.value = k;
    state.set({ k });
    draw();
  };
  const jump = (name, sign) => {
    const there = () => curve.points.filter((point) => point.k <= most && sign * (point.k - k) > 0).at(sign > 0 ? 0 : -1);
    return element("button", { type: "button", onclick: () => there() && go(there().k) }, t(`kept.${name}`));
  };
  const jumps = curve.points.length ? [jump("previous", -1), jump("next", 1)] : [];
  const ball = element("input", {
    type: "number",
    min: 0,
    step: "any",
    value: Number(radius.toFixed(3)),
    oninput: () => {
      if (ball.value === "" || !ball.checkValidity()) return;
      radius = Number(ball.value);
      state.set({ r: ball.value });
      draw();
    },
  });
  draw();
  const data = curve.audit === null ? t("kept.advice") : t("kept.data", { audit: curve.audit, data: curve.data, inputs: WHOLE.format(curve.inputs) });
  return [
    element("h3", {}, t("kept")),
    element("p", { class: "controls" }, control(t("kept.k"), slider), shown, jumps, control(t("kept.radius"), ball)),
    said,
    plots,
    element("p", { class: "quiet" }, `${data} ${t("kept.how", { radius: number(Math.sqrt(width)) })}`),
  ];
};

// ---- the view

// Draws everything of one output; `current` says whether it is still the one that is looked at.
const outputPart = async (root, key, layer, output, curve, current) => {
  const found = await get(addressOf(key, "spectrum", layer, output));
  if (!current()) return;
  const count = found.form.pairs.length;
  const told = element("p", { role: "status" }, t("null.waiting"));
  const interactions = interactionPart(key, layer, output);
  const [plots, vectors, closer] = ["side", "vectors", "closer"].map((name) => element("div", { class: name }));
  const leading = get(addressOf(key, "eigenvectors", layer, output));
  let band = null;
  let chosen = Math.min(Number(state.get("vector", "0")) || 0, count);
  const rank = element("input", { type: "number", min: 1, max: count, value: chosen || "", disabled: exported });
  const drawSpectrum = () => {
    const focused = plots.contains(document.activeElement);
    plots.replaceChildren(
      ...spectrumPlots(found, band, chosen, choose).map(({ drawn, name, rows }) =>
        element(
          "figure",
          {},
          element("figcaption", {}, `${name} (${rows.length})`),
          drawn,
          takeaway(name, { rows: [[t("spectrum.order"), "λ"], ...rows], data: () => ({ ...found, null: band }), drawn }),
        ),
      ),
    );
    if (focused) plots.querySelector("g:has(.chosen)")?.focus();
  };
  const drawCloser = () =>
    drawing(closer, async () => {
      const wanted = chosen;
      if (!wanted) return closer.replaceChildren();
      const known = await leading;
      const listed = (answer) => answer?.vectors.find((one) => one.rank === wanted);
      const answer = listed(known) ? known : await get(addressOf(key, "eigenvectors", layer, output, { vector: wanted }));
      if (wanted !== chosen || !current()) return undefined;
      const one = listed(answer);
      const figure = vectorFigure(answer, one);
      const subject = subjectOf(layer, output, found.form.pairs.map((pair) => pair.eigenvalue), wanted);
      const name = element("p", {}, subject && nameable(key, subject, t("vector.name", { rank: wanted }), answer.weights_sha256));
      return closer.replaceChildren(figure, name, vectorTakeaway(answer, one, figure));
    });
  const choose = (wanted) => {
    chosen = wanted;
    rank.value = wanted;
    state.set({ vector: wanted });
    drawSpectrum();
    return drawCloser();
  };
  rank.addEventListener("change", () => rank.value !== "" && rank.checkValidity() && choose(Number(rank.value)));
  drawSpectrum();
  root.replaceChildren(
    ...approximated(found, layer).filter(Boolean),
    element("p", {}, `${t(`reading.${found.reading.replace("-", "_")}`)} ${completeness(found)}`),
    plots,
    told,
    element("h3", {}, t("vectors")),
    element("p", { class: "controls" }, control(t("vectors.choose", { count }), rank)),
    closer,
    vectors,
    element("p", { class: "quiet" }, t("vectors.sign")),
    ...truncationPart(found, curve),
    interactions.drawn,
  );
  await drawing(vectors, async () => {
    const answer = await leading;
    vectors.classList.toggle("listed", !answer.shape);
    vectors.replaceChildren(
      ...["positive", "negative"].map((name) =>
        element(
          "div",
          {},
          element("h4", {}, t(`spectrum.${name}`)),
          answer.vectors
            .filter((one) => one.eigenvalue > 0 === (name === "positive"))
            .map((one) => vectorFigure(answer, one, () => choose(one.rank))),
        ),
      ),
    );
    if (answer.shape && answer.shape_assumed)
      vectors.after(element("p", { class: "quiet" }, t("vectors.assumed", { shape: answer.shape.join(" × ") })));
  });
  await drawCloser();
  await interactions.show();
  await drawing(told, async () => {
    band = await get(addressOf(key, "null", layer, output));
    told.textContent = bandTold(band, found);
    drawSpectrum();
  });
};

export const spectra = (root) =>
  drawing(root, async () => {
    const { key } = root.dataset;
    const [{ layers, audit }, curve] = await Promise.all([
      get(`/models/${key}/layers`),
      get(`/models/${key}/truncation`),
    ]);
    const heading = element("h3", { tabindex: -1 });
    const controls = element("p", { class: "controls" });
    const part = element("div");
    const redraw = redrawing(part);
    const show = (layer, output) => redraw((current) => outputPart(part, key, layer, output, curve, current));
    const choose = (layer, byHand) => {
      if (byHand) state.set({ layer: layer.name, output: null, vector: null, k: null, inputs: null, cell: null });
      const output = state.get("output", "0");
      listed.mark(layer);
      heading.textContent = layer.name;
      controls.replaceChildren(
        ...outputControls(layer, output, (changed) => {
          state.set({ layer: layer.name, output: changed, vector: null, cell: null });
          show(layer, changed);
        }, (one) => addressOf(key, "spectrum", layer, one)).filter(Boolean),
      );
      if (byHand) heading.focus();
      return show(layer, output);
    };
    const listed = layerTable(key, layers, audit, choose);
    root.append(element("div", { class: "layers" }, listed.drawn), heading, controls, part);
    const asked = layers.find((layer) => layer.name === state.get("layer")) ?? layers[0];
    if (asked) await choose(asked, false);
  });
