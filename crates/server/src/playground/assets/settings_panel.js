// On a phone the settings are folded below the prompt; on a wide screen style.css shows them always.

import { byId } from "./element.js";

const isOpen = () => byId("settings").classList.contains("open");

export function foldSettings() {
  byId("settings-toggle").addEventListener("click", () => openSettings(!isOpen()));
}

export function openSettings(isWanted) {
  byId("settings").classList.toggle("open", isWanted);
  byId("settings-toggle").setAttribute("aria-expanded", isWanted);
}
