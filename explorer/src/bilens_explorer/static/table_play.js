// The playground of a table: a form, what each column and pair does, and the nearest other answer.
import { ARROWS, over } from "./board.js";
import { curves, largest, namedBars, paint } from "./charts.js";
import { choice, control, element, exported, number, t, table } from "./lib.js";
import { nearestStep, reduced } from "./nearest_change.js";
import { nameable } from "./people.js";
import { answerText, calmly, host, keepPlayed, readOutput, sayIfChanged, scoreBars, section, taken } from "./played.js";
import { attributed, direction, largestAt, quadraticMap, unpacked } from "./quadratic.js";
import { decode, DIGITS, encode, farthest, isWhether, levelsOf, shownValue, UNSEEN, usual, valueInput } from "./table_columns.js";

const POINTS = 61; // of a curve
const OWN = "own"; // a choice of row that says: what is typed
const CELLS = 25; // of a side of a surface
const takenAway = (value) => (value === UNSEEN ? t("play.unseen") : value);
const MOST_TEXTS = 2000; // combinations of texts that are all tried
// A number with few digits that lies no further inside than it does.
const outwards = (value, sign) => {
  const short = Number(value.toPrecision(DIGITS));
  return sign * short >= sign * value ? short : Number((value + sign * Math.abs(value) * 10 ** (1 - DIGITS)).toPrecision(DIGITS));
};

// The model of a table, as a function of the values of a form.
export const tableModel = (given) => {
  const map = quadraticMap(given.map);
  const { columns, input_mean: mean, input_scale: scale } = given;
  const base = map.seen(Float64Array.from(given.baseline));
  const inputsOf = (values) => {
    const z = new Float64Array(map.width);
    columns.forEach((column, at) => encode(column, values[at], mean, scale, z));
    return z;
  };
  const at = (values) => map.seen(inputsOf(values));
  // Exact Shapley values of columns against the mean row; those of a column's inputs are summed.
  const parts = (form, values) => {
    const found = attributed(form, at(values), base);
    return columns.map((column) => column.inputs.reduce((sum, input) => sum + found[input], 0));
  };
  // What a column can be: both ends of its range and between, or its texts.
  const steps = (column, count = POINTS) =>
    column.kind === "category" || isWhether(column)
      ? [...levelsOf(column), ...(isWhether(column) ? [null] : [])]
      : Array.from({ length: count }, (_, i) => column.low + ((column.high - column.low) * i) / (count - 1));
  const changed = (values, column, value) => values.map((one, i) => (i === column ? value : one));
  const effect = (form, values, column) => {
    const output = (value) => form.value(at(changed(values, column, value)));
    if (columns[column].kind !== "number" || isWhether(columns[column])) return steps(columns[column]).map((value) => [value, output(value)]);
    const [low, middle, high] = steps(columns[column], 3).map(output); // they say all of a quadratic
    return steps(columns[column]).map((value, at) => {
      const share = at / (POINTS - 1);
      const bend = low * (1 - 2 * share) * (1 - share) + middle * 4 * share * (1 - share) + high * share * (2 * share - 1);
      return [value, bend];
    });
  };
  const surface = (form, values, first, second) => {
    const [across, up] = [first, second].map((one) => steps(columns[one], CELLS));
    const cells = up.map((b) => across.map((a) => form.value(at(changed(changed(values, first, a), second, b)))));
    return { across, up, cells };
  };

  const placeOf = (column) => column.inputs[column.parts.indexOf("value")];
  // The nearest values that are given another answer: `wanted` is a class, null for any other, or,
  // of a number, what it is to be. `free` is column → [low, high], or null for a text.
  const nearest = (values, free, wanted) => {
    const texts = [...free.keys()].filter((one) => columns[one].kind === "category");
    const numbers = [...free.keys()].filter((one) => columns[one].kind === "number");
    const now = map.logits(at(values));
    const label = largestAt(now);
    const others = [...now.keys()].filter((one) => one !== (wanted ?? label));
    const pair = (first, second) => ({ form: map.form(direction(map.outputs, first, second)), offset: 0 });
    let goals = wanted === null ? others.map((rival) => [pair(label, rival)]) : [others.map((one) => pair(one, wanted))];
    if (map.outputs === 1) {
      const sign = now[0] < wanted ? -1 : 1;
      goals = [[{ form: map.form(Float64Array.of(sign)), offset: -sign * wanted }]];
    }
    let combined = [[values, 0]];
    let exact = true;
    // a number that is not known stays so, or is filled in: with the mean, and moved from there
    for (const column of [...texts, ...numbers.filter((one) => values[one] === null)]) {
      const all = texts.includes(column) ? levelsOf(columns[column]) : [usual(columns[column], mean)];
      const changes = all.filter((one) => one !== values[column]);
      if (combined.length * (changes.length + 1) > MOST_TEXTS) exact = false;
      else combined = combined.flatMap(([found, cost]) => [[found, cost], ...changes.map((level) => [changed(found, column, level), cost + 1])]);
    }
    let best = null;
    for (const [start, cost] of combined) {
      const known = numbers.filter((one) => start[one] !== null);
      const places = known.map((one) => placeOf(columns[one]));
      const z = inputsOf(start);
      const bounds = known.map((one, i) => free.get(one).map((end) => (end - mean[places[i]]) / scale[places[i]] - z[places[i]]));
      const seen = map.seen(z);
      for (const goal of goals) {
        const found = nearestStep(goal.map(({ form, offset }) => reduced(map, form, seen, places, offset)), bounds);
        exact &&= found.exact;
        if (!found.t) continue;
        const distance = Math.sqrt(cost + found.t.reduce((sum, step) => sum + step * step, 0));
        if (best && distance >= best.distance) continue;
        // a little beyond the border, and rounded as little as a form can show
        const moved = known.map((one, i) => {
          const value = start[one] + found.t[i] * (1 + 1e-7) * scale[places[i]];
          return Math.max(free.get(one)[0], Math.min(free.get(one)[1], value));
        });
        best = { distance, values: start.map((value, one) => (known.includes(one) ? moved[known.indexOf(one)] : value)) };
      }
    }
    return { ...best, exact };
  };
  // As `nearest` measures it.
  const distance = (from, to) => {
    const square = (column, i) => (from[i] === null) + ((to[i] - (from[i] ?? usual(column, mean))) / scale[placeOf(column)]) ** 2;
    return Math.sqrt(columns.reduce((sum, column, i) => sum + (to[i] === from[i] ? 0 : column.kind === "category" ? 1 : square(column, i)), 0));
  };
  return { map, base, at, parts, effect, surface, nearest, distance, columns };
};

