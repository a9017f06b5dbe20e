// One run: the cached picture, then the uncached one, each streamed to the stage.

import { generate, generationEvents } from "./api.js";
import { decode } from "./picture.js";

/** Sizes this page has already made something of: the first forward of a size is slower. */
const warm = new Set();

/**
 * Runs one request on both sides, one after the other unless `isConcurrent`. The cached side comes first,
 * so that settings the server refuses cost no waiting. `cache` has the cached side's fields, null if there
 * is none; `uncached` is true, false, or an earlier result to keep. Returns the results by side.
 */
export async function compare({ base, cache, uncached, isConcurrent, previews }, { stage, say, signal }) {
  const sides = [];
  if (cache) sides.push(["cached", cache]);
  if (uncached === true) sides.push(["uncached", { cache_backend: "none" }]);
  const make = ([side, fields]) => run(side, { ...base, ...fields, partial_images: previews }, stage, signal);

  const results = {};
  stage.clear(base.size);
  if (uncached && uncached !== true) {
    results.uncached = uncached;
    stage.result("uncached", uncached);
  }
  if (isConcurrent) {
    say("Making both pictures");
    const made = await Promise.all(sides.map(make));
    sides.forEach(([side], index) => (results[side] = made[index]));
    return results;
  }
  if (sides.length > 1) await warmUp(base, say, signal);
  for (const side of sides) {
    say(`Making the ${side[0]} picture`);
    results[side[0]] = await make(side);
  }
  return results;
}

/** One step, so that what runs first is not at a disadvantage. */
async function warmUp(base, say, signal) {
  if (warm.has(base.size)) return;
  say("Warming the model up");
  await generate({ ...base, num_inference_steps: 1, cache_backend: "none" }, signal);
  warm.add(base.size);
}

async function run(side, request, stage, signal) {
  stage.begin(side);
  try {
    for await (const event of generationEvents(request, signal)) {
      if (event.type === "image_generation.progress") {
        stage.progress(side, event);
        continue;
      }
      const picture = await decode(event.b64_json, event.output_format);
      if (event.type === "image_generation.partial_image") {
        stage.preview(side, picture);
        continue;
      }
      const result = { picture, cache: event.cache, timings: event.timings, seed: event.seed };
      stage.result(side, result);
      return result;
    }
    throw new Error("The server ended the stream without a picture.");
  } finally {
    stage.end(side);
  }
}
