//! From a model folder to a pipeline.

use std::sync::Arc;

use afterimage_cache::ModelFit;
use afterimage_checkpoint::guard::without_panic;
use afterimage_checkpoint::{
    CACHE_PROFILE_FILE, CheckpointError, MODEL_FIT_FILES, ModelFolder, ModelIndex, Quantization,
};
use afterimage_diffusion::families::{FamilyParts, LabelPolicy, LoadedFamily, entry_of};
use afterimage_diffusion::schedulers::{SchedulerConfig, SchedulerKind};
use afterimage_diffusion::text::{EncoderSource, Offload, PromptLimit, Residency};
use afterimage_diffusion::vae::Vae;
use afterimage_diffusion::{DiffusionError, Precision};
use afterimage_kernels::Isa;

use super::{DeviceSpec, Pipeline, Place};
use crate::error::RunnerError;
use crate::memory::{Bytes, Footprint, ran_out};
use crate::model_info::ModelInfo;
use crate::request::{BucketChoice, Size};

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where weights and activations live.
    pub device: DeviceSpec,
    /// Precision of weights and activations.
    pub precision: Precision,
    /// What is made of the matrices of the transformer's blocks, on a CPU.
    pub quantization: Quantization,
    /// Sizes served, the default first; empty: only the model's own size.
    pub buckets: Vec<BucketChoice>,
    /// Most pixels of a size served; `None`: any number.
    pub max_pixels: Option<usize>,
    /// Tokens of a prompt in the last text encoder; `None`: the family's default.
    pub max_sequence_length: Option<usize>,
    /// What leaves the memory while it is not needed.
    pub offload: Offload,
    /// Where text encoders live; `None`: where the transformer does.
    pub text_encoder_device: Option<DeviceSpec>,
    /// Noise scheduler of requests that do not say; `None`: the model's own.
    pub scheduler: Option<SchedulerKind>,
    /// What becomes of a prompt that is no label; `None`: it draws the nearest label with the embedded model, which
    /// newcomers try first, and is refused by others.
    pub label_policy: Option<LabelPolicy>,
}

impl Pipeline {
    /// Loads a model folder onto the options' device.
    ///
    /// # Errors
    /// If the device cannot be opened, or a file, a configuration key or a tensor is not what the model
    /// needs.
    pub fn load(folder: &ModelFolder, options: &LoadOptions) -> Result<Self, RunnerError> {
        let places = options.open(&[options.device])?;
        Self::load_onto(folder, options, &places[0])
    }

    /// Loads a model folder onto a device that the options have [opened](LoadOptions::open), whichever they name.
    ///
    /// # Errors
    /// If a file, a configuration key or a tensor is not what the model needs.
    pub fn load_onto(folder: &ModelFolder, options: &LoadOptions, place: &Place) -> Result<Self, RunnerError> {
        warn_of_slow_quantization(options.quantization);
        let name = || folder.path().map_or(folder.id().to_owned(), |path| path.display().to_string());
        let (folder, loaded) = folder.counting();
        let pipeline = without_panic(|| Self::load_unguarded(&folder, options, place))
            .unwrap_or_else(|what| Err(CheckpointError::weights(name(), what).into()));
        let text_encoders_are_here = options.text_encoder_device.is_none_or(|device| device == place.spec);
        let footprint = Footprint::of_weights(&loaded, text_encoders_are_here);
        match pipeline {
            Ok(pipeline) => Ok(Self { footprint, ..pipeline }),
            Err(error) => Err(of_memory(error, place.spec, &footprint)),
        }
    }

