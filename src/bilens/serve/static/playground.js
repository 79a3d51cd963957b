// The playground: a model that is one quadratic map, computed in the page. Images are drawn here.
import { drawingBoard } from "./board.js";
import { bars, image, largest, namedBars, paint } from "./charts.js";
import { choice, control, drawing, element, exported, get, number, percent, post, state, t, takeaway } from "./lib.js";
import { nameable } from "./people.js";
import {
  attributed,
  direction,
  dot,
  largestAt,
  lowerRadius,
  nearCrossing,
  quadraticMap,
  softmax,
  unpacked,
} from "./quadratic.js";
import { tablePlayground } from "./table_play.js";

export const playground = (root) =>
  drawing(root, async () => {
    const given = await get(`/models/${root.dataset.key}/playground`);
    if (given.kind === "no_playground") root.append(element("p", { class: "callout" }, t(`play.why.${given.why}`, given)));
    else if (given.shape) imagePlayground(root, given);
    else tablePlayground(root, given);
  });

// Calls at most once in a while, the last time last.
export const calmly = (wait, act) => {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, wait);
  };
};
const vectorsOf = ({ values, vectors }) => {
  const numbers = unpacked(vectors);
  const width = numbers.length / values.length;
  return values.map((value, at) => [value, numbers.subarray(at * width, (at + 1) * width)]);
};

