// Runs in the browser's own storage (IndexedDB), so that they survive a reload. Where a browser refuses,
// as some do in private windows, runs are kept in memory only.

import { ROOT } from "./api.js";

/** Servers behind different path prefixes of one host do not share their runs. */
const NAME = `afterimage playground ${ROOT.pathname}`;
const STORE = "runs";

/** Every kept run, newest first. */
export async function storedRuns() {
  const runs = (await transact("readonly", (store) => store.getAll())) ?? [];
  return runs.map(restored).reverse();
}

/** Keeps a run; returns the key to forget it by, or null where nothing can be kept. */
export async function storeRun(run) {
  const flat = await flattened(run);
  return (await transact("readwrite", (store) => store.add(flat))) ?? null;
}

export async function forgetRun(id) {
  if (id !== null) await transact("readwrite", (store) => store.delete(id));
}

export async function forgetAllRuns() {
  await transact("readwrite", (store) => store.clear());
}

/** The result of one request, null if the browser refuses. */
async function transact(mode, ask) {
  try {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
    const database = await settled(opening);
    try {
      return await settled(ask(database.transaction(STORE, mode).objectStore(STORE)));
    } finally {
      database.close();
    }
  } catch {
    return null;
  }
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Not every browser stores files in private windows; bytes they all do. */
async function flattened({ id, ...run }) {
  const shots = (side) => Promise.all(side.shots.map(async ({ file, ...shot }) => ({ ...shot, type: file.type, bytes: await file.arrayBuffer() })));
  const sides = Object.entries(run.sides).map(async ([name, side]) => [name, { ...side, shots: await shots(side) }]);
  return { ...run, sides: Object.fromEntries(await Promise.all(sides)) };
}

function restored(run) {
  const shots = (side) => side.shots.map(({ type, bytes, ...shot }) => ({ ...shot, file: new Blob([bytes], { type }) }));
  const sides = Object.entries(run.sides).map(([name, side]) => [name, { ...side, shots: shots(side) }]);
  return { ...run, sides: Object.fromEntries(sides) };
}
