"use strict";
// One run: how it went, what it measured, what it drew, how to do it again.

function section(title, ...children) {
  return h("section", {}, h("h2", {}, title), children);
}

function results(tables) {
  return tables.map((table) => h("div", { class: "result" }, h("h3", {}, table.title),
    h("div", { class: "scroll" }, h("table", { class: "numbers" },
      h("thead", {}, h("tr", {}, h("td", {}), table.columns.map((head) => h("th", { scope: "col", class: "num" }, head)))),
      h("tbody", {}, table.rows.map((row) => h("tr", { class: row.reference ? "reference" : "" }, h("th", { scope: "row" }, row.name),
        row.cells.map((cell) => h("td", { class: `num ${cell.best ? "best" : ""}` }, cell.text, cell.deviation && h("small", {}, ` ${cell.deviation}`)))))))),
    table.explanation && h("p", { class: "note" }, table.explanation)));
}

function copyable(text) {
  const button = h("button", { type: "button", class: "quiet", onclick: async () => {
    try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; } catch { button.textContent = "Select and copy it"; }
  } }, "Copy");
  return h("div", { class: "command" }, h("pre", {}, text), button);
}

lab.views.run = {
  mount(root) { this.root = h("article", { class: "run" }); root.append(this.root); },
  async draw() {
    const run = lab.index.byId.get(lab.state.run);
    if (!run) {
      this.root.replaceChildren(h("p", { class: "empty" }, "This run is not here (any more). ", link({ view: "runs", run: "" }, {}, "All runs")));
      return;
    }
    if (this.drawn === `${run.id} ${run.version} ${run.step} ${run.status} ${lab.themed()}` && this.root.childElementCount) return;
    const ask = this.ask = Symbol("newest");
    const [item] = await details([run]);
    if (ask !== this.ask || !this.root.isConnected) return;
    const same = this.drawn?.startsWith(run.id);
    this.drawn = `${run.id} ${run.version} ${run.step} ${run.status} ${lab.themed()}`;
    const opened = new Set([...this.root.querySelectorAll("details[open]")].map((one) => one.dataset.name));
    if (!item) {
      this.root.replaceChildren(this.head(run, null), h("p", { class: "empty" }, "The files of this run cannot be read."));
      return;
    }
    const names = usualMetrics([item]);
    const others = Object.keys(item.curves).filter((name) => !names.includes(name) && /^(train|optim|perf)\//.test(name)).slice(0, 8);
    const panels = [...names, ...others].map((name) => panel(name, [item], { x: "step", log: false, logx: false, mean: false, smooth: 0, values: true }, same ? this.root : h("div")));
    this.root.replaceChildren(...[
      this.head(run, item),
      item.problems.length > 0 && h("div", { class: "alert" }, h("h2", {}, "Some files could not be read"), item.problems.map((text) => h("p", {}, text))),
      item.tiles.length > 0 && h("dl", { class: "tiles" }, item.tiles.map(([label, value, note]) => h("div", {}, h("dt", {}, label), h("dd", {}, value, note && h("small", {}, note))))),
      section("Results", item.results.length ? results(item.results) : h("p", { class: "note" }, run.status === "running" ? "There is no final evaluation yet." : "There is no final evaluation.")),
      section("Curves", panels.length ? h("div", { class: "panels" }, panels.map((made) => made.box)) : h("p", { class: "note" }, "Nothing has been logged yet.")),
      (item.pictures.length > 0 || item.readings.length > 0) && section("Pictures",
        h("div", { class: "pictures" }, item.pictures.map((shown) => {
          const step = Math.max(...Object.keys(shown.files).map(Number));
          return h("figure", {}, h("figcaption", {}, h("b", {}, shown.title), h("span", { class: "step" }, `step ${count(step)}`)), picture(run, shown, step));
        })),
        item.readings.map((reading) => h("div", {}, h("h3", {}, reading.title), h("p", { class: "note" }, reading.caption), prose(reading.last)))),
      section("How to do it again",
        item.command ? copyable(item.command) : h("p", { class: "note" }, "What was asked is not known: overrides.yaml cannot be read."),
        item.config && h("details", { "data-name": "config", open: opened.has("config") }, h("summary", {}, "Whole configuration"), h("pre", { class: "block" }, item.config)),
        h("dl", { class: "facts" }, [["Directory", item.path], ...item.facts].map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))),
    ].filter(Boolean));
    for (const made of panels) await made.draw();
  },
  head(run, item) {
    const on = lab.state.sel.includes(run.id);
    return h("header", {},
      h("p", { class: "crumbs" }, link({ view: "runs", run: "" }, {}, "Runs"), " / ", run.sweep && [link({ view: "sweep", scope: run.sweep.id, run: "" }, {}, `sweep ${run.sweep.name}`), " / "], run.sweep ? trial(run) : run.folder),
      h("h1", {}, run.name, " ", pill(run.status)),
      h("p", { class: "note" }, [run.method, run.data, run.encoder].filter(Boolean).join(" · "), run.seed !== null && ` · seed ${run.seed}`,
        run.step !== null && ` · step ${count(run.step)}`, run.epoch !== null && ` · epoch ${count(run.epoch)}`, ` · ${duration(run.wall)} · ${when(run.started)}`),
      h("p", { class: "actions" },
        h("button", { type: "button", onclick: () => { this.drawn = ""; select([run.id], !on); } }, on ? "Selected: take out" : "Select for comparison"),
        item?.report && h("a", { class: "button", href: `runs/${run.id}/report.html`, target: "_blank", rel: "noopener" }, "Report")),
      item?.error && run.status !== "finished" && h("div", { class: "alert failed" }, h("h2", {}, run.status === "failed" ? "It failed" : "It stopped"), h("pre", {}, item.error)));
  },
};
