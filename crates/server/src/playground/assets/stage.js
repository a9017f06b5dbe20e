// The pictures of a run and their difference, the figures and the timelines. Of several pictures one is shown.
// The stage decodes what it shows, and gives the decoded pictures back when something else is shown.

import { byId, element } from "./element.js";
import { denoiseSeconds, hitRate, likenessRange, percent, seconds, speedUp, workSeconds } from "./figures.js";
import { decibels, word } from "./likeness.js";
import { decode, drawDifference, fileName, isSameSize, psnr, release } from "./picture.js";
import { Shots } from "./shots.js";
import { Timeline } from "./timeline.js";

/** Pictures narrower than this are shown with their pixels, not smoothed. */
const CRISP_BELOW = 256;
const SIDES = ["uncached", "cached"];

export class Stage {
  #viewer;
  #shots = new Shots((at) => this.#choose(at));
  #timelines = {
    uncached: new Timeline(byId("timeline-uncached"), "Uncached"),
    cached: new Timeline(byId("timeline-cached"), "Cached"),
  };
  #prompt = "";
  #steps = 0;
  #sides = {};
  #pictures = {};
  #previews = {};
  #likeness = [];
  #at = 0;

  constructor(viewer) {
    this.#viewer = viewer;
    byId("gain").addEventListener("change", () => this.#showDifference());
    byId("open-viewer").addEventListener("click", () => this.#openViewer());
    for (const side of [...SIDES, "difference"]) byId(side).querySelector(".frame").addEventListener("click", () => this.#openViewer(side));
  }

  /** PSNR of every picture that both sides have. */
  get likeness() {
    return [...this.#likeness];
  }

  /** Nothing is shown, and pictures of these seeds are to come. */
  clear({ size, seeds, steps, prompt, hasDistances }) {
    const [width, height] = size?.split("x") ?? [1, 1];
    byId("stage").style.setProperty("--shape", `${width} / ${height}`);
    for (const picture of SIDES.flatMap((side) => [...(this.#pictures[side] ?? []), this.#previews[side]])) release(picture);
    [this.#prompt, this.#steps, this.#at, this.#likeness] = [prompt, steps, 0, []];
    [this.#sides, this.#previews, this.#pictures] = [{}, {}, { uncached: [], cached: [] }];
    this.#shots.offer(seeds);
    for (const side of SIDES) this.#timelines[side].begin(steps, side === "cached" && hasDistances);
    byId("warnings").hidden = true;
    this.#show();
  }

  /** One side is being made. */
  begin(side) {
    byId(side).setAttribute("aria-busy", "true");
  }

  end(side) {
    byId(side).removeAttribute("aria-busy");
  }

  progress(side, { step, total, cached, queue_position: position }) {
    // Of several pictures only the steps of all together are known.
    if (total === this.#steps) this.#timelines[side].progress(step, cached);
    const reused = cached > 0 ? `, ${cached} reused` : "";
    this.#caption(side, position > 0 ? `waiting, place ${position}` : `step ${step} of ${total}${reused}`);
  }

  async preview(side, at, file) {
    if (at !== this.#at) return;
    const picture = await decode(file);
    this.#showPicture(side, picture, "unfinished");
    release(this.#previews[side]);
    this.#previews[side] = picture;
  }

  /** A side as far as it is made. */
  async take(side, made) {
    const pictures = this.#pictures[side];
    for (const shot of made.shots.slice(pictures.length)) pictures.push(await decode(shot.file));
    if (pictures !== this.#pictures[side]) return pictures.forEach(release);
    this.#sides[side] = made;
    this.#compare();
    this.#show();
  }

  /** A run that is finished. */
  async show({ settings, sides, seeds }) {
    const { cache } = (sides.cached ?? sides.uncached).requests[0];
    this.clear({ size: settings.size, seeds, steps: cache.steps, prompt: settings.prompt, hasDistances: Boolean(sides.cached) });
    for (const [side, made] of Object.entries(sides)) await this.take(side, made);
  }

  #choose(at) {
    this.#at = at;
    this.#show();
  }

  #compare() {
    const { uncached, cached } = this.#pictures;
    for (let at = this.#likeness.length; isSameSize(uncached[at], cached[at]); at += 1) this.#likeness.push(psnr(uncached[at], cached[at]));
  }

  #show() {
    for (const side of SIDES) this.#showSide(side);
    this.#showDifference();
    this.#showFigures();
    this.#showWarnings();
    SIDES.forEach((side) => this.#pictures[side].forEach((picture, at) => this.#shots.picture(side, at, picture)));
    this.#shots.choose(this.#at, this.#likeness);
    byId("open-viewer").disabled = !SIDES.some((side) => this.#pictures[side][this.#at]);
  }

  #showSide(side) {
    const picture = this.#pictures[side][this.#at];
    const link = byId(side).querySelector(".download");
    link.hidden = !picture;
    if (!picture) {
      this.#image(side).hidden = true;
      return this.#caption(side, "");
    }
    const made = this.#sides[side];
    const { seed, request, index, file } = made.shots[this.#at];
    const { cache, timings } = made.requests[request];
    this.#showPicture(side, picture, "finished");
    this.#timelines[side].finish(cache, index);
    const count = made.shots.filter((shot) => shot.request === request).length;
    const total = seconds(timings.total_seconds - timings.queue_seconds);
    this.#caption(side, `${count > 1 ? `${count} pictures in ` : ""}${total}, denoising ${seconds(timings.denoise_seconds)}`);
    link.href = picture.url;
    link.download = fileName(this.#prompt, seed, side, file.type);
    link.setAttribute("aria-label", `Download the ${side} picture`);
  }

  #showFigures() {
    const { uncached, cached } = this.#sides;
    const likeness = this.#likeness[this.#at];
    const set = (id, text) => (byId(id).textContent = text);
    set("hit-rate", cached ? percent(hitRate(cached)) : "-");
    set("speed-up", uncached && cached ? `${speedUp(uncached, cached).toFixed(2)}x` : "-");
    set("psnr", likeness === undefined ? "-" : decibels(likeness));
    const range = this.#likeness.length > 1 ? `; all: ${likenessRange(this.#likeness)}` : "";
    byId("psnr").nextElementSibling.textContent = likeness === undefined ? "PSNR" : `PSNR: ${word(likeness)}${range}`;
    const sides = [uncached, cached].filter(Boolean);
    set("times", sides.map((side) => seconds(workSeconds(side))).join(" / ") || "-");
    byId("times").title = sides.map((side) => `denoising ${seconds(denoiseSeconds(side))}`).join(" / ");
    const shot = cached?.shots[this.#at];
    set("tag", shot ? (cached.requests[shot.request].cache.tag ?? "") : "");
  }

  #showWarnings() {
    const messages = new Set(SIDES.flatMap((side) => this.#sides[side]?.requests ?? []).flatMap(({ warnings }) => warnings.map(({ message }) => message)));
    byId("warnings").hidden = messages.size === 0;
    byId("warnings").replaceChildren(...[...messages].map((message) => element("li", {}, message)));
  }

  #showDifference() {
    const [uncached, cached] = SIDES.map((side) => this.#pictures[side]?.[this.#at]);
    const canvas = byId("difference").querySelector("canvas");
    canvas.hidden = !isSameSize(uncached, cached);
    this.#caption("difference", canvas.hidden ? "" : word(this.#likeness[this.#at]));
    if (canvas.hidden) return;
    const gain = Number(byId("gain").value);
    drawDifference(canvas, uncached, cached, gain);
    canvas.classList.toggle("crisp", uncached.width < CRISP_BELOW);
    canvas.ariaLabel = `Difference of the pictures, amplified ${gain} times: ${decibels(this.#likeness[this.#at])}`;
  }

  #openViewer(mode) {
    const [uncached, cached] = SIDES.map((side) => this.#pictures[side]?.[this.#at]);
    if (!uncached && !cached) return;
    this.#viewer.open({ uncached, cached, mode: mode === "difference" ? mode : null, title: this.#prompt, gain: Number(byId("gain").value) });
  }

  #showPicture(side, picture, state) {
    const image = this.#image(side);
    Object.assign(image, { src: picture.url, alt: `The ${side} picture, ${state}`, hidden: false });
    image.classList.toggle("crisp", picture.width < CRISP_BELOW);
  }

  #image(side) {
    return byId(side).querySelector("img");
  }

  #caption(side, text) {
    byId(side).querySelector(".caption").textContent = text;
  }
}