const imagePlayground = (root, given, drawn) => {
  const { output_names: names, shape, tests } = given;
  const map = quadraticMap(given.map);
  const base = map.seen(Float64Array.from(given.baseline));
  const spectra = given.spectra.map((one) => ({ ...one, pairs: vectorsOf(one) }));
  const off = new Map(); // form → eigenvectors that are switched off
  const one = map.outputs === 1;
  const chosen = { first: state.get("class"), second: state.get("over"), keep: "" };
  const of = { at: null, logits: null, pairs: null, form: null, key: "" }; // what is drawn now

  const host = (name, ...children) => element("div", { class: name }, children.flat());
  const answer = element("p", { class: "answer" });
  const heard = element("p", { class: "unseen", "aria-live": "polite" });
  const whole = host("shown");
  const rest = host("shown");
  const cards = host("cards");
  const plot = host("shown");
  const pixels = element("canvas", { class: "pixels", role: "img", "aria-label": t("play.attributions") });
  const left = element("canvas", { class: "pixels", role: "img", "aria-label": t("play.remaining") });
  const sum = element("p", { class: "quiet" });
  const leftSum = element("p", { class: "quiet" });
  const near = host("near");
  near.setAttribute("aria-live", "polite");

  const say = calmly(400, () => {
    heard.textContent = answer.textContent;
  });
  const measure = calmly(exported ? 400 : 250, () => nearest());
  const board = drawingBoard(shape, () => update());
  const shares = (logits) => {
    const parts = softmax(logits);
    return names.map((name, o) => ({ name: one ? name : `${name} · ${percent(parts[o])}`, value: logits[o] }));
  };

  // The eigenvectors of a form that do not count now: those switched off, or all but the k largest.
  const removed = (key, spectrum) =>
    chosen.keep === "" ? spectrum.pairs.filter((_, at) => off.get(key)?.has(at)) : null;
  const adds = ([value, vector], x) => value * dot(vector, x) ** 2;
  const removedSum = (key, spectrum, form) => {
    const gone = removed(key, spectrum);
    if (gone) return gone.reduce((total, pair) => total + adds(pair, of.at.x), 0);
    const kept = spectrum.pairs.slice(0, Number(chosen.keep));
    return form.square(of.at) - kept.reduce((total, pair) => total + adds(pair, of.at.x), 0);
  };

  const choose = () => {
    const predicted = largestAt(of.logits);
    const first = chosen.first === "" ? predicted : Number(chosen.first);
    const second = chosen.second === "" || Number(chosen.second) === first ? null : Number(chosen.second);
    const key = second === null ? `${first}` : `${first}-${second}`;
    if (of.key === key) return;
    Object.assign(of, { first, second, key, form: map.form(direction(map.outputs, first, second)) });
    of.spectrum = second === null ? spectra[first] : null;
    layCards();
    if (second !== null) fetchPair(key, first, second);
  };
  const pairs = new Map();
  const fetchPair = async (key, first, second) => {
    try {
      if (!pairs.has(key)) {
        const found = await get(`/models/${root.dataset.key}/playground/pair?first=${first}&second=${second}`);
        pairs.set(key, { ...found.pairs, pairs: vectorsOf(found.pairs) });
      }
      if (of.key !== key) return;
      of.spectrum = pairs.get(key);
      layCards();
      update();
    } catch (error) {
      if (of.key === key) cards.replaceChildren(element("p", { class: "quiet" }, error.message));
    }
  };
  // Eigenvectors are counted by falling size, those of each sign for themselves.
  const subjectOf = (at) => {
    const [positive, before] = [of.spectrum.values[at] > 0, of.spectrum.values.slice(0, at)];
    const rank = before.filter((value) => value > 0 === positive).length;
    return `class:${of.first}:${positive ? "positive" : "negative"}:${rank}`;
  };
  const layCards = () => {
    if (!of.spectrum) return cards.replaceChildren(element("p", { class: "quiet" }, t("play.waiting")));
    const gone = off.get(of.key) ?? off.set(of.key, new Set()).get(of.key);
    of.told = of.spectrum.pairs.map(() => element("output", {}));
    cards.replaceChildren(
      ...of.spectrum.pairs.map(([value, vector], at) => {
        const name = t("play.eigenvector", { rank: at + 1, value: number(value) });
        const box = element("input", {
          type: "checkbox",
          checked: !gone.has(at),
          onchange: (event) => {
            if (event.target.checked) gone.delete(at);
            else gone.add(at);
            update();
          },
        });
        const label = of.second === null ? nameable(root.dataset.key, subjectOf(at), name) : null;
        return element(
          "figure",
          {},
          image(name, vector, shape),
          element("figcaption", {}, element("label", {}, box, " ", name), of.told[at], label),
        );
      }),
    );
    return null;
  };

  const update = () => {
    of.at = map.seen(board.pixels);
    of.logits = map.logits(of.at);
    const shown = largestAt(of.logits);
    answer.textContent = one
      ? t("play.value", { value: number(of.logits[0], 4) })
      : t("play.answer", { name: names[shown], share: percent(softmax(of.logits)[shown]) });
    whole.replaceChildren(namedBars(t("play.logits"), shares(of.logits)));
    choose();
    say();
    drawRest();
    measure();
  };
  const drawRest = () => {
    const gone = spectra.map((spectrum, o) =>
      of.second !== null && of.second !== undefined
        ? 0
        : removedSum(`${o}`, spectrum, map.form(direction(map.outputs, o))),
    );
    const counts = of.spectrum && of.second !== null;
    if (counts) gone[of.first] = removedSum(of.key, of.spectrum, of.form);
    const without = of.logits.map((value, o) => value - gone[o]);
    const changed = chosen.keep !== "" || gone.some((value) => value !== 0);
    rest.replaceChildren(...(changed ? [element("h4", {}, t("play.without")), namedBars(t("play.without"), shares(without))] : []));
    const values = attributed(of.form, of.at, base);
    const scale = largest(values);
    paint(pixels, values, shape);
    const target = of.second === null ? (one ? names[0] : t("play.class", { name: names[of.first] })) : t("play.contrast", { first: names[of.first], second: names[of.second] });
    of.attributions = values;
    sum.textContent = t("play.sum", {
      target,
      sum: number(values.reduce((a, b) => a + b, 0), 5),
      value: number(of.form.value(of.at), 5),
      base: number(of.form.value(base), 5),
    });
    left.parentElement.hidden = !changed || !of.spectrum;
    if (!of.spectrum) return plot.replaceChildren();
    const each = of.spectrum.pairs.map((pair) => adds(pair, of.at.x));
    of.contributions = each;
    of.told.forEach((output, at) => {
      output.textContent = t("play.adds", { value: number(each[at]) });
    });
    const name = t("play.contributions", { target });
    plot.replaceChildren(bars(name, each, { height: 160, told: (at) => `${at + 1}: ${number(each[at], 4)}` }));
    if (changed) {
      const reduced = remaining();
      paint(left, reduced, shape, { scale });
      leftSum.textContent = t("play.left_sum", { sum: number(reduced.reduce((a, b) => a + b, 0), 5) });
    }
    return null;
  };
  // Attributions of the form without what is switched off; with k kept, of these alone.
  const remaining = () => {
    const gone = removed(of.key, of.spectrum);
    if (gone) return attributed(of.form, of.at, base, gone);
    const nothing = { matvec: () => new Float64Array(map.width), linear: of.form.linear };
    const kept = of.spectrum.pairs.slice(0, Number(chosen.keep));
    return attributed(nothing, of.at, base, kept.map(([value, vector]) => [-value, vector]));
  };

  // ---- how far the answer holds

  let asked = 0;
  const nearest = async () => {
    if (one) return;
    const turn = (asked += 1);
    const x = Float64Array.from(board.pixels);
    const at = map.seen(x);
    const logits = map.logits(at);
    const label = largestAt(logits);
    if (exported) {
      const found = nearCrossing(map, x, label);
      const lower = number(lowerRadius(map, given.spectra, at, label), 4);
      const told = found
        ? t("play.bounds", { lower, upper: number(found.distance, 4), rival: names[found.rival] })
        : t("play.lower", { lower });
      near.replaceChildren(element("p", {}, told), ...(found ? pictures(x, found.example) : []));
      return;
    }
    try {
      const found = await post(`/models/${root.dataset.key}/radius`, { inputs: [...x] });
      if (turn !== asked) return;
      if (found.weights_sha256 !== given.weights_sha256) return stale();
      const apart = largest(found.logits.map((value, o) => value - logits[o]));
      near.replaceChildren(
        element("p", {}, radiusText(found)),
        ...(found.example.length ? pictures(x, found.example) : []),
        element("p", { class: "quiet" }, t("play.apart", { apart: number(apart, 2) })),
      );
    } catch (error) {
      if (turn === asked) near.replaceChildren(element("p", { class: "callout wrong" }, error.message, " ", t("play.kept")));
    }
  };
  const radiusText = (found) => {
    if (found.status !== "certified") return t(`play.radius.${found.status}`, { radius: number(found.radius, 4) });
    const told = t("play.radius.certified", {
      radius: number(found.radius, 4),
      distance: number(found.distance, 4),
      rival: names[found.rival],
      gap: percent((found.distance - found.radius) / found.distance, 6),
    });
    return `${told} ${t(`play.clipped.${found.inside > 0 ? "holds" : "lost"}`)}`;
  };
  const pictures = (x, example) => {
    const point = Float64Array.from(example);
    const logits = map.logits(map.seen(point));
    const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, 2);
    const told = order.map((o) => `${names[o]} ${number(logits[o], 5)}`).join(", ");
    return [
      host(
        "pictures",
        image(t("play.nearest"), point, shape, { scale: 1, grey: true }),
        image(t("play.difference"), point.map((value, i) => value - x[i]), shape),
      ),
      element("p", { class: "quiet" }, t("play.computed", { logits: told })),
    ];
  };
  const stale = () => {
    const renew = element("button", { type: "button", class: "plain", onclick: () => again() }, t("play.renew"));
    near.replaceChildren(element("p", { class: "callout", role: "alert" }, t("play.changed"), " ", renew));
  };
  const again = () =>
    drawing(near, async () => {
      const found = await get(`/models/${root.dataset.key}/playground`);
      const fits = found.shape && found.shape.join() === shape.join();
      root.replaceChildren(root.querySelector("h2"));
      if (found.kind === "no_playground") root.append(element("p", { class: "callout" }, t(`play.why.${found.why}`, found)));
      else imagePlayground(root, found, fits ? board.pixels : undefined);
    });

  // ---- what is chosen

  const classes = [...names.entries()];
  const set = (name, value) => {
    chosen[name] = value;
    state.set({ class: chosen.first, over: chosen.second });
    update();
  };
  const known = (value) => (value !== "" && Number(value) in names ? String(Number(value)) : "");
  chosen.first = known(chosen.first);
  chosen.second = known(chosen.second);
  const keep = Math.min(...spectra.map((spectrum) => spectrum.leading));
  const controls = [
    !one && control(t("play.first"), choice([["", t("play.predicted")], ...classes], chosen.first, (value) => set("first", value))),
    !one && control(t("play.second"), choice([["", t("play.mean")], ...classes], chosen.second, (value) => set("second", value))),
    control(
      t("play.keep"),
      choice([["", t("play.all")], ...Array.from({ length: keep + 1 }, (_, k) => [k, `${k}`])], "", (value) => set("keep", value)),
    ),
  ].filter(Boolean);
  const trial = (index) => {
    if (index !== "") board.set(tests[Number(index)].pixels);
  };
  const offered = tests.map((test, at) => [
    at,
    t(`play.test.${test.origin}`, { index: test.index, label: test.label === null ? "—" : names[test.label] }),
  ]);
  const taken = control(t("play.take"), choice([["", "—"], ...offered], drawn ? "" : 0, trial));

  const section = (name, ...children) => element("section", { "aria-label": name }, element("h3", {}, name), children);
  const rows = (heads, found) => () => [heads, ...found()];
  root.append(
    heard,
    host(
      "play",
      section(
        t("play.input"),
        tests.length ? host("controls", taken) : null,
        board.box,
        takeaway("input", { rows: rows(["pixel", "value"], () => [...board.pixels.entries()]), drawn: board.canvas }),
      ),
      section(
        t("play.logits"),
        answer,
        whole,
        rest,
        takeaway("logits", { rows: rows(["output", "logit"], () => names.map((name, o) => [name, of.logits[o]])) }),
      ),
      !one && section(t("play.radius.heading"), near),
    ),
    section(
      t("play.reasons"),
      host("controls", controls),
      host(
        "play",
        element(
          "div",
          {},
          host(
            "maps",
            element("figure", {}, pixels, element("figcaption", {}, t("play.attributions"))),
            element("figure", { hidden: true }, left, element("figcaption", {}, t("play.remaining"), leftSum)),
          ),
          sum,
          takeaway("attributions", { rows: rows(["pixel", "attribution"], () => [...of.attributions.entries()]), drawn: pixels }),
        ),
        element(
          "div",
          {},
          plot,
          takeaway("contributions", {
            rows: rows(["eigenvalue", "contribution"], () => of.contributions.map((value, at) => [of.spectrum.values[at], value])),
            drawn: () => plot.querySelector("svg"),
          }),
        ),
      ),
      cards,
    ),
  );
  board.set(drawn ?? tests[0]?.pixels ?? board.pixels);
};