export const tablePlayground = (root, given, typed, again) => {
  const model = tableModel(given);
  const { map, columns } = model;
  const { output_names: names } = given;
  // what was typed into other columns, or in another order, is not taken over
  const asked = JSON.stringify(columns.map(({ name, kind, unit, first, parts }) => [name, kind, unit, first, parts]));
  const one = map.outputs === 1;
  const rows = given.rows ? unpacked(given.rows) : new Float64Array(0);
  const rowAt = (index) => rows.subarray(index * map.width, (index + 1) * map.width);
  let values = columns.map((column) => usual(column, given.input_mean));
  const pair = [0, Math.min(1, columns.length - 1)];
  const [form, answer, logits, parts, effects, found, changed] = ["fields", "answer", "shown", "shown", "effects", "near", "near"].map((name) =>
    host(name),
  );
  answer.setAttribute("aria-live", "polite");
  found.setAttribute("aria-live", "polite");
  const surface = element("canvas", { class: "pixels surface", role: "application", tabindex: 0 });
  const mark = element("div", { class: "board-cursor", "aria-hidden": "true" });
  const said = element("output", { class: "said" });
  let cell = null; // of the surface that is pointed at, from its top and left
  const axes = element("p", { class: "quiet" });
  let now = {};
  const output = readOutput(map, names, () => update());

  const tooFar = (range) => t("play.too_far", { most: number(farthest(range)) });
  const layForm = () =>
    form.replaceChildren(
      ...columns.map((column, at) => {
        const isTyped = column.kind !== "category" && !isWhether(column);
        const empty = (value) => (isTyped && value === null ? shownValue(column, value) : "");
        const refused = element("p", { class: "quiet", "aria-live": "polite" }, empty(values[at]));
        const input = valueInput(column, values[at], (value) => {
          const far = typeof value === "number" && !(Math.abs(value) <= farthest(column));
          input.setAttribute("aria-invalid", far);
          refused.textContent = far ? `${tooFar(column)} ${t("play.still")}` : empty(value);
          if (far) return;
          values = values.map((old, i) => (i === at ? value : old));
          pick.value = OWN; // the row may be taken again
          update();
        });
        const name = column.unit ? `${column.name} (${column.unit})` : column.name;
        return element("div", {}, control(name, input), refused, nameable(root.dataset.key, `column:${column.name}`, column.name, given.weights_sha256));
      }),
    );

  const update = () => {
    const at = model.at(values);
    const scores = map.logits(at);
    const read = output.form(scores);
    now = { logits: scores, read };
    answer.textContent = one ? `${names[0]}: ${number(scores[0], DIGITS)}` : answerText(names, scores);
    logits.replaceChildren(...(one ? [] : [scoreBars(t("play.logits"), names, scores)]));
    now.parts = model.parts(read, values);
    const order = [...columns.keys()].sort((a, b) => Math.abs(now.parts[b]) - Math.abs(now.parts[a]));
    const whole = now.parts.reduce((sum, value) => sum + value, 0);
    const terms = { target: read.target, sum: number(whole, DIGITS), value: number(read.value(at), DIGITS), base: number(read.value(model.base), DIGITS) };
    parts.replaceChildren(
      namedBars(t("play.columns"), order.map((i) => ({ name: `${columns[i].name} = ${shownValue(columns[i], values[i])}`, value: now.parts[i] }))),
      element("p", { class: "quiet" }, given.means_known ? t("play.rows_sum", terms) : t("play.zeros_sum", terms)),
    );
    now.effects = columns.map((_, column) => model.effect(read, values, column));
    drawEffects();
    drawSurface();
    keepPlayed(root.dataset.key, { asked, values });
    watch();
  };
  const watch = calmly(1000, () => exported || sayIfChanged(root.dataset.key, given, changed, () => again({ asked, values })));
  const drawEffects = () => {
    const all = now.effects.flatMap((points) => points.map(([, value]) => value));
    const y = [Math.min(...all), Math.max(...all)];
    effects.replaceChildren(
      ...columns.map((column, at) => {
        const points = now.effects[at];
        if (column.kind === "category" || isWhether(column)) {
          const bars = points.map(([one, value]) => ({ name: `${one === values[at] ? "▸ " : ""}${shownValue(column, one)}`, value }));
          return element("div", {}, element("h4", {}, column.name), namedBars(column.name, bars, { scale: largest(y) }));
        }
        const marker = values[at] === null ? undefined : Math.max(column.low, Math.min(column.high, values[at]));
        const name = t("play.effect", { column: column.name, target: now.read.target });
        const xName = column.kind === "date" ? t("play.days", { first: column.first }) : column.unit;
        return element("div", {}, element("h4", {}, column.name), curves(name, [{ name: column.name, points }], { y, marker, xName, width: 360, height: 170 }));
      }),
    );
  };
  const drawSurface = () => {
    const [first, second] = pair;
    now.surface = model.surface(now.read, values, first, second);
    const middle = now.read.value(model.at(values));
    const cells = now.surface.cells.toReversed().flat().map((value) => value - middle);
    const name = t("play.surface", { first: columns[first].name, second: columns[second].name, target: now.read.target });
    const end = (column, at) => shownValue(columns[column], (column === first ? now.surface.across : now.surface.up).at(at));
    paint(surface, cells, [now.surface.up.length, now.surface.across.length]).setAttribute("aria-label", name);
    axes.textContent = t("play.axes", {
      first: columns[first].name, second: columns[second].name,
      left: end(first, 0), right: end(first, -1), bottom: end(second, 0), top: end(second, -1),
      most: number(largest(cells)),
    });
    if (cell) point(cell);
  };

  const point = (wanted) => {
    const { across, up, cells } = now.surface;
    const size = [up.length, across.length];
    cell = wanted.map((at, axis) => Math.max(0, Math.min(size[axis] - 1, at)));
    over(mark, cell, size);
    const [i, j] = [up.length - 1 - cell[0], cell[1]];
    const shown = [across[j], up[i]].map((value, side) => `${columns[pair[side]].name} = ${shownValue(columns[pair[side]], value)}`);
    said.textContent = `${shown.join(", ")}: ${number(cells[i][j])}`;
  };
  for (const kind of ["pointermove", "pointerdown"])
    surface.addEventListener(kind, (event) => {
      const { left, top, width, height } = surface.getBoundingClientRect();
      const size = [now.surface.up.length / height, now.surface.across.length / width];
      point([event.clientY - top, event.clientX - left].map((pixels, axis) => Math.floor(pixels * size[axis])));
    });
  surface.addEventListener("keydown", (event) => {
    if (!ARROWS[event.key]) return;
    event.preventDefault();
    point(cell ? cell.map((at, axis) => at + ARROWS[event.key][axis]) : [0, 0]);
  });

  // ---- the nearest other answer

  const changeable = columns.map((column, at) => at).filter((at) => columns[at].kind !== "date" && !isWhether(columns[at]));
  const ask = changeable.map((at) => {
    const column = columns[at];
    const may = element("input", { type: "checkbox", checked: column.kind === "number", "aria-label": t("play.may_change", { column: column.name }) });
    const ends = column.kind === "number"
      ? [["low", outwards(column.low, -1)], ["high", outwards(column.high, 1)]].map(([end, value]) =>
          element("input", { type: "number", step: "any", value, "aria-label": t(`play.bound.${end}`, { column: column.name }) }),
        )
      : [];
    return { at, may, ends, row: [may, column.name, ...(ends.length ? ends : [t("play.any_text"), ""])] };
  });
  const wish = one
    ? element("input", { type: "number", step: "any", required: true })
    : choice([["", t("play.any_other")], ...names.entries()], "", () => {});
  // Of columns that hold whole numbers alone, the next whole number outwards, where it does it, too.
  const rounded = (found, free, wanted) => {
    if (one) return found; // the value is wished as it is
    const whole = found.map((value, at) => {
      if (!columns[at].whole || value === values[at] || value === null) return value;
      const next = value > (values[at] ?? usual(columns[at], given.input_mean)) ? Math.ceil(value) : Math.floor(value);
      return next >= free.get(at)[0] && next <= free.get(at)[1] ? next : value;
    });
    const after = map.logits(model.at(whole));
    const label = largestAt(after);
    const does = label === (wanted ?? label) && label !== largestAt(now.logits);
    return does && whole.some((value, at) => value !== found[at]) ? whole : found;
  };
  // With as few digits as still do it: a number that is cut anywhere may lie on the other side.
  const shortest = (found, free, wanted) => {
    const cut = (digits) => found.map((value, at) => (typeof value === "number" && value !== values[at] ? Number(value.toPrecision(digits)) : value));
    const inside = (value, at) => value === found[at] || (value >= free.get(at)[0] && value <= free.get(at)[1]);
    const does = (row) => {
      const label = largestAt(map.logits(model.at(row)));
      return row.every(inside) && label === (wanted ?? label) && label !== largestAt(now.logits);
    };
    const tried = one ? [] : Array.from({ length: 15 - DIGITS }, (_, more) => cut(DIGITS + more));
    return tried.find(does) ?? found;
  };
  const find = () => {
    const free = new Map(ask.filter(({ may }) => may.checked).map(({ at, ends }) => [at, ends.length ? ends.map((end) => end.valueAsNumber) : null]));
    const told = (text) => found.replaceChildren(element("p", {}, text));
    if ([...free.values()].some((ends) => ends && !(ends[0] <= ends[1]))) return told(t("play.bad_bounds"));
    const beyond = [...free].find(([at, ends]) => ends?.some((end) => Math.abs(end) > farthest(columns[at])));
    if (beyond) return told(tooFar(columns[beyond[0]]));
    if (one && wish.value === "") return told(t("play.no_wish"));
    const answers = { low: now.logits[0], high: now.logits[0] };
    if (one && Math.abs(Number(wish.value)) > farthest(answers)) return told(tooFar(answers));
    if (!one && wish.value !== "" && Number(wish.value) === largestAt(now.logits)) return told(t("play.is_already"));
    const wanted = wish.value === "" ? null : Number(wish.value);
    const nearest = model.nearest(values, free, wanted);
    if (!nearest.values) return told(t(`play.none.${nearest.exact ? "proven" : "searched"}`));
    const whole = rounded(nearest.values, free, wanted);
    const kind = whole !== nearest.values ? "rounded" : nearest.exact ? "exact" : "searched";
    const then = shortest(whole, free, wanted);
    const distance = kind === "exact" ? number(nearest.distance, 4, "floor") : number(model.distance(values, then), 4, "ceil");
    const after = map.logits(model.at(then));
    const different = columns.map((_, at) => at).filter((at) => then[at] !== values[at]);
    const changes = different.map((at) => [columns[at].name, takenAway(values[at]), then[at]]);
    const cells = different.map((at) => [columns[at].name, shownValue(columns[at], values[at], DIGITS), shownValue(columns[at], then[at], one ? DIGITS : 15)]);
    const name = t("play.changes", { name: one ? number(after[0], DIGITS) : names[largestAt(after)] });
    const put = element("button", { type: "button", class: "plain", onclick: () => {
      values = then;
      layForm();
      update();
    } }, t("play.put"));
    const heads = ["column", "now", "then"].map((key) => t(`play.head.${key}`));
    found.replaceChildren(
      table(name, heads, cells),
      element("p", {}, t(`play.nearest.${kind}`, { distance })),
      put,
      taken("nearest", ["column", "now", "then"], () => changes),
    );
    return null;
  };

  const pairChoice = (side) =>
    choice(columns.map((column, at) => [at, column.name]), pair[side], (value) => {
      pair[side] = Number(value);
      drawSurface();
    });
  const offered = given.row_numbers.map((row, at) => [at, t("play.row", { row })]);
  const take = (index) => {
    values = columns.map((column, at) => (index === "" ? usual(column, given.input_mean) : decode(column, rowAt(Number(index)), given.empty[index].includes(at))));
    layForm();
    update();
  };
  const pick = choice([[OWN, t("play.own")], ["", given.means_known ? t("play.usual") : t("play.zeros")], ...offered], offered.length ? 0 : "", take);
  pick.options[0].hidden = true;
  root.append(
    changed,
    host(
      "play",
      section(t("play.form"), host("controls", control(t("play.take_row"), pick)), form),
      section(
        t("play.answer_heading"),
        answer,
        logits,
        host("controls", output.controls),
        parts,
        taken("contributions", ["column", "value", "adds"], () => columns.map((column, at) => [column.name, takenAway(values[at]), now.parts[at]])),
      ),
    ),
    section(
      t("play.effects"),
      effects,
      taken("effects", ["column", "value", "output"], () =>
        now.effects.flatMap((points, at) => points.map((point) => [columns[at].name, ...point])),
      ),
    ),
    section(
      t("play.pair"),
      host("controls", control(t("play.across"), pairChoice(0)), control(t("play.up"), pairChoice(1))),
      host("sheet", surface, mark),
      said,
      axes,
      taken(
        "pair",
        ["right", "up", "output"],
        () => now.surface.up.flatMap((up, i) => now.surface.across.map((across, j) => [across, up, now.surface.cells[i][j]])),
        surface,
      ),
    ),
    section(
      t("play.nearest_heading"),
      element("p", { class: "quiet" }, t("play.distance")),
      table(t("play.bounds_heading"), ["may", "column", "low", "high"].map((key) => t(`play.head.${key}`)), ask.map(({ row }) => row)),
      host("controls", control(one ? t("play.wished_value") : t("play.wished"), wish), element("button", { type: "button", onclick: find }, t("play.find"))),
      found,
    ),
  );
  if (typed?.asked === asked) {
    values = typed.values;
    layForm();
    update();
  } else take(offered.length ? 0 : "");
};
