// The playground of images: what is drawn goes through the model at once.
import { drawingBoard } from "./board.js";
import { bars, image, largest, paint } from "./charts.js";
import { choice, control, element, exported, get, number, post, t, whyNot } from "./lib.js";
import { nameable } from "./people.js";
import { answerText, calmly, host, keepPlayed, readOutput, sayIfChanged, scoreBars, section, taken } from "./played.js";
import { attributed, direction, dot, largestAt, lowerRadius, nearCrossing, quadraticMap, turned, unpacked } from "./quadratic.js";
import { subjectOf } from "./vectors.js";

const total = (values) => values.reduce((sum, value) => sum + value, 0);
const withPairs = (spectrum) => {
  const numbers = unpacked(spectrum.vectors);
  const width = numbers.length / spectrum.values.length;
  const pairs = spectrum.values.map((value, at) => [value, numbers.subarray(at * width, (at + 1) * width)]);
  return { ...spectrum, pairs };
};
const canvas = (name) => element("canvas", { class: "pixels", role: "img", "aria-label": name });
const figure = (drawn, ...children) => element("figure", {}, drawn, element("figcaption", {}, children));

export const imagePlayground = (root, given, drawn, again) => {
  const { output_names: names, shape, tests } = given;
  const map = quadraticMap(given.map);
  const base = map.seen(Float64Array.from(given.baseline));
  const spectra = given.spectra.map(withPairs);
  const forms = spectra.map((_, o) => map.form(direction(map.outputs, o)));
  const contrasts = new Map(); // "first-second" → spectrum
  const off = new Map(); // form → eigenvectors that are switched off
  let keep = "";
  let now = {}; // what is drawn, and what is read of it

  const [answer, whole, rest, cards, plot, near] = ["answer", "shown", "shown", "cards", "shown", "near"].map((name) => host(name));
  const heard = element("p", { class: "unseen", "aria-live": "polite" });
  near.setAttribute("aria-live", "polite");
  const pixels = canvas(t("play.attributions"));
  const left = canvas(t("play.remaining"));
  const [sum, leftSum] = [1, 2].map(() => element("p", { class: "quiet" }));
  const remains = figure(left, t("play.remaining"), leftSum);

  const update = () => {
    const at = map.seen(board.pixels);
    const logits = map.logits(at);
    const form = output.form(logits);
    const key = form.second === null ? `${form.first}` : `${form.first}-${form.second}`;
    const other = key !== now.key;
    now = { at, logits, form, key, spectrum: form.second === null ? spectra[form.first] : contrasts.get(key) };
    pick.value = ""; // what is drawn on is that image no more, and may be taken again
    answer.textContent = answerText(names, logits);
    whole.replaceChildren(scoreBars(t("play.logits"), names, logits));
    if (other) layCards();
    if (other && !now.spectrum) fetchContrast();
    drawReasons();
    keepPlayed(root.dataset.key, [...board.pixels]);
    say();
    measure();
  };
  const say = calmly(400, () => {
    heard.textContent = answer.textContent;
  });
  const measure = calmly(300, () => nearest());

  // ---- eigenvectors, and what remains without some of them

  const adds = ([value, vector]) => value * dot(vector, now.at.x) ** 2;
  const gone = (key, { pairs }) => pairs.filter((_, at) => off.get(key)?.has(at));
  const kept = ({ pairs }) => pairs.slice(0, Number(keep));
  // What a form loses by what is switched off, or by keeping the k largest alone.
  const lost = (key, spectrum, form) =>
    keep === "" ? total(gone(key, spectrum).map(adds)) : form.square(now.at) - total(kept(spectrum).map(adds));
  const without = () => {
    const { form, key, spectrum, logits } = now;
    if (form.second === null) return logits.map((value, o) => value - lost(`${o}`, spectra[o], forms[o]));
    return logits.map((value, o) => (o === form.first && spectrum ? value - lost(key, spectrum, form) : value));
  };
  const remaining = () => {
    const { form, key, spectrum, at } = now;
    if (keep === "") return attributed(form, at, base, gone(key, spectrum));
    const nothing = { matvec: () => new Float64Array(map.width), linear: form.linear };
    return attributed(nothing, at, base, kept(spectrum).map(([value, vector]) => [-value, vector]));
  };
  const drawReasons = () => {
    const { form, spectrum, logits, at } = now;
    const reduced = without();
    const changed = reduced.some((value, o) => value !== logits[o]);
    rest.replaceChildren(...(changed ? [element("h4", {}, t("play.without")), scoreBars(t("play.without"), names, reduced)] : []));
    now.attributions = attributed(form, at, base);
    paint(pixels, now.attributions, shape);
    const [value, start] = [at, base].map((one) => number(form.value(one)));
    sum.textContent = t("play.sum", { target: form.target, sum: number(total(now.attributions)), value, base: start });
    now.contributions = spectrum ? spectrum.pairs.map(adds) : [];
    now.contributions.forEach((added, rank) => {
      now.spectrum.told[rank].textContent = t("play.adds", { value: number(added) });
    });
    const name = t("play.contributions", { target: form.target });
    const told = (rank) => `${rank + 1}: ${number(now.contributions[rank])}`;
    plot.replaceChildren(...(spectrum ? [element("figcaption", {}, name), bars(name, now.contributions, { height: 180, told, xName: t("spectrum.order"), width: 480 })] : []));
    remains.hidden = !changed || !spectrum;
    if (remains.hidden) return;
    const parts = remaining();
    paint(left, parts, shape, { scale: largest(now.attributions) });
    leftSum.textContent = t("play.left_sum", { sum: number(total(parts)) });
  };
  const layCards = () => {
    const { spectrum, key, form } = now;
    if (!spectrum) return cards.replaceChildren(element("p", { class: "quiet" }, t("play.waiting")));
    if (!off.has(key)) off.set(key, new Set());
    spectrum.told = spectrum.pairs.map(() => element("output", {}));
    const laid = spectrum.pairs.map(([value, vector], at) => {
      const name = t("play.eigenvector", { rank: at + 1, value: number(value) });
      const onchange = (event) => {
        off.get(key)[event.target.checked ? "delete" : "add"](at);
        update();
      };
      const box = element("input", { type: "checkbox", checked: !off.get(key).has(at), onchange });
      const label = form.second === null ? nameable(root.dataset.key, subjectOf({ gives: "logits" }, form.first, spectrum.values, at + 1), name, given.weights_sha256) : null;
      return figure(image(name, vector, shape), element("label", {}, box, " ", name), spectrum.told[at], label);
    });
    return cards.replaceChildren(...laid);
  };
  const fetchContrast = async () => {
    const { key, form } = now;
    try {
      const [first, second] = [form.first, form.second].sort((a, b) => a - b);
      const { pairs } = await get(`/models/${root.dataset.key}/playground/pair?first=${first}&second=${second}`);
      contrasts.set(key, withPairs(first === form.first ? pairs : turned(pairs)));
      if (now.key !== key) return;
      now.key = ""; // its cards are to be laid
      update();
    } catch (error) {
      if (now.key === key) cards.replaceChildren(element("p", { class: "quiet" }, whyNot(error)));
    }
  };

  // ---- how far the answer holds

  let turn = 0;
  const nearest = async () => {
    if (map.outputs === 1) return;
    const mine = (turn += 1);
    const x = Float64Array.from(board.pixels);
    const { at, logits } = now;
    if (exported) return bounds(x, at, largestAt(logits));
    try {
      const found = await post(`/models/${root.dataset.key}/radius`, { inputs: [...x] });
      if (mine !== turn) return;
      if (await sayIfChanged(root.dataset.key, given, near, () => again(board.pixels), found.weights_sha256)) return;
      const apart = number(largest(found.logits.map((value, o) => value - logits[o])), 2, "ceil");
      near.replaceChildren(element("p", {}, radiusText(found)), ...pictures(x, found.example), element("p", { class: "quiet" }, t("play.apart", { apart })));
    } catch (error) {
      if (mine === turn) near.replaceChildren(element("p", { class: "callout wrong" }, whyNot(error), " ", t("play.kept")));
    }
  };
  const bounds = (x, at, label) => {
    const found = nearCrossing(map, x, label);
    const lower = number(lowerRadius(map, given.spectra, at, label), 4, "floor");
    const told = found
      ? t("play.bounds", { lower, upper: number(found.distance, 4, "ceil"), rival: names[found.rival] })
      : t("play.lower", { lower });
    near.replaceChildren(element("p", {}, told), ...pictures(x, found?.example ?? []));
  };
  const radiusText = ({ status, radius, distance, rival, inside }) => {
    const told = t(`play.radius.${status}`, {
      radius: number(radius, 4, "floor"), // said where no example is
      distance: number(distance, 4, "ceil"),
      gap: number(distance - radius, 2, "ceil"),
      rival: names[rival],
    });
    return status === "certified" ? `${told} ${t(`play.clipped.${inside > 0 ? "holds" : "lost"}`)}` : told;
  };
  const pictures = (x, example) => {
    if (example.length === 0) return [];
    const point = Float64Array.from(example);
    const logits = map.logits(map.seen(point));
    const first = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, 2);
    const told = first.map((o) => `${names[o]}: ${number(logits[o])}`).join(", ");
    return [
      host(
        "maps",
        figure(image(t("play.nearest"), point, shape, { scale: 1, grey: true }), t("play.nearest")),
        figure(image(t("play.difference"), point.map((value, i) => value - x[i]), shape), t("play.difference")),
      ),
      element("p", { class: "quiet" }, t("play.computed", { logits: told })),
    ];
  };

  // ---- the page

  const board = drawingBoard(shape, update);
  const output = readOutput(map, names, update);
  const offered = tests.map((test, at) => [
    at,
    t(`play.test.${test.origin}`, { index: test.index, label: test.label === null ? "—" : names[test.label] }),
  ]);
  const take = (index) => {
    board.set(tests[index].pixels);
    pick.value = index;
  };
  const pick = choice([["", t("play.own")], ...offered], "", take);
  pick.options[0].hidden = true;
  const most = Math.min(...spectra.map((spectrum) => spectrum.leading));
  const counts = Array.from({ length: most + 1 }, (_, k) => [k, `${k}`]);
  const keeping = choice([["", t("play.all")], ...counts], "", (value) => {
    keep = value;
    update();
  });
  root.append(
    heard,
    host(
      "play",
      section(
        t("play.input"),
        host("controls", tests.length ? control(t("play.take"), pick) : []),
        board.box,
        taken("input", ["pixel", "value"], () => [...board.pixels.entries()], board.canvas),
      ),
      section(
        t("play.logits"),
        answer,
        whole,
        rest,
        taken("logits", ["output", "logit"], () => names.map((name, o) => [name, now.logits[o]])),
      ),
      map.outputs === 1 ? [] : section(t("play.radius.heading"), near),
    ),
    section(
      t("play.reasons"),
      host("controls", output.controls, control(t("play.keep"), keeping)),
      host(
        "play",
        host(
          "reasons",
          host("maps", figure(pixels, t("play.attributions")), remains),
          sum,
          taken("attributions", ["pixel", "attribution"], () => [...now.attributions.entries()], pixels),
        ),
        host(
          "reasons",
          plot,
          taken(
            "contributions",
            ["eigenvalue", "contribution"],
            () => now.contributions.map((value, at) => [now.spectrum.values[at], value]),
            () => plot.querySelector("svg"),
          ),
        ),
      ),
      cards,
    ),
  );
  if (drawn?.length === board.pixels.length) board.set(drawn);
  else if (tests.length) take(0);
  else update();
};
