// What the playgrounds of images and of tables have in common: what is read of a model, and whether
// it is still the one in the folder.
import { namedBars } from "./charts.js";
import { choice, control, element, get, percent, state, t, takeaway, whyNot } from "./lib.js";
import { direction, largestAt, softmax } from "./quadratic.js";

// Calls a while after the last time that it was called.
export const calmly = (wait, act) => {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, wait);
  };
};
export const host = (name, ...children) => element("div", { class: name }, children.flat());
export const section = (name, ...children) => element("section", { "aria-label": name }, element("h3", {}, name), children);
// What was drawn or typed, for as long as the tab is open: another language is another page.
export const keepPlayed = (key, what) => {
  try {
    sessionStorage.setItem(`played ${key}`, JSON.stringify(what));
  } catch {
    // a browser that keeps nothing, or has no room
  }
};
export const keptPlayed = (key) => {
  try {
    return JSON.parse(sessionStorage.getItem(`played ${key}`));
  } catch {
    return null;
  }
};

// What can be taken away of rows of numbers that are there when a button is pressed.
export const taken = (name, heads, found, drawn) =>
  takeaway(name, {
    rows: () => [heads, ...found()],
    data: () => found().map((row) => Object.fromEntries(heads.map((head, at) => [head, row[at]]))),
    drawn,
  });

export const scoreBars = (title, names, logits) => {
  const shares = softmax(logits);
  const named = names.map((name, o) => (names.length === 1 ? name : `${name} · ${percent(shares[o])}`));
  return namedBars(title, named.map((name, o) => ({ name, value: logits[o] })));
};
export const answerText = (names, logits) => {
  const shown = largestAt(logits);
  return t("play.answer", { name: names[shown], share: percent(softmax(logits)[shown]) });
};

// Which output is read, over which other one; the address keeps it.
export const readOutput = (map, names, update) => {
  const known = (name) => (state.get(name) in names ? state.get(name) : "");
  const chosen = { class: known("class"), over: known("over") };
  const chooser = (name, label, none) =>
    control(label, choice([["", none], ...names.entries()], chosen[name], (value) => {
      chosen[name] = value;
      state.set(chosen);
      update();
    }));
  const form = (logits) => {
    const first = chosen.class === "" ? largestAt(logits) : Number(chosen.class);
    const second = chosen.over === "" || Number(chosen.over) === first ? null : Number(chosen.over);
    let target = names[0];
    if (second !== null) target = t("play.contrast", { first: names[first], second: names[second] });
    else if (names.length > 1) target = t("play.class", { name: names[first] });
    return { ...map.form(direction(map.outputs, first, second)), first, second, target };
  };
  const controls =
    names.length === 1 ? [] : [chooser("class", t("play.first"), t("play.predicted")), chooser("over", t("play.second"), t("play.mean"))];
  return { form, controls };
};

// Says whether the model in the folder is still the one of the page; what was typed or drawn stays.
export const sayIfChanged = async (key, given, place, renew, sha256) => {
  try {
    const found = sha256 ?? (await get(`/models/${key}/layers`)).weights_sha256;
    if (found === given.weights_sha256) return false;
    const button = element("button", { type: "button", class: "plain", onclick: renew }, t("play.renew"));
    place.replaceChildren(element("p", { class: "callout", role: "alert" }, t("play.changed"), " ", button));
  } catch (error) {
    place.replaceChildren(element("p", { class: "callout wrong", role: "alert" }, whyNot(error), " ", t("play.kept")));
  }
  return true;
};
