//! Flags about the model.

use std::path::{Path, PathBuf};

use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{
    BucketChoice, DeviceSpec, GivenFile, LabelPolicy, LoadOptions, Offload, Precision, Quantization, Size, is_variant,
};

use super::cpu::CpuArgs;
use crate::error::ProgramError;
use crate::model_source::ModelSource;

/// Components whose files have flags of their own.
const TRANSFORMER: &str = "transformer";
const VAE: &str = "vae";

/// Precision of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Dtype {
    /// What suits the device: f32 on a CPU
    Auto,
    /// 32 bits
    F32,
    /// 16 bits with the range of f32
    Bf16,
    /// 16 bits, GPUs only
    F16,
}

/// What the matrices of the transformer's blocks are made when they are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum QuantizeArg {
    /// Nothing: they stay as they are stored
    None,
    /// Integers of 8 bits, as are activations where they meet them; CPUs only
    Int8,
}

/// What leaves the memory while it is not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OffloadArg {
    /// Nothing
    None,
    /// Text encoders: loaded for a prompt that is not in the prompt cache, and freed afterwards
    TextEncoders,
}

/// Which model, and how it is loaded.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Model")]
pub(super) struct ModelArgs {
    /// Folder in diffusers layout, a Hugging Face hub id such as `facebook/DiT-XL-2-256`, or a file that holds a whole model,
    /// such as `flux1-schnell-fp8.safetensors` [default: the small model inside this program]
    #[arg(long, env = "AFTERIMAGE_MODEL", hide_env_values = true, value_name = "FOLDER|ID|FILE")]
    model: Option<String>,
    /// Where the rest of a --model that is a file comes from: configurations, tokenizers, and parts that the file lacks
    /// [default: the folder of the file if that is a model folder, or the hub repository of the family]
    #[arg(long, env = "AFTERIMAGE_CONFIG_FROM", hide_env_values = true, value_name = "FOLDER|ID")]
    config_from: Option<String>,
    /// Branch, tag or commit of a hub model; needs --model
    #[arg(long, env = "AFTERIMAGE_REVISION", hide_env_values = true)]
    revision: Option<String>,
    /// Which weights are read of a component that has several, such as `fp16`:
    /// `diffusion_pytorch_model.fp16.safetensors`. Components without them are read as they are; needs --model
    #[arg(long, env = "AFTERIMAGE_VARIANT", hide_env_values = true, value_name = "NAME")]
    variant: Option<String>,
    /// The transformer's weights: a GGUF file, or a single-file checkpoint in safetensors, such as
    /// `flux1-dev-Q4_K_S.gguf`. Everything else comes from --model
    #[arg(long, env = "AFTERIMAGE_TRANSFORMER", hide_env_values = true, value_name = "FILE")]
    transformer: Option<PathBuf>,
    /// A text encoder's weights: a GGUF file under llama.cpp's names, or safetensors, such as `Qwen3-4B-Q4_K_M.gguf`; of a
    /// model with several, `text_encoder_2=t5-v1_1-xxl-encoder-Q8_0.gguf`
    #[arg(
        long,
        env = "AFTERIMAGE_TEXT_ENCODER",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "[COMPONENT=]FILE"
    )]
    text_encoder: Vec<String>,
    /// The VAE's weights: a safetensors file under the names of diffusers or of the model's makers, such as `ae.safetensors`
    #[arg(long, env = "AFTERIMAGE_VAE", hide_env_values = true, value_name = "FILE")]
    vae: Option<PathBuf>,
    /// Precision of activations, and of weights that are not kept narrower, as quantised ones and fp8 are
    #[arg(long, env = "AFTERIMAGE_DTYPE", hide_env_values = true, value_enum, default_value = "auto")]
    dtype: Dtype,
    /// What the matrices of the transformer's blocks are made when they are loaded, for speed on a CPU with VNNI
    #[arg(long, env = "AFTERIMAGE_QUANTIZE", hide_env_values = true, value_enum, default_value = "none")]
    quantize: QuantizeArg,
    /// Image sizes served, the default first, such as `64x64,96x64`; `512`, `768` and `1024` stand for the common
    /// aspect ratios with about that side squared pixels [default: the model's own size]
    #[arg(long, env = "AFTERIMAGE_BUCKETS", hide_env_values = true, value_delimiter = ',', value_name = "WxH|SET,...")]
    buckets: Vec<BucketChoice>,
    /// What is removed from memory while it is not needed
    #[arg(long, env = "AFTERIMAGE_OFFLOAD", hide_env_values = true, value_enum, default_value = "none")]
    offload: OffloadArg,
    /// Where text encoders compute, such as `cpu` beside a transformer on a GPU [default: where the transformer
    /// does]
    #[arg(long, env = "AFTERIMAGE_TEXT_ENCODER_DEVICE", hide_env_values = true, value_name = "DEVICE")]
    text_encoder_device: Option<DeviceSpec>,
    /// Tokens of a prompt that the last text encoder reads, 1 to 512, of Qwen-Image to 1024; longer prompts are cut
    /// [default: as in the model's pipeline]
    #[arg(long, env = "AFTERIMAGE_MAX_SEQUENCE_LENGTH", hide_env_values = true, value_name = "TOKENS")]
    max_sequence_length: Option<usize>,
    /// Noise scheduler of requests that name none, by its diffusers class name; also for a model whose own is not
    /// supported [default: the model's]
    #[arg(long, env = "AFTERIMAGE_SCHEDULER", hide_env_values = true, value_name = "CLASS")]
    scheduler: Option<SchedulerKind>,
    #[command(flatten)]
    cpu: CpuArgs,
}

