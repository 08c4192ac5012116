"use strict";
// Pictures of several runs side by side, all at the same step or the last one before it.

function pictureAt(files, step) {
  const steps = Object.keys(files).map(Number);
  const before = steps.filter((known) => known <= step);
  return before.length ? Math.max(...before) : Math.min(...steps);
}

function picture(run, shown, step) {
  return h("div", { class: "scroll" }, h("img", { src: `runs/${run.id}/pictures/${encodeURIComponent(shown.name)}/${shown.files[step]}`, alt: `${shown.title} at step ${step}`, loading: "lazy",
    onload: ({ target }) => { target.classList.toggle("small", target.naturalWidth < 500); target.classList.toggle("wide", target.naturalWidth > 800); } }));
}

function prose(reading) {
  return h("div", { class: "prose" }, reading.sentences.map((words) => h("p", {}, words.map((word) => [word.space,
    word.guess === null ? word.truth : word.correct ? h("mark", {}, word.truth)
      : h("mark", { class: "wrong" }, h("s", {}, word.guess), " ", h("b", {}, word.truth))]))));
}

lab.views.pictures = {
  title: "Pictures",
  mount(root) {
    this.controls = h("div", { class: "controls" });
    this.about = h("div");
    this.grid = h("div", { class: "pictures" });
    root.append(h("h1", {}, "Pictures"), this.about, this.controls, this.grid);
  },
  async draw() {
    const shown = shownRuns();
    const ask = this.ask = Symbol("newest");
    const items = await details(shown.runs);
    if (ask !== this.ask || !this.grid.isConnected) return;
    this.about.replaceChildren(...[aboutShown(shown)].filter(Boolean));
    const titles = new Map();
    for (const item of items) for (const one of item.pictures) titles.set(one.name, one.title);
    for (const item of items) for (const one of item.readings) titles.set(`text:${one.title}`, one.title);
    if (!titles.size) {
      this.controls.replaceChildren();
      this.grid.replaceChildren(h("p", { class: "empty" }, "These runs have saved no pictures."));
      return;
    }
    const name = titles.has(lab.state.pic) ? lab.state.pic : [...titles.keys()][0];
    const names = labels(items.map((item) => item.run));
    const found = items.map((item, k) => ({ ...item, label: names[k], shown: item.pictures.find((one) => one.name === name),
      reading: item.readings.find((one) => `text:${one.title}` === name) })).filter((item) => item.shown || item.reading);
    const steps = [...new Set(found.flatMap((item) => item.shown ? Object.keys(item.shown.files).map(Number)
      : [...item.reading.earlier, item.reading.last].map((one) => one.step)))].sort((a, b) => a - b);
    const step = lab.state.at < 0 ? steps.at(-1) : lab.state.at;
    this.drawControls(titles, name, steps, step);
    this.grid.classList.toggle("text", !found[0].shown);
    this.grid.replaceChildren(...found.map((item) => this.figure(item, step)));
    const caption = found[0].shown?.caption ?? found[0].reading.caption;
    if (caption) this.about.append(h("p", { class: "note" }, caption));
  },
  figure(item, wanted) {
    const all = item.shown ? item.shown.files : Object.fromEntries([...item.reading.earlier, item.reading.last].map((one) => [one.step, one]));
    const step = pictureAt(all, wanted);
    return h("figure", { class: step === wanted ? "" : "other" },
      h("figcaption", {}, link({ view: "run", run: item.run.id }, {}, item.label), h("span", { class: "step" }, `step ${count(step)}`)),
      item.shown ? picture(item.run, item.shown, step) : prose(all[step]));
  },
  drawControls(titles, name, steps, step) {
    const place = Math.max(0, steps.findLastIndex((known) => known <= step));
    const pick = (k) => change({ at: k >= steps.length - 1 ? -1 : steps[k] });
    if (document.activeElement?.type === "range" && this.controls.contains(document.activeElement) && this.drawn === name) {
      document.activeElement.max = steps.length - 1;
      this.step.textContent = count(steps[place]);
      return;
    }
    this.drawn = name;
    this.step = h("output", {}, count(steps[place]));
    this.controls.replaceChildren(
      choice("Picture", [...titles], name, (value) => change({ pic: value })),
      field("Step", h("span", { class: "range" }, h("input", { type: "range", min: 0, max: steps.length - 1, step: 1, value: place, disabled: steps.length < 2,
        "aria-valuetext": `step ${steps[place]}`, oninput: (event) => pick(Number(event.target.value)) }), this.step), "wide"));
  },
};