    fn load_unguarded(folder: &ModelFolder, options: &LoadOptions, place: &Place) -> Result<Self, RunnerError> {
        let (device, dtype) = (place.device.clone(), place.dtype);
        let index = Arc::new(ModelIndex::read(folder)?);
        let entry = entry_of(&index)?;
        let residency = Arc::<Residency>::default();
        let text_encoders = text_encoders(folder, &index, options, place, &residency);
        let vae = Vae::load(folder, &index, entry.vae, dtype, &device)?;
        let schedulers = schedulers_of(folder, &index)?;
        let parts = FamilyParts {
            folder,
            index: &index,
            buckets: &BucketChoice::canvases(&options.buckets),
            max_pixels: options.max_pixels.unwrap_or(usize::MAX),
            vae: &vae,
            max_sequence_length: options.max_sequence_length,
            dtype,
            quantization: options.quantization,
            device: &device,
            text_encoders,
        };
        let LoadedFamily { prompts, denoiser, facts, buckets } =
            (entry.load)(&parts).map_err(|error| of_options(error, options))?;
        check_latent_channels(folder, facts.latent_channels, vae.latent_channels())?;
        warn_of_what_is_not_there(&facts.prompt_limits, options);
        let info = ModelInfo {
            id: folder.id().to_owned(),
            pipeline: entry.pipeline,
            dtype: dtype.as_str(),
            quantization: options.quantization,
            block_lists: denoiser.phases()[0].transformer.block_lists(),
            long_skips: denoiser.phases()[0].transformer.long_skips(),
            streams_join_at: denoiser.phases()[0].transformer.streams_join_at(),
            buckets: buckets.into_iter().map(Size::of).collect(),
            default_steps: facts.default_steps,
            default_guidance_scale: facts.default_guidance_scale,
            default_scheduler: default_scheduler(&schedulers, options.scheduler)?,
            schedulers: schedulers.kinds()?.into_iter().filter(|kind| kind.takes(facts.flow_sigmas)).collect(),
            labels: facts.labels,
            label_policy: options.label_policy.unwrap_or_else(|| default_label_policy(folder)),
            fit: read_fit(folder)?.or(facts.fit),
            cache_profile: read_profile(folder)?,
            guidance: facts.guidance,
            prompt_limits: facts.prompt_limits,
        };
        Ok(Self {
            prompts,
            denoiser,
            vae,
            schedulers,
            flow_sigmas: facts.flow_sigmas,
            latent_channels: facts.latent_channels,
            learns_variance: facts.out_channels == 2 * facts.latent_channels,
            info,
            residency,
            device_spec: place.spec,
            device,
            footprint: Footprint::default(),
        })
    }
}

/// Quantised matrices are fast where the CPU multiplies integers of 8 bits.
fn warn_of_slow_quantization(quantization: Quantization) {
    if quantization != Quantization::None && !Isa::current().multiplies_int8() {
        tracing::warn!(
            cpu = %Isa::current(),
            "int8 saves memory here and costs time, up to three times as much: it is faster on CPUs with VNNI only"
        );
    }
}

/// Says what was there already, where a device had no memory left.
fn of_memory(error: RunnerError, device: DeviceSpec, loaded: &Footprint) -> RunnerError {
    let reason = error.with_causes();
    if !ran_out(&reason) {
        return error;
    }
    let reason = format!(
        "its memory was full when {} of weights were loaded ({reason}); take weights in fp8 or GGUF, or keep text encoders \
         elsewhere (--offload text-encoders, --text-encoder-device cpu)",
        Bytes(loaded.weight_bytes())
    );
    RunnerError::Device { device: device.to_string(), reason }
}

/// Names the option at fault, where it is not the model's.
pub(super) fn of_options(error: DiffusionError, options: &LoadOptions) -> RunnerError {
    match error {
        DiffusionError::Option { option, reason } => {
            RunnerError::LoadOption { option, message: format!("it {reason}") }
        }
        DiffusionError::Bucket { canvas, reason } if !options.buckets.is_empty() => {
            RunnerError::LoadOption { option: "buckets", message: format!("{canvas}: {reason}") }
        }
        other => other.into(),
    }
}

/// What text encoders are loaded from. They live where the transformer does unless the options say otherwise.
fn text_encoders(
    folder: &ModelFolder,
    index: &Arc<ModelIndex>,
    options: &LoadOptions,
    place: &Place,
    residency: &Arc<Residency>,
) -> EncoderSource {
    EncoderSource {
        folder: folder.clone(),
        index: Arc::clone(index),
        dtype: place.encoder_dtype,
        device: place.encoder_device.clone(),
        states_device: place.device.clone(),
        states_dtype: place.dtype,
        offloaded_by: (options.offload == Offload::TextEncoders).then(|| Arc::clone(residency)),
    }
}

fn schedulers_of(folder: &ModelFolder, index: &ModelIndex) -> Result<SchedulerConfig, RunnerError> {
    let config = SchedulerConfig::from_json(&folder.text("scheduler/scheduler_config.json")?)?;
    Ok(config.of_class(index.component("scheduler")))
}

