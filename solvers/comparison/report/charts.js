"use strict";
// Parts that all pages share: figures of Bokeh by the key of their chart, tags of renderers,
// downloads as CSV, and colours for light and dark.
const charts = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const figures = {};

  async function embed(key) {
    const item = data.figures[key];
    if (!item || figures[key]) return;
    await Bokeh.embed.embed_item(item, "plot-" + key);
    const document_ = Bokeh.documents.find((d) => d.get_model_by_id(item.root_id));
    figures[key] = document_.get_model_by_id(item.root_id);
  }

  const tag = (renderer, key) =>
    renderer.tags.find((t) => t.startsWith(key + ":"))?.slice(key.length + 1);
  // Number of the solver or other series that a renderer belongs to; -1 for none.
  const seriesOf = (renderer) => Number(tag(renderer, "solver") ?? -1);

  // --- downloads ---

  // Columns of a renderer that are downloaded; others serve the drawing alone.
  const columnsOf = (renderer) =>
    Object.keys(renderer.data_source.data).filter(
      (name) => !name.startsWith("_") && name !== "index");

  function csv({ names, rows }) {
    const cell = (value) => {
      const text = value === null || Number.isNaN(value) ? "" : value === Infinity ? "inf" : String(value);
      return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
    };
    return [names, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  }

  function download(name, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = name + ".csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // --- light and dark ---

  const dark = matchMedia("(prefers-color-scheme: dark)");

  function recolour() {
    const ink = dark.matches ? "#b8b8b8" : "#555555";
    for (const figure of Object.values(figures)) {
      for (const axis of [...figure.below, ...figure.left])
        axis.setv({ axis_label_text_color: ink, major_label_text_color: ink });
      for (const label of figure.center.filter((m) => m.type === "Label")) label.text_color = ink;
    }
  }

  dark.addEventListener("change", recolour);

  return { data, figures, embed, tag, seriesOf, columnsOf, csv, download, recolour };
})();

// A click on a heading sorts its table, a second one in reverse; numbers are compared as numbers.
document.addEventListener("click", (event) => {
  const head = event.target.closest("thead th");
  if (!head) return;
  const body = head.closest("table").tBodies[0];
  const column = head.cellIndex, sign = head.dataset.sorted === "up" ? -1 : 1;
  for (const other of head.parentNode.cells) delete other.dataset.sorted;
  head.dataset.sorted = sign > 0 ? "up" : "down";
  const text = (row) => row.cells[column].innerText.trim();
  const value = (row) => {
    const found = /^[-−]?[\d.,]+(e[-+]?\d+)?/.exec(text(row));
    return found ? Number(found[0].replaceAll(",", "").replace("−", "-")) : NaN;
  };
  const numeric = (row) => !Number.isNaN(value(row));
  [...body.rows]
    .sort((a, b) => {
      if (numeric(a) && numeric(b)) return sign * (value(a) - value(b));
      if (numeric(a) !== numeric(b)) return numeric(a) ? -1 : 1;
      return sign * text(a).localeCompare(text(b));
    })
    .forEach((row) => body.append(row));
});
