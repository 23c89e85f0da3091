// Targets are switched off and on for all charts at once; renderers say by a tag which one they
// belong to.
(async () => {
  const { data, figures, embed, seriesOf, columnsOf, csv, download, recolour } = charts;
  const active = new Set(data.series.keys());
  const isShown = (renderer) => seriesOf(renderer) < 0 || active.has(seriesOf(renderer));

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
      const keys = columnsOf(renderer);
      names = ["series", ...keys];
      for (let i = 0; i < columns[keys[0]].length; i++)
        rows.push([data.series[seriesOf(renderer)], ...keys.map((name) => columns[name][i])]);
    }
    return { names, rows };
  }

  const csvOf = (key) => csv(data.tables[key] ?? chartTable(key));

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
    button.addEventListener("click", () => {
      const key = button.dataset.chart ?? button.dataset.table;
      download(key, csvOf(key));
    });

  for (const key of Object.keys(data.figures)) await embed(key);
  recolour();
  refresh();
  // For the browser's console, and tests.
  window.report = { data, figures, csvOf };
  document.body.dataset.ready = "yes";
})();
