//! From a prompt to a picture, one denoising step at a time.
//!
//! Pictures equal those of diffusers' pipelines in f32: the noise of image `k` is that of a CPU generator
//! seeded `seed + k`, guidance mixes the first latent channels only, and there is no second row where
//! the guidance scale is 1 or less. Scheduler state and VAE output stay f32 whatever the model's dtype.
//! What differs between models is their [`Family`]'s.

mod family;
mod guidance;
mod image;
mod model_index;
mod step_model;

use std::borrow::BorrowMut;
use std::sync::Arc;

use afterimage_cache::{CacheBudget, Calibration, ImageSessions, Lane, ListShape};
use candle_core::{DType, Device, Tensor};

use self::model_index::PipelineClass;
use crate::conditioning::Conditioning;
use crate::device_spec::DeviceSpec;
use crate::dit::Dit;
use crate::error::RunnerError;
use crate::flux::Flux;
use crate::image::RgbImage;
use crate::labels::{LabelPolicy, Labels};
use crate::model_folder::ModelFolder;
use crate::model_info::ModelInfo;
use crate::noise;
use crate::pixart::PixArt;
use crate::precision::Precision;
use crate::schedulers::{FlowSigmas, Schedule, Scheduler, SchedulerConfig, SchedulerKind};
use crate::sd3::Sd3;
use crate::size::Size;
use crate::text::{EncoderSource, Offload, PromptLimit, Residency};
use crate::vae::Vae;

pub(crate) use family::{Family, ReadPrompt, Rows, Unconditional};
pub use guidance::{Guidance, GuidanceKind};
pub use image::{ImageSpec, RunningImage};
pub(crate) use model_index::{ModelIndex, OwnClass};
pub(crate) use step_model::PipelineStepModel;

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where weights and activations live.
    pub device: DeviceSpec,
    /// Precision of weights and activations.
    pub precision: Precision,
    /// Sizes served, the default first; empty: only the model's own size.
    pub buckets: Vec<Size>,
    /// Tokens of a prompt in the last text encoder; `None`: the family's default.
    pub max_sequence_length: Option<usize>,
    /// What leaves the memory while it is not needed.
    pub offload: Offload,
    /// Where text encoders live; `None`: where the transformer does.
    pub text_encoder_device: Option<DeviceSpec>,
    /// Noise scheduler of requests that do not say; `None`: the model's own.
    pub scheduler: Option<SchedulerKind>,
    /// What a prompt that is no label is taken for; `None`: for the nearest label by the embedded model, which
    /// strangers try first, and for a mistake by others.
    pub label_policy: Option<LabelPolicy>,
}

/// The file a calibration is kept in, beside `model_index.json`.
pub const CALIBRATION_FILE: &str = "cache_calibration.json";

/// Forwards of a step: one, and one for true classifier-free guidance of a distilled model.
const MAX_FORWARDS: usize = 2;

/// Most tokens of a prompt, as in diffusers' pipelines.
const MAX_SEQUENCE_LENGTH: usize = 512;

/// What a family finds out about itself while it is loaded.
pub(crate) struct FamilyFacts {
    /// Names and numbers of blocks of the block lists.
    pub(crate) block_lists: Vec<(&'static str, usize)>,
    /// Channels of the latents.
    pub(crate) latent_channels: usize,
    /// Channels of the prediction: as many, or twice that where the model also predicts a variance.
    pub(crate) out_channels: usize,
    /// Where the noise levels of flow matching come from.
    pub(crate) flow_sigmas: FlowSigmas,
    pub(crate) default_steps: usize,
    pub(crate) default_guidance_scale: f64,
    pub(crate) labels: Labels,
    pub(crate) guidance: GuidanceKind,
    /// Published for models of this kind; a calibration of the model itself goes before it.
    pub(crate) calibration: Option<Calibration>,
    /// What its text encoders read of a prompt.
    pub(crate) prompt_limits: Vec<PromptLimit>,
}

/// A family and what the pipeline has to know about it.
pub(crate) struct LoadedFamily {
    pub(crate) family: Box<dyn Family>,
    pub(crate) facts: FamilyFacts,
    /// Sizes served, the default first.
    pub(crate) buckets: Vec<Size>,
}

/// What a family is loaded from.
pub(crate) struct FamilyParts<'a> {
    pub(crate) folder: &'a ModelFolder,
    pub(crate) index: &'a ModelIndex,
    /// Sizes asked for; empty: the model's own.
    pub(crate) buckets: &'a [Size],
    /// Pixels per latent.
    pub(crate) vae_scale: usize,
    /// Tokens of a prompt asked for, in the last text encoder.
    pub(crate) max_sequence_length: Option<usize>,
    pub(crate) dtype: DType,
    pub(crate) device: &'a Device,
    pub(crate) text_encoders: EncoderSource,
}

