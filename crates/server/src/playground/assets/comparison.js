// One run: the cached pictures, then the uncached ones, each request streamed to the stage.
//
// A side of a run is `{shots, requests}`: `shots` are its pictures in order (`seed`, `file`, and by `request` and
// `index` where its cache report stands), `requests` what the server said of each request.

import { generate, generationEvents } from "./api.js";
import { fileOf } from "./picture.js";

/** Sizes this page has already made something of: the first forward of a size is slower. */
const warm = new Set();

/** The server has measured this size, so it has run it before. */
export const isWarm = (size) => warm.add(size);

/**
 * Runs the requests on both sides, one after the other unless `isConcurrent`. The cached side comes first,
 * so that settings the server refuses cost no waiting. `cache` has the cached side's fields, null if there
 * is none; `uncached` is true, false, or an earlier side to keep. Returns the sides.
 */
export async function compare({ requests, cache, uncached, isConcurrent, previews }, { stage, say, signal }) {
  const order = [];
  if (cache) order.push(["cached", cache]);
  if (uncached === true) order.push(["uncached", { cache_backend: "none" }]);
  const make = async ([side, fields]) => {
    const bodies = requests.map((request) => ({ ...request, ...fields, partial_images: previews }));
    return [side, await makeSide(side, bodies, stage, signal)];
  };

  const sides = {};
  if (uncached && uncached !== true) {
    sides.uncached = uncached;
    await stage.take("uncached", uncached);
  }
  if (isConcurrent) {
    say("Making cached and uncached pictures");
    return { ...sides, ...Object.fromEntries(await Promise.all(order.map(make))) };
  }
  if (order.length > 1) await warmUp(requests[0], say, signal);
  for (const one of order) {
    say(`Making the ${one[0]} ${requests.length > 1 || requests[0].n > 1 ? "pictures" : "picture"}`);
    const [side, made] = await make(one);
    sides[side] = made;
  }
  return sides;
}

/** One step, so that what runs first is not at a disadvantage. */
async function warmUp({ n, ...request }, say, signal) {
  if (warm.has(request.size)) return;
  say("Warming the model up");
  await generate({ ...request, num_inference_steps: 1, cache_backend: "none" }, signal);
  warm.add(request.size);
}

async function makeSide(side, bodies, stage, signal) {
  const made = { shots: [], requests: [] };
  stage.begin(side);
  try {
    for (const body of bodies) await makeRequest(side, body, made, stage, signal);
  } finally {
    stage.end(side);
  }
  return made;
}

async function makeRequest(side, body, made, stage, signal) {
  const before = made.shots.length;
  const shots = [];
  for await (const event of generationEvents(body, signal)) {
    if (event.type === "image_generation.progress") {
      stage.progress(side, event);
      continue;
    }
    const file = fileOf(event.b64_json, event.output_format);
    if (event.type === "image_generation.partial_image") {
      await stage.preview(side, before + event.image_index, file);
      continue;
    }
    shots.push({ seed: event.seed, file, request: made.requests.length, index: event.image_index });
    if (!event.cache) continue;
    made.requests.push({ cache: event.cache, timings: event.timings, warnings: event.warnings ?? [] });
    made.shots.push(...shots);
    await stage.take(side, made);
    return;
  }
  throw new Error("The server ended the stream without a picture.");
}
