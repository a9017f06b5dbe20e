// One cell a step: computed or reused, the distance that was compared, and why.

import { byId, element } from "./element.js";

const REASONS = {
  cached: "reused",
  off: "computed: no cache",
  warmup: "computed: warm-up",
  mask: "computed: the mask forces it",
  max_cached: "computed: enough steps were reused",
  max_continuous: "computed: enough were reused in a row",
  max_accumulated: "computed: the distances add up to the limit",
  threshold_zero: "computed: a threshold of 0 never reuses",
  no_reference: "computed: nothing to reuse yet",
  shape_changed: "computed: the shape has changed",
  distance: "computed: too far from the last computed step",
  budget: "computed: no memory for cache state",
};
const THRESHOLD_KEYS = { cache_dit: "residual_diff_threshold", tea_cache: "rel_l1_thresh", mag_cache: "mag_threshold" };

export class Timeline {
  #place;
  #title;
  #cells = [];
  #done = 0;
  #reused = 0;

  constructor(place, title) {
    this.#place = place;
    this.#title = title;
  }

  /** A run of so many steps begins. Room for distances is kept where there will be some. */
  begin(steps, hasDistances) {
    [this.#done, this.#reused] = [0, 0];
    this.#cells = Array.from({ length: steps }, (_, step) => cell(step, `Step ${step}`));
    const made = strip(this.#title, this.#cells);
    made.querySelector(".strip").classList.toggle("with-distances", hasDistances);
    this.#place.replaceChildren(made);
  }

  /** So many steps are done, and so many of them reused. Of steps reported together only the number is known. */
  progress(done, reused) {
    const [steps, hits] = [done - this.#done, reused - this.#reused];
    const outcome = hits === 0 ? "computed" : hits === steps ? "cached" : "mixed";
    for (const one of this.#cells.slice(this.#done, done)) one.dataset.outcome = outcome;
    [this.#done, this.#reused] = [done, reused];
  }

  /** The run is over: what the response says of every step of its picture number `index`. */
  finish(cache, index) {
    const contexts = cache.images[index]?.contexts ?? [];
    if (contexts.length === 0) {
      this.#place.replaceChildren(strip(this.#title, Array.from({ length: cache.steps }, (_, step) => describe(step, "off"))));
      return;
    }
    const threshold = cache.config[THRESHOLD_KEYS[cache.backend]] ?? null;
    this.#place.replaceChildren(...contexts.map((context) => this.#strip(context, threshold, contexts.length > 1)));
  }

  #strip({ name, branch, reasons, residual_diffs: distances }, threshold, isOneOfMany) {
    const numbers = Object.values(distances).flat().filter((value) => typeof value === "number" && value >= 0);
    const largest = Math.max(...numbers, threshold ?? 0, Number.MIN_VALUE);
    const cells = Object.entries(reasons).map(([step, reason]) => {
      const made = describe(Number(step), reason, distances[step], threshold);
      made.style.setProperty("--height", mean(distances[step]) / largest || 0);
      return made;
    });
    const made = strip(isOneOfMany ? `${this.#title}, ${name}, ${branch}` : this.#title, cells);
    made.querySelector(".strip").classList.add("with-distances");
    if (threshold !== null) made.style.setProperty("--threshold", threshold / largest);
    return made;
  }
}

function strip(title, cells) {
  const group = element("div", { className: "strip", role: "group", ariaLabel: `${title}: ${cells.length} steps` }, ...cells);
  group.style.setProperty("--steps", cells.length);
  if (cells.length > 0) cells[0].tabIndex = 0;
  const describeStep = (event) => {
    const one = event.target.closest(".cell");
    if (one) byId("step").textContent = `${title}, ${one.ariaLabel}`;
  };
  group.addEventListener("pointerover", describeStep);
  group.addEventListener("focusin", describeStep);
  group.addEventListener("keydown", (event) => walk(event, cells));
  return element("div", { className: "timeline" }, element("h3", {}, title), group);
}

/** Arrow keys, Home and End move along the strip. */
function walk(event, cells) {
  const at = cells.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: cells.length - 1 }[event.key];
  if (cells[to] === undefined) return;
  event.preventDefault();
  cells[at].tabIndex = -1;
  cells[to].tabIndex = 0;
  cells[to].focus();
}

function describe(step, reason, distance, threshold = null) {
  const compared = distance === undefined ? "" : `, distance ${inWords(distance)}${threshold === null ? "" : `, threshold ${threshold}`}`;
  const made = cell(step, `step ${step}: ${REASONS[reason] ?? reason}${compared}`);
  Object.assign(made.dataset, { outcome: reason === "cached" ? "cached" : "computed", reason });
  if (distance !== undefined) made.dataset.distance = JSON.stringify(distance);
  return made;
}

function cell(step, label) {
  return element("button", { type: "button", className: "cell", tabIndex: -1, ariaLabel: label, title: label, data: { step } });
}

/** DBPrune compares block by block. */
function inWords(distance) {
  if (!Array.isArray(distance)) return typeof distance === "number" ? distance.toFixed(4) : distance;
  return `${mean(distance).toFixed(4)} (mean of ${distance.length} blocks)`;
}

function mean(distance) {
  const numbers = [distance].flat().filter((value) => typeof value === "number");
  return numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
}
