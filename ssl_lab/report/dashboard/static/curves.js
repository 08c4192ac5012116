"use strict";
// Metrics over steps, training time or samples: each run, or the mean and deviation of equal configurations.

const X_AXES = [["step", "Optimizer steps"], ["time", "Training time, s"], ["samples", "Samples"]];

// Training time at given steps: steps over the logged speed, or evenly spread over the wall time where no speed is logged.
function timesAt(item, steps) {
  const speed = item.curves["perf/samples_per_sec"];
  if (!speed || !item.samples_per_step) {
    const last = Math.max(1, item.run.step ?? 1, ...steps.slice(-1));
    return item.run.wall === null ? null : steps.map((step) => item.run.wall * step / last);
  }
  const known = [0];
  const at = [0];
  speed.step.forEach((step, k) => {
    if (!(speed.value[k] > 0)) return;
    known.push(known.at(-1) + Math.max(0, step - at.at(-1)) * item.samples_per_step / speed.value[k]);
    at.push(step);
  });
  return steps.map((step) => between(at, known, step, true));
}

// Linear between known points; beyond them null, or on with the last slope.
function between(xs, ys, x, beyond = false) {
  let low = 0;
  let high = xs.length - 1;
  if (high < 0 || x < xs[0] || (x > xs[high] && !beyond)) return null;
  if (high === 0) return ys[0];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle;
    else high = middle;
  }
  return xs[high] === xs[low] ? ys[high] : ys[low] + (ys[high] - ys[low]) * (x - xs[low]) / (xs[high] - xs[low]);
}

// A moving average that forgets exponentially, without the pull of its start towards zero.
function smoothed(values, weight) {
  let mean = 0;
  let sum = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    sum = weight * sum + (1 - weight);
    return mean / sum;
  });
}

function lineOf(item, name, axis) {
  const curve = item.curves[name];
  if (!curve) return null;
  const x = axis === "step" ? curve.step : axis === "time" ? timesAt(item, curve.step)
    : item.samples_per_step ? curve.step.map((step) => step * item.samples_per_step) : null;
  if (!x) return null;
  const kept = x.map((_, k) => k).filter((k) => curve.value[k] !== null);
  return { x: kept.map((k) => x[k]), y: kept.map((k) => curve.value[k]), steps: kept.map((k) => curve.step[k]) };
}

const MAX_GRID = 400;

// Lines of equal configurations as one: mean and sample deviation wherever half of them or more have values.
function meanLine(lines) {
  let grid = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  if (grid.length > MAX_GRID) {
    const [first, last] = [grid[0], grid.at(-1)];
    grid = Array.from({ length: MAX_GRID }, (_, k) => first + (last - first) * k / (MAX_GRID - 1));
  }
  const points = { x: [], y: [], low: [], high: [] };
  for (const x of grid) {
    const values = lines.map((line) => between(line.x, line.y, x)).filter((value) => value !== null);
    if (!values.length || 2 * values.length < lines.length) continue;
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const deviation = values.length > 1 ? Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1)) : 0;
    points.x.push(x);
    points.y.push(mean);
    points.low.push(mean - deviation);
    points.high.push(mean + deviation);
  }
  return points;
}

// What is drawn together: one run each, or runs that share all settings but the seed.
function series(items, mean) {
  if (!mean) {
    const names = labels(items.map((item) => item.run));
    return items.map((item, k) => ({ label: names[k], items: [item], place: k }));
  }
  const groups = [...Map.groupBy(items, (item) => item.run.group).values()];
  const firsts = groups.map((group) => group[0].run);
  const keys = independent(firsts);
  const order = firsts.map((run) => [run.name, ...keys.map((key) => valueOf(setting(run, key)))]);
  const names = labels(firsts, { seeds: false });
  return groups.map((group, k) => ({ label: `${names[k]} (${group.length} seed${group.length > 1 ? "s" : ""})`, items: group, order: order[k] }))
    .sort((a, b) => a.order.map((value, k) => compare(value, b.order[k])).find((sign) => sign) ?? 0)
    .map((one, place) => ({ ...one, place }));
}

function tracesOf(one, name, { x, smooth, values }) {
  const { name: variable, dash } = lineStyle(one.place);
  const line = { color: colour(variable), width: 1.8, dash };
  const lines = one.items.map((item) => lineOf(item, name, x)).filter((found) => found?.x.length);
  if (!lines.length) return [];
  const label = escaped(one.label);
  const smoothing = smooth > 0 ? lines.map((found) => ({ ...found, y: smoothed(found.y, smooth) })) : lines;
  const single = lines[0].x.length === 1;  // a large dot, with its value where no other could cover it
  const shape = { type: "scatter", mode: single && values ? "markers+text" : lines[0].x.length < 25 ? "lines+markers" : "lines",
    marker: { size: single ? 10 : 4.5, color: line.color },
    ...(single && values && { texttemplate: "%{y:.4~g}  ", textposition: "middle left", textfont: { color: colour("--muted") } }) };
  const hover = `<b>${label}</b><br>%{x:,.6~g}: %{y:.5~g}<extra></extra>`;
  if (one.items.length === 1) {
    const [raw] = lines;
    const faint = smooth > 0 ? [{ ...shape, mode: "lines", x: raw.x, y: raw.y, line: { ...line, width: 1 }, opacity: 0.25, hoverinfo: "skip" }] : [];
    return [...faint, { ...shape, x: raw.x, y: smoothing[0].y, name: label, line, hovertemplate: hover }];
  }
  const points = meanLine(smoothing);
  const edge = { type: "scatter", mode: "lines", x: points.x, line: { width: 0, color: line.color }, hoverinfo: "skip" };
  return [
    { ...edge, y: points.low },
    { ...edge, y: points.high, fill: "tonexty", fillcolor: colour(variable, 0.16), meta: "band" },
    { ...shape, x: points.x, y: points.y, name: label, line, customdata: points.high.map((high, k) => high - points.y[k]),
      hovertemplate: `<b>${label}</b><br>%{x:,.6~g}: %{y:.5~g} ± %{customdata:.3~g}<extra></extra>` },
  ];
}

