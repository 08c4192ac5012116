"use strict";
// What all views share: elements, numbers, the state in the address, data by name.

const lab = { index: null, details: new Map(), views: {}, served: document.documentElement.dataset.mode === "served" };

const DEFAULTS = {
  view: "runs", run: "", sel: [],
  q: "", status: [], method: "", data: "", encoder: "", sweep: "", sort: "-started", cols: [],
  show: [], x: "step", log: false, logx: false, mean: false, smooth: 0,
  scope: "", target: "", px: "", keep: [],
  pic: "", at: -1, all: false,
};
lab.state = { ...DEFAULTS };

// ---- elements: text is always set as text, so that nothing from a run is ever read as markup

function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (["value", "checked", "disabled", "selected", "indeterminate", "hidden"].includes(name)) element[name] = value;
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function field(label, control, extra = "") {
  return h("label", { class: `field ${extra}` }, h("span", {}, label), control);
}

function choice(label, options, value, onpick, extra = "") {
  const known = options.some(([key]) => key === value) ? options : [[value, value || "–"], ...options];
  return field(label, h("select", { onchange: (event) => onpick(event.target.value) },
    known.map(([key, text]) => h("option", { value: key, selected: key === value }, text))), extra);
}

function toggle(label, value, ontoggle) {
  return h("label", { class: "toggle" },
    h("input", { type: "checkbox", checked: value, onchange: (event) => ontoggle(event.target.checked) }), label);
}

function pill(status) {
  return h("span", { class: `pill ${status}` }, status);
}

function swatch(place) {
  return h("span", { class: `swatch d${Math.floor(place / 8) % 3}`, style: `color: var(--c${place % 8})`, "aria-hidden": "true" });
}

// ---- numbers

const DASH = "–";
const MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec";
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return DASH;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(2);
  return size >= 1000 ? WHOLE.format(value) : String(Number(value.toPrecision(4)));
}

function count(value) {
  return value === null || value === undefined ? DASH : WHOLE.format(value);
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} d`;
}

function when(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  const date = new Date(1000 * seconds);
  const two = (part) => String(part).padStart(2, "0");
  const day = `${two(date.getDate())} ${MONTHS.slice(3 * date.getMonth(), 3 * date.getMonth() + 3)}`;
  const year = date.getFullYear() === new Date().getFullYear() ? "" : ` ${date.getFullYear()}`;
  return `${day}${year} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

// ---- state in the address

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  const state = { ...DEFAULTS };
  for (const [key, fallback] of Object.entries(DEFAULTS)) {
    if (!given.has(key)) continue;
    const text = given.get(key);
    if (Array.isArray(fallback)) state[key] = text ? text.split(",").map((item) => item.replace(/%(2C|25)/g, (code) => decodeURIComponent(code))) : [];
    else if (typeof fallback === "boolean") state[key] = text === "1";
    else if (typeof fallback === "number") state[key] = Number.isFinite(Number(text)) ? Number(text) : fallback;
    else state[key] = text;
  }
  if (!lab.views[state.view]) state.view = DEFAULTS.view;
  return state;
}

function address(patch) {
  const given = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...lab.state, ...patch })) {
    const text = Array.isArray(value) ? value.map((item) => item.replace(/[%,]/g, (sign) => encodeURIComponent(sign))).join(",") : typeof value === "boolean" ? (value ? "1" : "") : String(value);
    const usual = Array.isArray(DEFAULTS[key]) ? "" : typeof DEFAULTS[key] === "boolean" ? "" : String(DEFAULTS[key]);
    if (text !== usual) given.set(key, text);
  }
  return `#${given}`.replaceAll("%2C", ",").replaceAll("%2F", "/");
}

// A change of view or run is a step that the back button undoes; a change of a setting is not.
function change(patch) {
  const turns = ("view" in patch && patch.view !== lab.state.view) || ("run" in patch && patch.run !== lab.state.run);
  const url = address(patch);
  lab.state = { ...lab.state, ...patch };
  if (turns) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
  lab.draw(turns);
}

function link(patch, props, ...children) {
  return h("a", {
    href: address(patch), ...props,
    onclick: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      change(patch);
    },
  }, ...children);
}

// ---- data by name: from the server as JSON, or from a folder as scripts, which a page opened from a file may run

const waiting = new Map();

function receive(name, value) {
  waiting.get(name)?.(value);
  waiting.delete(name);
}

async function load(name, query = "") {
  if (lab.served) {
    const answer = await fetch(`data/${name}.json${query}`, { cache: "no-cache" });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    return answer.json();
  }
  return new Promise((resolve, reject) => {
    waiting.set(name, resolve);
    const script = h("script", { src: `data/${name}.js` });
    script.onerror = () => reject(new Error(`data/${name}.js cannot be read.`));
    script.onload = () => script.remove();
    document.head.append(script);
  });
}

