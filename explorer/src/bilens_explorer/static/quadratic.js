// A quadratic map as the page computes it: f(x) = D[(Lx)∘(Rx)] + Wx + c, summed in double precision.

const KINDS = { float32: Float32Array, float64: Float64Array };
// The numbers of a packed array, row by row.
export const unpacked = ({ base64, dtype }) => {
  if (typeof base64 !== "string") return new KINDS[dtype](base64.buffer); // of the one-file export
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) bytes[at] = text.charCodeAt(at);
  return new KINDS[dtype](bytes.buffer);
};

export const dot = (a, b) => {
  let sum = 0;
  for (let at = 0; at < a.length; at += 1) sum += a[at] * b[at];
  return sum;
};
// M x for a matrix that is given row by row.
const times = (matrix, x) => {
  const width = x.length;
  const found = new Float64Array(matrix.length / width);
  for (let row = 0, start = 0; row < found.length; row += 1, start += width) {
    let sum = 0;
    for (let at = 0; at < width; at += 1) sum += matrix[start + at] * x[at];
    found[row] = sum;
  }
  return found;
};
// uᵀM
const combined = (u, matrix) => {
  const width = matrix.length / u.length;
  const found = new Float64Array(width);
  for (let row = 0; row < u.length; row += 1) {
    if (u[row] === 0) continue;
    for (let at = 0; at < width; at += 1) found[at] += u[row] * matrix[row * width + at];
  }
  return found;
};
const lengths = (matrix, width) =>
  Float64Array.from({ length: matrix.length / width }, (_, row) => {
    const part = matrix.subarray(row * width, (row + 1) * width);
    return Math.sqrt(dot(part, part));
  });

export const quadraticMap = ({ down, left, right, linear, constant }) => {
  const [outputs, hidden] = down.shape;
  const width = left.shape[1];
  const [D, L, R] = [down, left, right].map(unpacked);
  const W = linear && unpacked(linear);
  const c = constant && unpacked(constant);
  const bounds = { left: lengths(L, width), right: lengths(R, width) };

  // What the hidden units see of an input: everything else follows from it.
  const seen = (x) => ({ x, left: times(L, x), right: times(R, x) });
  const products = (at) => at.left.map((value, unit) => value * at.right[unit]);
  const squares = (at) => times(D, products(at)); // xᵀQ_o x of each output o
  const logits = (at) => {
    const found = squares(at);
    const along = W && times(W, at.x);
    return found.map((value, o) => value + (along ? along[o] : 0) + (c ? c[o] : 0));
  };
  // One output direction u: q(x) = u·f(x).
  const form = (u) => {
    const weights = combined(u, D); // (hidden,)
    const b = W ? combined(u, W) : new Float64Array(width);
    // Q_u s, from what the hidden units see of s
    const matvec = (at) => {
      const found = new Float64Array(width);
      for (let unit = 0, start = 0; unit < hidden; unit += 1, start += width) {
        const one = (weights[unit] * at.right[unit]) / 2;
        const other = (weights[unit] * at.left[unit]) / 2;
        for (let i = 0; i < width; i += 1) found[i] += one * L[start + i] + other * R[start + i];
      }
      return found;
    };
    return {
      weights,
      linear: b,
      matvec,
      square: (at) => dot(weights, products(at)),
      value: (at) => dot(weights, products(at)) + dot(b, at.x) + (c ? dot(u, c) : 0),
      gradient: (at) => matvec(at).map((value, i) => 2 * value + b[i]),
      // Σ_h |w_h| ‖l_h‖ ‖r_h‖: no |Q| in any of its sums is larger
      size: weights.reduce((sum, w, h) => sum + Math.abs(w) * bounds.left[h] * bounds.right[h], 0),
    };
  };
  return { outputs, hidden, width, seen, squares, logits, form, linear: W, constant: c };
};

const sumOf = (a, b) => a.map((value, at) => value + b[at]);
// Exact Shapley values of a form against a baseline: φ_i = Δ_i (Q(x + x₀) + b)_i, as bl.attribute.
// `removed` are eigenpairs that are switched off: [value, vector].
export const attributed = (form, at, base, removed = []) => {
  const total = { left: sumOf(at.left, base.left), right: sumOf(at.right, base.right) };
  const found = form.matvec(total);
  const s = at.x.map((value, i) => value + base.x[i]);
  for (const [value, vector] of removed) {
    const overlap = value * dot(vector, s);
    for (let i = 0; i < found.length; i += 1) found[i] -= overlap * vector[i];
  }
  return found.map((value, i) => (at.x[i] - base.x[i]) * (value + form.linear[i]));
};

