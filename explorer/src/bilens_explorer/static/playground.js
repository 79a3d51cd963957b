// The playground: a model that is one quadratic map is computed in the page.
import { imagePlayground } from "./image_play.js";
import { drawing, element, get, number, t } from "./lib.js";
import { keptPlayed } from "./played.js";
import { tablePlayground } from "./table_play.js";

// `kept` is what was drawn or typed on a model that has changed since.
export const playground = (root, kept) =>
  drawing(root, async () => {
    const given = await get(`/models/${root.dataset.key}/playground`);
    root.replaceChildren(root.querySelector("h2"));
    const again = (what) => playground(root, what);
    if (given.kind === "no_playground") {
      const counts = { layers: number(given.layers), numbers: number(given.numbers), most: number(given.most) };
      root.append(element("p", { class: "callout" }, t(`play.why.${given.why}`, counts)));
    } else (given.shape ? imagePlayground : tablePlayground)(root, given, kept ?? keptPlayed(root.dataset.key), again);
  });
