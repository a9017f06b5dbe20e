// How the form shows the keys of `cache_config` by backend: groups, titles, sliders and presets.
//
// What a key takes stands in cache_keys.js, which the server makes from its own table: `kind` (number, whole,
// boolean, choice, list of whole numbers, numbers), `min` and `max` or `choices`, `default` and `help`.
// only: shown for one `cache_type`. excludes: switching this on switches those off.
// What a key is when it is not given stands in the model card, which has the server's own settings.

import { CACHE_KEYS } from "./cache_keys.js";

/** A key, its title, and the ends and the step of its slider if it has one. */
const LAYOUT = {
  none: { title: "none: compute every step", groups: [], presets: {} },
  auto: {
    title: "auto: the fastest that was measured",
    groups: [
      {
        keys: [
          ["min_psnr", "PSNR in dB, at least"],
          ["min_ssim", "SSIM, at least"],
        ],
      },
    ],
    presets: { Quality: { min_psnr: 35 }, Balanced: { min_psnr: 30 }, Fast: { min_psnr: 25 } },
  },
  cache_dit: {
    title: "cache_dit: reuse blocks",
    groups: [
      {
        keys: [
          ["residual_diff_threshold", "Reuse below this distance", [0, 0.6, 0.01]],
          ["max_continuous_cached_steps", "Reused steps in a row, at most"],
          ["Fn_compute_blocks", "First blocks always computed"],
        ],
      },
      {
        title: "Method and limits",
        keys: [
          ["cache_type", "Method"],
          ["Bn_compute_blocks", "Last blocks always computed"],
          ["max_warmup_steps", "Warm-up steps"],
          ["warmup_interval", "Warm-up: compute every n-th step"],
          ["max_cached_steps", "Reused steps in all, at most"],
          ["max_accumulated_residual_diff_threshold", "Distances may add up to"],
          ["continuous_counter", "Count steps as cache-dit"],
          ["block_lists", "Several block lists"],
          ["enable_dynamic_prune_threshold", "Threshold follows the first distances"],
          ["max_dynamic_prune_threshold", "... up to"],
          ["dynamic_prune_threshold_relax_ratio", "... times"],
          ["non_prune_block_ids", "Blocks never skipped"],
        ],
      },
      {
        title: "Prediction",
        keys: [
          ["enable_taylorseer", "TaylorSeer"],
          ["taylorseer_order", "Order"],
          ["enable_foca", "FoCa"],
          ["enable_encoder_calibrator", "Predict the text stream too"],
          ["calibrator_cache_type", "Predicted is"],
        ],
      },
      {
        title: "Steps fixed beforehand",
        keys: [
          ["scm_steps_mask_policy", "Mask"],
          ["scm_steps_policy", "Steps the mask leaves open"],
          ["scm_compute_bins", "Own runs of computed steps"],
          ["scm_cache_bins", "Own runs of reused steps"],
          ["steps_computation_mask", "Own mask, 1 = compute"],
        ],
      },
      {
        title: "Refresh, guidance in two forwards",
        keys: [
          ["force_refresh_step_hint", "Drop all state after so many forwards"],
          ["force_refresh_step_policy", "... once or again and again"],
          ["num_inference_steps", "Steps this is meant for"],
          ["enable_separate_cfg", "Two forwards a step"],
          ["cfg_compute_first", "The unconditional one comes first"],
          ["cfg_diff_compute_separate", "Each measures its own distance"],
        ],
      },
    ],
    presets: {
      Quality: { residual_diff_threshold: 0.12, max_continuous_cached_steps: 1, enable_taylorseer: true },
      Balanced: { residual_diff_threshold: 0.24, max_continuous_cached_steps: 2, enable_taylorseer: true },
      Fast: { residual_diff_threshold: 0.24, max_continuous_cached_steps: 3, enable_taylorseer: true },
    },
  },
  tea_cache: {
    title: "tea_cache: reuse whole steps",
    groups: [
      {
        keys: [
          ["rel_l1_thresh", "Reuse below this accumulated change", [0.01, 0.6, 0.01]],
          ["num_warmup_steps", "Warm-up steps"],
          ["force_last_step", "Compute the last step"],
        ],
      },
      { title: "Calibration", keys: [["coefficients", "Five coefficients, highest degree first"]] },
    ],
    presets: { Quality: { rel_l1_thresh: 0.05 }, Balanced: { rel_l1_thresh: 0.1 }, Fast: { rel_l1_thresh: 0.2 } },
  },
  mag_cache: {
    title: "mag_cache: reuse whole steps",
    groups: [
      {
        keys: [
          ["mag_threshold", "Reuse up to this accumulated error", [0, 0.6, 0.01]],
          ["mag_max_skip_steps", "Reused steps in a row, at most"],
          ["mag_retention_ratio", "Share of the steps computed at the start", [0, 1, 0.05]],
        ],
      },
      {
        title: "Calibration",
        keys: [
          ["mag_ratios", "Magnitude ratios by step"],
          ["num_inference_steps", "Steps this is meant for"],
        ],
      },
    ],
    presets: {
      Quality: { mag_threshold: 0.06, mag_max_skip_steps: 2, mag_retention_ratio: 0.2 },
      Balanced: { mag_threshold: 0.12, mag_max_skip_steps: 3, mag_retention_ratio: 0.1 },
      Fast: { mag_threshold: 0.24, mag_max_skip_steps: 5, mag_retention_ratio: 0.1 },
    },
  },
};

/** The same with what the server says of every key. Keys without a place here come last, under their names. */
export const BACKENDS = Object.fromEntries(
  Object.entries(LAYOUT).map(([backend, layout]) => [backend, { ...layout, groups: fieldsOf(layout.groups, CACHE_KEYS[backend] ?? {}) }]),
);

function fieldsOf(groups, table) {
  const shown = groups.map(({ title, keys }) => ({ title, keys: keys.map(([key, title, slide]) => ({ key, title, slide, ...table[key] })) }));
  const placed = groups.flatMap(({ keys }) => keys.map(([key]) => key));
  const others = Object.keys(table).filter((key) => !placed.includes(key));
  if (others.length === 0) return shown;
  return [...shown, { title: "Further settings", keys: others.map((key) => ({ key, title: key, ...table[key] })) }];
}
