// The page: finds the server, then turns the form into runs.

import { modelCard, useKey } from "./api.js";
import { CacheSettings } from "./cache_settings.js";
import { compare, isWarm } from "./comparison.js";
import { copy, curlCommand } from "./curl.js";
import { byId, element } from "./element.js";
import { clearFaults, showFault } from "./faults.js";
import { summary } from "./figures.js";
import { current, faultOf, fields, fill, offer, requestsOf } from "./form.js";
import { History } from "./history.js";
import { scaleRows } from "./likeness.js";
import { fromFragment, toFragment } from "./link.js";
import { watchMetrics } from "./metrics.js";
import { firstSettings, whyNotDrawn } from "./opening.js";
import { acceptPngs } from "./png_settings.js";
import { foldSettings } from "./settings_panel.js";
import { Stage } from "./stage.js";
import { Sweep } from "./sweep.js";
import { Viewer } from "./viewer.js";

const DEFAULT_RETRY_SECONDS = 5;
/** Browsers refuse to change the address with every key. */
const LINK_MILLISECONDS = 300;

const form = byId("request");
const stage = new Stage(new Viewer());
const history = new History({ onShow: show, onUse: useRun });
let card = null;
let cacheSettings = null;
/** The run in progress: `controller` ends it, `isOpening` if nobody asked for it, `ended` when it has. */
let running = null;
let lastUncached = null;
let isAskedFor = false;
let linkTimer = null;

/** The model card, as soon as there is one. */
async function connect() {
  try {
    card = await modelCard();
    byId("key-form").hidden = true;
    if (cacheSettings === null) await start();
  } catch (failure) {
    byId("model").textContent = failure.message;
    if (failure.status === 401) askForKey();
    else setTimeout(connect, 1000 * (failure.retryAfterSeconds ?? DEFAULT_RETRY_SECONDS));
  }
}

async function start() {
  byId("model").textContent = `${card.id}, ${card.pipeline}`;
  offer(card);
  cacheSettings = new CacheSettings(card, refresh);
  for (const { size, seconds_per_row_step: step } of card.buckets) if (step !== null) isWarm(size);
  byId("scale-rows").replaceChildren(...scaleRows().map((row) => element("tr", {}, ...row.map((text) => element("td", {}, text)))));
  listen();
  await history.load(card.id);
  await open();
}

function listen() {
  for (const kind of ["input", "change"]) {
    form.addEventListener(kind, (event) => {
      refresh();
      if (event.isTrusted) share();
    });
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go({ withUncached: true });
  });
  byId("cached-only").addEventListener("click", () => go({ withUncached: false }));
  byId("stop").addEventListener("click", () => running?.controller.abort());
  for (const id of ["dice", "presets"]) byId(id).addEventListener("click", share);
  foldSettings();
  byId("copy-link").addEventListener("click", copyLink);
  byId("copy-curl").addEventListener("click", async () => {
    const shown = byId("curl-text");
    say((await copy(shown.textContent, shown)) ? "Copied." : "Copy the selected text.");
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("stage").focus();
  });
  acceptPngs({ onSettings: usePng, onFault: say });
  new Sweep({ bodyOf: sweepBody, onChoose: useRow, onFault: sweepFailed });
  addEventListener("hashchange", () => {
    const linked = fromFragment(location.hash);
    if (linked) say(`Settings of the link${leftOut(use(linked))}. Press Compare to draw.`);
  });
}

/** The first sight: what the link or the last visit asks for, drawn if that is cheap. */
async function open() {
  const linked = fromFragment(location.hash);
  const last = linked ? null : history.find(() => true);
  const refused = use(linked ?? { settings: last?.settings ?? firstSettings(card) });
  const settings = allSettings();
  stage.clear(expected(settings));
  byId("columns").classList.remove("waiting");
  watchMetrics();
  const note = leftOut(refused);
  const kept = history.find((run) => sameSettings(run.settings, settings));
  if (kept) {
    await stage.show(kept);
    say(`An earlier run of yours: ${summary(kept)}`);
  } else {
    const reason = await whyNotDrawn(card, settings);
    if (reason) say(note ? `Settings of the link${note}. ${reason}` : reason);
    else await go({ withUncached: true, isOpening: true, note });
  }
  document.documentElement.dataset.opened = "true";
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
  if (cacheSettings === null) return;
  const isCaching = cacheSettings.backend !== "none";
  byId("compare").textContent = isCaching ? "Compare" : "Draw";
  byId("cached-only").hidden = !isCaching || isBusy();
  const requests = requestsOf(current());
  byId("curl-text").textContent = requests.map((request) => curlCommand({ ...request, ...cacheSettings.fields() })).join("\n\n");
}

const isBusy = () => running !== null && !running.isOpening;
const allSettings = () => ({ ...current(), ...cacheSettings.fields() });

/** Puts the settings into the address, a moment later. */
function share() {
  clearTimeout(linkTimer);
  linkTimer = setTimeout(() => window.history.replaceState(null, "", toFragment(allSettings())), LINK_MILLISECONDS);
}

