"use strict";
// The table of runs: filters, columns, order, selection.

const STATUSES = ["running", "finished", "failed", "interrupted", "preempted", "pruned", "stale", "unknown"];
const CHUNK = 100;

const COLUMNS = {
  name: { label: "Run", value: (run) => run.name, cell: runCell },
  status: { label: "Status", value: (run) => STATUSES.indexOf(run.status), cell: (run) => pill(run.status) },
  method: { label: "Method", value: (run) => run.method },
  data: { label: "Data", value: (run) => run.data },
  encoder: { label: "Encoder", value: (run) => run.encoder },
  seed: { label: "Seed", value: (run) => run.seed, numeric: true },
  value: { label: "Objective", value: (run) => run.value, numeric: true, cell: objectiveCell },
  speed: { label: "Samples/s", value: (run) => run.speed, numeric: true, text: count },
  step: { label: "Step", value: (run) => run.step, numeric: true, text: count },
  started: { label: "Started", value: (run) => run.started, numeric: true, text: when },
  wall: { label: "Wall time", value: (run) => run.wall, numeric: true, text: duration },
};

function column(key) {
  if (COLUMNS[key]) return COLUMNS[key];
  if (key.startsWith("metric:")) {
    const name = key.slice(7);
    return { label: name, value: (run) => metric(run, name), numeric: true, text: number };
  }
  const name = key.replace(/^setting:/, "");
  const numeric = (lab.index.settings[name]?.values ?? []).every((text) => typeof valueOf(text) === "number" || text === "null");
  return { label: name, value: (run) => valueOf(setting(run, name)), numeric, text: (value) => value === null ? DASH : String(value) };
}

function shownColumns() {
  return lab.state.cols.length ? lab.state.cols : Object.keys(COLUMNS);
}

// ---- which runs, in which order

