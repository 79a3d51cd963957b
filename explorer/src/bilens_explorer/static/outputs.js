// Which output of which layer is looked at, and what is asked of the explorer for it.
import { choice, control, element, exported, holds, inWords, share, t } from "./lib.js";

const LISTED = 1000; // outputs that a list holds; others are chosen by number
const shortened = (text) => (text.length > 40 ? `${text.slice(0, 39)}…` : text);

export const addressOf = (key, what, layer, output, more = {}) =>
  `/models/${key}/${what}?${new URLSearchParams({ layer: layer.name, output, ...more })}`;

// R² of a layer that is read through an approximation; it is said before anything else.
// `whose` says which of two; `read` is the row of the layer, as the last audit read it.
export const approximated = ({ approximation, about_input: about }, read, whose = "") => [
  approximation &&
    element(
      "p",
      { class: "callout" },
      whose,
      t("approximate", {
        r2: share(approximation.r_squared),
        activation: approximation.activation,
        input: inWords(approximation.assumed_input),
      }),
      read?.seen ? ` ${t("approximate.seen", { r2: share(read.r_squared) })}` : "",
    ),
  about && element("p", { class: "quiet" }, t("about_input", { about: inWords(about) })),
];

// A list of whose choices those can be taken whose address a view can ask for.
export const onlyHeld = (list, address) => {
  for (const one of list.options) one.disabled = !holds(address(one.value));
  return list;
};
// Says in the one-file export why some choices cannot be taken.
export const notHeld = () => (exported ? element("span", { class: "quiet" }, t("not_held")) : null);

// Controls for an output, and for another one that it is read against; `address` of an output is
// what the view asks for, where the one-file export has the view.
export const outputControls = (layer, output, onchange, address) => {
  const [first, second = ""] = output.split("~");
  const found = { first, second };
  const change = (name) => (value) => {
    found[name] = value;
    if (found.first !== "") onchange(found.second === "" ? found.first : `${found.first}~${found.second}`);
  };
  const pick = (name, others = []) => {
    if (layer.d_out > LISTED)
      return element("input", {
        type: "number",
        min: 0,
        max: layer.d_out - 1,
        disabled: exported,
        value: found[name],
        onchange: (event) => event.target.checkValidity() && change(name)(event.target.value),
      });
    const names = layer.outputs ?? Array.from({ length: layer.d_out }, (_, index) => String(index));
    const options = names.map((text, index) => [index, shortened(text)]);
    const made = choice([...others, ...options], found[name], change(name));
    return onlyHeld(made, address);
  };
  const against = !exported && layer.gives !== "neurons" && layer.d_out > 1;
  const classes = [["", t("against.mean")], ["raw", t("against.raw")]];
  return [
    control(t("output"), pick("first")),
    against ? control(t("against"), pick("second", layer.gives === "logits" ? classes : [["", t("against.none")]])) : null,
    notHeld(),
  ];
};
