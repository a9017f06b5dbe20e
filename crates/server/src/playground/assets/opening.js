// What the page draws by itself when it is opened, and when it rather waits for its visitor.
//
// A visit must stay cheap for a server that others use: only models that draw from labels, only where the
// work is small, and nothing while requests wait. docs/playground.md has the rule for people.

import { metricsText } from "./api.js";
import { BACKENDS } from "./cache_fields.js";
import { requestsOf } from "./form.js";
import { parseMetrics } from "./metrics.js";
import { isClassConditional, namesOf } from "./prompt.js";

/** Longest work, in seconds on an idle server, that a visit may cause. */
const MOST_SECONDS = 4;
/** A size that was not measured yet is taken for cheap up to this many pixels. */
const SMALL_PIXELS = 128 * 128;
/** Labels and seeds that make a good picture, by the models that are known. */
const CHOICES = [
  { prompt: "sunflower", seed: 1 },
  { prompt: "golden retriever", seed: 1 },
];

/** What to draw where nothing else is asked for. Where the server has a cache of its own, that is the one to show. */
export function firstSettings(card) {
  const names = namesOf(card);
  const choice = CHOICES.find(({ prompt }) => names.includes(prompt)) ?? {};
  if (card.defaults.cache_backend !== "none") return choice;
  return { ...choice, cache_backend: "cache_dit", cache_config: BACKENDS.cache_dit.presets.Quality };
}

/** Why these settings are not run without being asked for, as a sentence; null if they may be. */
export async function whyNotDrawn(card, settings) {
  if (!isClassConditional(card)) return "This model draws from text, which may take long. Write a prompt, then press Compare.";
  const seconds = estimatedSeconds(card, settings);
  if (seconds === null) return "How long this model takes has not been measured yet, so nothing was drawn. Press Compare to draw.";
  if (seconds > MOST_SECONDS) return `These pictures would take about ${Math.ceil(seconds)} s, so nothing was drawn yet. Press Compare to draw.`;
  const waiting = await waitingRequests();
  if (waiting > 0) return `The server is busy (requests waiting: ${waiting}), so nothing was drawn yet. Press Compare to wait with them.`;
  return null;
}

/** Both sides without any reuse; null where nothing is known. */
function estimatedSeconds({ buckets, limits, defaults }, settings) {
  const bucket = buckets.find(({ size }) => size === settings.size) ?? buckets[0];
  const { seconds_per_row_step: step, decode_seconds: decode } = bucket;
  const requests = requestsOf(settings);
  const pictures = requests.reduce((sum, { n = 1 }) => sum + n, 0);
  const { num_inference_steps: steps = defaults.num_inference_steps, guidance_scale: guidance = defaults.guidance_scale } = settings;
  if (!(pictures <= limits.n && steps <= limits.num_inference_steps)) return Infinity;
  if (step === null) return isSmall(bucket.size) ? 0 : null;
  return 2 * pictures * (steps * (guidance > 1 ? 2 : 1) * step + (decode ?? 0));
}

function isSmall(size) {
  const [width, height] = size.split("x").map(Number);
  return width * height <= SMALL_PIXELS;
}

/** Metrics may be closed to visitors; the queue then says itself when it is full. */
async function waitingRequests() {
  try {
    const series = parseMetrics(await metricsText());
    return series.filter(({ name }) => name === "afterimage_queue_depth").reduce((sum, { value }) => sum + value, 0);
  } catch {
    return 0;
  }
}
