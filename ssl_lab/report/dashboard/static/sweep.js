"use strict";
// A sweep as a whole: parallel coordinates, one setting against a metric, and which settings mattered.

const MAX_AXES = 9;

function scopes() {
  const sweeps = new Map();
  for (const run of lab.index.runs) {
    if (run.sweep) sweeps.set(run.sweep.id, { name: run.sweep.name, num: (sweeps.get(run.sweep.id)?.num ?? 0) + 1 });
  }
  const found = [...sweeps].map(([id, { name, num }]) => [id, `${name} (${num})`]);
  return [...found, ["all", `All runs (${lab.index.runs.length})`], ["chosen", `Selected runs (${lab.state.sel.length})`]];
}

function runsOf(scope) {
  if (scope === "all") return lab.index.runs;
  if (scope === "chosen") return lab.state.sel.map((id) => lab.index.byId.get(id)).filter(Boolean);
  return lab.index.runs.filter((run) => run.sweep?.id === scope);
}

// Values of a setting along an axis: numbers as they are, on a logarithmic scale where they span a lot, names evenly spread.
function axisOf(runs, key) {
  const values = runs.map((run) => valueOf(setting(run, key)));
  if (values.every((value) => typeof value === "number")) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const log = low > 0 && high / low >= 20;
    const marks = [...new Set(values)].sort((a, b) => a - b);
    const ticks = marks.length <= 6 ? marks : log ? [low, Math.sqrt(low * high), high] : null;
    return { values: log ? values.map(Math.log10) : values, raw: values, numeric: true, log,
      ticks: ticks && { at: log ? ticks.map(Math.log10) : ticks, text: ticks.map(number) } };
  }
  const names = [...new Set(values.map((value) => value ?? DASH))].sort((a, b) => compare(a, b));
  const text = names.map((name) => { const short = brief(String(name)); return short.length > 18 ? `${short.slice(0, 17)}…` : short; });
  return { values: values.map((value) => names.indexOf(value ?? DASH)), raw: values.map((value) => brief(String(value ?? DASH))), numeric: false,
    ticks: { at: names.map((_, k) => k), text } };
}

function targets(runs) {
  return Object.keys(lab.index.metrics).filter((name) => runs.filter((run) => metric(run, name) !== null).length > 1);
}

