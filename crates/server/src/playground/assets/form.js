// The request's own fields, filled from the model card.

import { byId, element } from "./element.js";

/** JavaScript's numbers are exact up to here; the API takes seeds up to 2^63 - 1. */
const LARGEST_SEED = Number.MAX_SAFE_INTEGER;

/** Offers what the model has, and its defaults. */
export function offer(card) {
  // A label may have synonyms: "red apple, apple".
  const names = [...new Set(card.labels.flatMap(({ label }) => label.split(",").map((name) => name.trim())))];
  const isClassConditional = card.pipeline === "DiTPipeline";
  byId("labels").append(...names.map((value) => element("option", { value })));
  byId("prompt").value = names[0] ?? (isClassConditional ? "class:0" : "");
  byId("prompt-hint").textContent = names.length > 0 ? `One of ${card.labels.length} labels; typing completes.` : "";
  byId("negative-field").hidden = isClassConditional;
  byId("true-cfg-field").hidden = card.defaults.true_cfg_scale === null;
  byId("size").append(...card.sizes.map((size) => element("option", {}, size)));
  byId("scheduler").append(...card.schedulers.map((name) => element("option", {}, name)));
  byId("steps").max = card.limits.num_inference_steps;
  byId("guidance").max = card.limits.guidance_scale;
  fill(card.defaults);
  for (const slider of document.querySelectorAll("[data-slides]")) link(slider, byId(slider.dataset.slides));
  byId("dice").addEventListener("click", () => fill({ seed: randomSeed() }));
  fill({ seed: randomSeed() });
}

/** The fields of the request. An empty one is left out; a seed is rolled, because both pictures need one. */
export function fields(form) {
  if (byId("seed").value.trim() === "") fill({ seed: randomSeed() });
  return current(form);
}

/** The fields as they stand. */
export function current(form) {
  const text = (name) => form.elements.namedItem(name).value.trim() || undefined;
  const number = (name) => {
    const value = text(name);
    return value === undefined || Number.isNaN(Number(value)) ? value : Number(value);
  };
  const request = {
    prompt: text("prompt"),
    negative_prompt: byId("negative-field").hidden ? undefined : text("negative_prompt"),
    size: text("size"),
    seed: number("seed"),
    num_inference_steps: number("num_inference_steps"),
    guidance_scale: number("guidance_scale"),
    true_cfg_scale: byId("true-cfg-field").hidden ? undefined : number("true_cfg_scale"),
    scheduler: text("scheduler"),
  };
  return Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined));
}

/** What the server could not be asked about, because it cannot be put into a request as it was typed. */
export function faultOf(form) {
  const unreadable = [...form.elements].find((control) => control.validity?.badInput);
  if (unreadable) return { param: unreadable.name, message: "This must be a number." };
  if (!(Number(byId("seed").value) > LARGEST_SEED)) return null;
  return { param: "seed", message: `This page takes seeds up to ${LARGEST_SEED}; the API takes any up to 2^63 - 1.` };
}

const NAMES = [
  "prompt",
  "negative_prompt",
  "size",
  "seed",
  "num_inference_steps",
  "guidance_scale",
  "true_cfg_scale",
  "scheduler",
];

/** Puts the fields of an earlier request into the form. */
export function fill(request) {
  const form = byId("request");
  for (const name of NAMES) {
    if (request[name] == null) continue;
    const control = form.elements.namedItem(name);
    control.value = request[name];
    control.dispatchEvent(new Event("input", { bubbles: true }));
  }
}

const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

function link(slider, number) {
  slider.value = number.value;
  number.addEventListener("input", () => (slider.value = number.value));
  slider.addEventListener("input", () => (number.value = slider.value));
}
