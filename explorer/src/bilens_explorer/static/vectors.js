// An eigenvector: as an image, as bars of named columns, as tokens, or by its largest components.
import { image, namedBars } from "./charts.js";
import { element, number, percent, t, takeaway } from "./lib.js";

const SHOWN = 10; // components

// What an input is called: a pixel by its place, a neuron or a direction by its number.
export const inputName = (index, shape) => {
  if (!shape) return t("input", { index });
  return t("pixel", { index, row: Math.floor(index / shape[1]), column: index % shape[1] });
};

const components = ({ input_names: names, shape }, { vector }) =>
  vector
    .map((value, index) => ({ name: names?.[index] ?? inputName(index, shape), value }))
    .sort((one, other) => Math.abs(other.value) - Math.abs(one.value));

const tokens = ({ high, low }) =>
  Object.entries({ high, low }).map(([end, ends]) => {
    const listed = ends.map((one) => element("li", {}, element("code", {}, one.text.replaceAll(" ", "␣")), ` ${number(one.value)}`));
    return element("div", { class: "tokens" }, element("p", {}, element("strong", {}, t(`tokens.${end}`))), element("ul", {}, listed));
  });

// What people call an eigenvector by: of a class, or of an output of a layer inside; those of each
// sign are counted for themselves, by falling size of all `values`. Null for one output against another.
export const subjectOf = (layer, output, values, rank) => {
  if (String(output).includes("~")) return null;
  const sign = Math.sign(values[rank - 1]);
  const before = values.slice(0, rank - 1).filter((value) => Math.sign(value) === sign);
  const whose = layer.gives === "logits" ? `class:${output}` : `layer:${layer.name}:${output}`;
  return `${whose}:${sign > 0 ? "positive" : "negative"}:${before.length}`;
};

// What a vector of `found` looks like; `name` says it to those who cannot see it.
export const picture = (found, one, name) => {
  if (found.shape) return image(name, one.vector, found.shape);
  if (one.tokens) return element("div", { class: "ends" }, tokens(one.tokens));
  return namedBars(name, components(found, one).slice(0, SHOWN));
};

// A figure of a vector with its numbers; `choose` is a button that looks at it closer.
export const vectorFigure = (found, one, choose) => {
  const name = t("vector.of", { rank: one.rank, value: number(one.eigenvalue) });
  const told = [
    t("vector.share", { share: percent(one.explained, one.explained < 0.001 ? 5 : 1), residual: number(one.residual, 2) }),
    one.subspace_size > 1 ? t("vector.subspace", { count: one.subspace_size }) : null,
  ];
  const button = element("button", { type: "button", class: "plain", onclick: choose }, name);
  return element(
    "figure",
    { class: "vector" },
    element("figcaption", {}, choose ? button : element("strong", {}, name)),
    picture(found, one, name),
    told.filter(Boolean).map((text) => element("p", { class: "quiet" }, text)),
  );
};

export const vectorTakeaway = (found, one, figure) =>
  takeaway(t("vector.name", { rank: one.rank }), {
    rows: [[t("component"), t("value")], ...components(found, one).map(({ name, value }) => [name, value])],
    data: one,
    drawn: figure.querySelector("canvas"),
  });
