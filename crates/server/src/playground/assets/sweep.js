// Many cache settings on the prompt at hand, measured by the server as a job and drawn as they come.

import { endSweep, startSweep, sweep } from "./api.js";
import { byId } from "./element.js";
import { inWords, legend, scatter } from "./scatter.js";

const POLL_MILLISECONDS = 400;
const HAS_ENDED = ["succeeded", "failed", "cancelled"];

export class Sweep {
  #bodyOf;
  #onChoose;
  #onFault;
  #running = null;

  /** `bodyOf` gives the request as the form has it, or nothing if that is at fault; `onChoose` gets the row of a point. */
  constructor({ bodyOf, onChoose, onFault }) {
    [this.#bodyOf, this.#onChoose, this.#onFault] = [bodyOf, onChoose, onFault];
    byId("sweep-legend").append(...legend());
    byId("sweep-start").addEventListener("click", () => this.#start());
    byId("sweep-stop").addEventListener("click", () => this.#running?.abort());
    // A page that is left needs no more points.
    addEventListener("pagehide", () => this.#running?.abort());
  }

  async #start() {
    const body = this.#bodyOf();
    if (this.#running || !body) return;
    const controller = new AbortController();
    this.#set(controller);
    // At once, so that nothing moves when the first point comes.
    this.#draw([]);
    let id = null;
    try {
      say("Waiting for the server");
      // Not given up on its way: the server would go on with a sweep whose id nobody knows.
      ({ id } = await startSweep(body));
      controller.signal.throwIfAborted();
      await this.#watch(id, controller.signal);
    } catch (failure) {
      if (id) endSweep(id);
      if (failure.name === "AbortError") say("Stopped.");
      else {
        say(`Not measured: ${failure.message}`);
        this.#onFault(failure);
      }
    } finally {
      this.#set(null);
    }
  }

  /** Until it has ended. */
  async #watch(id, signal) {
    for (;;) {
      const job = await sweep(id, signal);
      const rows = job.report?.rows ?? job.rows;
      if (rows.length > 0) this.#draw(rows);
      if (job.status === "failed") throw new Error(job.error.message);
      if (HAS_ENDED.includes(job.status)) return say(job.status === "cancelled" ? "Stopped." : summary(rows));
      const { step, total, queue_position: position } = job.progress;
      say(position > 0 ? "Another sweep runs; this one waits" : `Picture ${step + 1} of ${total}`);
      await pause(POLL_MILLISECONDS, signal);
    }
  }

  #draw(rows) {
    const focused = document.activeElement?.dataset?.name;
    const plot = scatter(rows, (row) => this.#choose(row));
    byId("sweep-plot").replaceChildren(plot);
    byId("sweep-figure").hidden = false;
    if (focused) [...plot.querySelectorAll(".point")].find(({ dataset }) => dataset.name === focused)?.focus();
  }

  #choose(row) {
    for (const one of document.querySelectorAll("#sweep-plot .point")) one.classList.toggle("chosen", one.dataset.name === row.name);
    byId("sweep-chosen").textContent = `${inWords(row)}. ${this.#onChoose(row)}`;
  }

  #set(controller) {
    this.#running = controller;
    byId("sweep-start").disabled = controller !== null;
    byId("sweep-stop").hidden = controller === null;
  }
}

function summary(rows) {
  const [uncached, ...settings] = rows;
  const own = settings.filter(({ speedup }) => speedup !== null).length;
  return `${own} settings measured, uncached ${uncached.seconds.toFixed(2)} s. Click a point to use its settings.`;
}

function say(text) {
  byId("sweep-status").textContent = text;
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}
