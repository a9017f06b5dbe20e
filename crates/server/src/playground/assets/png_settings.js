// A PNG of ours brings its settings: dropped on the page, or chosen as a file.

import { byId } from "./element.js";
import { fromWords } from "./link.js";
import { readPng } from "./png_text.js";

/** `onSettings` gets settings, what of them is of no use, the file's name and the model; `onFault` a sentence. */
export function acceptPngs({ onSettings, onFault }) {
  const load = async (file) => {
    try {
      onSettings(await settingsOf(file));
    } catch (failure) {
      onFault(failure.message);
    }
  };
  byId("load-png").addEventListener("click", () => byId("png-file").click());
  byId("png-file").addEventListener("change", ({ target }) => {
    if (target.files.length > 0) load(target.files[0]);
    target.value = "";
  });
  acceptDrops(load, onFault);
}

/** The settings in a file; an error says why there are none. */
export async function settingsOf(file) {
  const png = await readPng(await file.arrayBuffer());
  if (png === null) throw new Error(`${file.name} is not a PNG file. Only PNG files keep the settings.`);
  const { width, height, texts } = png;
  if (!texts.get("Software")?.startsWith("afterimage")) {
    throw new Error(`${file.name} has no settings of afterimage in it: another program wrote it, or the server runs with --image-metadata false.`);
  }
  const read = fromWords([...texts, ["size", `${width}x${height}`], ["n", "1"]]);
  return { ...read, name: file.name, model: texts.get("model") };
}

/** A layer says so while a file is over the page. */
function acceptDrops(load, onFault) {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = (isOver) => (byId("drop").hidden = !isOver);
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    show(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && show(false));
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(false);
    const files = [...event.dataTransfer.files];
    if (files.length === 1) load(files[0]);
    else onFault(`${files.length} files were dropped; one at a time can be loaded.`);
  });
}