function compare(a, b) {
  const missing = (value) => value === null || value === undefined;
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

const TESTS = {
  "=": (found, wanted) => String(found).toLowerCase() === wanted || found === valueOf(wanted),
  ":": (found, wanted) => String(found).toLowerCase().includes(wanted),
  "!=": (found, wanted) => String(found).toLowerCase() !== wanted,
  ">": (found, wanted) => Number(found) > Number(wanted),
  "<": (found, wanted) => Number(found) < Number(wanted),
  ">=": (found, wanted) => Number(found) >= Number(wanted),
  "<=": (found, wanted) => Number(found) <= Number(wanted),
};

// A word of the search: text that occurs in the run, or KEY<VALUE with a column, a metric, or a setting or the end of one.
function term(word) {
  const match = word.match(/^([\w./+-]+?)(!=|>=|<=|=|:|>|<)(.+)$/);
  if (match) {
    const [, key, sign, wanted] = match;
    const own = COLUMNS[key] && key !== "status" ? COLUMNS[key].value : key === "status" ? (run) => run.status : null;
    const settings = Object.keys(lab.index.settings).filter((name) => name === key || name.endsWith(`.${key}`));
    const metrics = Object.keys(lab.index.metrics).filter((name) => baseName(name) === key);
    const read = own ? [own] : metrics.length ? metrics.map((name) => (run) => metric(run, name)) : settings.map((name) => (run) => valueOf(setting(run, name)));
    return (run) => read.some((value) => value(run) !== null && value(run) !== undefined && TESTS[sign](value(run), wanted));
  }
  return (run) => [run.name, run.place, run.method, run.data, run.encoder, run.status, run.error]
    .some((text) => text && text.toLowerCase().includes(word));
}

function filtered() {
  const { q, status, method, data, encoder, sweep, sort } = lab.state;
  const terms = q.toLowerCase().split(/\s+/).filter(Boolean).map(term);
  const runs = lab.index.runs.filter((run) =>
    (!status.length || status.includes(run.status)) && (!method || run.method === method) && (!data || run.data === data)
    && (!encoder || run.encoder === encoder) && (!sweep || (sweep === "none" ? !run.sweep : run.sweep?.id === sweep))
    && terms.every((matches) => matches(run)));
  const down = sort.startsWith("-");
  const { value } = column(sort.replace(/^-/, ""));
  const keyed = runs.map((run) => [value(run), run]);
  const missing = ([found]) => found === null || found === undefined;
  keyed.sort((a, b) => (missing(a) || missing(b) || !down ? compare(a[0], b[0]) : compare(b[0], a[0])));
  return keyed.map(([, run]) => run);
}

// ---- cells

function runCell(run) {
  const origin = run.sweep
    ? [h("button", { type: "button", class: "tag", title: `Only runs of the sweep ${run.sweep.name}`,
      onclick: () => change({ sweep: run.sweep.id }) }, `sweep ${run.sweep.name}`), " ", trial(run)]
    : [run.place];
  return [
    link({ view: "run", run: run.id }, { class: "name" }, run.name),
    h("div", { class: "place", title: run.place }, origin),
    run.error && h("div", { class: "error", title: run.error }, run.error),
    run.damaged > 0 && h("div", { class: "error" }, `${run.damaged} file${run.damaged > 1 ? "s" : ""} could not be read`),
  ];
}

function objectiveCell(run) {
  return run.value === null ? DASH : [number(run.value), h("small", {}, run.objective)];
}

function rowOf(run, columns) {
  const place = lab.state.sel.indexOf(run.id);
  return h("tr", { role: "row", class: place >= 0 ? "chosen" : "", "data-id": run.id },
    h("td", { role: "cell", class: "pick" },
      h("label", {}, h("input", { type: "checkbox", checked: place >= 0, "aria-label": `Select ${run.name}, ${run.folder}`,
        onchange: (event) => select([run.id], event.target.checked) }), place >= 0 && swatch(place))),
    columns.map(([key, { label, value, numeric, text, cell }]) =>
      h("td", { role: "cell", class: `${key === "name" ? "run" : ""} ${numeric ? "num" : ""} c-${key.split(":")[0]}`, "data-label": label },
        cell ? cell(run) : (text ?? ((found) => found ?? DASH))(value(run)))));
}

function select(ids, on) {
  const others = lab.state.sel.filter((id) => !ids.includes(id));
  change({ sel: on ? [...others, ...ids] : others });
}

// ---- the view

lab.views.runs = {
  title: "Runs",
  mount(root) {
    this.search = h("input", { type: "search", placeholder: "Search, or lr>0.001, status=failed …", value: lab.state.q, id: "search",
      autocomplete: "off", spellcheck: "false", oninput: (event) => change({ q: event.target.value }) });
    this.filters = h("div", { class: "filters" });
    this.wanted = "";
    this.counts = h("div", { class: "counts", role: "group", "aria-label": "Status" });
    this.bar = h("div", { class: "bar", role: "status" });
    this.columns = h("details", { class: "menu" }, h("summary", {}, "Columns"), this.columnMenu = h("div", { class: "sheet" }));
    this.columns.addEventListener("toggle", () => this.columns.open && this.drawMenu(""));
    this.head = h("thead", { role: "rowgroup" });
    this.body = h("tbody", { role: "rowgroup" });
    this.more = h("button", { type: "button", class: "more", onclick: () => this.grow() });
    this.watcher = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && this.grow(), { rootMargin: "600px" });
    root.append(
      h("h1", { class: "hidden" }, "Runs"), this.counts,
      h("div", { class: "controls" }, field("Search", this.search, "wide"), this.filters, this.columns), this.bar,
      h("div", { class: "scroll" }, h("table", { class: "runs", role: "table", "aria-label": "Runs" }, this.head, this.body)), this.more);
    this.watcher.observe(this.more);
  },
  unmount() { this.watcher.disconnect(); },
  draw() {
    this.runs = filtered();
    this.drawFilters();
    this.drawBar();
    this.drawHead();
    const num = Math.max(CHUNK, Math.min(this.body.childElementCount, this.runs.length));
    const key = document.activeElement?.closest?.("tr")?.dataset.id;
    const inside = key && document.activeElement.type === "checkbox";
    this.body.replaceChildren();
    this.append(num);
    if (inside) this.body.querySelector(`tr[data-id="${key}"] input`)?.focus();
    if (!performance.getEntriesByName("runs shown").length) requestAnimationFrame(() => setTimeout(() => performance.mark("runs shown")));
  },
  append(num) {
    const columns = shownColumns().map((key) => [key, column(key)]);
    const from = this.body.childElementCount;
    this.body.append(...this.runs.slice(from, from + num).map((run) => rowOf(run, columns)));
    const rest = this.runs.length - this.body.childElementCount;
    this.more.hidden = rest <= 0;
    this.more.textContent = `Show more (${count(rest)})`;
  },
  grow() { if (!this.more.hidden) this.append(CHUNK); },
  drawFilters() {
    const runs = lab.index.runs;
    const options = (key) => [["", "All"], ...[...new Set(runs.map((run) => run[key]).filter(Boolean))].sort().map((name) => [name, name])];
    const sweeps = new Map(runs.filter((run) => run.sweep).map((run) => [run.sweep.id, run.sweep.name]));
    const inSweeps = [["", "All"], ["none", "In no sweep"], ...[...sweeps].sort((a, b) => compare(a[1], b[1]))];
    const wanted = JSON.stringify([["method", "data", "encoder"].map(options), inSweeps, lab.state.method, lab.state.data, lab.state.encoder, lab.state.sweep]);
    if (wanted !== this.wanted) {
      this.wanted = wanted;
      this.filters.replaceChildren(
        ...["method", "data", "encoder"].map((key) => choice(COLUMNS[key].label, options(key), lab.state[key], (value) => change({ [key]: value }))),
        choice("Sweep", inSweeps, lab.state.sweep, (value) => change({ sweep: value })));
    }
    if (document.activeElement !== this.search) this.search.value = lab.state.q;
    const numbers = new Map();
    for (const run of runs) numbers.set(run.status, (numbers.get(run.status) ?? 0) + 1);
    const had = document.activeElement?.dataset?.status;
    this.counts.replaceChildren(...STATUSES.filter((status) => numbers.has(status)).map((status) => {
      const on = lab.state.status.includes(status);
      return h("button", { type: "button", class: `count ${status}`, "aria-pressed": String(on), "data-status": status, onclick: () =>
        change({ status: on ? lab.state.status.filter((other) => other !== status) : [...lab.state.status, status] }) },
        h("b", {}, count(numbers.get(status))), ` ${status}`);
    }));
    if (had) this.counts.querySelector(`[data-status="${had}"]`)?.focus();
  },
  drawBar() {
    const total = lab.index.runs.length;
    const { sel } = lab.state;
    const text = this.runs.length === total ? `${count(total)} run${total === 1 ? "" : "s"}` : `${count(this.runs.length)} of ${count(total)} runs`;
    const narrowed = ["q", "status", "method", "data", "encoder", "sweep"].some((key) => lab.state[key].length);
    this.bar.replaceChildren(...[
      h("span", {}, text),
      narrowed && h("button", { type: "button", class: "quiet", onclick: () => { this.search.value = "";
        change({ q: "", status: [], method: "", data: "", encoder: "", sweep: "" }); } }, "Clear filters"),
      sel.length > 0 && link({ view: "curves" }, {}, "Curves"), sel.length > 0 && link({ view: "pictures" }, {}, "Pictures"),
      sel.length > 1 && link({ view: "differences" }, {}, "Differences"),
      !total && h("span", { class: "note" }, `No run lies below ${lab.index.folders.join(", ")} yet. Begin one: ssl-lab pretrain experiment=simclr_digits`),
    ].filter(Boolean));
  },
  drawHead() {
    const { sort, sel } = lab.state;
    const ids = this.runs.map((run) => run.id);
    const known = new Set(sel);
    const num = ids.filter((id) => known.has(id)).length;
    const had = document.activeElement?.dataset?.sort;
    this.head.replaceChildren(h("tr", { role: "row" },
      h("th", { role: "columnheader", scope: "col", class: "pick" }, h("label", {}, h("input", { type: "checkbox", "aria-label": "Select all runs shown",
        checked: num > 0 && num === ids.length, indeterminate: num > 0 && num < ids.length, onchange: (event) => select(ids, event.target.checked) }))),
      shownColumns().map((key) => {
        const { label, numeric } = column(key);
        const order = sort === key ? "ascending" : sort === `-${key}` ? "descending" : "none";
        const next = order === "none" ? (numeric ? `-${key}` : key) : order === "ascending" ? `-${key}` : key;
        return h("th", { role: "columnheader", scope: "col", "aria-sort": order, class: numeric ? "num" : "" },
          h("button", { type: "button", "data-sort": key, onclick: () => change({ sort: next }) }, label,
            h("span", { class: "arrow", "aria-hidden": "true" }, { ascending: "↑", descending: "↓", none: "" }[order])));
      })));
    if (had) this.head.querySelector(`[data-sort="${CSS.escape(had)}"]`)?.focus();
  },
  drawMenu(text) {
    const on = shownColumns();
    const settings = Object.keys(lab.index.settings).sort((a, b) => Boolean(lab.index.settings[b].of) - Boolean(lab.index.settings[a].of));
    const groups = [["", Object.keys(COLUMNS)], ["Metrics", Object.keys(lab.index.metrics).map((name) => `metric:${name}`)],
      ["Settings", settings.map((name) => `setting:${name}`)]];
    const list = h("div", { class: "list" });
    const fill = (wanted) => list.replaceChildren(...groups.flatMap(([title, keys]) => {
      const fitting = keys.filter((key) => column(key).label.toLowerCase().includes(wanted.toLowerCase()));
      return fitting.length ? [title && h("h3", {}, title), ...fitting.map((key) => toggle(column(key).label, on.includes(key), (checked) => {
        if (checked) on.push(key);
        else on.splice(on.indexOf(key), 1);
        const usual = on.length === Object.keys(COLUMNS).length && on.every((name) => COLUMNS[name]);
        change({ cols: usual ? [] : [...on] });
      }))].filter(Boolean) : [];
    }));
    fill(text);
    this.columnMenu.replaceChildren(
      field("Find a column", h("input", { type: "search", oninput: (event) => fill(event.target.value) })),
      list, h("button", { type: "button", class: "quiet", onclick: () => { change({ cols: [] }); this.drawMenu(""); } }, "Usual columns"));
  },
};
