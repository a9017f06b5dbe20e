// The request as a curl command.

import { hasKey, ROOT } from "./api.js";

/** A command for a POSIX shell; a key is taken from the environment, never written out. */
export function curlCommand(request) {
  const key = hasKey() ? ` \\\n  -H "authorization: Bearer $AFTERIMAGE_API_KEY"` : "";
  const body = JSON.stringify(request, null, 2).replaceAll("'", "'\\''");
  return `curl -s ${new URL("v1/images/generations", ROOT)}${key} \\\n  -H 'content-type: application/json' -d '${body}'`;
}

/** Copies `text`; browsers lend the clipboard only to secure origins, else what `shown` shows is selected. */
export async function copy(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    if (!shown) return false;
    getSelection().selectAllChildren(shown);
    return document.execCommand("copy");
  }
}
