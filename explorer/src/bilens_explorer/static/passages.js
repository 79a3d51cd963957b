// Texts in which latents are active: each token on the colour of its activation, with its number.
import { colour } from "./charts.js";
import { element, number, t } from "./lib.js";

const linear = (channel) => (channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4);
// Black or white, whichever is read better: at least 4.5 : 1 on any colour.
const inkOn = (hex) => {
  const [red, green, blue] = [1, 3, 5].map((at) => linear(parseInt(hex.slice(at, at + 2), 16) / 255));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
};

// A token as a word that stands alone.
export const word = (text) => text.trim() || "␣";

// The name of a latent: its number, and the token at which it is strongest most often.
export const latentName = ({ latent, contexts }) => {
  const counts = new Map();
  for (const one of contexts) {
    const peak = word(one.tokens[one.peak]);
    counts.set(peak, (counts.get(peak) ?? 0) + 1);
  }
  const often = [...counts].reduce((best, one) => (one[1] > best[1] ? one : best), ["", 0])[0];
  return often ? `${latent} ${often}` : String(latent);
};

const FAINT = 0.02; // share of the scale that is not coloured
const STEPS = { ArrowRight: 1, ArrowLeft: -1 };
// Tokens in a row; those with a number can be walked through with the arrows.
const shaded = (tokens, values, { scale, spaced, peak }) => {
  const marks = [];
  const parts = tokens.map((token, index) => {
    const value = values[index] ?? 0;
    if (value === 0) return element("span", {}, token);
    const made = element(
      "mark",
      { tabindex: -1, class: index === peak ? "peak" : null },
      token,
      element("span", { class: "value" }, ` ${number(value)} `),
    );
    if (Math.abs(value) > FAINT * scale) {
      made.style.background = colour(value, scale);
      made.style.color = inkOn(colour(value, scale));
    }
    marks.push(made);
    return made;
  });
  const first = marks.find((mark) => mark.matches(".peak")) ?? marks[0];
  first?.setAttribute("tabindex", 0);
  return element(
    "span",
    {
      class: spaced ? "passage" : "passage apart",
      onkeydown: (event) => {
        const at = marks.indexOf(event.target);
        const next = marks[at + STEPS[event.key]];
        if (!(event.key in STEPS)) return;
        event.preventDefault();
        if (!next) return;
        marks[at].setAttribute("tabindex", -1);
        next.setAttribute("tabindex", 0);
        next.focus();
      },
    },
    parts,
  );
};

// The stretches of text in which a latent is strongest.
export const passages = (reading, spaced) => {
  if (reading.contexts.length === 0) return element("p", { class: "quiet" }, t("circuit.never_active"));
  const listed = reading.contexts.map((one) => {
    const text = shaded(one.tokens, one.activations, { scale: reading.largest, spaced, peak: one.peak });
    const strength = element("span", { class: "strength" }, number(one.activations[one.peak]));
    return element("li", {}, strength, element("span", {}, one.start > 0 ? "…" : null, text));
  });
  return element("ol", { class: "passages" }, listed);
};

export const tokenList = (found) => {
  const listed = found.map((one) => element("li", {}, element("span", { class: "token" }, word(one.text)), ` ${number(one.value)}`));
  return element("ul", { class: "token-list" }, listed);
};
// Two lists of tokens side by side.
export const tokenEnds = (ends, high, low) => {
  const lists = [[high, ends.high], [low, ends.low]].map(([name, found]) => element("div", {}, element("h4", {}, name), tokenList(found)));
  return element("div", { class: "ends" }, lists);
};
