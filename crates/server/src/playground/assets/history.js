// The last runs of this tab, kept in memory.

import { byId, element } from "./element.js";
import { psnr } from "./picture.js";
import { decibels, percent, speedUp } from "./stage.js";

const LONGEST = 12;

export class History {
  #onShow;
  #onUse;

  /** `onShow` puts a run on the stage, `onUse` its settings into the form. */
  constructor({ onShow, onUse }) {
    this.#onShow = onShow;
    this.#onUse = onUse;
  }

  add(run) {
    byId("no-history").hidden = true;
    const list = byId("history");
    list.prepend(this.#entry(run));
    while (list.children.length > LONGEST) list.lastElementChild.remove();
  }

  #entry(run) {
    const { base, cache, results } = run;
    const shown = results.cached ?? results.uncached;
    const name = `${base.prompt}, seed ${base.seed}, ${shown.cache.steps} steps`;
    const image = element("img", { src: shown.picture.url, alt: "", width: 48, height: 48, className: "crisp" });
    const settings = cache ? [cache.cache_backend, ...Object.entries(cache.cache_config ?? {}).map(([key, value]) => `${key} ${value}`)] : ["none"];
    const show = element("button", { type: "button", ariaLabel: `Show ${name}` }, "Show");
    show.addEventListener("click", () => this.#onShow(run));
    const use = element("button", { type: "button", ariaLabel: `Use the settings of ${name}` }, "Use settings");
    use.addEventListener("click", () => this.#onUse(run));
    return element(
      "li",
      {},
      image,
      element("div", {}, element("b", {}, name), element("span", { className: "quiet" }, settings.join(", "))),
      element("span", { className: "figure" }, figures(results)),
      element("div", { className: "row" }, show, use),
    );
  }
}

function figures({ uncached, cached }) {
  if (!cached) return "uncached";
  const compared = uncached ? [`${speedUp(uncached, cached).toFixed(2)}x`, decibels(psnr(uncached.picture, cached.picture))] : [];
  return [...compared, `${percent(cached.cache.hit_rate)} reused`].join(", ");
}
