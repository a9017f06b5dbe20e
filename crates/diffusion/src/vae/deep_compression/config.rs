//! `vae/config.json` of an `AutoencoderDC`.
//!
//! Follows diffusers 0.42.1, `AutoencoderDC.__init__` (lines 437-520) and `Decoder.__init__` (lines 283-355):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_dc.py#L283>

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;

use crate::dimension::{MAX_LATENT_CHANNELS, check_dimensions, check_positive, check_size};
use crate::ops::activation::Activation;
use crate::vae::config::{MAX_STAGES, PATH};

/// Longest side of a kernel of keys and queries.
const MAX_KERNEL: usize = 31;

/// The keys the decoder depends on; absent ones take diffusers' defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct DeepCompressionConfig {
    /// Of pictures, out as well as in.
    in_channels: usize,
    pub(super) latent_channels: usize,
    pub(super) attention_head_dim: usize,
    decoder_block_types: OneOrMany,
    /// There are as many stages in both halves.
    encoder_block_out_channels: Vec<usize>,
    /// From full resolution down.
    decoder_block_out_channels: Vec<usize>,
    decoder_layers_per_block: Vec<usize>,
    /// Sides of the kernels that keys, queries and values are taken with, beside the pixels themselves.
    decoder_qkv_multiscales: Vec<Vec<usize>>,
    upsample_block_type: String,
    decoder_norm_types: OneOrMany,
    decoder_act_fns: OneOrMany,
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) decoder_in_shortcut: bool,
    decoder_conv_act_fn: String,
    /// Latents are divided by this before decoding.
    pub(super) scaling_factor: f64,
}

/// A word for all stages, or one for each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A stage of the decoder: blocks of one kind, behind a doubling in all but the coarsest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stage {
    /// Its place in the names of parameters.
    pub(super) level: usize,
    /// Channels of the coarser stage, which is doubled.
    pub(super) doubled_from: Option<usize>,
    pub(super) channels: usize,
    pub(super) layers: usize,
    pub(super) kind: BlockKind,
}

/// What blocks a stage has.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum BlockKind {
    /// Residual blocks with this activation.
    Residual(Activation),
    /// Attention at these scales beside the pixels' own, and a gated convolution.
    Vision(Vec<usize>),
}

impl OneOrMany {
    fn one(word: &str) -> Self {
        Self::One(word.to_owned())
    }

    /// The word of each of so many stages.
    fn of_stages(&self, key: &str, stages: usize) -> Result<Vec<&str>, CheckpointError> {
        match self {
            Self::One(word) => Ok(vec![word; stages]),
            Self::Many(words) if words.len() == stages => Ok(words.iter().map(String::as_str).collect()),
            Self::Many(words) => Err(wrong_length(key, words.len(), stages)),
        }
    }
}

impl Default for DeepCompressionConfig {
    fn default() -> Self {
        let channels = vec![128, 256, 512, 512, 1024, 1024];
        Self {
            in_channels: 3,
            latent_channels: 32,
            attention_head_dim: 32,
            decoder_block_types: OneOrMany::one("ResBlock"),
            encoder_block_out_channels: channels.clone(),
            decoder_block_out_channels: channels,
            decoder_layers_per_block: vec![3; 6],
            decoder_qkv_multiscales: vec![vec![], vec![], vec![], vec![5], vec![5], vec![5]],
            upsample_block_type: "pixel_shuffle".to_owned(),
            decoder_norm_types: OneOrMany::one("rms_norm"),
            decoder_act_fns: OneOrMany::one("silu"),
            decoder_in_shortcut: true,
            decoder_conv_act_fn: "relu".to_owned(),
            scaling_factor: 1.0,
        }
    }
}