fn check_latent_channels(folder: &ModelFolder, transformer: usize, vae: usize) -> Result<(), DiffusionError> {
    if transformer == vae {
        return Ok(());
    }
    let reason = format!("the transformer has {transformer} latent channels, the VAE {vae}");
    Err(DiffusionError::Mismatch { model: folder.id().to_owned(), reason })
}

/// A model without text encoders has none that options could be about.
fn warn_of_what_is_not_there(prompt_limits: &[PromptLimit], options: &LoadOptions) {
    if prompt_limits.is_empty() && (options.offload, options.text_encoder_device) != (Offload::None, None) {
        tracing::warn!("the model has no text encoder to be offloaded or put on another device");
    }
}

/// Strangers try the embedded model first.
fn default_label_policy(folder: &ModelFolder) -> LabelPolicy {
    match folder.path() {
        Some(_) => LabelPolicy::Exact,
        None => LabelPolicy::Nearest,
    }
}

fn default_scheduler(
    schedulers: &SchedulerConfig,
    chosen: Option<SchedulerKind>,
) -> Result<SchedulerKind, RunnerError> {
    match chosen {
        Some(kind) => Ok(kind),
        None => schedulers.kind().map_err(RunnerError::OwnScheduler),
    }
}

/// What was fitted to the model for its caches, if the folder has it.
fn read_fit(folder: &ModelFolder) -> Result<Option<ModelFit>, RunnerError> {
    let Some(name) = MODEL_FIT_FILES.into_iter().find(|name| folder.contains(name)) else { return Ok(None) };
    let parsed = ModelFit::from_json(&folder.text(name)?);
    let file = || format!("{}: {name}", folder.id());
    parsed.map(Some).map_err(|error| CheckpointError::config(file(), error).into())
}

/// Settings that were measured on the model, if the folder has some. What the text means is for those to read who choose
/// among them.
fn read_profile(folder: &ModelFolder) -> Result<Option<Arc<str>>, RunnerError> {
    if !folder.contains(CACHE_PROFILE_FILE) {
        return Ok(None);
    }
    Ok(Some(folder.text(CACHE_PROFILE_FILE)?.into()))
}

#[cfg(test)]
mod tests {
    use afterimage_checkpoint::MODEL_INDEX;

    use super::*;

    #[test]
    fn a_device_that_is_full_says_how_far_loading_came() {
        let full = || RunnerError::Tensor(candle_core::Error::Msg("CUDA_ERROR_OUT_OF_MEMORY".to_owned()));
        let loaded = Footprint { weights: vec![("transformer".to_owned(), 3 << 30)], ..Footprint::default() };
        let told = of_memory(full(), DeviceSpec::Cuda(1), &loaded).to_string();
        let start =
            "device cuda:1: its memory was full when 3.0 GiB of weights were loaded (CUDA_ERROR_OUT_OF_MEMORY); ";
        assert!(told.starts_with(start), "{told}");
        assert!(matches!(of_memory(RunnerError::NotFinite, DeviceSpec::Cuda(1), &loaded), RunnerError::NotFinite));
    }

    #[test]
    fn what_was_fitted_is_read_under_its_old_name_too() {
        let fit = |last: f64| format!(r#"{{"tea_cache_coefficients": [1, 0, 0, 0, {last}], "mag_ratios": [1]}}"#);
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(MODEL_INDEX), "{}").unwrap();
        let folder = ModelFolder::open(place.path()).unwrap();
        assert_eq!(read_fit(&folder).unwrap(), None);
        for (name, last) in [("cache_calibration.json", 0.5), ("cache_fit.json", 0.25)] {
            std::fs::write(place.path().join(name), fit(last)).unwrap();
            assert_eq!(read_fit(&folder).unwrap().unwrap().tea_cache_coefficients[4], last);
        }
        for (text, expected) in [
            ("{}", ": cache_fit.json: missing field"),
            (
                r#"{"tea_cache_coefficients": [1, 0, 0, 0, 1], "mag_ratios": []}"#,
                ": cache_fit.json: `mag_ratios` has 0 ",
            ),
        ] {
            std::fs::write(place.path().join("cache_fit.json"), text).unwrap();
            let error = read_fit(&folder).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
