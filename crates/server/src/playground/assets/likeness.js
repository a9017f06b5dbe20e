// Words for a peak signal-to-noise ratio. docs/playground.md has the same table and says where it comes from.

/** From this many dB on, how much of a difference there is to see. */
export const SCALE = [
  [Infinity, "identical"],
  [45, "not visible"],
  [35, "hardly visible"],
  [28, "visible in details"],
  [20, "clearly visible"],
  [-Infinity, "another picture"],
];

export const word = (psnr) => SCALE.find(([from]) => psnr >= from)[1];

/** `36.1 dB`, or that nothing differs. */
export const decibels = (psnr) => (psnr === Infinity ? "equal" : `${psnr.toFixed(1)} dB`);

/** The scale as rows of a table: which PSNR, which word. */
export function scaleRows() {
  return SCALE.map(([from, name], index) => {
    if (from === Infinity) return ["equal pixels", name];
    const below = SCALE[index - 1][0];
    if (from === -Infinity) return [`below ${below} dB`, name];
    return [below === Infinity ? `${from} dB and more` : `${from} to ${below} dB`, name];
  });
}