impl DeepCompressionConfig {
    pub(super) fn from_json(text: &str) -> Result<Self, CheckpointError> {
        let config: Self = component_config::parse(PATH, text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), CheckpointError> {
        if self.in_channels != 3 {
            return Err(unsupported("in_channels", &self.in_channels.to_string(), "3 (RGB)"));
        }
        check_size(PATH, "latent_channels", self.latent_channels, MAX_LATENT_CHANNELS)?;
        check_positive(PATH, &[("scaling_factor", self.scaling_factor)])?;
        self.check_stages()?;
        for norm in self.decoder_norm_types.of_stages("decoder_norm_types", self.levels())? {
            if norm != "rms_norm" {
                return Err(unsupported("decoder_norm_types", norm, "rms_norm"));
            }
        }
        self.output_activation()?;
        for stage in self.stages()? {
            self.check_stage(&stage)?;
        }
        if self.decoder_in_shortcut {
            check_multiple(self.coarsest(), self.latent_channels, "latent_channels")?;
        }
        Ok(())
    }

    fn check_stages(&self) -> Result<(), CheckpointError> {
        let stages = self.levels();
        if !(2..=MAX_STAGES).contains(&stages) {
            let right = format!("2 to {MAX_STAGES} numbers");
            return Err(unsupported("decoder_block_out_channels", &format!("a list of {stages}"), &right));
        }
        for (key, length) in [
            ("encoder_block_out_channels", self.encoder_block_out_channels.len()),
            ("decoder_layers_per_block", self.decoder_layers_per_block.len()),
            ("decoder_qkv_multiscales", self.decoder_qkv_multiscales.len()),
        ] {
            if length != stages {
                return Err(wrong_length(key, length, stages));
            }
        }
        for channels in &self.decoder_block_out_channels {
            check_dimensions(PATH, &[("decoder_block_out_channels", *channels)])?;
        }
        // Only the finest stage may be without blocks: the picture is doubled all the same.
        for layers in &self.decoder_layers_per_block[1..] {
            check_dimensions(PATH, &[("decoder_layers_per_block", *layers)])?;
        }
        Ok(())
    }

    fn check_stage(&self, stage: &Stage) -> Result<(), CheckpointError> {
        if let Some(coarser) = stage.doubled_from {
            check_multiple(4 * stage.channels, coarser, "those of the next stage, divided by 4")?;
        }
        if let BlockKind::Vision(kernels) = &stage.kind {
            check_dimensions(PATH, &[("attention_head_dim", self.attention_head_dim)])?;
            if stage.channels < self.attention_head_dim {
                let right = format!("at most the {} channels of a stage that attends", stage.channels);
                return Err(unsupported("attention_head_dim", &self.attention_head_dim.to_string(), &right));
            }
            if let Some(side) = kernels.iter().find(|side| side.is_multiple_of(2) || **side > MAX_KERNEL) {
                let right = format!("odd numbers up to {MAX_KERNEL}");
                return Err(unsupported("decoder_qkv_multiscales", &side.to_string(), &right));
            }
        }
        Ok(())
    }

    /// Channels of the last two stages, the finest first; there are at least two.
    pub(super) fn finest_two(&self) -> (usize, usize) {
        (self.decoder_block_out_channels[0], self.decoder_block_out_channels[1])
    }

    /// Those with blocks, from the coarsest on.
    pub(super) fn stages(&self) -> Result<Vec<Stage>, CheckpointError> {
        let levels = self.levels();
        let types = self.decoder_block_types.of_stages("decoder_block_types", levels)?;
        let activations = self.decoder_act_fns.of_stages("decoder_act_fns", levels)?;
        let with_blocks = (0..levels).rev().filter(|level| self.decoder_layers_per_block[*level] > 0);
        let stage = |level: usize| {
            let kind = match types[level] {
                "ResBlock" => BlockKind::Residual(activation("decoder_act_fns", activations[level])?),
                "EfficientViTBlock" => BlockKind::Vision(self.decoder_qkv_multiscales[level].clone()),
                other => return Err(unsupported("decoder_block_types", other, "ResBlock or EfficientViTBlock")),
            };
            Ok(Stage {
                level,
                doubled_from: self.decoder_block_out_channels.get(level + 1).copied(),
                channels: self.decoder_block_out_channels[level],
                layers: self.decoder_layers_per_block[level],
                kind,
            })
        };
        with_blocks.map(stage).collect()
    }

    fn levels(&self) -> usize {
        self.decoder_block_out_channels.len()
    }

    /// Channels at the latents' resolution.
    pub(super) fn coarsest(&self) -> usize {
        self.decoder_block_out_channels[self.levels() - 1]
    }

    /// Channels before the last convolution.
    pub(super) fn finest(&self) -> usize {
        self.decoder_block_out_channels[usize::from(self.doubles_at_end())]
    }

    /// The last convolution is a doubling.
    pub(super) fn doubles_at_end(&self) -> bool {
        self.decoder_layers_per_block[0] == 0
    }

    /// Pixels are doubled and convolved, not convolved to four each.
    pub(super) fn interpolates(&self) -> bool {
        self.upsample_block_type == "interpolate"
    }

    pub(super) fn output_activation(&self) -> Result<Activation, CheckpointError> {
        activation("decoder_conv_act_fn", &self.decoder_conv_act_fn)
    }

    /// Channels of pictures.
    pub(super) fn picture_channels(&self) -> usize {
        self.in_channels
    }

    /// Pixels per latent in each direction.
    pub(super) fn scale(&self) -> usize {
        1 << (self.levels() - 1)
    }
}

fn activation(key: &str, name: &str) -> Result<Activation, CheckpointError> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "relu" => Ok(Activation::Relu),
        "gelu" => Ok(Activation::Gelu),
        other => Err(unsupported(key, other, "silu, relu or gelu")),
    }
}

