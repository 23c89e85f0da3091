"use strict";
// Targets are switched off and on for all charts at once; renderers say by a tag which one they
// belong to.
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const figures = {};
  const active = new Set(data.series.keys());
  const seriesOf = (renderer) => {
    const tag = renderer.tags.find((t) => t.startsWith("solver:"));
    return tag === undefined ? -1 : Number(tag.slice("solver:".length));
  };
  const isShown = (renderer) => seriesOf(renderer) < 0 || active.has(seriesOf(renderer));

  async function embed(key) {
    const item = data.figures[key];
    await Bokeh.embed.embed_item(item, "plot-" + key);
    const document_ = Bokeh.documents.find((d) => d.get_model_by_id(item.root_id));
    figures[key] = document_.get_model_by_id(item.root_id);
  }

  function refresh() {
    for (const figure of Object.values(figures))
      for (const renderer of figure.renderers) renderer.visible = isShown(renderer);
    for (const box of document.querySelectorAll("[data-toggle]"))
      box.checked = active.has(Number(box.dataset.toggle));
  }

  // --- downloads ---

  function chartTable(key) {
    let names = ["series"];
    const rows = [];
    for (const renderer of figures[key].renderers) {
      if (!renderer.tags.includes("csv") || !isShown(renderer)) continue;
      const columns = renderer.data_source.data;
      const keys = Object.keys(columns).filter((name) => !name.startsWith("_") && name !== "index");
      names = ["series", ...keys];
      for (let i = 0; i < columns[keys[0]].length; i++)
        rows.push([data.series[seriesOf(renderer)], ...keys.map((name) => columns[name][i])]);
    }
    return { names, rows };
  }

  function csvOf(key) {
    const cell = (value) => {
      const text = value === null || Number.isNaN(value) ? "" : String(value);
      return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
    };
    const { names, rows } = data.tables[key] ?? chartTable(key);
    return [names, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  }

  function download(key) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csvOf(key)], { type: "text/csv" }));
    link.download = key + ".csv";
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

  // --- begin ---

  for (const box of document.querySelectorAll("[data-toggle]"))
    box.addEventListener("change", () => {
      const index = Number(box.dataset.toggle);
      box.checked ? active.add(index) : active.delete(index);
      refresh();
    });
  document.getElementById("all").addEventListener("click", () => {
    data.series.forEach((_, i) => active.add(i));
    refresh();
  });
  for (const button of document.querySelectorAll(".csv"))
    button.addEventListener("click", () => download(button.dataset.chart ?? button.dataset.table));
  dark.addEventListener("change", recolour);

  for (const key of Object.keys(data.figures)) await embed(key);
  recolour();
  refresh();
  // For the browser's console, and tests.
  window.report = { data, figures, csvOf };
  document.body.dataset.ready = "yes";
})();
