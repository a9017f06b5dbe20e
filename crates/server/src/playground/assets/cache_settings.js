// The cache part of the form. What counts is `overrides`, the keys that differ from what the server does
// without them; controls and JSON are two views of it.

import { BACKENDS } from "./cache_fields.js";
import { CACHE_KEYS } from "./cache_keys.js";
import { byId, element } from "./element.js";

export class CacheSettings {
  #caches;
  #blocks;
  #overrides = {};
  #onChange;

  /** `card` is the model card; `onChange` is called after every change. */
  constructor(card, onChange) {
    this.#caches = Object.fromEntries(card.caches.map((cache) => [cache.backend, cache]));
    this.#blocks = Math.max(...card.block_lists.map((list) => list.blocks));
    this.#onChange = onChange;
    this.#fillBackends(card);
    byId("backend").addEventListener("change", () => this.#set({}));
    byId("cache-json").addEventListener("input", () => this.#readJson());
  }

  get backend() {
    return byId("backend").value;
  }

  /** The request's fields. */
  fields() {
    const config = Object.keys(this.#overrides).length > 0 ? { cache_config: { ...this.#overrides } } : {};
    return { cache_backend: this.backend, ...config };
  }

  /** Puts fields of a request back; returns what there is no place for, in words. */
  fill({ cache_backend: backend, cache_config: config }) {
    if (backend === undefined && config === undefined) return [];
    const isKnown = backend === undefined || [...byId("backend").options].some(({ value, disabled }) => value === backend && !disabled);
    if (!isKnown) return [`cache_backend ${backend} (this model cannot use it)`];
    if (backend !== undefined) byId("backend").value = backend;
    this.#set(this.#differing(config ?? {}));
    return [];
  }

  /** A response and a PNG name every key in force; what is the default anyway need not be said. */
  #differing(config) {
    const differs = ([key, value]) => value !== null && !same(value, this.#default(key));
    const overrides = Object.fromEntries(Object.entries(config).filter(differs));
    // The mask in force was made from these, and only one of the two may be given.
    const makesMask = ["scm_steps_mask_policy", "scm_compute_bins", "scm_cache_bins"].some((key) => config[key] != null);
    if (makesMask) delete overrides.steps_computation_mask;
    return overrides;
  }

  /** Why the JSON cannot be used, if it cannot. */
  fault() {
    const { fault: message } = parsed(byId("cache-json").value);
    return message ? { param: "cache_config", message } : null;
  }

  #fillBackends(card) {
    const list = byId("unavailable");
    for (const { backend, fault } of card.caches) {
      const { title } = BACKENDS[backend] ?? { title: backend };
      byId("backend").append(element("option", { value: backend, disabled: lacksCalibration(fault) }, title));
      if (fault) list.append(element("li", {}, `${backend}: ${fault.message}`));
    }
    const own = card.defaults.cache_backend;
    byId("backend").value = own === "none" ? "cache_dit" : own;
    this.#set({});
  }

  #set(overrides) {
    this.#overrides = overrides;
    this.#showControls();
    this.#showJson();
    this.#onChange();
  }

  #change(field, value) {
    const overrides = { ...this.#overrides };
    if (value === undefined || same(value, this.#default(field.key))) delete overrides[field.key];
    else overrides[field.key] = value;
    for (const other of value === true ? (field.excludes ?? []) : []) {
      delete overrides[other];
      if (this.#default(other) === true) overrides[other] = false;
    }
    const rebuilds = field.key === "cache_type" || field.excludes;
    this.#overrides = overrides;
    this.#showJson();
    if (rebuilds) {
      this.#showControls();
      byId(`cache-${field.key}`).focus();
    }
    this.#markPreset();
    this.#onChange();
  }

  #default(key) {
    return this.#caches[this.backend]?.config?.[key] ?? CACHE_KEYS[this.backend]?.[key]?.default ?? null;
  }

  #value(key) {
    return this.#overrides[key] ?? this.#default(key);
  }

  #readJson() {
    const { overrides, fault } = parsed(byId("cache-json").value);
    byId("cache-json").setAttribute("aria-invalid", fault !== undefined);
    if (fault) return;
    this.#overrides = overrides;
    this.#showControls();
    this.#onChange();
  }

  #showJson() {
    byId("cache-json").value = JSON.stringify(this.#overrides, null, 2);
    byId("cache-json").removeAttribute("aria-invalid");
  }

  #showControls() {
    const { groups, presets } = BACKENDS[this.backend] ?? { groups: [], presets: {} };
    const open = new Set([...document.querySelectorAll("#cache-fields details[open] > summary")].map((summary) => summary.textContent));
    byId("json").hidden = this.backend === "none";
    byId("presets").replaceChildren(
      ...Object.entries(presets).map(([name, keys]) => {
        const button = element("button", { type: "button", data: { preset: name } }, name);
        button.addEventListener("click", () => {
          this.#set({ ...keys });
          document.querySelector(`[data-preset="${name}"]`).focus();
        });
        return button;
      }),
    );
    byId("cache-fields").replaceChildren(
      ...groups.map(({ title, keys }) => {
        const controls = keys.filter((field) => !field.only || field.only === this.#value("cache_type")).map((field) => this.#control(field));
        if (!title) return element("div", {}, ...controls);
        return element("details", { open: open.has(title) }, element("summary", {}, title), ...controls);
      }),
    );
    this.#markPreset();
  }

  #markPreset() {
    const presets = BACKENDS[this.backend]?.presets ?? {};
    for (const button of byId("presets").children) {
      const config = { ...presets[button.dataset.preset] };
      const isOn = Object.keys({ ...config, ...this.#overrides }).every((key) => same(config[key] ?? this.#default(key), this.#value(key)));
      button.setAttribute("aria-pressed", isOn);
    }
  }

  #control(field) {
    const id = `cache-${field.key}`;
    const name = `cache_config.${field.key}`;
    const label = element("label", { htmlFor: id, title: field.help }, field.title, " ", element("code", {}, field.key));
    const value = this.#value(field.key);
    if (field.kind === "boolean") {
      const input = element("input", { id, name, type: "checkbox", checked: value === true });
      input.addEventListener("change", () => this.#change(field, input.checked));
      return element("div", { className: "field check" }, input, label);
    }
    if (field.kind === "choice") {
      const select = element("select", { id, name });
      if (this.#default(field.key) === null) select.append(element("option", { value: "" }, "none"));
      select.append(...field.choices.map((choice) => element("option", { value: choice }, choice)));
      select.value = value ?? "";
      select.addEventListener("change", () => this.#change(field, select.value || undefined));
      return element("div", { className: "field" }, label, select);
    }
    const input = element("input", { id, name, placeholder: shown(this.#default(field.key) ?? "none") });
    input.value = shown(this.#overrides[field.key] ?? (field.slide ? value : null));
    if (field.kind === "list" || field.kind === "numbers") input.spellcheck = false;
    else Object.assign(input, { type: "number", step: field.kind === "number" ? "any" : "1", min: this.#bound(field, "min"), max: this.#bound(field, "max") });
    input.addEventListener("input", () => this.#change(field, entered(field, input.value)));
    if (!field.slide) return element("div", { className: "field" }, label, input);
    const [min, max, step] = field.slide;
    const range = element("input", { type: "range", min, max, step, ariaLabel: `${field.title}, slider` });
    range.value = value;
    range.addEventListener("input", () => {
      input.value = range.value;
      this.#change(field, Number(range.value));
    });
    input.addEventListener("input", () => (range.value = input.value));
    return element("div", { className: "field" }, label, element("div", { className: "slide" }, range, input));
  }

  #bound(field, end) {
    if (end === "max" && field.key.endsWith("_compute_blocks")) return this.#blocks;
    return field[end] ?? "";
  }
}

/** Only what cannot work with any setting of the form is closed. */
function lacksCalibration(fault) {
  return ["cache_config.coefficients", "cache_config.mag_ratios", "cache_backend"].includes(fault?.param);
}

function parsed(text) {
  try {
    const overrides = text.trim() === "" ? {} : JSON.parse(text);
    if (overrides !== null && typeof overrides === "object" && !Array.isArray(overrides)) return { overrides };
    return { fault: "This must be a JSON object, such as {\"residual_diff_threshold\": 0.12}." };
  } catch (error) {
    return { fault: `This is not valid JSON: ${error.message}` };
  }
}

/** What was typed; text that is no number goes to the server as it is, which says what is wrong. */
function entered({ kind }, text) {
  if (text.trim() === "") return undefined;
  const number = (word) => (Number.isNaN(Number(word)) ? word : Number(word));
  const isList = kind === "list" || kind === "numbers";
  return isList ? text.split(/[\s,]+/).filter(Boolean).map(number) : number(text);
}

const shown = (value) => (Array.isArray(value) ? value.join(", ") : String(value ?? ""));
const same = (a, b) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);
