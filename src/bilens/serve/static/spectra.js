// The layers of a model as a table, and the spectrum of the output that is chosen.
import { drawing, get, number, sortable, t, table, takeaway } from "./lib.js";

const COLUMNS = ["name", "reads", "gives", "activation", "d_in", "d_hidden", "d_out"];

export const spectra = (root) =>
  drawing(root, async () => {
    const { layers } = await get(`/models/${root.dataset.key}/layers`);
    const rows = layers.map((layer) =>
      COLUMNS.map((name) => (typeof layer[name] === "number" ? number(layer[name]) : layer[name])),
    );
    const listed = table(t("layers"), COLUMNS.map((name) => t(`layer.${name}`)), rows);
    sortable(listed.querySelector("table"));
    root.append(listed, takeaway(t("layers"), { rows: [COLUMNS, ...rows], data: layers }));
  });