fn check_multiple(channels: usize, of: usize, what: &str) -> Result<(), CheckpointError> {
    if channels.is_multiple_of(of) {
        return Ok(());
    }
    let right = format!("a multiple of {what}");
    Err(unsupported("decoder_block_out_channels", &channels.to_string(), &right))
}

fn wrong_length(key: &str, found: usize, stages: usize) -> CheckpointError {
    let right = format!("one entry for each of the {stages} of decoder_block_out_channels");
    unsupported(key, &format!("a list of {found}"), &right)
}

fn unsupported(key: &str, found: &str, right: &str) -> CheckpointError {
    component_config::unsupported(PATH, key, found, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_configuration_is_read() {
        let text = r#"{"_class_name": "AutoencoderDC", "decoder_block_types": ["ResBlock", "ResBlock", "ResBlock",
            "EfficientViTBlock", "EfficientViTBlock", "EfficientViTBlock"], "downsample_block_type": "Conv",
            "encoder_block_types": "ResBlock", "scaling_factor": 0.41407, "upsample_block_type": "interpolate"}"#;
        let config = DeepCompressionConfig::from_json(text).unwrap();
        assert_eq!((config.scale(), config.latent_channels, config.interpolates()), (32, 32, true));
        let stages = config.stages().unwrap();
        let [coarsest, .., finest] = &stages[..] else { panic!("{stages:?}") };
        assert_eq!((coarsest.doubled_from, coarsest.channels, coarsest.layers), (None, 1024, 3));
        assert_eq!(coarsest.kind, BlockKind::Vision(vec![5]));
        assert_eq!((finest.doubled_from, &finest.kind), (Some(256), &BlockKind::Residual(Activation::Silu)));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (keys, key) in [
            (r#""in_channels": 4"#, "in_channels"),
            (r#""decoder_block_types": "Transformer""#, "decoder_block_types"),
            (r#""decoder_block_types": ["ResBlock"]"#, "decoder_block_types"),
            (r#""decoder_norm_types": "batch_norm""#, "decoder_norm_types"),
            (r#""decoder_act_fns": "mish""#, "decoder_act_fns"),
            (r#""decoder_conv_act_fn": "tanh""#, "decoder_conv_act_fn"),
            (r#""decoder_block_out_channels": [8]"#, "decoder_block_out_channels"),
            (r#""decoder_block_out_channels": [128, 256, 512, 512, 1024, 1000]"#, "decoder_block_out_channels"),
            (r#""encoder_block_out_channels": [128, 256]"#, "encoder_block_out_channels"),
            (r#""decoder_layers_per_block": [3, 0, 3, 3, 3, 3]"#, "decoder_layers_per_block"),
            (r#""decoder_qkv_multiscales": [[]]"#, "decoder_qkv_multiscales"),
            (r#""decoder_block_types": "EfficientViTBlock", "attention_head_dim": 200"#, "attention_head_dim"),
            (
                r#""decoder_block_types": "EfficientViTBlock", "decoder_qkv_multiscales": [[4], [], [], [], [], []]"#,
                "decoder_qkv_multiscales",
            ),
            (r#""scaling_factor": 0"#, "scaling_factor"),
        ] {
            let message = DeepCompressionConfig::from_json(&format!("{{{keys}}}")).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }
}
