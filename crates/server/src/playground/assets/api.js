// The server's API as the page uses it: the model card, streamed generations, the metrics text.

const KEY_NAME = "afterimage-api-key";

/** Where the API begins. Found from this file's own address, so that a path prefix of a proxy is kept. */
export const ROOT = new URL("../", import.meta.url);

/** An answer that is no success, with the `param` and `code` the server gave. */
export class ApiFailure extends Error {
  constructor(status, { message, param = null, code = null }, retryAfterSeconds = null) {
    super(message);
    Object.assign(this, { status, param, code, retryAfterSeconds });
  }
}

export const hasKey = () => sessionStorage.getItem(KEY_NAME) !== null;

/** The key is kept for this tab only. */
export function useKey(key) {
  if (key) sessionStorage.setItem(KEY_NAME, key);
  else sessionStorage.removeItem(KEY_NAME);
}

/** What the served model offers. */
export async function modelCard() {
  const response = await request("v1/models");
  return (await response.json()).data[0];
}

/** Prometheus text. */
export async function metricsText() {
  return (await request("metrics")).text();
}

/** The answer to a request that is not streamed. */
export async function generate(body, signal) {
  return (await post(body, signal)).json();
}

/** The events of a streamed generation, one after the other. */
export async function* generationEvents(body, signal) {
  const response = await post({ ...body, stream: true, progress: true }, signal);
  for await (const event of serverSentEvents(response.body)) {
    if (event.error) throw new ApiFailure(response.status, event.error);
    yield event;
  }
}

/** A sweep over cache settings with the server's own study, as a job. */
export async function startSweep(body) {
  const headers = { "content-type": "application/json" };
  return (await request("v1/cache/sweeps", { method: "POST", body: JSON.stringify(body), headers })).json();
}

/** How far it is, and what it has measured. */
export async function sweep(id, signal) {
  return (await request(`v1/cache/sweeps/${id}`, { signal })).json();
}

/** Cancels it. One that is gone already needs no end. */
export async function endSweep(id) {
  await request(`v1/cache/sweeps/${id}`, { method: "DELETE", keepalive: true }).catch(() => null);
}

/** Whatever the server answers by default, this page needs the bytes. */
function post(body, signal) {
  const headers = { "content-type": "application/json" };
  const text = JSON.stringify({ ...body, response_format: "b64_json" });
  return request("v1/images/generations", { method: "POST", body: text, headers, signal });
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (hasKey()) headers.authorization = `Bearer ${sessionStorage.getItem(KEY_NAME)}`;
  let response;
  try {
    response = await fetch(new URL(path, ROOT), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiFailure(0, { message: "The server does not answer." });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const retryAfter = Number(response.headers.get("retry-after")) || null;
  throw new ApiFailure(response.status, body?.error ?? { message: `The server answered ${response.status}.` }, retryAfter);
}

/** The JSON of every event; comments are skipped. */
async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice("data:".length));
      if (data.length > 0) yield JSON.parse(data.join("\n"));
    }
  }
}