async function copyLink() {
  clearTimeout(linkTimer);
  window.history.replaceState(null, "", toFragment(allSettings()));
  say((await copy(location.href)) ? "Copied. The link has the settings, not your key." : "The address of this page is the link.");
}

/** Runs what the form says. What the page draws by itself ends as soon as somebody asks for something. */
async function go({ withUncached, isOpening = false, note = "" }) {
  if (isBusy() || (isOpening && isAskedFor)) return;
  isAskedFor ||= !isOpening;
  running?.controller.abort();
  await running?.ended;
  clearFaults(form);
  const base = fields();
  const settings = allSettings();
  const fault = faultOf(form, settings, card.limits) ?? cacheSettings.fault();
  if (fault) return showFault(form, fault);
  if (!isOpening) share();

  const cache = cacheSettings.backend === "none" ? null : cacheSettings.fields();
  const isKept = byId("keep").checked && lastUncached && sameSettings(lastUncached.base, base);
  const run = {
    requests: requestsOf(base),
    cache,
    uncached: !withUncached ? false : isKept ? lastUncached.side : true,
    isConcurrent: byId("concurrent").checked,
    previews: isOpening ? 0 : Number(byId("previews").value),
  };
  const controller = new AbortController();
  const ended = perform(run, { base, settings, isOpening, note }, controller);
  setRunning({ controller, isOpening, ended });
  if (!isOpening && byId("stage").offsetTop > form.offsetTop + innerHeight / 2) byId("stage").scrollIntoView();
  await ended;
}

async function perform(run, { base, settings, isOpening, note }, controller) {
  try {
    stage.clear(expected(settings));
    const sides = await compare(run, { stage, say, signal: controller.signal });
    if (sides.uncached) lastUncached = { base, side: sides.uncached };
    const { isConcurrent } = run;
    const seeds = (sides.cached ?? sides.uncached).shots.map(({ seed }) => seed);
    const finished = { settings, sides, seeds, isConcurrent, likeness: stage.likeness, model: card.id };
    await history.add(finished);
    say(`${isOpening ? `Drawn when the page was opened${note}` : "Done"}: ${summary(finished)}`);
  } catch (failure) {
    // What else is still running is of no use any more.
    controller.abort();
    failed(failure, isOpening);
  } finally {
    setRunning(null);
  }
}

/** What the stage has to have room for. */
function expected(settings) {
  const seeds = requestsOf(settings).flatMap(({ seed, n = 1 }) => Array.from({ length: n }, (_, index) => seed + index));
  const steps = Number(settings.num_inference_steps) || 0;
  return { size: settings.size, seeds, steps, prompt: settings.prompt ?? "", hasDistances: settings.cache_backend !== "none" };
}

function failed(failure, isOpening) {
  if (failure.name === "AbortError") return say("Stopped.");
  if (failure.status === 401) askForKey();
  if (isOpening) return say(`Nothing was drawn: ${failure.message}`);
  say("No picture.");
  return showFault(form, failure);
}

async function show(run) {
  if (isBusy()) return;
  running?.controller.abort();
  await running?.ended;
  await stage.show(run);
  say(`An earlier run: ${summary(run)}`);
  byId("stage").focus();
}

/** Puts settings into the form; returns what was of no use. */
function use({ settings, refused = [] }) {
  const unfit = [...refused, ...fill(settings), ...cacheSettings.fill(settings)];
  refresh();
  return unfit;
}

const leftOut = (refused) => (refused.length > 0 ? `, without ${refused.join(", ")}` : "");

function useRun({ settings }) {
  say(`Settings taken over${leftOut(use({ settings }))}.`);
  share();
  byId("prompt").focus();
}

function usePng({ name, model, settings, refused }) {
  const unfit = use({ settings, refused });
  const other = model && model !== card.id ? ` It was made by ${model}, this server has ${card.id}.` : "";
  say(`Settings of ${name} loaded${leftOut(unfit)}.${other} Press Compare to draw.`);
  share();
}

/** What a sweep is made of: the first picture that the form asks for, with any cache. Nothing if the form is at fault. */
function sweepBody() {
  clearFaults(form);
  const base = fields();
  const fault = faultOf(form, base, card.limits);
  if (fault) return void showFault(form, fault);
  const [{ n, ...body }] = requestsOf(base);
  return body;
}

/** Puts the cache of a sweep's row into the form; says so. */
function useRow({ cache_backend, cache_config }) {
  const refused = use({ settings: { cache_backend, cache_config } });
  share();
  return `Its settings are in the form${leftOut(refused)}.`;
}

function sweepFailed(failure) {
  if (failure.status === 401) askForKey();
  if (failure.param) showFault(form, failure);
}

function setRunning(run) {
  running = run;
  byId("compare").disabled = isBusy();
  byId("stop").hidden = running === null || running.isOpening;
  refresh();
}

const sameSettings = (a, b) => {
  const sorted = (settings) => JSON.stringify(Object.entries(settings).map(([name, value]) => [name, name === "cache_config" ? value : String(value)]).sort());
  return sorted(a) === sorted(b);
};

function say(text) {
  byId("status").textContent = text;
}

connect();
