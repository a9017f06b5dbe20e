// Settings in the page's address, behind the `#`: a browser does not send that part to the server, so prompts
// stay out of access logs. The key of the API is no setting and never gets here.

import { NAMES } from "./form.js";

/** `#prompt=...&seed=...` */
export function toFragment(settings) {
  const { cache_config: config, ...rest } = settings;
  const words = new URLSearchParams(Object.entries(rest).map(([name, value]) => [name, String(value)]));
  if (config) words.set("cache_config", JSON.stringify(config));
  return `#${words}`;
}

/** The settings of a fragment and what of it is of no use, in words; null where it has none. */
export function fromFragment(fragment) {
  const words = new URLSearchParams(fragment.replace(/^#/, ""));
  return fromWords(words.entries(), (name) => [`${name} (unknown)`]);
}

/** Settings from pairs of texts. `ofUnknown` says what to make of a name that is no setting. */
export function fromWords(pairs, ofUnknown = () => []) {
  const settings = {};
  const refused = [];
  for (const [name, text] of pairs) {
    if (NAMES.includes(name) || name === "cache_backend") settings[name] = text;
    else if (name === "cache_config") readConfig(text, settings, refused);
    else refused.push(...ofUnknown(name));
  }
  return Object.keys(settings).length > 0 ? { settings, refused } : null;
}

function readConfig(text, settings, refused) {
  try {
    const config = JSON.parse(text);
    if (config === null || typeof config !== "object" || Array.isArray(config)) throw new Error("no object");
    settings.cache_config = config;
  } catch {
    refused.push("cache_config (not a JSON object)");
  }
}
