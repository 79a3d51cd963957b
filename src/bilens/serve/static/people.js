// What somebody says of a model is sent; what was typed stays in the form until it is kept.
import { exported, post } from "./lib.js";

export function people(form) {
  if (exported) return; // nobody is there to keep it
  form.hidden = false;
  const sent = form.querySelector("output");
  form.elements.action.addEventListener("change", () => {
    form.elements.text.required = form.elements.action.value !== "withdraw";
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = Object.fromEntries(new FormData(form));
    if (!body.until) delete body.until;
    try {
      await post(`/models/${form.dataset.key}/entries`, body);
      location.reload();
    } catch (error) {
      sent.textContent = error.message;
    }
  });
}
