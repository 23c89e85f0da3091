// Solvers and target are chosen once for all charts; charts are figures of Bokeh whose renderers
// say by tags which solver and target they belong to.
(async () => {
  const { data, figures, embed, tag, seriesOf, columnsOf, csv, download, recolour } = charts;
  const active = new Set(data.solvers.keys());
  let target = data.target;

  // --- what is shown ---

  function isShown(renderer) {
    const solver = seriesOf(renderer);
    const of = tag(renderer, "target");
    return (solver < 0 || active.has(solver)) && (of === undefined || of === target);
  }

  function refresh() {
    redrawProfile();
    for (const figure of Object.values(figures))
      for (const renderer of figure.renderers) renderer.visible = isShown(renderer);
    for (const row of document.querySelectorAll("[data-solver]"))
      row.hidden = !active.has(Number(row.dataset.solver));
    for (const box of document.querySelectorAll("[data-toggle]"))
      box.checked = active.has(Number(box.dataset.toggle));
    for (const word of document.querySelectorAll(".target"))
      word.textContent = "gap ≤ " + target;
  }

  // --- the performance profile, which depends on the set of solvers ---

  function profile(costs, solvers) {
    const ratios = new Map(solvers.map((s) => [s, []]));
    for (const row of costs) {
      const cost = solvers.map((s) => (row[s] === null ? Infinity : Math.max(row[s], data.resolution)));
      const best = Math.min(...cost);
      solvers.forEach((s, i) => ratios.get(s).push(cost[i] < Infinity ? cost[i] / best : Infinity));
    }
    const curves = new Map();
    for (const [s, values] of ratios) {
      const finite = values.filter((v) => v < Infinity);
      const tau = [...new Set([1, ...finite])].sort((a, b) => a - b);
      const share = tau.map((t) => values.filter((v) => v <= t).length / costs.length);
      curves.set(s, { tau, share });
    }
    return curves;
  }

  function redrawProfile() {
    const figure = figures.profile;
    if (!figure) return;
    const curves = profile(data.costs[target], [...active].sort((a, b) => a - b));
    const last = Math.max(1, ...[...curves.values()].map((c) => c.tau.at(-1)));
    const end = Math.max(last * 1.2, 2);
    figure.x_range.setv({ start: 1, end, reset_start: 1, reset_end: end });
    figure.below[0].ticker.ticks = ticks(end);
    for (const renderer of figure.renderers) {
      const curve = curves.get(seriesOf(renderer));
      if (!curve) continue;
      const tau = [...curve.tau, end];
      const share = [...curve.share, curve.share.at(-1)];
      const few = renderer.tags.includes("marks") ? evenly(tau, 9) : [...tau.keys()];
      renderer.data_source.data = { tau: few.map((i) => tau[i]), share: few.map((i) => share[i]) };
    }
  }

  // 1, 2, 5, 10, … up to the end; powers of ten alone where these are too many.
  function ticks(end) {
    const decades = [...Array(Math.floor(Math.log10(end)) + 1).keys()];
    const steps = end <= 200 ? [1, 2, 5] : [1];
    const all = decades.flatMap((d) => steps.map((s) => s * 10 ** d)).filter((t) => t <= end);
    const every = Math.ceil(all.length / 8);
    return all.filter((_, i) => i % every === 0);
  }

  // Positions of at most `most` points, even in the logarithm.
  function evenly(values, most) {
    if (values.length <= most) return [...values.keys()];
    const step = Math.log(values.at(-1) / values[0]) / (most - 1);
    const place = (i) => Math.floor(Math.log(values[i] / values[0]) / step);
    return [...values.keys()].filter(
      (i) => i === 0 || i === values.length - 1 || place(i) !== place(i + 1));
  }

  // --- one problem ---

  const FLOOR = 1e-7;

  function fillProblem(index) {
    const figure = figures.problem;
    const runs = data.curves[index];
    for (const renderer of figure.renderers) {
      const mine = runs.filter((run) => run[0] === seriesOf(renderer));
      const ends = mine.map(([, , t]) => Math.max(t.at(-1), data.span[0]));
      if (renderer.tags.includes("line")) {
        const stairs = mine.map(([, , t, g]) => stair(t, g));
        renderer.data_source.data = { xs: stairs.map((s) => s.x), ys: stairs.map((s) => s.y) };
      } else {
        renderer.data_source.data = { x: ends, y: mine.map((run) => Math.max(run[3].at(-1), FLOOR)) };
      }
    }
    figure.reset.emit();
  }

  // The gap is 1 before the first feasible state, and at most 1.
  function stair(t, g) {
    const x = [data.span[0]], y = [1];
    t.forEach((seconds, i) => {
      const at = Math.max(seconds, data.span[0]);
      const gap = Math.min(Math.max(g[i], FLOOR), 1);
      x.push(at, at);
      y.push(y.at(-1), gap);
    });
    x.push(data.span[1]);
    y.push(y.at(-1));
    return { x, y };
  }

  let problem = null;

  async function navigate() {
    const wanted = /^#problem-(\d+)$/.exec(location.hash);
    const index = wanted ? Number(wanted[1]) : null;
    const section = index === null ? null : document.getElementById("problem-" + index);
    const back = problem !== null && section === null;
    problem = section ? index : null;
    document.body.classList.toggle("one", section !== null);
    document.querySelectorAll(".problem.current").forEach((s) => s.classList.remove("current"));
    if (section) {
      section.classList.add("current");
      section.querySelector(".slot").append(document.getElementById("chart-problem"));
      await embed("problem");
      recolour();
      fillProblem(index);
      refresh();
      scrollTo(0, 0);
    } else if (back) {
      document.getElementById("problems").scrollIntoView();
    }
  }

  // --- downloads ---

  function tableOf(key) {
    if (key === "problem") {
      const rows = data.curves[problem].filter((run) => active.has(run[0]));
      return {
        names: ["problem", "solver", "seed", "seconds", "gap"],
        rows: rows.flatMap(([solver, seed, t, g]) =>
          t.map((seconds, i) => [data.problems[problem], data.solvers[solver], seed, seconds, g[i]])),
      };
    }
    let names = null;
    const rows = [];
    for (const renderer of figures[key].renderers) {
      if (!renderer.tags.includes("csv") || !isShown(renderer)) continue;
      const columns = renderer.data_source.data;
      const keys = columnsOf(renderer);
      const of = tag(renderer, "target");
      const fixed = [data.solvers[seriesOf(renderer)], ...(of === undefined ? [] : [of])];
      names = ["solver", ...(of === undefined ? [] : ["target"]), ...keys];
      for (let i = 0; i < columns[keys[0]].length; i++)
        rows.push([...fixed, ...keys.map((name) => columns[name][i])]);
    }
    return { names: names ?? ["solver"], rows };
  }

  const csvOf = (key) => csv(tableOf(key));
  const fileOf = (key) => (key === "problem" ? "problem-" + problem : key);

  // --- begin ---

  document.body.classList.add("charted");
  for (const box of document.querySelectorAll("[data-toggle]"))
    box.addEventListener("change", () => {
      const index = Number(box.dataset.toggle);
      box.checked ? active.add(index) : active.delete(index);
      refresh();
    });
  document.getElementById("all").addEventListener("click", () => {
    data.solvers.forEach((_, i) => active.add(i));
    refresh();
  });
  document.getElementById("target").addEventListener("change", (event) => {
    target = event.target.value;
    refresh();
  });
  for (const button of document.querySelectorAll(".csv"))
    button.addEventListener("click", () => download(fileOf(button.dataset.chart), csvOf(button.dataset.chart)));
  addEventListener("hashchange", navigate);

  for (const key of Object.keys(data.figures)) if (key !== "problem") await embed(key);
  recolour();
  refresh();
  await navigate();
  // For the browser's console, and tests.
  window.report = { data, figures, csvOf, profile };
  document.body.dataset.ready = "yes";
})();
