// Pictures as files and as pixels: decoding, likeness, difference.

/** A file the server sent as base64. */
export function fileOf(base64, format) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: `image/${format}` });
}

/** A decoded picture: its file, where to show it from, its size, its RGBA bytes. Give it back with `release`. */
export async function decode(file) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  image.src = url;
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return { file, url, width, height, bytes: context.getImageData(0, 0, width, height).data };
}

/** The browser keeps what an object URL refers to until it is told otherwise. */
export const release = (picture) => picture && URL.revokeObjectURL(picture.url);

export const isSameSize = (a, b) => Boolean(a && b) && a.width === b.width && a.height === b.height;

/** Peak signal-to-noise ratio over red, green and blue, in dB; Infinity for equal pixels. */
export function psnr(a, b) {
  let sum = 0;
  for (let index = 0; index < a.bytes.length; index += 4) {
    for (let channel = 0; channel < 3; channel += 1) sum += (a.bytes[index + channel] - b.bytes[index + channel]) ** 2;
  }
  const meanSquare = sum / ((a.bytes.length / 4) * 3);
  return meanSquare === 0 ? Infinity : 10 * Math.log10(255 ** 2 / meanSquare);
}

/** Draws by how much two pictures of one size differ, `gain` times amplified; black is equal. */
export function drawDifference(canvas, a, b, gain) {
  Object.assign(canvas, { width: a.width, height: a.height });
  const context = canvas.getContext("2d");
  const shown = context.createImageData(a.width, a.height);
  for (let index = 0; index < shown.data.length; index += 1) {
    shown.data[index] = index % 4 === 3 ? 255 : gain * Math.abs(a.bytes[index] - b.bytes[index]);
  }
  context.putImageData(shown, 0, 0);
}

/** A name for the downloaded file: what was asked for, the seed, and whether a cache was used. */
export function fileName(prompt, seed, side, type) {
  const words = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "");
  return `${[...words].slice(0, 60).join("") || "picture"}-${seed}-${side}.${type.replace("image/", "")}`;
}
