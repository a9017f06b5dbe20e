// Brings the forms of /docs to life: each sends its request to this server and shows what comes back.

import { Answer } from "./answer.js";

/** Where the API begins. Found from this file's own address, so that a path prefix of a proxy is kept. */
const ROOT = new URL("../", import.meta.url);
/** The playground keeps its key under the same name. */
const KEY_NAME = "afterimage-api-key";
/** The prompt of all examples; models draw other labels. */
const EXAMPLE_PROMPT = "red apple";

const forms = [...document.querySelectorAll("form.try")];

function start() {
  const key = document.getElementById("api-key");
  key.value = sessionStorage.getItem(KEY_NAME) ?? "";
  key.addEventListener("input", () => {
    if (key.value.trim()) sessionStorage.setItem(KEY_NAME, key.value.trim());
    else sessionStorage.removeItem(KEY_NAME);
    forms.forEach(showCurl);
  });
  key.addEventListener("change", adaptToModel);
  document.getElementById("key-form").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("key-form").hidden = false;
  for (const form of forms) bring(form);
  adaptToModel();
}

function bring(form) {
  const example = form.querySelector(".example");
  example?.addEventListener("change", () => {
    form.querySelector(".body").value = example.value;
    showCurl(form);
  });
  form.addEventListener("input", () => showCurl(form));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form);
  });
  form.querySelector(".body")?.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  showCurl(form);
  form.hidden = false;
}

/** Examples that fit the served model, where it can be asked. */
async function adaptToModel() {
  const response = await fetch(new URL("v1/models", ROOT), { headers: keyHeader() }).catch(() => null);
  if (!response?.ok) return;
  const { id, labels } = (await response.json()).data[0];
  const names = labels.flatMap(({ label }) => label.split(",").map((name) => name.trim()));
  setField("retrieveModel", "id", id);
  if (names.length === 0 || names.includes(EXAMPLE_PROMPT)) return;
  const adapted = (text) => text.replaceAll(JSON.stringify(EXAMPLE_PROMPT), JSON.stringify(names[0]));
  for (const option of document.querySelectorAll(".example option")) option.value = adapted(option.value);
  for (const body of document.querySelectorAll("textarea.body")) body.value = adapted(body.value);
  forms.forEach(showCurl);
}

async function send(form) {
  const answer = new Answer(form.querySelector(".answer"));
  const stop = form.querySelector(".stop");
  const controller = new AbortController();
  const end = () => controller.abort();
  stop.addEventListener("click", end);
  setBusy(form, true);
  try {
    const response = await fetch(address(form), { ...request(form), signal: controller.signal });
    const body = await answer.show(response);
    if (response.ok && body) follow(form, body);
  } catch (failure) {
    answer.fail(failure.name === "AbortError" ? "Stopped." : `There is no answer: ${failure.message}`);
  } finally {
    stop.removeEventListener("click", end);
    setBusy(form, false);
  }
}

function setBusy(form, isBusy) {
  form.querySelector("[type=submit]").disabled = isBusy;
  form.querySelector(".stop").hidden = !isBusy;
}

/** Path parameters in their places, the others behind the question mark. A model's id keeps its slashes. */
function address(form) {
  let path = form.dataset.path.replace(/^\//, "");
  const query = new URLSearchParams();
  for (const input of form.querySelectorAll("[data-in]")) {
    const value = input.value.trim();
    if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(value).replaceAll("%2F", "/"));
    else if (value !== "") query.set(input.name, value);
  }
  const search = query.size > 0 ? `?${query}` : "";
  return new URL(path + search, ROOT);
}

function request(form) {
  const body = form.querySelector(".body");
  const content = body ? { "content-type": "application/json" } : {};
  return { method: form.dataset.method, headers: { ...keyHeader(), ...content }, body: body?.value };
}

function keyHeader() {
  const key = sessionStorage.getItem(KEY_NAME);
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** The same for a POSIX shell; a key is taken from the environment, never written out. */
function showCurl(form) {
  const { method, body } = request(form);
  const parts = [`curl -s ${method === "GET" ? "" : `-X ${method} `}'${address(form)}'`];
  if (sessionStorage.getItem(KEY_NAME)) parts.push('-H "authorization: Bearer $AFTERIMAGE_API_KEY"');
  if (body !== undefined) parts.push("-H 'content-type: application/json'", `-d '${body.replaceAll("'", "'\\''")}'`);
  form.querySelector(".curl").textContent = parts.join(" \\\n  ");
}

/** An id in the answer goes into the forms that take it. */
function follow(form, body) {
  for (const { operationId, parameters } of JSON.parse(form.dataset.links)) {
    for (const [name, from] of Object.entries(parameters ?? {})) {
      const value = body[from.replace("$response.body#/", "")];
      if (value !== undefined) setField(operationId, name, value);
    }
  }
}

function setField(operation, name, value) {
  const form = forms.find((form) => form.dataset.operation === operation);
  const input = form?.querySelector(`[name="${name}"]`);
  if (!input) return;
  input.value = value;
  showCurl(form);
}

start();
