// Settings as points: how much faster to the right, how much more alike upwards. What nothing beats in both is joined by a line.

import { element } from "./element.js";
import { word } from "./likeness.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [640, 320];
const [LEFT, RIGHT, TOP, BOTTOM] = [64, 14, 12, 46];
/** Equal pictures have 99 dB; above this nobody sees a difference, and it all counts as this. */
const MOST_DECIBELS = 60;
const RADIUS = 6;

/** The plot of a report's rows, the first of which is uncached. `onChoose` gets the row of a point that is clicked. */
export function scatter(rows, onChoose) {
  const points = rows.filter((row) => row.cache_backend !== "none" && row.speedup !== null && row.psnr_db !== null);
  const most = Math.max(2, ...points.map(({ speedup }) => speedup));
  const [low, high] = range(points.map(decibelsShown));
  const x = (speedup) => LEFT + ((Math.max(speedup, 0) - 0.5) / (most * 1.05 - 0.5)) * (WIDTH - LEFT - RIGHT);
  const y = (decibels) => TOP + ((high - decibels) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const plot = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": "Settings by speed and likeness" });
  plot.append(...axes(most, low, high, x, y));
  const front = paretoFront(points);
  if (front.length > 1) {
    plot.append(shape("polyline", { class: "front", points: front.map((row) => `${x(row.speedup)},${y(decibelsShown(row))}`).join(" ") }));
  }
  plot.append(...points.map((row) => point(row, x(row.speedup), y(decibelsShown(row)), front.includes(row), onChoose)));
  return plot;
}

/** Those that no other is faster and more alike than, from the slowest on. */
export function paretoFront(rows) {
  const beats = (a, b) => a.speedup >= b.speedup && a.psnr_db >= b.psnr_db && (a.speedup > b.speedup || a.psnr_db > b.psnr_db);
  return rows.filter((row) => !rows.some((other) => beats(other, row))).sort((a, b) => a.speedup - b.speedup);
}

/** A row in words. */
export function inWords({ name, speedup, psnr_db: psnr, hit_rate: rate }) {
  return `${name}: ${speedup.toFixed(2)} times as fast, ${psnr >= 99 ? "equal" : `${psnr.toFixed(1)} dB`}, difference ${word(psnr >= 99 ? Infinity : psnr)}, ${Math.round(100 * rate)} % reused`;
}

function point(row, cx, cy, isOnFront, onChoose) {
  const dot = shape("circle", { cx, cy, r: RADIUS, class: `point ${isOnFront ? "on-front" : ""}`, tabindex: 0, role: "button", "aria-label": inWords(row) });
  dot.dataset.backend = row.cache_backend;
  dot.dataset.name = row.name;
  const title = shape("title");
  title.textContent = inWords(row);
  dot.append(title);
  dot.addEventListener("click", () => onChoose(row));
  dot.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    onChoose(row);
  });
  return dot;
}

function axes(most, low, high, x, y) {
  const made = [];
  const line = (x1, y1, x2, y2) => made.push(shape("line", { x1, y1, x2, y2, class: "axis" }));
  const label = (text, at, anchor) => {
    const words = shape("text", { ...at, "text-anchor": anchor, class: "label" });
    words.textContent = text;
    made.push(words);
  };
  for (let speedup = 1; speedup <= most; speedup += most > 6 ? 2 : 1) {
    line(x(speedup), TOP, x(speedup), HEIGHT - BOTTOM);
    label(`${speedup}x`, { x: x(speedup), y: HEIGHT - BOTTOM + 18 }, "middle");
  }
  for (let decibels = low; decibels <= high; decibels += 10) {
    line(LEFT, y(decibels), WIDTH - RIGHT, y(decibels));
    label(`${decibels} dB`, { x: LEFT - 6, y: y(decibels) + 4 }, "end");
  }
  label("times as fast", { x: WIDTH - RIGHT, y: HEIGHT - 6 }, "end");
  return made;
}

const decibelsShown = ({ psnr_db: psnr }) => Math.min(psnr, MOST_DECIBELS);

/** Tens of decibels around all values. */
function range(values) {
  if (values.length === 0) return [20, 50];
  const low = 10 * Math.floor((Math.min(...values) - 1) / 10);
  return [Math.max(0, low), Math.max(low + 20, 10 * Math.ceil((Math.max(...values) + 1) / 10))];
}

function shape(name, attributes = {}) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

/** The names of the backends as they are coloured. */
export function legend() {
  const entry = (backend) => element("span", {}, element("span", { className: "swatch dot", data: { backend } }), ` ${backend}`);
  return ["cache_dit", "tea_cache", "mag_cache"].map(entry);
}
