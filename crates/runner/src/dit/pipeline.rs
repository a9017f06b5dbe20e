//! The DiT pipeline: from a class label to a picture, one denoising step at a time.
//!
//! Pictures equal diffusers' `DiTPipeline` in f32: the noise of image `k` is that of a CPU generator
//! seeded `seed + k`, guidance mixes the first latent channels only, and there is no second row where
//! the guidance scale is 1 or less. Scheduler state and VAE output stay f32 whatever the model's dtype.

use std::borrow::BorrowMut;
use std::collections::BTreeMap;

use afterimage_cache::{
    CacheBudget, CachePlan, Calibration, CalibrationStep, ImageReport, ImageSessions, Lane, ListShape,
};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::config::{NULL_CLASS, TransformerConfig};
use super::transformer::{DitTransformer, Rows};
use crate::device_spec::DeviceSpec;
use crate::error::RunnerError;
use crate::image::RgbImage;
use crate::labels::Labels;
use crate::lenient_json;
use crate::model_folder::ModelFolder;
use crate::model_info::ModelInfo;
use crate::noise;
use crate::precision::Precision;
use crate::schedulers::{Scheduler, SchedulerConfig, SchedulerKind};
use crate::size::Size;
use crate::vae::{VaeConfig, VaeDecoder};

/// Defaults of diffusers' `DiTPipeline`.
const DEFAULT_STEPS: usize = 50;
const DEFAULT_GUIDANCE_SCALE: f64 = 4.0;

/// Classes a picture pipeline's transformer may be registered as.
const TRANSFORMER_CLASSES: [&str; 2] = ["DiTTransformer2DModel", "Transformer2DModel"];

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where weights and activations live.
    pub device: DeviceSpec,
    /// Precision of weights and activations.
    pub precision: Precision,
    /// Sizes served, the default first; empty: only the model's own size.
    pub buckets: Vec<Size>,
}

/// The file a calibration is kept in, beside `model_index.json`.
pub const CALIBRATION_FILE: &str = "cache_calibration.json";

/// `model_index.json`, as far as it is needed.
#[derive(Deserialize)]
struct ModelIndex {
    #[serde(rename = "_class_name")]
    class_name: String,
    #[serde(default)]
    transformer: (Option<String>, Option<String>),
    #[serde(default)]
    id2label: BTreeMap<u32, String>,
}

/// A loaded model.
pub struct DitPipeline {
    transformer: DitTransformer,
    vae: VaeDecoder,
    vae_config: VaeConfig,
    schedulers: SchedulerConfig,
    latent_channels: usize,
    /// The model predicts a variance beside the noise.
    learns_variance: bool,
    info: ModelInfo,
    device_spec: DeviceSpec,
    device: Device,
}

/// What one image is made of, checked.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// Class index.
    pub class: u32,
    /// Seed of the noise.
    pub seed: u64,
    /// A bucket.
    pub size: Size,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance scale; 1 or less: no guidance.
    pub guidance_scale: f64,
    /// Noise scheduler.
    pub scheduler: SchedulerKind,
    /// Caching.
    pub cache: CachePlan,
}

/// An image on its way from noise to latents. A clone is a snapshot: it shares the tensors, the memory
/// reserved for cache state included, and goes its own way from then on.
#[derive(Clone)]
pub struct RunningImage {
    spec: ImageSpec,
    /// `[1, channels, height, width]`, f32
    latents: Tensor,
    scheduler: Box<dyn Scheduler>,
    step: usize,
    sessions: ImageSessions,
}

