// Two models beside each other: which eigenvectors belong together; and what one is compared with.
import { bars, image } from "./charts.js";
import { asNumber, choice, control, drawing, element, exported, get, holds, lang, number, redrawing, share, sortable, state, t, takeaway } from "./lib.js";
import { approximated, onlyHeld, outputControls } from "./outputs.js";
import { nameable } from "./people.js";
import { subjectOf, vectorFigure } from "./vectors.js";

const matchedParts = (found, keys, layer, read) => {
  const sides = { A: found.a, B: found.b };
  const plots = Object.entries(sides).map(([side, { values }]) => {
    const drawn = bars(`${side}: ${t("compare.values")}`, values, { height: 180, xName: t("spectrum.order"), yName: "λ", width: 480 });
    const rows = [[t("spectrum.order"), "λ"], ...values.map((value, index) => [index + 1, value])];
    const taken = takeaway(`${side} ${t("compare.values")}`, { rows, data: values, drawn });
    return element("figure", {}, element("figcaption", {}, `${side}: ${t("compare.values")}`), drawn, taken);
  });
  const size = found.cosines.length;
  const named = t("compare.cosines");
  const heat = image(named, found.cosines.flat(), [size, size], { scale: 1 });
  const columns = found.b.values.map((_, index) => `B ${index + 1}`);
  const rows = [["", ...columns], ...found.cosines.map((row, index) => [`A ${index + 1}`, ...row])];
  const taken = takeaway(named, { rows, data: found.cosines, drawn: heat });
  const cosines = element("figure", { class: "cosines" }, element("figcaption", {}, named), heat, taken);
  const of = (side, ranks) =>
    found[side].vectors.vectors.filter((one) => ranks.includes(one.rank)).map((one) => {
      const subject = subjectOf(layer, found[side].output, found[side].values, one.rank);
      const figure = vectorFigure(found[side].vectors, one);
      const name = `${side.toUpperCase()}: ${t("vector.name", { rank: one.rank })}`;
      if (subject) figure.append(nameable(keys[side], subject, name, found[side].vectors.weights_sha256));
      return figure;
    });
  const pairs = found.pairs.map((pair) =>
    element(
      "li",
      {},
      element("p", {}, element("strong", {}, t("compare.pair", { a: pair.a.join(", "), b: pair.b.join(", "), cosine: share(pair.cosine) }))),
      element("div", { class: "beside" }, of("a", pair.a), of("b", pair.b)),
    ),
  );
  const told = { score: share(found.score), chance: number(found.chance, 3, "ceil"), p: number(found.p_value, 2) };
  return [
    ...Object.entries(sides).flatMap(([side, one]) => approximated(one, read[side], `${side}: `)).filter(Boolean),
    element("p", {}, t("compare.score", told)),
    element("div", { class: "side" }, plots, cosines),
    element("p", { class: "quiet" }, t("vectors.sign")),
    element("ol", { class: "matched" }, pairs),
    takeaway(t("compare.pairs"), {
      rows: [["A", "B", "|cos|"], ...found.pairs.map((pair) => [pair.a.join(" "), pair.b.join(" "), pair.cosine])],
      data: found,
    }),
  ];
};

export const compare = (root) =>
  drawing(root, async () => {
    const { a, b } = root.dataset;
    const [mine, theirs] = await Promise.all([a, b].map((key) => get(`/models/${key}/layers`)));
    const layers = mine.layers.filter((one) =>
      theirs.layers.some((other) => other.name === one.name && other.d_in === one.d_in && other.d_out === one.d_out),
    );
    if (!layers.length) return root.append(element("p", {}, t("compare.no_layer")));
    const controls = element("p", { class: "controls" });
    const part = element("div", { class: "spectra" });
    const addressOf = (layer, output) => `/compare/eigenvectors?${new URLSearchParams({ a, b, layer, output })}`;
    const redraw = redrawing(part);
    const show = (layer, output) => {
      state.set({ layer: layer.name, output });
      const address = (chosen) => addressOf(layer.name, chosen);
      const names = layers.map((one) => [one.name, one.name]);
      const pick = choice(names, layer.name, (name) => show(layers.find((one) => one.name === name), "0"));
      controls.replaceChildren(
        ...[control(t("field.LayerRow.name"), onlyHeld(pick, (name) => addressOf(name, "0"))), ...outputControls(layer, output, (chosen) => show(layer, chosen), address)].filter(Boolean),
      );
      redraw(async (current) => {
        const found = await get(address(output));
        if (current()) part.replaceChildren(...matchedParts(found, { a, b }, layer, { A: layer, B: theirs.layers.find((one) => one.name === layer.name) }));
      });
    };
    root.append(controls, part);
    const named = layers.find((one) => one.name === state.get("layer")) ?? layers.find((one) => holds(addressOf(one.name, "0"))) ?? layers[0];
    show(named, state.get("output", "0"));
  });

// A table that the page holds already: it can be sorted, and taken away.
export const takeTable = (root) => {
  const cells = (row) => [...row.cells].map((cell) => (cell.textContent.endsWith("%") ? cell.textContent : asNumber(cell.textContent)));
  sortable(root.querySelector("table"));
  root.append(takeaway(root.querySelector("caption").textContent, { rows: () => [...root.querySelectorAll("tr")].map(cells) }));
};

// On the page of a model: another one that it is compared with.
export const compareWith = (root) => {
  if (exported) return;
  const { key } = root.dataset;
  const button = element("button", { type: "button", class: "plain" }, t("compare.with"));
  const part = element("span", { class: "controls" });
  button.addEventListener("click", () => {
    button.hidden = true;
    drawing(part, async () => {
      const { models } = await get("/overview");
      const options = models.filter((one) => one.id !== key).map((one) => [one.id, one.name]);
      if (!options.length) return part.append(t("compare.nothing"));
      const link = element("a", { class: "plain" }, t("compare.go"));
      const choose = (chosen) => link.setAttribute("href", `/compare?a=${key}&b=${chosen}&lang=${lang}`);
      const made = choice(options, options[0][0], choose);
      choose(options[0][0]);
      part.append(control(t("compare.with"), made), link);
      made.focus();
    });
  });
  root.append(button, part);
};
