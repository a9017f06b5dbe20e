// The page: finds the server, then turns the form into runs.

import { modelCard, useKey } from "./api.js";
import { CacheSettings } from "./cache_settings.js";
import { compare } from "./comparison.js";
import { copy, curlCommand } from "./curl.js";
import { byId } from "./element.js";
import { clearFaults, showFault } from "./faults.js";
import { current, faultOf, fields, fill, offer } from "./form.js";
import { History } from "./history.js";
import { watchMetrics } from "./metrics.js";
import { psnr } from "./picture.js";
import { decibels, percent, speedUp, Stage } from "./stage.js";

const DEFAULT_RETRY_SECONDS = 5;

const form = byId("request");
const stage = new Stage();
const history = new History({ onShow: show, onUse: use });
let settings = null;
let running = null;
let lastUncached = null;

/** The model card, as soon as there is one. */
async function connect() {
  try {
    const card = await modelCard();
    byId("key-form").hidden = true;
    if (settings === null) start(card);
  } catch (failure) {
    byId("model").textContent = failure.message;
    if (failure.status === 401) askForKey();
    else setTimeout(connect, 1000 * (failure.retryAfterSeconds ?? DEFAULT_RETRY_SECONDS));
  }
}

function start(card) {
  byId("model").textContent = `${card.id}, ${card.pipeline}`;
  offer(card);
  settings = new CacheSettings(card, refresh);
  form.addEventListener("input", refresh);
  form.addEventListener("change", refresh);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go({ withUncached: true });
  });
  byId("cached-only").addEventListener("click", () => go({ withUncached: false }));
  byId("stop").addEventListener("click", () => running?.abort());
  byId("copy-curl").addEventListener("click", async () => say((await copy(byId("curl-text"))) ? "Copied." : "Copy the selected text."));
  refresh();
  watchMetrics();
}

function askForKey() {
  byId("key-form").hidden = false;
  byId("api-key").focus();
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("api-key").value.trim());
  connect();
});

/** What depends on the form as it stands. */
function refresh() {
  if (settings === null) return;
  const isCaching = settings.backend !== "none";
  byId("compare").textContent = isCaching ? "Compare" : "Make the picture";
  byId("cached-only").hidden = !isCaching || running !== null;
  byId("curl-text").textContent = curlCommand({ ...current(form), ...settings.fields() }, location.origin);
}

async function go({ withUncached }) {
  if (running !== null) return;
  clearFaults(form);
  const base = fields(form);
  const cache = settings.backend === "none" ? null : settings.fields();
  const fault = faultOf(form) ?? settings.fault();
  if (fault) return showFault(form, fault);

  const kept = byId("keep").checked && lastUncached && JSON.stringify(lastUncached.base) === JSON.stringify(base);
  const uncached = !withUncached ? false : kept ? lastUncached.result : true;
  const options = { isConcurrent: byId("concurrent").checked, previews: Number(byId("previews").value) };
  setRunning(new AbortController());
  if (byId("stage").offsetTop > byId("request").offsetTop + innerHeight / 2) byId("stage").scrollIntoView();
  try {
    const results = await compare({ base, cache, uncached, ...options }, { stage, say, signal: running.signal });
    if (results.uncached) lastUncached = { base, result: results.uncached };
    finished({ base, cache, results, isConcurrent: options.isConcurrent });
  } catch (failure) {
    // What else is on its way is of no use any more.
    running.abort();
    failed(failure);
  } finally {
    setRunning(null);
  }
}

function finished(run) {
  stage.figures(run.results);
  history.add(run);
  say(summary(run));
}

function failed(failure) {
  if (failure.name === "AbortError") return say("Stopped.");
  say("No picture.");
  if (failure.status === 401) askForKey();
  return showFault(form, failure);
}

function summary({ results: { uncached, cached }, isConcurrent }) {
  if (!cached) return "Done.";
  const reused = `${percent(cached.cache.hit_rate)} of the passes reused`;
  if (!uncached) return `Done: ${reused}.`;
  const times = `${speedUp(uncached, cached).toFixed(2)} times as fast${isConcurrent ? " while sharing the machine" : ""}`;
  return `Done: ${times}, ${decibels(psnr(uncached.picture, cached.picture))}, ${reused}.`;
}

function show({ base, results }) {
  if (running !== null) return;
  stage.clear(base.size);
  for (const [side, result] of Object.entries(results)) stage.result(side, result);
  stage.figures(results);
  byId("stage").focus();
}

function use({ base, cache }) {
  fill(base);
  settings.fill(cache ?? { cache_backend: "none" });
  byId("prompt").focus();
}

function setRunning(controller) {
  running = controller;
  byId("compare").disabled = running !== null;
  byId("stop").hidden = running === null;
  refresh();
}

function say(text) {
  byId("status").textContent = text;
}

connect();
