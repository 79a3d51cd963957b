// The nearest change of some numbers, within bounds, that changes the answer of a quadratic map:
// exact for one number and for two, by a search for more.
import { dot } from "./quadratic.js";

const LINES = 300;
const EDGE = 1e-9; // of the size of the terms: a point on the border counts

// All real roots of Σ c_k t^k, by those of its derivative: between two of them there is one at most.
export const realRoots = (coefficients) => {
  const c = [...coefficients];
  const size = Math.max(...c.map(Math.abs));
  while (c.length > 1 && Math.abs(c.at(-1)) <= 1e-14 * size) c.pop();
  if (c.length <= 1) return [];
  if (c.length === 2) return [-c[0] / c[1]];
  const value = (t) => c.reduceRight((sum, one) => sum * t + one, 0);
  const reach = 1 + Math.max(...c.slice(0, -1).map((one) => Math.abs(one / c.at(-1))));
  const turns = realRoots(c.slice(1).map((one, k) => one * (k + 1))).filter((t) => Math.abs(t) < reach);
  const found = [];
  [-reach, ...turns.sort((a, b) => a - b), reach].forEach((end, at, ends) => {
    const near = c.reduce((sum, one, k) => sum + Math.abs(one * end ** k), 0);
    if (Math.abs(value(end)) <= 1e-13 * near) found.push(end);
    if (at === 0 || value(ends[at - 1]) * value(end) >= 0) return;
    let [low, high] = [ends[at - 1], end];
    for (let count = 0; count < 200 && low !== (low + high) / 2 && high !== (low + high) / 2; count += 1) {
      const middle = (low + high) / 2;
      if (value(low) * value(middle) <= 0) high = middle;
      else low = middle;
    }
    found.push((low + high) / 2);
  });
  return found;
};

// A form as c + g·t + tᵀAt of the steps t of some inputs.
export const reduced = (map, form, at, inputs, offset = 0) => {
  const gradient = form.gradient(at);
  const unit = (input) => Float64Array.from({ length: map.width }, (_, i) => (i === input ? 1 : 0));
  const A = inputs.map((input) => {
    const column = form.matvec(map.seen(unit(input)));
    return inputs.map((other) => column[other]);
  });
  return { c: form.value(at) + offset, g: inputs.map((input) => gradient[input]), A };
};
const steep = ({ g, A }, t) => g.map((slope, i) => slope + 2 * dot(A[i], t));
const valueAt = ({ c, g, A }, t) => c + t.reduce((sum, step, i) => sum + step * (g[i] + dot(A[i], t)), 0);
const sizeAt = ({ c, g, A }, t) =>
  Math.abs(c) + t.reduce((sum, step, i) => sum + Math.abs(step * g[i]) + A[i].reduce((s, a, j) => s + Math.abs(step * a * t[j]), 0), 0);
const reached = (forms, t) => forms.every((form) => valueAt(form, t) <= EDGE * sizeAt(form, t));
const clip = (value, [low, high]) => Math.max(low, Math.min(high, value));
// Halves an interval at whose upper end something holds.
const halved = (low, high, count, holds) => {
  for (let half = 0; half < count; half += 1) {
    const middle = (low + high) / 2;
    if (holds(middle)) high = middle;
    else low = middle;
  }
  return [low, high];
};
const far = (t) => t.reduce((sum, step) => sum + step * step, 0);
const nearestOf = (points) => points.reduce((best, t) => (best === null || far(t) < far(best) ? t : best), null);

// Where forms of one step are 0, and the ends.
const onLine = (forms, [bounds]) => {
  const roots = forms.flatMap(({ c, g, A }) => realRoots([c, g[0], A[0][0]]));
  const within = roots.filter((t) => t >= bounds[0] && t <= bounds[1]);
  return [clip(0, bounds), ...bounds, ...within].map((t) => [t]);
};
// Points of a conic at which the distance from 0 is stationary: y_i = −τγ_i / 2(1 + τλ_i) in its axes.
const stationary = (form) => {
  // the border is that of any multiple: in a unit in which the roots are of ordinary size
  const unit = Math.max(...form.A.flat().map(Math.abs)) || Math.max(...form.g.map(Math.abs)) || 1;
  const [c, g] = [form.c / unit, form.g.map((slope) => slope / unit)];
  const [[a, b], [, d]] = form.A.map((row) => row.map((one) => one / unit));
  const angle = Math.atan2(2 * b, a - d) / 2;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const axes = [[cos, sin], [-sin, cos]];
  const values = axes.map((v) => v[0] * (a * v[0] + b * v[1]) + v[1] * (b * v[0] + d * v[1]));
  const slopes = axes.map((v) => dot(v, g));
  const times = (p, q) => p.reduce((found, one, i) => (q.forEach((two, j) => (found[i + j] = (found[i + j] ?? 0) + one * two)), found), []);
  const square = (value) => times([1, value], [1, value]);
  const parts = [times(square(values[0]), square(values[1])).map((one) => 4 * c * one)];
  [0, 1].forEach((i) => parts.push(times([0, 2, values[i]], square(values[1 - i])).map((one) => -(slopes[i] ** 2) * one)));
  const taus = realRoots(parts[0].map((_, k) => parts.reduce((sum, part) => sum + (part[k] ?? 0), 0)));
  const points = taus.map((tau) => slopes.map((slope, i) => (-tau * slope) / (2 * (1 + tau * values[i]))));
  [0, 1].forEach((i) => {
    // along an axis without a slope the equation above has no say
    const tau = -1 / values[i];
    const other = (-tau * slopes[1 - i]) / (2 * (1 + tau * values[1 - i]));
    const rest = c + slopes[1 - i] * other + values[1 - i] * other ** 2;
    for (const mine of realRoots([rest, slopes[i], values[i]])) points.push(i === 0 ? [mine, other] : [other, mine]);
  });
  return points
    .map((y) => [axes[0][0] * y[0] + axes[1][0] * y[1], axes[0][1] * y[0] + axes[1][1] * y[1]])
    .filter((t) => t.every(Number.isFinite));
};
// With one of two steps held.
const held = (form, i, value) => ({
  c: form.c + value * (form.g[i] + form.A[i][i] * value),
  g: [form.g[1 - i] + 2 * form.A[0][1] * value],
  A: [[form.A[1 - i][1 - i]]],
});
const inPlane = (forms, bounds) => {
  const inside = (t) => t.every((step, i) => step >= bounds[i][0] && step <= bounds[i][1]);
  const points = [bounds.map((each) => clip(0, each)), ...forms.flatMap(stationary).filter(inside)];
  [0, 1].forEach((i) => {
    for (const value of bounds[i])
      for (const [step] of onLine(forms.map((form) => held(form, i, value)), [bounds[1 - i]]))
        points.push(i === 0 ? [value, step] : [step, value]);
  });
  return points;
};