impl FamilyParts<'_> {
    /// Heights and widths of the latents of these sizes.
    pub(crate) fn latent_sizes(&self, sizes: &[Size]) -> Vec<(usize, usize)> {
        sizes.iter().map(|size| latent_size(*size, self.vae_scale)).collect()
    }

    /// Refuses what an encoder gives in another size than the transformer takes; `what` ends in "has" or "have".
    pub(crate) fn check_size(&self, what: &str, found: usize, right: usize) -> Result<(), RunnerError> {
        if found == right {
            return Ok(());
        }
        let id = self.folder.id();
        Err(RunnerError::Model(format!("{id}: {what} size {found}, the transformer takes {right}")))
    }

    /// Tokens of a prompt in the last text encoder of a family whose pipeline has this default.
    pub(crate) fn text_tokens(&self, default: usize) -> Result<usize, RunnerError> {
        match self.max_sequence_length.unwrap_or(default) {
            tokens @ 1..=MAX_SEQUENCE_LENGTH => Ok(tokens),
            other => Err(RunnerError::Model(format!(
                "max_sequence_length is {other}; a prompt has 1 to {MAX_SEQUENCE_LENGTH} tokens"
            ))),
        }
    }
}

/// A loaded model.
pub struct Pipeline {
    family: Box<dyn Family>,
    vae: Vae,
    schedulers: SchedulerConfig,
    flow_sigmas: FlowSigmas,
    latent_channels: usize,
    /// The model predicts a variance beside the noise.
    learns_variance: bool,
    info: ModelInfo,
    /// Of text encoders that are offloaded.
    residency: Arc<Residency>,
    device_spec: DeviceSpec,
    device: Device,
}

impl Pipeline {
    /// Loads a model folder onto a device.
    ///
    /// # Errors
    /// If the device cannot be opened, or a file, a configuration key or a tensor is not what the model
    /// needs.
    pub fn load(folder: &ModelFolder, options: &LoadOptions) -> Result<Self, RunnerError> {
        let device = options.device.open()?;
        let dtype = options.precision.dtype(&device)?;
        let index = Arc::new(ModelIndex::read(folder)?);
        let class = index.pipeline()?;
        let text_device = match options.text_encoder_device {
            Some(spec) if spec != options.device => spec.open()?,
            _ => device.clone(),
        };
        let residency = Arc::<Residency>::default();
        let text_encoders = EncoderSource {
            folder: folder.clone(),
            index: Arc::clone(&index),
            dtype: options.precision.dtype(&text_device)?,
            device: text_device,
            states_device: device.clone(),
            states_dtype: dtype,
            offloaded_by: (options.offload == Offload::TextEncoders).then(|| Arc::clone(&residency)),
        };
        let vae = Vae::load(folder, &index, class.adds_shift(), dtype, &device)?;
        let schedulers = SchedulerConfig::from_json(&folder.text("scheduler/scheduler_config.json")?)?
            .of_class(index.component("scheduler"));
        let parts = FamilyParts {
            folder,
            index: &index,
            buckets: &options.buckets,
            vae_scale: vae.scale(),
            max_sequence_length: options.max_sequence_length,
            dtype,
            device: &device,
            text_encoders,
        };
        let LoadedFamily { family, facts, buckets } = match class {
            PipelineClass::Dit => Dit::load(&parts)?,
            PipelineClass::PixArt(variant) => PixArt::load(&parts, variant)?,
            PipelineClass::Sd3 => Sd3::load(&parts)?,
            PipelineClass::Flux => Flux::load(&parts)?,
        };
        if vae.latent_channels() != facts.latent_channels {
            return Err(RunnerError::Model(format!(
                "{}: the transformer has {} latent channels, the VAE {}",
                folder.id(),
                facts.latent_channels,
                vae.latent_channels()
            )));
        }

        if facts.prompt_limits.is_empty() && (options.offload, options.text_encoder_device) != (Offload::None, None) {
            tracing::warn!("the model has no text encoder to be offloaded or put on another device");
        }
        let info = ModelInfo {
            id: folder.id().to_owned(),
            pipeline: class.as_str(),
            block_lists: facts.block_lists,
            buckets,
            default_steps: facts.default_steps,
            default_guidance_scale: facts.default_guidance_scale,
            default_scheduler: default_scheduler(&schedulers, options.scheduler)?,
            schedulers: schedulers.kinds()?,
            labels: facts.labels,
            label_policy: options.label_policy.unwrap_or(match folder.path() {
                Some(_) => LabelPolicy::Exact,
                None => LabelPolicy::Nearest,
            }),
            calibration: read_calibration(folder)?.or(facts.calibration),
            guidance: facts.guidance,
            prompt_limits: facts.prompt_limits,
        };
        Ok(Self {
            family,
            vae,
            schedulers,
            flow_sigmas: facts.flow_sigmas,
            latent_channels: facts.latent_channels,
            learns_variance: facts.out_channels == 2 * facts.latent_channels,
            info,
            residency,
            device_spec: options.device,
            device,
        })
    }

