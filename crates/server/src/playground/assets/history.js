// Earlier runs, newest first, bounded in number and bytes.

import { byId, element } from "./element.js";
import { hitRate, likenessRange, percent, speedUp } from "./figures.js";
import { forgetAllRuns, forgetRun, storedRuns, storeRun } from "./run_store.js";

const MOST_RUNS = 24;
const MOST_BYTES = 64 << 20;

export class History {
  #runs = [];
  #model;
  #onShow;
  #onUse;

  /** `onShow` puts a run on the stage, `onUse` its settings into the form. */
  constructor({ onShow, onUse }) {
    this.#onShow = onShow;
    this.#onUse = onUse;
    byId("clear-history").addEventListener("click", () => this.#clear());
  }

  /** What the browser has kept of earlier visits. */
  async load(model) {
    this.#model = model;
    this.#runs = (await storedRuns()).map((run) => ({ ...run, entry: this.#entry(run) }));
    await this.#show();
  }

  /** The newest run of the served model that is like this. */
  find(isWanted) {
    return this.#runs.find((run) => run.model === this.#model && isWanted(run));
  }

  async add(run) {
    const kept = { ...run, entry: this.#entry(run) };
    this.#runs.unshift(kept);
    kept.id = await storeRun(run);
    await this.#show();
  }

  async #clear() {
    this.#runs.forEach(leave);
    this.#runs = [];
    await forgetAllRuns();
    await this.#show();
  }

  async #show() {
    let bytes = 0;
    const kept = this.#runs.filter((run, index) => {
      bytes += bytesOf(run);
      return index === 0 || (index < MOST_RUNS && bytes <= MOST_BYTES);
    });
    const dropped = this.#runs.filter((run) => !kept.includes(run));
    this.#runs = kept;
    byId("no-history").hidden = kept.length > 0;
    byId("clear-history").hidden = kept.length === 0;
    byId("history").replaceChildren(...kept.map(({ entry }) => entry.item));
    dropped.forEach(leave);
    for (const { id } of dropped) await forgetRun(id ?? null);
  }

  #entry(run) {
    const { settings, sides, model } = run;
    const shown = sides.cached ?? sides.uncached;
    const url = URL.createObjectURL(shown.shots[0].file);
    const name = `${settings.prompt}, seed ${settings.seed}, ${shown.requests[0].cache.steps} steps`;
    const other = model === this.#model ? "" : `${model}: `;
    const image = element("img", { src: url, alt: "", width: 48, height: 48, loading: "lazy" });
    const show = element("button", { type: "button", ariaLabel: `Show ${name}` }, "Show");
    show.addEventListener("click", () => this.#onShow(run));
    const use = element("button", { type: "button", ariaLabel: `Use settings of ${name}` }, "Use settings");
    use.addEventListener("click", () => this.#onUse(run));
    const item = element(
      "li",
      {},
      image,
      element("div", {}, element("b", {}, other + name), element("span", { className: "quiet" }, cacheWords(settings))),
      element("span", { className: "figure" }, figures(run)),
      element("div", { className: "row" }, show, use),
    );
    return { item, url };
  }
}

function leave({ entry }) {
  entry.item.remove();
  URL.revokeObjectURL(entry.url);
}

const bytesOf = ({ sides }) => Object.values(sides).flatMap(({ shots }) => shots).reduce((sum, { file }) => sum + file.size, 0);

function cacheWords({ cache_backend: backend, cache_config: config = {}, n }) {
  const keys = Object.entries(config).map(([key, value]) => `${key} ${value}`);
  return [...(n > 1 ? [`${n} pictures`] : []), backend, ...keys].join(", ");
}

function figures({ sides: { uncached, cached }, likeness }) {
  if (!cached) return "uncached";
  const compared = uncached ? [`${speedUp(uncached, cached).toFixed(2)}x`, likenessRange(likeness)] : [];
  return [...compared, `${percent(hitRate(cached))} reused`].join(", ");
}
