// Pictures as pixels: decoding, likeness, difference.

/** A decoded picture: where to show it from, its size, its RGBA bytes. */
export async function decode(base64, format) {
  const url = `data:image/${format};base64,${base64}`;
  const image = new Image();
  image.src = url;
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return { url, width, height, bytes: context.getImageData(0, 0, width, height).data };
}

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