    /// What the model offers.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Where it was loaded to.
    pub fn device_spec(&self) -> DeviceSpec {
        self.device_spec
    }

    /// A fresh scheduler for one image of this size.
    ///
    /// # Errors
    /// If the model cannot be sampled like this, or not in so many steps.
    pub(crate) fn scheduler(
        &self,
        kind: SchedulerKind,
        steps: usize,
        size: Size,
    ) -> Result<Box<dyn Scheduler>, RunnerError> {
        let image_tokens = self.family.image_tokens(latent_size(size, self.vae.scale()));
        self.schedulers.build(kind, &Schedule { steps, image_tokens, sigmas: self.flow_sigmas })
    }

    /// What the transformer is told about a prompt. Takes its time.
    ///
    /// # Errors
    /// If the prompt means nothing to the model, or a tensor operation fails.
    pub(crate) fn encode(&self, prompt: &str) -> Result<Conditioning, RunnerError> {
        let conditioning = self.family.encode(prompt)?;
        for cut in conditioning.cuts() {
            tracing::warn!("a prompt is too long: {cut}");
        }
        Ok(conditioning)
    }

    /// What the model takes a prompt for.
    ///
    /// # Errors
    /// A message for whoever wrote the prompt.
    pub(crate) fn read_prompt(&self, prompt: &str, policy: LabelPolicy) -> Result<ReadPrompt, String> {
        self.family.read_prompt(prompt, policy)
    }

