// The request's own fields, filled from the model card.

import { byId, element } from "./element.js";
import { isClassConditional, offerPrompt } from "./prompt.js";

/** JavaScript's numbers are exact up to here; the API takes seeds up to 2^63 - 1. */
const LARGEST_SEED = Number.MAX_SAFE_INTEGER;
/** The fields as the API calls them. `seed` may hold several here. */
export const NAMES = [
  "prompt",
  "negative_prompt",
  "size",
  "n",
  "seed",
  "num_inference_steps",
  "guidance_scale",
  "true_cfg_scale",
  "scheduler",
];

/** Offers what the model has, and its defaults. */
export function offer(card) {
  offerPrompt(card);
  byId("negative-field").hidden = isClassConditional(card);
  byId("guidance-field").hidden = card.defaults.guidance_scale === null;
  byId("true-cfg-field").hidden = card.defaults.true_cfg_scale === null;
  byId("size").append(...card.sizes.map((size) => element("option", {}, size)));
  byId("scheduler").append(...card.schedulers.map((name) => element("option", {}, name)));
  byId("n").max = card.limits.n;
  byId("steps").max = card.limits.num_inference_steps;
  byId("guidance").max = card.limits.guidance_scale;
  for (const slider of document.querySelectorAll("[data-slides]")) link(slider, byId(slider.dataset.slides));
  fill({ ...card.defaults, seed: randomSeed() });
  byId("dice").addEventListener("click", () => fill({ seed: randomSeed() }));
}

/** The fields of the request. An empty one is left out; a seed is chosen, because both pictures need one. */
export function fields() {
  if (byId("seed").value.trim() === "") fill({ seed: randomSeed() });
  return current();
}

/** The fields as they stand. `seed` is text, which may name several; to some models a blank negative prompt is one. */
export function current() {
  const text = (name) => (name === "negative_prompt" ? control(name).value : control(name).value.trim()) || undefined;
  const isUsed = (name) => control(name).closest("[hidden]") === null;
  const value = (name) => (["prompt", "negative_prompt", "size", "seed", "scheduler"].includes(name) ? text(name) : number(text(name)));
  const entries = NAMES.filter(isUsed).map((name) => [name, value(name)]);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
}

/** The requests that settings stand for, one per seed. */
export function requestsOf({ seed = "", n = 1, ...rest }) {
  const count = n === 1 ? {} : { n };
  return seedsOf(seed).map((one) => ({ ...rest, seed: one, ...count }));
}

/** What the server could not be asked about, because it cannot be put into a request as it was typed. */
export function faultOf(form, settings, limits) {
  const unreadable = [...form.elements].find((control) => control.validity?.badInput);
  if (unreadable) return { param: unreadable.name, message: "This must be a number." };
  const seeds = seedsOf(settings.seed);
  if (seeds.some((seed) => seed > LARGEST_SEED)) {
    return { param: "seed", message: `This page takes seeds up to ${LARGEST_SEED}; the API takes any up to 2^63 - 1.` };
  }
  const { n = 1 } = settings;
  if (seeds.length === 1 || seeds.length * n <= limits.n) return null;
  return { param: "seed", message: `${seeds.length} seeds with ${n} pictures each are ${seeds.length * n} pictures; a run has at most ${limits.n}.` };
}

/** Puts settings into the form. Returns what the form has no place for, in words. */
export function fill(settings) {
  const refused = [];
  for (const name of NAMES) {
    if (settings[name] == null) continue;
    const target = control(name);
    if (target.closest("[hidden]") !== null) {
      if (name !== "true_cfg_scale" || Number(settings[name]) !== 1) refused.push(`${name} (this model does not take it)`);
      continue;
    }
    const before = target.value;
    target.value = settings[name];
    if (target.value === "" && String(settings[name]) !== "") {
      refused.push(`${name} ${settings[name]} (${target.tagName === "SELECT" ? "this server does not offer it" : "this is not a number"})`);
      target.value = before;
    }
    target.dispatchEvent(new Event("input", { bubbles: true }));
  }
  return refused;
}

const control = (name) => byId("request").elements.namedItem(name);
const number = (text) => (text === undefined || Number.isNaN(Number(text)) ? text : Number(text));
const seedsOf = (text) => String(text).split(/[\s,]+/).filter(Boolean).map(number);
const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

function link(slider, number) {
  slider.value = number.value;
  number.addEventListener("input", () => (slider.value = number.value));
  slider.addEventListener("input", () => (number.value = slider.value));
}
