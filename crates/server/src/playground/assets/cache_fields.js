// Every key of `cache_config` by backend, with the control that fits it, and presets.
//
// kind: number, whole, limit (-1: any), boolean, choice, list of whole numbers, numbers.
// only: shown for one `cache_type`. excludes: switching this on switches that off.
// What a key is when it is not given stands in the model card, not here.

export const BACKENDS = {
  none: { title: "none: compute every step", groups: [], presets: {} },
  cache_dit: {
    title: "cache_dit: reuse blocks",
    groups: [
      {
        keys: [
          { key: "residual_diff_threshold", title: "Reuse below this distance", kind: "number", slide: [0, 0.6, 0.01] },
          { key: "max_continuous_cached_steps", title: "Reused steps in a row, at most", kind: "limit" },
          { key: "Fn_compute_blocks", title: "First blocks always computed", kind: "whole", min: 1 },
        ],
      },
      {
        title: "Method and limits",
        keys: [
          { key: "cache_type", title: "Method", kind: "choice", choices: ["DBCache", "DBPrune"] },
          { key: "Bn_compute_blocks", title: "Last blocks always computed", kind: "whole", min: 0 },
          { key: "max_warmup_steps", title: "Warm-up steps", kind: "whole", min: 0 },
          { key: "warmup_interval", title: "Warm-up: compute every n-th step", kind: "whole", min: 1 },
          { key: "max_cached_steps", title: "Reused steps in all, at most", kind: "limit" },
          { key: "max_accumulated_residual_diff_threshold", title: "Distances may add up to", kind: "number", only: "DBCache" },
          { key: "continuous_counter", title: "Count steps as cache-dit", kind: "choice", choices: ["1.5.3", "legacy"], only: "DBCache" },
          { key: "block_lists", title: "Several block lists", kind: "choice", choices: ["joined", "separate"] },
          { key: "enable_dynamic_prune_threshold", title: "Threshold follows the first distances", kind: "boolean", only: "DBPrune" },
          { key: "max_dynamic_prune_threshold", title: "... up to", kind: "number", only: "DBPrune" },
          { key: "dynamic_prune_threshold_relax_ratio", title: "... times", kind: "number", only: "DBPrune" },
          { key: "non_prune_block_ids", title: "Blocks never skipped", kind: "list", only: "DBPrune" },
        ],
      },
      {
        title: "Prediction",
        keys: [
          { key: "enable_taylorseer", title: "TaylorSeer", kind: "boolean", excludes: "enable_foca" },
          { key: "taylorseer_order", title: "Order", kind: "whole", min: 1, max: 4 },
          { key: "enable_foca", title: "FoCa", kind: "boolean", excludes: "enable_taylorseer" },
          { key: "enable_encoder_calibrator", title: "Predict the text stream too", kind: "boolean" },
          { key: "calibrator_cache_type", title: "Predicted is", kind: "choice", choices: ["residual", "hidden_states"] },
        ],
      },
      {
        title: "Steps fixed beforehand",
        keys: [
          { key: "scm_steps_mask_policy", title: "Mask", kind: "choice", choices: ["slow", "medium", "fast", "ultra"] },
          { key: "scm_steps_policy", title: "Steps the mask leaves open", kind: "choice", choices: ["dynamic", "static"] },
          { key: "scm_compute_bins", title: "Own runs of computed steps", kind: "list" },
          { key: "scm_cache_bins", title: "Own runs of reused steps", kind: "list" },
          { key: "steps_computation_mask", title: "Own mask, 1 = compute", kind: "list" },
        ],
      },
      {
        title: "Refresh, guidance in two forwards",
        keys: [
          { key: "force_refresh_step_hint", title: "Drop all state after so many forwards", kind: "whole", min: 1 },
          { key: "force_refresh_step_policy", title: "... once or again and again", kind: "choice", choices: ["once", "repeat"] },
          { key: "num_inference_steps", title: "Steps this is meant for", kind: "whole", min: 1 },
          { key: "enable_separate_cfg", title: "Two forwards a step", kind: "boolean" },
          { key: "cfg_compute_first", title: "The unconditional one comes first", kind: "boolean" },
          { key: "cfg_diff_compute_separate", title: "Each measures its own distance", kind: "boolean" },
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
          { key: "rel_l1_thresh", title: "Reuse below this accumulated change", kind: "number", slide: [0.01, 0.6, 0.01] },
          { key: "num_warmup_steps", title: "Warm-up steps", kind: "whole", min: 0 },
          { key: "force_last_step", title: "Compute the last step", kind: "boolean" },
        ],
      },
      { title: "Calibration", keys: [{ key: "coefficients", title: "Five coefficients, highest degree first", kind: "numbers" }] },
    ],
    presets: { Quality: { rel_l1_thresh: 0.05 }, Balanced: { rel_l1_thresh: 0.1 }, Fast: { rel_l1_thresh: 0.2 } },
  },
  mag_cache: {
    title: "mag_cache: reuse whole steps",
    groups: [
      {
        keys: [
          { key: "mag_threshold", title: "Reuse up to this accumulated error", kind: "number", slide: [0, 0.6, 0.01] },
          { key: "mag_max_skip_steps", title: "Reused steps in a row, at most", kind: "whole", min: 0 },
          { key: "mag_retention_ratio", title: "Share of the steps computed at the start", kind: "number", slide: [0, 1, 0.05] },
        ],
      },
      {
        title: "Calibration",
        keys: [
          { key: "mag_ratios", title: "Magnitude ratios by step", kind: "numbers" },
          { key: "num_inference_steps", title: "Steps this is meant for", kind: "whole", min: 1 },
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
