// The two pictures, their difference, the figures and the timelines.

import { byId } from "./element.js";
import { drawDifference, psnr } from "./picture.js";
import { Timeline } from "./timeline.js";

/** Pictures narrower than this are shown with their pixels, not smoothed. */
const CRISP_BELOW = 256;

export class Stage {
  #pictures = { uncached: null, cached: null };
  #timelines = {
    uncached: new Timeline(byId("timeline-uncached"), "Uncached"),
    cached: new Timeline(byId("timeline-cached"), "Cached"),
  };

  constructor() {
    byId("gain").addEventListener("change", () => this.#showDifference());
  }

  /** Nothing is shown, and pictures of this size are to come. */
  clear(size) {
    const [width, height] = size?.split("x") ?? [1, 1];
    byId("stage").style.setProperty("--shape", `${width} / ${height}`);
    for (const side of ["uncached", "cached"]) {
      this.#setPicture(side, null);
      this.#image(side).hidden = true;
      this.#caption(side, "");
      this.#timelines[side].clear();
    }
    this.#clearFigures();
  }

  /** One side is being made. */
  begin(side) {
    byId(side).setAttribute("aria-busy", "true");
  }

  end(side) {
    byId(side).removeAttribute("aria-busy");
  }

  progress(side, { step, total, cached, queue_position: position }) {
    if (this.#timelines[side].isEmpty) this.#timelines[side].begin(total);
    this.#timelines[side].progress(step, cached);
    const reused = cached > 0 ? `, ${cached} reused` : "";
    this.#caption(side, position > 0 ? `waiting, place ${position}` : `step ${step} of ${total}${reused}`);
  }

  preview(side, picture) {
    this.#showPicture(side, picture, "on its way");
  }

  /** One side's result: a picture, cache and timings. */
  result(side, result) {
    this.#setPicture(side, result.picture);
    this.#showPicture(side, result.picture, side);
    this.#timelines[side].finish(result.cache);
    const { denoise_seconds: denoise, total_seconds: total, queue_seconds: queue } = result.timings;
    this.#caption(side, `${seconds(total - queue)}, denoising ${seconds(denoise)}`);
  }

  /** The figures of a finished run; either side may be missing. */
  figures({ uncached, cached }) {
    this.#clearFigures();
    if (cached) {
      byId("hit-rate").textContent = percent(cached.cache.hit_rate);
      byId("tag").textContent = cached.cache.tag ?? "";
    }
    if (uncached && cached) {
      byId("speed-up").textContent = `${speedUp(uncached, cached).toFixed(2)}x`;
      byId("psnr").textContent = decibels(psnr(uncached.picture, cached.picture));
    }
    const totals = [uncached, cached].filter(Boolean).map(({ timings }) => seconds(timings.total_seconds - timings.queue_seconds));
    byId("times").textContent = totals.join(" / ");
    this.#showDifference();
  }

  #clearFigures() {
    for (const id of ["speed-up", "psnr", "hit-rate", "times"]) byId(id).textContent = "-";
    byId("tag").textContent = "";
  }

  #setPicture(side, picture) {
    this.#pictures[side] = picture;
    this.#showDifference();
  }

  #showDifference() {
    const { uncached, cached } = this.#pictures;
    const canvas = byId("difference").querySelector("canvas");
    canvas.hidden = !uncached || !cached || uncached.width !== cached.width || uncached.height !== cached.height;
    if (canvas.hidden) return;
    const gain = Number(byId("gain").value);
    drawDifference(canvas, uncached, cached, gain);
    canvas.classList.toggle("crisp", uncached.width < CRISP_BELOW);
    canvas.ariaLabel = `Difference of the pictures, amplified ${gain} times: ${decibels(psnr(uncached, cached))}`;
  }

  #showPicture(side, picture, alt) {
    const image = this.#image(side);
    Object.assign(image, { src: picture.url, alt: `The ${side} picture, ${alt === side ? "finished" : alt}`, hidden: false });
    image.classList.toggle("crisp", picture.width < CRISP_BELOW);
  }

  #image(side) {
    return byId(side).querySelector("img");
  }

  #caption(side, text) {
    byId(side).querySelector(".caption").textContent = text;
  }
}

/** How much faster the denoising was. */
export const speedUp = (uncached, cached) => uncached.timings.denoise_seconds / cached.timings.denoise_seconds;
export const decibels = (value) => (value === Infinity ? "equal" : `${value.toFixed(1)} dB`);
export const percent = (share) => `${Math.round(100 * share)} %`;
const seconds = (value) => (value < 1 ? `${Math.round(1000 * value)} ms` : `${value.toFixed(2)} s`);
