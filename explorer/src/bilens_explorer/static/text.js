// The playground of language models: a text is typed, and read token by token, by the server.
import { namedBars } from "./charts.js";
import { choice, control, drawing, element, exported, fields, get, lang, number, post, state, t, table, takeaway } from "./lib.js";
import { shaded, tokenList, word } from "./passages.js";
import { calmly } from "./played.js";
import { labelOf, nameable, remarksOf } from "./people.js";

const [WAIT, KEPT, LISTED] = [250, 1000, 20]; // ms; letters that the address keeps; latents of a side

export const text = (root) =>
  drawing(root, async () => {
    if (exported) throw new Error(t("not_exported"));
    const key = root.dataset.key;
    const { most, traces } = await get(`/models/${key}/text`);
    const remarks = remarksOf(key);
    const readable = traces.filter((one) => one.readable);
    const looked = { trace: state.get("trace", readable[0]?.report ?? ""), position: null, shade: state.get("shade") };
    if (!readable.some((one) => one.report === looked.trace)) looked.trace = "";
    const position = Number(state.get("token", "-1"));
    if (Number.isInteger(position) && position >= 0) looked.position = position;
    const typed = element("textarea", { rows: 3, maxlength: 4000, spellcheck: false }, state.get("text", t("text.example")));
    const result = element("div");
    const problem = element("div");
    const heard = element("p", { class: "unseen", "aria-live": "polite" });
    let [asked, reading] = [0, null];

    const keep = () =>
      state.set({
        text: typed.value.length <= KEPT ? typed.value : null,
        trace: looked.trace === (readable[0]?.report ?? "") ? null : looked.trace,
        token: looked.position === null ? null : String(looked.position),
        shade: looked.shade,
      });
    const read = async () => {
      const turn = (asked += 1);
      keep();
      if (!typed.value.trim()) return result.replaceChildren();
      root.setAttribute("aria-busy", "true");
      const ask = (at) => post(`/models/${key}/text`, { text: typed.value, position: at, trace: looked.trace || null });
      try {
        let found = await ask(null);
        if (looked.position !== null && looked.position < found.tokens.length - 1) found = await ask(looked.position);
        else looked.position = null;
        if (turn !== asked) return;
        reading = found;
        problem.replaceChildren();
        show();
      } catch (error) {
        if (turn === asked) problem.replaceChildren(element("p", { class: "callout wrong", role: "alert" }, error.message));
      } finally {
        if (turn === asked) root.removeAttribute("aria-busy");
      }
    };
    const nameOf = (side, one) => labelOf(remarks.of(`${side.subject}${one.latent}`))?.text || one.name;

    // ---- what the tokens are coloured by: how little they were expected, or a latent or circuit
    const surprise = () => reading.tokens.map(({ probability }) => (probability === null ? 0 : -Math.log(probability)));
    const shades = () => {
      const found = new Map([["", { name: t("text.surprise"), values: surprise() }]]);
      const { inputs, outputs, circuits } = reading.latents ?? {};
      for (const [kind, side] of [["in", inputs], ["out", outputs]])
        for (const one of side?.latents ?? []) found.set(`${kind}:${one.latent}`, { name: t(`text.shade.${kind}`, { name: nameOf(side, one) }), values: [0, ...one.activations] });
      for (const one of circuits ?? []) found.set(`circuit:${one.latent}`, { name: t("text.shade.circuit", { name: nameOf(outputs, one) }), values: [0, ...one.values] });
      return found;
    };
    const shadeBy = (id) => {
      looked.shade = id;
      keep();
      show();
    };
    const choose = (index) => {
      looked.position = index === reading.tokens.length - 1 ? null : index;
      read().then(() => result.querySelector("mark[aria-current]")?.focus());
    };
    const shadeButton = (id, name) =>
      element("button", { type: "button", class: "plain", "aria-pressed": String(looked.shade === id), "aria-label": t("text.show", { name }), onclick: () => { shadeBy(looked.shade === id ? "" : id); result.querySelector(`[data-shade="${CSS.escape(id)}"]`)?.focus(); }, "data-shade": id }, name);
    const latentTable = (kind, side) => {
      const at = reading.position - 1;
      const rows = side.latents
        .toSorted((a, b) => Math.abs(b.activations[at] ?? 0) - Math.abs(a.activations[at] ?? 0))
        .slice(0, LISTED)
        .map((one) => {
          const name = nameOf(side, one);
          const largest = one.activations.reduce((best, value) => (Math.abs(value) > Math.abs(best) ? value : best), 0);
          return [shadeButton(`${kind}:${one.latent}`, name), at < 0 ? "—" : number(one.activations[at]), number(largest), nameable(key, `${side.subject}${one.latent}`, name)];
        });
      return [table(t(`text.latents.${kind}`, { count: number(side.count, 5) }), [...fields("FiredLatent", "name", "activations"), t("text.largest"), t("circuit.label")], rows)];
    };

    const show = () => {
      const all = shades();
      if (!all.has(looked.shade)) looked.shade = "";
      const shade = all.get(looked.shade);
      const scale = shade.values.reduce((best, value) => Math.max(best, Math.abs(value)), 0);
      const tokens = reading.tokens.map((one) => one.text);
      const here = tokens[reading.position];
      const at = reading.position - 1;
      const { latents } = reading;
      const spaced = tokens.some((one) => one.startsWith(" "));
      const rows = [["token", ...[...all.values()].map((one) => one.name)], ...tokens.map((token, index) => [token, ...[...all.values()].map((one) => one.values[index])])];
      heard.textContent = t("text.heard", { count: tokens.length, next: word(reading.next[0].text) });
      result.replaceChildren(
        element("h3", {}, t("text.tokens", { count: tokens.length })),
        control(t("text.shade"), choice([...all].map(([id, { name }]) => [id, name]), looked.shade, shadeBy)),
        element("p", { class: "read" }, shaded(tokens, shade.values, { scale, spaced, onchoose: choose, chosen: reading.position })),
        element("p", { class: "quiet" }, t("text.help"), reading.left_out ? ` ${t("text.left_out", { count: reading.left_out, most })}` : ""),
        takeaway(t("text.tokens", { count: tokens.length }), { rows, data: reading }),
        element(
          "div",
          { class: "ends" },
          element("div", {}, element("h3", {}, t("text.next", { token: word(here) })), namedBars(t("text.next", { token: word(here) }), reading.next.map((one) => ({ name: `${word(one.text)} (${number(one.logit)})`, value: one.probability })))),
          element("div", {}, table(t("text.layers", { token: word(here) }), [...fields("LayerEffect", "name", "tokens"), t("circuit.suppresses")], reading.layers.map(({ name, tokens: ends }) => [name, ...[ends.high, ends.low].map((end) => tokenList(end))]))),
        ),
        ...(latents
          ? [
              element("h3", {}, t("text.circuits")),
              table(
                t("text.circuits_at", { token: word(here) }),
                [...fields("CircuitValues", "latent"), t("text.fires"), ...fields("CircuitValues", "activations", "values"), t("text.open")],
                latents.circuits.map((one) => [
                  shadeButton(`circuit:${one.latent}`, nameOf(latents.outputs, one)),
                  at < 0 ? "—" : t(one.activations[at] ? "text.yes" : "text.no"),
                  at < 0 ? "—" : number(one.activations[at]),
                  at < 0 ? "—" : number(one.values[at]),
                  element("a", { href: `/reports/${looked.trace}/circuits?circuit=${one.latent}&lang=${lang}` }, t("circuit.open", { latent: one.latent })),
                ]),
              ),
              element("div", { class: "ends" }, element("div", {}, latentTable("in", latents.inputs)), element("div", {}, latentTable("out", latents.outputs))),
            ]
          : []),
      );
    };

    typed.addEventListener("input", calmly(WAIT, () => {
      looked.position = null;
      read();
    }));
    const options = [["", t("text.no_trace")], ...readable.map((one) => [one.report, `${one.layer} (${one.name})`])];
    const places = traces.map((one) =>
      element("li", {}, element("a", { href: `/reports/${one.report}/circuits?lang=${lang}` }, one.name), ` ${one.layer}`, one.readable ? "" : ` (${t("text.away")})`),
    );
    root.append(
      element("div", { class: "typed" }, control(t("text.text", { most }), typed)),
      element("div", { class: "controls" }, control(t("text.trace"), choice(options, looked.trace, (value) => { looked.trace = value; read(); }))),
      traces.length
        ? element("div", { class: "quiet" }, t("text.traces"), element("ul", {}, places))
        : element("p", { class: "quiet" }, t("text.no_traces")),
      problem,
      heard,
      result,
    );
    await read();
    remarks.show(result, () => { if (reading) show(); });
  });
