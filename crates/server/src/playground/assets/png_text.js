// The text chunks of a PNG file (PNG specification, section 11.3.3): tEXt, zTXt and iTXt.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** Longer chunks are no settings. */
const LONGEST_CHUNK_BYTES = 1 << 20;

/** Width, height and the texts by keyword; null if the bytes are no PNG file. */
export async function readPng(buffer) {
  const bytes = new Uint8Array(buffer);
  if (SIGNATURE.some((byte, index) => bytes[index] !== byte)) return null;
  const view = new DataView(buffer);
  const png = { width: 0, height: 0, texts: new Map() };
  for (let at = SIGNATURE.length; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const type = latin1(bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (data.length < length || type === "IEND") break;
    if (type === "IHDR") Object.assign(png, { width: view.getUint32(at + 8), height: view.getUint32(at + 12) });
    if (/^(tEXt|zTXt|iTXt)$/.test(type) && length <= LONGEST_CHUNK_BYTES) {
      const [keyword, text] = await textOf(type, data);
      png.texts.set(keyword, text);
    }
    at += 12 + length;
  }
  return png;
}

async function textOf(type, data) {
  const [keyword, rest] = split(data);
  if (type === "tEXt") return [latin1(keyword), latin1(rest)];
  if (type === "zTXt") return [latin1(keyword), latin1(await inflated(rest.subarray(1)))];
  const isCompressed = rest[0] === 1;
  const [, afterLanguage] = split(rest.subarray(2));
  const [, text] = split(afterLanguage);
  return [latin1(keyword), new TextDecoder().decode(isCompressed ? await inflated(text) : text)];
}

/** What stands before and behind the first zero. */
function split(data) {
  const at = data.indexOf(0);
  return at < 0 ? [data, data.subarray(data.length)] : [data.subarray(0, at), data.subarray(at + 1)];
}

const latin1 = (bytes) => new TextDecoder("latin1").decode(bytes);

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
