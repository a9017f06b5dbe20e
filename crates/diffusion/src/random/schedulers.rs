//! Configurations of noise schedulers, as published.

use serde_json::{Value, json};

use super::recipe::DIFFUSERS_VERSION;

/// Of DiT.
pub(super) fn ddim() -> Value {
    json!({
        "_class_name": "DDIMScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "set_alpha_to_one": true,
        "steps_offset": 0,
        "trained_betas": null,
    })
}

/// Of HunyuanDiT 1.2.
pub(super) fn ddpm() -> Value {
    json!({
        "_class_name": "DDPMScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "beta_end": 0.018,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": false,
        "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": false,
        "sample_max_value": 1.0,
        "steps_offset": 1,
        "thresholding": false,
        "timestep_spacing": "leading",
        "trained_betas": null,
        "variance_type": "fixed_small",
    })
}

/// Of PixArt.
pub(super) fn dpm_solver() -> Value {
    json!({
        "_class_name": "DPMSolverMultistepScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "algorithm_type": "dpmsolver++",
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "lower_order_final": true,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "solver_order": 2,
        "solver_type": "midpoint",
        "steps_offset": 0,
        "thresholding": false,
        "timestep_spacing": "linspace",
        "trained_betas": null,
        "use_karras_sigmas": false,
    })
}

/// Of Stable Diffusion 3 (shift 3) and FLUX.1-schnell (shift 1).
pub(super) fn flow_match(shift: f64) -> Value {
    json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "num_train_timesteps": 1000,
        "shift": shift,
    })
}

/// Of FLUX.1-dev: shifted by the number of image tokens.
pub(super) fn dynamic_flow_match() -> Value {
    json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "base_image_seq_len": 256,
        "base_shift": 0.5,
        "max_image_seq_len": 4096,
        "max_shift": 1.15,
        "num_train_timesteps": 1000,
        "shift": 3.0,
        "use_dynamic_shifting": true,
    })
}

/// Of Qwen-Image: shifted by the number of image tokens, and stretched to a last level.
pub(super) fn stretched_flow_match() -> Value {
    json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "base_image_seq_len": 256,
        "base_shift": 0.5,
        "max_image_seq_len": 8192,
        "max_shift": 0.9,
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "shift_terminal": 0.02,
        "time_shift_type": "exponential",
        "use_dynamic_shifting": true,
    })
}

/// Of Sana: DPM-Solver++ on the levels of flow matching. The published file also has `-Infinity` as `lambda_min_clipped`, which
/// is the default and no JSON.
pub(super) fn flow_solver() -> Value {
    json!({
        "_class_name": "DPMSolverMultistepScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "algorithm_type": "dpmsolver++",
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "euler_at_final": false,
        "final_sigmas_type": "zero",
        "flow_shift": 3.0,
        "lower_order_final": true,
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "solver_order": 2,
        "solver_type": "midpoint",
        "steps_offset": 0,
        "thresholding": false,
        "timestep_spacing": "linspace",
        "trained_betas": null,
        "use_flow_sigmas": true,
        "use_karras_sigmas": false,
    })
}

/// Of Sana-Sprint.
pub(super) fn consistency() -> Value {
    json!({
        "_class_name": "SCMScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "num_train_timesteps": 1000,
        "prediction_type": "trigflow",
        "sigma_data": 0.5,
    })
}