impl DitPipeline {
    /// Loads a model folder onto a device.
    ///
    /// # Errors
    /// If the device cannot be opened, or a file, a configuration key or a tensor is not what the model
    /// needs.
    pub fn load(folder: &ModelFolder, options: &LoadOptions) -> Result<Self, RunnerError> {
        let device = options.device.open()?;
        let dtype = options.precision.dtype(&device)?;
        let index = read_index(folder)?;
        let config = TransformerConfig::from_json(&folder.text("transformer/config.json")?)?;
        let vae_config = VaeConfig::from_json(&folder.text("vae/config.json")?)?;
        let schedulers = SchedulerConfig::from_json(&folder.text("scheduler/scheduler_config.json")?)?;
        if vae_config.latent_channels != config.in_channels {
            return Err(RunnerError::Model(format!(
                "{}: the transformer has {} latent channels, the VAE {}",
                folder.id(),
                config.in_channels,
                vae_config.latent_channels
            )));
        }
        let buckets = buckets(&options.buckets, &config, &vae_config)?;
        let latent_sizes: Vec<_> = buckets.iter().map(|size| latent_size(*size, vae_config.scale())).collect();

        let weights = folder.weights("transformer")?;
        let transformer = DitTransformer::new(config.clone(), &latent_sizes, weights.var_builder(dtype, &device))?;
        weights.finish(&["pos_embed.pos_embed"])?;
        let vae_weights = folder.weights("vae")?;
        let vae_dtype = if vae_config.force_upcast { DType::F32 } else { dtype };
        let vae = VaeDecoder::new(&vae_config, vae_weights.var_builder(vae_dtype, &device))?;
        vae_weights.finish(&VaeDecoder::UNUSED_WEIGHTS)?;

        let info = ModelInfo {
            id: folder.id().to_owned(),
            pipeline: "DiTPipeline",
            block_lists: vec![(DitTransformer::BLOCK_LIST, config.num_layers)],
            buckets,
            default_steps: DEFAULT_STEPS,
            default_guidance_scale: DEFAULT_GUIDANCE_SCALE,
            default_scheduler: schedulers.kind()?,
            labels: Labels::new(index.id2label, config.num_classes() as u32),
            calibration: read_calibration(folder)?,
            has_null_class: config.num_classes() >= NULL_CLASS as usize,
        };
        Ok(Self {
            transformer,
            vae,
            vae_config,
            schedulers,
            latent_channels: config.in_channels,
            learns_variance: config.out_channels() == 2 * config.in_channels,
            info,
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

    /// The model's scheduler configuration.
    pub fn schedulers(&self) -> &SchedulerConfig {
        &self.schedulers
    }

    /// Sets an image up: noise, scheduler, fresh cache state within `budget`.
    ///
    /// # Errors
    /// If the scheduler cannot do this number of steps.
    pub fn begin(&self, spec: &ImageSpec, budget: &CacheBudget) -> Result<RunningImage, RunnerError> {
        let (height, width) = latent_size(spec.size, self.vae_config.scale());
        let stream_bytes = spec.rows() * self.transformer.stream_bytes((height, width));
        let lists = self.info.block_lists.iter();
        let lists: Vec<_> = lists.map(|(name, blocks)| ListShape { name, blocks: *blocks, stream_bytes }).collect();
        let shape = [1, self.latent_channels, height, width];
        let latents = Tensor::from_vec(noise::randn(spec.seed, &shape), &shape, &self.device)?;
        Ok(RunningImage {
            spec: spec.clone(),
            latents,
            scheduler: self.schedulers.build(spec.scheduler, spec.steps)?,
            step: 0,
            sessions: ImageSessions::new(&spec.cache, &lists, budget),
        })
    }

    /// Advances every image by one step, in one forward. All must have the same size; all else may
    /// differ.
    ///
    /// # Errors
    /// If a tensor operation fails, or an image has no step left.
    pub fn denoise<I: BorrowMut<RunningImage>>(&self, images: &mut [I]) -> Result<(), RunnerError> {
        let mut images: Vec<&mut RunningImage> = images.iter_mut().map(I::borrow_mut).collect();
        let prediction = self.predict(&mut images)?;
        let mut row = 0;
        for image in images {
            let rows = image.spec.rows();
            let output = self.guide(&prediction.narrow(0, row, rows)?, image.spec.guidance_scale)?;
            image.latents = image.scheduler.step(&output, &image.latents)?;
            image.step += 1;
            row += rows;
        }
        Ok(())
    }

    /// The transformer's output for all rows of all images.
    fn predict(&self, images: &mut [&mut RunningImage]) -> Result<Tensor, RunnerError> {
        let (mut latents, mut timesteps, mut classes) = (Vec::new(), Vec::new(), Vec::new());
        for image in images.iter() {
            let timestep = image.scheduler.timesteps().get(image.step);
            let timestep = *timestep.ok_or_else(|| RunnerError::Model("the image has no step left".to_owned()))?;
            for class in [image.spec.class, NULL_CLASS].into_iter().take(image.spec.rows()) {
                latents.push(image.latents.clone());
                timesteps.push(timestep);
                classes.push(class);
            }
        }
        let rows = Rows { latents: &Tensor::cat(&latents, 0)?, timesteps: &timesteps, classes: &classes };
        let mut lanes: Vec<_> =
            images.iter_mut().map(|image| Lane { rows: image.spec.rows(), sessions: image.sessions.list(0) }).collect();
        Ok(self.transformer.forward(&rows, &mut lanes)?)
    }

    /// Classifier-free guidance over one image's rows: `[1 or 2, out_channels, h, w]` to
    /// `[1, channels, h, w]`.
    fn guide(&self, prediction: &Tensor, scale: f64) -> Result<Tensor, RunnerError> {
        let prediction =
            if self.learns_variance { prediction.narrow(1, 0, self.latent_channels)? } else { prediction.clone() };
        if prediction.dim(0)? == 1 {
            return Ok(prediction);
        }
        let (cond, uncond) = (prediction.narrow(0, 0, 1)?, prediction.narrow(0, 1, 1)?);
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
        let pixels = self.vae.decode(&(latents * (1.0 / self.vae_config.scaling_factor))?)?;
        // [1, 3, height, width] in -1..1 -> [height, width, 3] in 0..255
        let pixels = ((pixels / 2.0)? + 0.5)?.clamp(0f32, 1f32)?.squeeze(0)?.permute([1, 2, 0])?;
        let (height, width, _) = pixels.dims3()?;
        let pixels = pixels.flatten_all()?.to_vec1::<f32>()?;
        // numpy, which diffusers rounds with, rounds halves to even.
        let data = pixels.into_iter().map(|value| (value * 255.0).round_ties_even() as u8).collect();
        Ok(RgbImage { size: Size { width, height }, data })
    }
}

impl ImageSpec {
    /// Rows in a forward: one, or cond and uncond under guidance.
    pub fn rows(&self) -> usize {
        Self::rows_under(self.guidance_scale)
    }

    /// Rows of an image in a forward under this guidance scale.
    pub(crate) fn rows_under(guidance_scale: f64) -> usize {
        if guidance_scale > 1.0 { 2 } else { 1 }
    }
}

impl RunningImage {
    /// `[1, channels, height, width]`, f32
    pub fn latents(&self) -> &Tensor {
        &self.latents
    }

    /// What the last step took for the clean latents; `None` before the first step.
    pub fn predicted_original(&self) -> Option<&Tensor> {
        self.scheduler.predicted_original()
    }

    /// Steps reused so far, as the first block list counts them.
    pub fn cached_steps(&self) -> usize {
        self.sessions.cached_steps()
    }

    /// What was observed for a calibration.
    pub fn calibration_steps(&self) -> &[CalibrationStep] {
        self.sessions.calibration_steps()
    }

    /// What the cache decided so far.
    pub fn report(&self) -> ImageReport {
        self.sessions.report()
    }
}

/// The model's calibration, if it has one.
fn read_calibration(folder: &ModelFolder) -> Result<Option<Calibration>, RunnerError> {
    if !folder.contains(CALIBRATION_FILE) {
        return Ok(None);
    }
    let parsed = serde_json::from_str(&folder.text(CALIBRATION_FILE)?);
    parsed.map(Some).map_err(|error| RunnerError::Model(format!("{}: {CALIBRATION_FILE}: {error}", folder.id())))
}

fn read_index(folder: &ModelFolder) -> Result<ModelIndex, RunnerError> {
    let fail = |problem: String| RunnerError::Model(format!("{}: model_index.json: {problem}", folder.id()));
    let index: ModelIndex = lenient_json::parse(&folder.text("model_index.json")?)
        .and_then(serde_json::from_value)
        .map_err(|error| fail(error.to_string()))?;
    if index.class_name != "DiTPipeline" {
        return Err(fail(format!("`_class_name` is {}; supported: DiTPipeline", index.class_name)));
    }
    match index.transformer.1.as_deref() {
        Some(class) if TRANSFORMER_CLASSES.contains(&class) => {}
        class => {
            let found = class.unwrap_or("absent");
            return Err(fail(format!("`transformer` is {found}; supported: {}", TRANSFORMER_CLASSES.join(", "))));
        }
    }
    Ok(index)
}

/// Checks that the model can make these sizes; without any, its own.
fn buckets(asked: &[Size], config: &TransformerConfig, vae: &VaeConfig) -> Result<Vec<Size>, RunnerError> {
    if asked.is_empty() {
        let side = config.sample_size * vae.scale();
        return Ok(vec![Size { width: side, height: side }]);
    }
    let multiple = config.patch_size * vae.scale();
    let misfits = |size: &&Size| !size.width.is_multiple_of(multiple) || !size.height.is_multiple_of(multiple);
    if let Some(size) = asked.iter().find(misfits) {
        return Err(RunnerError::Model(format!(
            "bucket {size}: width and height must be multiples of {multiple} for this model"
        )));
    }
    Ok(asked.to_vec())
}

/// Height and width of a picture's latents.
fn latent_size(size: Size, scale: usize) -> (usize, usize) {
    (size.height / scale, size.width / scale)
}
