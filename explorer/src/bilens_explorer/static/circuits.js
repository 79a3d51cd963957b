// The circuits of a trace: searched, one as a graph, its texts, its causal check.
import { graphOf, graphView, linesOf } from "./graph.js";
import { choice, control, drawing, element, fields, get, number, percent, save, sortable, state, t, table, takeaway } from "./lib.js";
import { latentName, passages, tokenEnds, tokenList, word } from "./passages.js";
import { labelOf, nameable, remarksOf } from "./people.js";

const MOST_ROWS = 200; // of the ranking that are drawn
const LEAST = 0.25; // threshold
const ENDS = [t("circuit.one_end"), t("circuit.other_end")];
const button = (name, onclick, more = {}) => element("button", { type: "button", onclick, ...more }, name);
const facts = (pairs) =>
  element("dl", { class: "facts-list" }, pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
const interval = ({ value, low, high }, show = percent) => t("circuit.interval", { value: show(value), low: show(low), high: show(high) });

// ---- what was checked by running the model

// What is changed matters where it does more than random directions: the intervals lie apart.
const standsOut = (check) => check.confirmed === true;
const causalState = (causal) => {
  if (causal === null || causal.behaviour === null || causal.checks.length === 0) return t("causal.not_made");
  const count = causal.checks.filter(standsOut).length;
  return t(count === causal.checks.length ? "causal.all" : count ? "causal.some" : "causal.failed", { count, all: causal.checks.length });
};
const causalPart = (causal, title) => {
  const heading = element("h4", {}, t("causal.heading"));
  if (causal === null || causal.behaviour === null || causal.checks.length === 0)
    return [heading, element("p", {}, t("causal.why_not"))];
  const [high, low] = [causal.behaviour.high, causal.behaviour.low].map((tokens) => tokens.map((one) => `“${word(one)}”`).join(", "));
  const logits = (value) => number(value);
  const heads = fields("CausalCheck", "kind", "num_directions", "before", "after", "share", "random_share", "loss_before");
  const rows = causal.checks.map((check) => [
    t(`causal.kind.${check.kind}`),
    number(check.num_directions),
    interval(check.before, logits),
    interval(check.after, logits),
    check.before.low > 0 ? interval(check.share) : "—",
    check.before.low > 0 ? interval(check.random_share) : "—",
    check.loss_before === null ? "—" : `${number(check.loss_before)} → ${number(check.loss_after)}`,
  ]);
  const words = causal.checks.map((check) =>
    element("li", {}, t(`causal.told.${check.before.low > 0 ? check.kind : "none"}`, { share: percent(check.share.value), random: percent(check.random_share.value), draws: number(check.num_random) }), " ", t(standsOut(check) ? "causal.apart" : "causal.not_apart")),
  );
  return [heading, element("p", {}, t("causal.behaviour", { high, low })), element("ul", { class: "plain-list" }, words), table(`${title}: ${t("causal.table")}`, heads, rows)];
};

// ---- what is found: each of these has texts, in lower case, and a number as a whole

const matches = (texts, sought) =>
  sought.toLowerCase().split(/\s+/).filter(Boolean).every((term) =>
    texts.some((text) => (/^\d+$/.test(term) ? text.split(" ").includes(term) : text.includes(term))),
  );
const tokensOf = (reading) => [
  ...reading.tokens.high.map((one) => one.text),
  ...reading.tokens.low.map((one) => one.text),
  ...reading.contexts.map((one) => one.tokens[one.peak]),
];

// ---- the address: what is looked at can be sent to others

const readLooked = () => {
  const view = state.get("view").split(",").map(Number);
  const least = Number(state.get("least", LEAST));
  return {
    there: state.get("by") === "context",
    least: least >= 0 && least <= 1 ? least : LEAST,
    view: view.length === 3 && view.every(Number.isFinite) && view[2] >= 0.2 && view[2] <= 4 ? view : null,
  };
};
const keep = (looked) =>
  state.set({
    by: looked.there ? "context" : null,
    least: looked.least === LEAST ? null : String(looked.least),
    view: looked.view ? looked.view.map((value) => Math.round(value * 100) / 100).join(",") : null,
  });

export const circuits = (root) =>
  drawing(root, async () => {
    const page = await get(`/reports/${root.dataset.key}/circuits`);
    if (page.trace.circuits.length === 0) root.append(element("p", {}, t("circuit.none")));
    else drawCircuits(root, page);
  });

function drawCircuits(root, { trace, model, report }) {
  const inputs = new Map(trace.input_latents.map((one) => [one.latent, one]));
  const drawn = new Map(trace.circuits.map((one, place) => [one.latent, { circuit: one, number: place + 1 }]));
  const subject = (latent, output) => {
    const sae = trace.saes[output ? 1 : 0];
    return `latent:${sae.hook}:${sae.weights_sha256.slice(0, 8)}:${latent}`;
  };
  const remarks = model ? remarksOf(model) : null;
  const label = (latent, output) => (remarks ? labelOf(remarks.of(subject(latent, output)))?.text ?? "" : "");
  const named = (reading, output) => label(reading.latent, output) || latentName(reading);
  const names = { input: (one) => named(one, false), output: (one) => named(one, true) };
  const naming = (latent, output) => (model ? nameable(model, subject(latent, output), t(output ? "circuit.output" : "circuit.input", { latent })) : null);

  // ---- the list
  const textsOf = (row) => {
    const found = drawn.get(row.latent)?.circuit;
    const parts = found ? found.features.map((latent) => inputs.get(latent)) : [];
    return [
      `${row.latent} ${label(row.latent, true)}`,
      row.peak ?? "",
      ...(found ? tokensOf(found.output) : []),
      ...parts.flatMap((one) => [`${one.latent} ${label(one.latent, false)}`, ...tokensOf(one)]),
    ].map((text) => text.toLowerCase());
  };
  const COLUMNS = ["rank", "latent", "label", "peak", "causal", "score", "density"];
  const rowOf = (row, rank) => {
    const found = drawn.get(row.latent)?.circuit;
    return [rank + 1, row.latent, label(row.latent, true), row.peak === null ? "—" : word(row.peak), found ? causalState(found.causal) : t("circuit.not_drawn"), row.score, row.density];
  };
  const search = element("input", { type: "search", value: state.get("search"), maxlength: 200, autocomplete: "off" });
  const shown = element("output", { for: (search.id = "circuit-search") });
  const [latent, peak, score, density] = fields("RankedLatent", "latent", "peak", "score", "density");
  const listed = table(t("circuit.list"), [t("circuit.rank"), latent, t("circuit.label"), peak, t("circuit.causal"), score, density], []);
  listed.classList.add("circuit-list");
  const body = listed.querySelector("tbody");
  const sort = sortable(listed.querySelector("table"));
  const list = () => {
    const found = trace.ranking.map((row, rank) => [row, rank]).filter(([row]) => matches(textsOf(row), search.value));
    found.sort(([a], [b]) => drawn.has(b.latent) - drawn.has(a.latent));
    body.replaceChildren(
      ...found.slice(0, MOST_ROWS).map(([row, rank]) => {
        const [, latent, called, peak, causal, score, density] = rowOf(row, rank);
        const open = drawn.has(latent)
          ? button(String(latent), () => choose(latent), { class: "plain", "aria-label": t("circuit.open", { latent }), "aria-pressed": String(latent === chosen) })
          : String(latent);
        const cells = [[String(rank + 1)], [open, latent], [called], [peak], [causal], [number(score), score], [percent(density, 2), density]];
        return element("tr", {}, cells.map(([cell, value]) => element("td", { "data-value": value }, cell)));
      }),
    );
    sort();
    shown.textContent = t("circuit.shown", { count: Math.min(found.length, MOST_ROWS), all: trace.ranking.length });
    state.set({ search: search.value });
  };
  search.addEventListener("input", list);
  const part = element("section", { class: "circuit", "aria-live": "off" });
  let chosen = Number(state.get("circuit", trace.circuits[0].latent));
  if (!drawn.has(chosen)) chosen = trace.circuits[0].latent;
  let refresh = () => {};
  let waiting;
  const choose = (latent) => {
    if (latent !== chosen) state.set({ circuit: String(latent), view: null });
    chosen = latent;
    list();
    open();
    part.querySelector("h3").focus();
  };
  root.append(
    element("p", { class: "quiet" }, t("circuit.about", { layer: trace.layer.name, text: trace.data?.name || t("circuit.given_text") })),
    model ? "" : element("p", { class: "callout" }, t("circuit.no_model")),
    element("div", { class: "controls" }, control(t("circuit.search"), search), shown),
    listed,
    takeaway(t("circuit.list"), { rows: () => [COLUMNS, ...trace.ranking.map(rowOf)] }),
    part,
  );

  // ---- one circuit
  const open = () => {
    const { circuit, number: place } = drawn.get(chosen);
    clearTimeout(waiting);
    const looked = readLooked();
    if (circuit.output.contexts.length === 0) looked.there = false;

    const keepSoon = () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => keep(looked), 200);
    };
    const title = t("circuit.graph", { latent: chosen });
    const details = element("section", { class: "details", "aria-label": t("graph.details"), "aria-live": "polite" });
    const view = graphView(title, looked, { onchange: keepSoon, onchoose: (node) => detail(node) });
    const show = () => view.show(graphOf(circuit, inputs, names, looked.there));

    const detail = (node) => {
      const parts = [element("h4", {}, `${t(`graph.column.${node.column}`)}: ${node.name}`)];
      if (node.reading) {
        const output = node.column === 3;
        const { latent, density, largest: most } = node.reading;
        parts.push(naming(latent, output));
        parts.push(facts([[t("field.RankedLatent.density"), percent(density, 2)], [t("circuit.largest"), number(most)], ...(node.activation === undefined ? [] : [[t("circuit.there"), number(node.activation)]])]));
        if (!output) parts.push(tokenEnds(node.reading.tokens, t("circuit.like"), t("circuit.unlike")), element("h4", {}, t("circuit.contexts")), passages(node.reading, trace.tokens_carry_spaces));
      }
      const lines = linesOf(view, node.id);
      if (lines.length) parts.push(table(t("graph.lines"), ["from", "to", "value"].map((key) => t(`graph.${key}`)), lines.map(([from, to, value]) => [from, to, number(value)])));
      details.replaceChildren(...parts.filter(Boolean));
    };

    const range = element("input", { type: "range", min: 0, max: 100, step: 5, value: Math.round(100 * looked.least) });
    const least = element("output", {});
    range.addEventListener("input", () => {
      looked.least = Number(range.value) / 100;
      show();
      keepSoon();
    });
    const by = choice([["weights", t("graph.by.weights")], ...(circuit.output.contexts.length ? [["context", t("graph.by.context")]] : [])], looked.there ? "context" : "weights", (value) => {
      looked.there = value === "context";
      show();
      keepSoon();
    });
    const told = element("p", { class: "quiet", role: "status" });
    view.ondraw = () => {
      const [products, tokens] = view.counts();
      least.textContent = percent(looked.least, 0);
      told.textContent = t("graph.told", { products, tokens });
    };
    const download = button(t("graph.tracer"), async () => {
      const found = await get(`/reports/${report}/circuits/${place}`);
      save(`${found.metadata.slug}.json`, JSON.stringify(found), "application/json");
    });
    const lines = () => [["from", "to", "value"], ...view.lines.map((line) => [view.nodes.get(line.from).name, view.nodes.get(line.to).name, line.value])];
    const vectors = circuit.spectrum.eigenvectors.map((one) => [
      number(one.eigenvalue),
      one.nearest.map(({ latent, cosine }) => `${inputs.has(latent) ? names.input(inputs.get(latent)) : latent} (${number(cosine, 2)})`).join(", "),
      tokenList(one.tokens.high),
      tokenList(one.tokens.low),
    ]);
    const sum = circuit.constant + [...graphOf(circuit, inputs, names, true).nodes.values()].reduce((total, node) => total + (node.column === 2 ? node.value : 0), 0);
    part.replaceChildren(
      element("h3", { tabindex: -1 }, t("circuit.heading", { latent: chosen, name: latentName(circuit.output) }), " "),
      naming(chosen, true) ?? "",
      facts([
        [t("circuit.position"), number(circuit.position)],
        [t("circuit.features"), number(circuit.features.length)],
        [t("circuit.share_of_variance"), circuit.share_of_variance === null ? "—" : percent(circuit.share_of_variance)],
        [t("circuit.share_of_norm"), percent(circuit.share_of_norm)],
        [t("circuit.correlation"), number(circuit.correlation)],
        [t("circuit.num_active"), number(circuit.num_active)],
      ]),
      element(
        "div",
        { class: "controls", role: "group", "aria-label": t("graph.tools") },
        control(t("graph.by"), by),
        control(t("graph.least"), range),
        least,
        button("+", () => view.zoom(1.25), { "aria-label": t("graph.nearer") }),
        button("−", () => view.zoom(0.8), { "aria-label": t("graph.farther") }),
        button(t("graph.fit"), () => view.fit()),
      ),
      element("p", { class: "quiet" }, t("graph.help")),
      view.element,
      told,
      circuit.output.contexts.length ? element("p", { class: "quiet" }, t("graph.sum", { sum: number(sum), constant: number(circuit.constant), latent: number(circuit.output.contexts[0].activations[circuit.output.contexts[0].peak]) })) : "",
      takeaway(title, { rows: lines, drawn: view.element }),
      element("p", { class: "takeaway" }, download),
      details,
      ...causalPart(circuit.causal, t("circuit.heading", { latent: chosen, name: latentName(circuit.output) })),
      element("h4", {}, t("circuit.contexts")),
      passages(circuit.output, trace.tokens_carry_spaces),
      tokenEnds(circuit.output.tokens, t("circuit.promotes"), t("circuit.suppresses")),
      table(t("circuit.vectors"), [...fields("ReadEigenvector", "eigenvalue", "nearest"), ...ENDS], vectors),
    );
    refresh = show;
    show();
    detail(view.nodes.get("out"));
  };
  list();
  open();
  remarks?.show(listed, () => {
    list();
    refresh();
  });
}