    /// What an image's texts are that take their time to be encoded.
    pub(crate) fn texts<'a>(&self, spec: &'a ImageSpec) -> Vec<&'a str> {
        match self.family.unconditional() {
            // Classes take none.
            Unconditional::Last(_) => Vec::new(),
            Unconditional::FirstFromNegativePrompt if spec.guidance.mixing_scale().is_none() => vec![&spec.prompt],
            Unconditional::FirstFromNegativePrompt => {
                vec![&spec.prompt, spec.negative_prompt.as_deref().unwrap_or_default()]
            }
        }
    }

    /// Sets an image up: noise, conditioning, scheduler, fresh cache state within `budget`.
    ///
    /// # Errors
    /// If the scheduler cannot do this number of steps, or the prompt cannot be encoded.
    pub fn begin(&self, spec: &ImageSpec, budget: &CacheBudget) -> Result<RunningImage, RunnerError> {
        self.begin_with(spec, budget, |prompt| self.encode(prompt))
    }

    /// As [`Self::begin`], with another way to encode prompts.
    pub(crate) fn begin_with(
        &self,
        spec: &ImageSpec,
        budget: &CacheBudget,
        encode: impl Fn(&str) -> Result<Conditioning, RunnerError>,
    ) -> Result<RunningImage, RunnerError> {
        // The negative prompt finds the encoders that the prompt had loaded.
        let stay = self.residency.stay();
        let mut conditioning = vec![encode(&spec.prompt)?];
        let mut prompt_row = 0;
        if spec.guidance.mixing_scale().is_some() {
            let (unconditional, comes_first) = match self.family.unconditional() {
                Unconditional::Last(unconditional) => (unconditional, false),
                Unconditional::FirstFromNegativePrompt => (
                    encode(spec.negative_prompt.as_deref().unwrap_or_default())?,
                    !spec.guidance.has_second_forward() || spec.cache.uncond_comes_first(),
                ),
            };
            prompt_row = usize::from(comes_first);
            conditioning.insert(1 - prompt_row, unconditional);
        }
        drop(stay);
        let (height, width) = latent_size(spec.size, self.vae.scale());
        let stream_bytes = spec.guidance.rows_per_forward() * self.family.stream_bytes((height, width));
        let lists = self.info.block_lists.iter();
        let lists: Vec<_> = lists.map(|(name, blocks)| ListShape { name, blocks: *blocks, stream_bytes }).collect();
        let shape = [1, self.latent_channels, height, width];
        let latents = Tensor::from_vec(noise::randn(spec.seed, &shape), &shape, &self.device)?;
        let sessions = match spec.scheduler.forwards_per_step() {
            1 => ImageSessions::new(&spec.cache, &lists, budget),
            _ => ImageSessions::with_second_forwards(&spec.cache, &lists, budget),
        };
        Ok(RunningImage {
            spec: spec.clone(),
            conditioning,
            prompt_row,
            latents,
            scheduler: self.scheduler(spec.scheduler, spec.steps, spec.size)?,
            step: 0,
            sessions,
        })
    }

    /// Advances every image by one step, in one forward; those that ask for a second share that. All must
    /// have the same size; all else may differ.
    ///
    /// # Errors
    /// If a tensor operation fails, or an image has no step left.
    pub fn denoise<I: BorrowMut<RunningImage>>(&self, images: &mut [I]) -> Result<(), RunnerError> {
        let mut images: Vec<&mut RunningImage> = images.iter_mut().map(I::borrow_mut).collect();
        // Of every image, one per row.
        let mut predictions = vec![Vec::new(); images.len()];
        for forward in 0..MAX_FORWARDS {
            let members = images.iter_mut().zip(&mut predictions);
            let (mut members, mut predictions): (Vec<_>, Vec<_>) =
                members.filter(|(image, _)| !image.rows_in(forward).is_empty()).unzip();
            if members.is_empty() {
                break;
            }
            let prediction = self.predict(&mut members, forward)?;
            let mut rows = (0..prediction.dim(0)?).map(|row| prediction.narrow(0, row, 1));
            for (image, predictions) in members.iter().zip(&mut predictions) {
                for row in rows.by_ref().take(image.rows_in(forward).len()) {
                    predictions.push(row?);
                }
            }
        }
        for (image, predictions) in images.into_iter().zip(predictions) {
            let output = self.guide(&predictions, image)?;
            image.latents = image.scheduler.step(&output, &image.latents)?;
            image.step += 1;
        }
        Ok(())
    }

    /// The transformer's output for all rows that all images have in a forward.
    fn predict(&self, images: &mut [&mut &mut RunningImage], forward: usize) -> Result<Tensor, RunnerError> {
        let (mut latents, mut timesteps, mut guidance_scales) = (vec![], vec![], vec![]);
        let (mut conditioning, mut lanes) = (vec![], vec![]);
        for image in images {
            let rows = image.rows_in(forward);
            let RunningImage { spec, conditioning: all_rows, latents: sample, scheduler, step, sessions, .. } =
                &mut ***image;
            let timestep = scheduler.timesteps().get(*step);
            let timestep = *timestep.ok_or_else(|| RunnerError::Model("the image has no step left".to_owned()))?;
            sessions.begin_forward(!spec.scheduler.begins_step(*step));
            lanes.push(Lane { rows: rows.len(), sessions });
            for row in &all_rows[rows] {
                latents.push(sample.clone());
                timesteps.push(timestep);
                guidance_scales.push(spec.guidance.scale() as f32);
                conditioning.push(row);
            }
        }
        let rows = Rows {
            latents: &Tensor::cat(&latents, 0)?,
            timesteps: &timesteps,
            guidance_scales: &guidance_scales,
            conditioning: &conditioning,
        };
        Ok(self.family.predict(&rows, &mut lanes)?)
    }

    /// Classifier-free guidance over one image's predictions, `[1, out_channels, h, w]` each, to
    /// `[1, channels, h, w]`.
    fn guide(&self, predictions: &[Tensor], image: &RunningImage) -> Result<Tensor, RunnerError> {
        let row = |index: usize| {
            let prediction = &predictions[index];
            if self.learns_variance { prediction.narrow(1, 0, self.latent_channels) } else { Ok(prediction.clone()) }
        };
        let cond = row(image.prompt_row)?;
        let Some(scale) = image.spec.guidance.mixing_scale() else { return Ok(cond) };
        let uncond = row(1 - image.prompt_row)?;
        Ok((&uncond + ((cond - &uncond)? * scale)?)?)
    }

    /// Turns final latents into a picture.
    ///
    /// # Errors
    /// If a tensor operation fails, or the latents are not finite.
    pub fn decode(&self, latents: &Tensor) -> Result<RgbImage, RunnerError> {
        let sum: f32 = latents.abs()?.sum_all()?.to_scalar()?;
        if !sum.is_finite() {
            return Err(RunnerError::Model("the latents are not finite".to_owned()));
        }
        let pixels = self.vae.decode(latents)?;
        // [1, 3, height, width] in -1..1 -> [height, width, 3] in 0..255
        let pixels = ((pixels / 2.0)? + 0.5)?.clamp(0f32, 1f32)?.squeeze(0)?.permute([1, 2, 0])?;
        let (height, width, _) = pixels.dims3()?;
        let pixels = pixels.flatten_all()?.to_vec1::<f32>()?;
        // numpy, which diffusers rounds with, rounds halves to even.
        let data = pixels.into_iter().map(|value| (value * 255.0).round_ties_even() as u8).collect();
        Ok(RgbImage { size: Size { width, height }, data })
    }
}