// e_first − e_second, or e_first less the mean of all outputs where no second one is named; the
// only output as it is.
export const direction = (outputs, first, second = null) => {
  const u = new Float64Array(outputs);
  if (second !== null) u[second] = -1;
  else if (outputs > 1) u.fill(-1 / outputs);
  u[first] += 1;
  return u;
};

// The spectrum of −Q, with its proven edges.
export const turned = ({ values, low, high, ...rest }) => ({ ...rest, values: values.map((value) => -value), low: -high, high: -low });

export const softmax = (logits) => {
  const top = Math.max(...logits);
  const found = Array.from(logits, (value) => Math.exp(value - top));
  const sum = found.reduce((a, b) => a + b, 0);
  return found.map((value) => value / sum);
};
export const largestAt = (values) => values.reduce((best, value, at) => (value > values[best] ? at : best), 0);

// No input at a smaller distance is given another answer by the map of these numbers. Along a step
// of length r the margin over a rival falls by ‖g‖ r + κ r² at most, −κ being no more than the
// least eigenvalue of Q_label − Q_rival; what double precision may round is taken off.
export const lowerRadius = (map, spectra, at, label) => {
  const rounding = 8 * (map.width + map.hidden) * 2 ** -52;
  const length = Math.sqrt(dot(at.x, at.x));
  const found = Array.from({ length: map.outputs }, (_, rival) => {
    if (rival === label) return Infinity;
    const form = map.form(direction(map.outputs, label, rival));
    const along = Math.sqrt(dot(form.linear, form.linear));
    const constant = map.constant ? Math.abs(map.constant[label]) + Math.abs(map.constant[rival]) : 0;
    const margin = form.value(at) - rounding * (form.size * length ** 2 + along * length + constant);
    const g = form.gradient(at);
    const steep = Math.sqrt(dot(g, g)) * (1 + rounding) + rounding * (2 * form.size * length + along);
    const bend = Math.max(spectra[rival].high - spectra[label].low, 0) * (1 + 1e-12);
    return margin > 0 ? ((2 * margin) / (steep + Math.sqrt(steep ** 2 + 4 * bend * margin))) * (1 - 1e-12) : 0;
  });
  return Math.min(...found);
};

// A near input with another answer, found by projecting onto the linearised border again and again,
// then walking its ray to the border; null where none is found. Nothing says that it is the nearest.
const TRIED = 3; // rivals, the nearest by slope
export const nearCrossing = (map, x, label, steps = 15) => {
  const start = map.seen(x);
  const forms = Array.from({ length: map.outputs }, (_, rival) => map.form(direction(map.outputs, label, rival)));
  const steep = (form) => Math.sqrt(dot(form.gradient(start), form.gradient(start)));
  const near = forms.map((form, rival) => [rival === label ? Infinity : form.value(start) / steep(form), rival]);
  near.sort(([a], [b]) => a - b);
  let best = null;
  for (const [, rival] of near.slice(0, Math.min(TRIED, map.outputs - 1))) {
    let step = new Float64Array(map.width);
    for (let count = 0; count < steps; count += 1) {
      const at = map.seen(sumOf(x, step));
      const g = forms[rival].gradient(at);
      const scale = (dot(g, step) - forms[rival].value(at)) / dot(g, g);
      step = g.map((value) => scale * value);
    }
    const moved = (share) => x.map((value, i) => value + share * step[i]);
    const lost = (share) => largestAt(map.logits(map.seen(moved(share)))) !== label;
    if (!step.every(Number.isFinite) || !lost(1.001)) continue;
    let [low, high] = [0, 1.001];
    for (let count = 0; count < 30; count += 1) {
      const middle = (low + high) / 2;
      if (lost(middle)) high = middle;
      else low = middle;
    }
    const distance = high * Math.sqrt(dot(step, step));
    if (!best || distance < best.distance) best = { distance, example: moved(high), rival };
  }
  return best;
};
