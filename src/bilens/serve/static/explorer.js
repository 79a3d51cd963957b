// Search and sort the models; send what somebody says. Everything can be read without this.
const models = document.querySelector("table.models");
if (models) {
  const rows = [...models.tBodies[0].rows];
  const tools = document.querySelector(".tools");
  const search = tools.querySelector("input");
  const shown = document.getElementById("shown");
  tools.hidden = false;
  const find = () => {
    const words = search.value.toLowerCase().split(/\s+/);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} / ${rows.length}`;
    const address = new URL(location);
    if (search.value) address.searchParams.set("search", search.value);
    else address.searchParams.delete("search");
    history.replaceState(null, "", address);
    for (const link of document.querySelectorAll(".bar nav a")) {
      address.searchParams.set("lang", link.lang);
      link.href = address;
    }
  };
  search.value = new URL(location).searchParams.get("search") ?? "";
  search.addEventListener("input", find);
  find();
  [...models.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of models.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = new Intl.Collator(document.documentElement.lang, { numeric: true }).compare;
      const text = (row) => row.cells[column].textContent;
      rows.sort((a, b) => (up ? 1 : -1) * compare(text(a), text(b)));
      models.tBodies[0].append(...rows);
    });
  });
}

const form = document.getElementById("say");
if (form) {
  form.hidden = false;
  const sent = document.getElementById("sent");
  form.elements.action.addEventListener("change", () => {
    form.elements.text.required = form.elements.action.value !== "withdraw";
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = Object.fromEntries(new FormData(form));
    if (!body.until) delete body.until;
    try {
      const answer = await fetch(`/api/v1/models/${form.dataset.model}/entries`, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          "X-Bilens-Secret": document.querySelector("meta[name=bilens-secret]").content,
        },
        body: JSON.stringify(body),
      });
      if (answer.ok) location.reload();
      else sent.textContent = (await answer.json()).error;
    } catch (error) {
      sent.textContent = String(error); // what was typed stays in the form
    }
  });
}
