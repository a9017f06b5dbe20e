//! Configurations of diffusers' `AutoencoderDC`, and the tensors of its encoder, which no model here reads.

use serde_json::{Value, json};

use super::recipe::{Component, DIFFUSERS_VERSION, Storage};

const IMAGE_CHANNELS: usize = 3;
/// Side of the kernels of queries, keys and values.
const SCALE: usize = 5;
/// Width of the gated convolution in units of its channels.
const GATED_FACTOR: usize = 4;

pub(super) struct DeepVaeConfig {
    /// Of every stage, from full resolution down.
    pub(super) channels: Vec<usize>,
    /// Stages from this on attend.
    pub(super) attends_from: usize,
    pub(super) encoder_layers: Vec<usize>,
    pub(super) decoder_layers: usize,
    pub(super) latent_channels: usize,
    pub(super) head_dim: usize,
}

impl DeepVaeConfig {
    /// `mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers`.
    pub(super) fn sana() -> Self {
        Self {
            channels: vec![128, 256, 512, 512, 1024, 1024],
            attends_from: 3,
            encoder_layers: vec![2, 2, 2, 3, 3, 3],
            decoder_layers: 3,
            latent_channels: 32,
            head_dim: 32,
        }
    }

    pub(super) fn component(&self) -> Component {
        let component = Component::new("vae", "AutoencoderDC", Storage::Diffusers, self.to_json());
        Component { unread: self.encoder().0, ..component }
    }

    fn to_json(&self) -> Value {
        let stages = || 0..self.channels.len();
        let attends = |stage: usize| stage >= self.attends_from;
        let types: Vec<_> =
            stages().map(|stage| if attends(stage) { "EfficientViTBlock" } else { "ResBlock" }).collect();
        let scales: Vec<Vec<_>> = stages().map(|stage| if attends(stage) { vec![SCALE] } else { vec![] }).collect();
        json!({
            "_class_name": "AutoencoderDC",
            "_diffusers_version": DIFFUSERS_VERSION,
            "attention_head_dim": self.head_dim,
            "decoder_act_fns": "silu",
            "decoder_block_out_channels": self.channels,
            "decoder_block_types": types,
            "decoder_layers_per_block": vec![self.decoder_layers; self.channels.len()],
            "decoder_norm_types": "rms_norm",
            "decoder_qkv_multiscales": scales,
            "downsample_block_type": "Conv",
            "encoder_block_out_channels": self.channels,
            "encoder_block_types": types,
            "encoder_layers_per_block": self.encoder_layers,
            "encoder_qkv_multiscales": scales,
            "in_channels": IMAGE_CHANNELS,
            "latent_channels": self.latent_channels,
            "scaling_factor": 0.41407,
            "upsample_block_type": "interpolate",
        })
    }

    /// The half that makes latents.
    fn encoder(&self) -> Tensors {
        let mut tensors = Tensors::default();
        tensors.conv("encoder.conv_in", [IMAGE_CHANNELS, self.channels[0], 3], true);
        for (stage, (channels, layers)) in self.channels.iter().zip(&self.encoder_layers).enumerate() {
            let block = |index: usize| format!("encoder.down_blocks.{stage}.{index}");
            for layer in 0..*layers {
                match stage >= self.attends_from {
                    true => tensors.vision_block(&block(layer), *channels, self.head_dim),
                    false => tensors.residual_block(&block(layer), *channels),
                }
            }
            if let Some(next) = self.channels.get(stage + 1) {
                tensors.conv(&format!("{}.conv", block(*layers)), [*channels, *next, 3], true);
            }
        }
        let coarsest = self.channels.last().copied().unwrap_or_default();
        tensors.conv("encoder.conv_out", [coarsest, self.latent_channels, 3], true);
        tensors
    }
}

/// Names and shapes.
#[derive(Default)]
struct Tensors(Vec<(String, Vec<usize>)>);

impl Tensors {
    /// From channels to channels by kernels of a side.
    fn conv(&mut self, name: &str, [inputs, outputs, side]: [usize; 3], has_bias: bool) {
        self.0.push((format!("{name}.weight"), vec![outputs, inputs, side, side]));
        if has_bias {
            self.0.push((format!("{name}.bias"), vec![outputs]));
        }
    }

    fn norm(&mut self, name: &str, channels: usize) {
        self.0.push((format!("{name}.bias"), vec![channels]));
        self.0.push((format!("{name}.weight"), vec![channels]));
    }

    fn residual_block(&mut self, name: &str, channels: usize) {
        self.conv(&format!("{name}.conv1"), [channels, channels, 3], true);
        self.conv(&format!("{name}.conv2"), [channels, channels, 3], false);
        self.norm(&format!("{name}.norm"), channels);
    }

    fn vision_block(&mut self, name: &str, channels: usize, head_dim: usize) {
        let (attention, gated, wide) = (format!("{name}.attn"), format!("{name}.conv_out"), GATED_FACTOR * channels);
        for projection in ["to_q", "to_k", "to_v"] {
            self.0.push((format!("{attention}.{projection}.weight"), vec![channels, channels]));
        }
        let multiscale = format!("{attention}.to_qkv_multiscale.0");
        self.conv(&format!("{multiscale}.proj_in"), [1, 3 * channels, SCALE], false);
        self.conv(&format!("{multiscale}.proj_out"), [head_dim, 3 * channels, 1], false);
        self.0.push((format!("{attention}.to_out.weight"), vec![channels, 2 * channels]));
        self.norm(&format!("{attention}.norm_out"), channels);
        self.conv(&format!("{gated}.conv_inverted"), [channels, 2 * wide, 1], true);
        self.conv(&format!("{gated}.conv_depth"), [1, 2 * wide, 3], true);
        self.conv(&format!("{gated}.conv_point"), [wide, channels, 1], false);
        self.norm(&format!("{gated}.norm"), channels);
    }
}
