"use strict";
// Settings and results of two runs or more, side by side.

lab.views.differences = {
  title: "Differences",
  mount(root) {
    this.about = h("div");
    this.controls = h("div", { class: "controls" });
    this.box = h("div", { class: "scroll" });
    root.append(h("h1", {}, "Differences"), this.about, this.controls, this.box);
  },
  draw() {
    const shown = shownRuns(12);
    const { runs } = shown;
    this.about.replaceChildren(...[aboutShown(shown)].filter(Boolean));
    this.controls.replaceChildren(toggle("Also what is equal", lab.state.all, (all) => change({ all })));
    if (runs.length < 2) {
      this.box.replaceChildren(h("p", { class: "empty" }, "Select two runs or more to compare them."));
      return;
    }
    const has = (key) => runs.some((run) => setting(run, key) !== null);
    const all = Object.keys(lab.index.settings).filter((key) => !lab.index.not_choices.includes(key.split(".")[0]) && has(key));
    const different = new Set(differing(runs, { seeds: true }));
    const keys = lab.state.all ? all : all.filter((key) => different.has(key));
    const measured = Object.keys(lab.index.metrics).filter((name) => runs.some((run) => metric(run, name) !== null));
    const names = labels(runs);
    const row = (key, cells, differs) => h("tr", { class: differs ? "differs" : "" }, h("th", { scope: "row", class: "mono" }, key), cells);
    this.box.replaceChildren(h("table", { class: "differences" },
      h("thead", {}, h("tr", {}, h("td", {}), runs.map((run, k) => h("th", { scope: "col" }, link({ view: "run", run: run.id }, {}, names[k]))))),
      h("tbody", {}, h("tr", { class: "part" }, h("th", { scope: "rowgroup", colspan: runs.length + 1 }, `Settings${keys.length ? "" : ": none differ"}`)),
        keys.map((key) => row(key, runs.map((run) => h("td", { class: `mono ${setting(run, key) === setting(runs[0], key) ? "" : "other"}`, title: setting(run, key) ?? "" }, setting(run, key) ?? DASH)), lab.state.all && different.has(key)))),
      measured.length > 0 && h("tbody", {}, h("tr", { class: "part" }, h("th", { scope: "rowgroup", colspan: runs.length + 1 }, "Metrics, the last values")),
        measured.map((name) => {
          const values = runs.map((run) => metric(run, name));
          const known = values.filter((value) => value !== null);
          const better = lab.index.described[name]?.better;
          const best = known.length > 1 && new Set(known).size > 1 && better ? Math[better === "lower" ? "min" : "max"](...known) : null;
          return row(name, values.map((value) => h("td", { class: `num ${value !== null && value === best ? "best" : ""}` }, number(value))), false);
        }))));
  },
};
