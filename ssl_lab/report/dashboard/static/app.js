"use strict";
// The frame: views, theme, and what is new since the last look.

const POLL_MS = 3000;
const main = document.getElementById("main");
let current = null;

lab.themed = () => {
  const forced = document.documentElement.dataset.theme;
  return forced ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
};

lab.draw = (turned = false) => {
  if (!lab.index) return;
  const view = lab.views[lab.state.view];
  if (view !== current) {
    current?.unmount?.();
    main.replaceChildren();
    view.mount(main);
    current = view;
  }
  drawFrame();
  view.draw();
  if (turned) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
};

function drawFrame() {
  const { view, sel } = lab.state;
  const focused = document.activeElement?.dataset?.view;
  document.getElementById("views").replaceChildren(...Object.entries(lab.views).filter(([, one]) => one.title).map(([key, one]) =>
    link({ view: key, run: "" }, { "data-view": key, "aria-current": key === view || (view === "run" && key === "runs") ? "page" : null }, one.title)));
  if (focused) document.querySelector(`[data-view="${focused}"]`)?.focus();
  document.getElementById("chosen").replaceChildren(...(sel.length
    ? [`${count(sel.length)} selected `, h("button", { type: "button", class: "quiet", onclick: () => { if (lab.views.run) lab.views.run.drawn = ""; change({ sel: [] }); } }, "Clear")] : []));
  const run = view === "run" ? lab.index.byId.get(lab.state.run) : null;
  document.title = `${run ? `${run.name} (${run.status})` : lab.views[view].title} · ssl_lab`;
}

// ---- theme: as the system has it, or as chosen here

const THEMES = [null, "light", "dark"];
const themeButton = document.getElementById("theme");

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  themeButton.textContent = { light: "Light", dark: "Dark" }[theme] ?? "Auto";
  themeButton.setAttribute("aria-label", `Colours: ${themeButton.textContent.toLowerCase()}. Change`);
  lab.draw();
}

function stored() {
  try { return localStorage.getItem("ssl_lab theme"); } catch { return null; }
}

themeButton.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? null) + 1) % THEMES.length];
  try {
    if (next) localStorage.setItem("ssl_lab theme", next);
    else localStorage.removeItem("ssl_lab theme");
  } catch { /* a page opened from a file may have no storage */ }
  setTheme(next);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => lab.draw());

// ---- what is new

function tell(text, kind = "") {
  const live = document.getElementById("live");
  if (live.textContent !== text) live.textContent = text;
  live.className = `live ${kind}`;
}

// An open menu or list must not be redrawn under the reader's hand.
let choosing = false;
addEventListener("pointerdown", (event) => { choosing = event.target.tagName === "SELECT"; });
for (const end of ["change", "focusout"]) addEventListener(end, () => { choosing = false; });

function busy() {
  return choosing || document.querySelector("details.menu[open]");
}

async function look() {
  if (document.hidden) return;
  try {
    const known = new Map(lab.index.runs.map((run) => [run.id, run.version]));
    const index = await load("index");
    const running = index.runs.filter((run) => run.status === "running").length;
    tell(running ? `${count(running)} running` : "Live", "on");
    const same = index.runs.length === known.size && index.runs.every((run) => known.get(run.id) === run.version);
    if (same || busy()) return;
    arrange(index);
    lab.draw();
  } catch {
    tell("The server does not answer", "off");
  }
}

// ---- begin

document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
addEventListener("popstate", () => { lab.state = readState(); lab.draw(true); });
addEventListener("hashchange", () => { lab.state = readState(); lab.draw(); });

(async () => {
  lab.state = readState();
  setTheme(stored());
  try {
    arrange(await load("index"));
  } catch (error) {
    main.replaceChildren(h("p", { class: "empty" }, `The runs cannot be read: ${error.message}`));
    return;
  }
  lab.draw();
  if (!lab.served) return;
  tell("Live", "on");
  const loop = async () => { await look(); setTimeout(loop, POLL_MS); };
  setTimeout(loop, POLL_MS);
  document.addEventListener("visibilitychange", look);
})();