// Details of runs, fetched once for each version; those that cannot be had are left out.
async function details(runs) {
  const found = await Promise.all(runs.map(async (run) => {
    const known = lab.details.get(run.id);
    if (known?.version === run.version) return known.value;
    const value = load(`run/${run.id}`).catch(() => null);
    lab.details.set(run.id, { version: run.version, value });
    const read = await value;
    if (read) lab.details.set(run.id, { version: read.version, value: read });
    else lab.details.delete(run.id);
    return read;
  }));
  return runs.map((run, k) => ({ run, ...(found[k] ?? {}), missing: !found[k] })).filter((item) => !item.missing);
}

// ---- runs

function arrange(index) {
  index.runs.forEach((run, k) => { run.at = k; });
  index.byId = new Map(index.runs.map((run) => [run.id, run]));
  lab.index = index;
  const sweeps = Map.groupBy(index.runs.filter((run) => run.sweep), (run) => run.sweep.id);
  index.varied = new Map([...sweeps].map(([id, runs]) => [id, independent(runs)]));
}

function setting(run, key) {
  const column = lab.index.settings[key];
  if (!column) return null;
  const place = column.of ? column.of[run.at] : 0;
  return place < 0 ? null : column.values[place];
}

// A metric's name without the way in which it was measured.
function baseName(name) {
  return name.replace(/\[[^\]]*\]/, "");
}

function metric(run, name) {
  return lab.index.metrics[name]?.[run.at] ?? null;
}

// A setting's value as a number where it is one, else as its text.
function valueOf(text) {
  const value = Number(text);
  return text === null || text === "" || Number.isNaN(value) ? text : value;
}

function differing(runs, { seeds = false } = {}) {
  return Object.keys(lab.index.settings).filter((key) => {
    if (lab.index.not_choices.includes(key.split(".")[0]) || !lab.index.settings[key].of) return false;
    if (!seeds && key.split(".").at(-1) === "seed") return false;
    const first = setting(runs[0], key);
    return runs.some((run) => setting(run, key) !== first);
  });
}

// Of settings that always change together, as those that follow another one, the first. Where most values are drawn at
// random they change in every run, which does not make two settings one.
function independent(runs) {
  const seen = new Set();
  return runs.length ? differing(runs).filter((key) => {
    const texts = runs.map((run) => setting(run, key));
    const places = new Map([...new Set(texts)].map((text, k) => [text, k]));
    const pattern = (2 * places.size <= texts.length ? texts.map((text) => places.get(text)) : texts).join("\n");
    return !seen.has(pattern) && seen.add(pattern);
  }) : [];
}

const short = (key) => key.split(".").at(-1) === "_target_" ? key.split(".").at(-2) : key.split(".").at(-1);

// The class of a class path, else the text.
const brief = (text) => (/^[\w.]+\.[A-Z]\w*$/.test(text) ? text.split(".").at(-1) : text);

// A name for each run: what it is, and whatever tells it from others of that name.
function labels(runs, { seeds = true } = {}) {
  const byName = Map.groupBy(runs, (run) => run.name);
  const varied = new Map([...byName].map(([name, group]) => [name, independent(group)]));
  const seedsDiffer = seeds && new Set(runs.map((run) => run.seed)).size > 1;
  const texts = runs.map((run) => {
    const keys = varied.get(run.name).filter((key) => setting(run, key) !== null);
    const parts = byName.size > 1 || !keys.length || keys.length > 3 ? [run.name] : [];
    if (keys.length <= 3) parts.push(...keys.map((key) => `${short(key)} ${brief(setting(run, key))}`));
    if (seedsDiffer) parts.push(`seed ${run.seed ?? DASH}`);
    return parts.join(" · ");
  });
  const same = Map.groupBy(texts, (text) => text);
  return texts.map((text, k) => (same.get(text).length > 1 ? `${text} · ${runs[k].folder}` : text));
}

// What a trial is within its sweep: its values of what varies there.
function trial(run) {
  const keys = lab.index.varied.get(run.sweep.id).filter((key) => setting(run, key) !== null);
  return keys.length && keys.length <= 4 ? keys.map((key) => `${short(key)} ${brief(setting(run, key))}`).join(" · ") : run.folder;
}

const MAX_SHOWN = 40;

// The selected runs; where none is, the first ones of the table.
function shownRuns(most = MAX_SHOWN) {
  const chosen = lab.state.sel.map((id) => lab.index.byId.get(id)).filter(Boolean);
  const runs = chosen.length ? chosen : filtered().slice(0, 8);
  return { runs: runs.slice(0, most), chosen: chosen.length > 0, more: Math.max(0, runs.length - most) };
}

function aboutShown({ runs, chosen, more }) {
  if (!chosen) return h("p", { class: "note" }, `No run is selected: the first ${runs.length} of the table are shown. `,
    link({ view: "runs" }, {}, "Select runs"));
  return more ? h("p", { class: "note" }, `The first ${runs.length} of ${runs.length + more} selected runs are shown.`) : null;
}
