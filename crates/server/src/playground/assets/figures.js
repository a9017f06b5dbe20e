// What came of a run, in numbers and words.

import { decibels, word } from "./likeness.js";

const total = (side, stage) => side.requests.reduce((sum, { timings }) => sum + timings[stage], 0);

/** How much faster the denoising was. */
export const speedUp = (uncached, cached) => total(uncached, "denoise_seconds") / total(cached, "denoise_seconds");
/** From the beginning of the work to the pictures. */
export const workSeconds = (side) => total(side, "total_seconds") - total(side, "queue_seconds");
export const denoiseSeconds = (side) => total(side, "denoise_seconds");
export const hitRate = (side) => side.requests.reduce((sum, { cache }) => sum + cache.hit_rate, 0) / side.requests.length;
export const percent = (share) => `${Math.round(100 * share)} %`;
export const seconds = (value) => (value < 1 ? `${Math.round(1000 * value)} ms` : `${value.toFixed(2)} s`);

/** Of several pictures: from the least alike to the most. */
export function likenessRange(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return least === most ? decibels(least) : `${decibels(least)} to ${decibels(most)}`;
}

/** A run in the second half of a sentence. `likeness` has the PSNR of every picture that both sides have. */
export function summary({ sides: { uncached, cached }, likeness, isConcurrent }) {
  if (!cached) return "nothing was reused.";
  const reused = `${percent(hitRate(cached))} of the passes reused`;
  if (!uncached) return `${reused}.`;
  const times = `${speedUp(uncached, cached).toFixed(2)} times as fast${isConcurrent ? " while sharing the machine" : ""}`;
  const least = Math.min(...likeness);
  const difference = least === Infinity ? "identical pixels" : `difference ${word(least)} (${likenessRange(likeness)})`;
  return `${times}, ${difference}, ${reused}.`;
}
