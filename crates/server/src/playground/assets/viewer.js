// A picture large enough to judge: zoom to single pixels, and a divider between uncached and cached.

import { byId } from "./element.js";
import { drawDifference, isSameSize } from "./picture.js";

const ZOOMS = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32];
/** From here on pixels are shown as squares. */
const CRISP_FROM = 2;

export class Viewer {
  #dialog = byId("viewer");
  #viewport = byId("viewport");
  #sheet = byId("viewport").querySelector(".sheet");
  #size = { width: 1, height: 1 };
  #zoom = 1;
  #isFitted = true;
  #mode = "swipe";

  constructor() {
    byId("viewer-close").addEventListener("click", () => this.#dialog.close());
    byId("zoom-in").addEventListener("click", () => this.#step(1));
    byId("zoom-out").addEventListener("click", () => this.#step(-1));
    byId("zoom-fit").addEventListener("click", () => this.#fit());
    byId("zoom-actual").addEventListener("click", () => this.#zoomTo(1));
    byId("swipe").addEventListener("input", () => this.#split());
    this.#viewport.addEventListener("scroll", () => this.#split());
    new ResizeObserver(() => this.#dialog.open && (this.#isFitted ? this.#fit() : this.#split())).observe(this.#viewport);
    for (const button of byId("modes").children) button.addEventListener("click", () => this.#show(button.dataset.mode));
    this.#dialog.addEventListener("keydown", (event) => this.#key(event));
    this.#viewport.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.#dragPicture();
    this.#dragDivider();
  }

  /** `mode` null: what makes most of the pictures there are. */
  open({ uncached, cached, title, gain, mode }) {
    const canSwipe = isSameSize(uncached, cached);
    this.#size = cached ?? uncached;
    for (const [side, picture] of [["uncached", uncached], ["cached", cached]]) {
      const image = this.#image(side);
      image.src = picture?.url ?? "";
      image.alt = `The ${side} picture`;
      this.#button(side).disabled = !picture;
    }
    for (const name of ["swipe", "difference"]) this.#button(name).disabled = !canSwipe;
    if (canSwipe) drawDifference(this.#sheet.querySelector("canvas"), uncached, cached, gain);
    byId("viewer-title").textContent = `${title}, ${this.#size.width}x${this.#size.height}`;
    byId("swipe").value = 50;
    this.#dialog.showModal();
    this.#show(canSwipe ? (mode ?? "swipe") : cached ? "cached" : "uncached");
    this.#fit();
    (canSwipe && this.#mode === "swipe" ? byId("swipe") : this.#viewport).focus();
  }

  #show(mode) {
    this.#mode = mode;
    for (const button of byId("modes").children) button.setAttribute("aria-pressed", button.dataset.mode === mode);
    this.#sheet.querySelector("canvas").hidden = mode !== "difference";
    this.#image("uncached").hidden = mode !== "uncached" && mode !== "swipe";
    this.#image("cached").hidden = mode !== "cached" && mode !== "swipe";
    byId("divider").hidden = mode !== "swipe";
    byId("swipe").disabled = mode !== "swipe";
    this.#split();
  }

  /** The cached picture is cut at the divider, which stands still while the pictures move below it. */
  #split() {
    const share = Number(byId("swipe").value) / 100;
    const frame = this.#viewport.getBoundingClientRect();
    const at = this.#viewport.clientWidth * share;
    byId("divider").style.left = `${at}px`;
    const inSheet = frame.left + at - this.#sheet.getBoundingClientRect().left;
    this.#image("cached").style.clipPath = this.#mode === "swipe" ? `inset(0 0 0 ${Math.max(0, inSheet)}px)` : "none";
  }

  #fit() {
    // Scroll bars of the zoom before must not count.
    this.#setZoom(0.01);
    const { clientWidth: width, clientHeight: height } = this.#viewport;
    this.#setZoom(Math.min(width / this.#size.width, height / this.#size.height));
    this.#isFitted = true;
    this.#split();
  }

  #step(direction) {
    const next = direction > 0 ? ZOOMS.find((zoom) => zoom > this.#zoom + 1e-6) : ZOOMS.findLast((zoom) => zoom < this.#zoom - 1e-6);
    if (next !== undefined) this.#zoomTo(next);
  }

  /** What is in the middle stays there. */
  #zoomTo(zoom) {
    const view = this.#viewport;
    const middle = {
      x: (view.scrollLeft + view.clientWidth / 2) / this.#sheet.offsetWidth,
      y: (view.scrollTop + view.clientHeight / 2) / this.#sheet.offsetHeight,
    };
    this.#setZoom(zoom);
    this.#isFitted = false;
    view.scrollLeft = middle.x * this.#sheet.offsetWidth - view.clientWidth / 2;
    view.scrollTop = middle.y * this.#sheet.offsetHeight - view.clientHeight / 2;
    this.#split();
  }

  #setZoom(zoom) {
    this.#zoom = zoom;
    this.#sheet.style.width = `${this.#size.width * zoom}px`;
    this.#sheet.style.height = `${this.#size.height * zoom}px`;
    this.#sheet.classList.toggle("crisp", zoom >= CRISP_FROM);
    byId("zoom").textContent = `${Math.round(100 * zoom)} %`;
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = { "+": () => this.#step(1), "=": () => this.#step(1), "-": () => this.#step(-1), 0: () => this.#fit(), 1: () => this.#zoomTo(1) }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  /** A pinch on a trackpad arrives as a wheel with Ctrl; a plain wheel scrolls. */
  #wheel(event) {
    if (!event.ctrlKey) return;
    event.preventDefault();
    this.#step(event.deltaY < 0 ? 1 : -1);
  }

  /** Fingers scroll by themselves. */
  #dragPicture() {
    dragged(this.#viewport, (event) => {
      if (event.pointerType !== "mouse") return;
      this.#viewport.scrollLeft -= event.movementX;
      this.#viewport.scrollTop -= event.movementY;
    });
  }

  #dragDivider() {
    dragged(byId("divider"), (event) => {
      const { left } = this.#viewport.getBoundingClientRect();
      byId("swipe").value = (100 * (event.clientX - left)) / this.#viewport.clientWidth;
      this.#split();
    });
  }

  #image(side) {
    return this.#sheet.querySelector(`[data-side="${side}"]`);
  }

  #button(mode) {
    return byId("modes").querySelector(`[data-mode="${mode}"]`);
  }
}

function dragged(target, onMove) {
  target.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.clientWidth < event.offsetX) return;
    if (event.pointerType === "mouse") event.preventDefault();
    target.setPointerCapture(event.pointerId);
  });
  target.addEventListener("pointermove", (event) => target.hasPointerCapture(event.pointerId) && onMove(event));
}
