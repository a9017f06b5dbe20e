// The prompt's control: a label with completion for class-conditional models, a growing text area for others.

import { byId, element } from "./element.js";

export const isClassConditional = (card) => card.pipeline === "DiTPipeline";

/** A label may have synonyms: "red apple, apple". */
export const namesOf = (card) => [...new Set(card.labels.flatMap(({ label }) => label.split(",").map((name) => name.trim())))];

/** Puts the control into its place. */
export function offerPrompt(card) {
  const names = namesOf(card);
  if (isClassConditional(card)) {
    const list = element("datalist", { id: "labels" }, ...names.map((value) => element("option", { value })));
    const input = element("input", { id: "prompt", name: "prompt", spellcheck: false, enterKeyHint: "go" });
    input.setAttribute("list", "labels");
    input.value = names[0] ?? "class:0";
    byId("prompt-place").append(input, list);
    byId("prompt-hint").textContent =
      names.length > 0 ? `One of ${card.labels.length} labels. Typing completes.` : "This model has no label names: class:0, class:1 ...";
  } else {
    const area = element("textarea", { id: "prompt", name: "prompt", rows: 3, className: "grows" });
    byId("prompt-place").append(area);
    byId("prompt-hint").textContent = "Ctrl + Enter compares.";
  }
  byId("prompt").setAttribute("aria-describedby", "prompt-hint");
  for (const area of document.querySelectorAll("textarea.grows")) makeGrow(area);
}

/** As high as its text; style.css sets the bounds. */
function makeGrow(area) {
  const grow = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
  };
  area.addEventListener("input", grow);
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    area.form.requestSubmit();
  });
}
