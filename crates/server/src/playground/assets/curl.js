// The request as a curl command.

import { hasKey } from "./api.js";

/** A command for a POSIX shell; a key is taken from the environment, never written out. */
export function curlCommand(request, origin) {
  const key = hasKey() ? ` \\\n  -H "authorization: Bearer $AFTERIMAGE_API_KEY"` : "";
  const body = JSON.stringify(request, null, 2).replaceAll("'", "'\\''");
  return `curl -s ${origin}/v1/images/generations${key} \\\n  -H 'content-type: application/json' -d '${body}'`;
}

/** Copies what `shown` shows; browsers lend the clipboard only to secure origins, else the text is selected. */
export async function copy(shown) {
  try {
    await navigator.clipboard.writeText(shown.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(shown);
    return document.execCommand("copy");
  }
}