lab.views.sweep = {
  title: "Sweep",
  mount(root) {
    this.controls = h("div", { class: "controls" });
    this.note = h("p", { class: "note" });
    this.parallel = h("div");
    this.pointed = h("span", { class: "pointed" });
    this.ranges = h("p", { class: "note" });
    this.scatter = h("div", { class: "plot" });
    this.importance = h("div", { class: "importance" });
    this.asked = "";
    this.pick = h("div");
    this.first = h("figure", { class: "panel wide" }, h("figcaption", {}, h("b", {}, "Parallel coordinates"),
      h("span", {}, "A line is a run, the bluer the better. Drag along an axis to keep a range."), this.pointed),
      h("div", { class: "scroll" }, this.parallel), this.ranges);
    this.second = h("figure", { class: "panel" }, h("figcaption", {}, h("b", {}, "One setting"), h("span", {}, "A point is a run; choose it to open its page.")), this.pick, this.scatter);
    this.third = h("figure", { class: "panel" }, h("figcaption", {}, h("b", {}, "What mattered")), this.importance);
    this.body = h("div", { class: "sweep" }, this.first, this.second, this.third);
    root.append(h("h1", {}, "Sweep"), this.controls, this.note, this.body);
  },
  draw() {
    const options = scopes();
    const scope = options.some(([id]) => id === lab.state.scope) ? lab.state.scope
      : lab.state.sweep && lab.state.sweep !== "none" ? lab.state.sweep : options[0][0];
    const all = runsOf(scope);
    const names = targets(all);
    const objective = all.map((run) => run.objective).find((name) => names.includes(name));
    const target = names.includes(lab.state.target) ? lab.state.target : objective ?? names[0] ?? "";
    const runs = all.filter((run) => metric(run, target) !== null);
    const keys = independent(runs);
    const px = keys.includes(lab.state.px) ? lab.state.px : keys[0] ?? "";
    const focused = document.activeElement?.closest?.(".field")?.textContent;
    this.controls.replaceChildren(
      choice("Runs", options, scope, (value) => change({ scope: value })),
      choice("Metric", names.map((name) => [name, name]), target, (value) => change({ target: value })));
    this.pick.replaceChildren(choice("Setting", keys.map((key) => [key, key]), px, (value) => change({ px: value })));
    const same = [...this.controls.querySelectorAll(".field"), ...this.pick.querySelectorAll(".field")].find((one) => one.textContent === focused);
    same?.querySelector("select").focus();
    const without = all.length - runs.length;
    const enough = runs.length > 1 && keys.length > 0;
    this.note.textContent = enough
      ? `${count(runs.length)} runs, ${keys.length} setting${keys.length > 1 ? "s differ" : " differs"}${without ? `; ${count(without)} without ${target} are left out` : ""}.`
      : `There is nothing to compare: ${runs.length} run${runs.length === 1 ? " has" : "s have"} ${target || "a metric"}, and ${keys.length} settings differ between them.`;
    this.body.hidden = !enough;
    if (!enough) return;
    const kept = this.drawParallel(runs, keys.slice(0, MAX_AXES), target);
    this.drawScatter(runs, px, target, kept);
    this.drawImportance(scope, target, runs);
  },
  drawParallel(runs, keys, target) {
    const values = runs.map((run) => metric(run, target));
    const end = { key: "metric", label: baseName(target).split("/").slice(-2).join("/") + target.slice(baseName(target).length), ...spread(values) };
    const axes = [...keys.map((key) => { const { values: at, ticks } = axisOf(runs, key); return { key, label: short(key), ...spread(at, ticks) }; }), end];
    const lower = lab.index.described[target]?.better === "lower" || baseName(target).endsWith("/loss");
    const ranges = new Map(lab.state.keep.map((text) => text.split("~")).map(([key, low, high]) => [key, [Number(low), Number(high)]]));
    const kept = keptBy(axes, ranges);
    const names = labels(runs);
    parallel(this.parallel, { axes, ranges, names: names.map((name, k) => `${name}: ${number(values[k])}`), shades: end.at.map((at) => (lower ? 1 - at : at)),
      onpick: (k) => change({ view: "run", run: runs[k].id }), describe: (text) => { this.pointed.textContent = text; },
      onrange: (key, range) => change({ keep: [...lab.state.keep.filter((text) => text.split("~")[0] !== key),
        ...(range ? [`${key}~${range[0].toFixed(3)}~${range[1].toFixed(3)}`] : [])] }) });
    const num = kept.filter(Boolean).length;
    this.ranges.replaceChildren(...(ranges.size ? [`${count(num)} of ${count(runs.length)} runs are in range. `,
      h("button", { type: "button", class: "quiet", onclick: () => change({ sel: runs.filter((_, k) => kept[k]).map((run) => run.id) }) }, "Select them"),
      h("button", { type: "button", class: "quiet", onclick: () => change({ keep: [] }) }, "Clear ranges")] : []));
    return kept;
  },
  drawScatter(runs, key, target, kept) {
    const { raw, numeric, log } = axisOf(runs, key);
    const names = labels(runs);
    plot(this.scatter, [{
      type: "scatter", mode: "markers", x: raw, y: runs.map((run) => metric(run, target)), customdata: runs.map((run) => run.id),
      text: names.map(escaped), hovertemplate: "<b>%{text}</b><br>%{x}: %{y:.5~g}<extra></extra>",
      marker: { size: 9, color: kept.map((is) => colour("--c0", is ? 0.65 : 0.12)), line: { width: 1, color: colour("--card") } },
    }], layout({ xaxis: { title: escaped(key), type: numeric ? (log ? "log" : "linear") : "category" }, yaxis: { title: escaped(target) } }), {
      label: `${target} of ${runs.length} runs over ${key}`,
      onclick: (event) => change({ view: "run", run: event.points[0].customdata }),
    });
  },
  async drawImportance(scope, target, runs) {
    const ask = `${scope} ${target} ${runs.map((run) => metric(run, target)).join()}`;
    if (ask === this.asked) return;
    this.asked = ask;
    const say = (text) => this.importance.replaceChildren(h("p", { class: "note" }, text));
    if (scope === "chosen") { say("Choose a sweep or all runs to see importances."); return; }
    say("Computing …");
    let found = null;
    try {
      found = (await load(`importance/${scope}`, `?metric=${encodeURIComponent(target)}`))[target];
    } catch (error) { say(error.message); return; }
    if (this.asked !== ask) return;
    if (!found) { say("These files hold the importances for the objective alone. ssl-lab dashboard without --out computes any."); return; }
    if (!found.settings.length) { say(`Needs ${found.needed} runs or more that differ in their settings and in ${target}; there are ${found.num_runs} with a value.`); return; }
    this.importance.replaceChildren(
      h("table", { class: "bars" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Setting"), h("th", { scope: "col" }, "Share"), h("th", { scope: "col", class: "num", title: "Spearman's rank correlation with the metric" }, "Rank corr."))),
        h("tbody", {}, found.settings.slice(0, 12).map((row) => h("tr", {},
          h("th", { scope: "row", title: row.key }, row.key),
          h("td", {}, h("span", { class: "track" }, h("i", { style: `width: ${(100 * row.share).toFixed(1)}%` })), h("b", {}, `${Math.round(100 * row.share)} %`)),
          h("td", { class: "num" }, row.rho === null ? DASH : row.rho.toFixed(2)))))),
      h("p", { class: "note" }, `Permutation importance in a random forest (scikit-learn, 100 trees) of ${found.num_runs} runs: how much worse it predicts ${target} `
        + "when one setting is shuffled between runs, as a share of the sum. "
        + (found.r2 === null ? "There are too few runs to say how well the forest predicts." : `On runs that a tree has not seen it explains R² = ${found.r2.toFixed(2)}${found.r2 < 0.3 ? ": too little to trust the shares" : ""}.`)));
  },
};
