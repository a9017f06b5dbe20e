// Of several pictures: small ones to choose from, each with its seed and its likeness.

import { byId, element } from "./element.js";
import { decibels } from "./likeness.js";

export class Shots {
  #onChoose;
  #buttons = [];

  constructor(onChoose) {
    this.#onChoose = onChoose;
  }

  /** Room for pictures of these seeds; a single one needs no choice. */
  offer(seeds) {
    this.#buttons = seeds.length > 1 ? seeds.map((seed, at) => this.#button(seed, at)) : [];
    byId("shots").hidden = this.#buttons.length === 0;
    byId("shots").replaceChildren(...this.#buttons);
  }

  /** The cached picture is shown, or the uncached one until there is one. */
  picture(side, at, { url }) {
    const image = this.#buttons[at]?.querySelector("img");
    if (!image || (side === "uncached" && image.dataset.side === "cached")) return;
    image.src = url;
    image.hidden = false;
    image.dataset.side = side;
  }

  choose(chosen, likeness) {
    this.#buttons.forEach((button, at) => {
      button.setAttribute("aria-pressed", at === chosen);
      button.querySelector(".likeness").textContent = likeness[at] === undefined ? "" : decibels(likeness[at]);
    });
  }

  #button(seed, at) {
    const image = element("img", { alt: "", width: 56, height: 56, hidden: true });
    const frame = element("span", { className: "shot-frame" }, image);
    const button = element("button", { type: "button" }, frame, element("span", {}, `seed ${seed}`), element("span", { className: "likeness quiet" }));
    button.addEventListener("click", () => this.#onChoose(at));
    return button;
  }
}
