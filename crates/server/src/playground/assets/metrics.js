// The server's own figures, read from its Prometheus text while the page is looked at.

import { metricsText } from "./api.js";
import { byId, element } from "./element.js";
import { percent } from "./figures.js";

const INTERVAL_MILLISECONDS = 2000;

/** Looks now and then until the page is left. */
export function watchMetrics() {
  const look = async () => {
    if (document.visibilityState !== "visible") return;
    try {
      show(parseMetrics(await metricsText()));
      byId("metrics-fault").hidden = true;
    } catch (failure) {
      byId("metrics-fault").textContent = failure.message;
      byId("metrics-fault").hidden = false;
    }
  };
  look();
  setInterval(look, INTERVAL_MILLISECONDS);
}

/** Series of Prometheus' text format: name, labels, value. */
export function parseMetrics(text) {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return lines.map((line) => {
    const [, name, labels = "", value] = line.match(/^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/);
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, word]) => [key, word]);
    return { name, labels: Object.fromEntries(pairs), value: Number(value.replace("Inf", "Infinity")) };
  });
}

function show(series) {
  const named = (name, labels = {}) =>
    series.filter((one) => one.name === name && Object.entries(labels).every(([key, value]) => one.labels[key] === value));
  const sum = (...query) => named(...query).reduce((total, { value }) => total + value, 0);
  const ratio = (part, whole) => (whole > 0 ? part / whole : null);

  const forwards = named("afterimage_forwards_total").map(({ labels, value }) => ({ rows: Number(labels.rows), value }));
  const forwardsInAll = forwards.reduce((total, { value }) => total + value, 0);
  const rows = ratio(forwards.reduce((total, one) => total + one.rows * one.value, 0), forwardsInAll);
  const hitRate = ratio(sum("afterimage_cache_hit_rate_sum"), sum("afterimage_cache_hit_rate_count"));
  const passes = sum("afterimage_steps_total");
  const figures = [
    ["Hit rate", hitRate === null ? "-" : percent(hitRate), "of cached requests"],
    ["Reused", passes > 0 ? percent(sum("afterimage_steps_total", { decision: "cached" }) / passes) : "-", "of all passes"],
    ["Queue", sum("afterimage_queue_depth"), `${sum("afterimage_queued_work_seconds").toFixed(1)} s of work`],
    ["Running", sum("afterimage_running_rows"), "rows"],
    ["Rows per forward", rows === null ? "-" : rows.toFixed(2), `forwards: ${forwardsInAll}`],
    ["Pictures", sum("afterimage_images_total"), `requests: ${sum("afterimage_requests_total", { status: "ok" })}`],
  ];
  byId("metrics").replaceChildren(
    ...figures.map(([name, value, hint]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, String(value)), element("dd", { className: "hint" }, hint)),
    ),
  );
  showForwards(forwards.filter(({ value }) => value > 0).sort((a, b) => a.rows - b.rows), forwardsInAll);
}

function showForwards(forwards, inAll) {
  byId("rows").replaceChildren(
    ...forwards.map(({ rows, value }) => {
      const bar = element("span", { className: "bar" });
      bar.style.setProperty("--share", value / inAll);
      return element("div", {}, element("span", {}, `${rows} ${rows === 1 ? "row" : "rows"}`), bar, element("span", {}, String(value)));
    }),
  );
}