/// What a prompt that is no label is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LabelPolicyArg {
    /// Refused with an error
    Exact,
    /// The label that has most in common with it is drawn, and the response names it
    Nearest,
}

/// How prompts become labels.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Model")]
pub(super) struct LabelArg {
    /// What happens to a prompt that is not one of the labels of a class-conditional model [default: nearest for the
    /// model inside this program, exact for others]
    #[arg(long, env = "AFTERIMAGE_LABEL_POLICY", hide_env_values = true, value_enum)]
    label_policy: Option<LabelPolicyArg>,
}

/// The one device of a command that serves nobody.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Model")]
pub(super) struct DeviceArg {
    /// Where pictures are made: `cpu`, or `cuda:N` in a build with the feature `cuda`
    #[arg(long, env = "AFTERIMAGE_DEVICE", hide_env_values = true, default_value = "cpu")]
    pub(super) device: DeviceSpec,
}

impl ModelArgs {
    /// What can be said before anything is loaded.
    fn check(&self) -> Result<(), ProgramError> {
        let needing_model = [
            ("revision", self.revision.is_some(), "name the hub model that it is a revision of"),
            ("config-from", self.config_from.is_some(), "name the file that holds the model"),
            ("transformer", self.transformer.is_some(), "name the model that has all but the transformer"),
            ("text-encoder", !self.text_encoder.is_empty(), "name the model that has all but the text encoder"),
            ("vae", self.vae.is_some(), "name the model that has all but the VAE"),
            ("variant", self.variant.is_some(), "name the model whose weights have this variant"),
        ];
        if self.model.is_none()
            && let Some((flag, _, what)) = needing_model.into_iter().find(|(_, is_given, _)| *is_given)
        {
            return Err(ProgramError::setting(flag, format!("it has no effect without --model; {what}")));
        }
        match &self.variant {
            Some(variant) if !is_variant(variant) => {
                let message = format!("`{variant}` cannot be part of a file name; right is a name such as `fp16`");
                Err(ProgramError::setting("variant", message))
            }
            _ => Ok(()),
        }
    }

    /// Whether requests that name no scheduler get one that these flags name.
    pub(super) fn chooses_scheduler(&self) -> bool {
        self.scheduler.is_some()
    }

    /// The model's folder, if it is named by its folder.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.model.as_deref().map(Path::new).filter(|path| path.is_dir())
    }

    /// The sizes asked for; none for the model's own.
    pub(super) fn buckets(&self) -> Vec<Size> {
        BucketChoice::sizes(&self.buckets)
    }

    /// Where the model comes from and how it is loaded, if these flags go together. The CPU is used as they say from then on.
    pub(super) fn source(&self, labels: Option<&LabelArg>) -> Result<ModelSource, ProgramError> {
        self.check()?;
        self.cpu.apply()?;
        Ok(ModelSource {
            model: self.model.clone(),
            revision: self.revision.clone(),
            variant: self.variant.clone(),
            files: self.files(),
            config_from: self.config_from.clone(),
            options: self.options(labels),
        })
    }

    /// Those that hold weights of components.
    fn files(&self) -> Vec<GivenFile> {
        let transformer = self.transformer.iter().map(|path| GivenFile::new(TRANSFORMER, path));
        let text_encoders = self.text_encoder.iter().map(|given| GivenFile::text_encoder(given));
        transformer.chain(text_encoders).chain(self.vae.iter().map(|path| GivenFile::new(VAE, path))).collect()
    }

    fn options(&self, labels: Option<&LabelArg>) -> LoadOptions {
        LoadOptions {
            precision: self.dtype.into(),
            quantization: self.quantize.into(),
            buckets: self.buckets.clone(),
            offload: self.offload.into(),
            text_encoder_device: self.text_encoder_device,
            max_sequence_length: self.max_sequence_length,
            scheduler: self.scheduler,
            label_policy: labels.and_then(|labels| labels.label_policy).map(LabelPolicy::from),
            ..LoadOptions::default()
        }
    }
}

impl From<LabelPolicyArg> for LabelPolicy {
    fn from(policy: LabelPolicyArg) -> Self {
        match policy {
            LabelPolicyArg::Exact => Self::Exact,
            LabelPolicyArg::Nearest => Self::Nearest,
        }
    }
}

impl From<OffloadArg> for Offload {
    fn from(offload: OffloadArg) -> Self {
        match offload {
            OffloadArg::None => Self::None,
            OffloadArg::TextEncoders => Self::TextEncoders,
        }
    }
}

impl From<QuantizeArg> for Quantization {
    fn from(quantize: QuantizeArg) -> Self {
        match quantize {
            QuantizeArg::None => Self::None,
            QuantizeArg::Int8 => Self::Int8,
        }
    }
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Auto => Self::Auto,
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
        }
    }
}