// Projects 0 onto the border, linearised at a point, within the bounds, again and again; what of
// the ways there crosses the border first.
const searched = (forms, bounds, from) => {
  const start = bounds.map((each) => clip(0, each));
  const found = [];
  let t = from ?? start;
  for (let count = 0; count < 40; count += 1) {
    const worst = forms.reduce((most, form) => (valueAt(form, t) > valueAt(most, t) ? form : most));
    const [G, now] = [steep(worst, t), valueAt(worst, t)];
    const stepped = (mu) => G.map((slope, i) => clip(-mu * slope, bounds[i]));
    const missing = (to) => now + to.reduce((sum, step, i) => sum + G[i] * (step - t[i]), 0);
    let [low, high] = [0, 1e-6];
    while (missing(stepped(high)) > 0 && high < 1e12) high *= 4;
    [low, high] = halved(low, high, 40, (mu) => missing(stepped(mu)) <= 0);
    const target = stepped(high);
    t = t.map((step, i) => (step + target[i]) / 2);
    for (const way of [t, target]) {
      const between = (share) => way.map((step, i) => start[i] + share * (step - start[i]));
      if (reached(forms, way)) found.push(between(halved(0, 1, 40, (share) => reached(forms, between(share)))[1]));
    }
  }
  return found;
};

// The nearest step t within `bounds` at which all forms are 0 or less, null where none is found;
// `exact`: whether it is proven that no nearer one is there.
export const nearestStep = (forms, bounds) => {
  if (bounds.length === 0) return { t: reached(forms, []) ? [] : null, exact: true };
  const solve = [onLine, inPlane][bounds.length - 1];
  if (!solve) {
    const rest = bounds.map((each) => clip(0, each));
    const points = searched(forms, bounds);
    bounds.forEach((_, i) =>
      bounds.slice(0, i).forEach((__, j) => {
        // the others where they are; then from there with all of them
        const still = rest.map((step, k) => (k === i || k === j ? 0 : step));
        const two = forms.map((form) => {
          const g = steep(form, still);
          return { c: valueAt(form, still), g: [g[j], g[i]], A: [j, i].map((k) => [form.A[k][j], form.A[k][i]]) };
        });
        const found = nearestOf(inPlane(two, [bounds[j], bounds[i]]).filter((t) => reached(two, t)));
        const whole = found && still.map((step, k) => (k === j ? found[0] : k === i ? found[1] : step));
        if (whole) points.push(whole, ...searched(forms, bounds, whole));
      }),
    );
    return { t: nearestOf(points.filter((t) => reached(forms, t))), exact: false };
  }
  const points = [...solve(forms, bounds), ...searched(forms, bounds)];
  const best = () => nearestOf(points.filter((point) => reached(forms, point)));
  if (forms.length > 1 && bounds.length === 2) {
    // the nearest may lie where two borders cross: looked for line by line, finer and finer
    let [low, high] = bounds[0];
    for (let pass = 0; pass < 3; pass += 1) {
      for (let line = 0; line <= LINES; line += 1) {
        const value = low + ((high - low) * line) / LINES;
        const steps = onLine(forms.map((form) => held(form, 0, value)), [bounds[1]]);
        points.push(...steps.map(([step]) => [value, step]));
      }
      const width = (4 * (high - low)) / LINES;
      const middle = best()?.[0] ?? clip(0, bounds[0]);
      [low, high] = [clip(middle - width, bounds[0]), clip(middle + width, bounds[0])];
    }
  }
  const t = best();
  // where several forms must hold, none is nearer than what one of them alone allows
  const alone = forms.map((form) => nearestOf(solve([form], bounds).filter((point) => reached([form], point))));
  const proven = forms.length === 1 || bounds.length === 1 || alone.includes(null);
  return { t, exact: proven || (t !== null && far(t) <= Math.max(...alone.map(far)) * (1 + 1e-9)) };
};