// Loss and objective at first: what most runs have in common.
function usualMetrics(items) {
  const has = (name) => items.some((item) => item.curves[name]);
  const objective = items.map((item) => item.run.objective && baseName(item.run.objective)).find((name) => name && has(name));
  const names = ["train/loss", objective, "eval/knn/top1", "eval/linear/top1"].filter((name) => name && has(name));
  return [...new Set(names)].slice(0, 3);
}

// A figure of one metric. Where it is drawn already, it stays and changes in place, with its zoom.
function panel(name, items, options, root) {
  const described = lab.index.described[name];
  const shown = series(items, options.mean);
  const traces = shown.flatMap((one) => tracesOf(one, name, options));
  const old = [...root.querySelectorAll(".panel")].find((one) => one.dataset.metric === name && one.querySelector(".plot"));
  const target = old?.querySelector(".plot") ?? h("div", { class: "plot" });
  const box = (traces.length && old) || h("figure", { class: "panel", "data-metric": name },
    h("figcaption", {}, h("b", {}, name), described && described.label !== name && h("span", {}, described.label)),
    traces.length ? target : h("p", { class: "note" }, "Not known for these runs along this axis."));
  const title = X_AXES.find(([key]) => key === options.x)[1];
  return { box, draw: () => traces.length && plot(target, traces,
    layout({ uirevision: `${options.x} ${options.log} ${options.logx}`,
      xaxis: { title, type: options.logx ? "log" : "linear" }, yaxis: { type: options.log ? "log" : "linear" } }),
    { label: `${name} of ${shown.length} ${options.mean ? "configurations" : "runs"} over ${title}` }) };
}

function legend(items, mean) {
  return h("ul", { class: "legend" }, series(items, mean).map((one) => h("li", {}, swatch(one.place),
    mean ? one.label : link({ view: "run", run: one.items[0].run.id }, {}, one.label),
    one.items.some((item) => item.run.status === "running") && h("small", {}, " running"))));
}

lab.views.curves = {
  title: "Curves",
  mount(root) {
    this.controls = h("div", { class: "controls" });
    this.about = h("div");
    this.chips = h("div", { class: "chips", role: "group", "aria-label": "Metrics drawn" });
    this.grid = h("div", { class: "panels" });
    root.append(h("h1", {}, "Curves"), this.about, this.controls, this.chips, this.grid);
  },
  async draw() {
    const shown = shownRuns();
    const ask = this.ask = Symbol("newest");
    const items = await details(shown.runs);
    if (ask !== this.ask || !this.grid.isConnected) return;
    const { show, x, log, logx, mean, smooth } = lab.state;
    const known = [...new Set(items.flatMap((item) => Object.keys(item.curves)))].sort();
    const names = show.length ? show : usualMetrics(items);
    this.drawControls(known, names);
    this.about.replaceChildren(...[aboutShown(shown), items.length > 0 && legend(items, mean)].filter(Boolean));
    const panels = names.map((name) => panel(name, items, { x, log, logx, mean, smooth }, this.grid));
    const boxes = panels.map((made) => made.box);
    if (boxes.some((box, k) => this.grid.children[k] !== box) || this.grid.childElementCount !== boxes.length) this.grid.replaceChildren(...boxes);
    if (!names.length) this.grid.replaceChildren(h("p", { class: "empty" }, items.length ? "These runs have logged nothing yet." : "There is no run to draw."));
    for (const made of panels) await made.draw();
  },
  drawControls(known, names) {
    const { x, log, logx, mean, smooth } = lab.state;
    this.chips.replaceChildren(...names.map((name) => h("span", { class: "chip" }, name,
      h("button", { type: "button", "aria-label": `Do not draw ${name}`, onclick: () => change({ show: names.filter((other) => other !== name) }) }, "×"))));
    if (this.controls.contains(document.activeElement) && document.activeElement.type === "range") {
      this.shownSmooth.textContent = smooth.toFixed(2);
      return;
    }
    const id = document.activeElement?.dataset?.key;
    const keyed = (key, element) => { element.querySelector("input, select").dataset.key = key; return element; };
    this.shownSmooth = h("output", {}, smooth.toFixed(2));
    this.controls.replaceChildren(
      keyed("add", choice("Add a metric", [["", "Choose …"], ...known.filter((name) => !names.includes(name)).map((name) => [name, name])], "",
        (name) => name && change({ show: [...names, name] }))),
      keyed("x", choice("Along", X_AXES, x, (value) => change({ x: value }))),
      field("Smoothing", h("span", { class: "range" }, h("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: smooth, "data-key": "smooth",
        oninput: (event) => change({ smooth: Number(event.target.value) }) }), this.shownSmooth)),
      h("div", { class: "toggles" },
        keyed("mean", toggle("Mean over seeds", mean, (on) => change({ mean: on }))),
        keyed("log", toggle("Log y", log, (on) => change({ log: on }))),
        keyed("logx", toggle("Log x", logx, (on) => change({ logx: on })))));
    if (id) this.controls.querySelector(`[data-key="${id}"]`)?.focus();
  },
};
