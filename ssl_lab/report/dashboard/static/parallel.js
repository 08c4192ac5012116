"use strict";
// Parallel coordinates: a line for each run through its settings to a metric; ranges of axes keep some of them.

const SVG = "http://www.w3.org/2000/svg";
const INSET = { left: 76, right: 84, top: 46, bottom: 22 };
const TALL = 380;

function svg(tag, props = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// An axis from 0 to 1 for values of a setting or a metric, and what to write along it.
function spread(values, ticks) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const place = (value) => (high > low ? (value - low) / (high - low) : 0.5);
  const even = [0, 0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low));
  const marks = ticks ?? { at: even, text: even.map((value) => String(Number(value.toPrecision(3)))) };
  return { at: values.map(place), ticks: marks.at.map((value, k) => ({ at: place(value), text: marks.text[k] })) };
}

const keptBy = (axes, ranges) => axes[0].at.map((_, k) =>
  axes.every(({ key, at }) => !ranges.has(key) || (at[k] >= ranges.get(key)[0] && at[k] <= ranges.get(key)[1])));

// Draws into an element. Axes: {key, label, at, ticks}; shades: 0 (poor) to 1 (good) for each run.
function parallel(element, { axes, shades, names, ranges, onrange, onpick, describe }) {
  const width = Math.max(element.parentElement.clientWidth, 128 * axes.length + 60);
  const x = (k) => INSET.left + k * (width - INSET.left - INSET.right) / Math.max(1, axes.length - 1);
  const y = (at) => INSET.top + (1 - at) * (TALL - INSET.top - INSET.bottom);
  const many = shades.length > 150;
  const paths = shades.map((shade, run) => svg("path", {
    d: axes.map(({ at }, k) => `${k ? "L" : "M"}${x(k).toFixed(1)} ${y(at[run]).toFixed(1)}`).join(""),
    style: `stroke: color-mix(in oklab, var(--high) ${Math.round(100 * shade)}%, var(--low))`,
  }));
  const lines = svg("g", { class: `lines ${many ? "many" : ""}` }, ...paths);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${TALL}`, width, height: TALL, role: "img", class: "parallel",
    "aria-label": `Parallel coordinates of ${shades.length} runs: ${axes.map(({ label }) => label).join(", ")}` }, lines);
  const mark = (kept) => paths.forEach((path, k) => path.classList.toggle("out", !kept[k]));
  mark(keptBy(axes, ranges));
  axes.forEach((axis, k) => picture.append(axisElement(axis, k)));
  element.replaceChildren(picture);

  function axisElement(axis, k) {
    const range = ranges.get(axis.key);
    const band = svg("rect", { class: "band", x: x(k) - 7, width: 14, y: range ? y(range[1]) : 0, height: range ? y(range[0]) - y(range[1]) : 0, rx: 3 });
    const grip = svg("rect", { class: "grip", x: x(k) - 16, width: 32, y: INSET.top - 10, height: TALL - INSET.top - INSET.bottom + 20 });
    const right = k === axes.length - 1;
    const part = svg("g", { class: "axis" }, svg("line", { x1: x(k), x2: x(k), y1: y(0), y2: y(1) }), band,
      svg("text", { class: "title", x: right ? x(k) + 60 : x(k), y: 18, "text-anchor": right ? "end" : k ? "middle" : "start", dx: k || right ? 0 : -60 }, axis.label),
      ...axis.ticks.map(({ at, text }) => svg("text", { x: right ? x(k) + 10 : x(k) - 10, y: y(at) + 4, "text-anchor": right ? "start" : "end" }, text)), grip);
    const share = (event) => {
      const box = picture.getBoundingClientRect();
      const at = 1 - ((event.clientY - box.top) * TALL / box.height - INSET.top) / (TALL - INSET.top - INSET.bottom);
      return Math.min(1.02, Math.max(-0.02, at));
    };
    grip.addEventListener("pointerdown", (begin) => {
      const from = share(begin);
      grip.setPointerCapture(begin.pointerId);
      let to = from;
      const move = (event) => {
        to = share(event);
        const [low, high] = [Math.min(from, to), Math.max(from, to)];
        band.setAttribute("y", y(high));
        band.setAttribute("height", y(low) - y(high));
        mark(keptBy(axes, new Map(ranges).set(axis.key, [low, high])));
      };
      grip.addEventListener("pointermove", move);
      grip.addEventListener("pointerup", () => {
        grip.removeEventListener("pointermove", move);
        onrange(axis.key, Math.abs(to - from) < 0.01 ? null : [Math.min(from, to), Math.max(from, to)]);
      }, { once: true });
    });
    return part;
  }

  // The line that is nearest to the pointer, among those kept.
  let hot = -1;
  const nearest = (event) => {
    const box = picture.getBoundingClientRect();
    const [px, py] = [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * TALL / box.height];
    const gap = (width - INSET.left - INSET.right) / Math.max(1, axes.length - 1);
    const k = Math.min(axes.length - 2, Math.max(0, Math.floor((px - INSET.left) / gap)));
    const share = Math.min(1, Math.max(0, (px - x(k)) / gap));
    let best = [10, -1];
    paths.forEach((path, run) => {
      if (path.classList.contains("out")) return;
      const distance = Math.abs(py - (y(axes[k].at[run]) * (1 - share) + y(axes[k + 1].at[run]) * share));
      if (distance < best[0]) best = [distance, run];
    });
    return best[1];
  };
  picture.addEventListener("pointermove", (event) => {
    const found = event.buttons ? -1 : nearest(event);
    if (found === hot) return;
    paths[hot]?.classList.remove("hot");
    paths[found]?.classList.add("hot");
    lines.append(...(found >= 0 ? [paths[found]] : []));
    hot = found;
    picture.classList.toggle("pointed", hot >= 0);
    describe(hot < 0 ? "" : names[hot]);
  });
  lines.addEventListener("click", (event) => { const found = nearest(event); if (found >= 0) onpick(found); });
}
