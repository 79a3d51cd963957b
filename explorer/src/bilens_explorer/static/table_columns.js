// Columns of a table as a form shows them, and as inputs of a model in standard units.
import { element, number, t } from "./lib.js";

export const MISSING = "(missing)";
export const UNSEEN = false; // a text that is none of those of the training
const DAY = 86_400_000;
export const DIGITS = 6; // of a number in a form; what was not typed stays as exact as it came
// Beyond this, in either direction, float64 says nothing of sums of squares.
export const farthest = ({ low, high }) => 10 ** (9 + Math.ceil(Math.log10(Math.max(1, Math.abs(low), Math.abs(high)))));
const dayOf = (column, days) => new Date(Date.parse(column.first) + days * DAY);
// Whether a column may be left empty: texts only where the training saw it.
const mayMiss = (column) => column.kind !== "category" || column.parts.includes(MISSING);
// Of a column whose known values were all one, what is kept is whether there is one: 0 stands for it.
export const isWhether = (column) => column.kind !== "category" && column.parts.every((part) => part === MISSING);
const dates = { year: (day) => day.getUTCFullYear(), month: (day) => day.getUTCMonth() + 1, weekday: (day) => day.getUTCDay() || 7 };

// A value is a number, days since the first one, a text, UNSEEN, or null for an empty cell: of a
// column without an input that says so, a model reads the mean there.
export const encode = (column, value, mean, scale, z) => {
  const isMean = value === null && !column.parts.includes(MISSING);
  column.inputs.forEach((input, at) => {
    const part = column.parts[at];
    let raw = mean[input]; // of what is not known
    if (part === MISSING && column.kind !== "category") raw = value === null ? 1 : 0;
    else if (column.kind === "category") raw = isMean ? raw : part === (value ?? MISSING) ? 1 : 0;
    else if (value !== null && (part === "value" || part === "days")) raw = column.kind === "date" ? Math.floor(value) : value;
    else if (value !== null && part === "hour") raw = (value - Math.floor(value)) * 24;
    else if (value !== null) raw = dates[part](dayOf(column, value));
    z[input] = (raw - mean[input]) / scale[input];
  });
};
export const decode = (column, row, isEmpty = false) => {
  if (isEmpty) return null; // what its inputs are then looks like a value
  const part = (name) => {
    const at = column.parts.indexOf(name);
    return at < 0 ? undefined : row[column.inputs[at]];
  };
  if (column.kind === "category") {
    const at = column.inputs.findIndex((input) => row[input] === 1);
    if (at < 0) return UNSEEN;
    return column.parts[at] === MISSING ? null : column.parts[at];
  }
  if (part(MISSING) === 1) return null;
  return column.kind === "number" ? (part("value") ?? 0) : (part("days") ?? 0) + (part("hour") ?? 0) / 24;
};
// What a column is at the mean of all rows: the most frequent text.
export const usual = (column, mean) => {
  if (column.kind !== "category") return decode({ ...column, parts: column.parts.map((one) => (one === MISSING ? "" : one)) }, mean);
  const at = column.inputs.reduce((best, input, i) => (mean[input] > mean[column.inputs[best]] ? i : best), 0);
  return column.parts[at] === MISSING ? null : column.parts[at];
};
export const levelsOf = (column) => (isWhether(column) ? [0] : column.parts.filter((one) => one !== MISSING));

const stamp = (column, days) => dayOf(column, days).toISOString().slice(0, 16);
export const shownValue = (column, value, digits = 5) => {
  if (value === null) return isWhether(column) ? t("play.unknown") : t("play.empty");
  if (value === UNSEEN) return t("play.unseen");
  if (isWhether(column)) return t("play.known");
  if (column.kind === "date") return stamp(column, value).replace("T", " ");
  return column.kind === "number" ? `${number(value, digits)}${column.unit && ` ${column.unit}`}` : value;
};
// A control for a value; `change` is called with it, with NaN where it is no number.
export const valueInput = (column, value, change) => {
  if (column.kind === "category" || isWhether(column)) {
    const others = [...(mayMiss(column) || value === null ? [null] : []), ...(value === UNSEEN ? [UNSEEN] : [])];
    const options = [...levelsOf(column), ...others]; // and what a row has, whatever it is
    return element(
      "select",
      { onchange: (event) => change(options[event.target.selectedIndex]) },
      options.map((one) => element("option", { selected: one === value }, shownValue(column, one))),
    );
  }
  const isDate = column.kind === "date";
  const given = value === null ? "" : isDate ? stamp(column, value) : Number(value.toPrecision(DIGITS));
  const read = (text) => (text === "" ? null : isDate ? (Date.parse(`${text}Z`) - Date.parse(column.first)) / DAY : Number(text));
  return element("input", {
    type: isDate ? "datetime-local" : "number",
    step: isDate ? null : "any",
    value: given,
    oninput: ({ target }) => {
      if (!target.validity.badInput) change(read(target.value));
      else if (!isDate) change(NaN); // a date is half typed
    },
  });
};