fn default_scheduler(
    schedulers: &SchedulerConfig,
    chosen: Option<SchedulerKind>,
) -> Result<SchedulerKind, RunnerError> {
    let own = || {
        let hint = |error| RunnerError::Model(format!("{error}; `--scheduler CLASS` puts one of these in its place"));
        schedulers.kind().map_err(hint)
    };
    chosen.map_or_else(own, Ok)
}

/// The model's calibration, if it has one.
fn read_calibration(folder: &ModelFolder) -> Result<Option<Calibration>, RunnerError> {
    if !folder.contains(CALIBRATION_FILE) {
        return Ok(None);
    }
    let parsed = serde_json::from_str(&folder.text(CALIBRATION_FILE)?);
    parsed.map(Some).map_err(|error| RunnerError::Model(format!("{}: {CALIBRATION_FILE}: {error}", folder.id())))
}

/// Checks that a model with this patch size can make these sizes; without any, its own.
pub(crate) fn check_buckets(
    parts: &FamilyParts<'_>,
    sample_size: usize,
    patch_size: usize,
) -> Result<Vec<Size>, RunnerError> {
    if parts.buckets.is_empty() {
        let side = sample_size * parts.vae_scale;
        return Ok(vec![Size { width: side, height: side }]);
    }
    let multiple = patch_size * parts.vae_scale;
    let misfits = |size: &&Size| !size.width.is_multiple_of(multiple) || !size.height.is_multiple_of(multiple);
    if let Some(size) = parts.buckets.iter().find(misfits) {
        return Err(RunnerError::Model(format!(
            "bucket {size}: width and height must be multiples of {multiple} for this model"
        )));
    }
    Ok(parts.buckets.to_vec())
}

/// Height and width of a picture's latents.
fn latent_size(size: Size, scale: usize) -> (usize, usize) {
    (size.height / scale, size.width / scale)
}
