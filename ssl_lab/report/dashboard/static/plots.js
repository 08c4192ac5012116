"use strict";
// Drawing with plotly, in the colours of the page; the library is fetched when something is drawn for the first time.

let drawing = null;

function plotly() {
  drawing ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "assets/plotly.min.js" });
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("assets/plotly.min.js cannot be read."));
    document.head.append(script);
  });
  return drawing;
}

// A colour of the style sheet as plotly understands it.
function colour(name, alpha = 1) {
  const probe = h("i", { style: `color: var(${name})`, hidden: true });
  document.body.append(probe);
  const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return `rgba(${r},${g},${b},${alpha})`;
}

const DASHES = ["solid", "dash", "dot"];

function lineStyle(place) {
  return { name: `--c${place % 8}`, dash: DASHES[Math.floor(place / 8) % 3] };
}

function layout(extra = {}) {
  const axis = { gridcolor: colour("--rule"), linecolor: colour("--rule"), zerolinecolor: colour("--rule"), tickcolor: colour("--rule"),
    tickfont: { color: colour("--muted"), size: 12 }, automargin: true, exponentformat: "SI", separatethousands: true };
  const { xaxis, yaxis, ...rest } = extra;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, margin: { l: 48, r: 12, t: 8, b: 40 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink") }, hovermode: "closest",
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--rule"), font: { color: colour("--ink"), size: 12 }, namelength: -1, align: "left" },
    ...rest,
    xaxis: { ...axis, showgrid: false, ...xaxis, title: { text: xaxis?.title ?? "", font: { size: 12, color: colour("--muted") }, standoff: 8 } },
    yaxis: { ...axis, ...yaxis, title: { text: yaxis?.title ?? "", font: { size: 12, color: colour("--muted") }, standoff: 8 } },
  };
}

// Scripts of plots that were left before they were drawn end without a word.
async function plot(element, traces, plan, { label, onclick } = {}) {
  const library = await plotly();
  if (!element.isConnected) return;
  element.setAttribute("role", "img");
  if (label) element.setAttribute("aria-label", label);
  await library.react(element, traces, plan, { displayModeBar: false, responsive: true });
  if (onclick && !element.dataset.listens) {
    element.dataset.listens = "1";
    element.on("plotly_click", onclick);
  }
}

function escaped(text) {  // plotly reads a few tags in its texts
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
