//! Configurations of diffusers' `AutoencoderKLQwenImage`, and the tensors of its encoder, which no model here reads.

use serde_json::{Value, json};

use super::recipe::{Component, DIFFUSERS_VERSION, Storage};

const IMAGE_CHANNELS: usize = 3;

pub(super) struct CausalVaeConfig {
    /// Channels at full resolution.
    pub(super) channels: usize,
    /// Those of every stage, from full resolution down, relative to that.
    pub(super) factors: Vec<usize>,
    /// Whether frames are halved behind a stage.
    pub(super) halves_frames: Vec<bool>,
    pub(super) layers_per_stage: usize,
    pub(super) latent_channels: usize,
}

impl CausalVaeConfig {
    /// That of `Qwen/Qwen-Image`.
    pub(super) fn qwen_image() -> Self {
        Self {
            channels: 96,
            factors: vec![1, 2, 4, 4],
            halves_frames: vec![false, true, true],
            layers_per_stage: 2,
            latent_channels: 16,
        }
    }

    pub(super) fn component(&self) -> Component {
        let component = Component::new("vae", "AutoencoderKLQwenImage", Storage::Diffusers, self.to_json());
        Component { unread: self.encoder().0, ..component }
    }

    /// Latents have mean 0 and deviation 1, as random weights make them.
    fn to_json(&self) -> Value {
        json!({
            "_class_name": "AutoencoderKLQwenImage",
            "_diffusers_version": DIFFUSERS_VERSION,
            "attn_scales": [],
            "base_dim": self.channels,
            "dim_mult": self.factors,
            "dropout": 0.0,
            "latents_mean": vec![0.0; self.latent_channels],
            "latents_std": vec![1.0; self.latent_channels],
            "num_res_blocks": self.layers_per_stage,
            "temperal_downsample": self.halves_frames,
            "z_dim": self.latent_channels,
        })
    }

    /// The half that makes latents.
    fn encoder(&self) -> Tensors {
        let mut tensors = Tensors::default();
        let mut inputs = self.channels;
        tensors.conv("encoder.conv_in", IMAGE_CHANNELS, inputs, &[3, 3, 3]);
        let mut blocks = (0..).map(|index| format!("encoder.down_blocks.{index}"));
        let mut next = || blocks.next().unwrap_or_default();
        for (stage, factor) in self.factors.iter().enumerate() {
            let outputs = factor * self.channels;
            for _ in 0..self.layers_per_stage {
                tensors.resnet(&next(), inputs, outputs);
                inputs = outputs;
            }
            let Some(halves_frames) = self.halves_frames.get(stage) else { continue };
            let block = next();
            tensors.conv(&format!("{block}.resample.1"), outputs, outputs, &[3, 3]);
            if *halves_frames {
                tensors.conv(&format!("{block}.time_conv"), outputs, outputs, &[3, 1, 1]);
            }
        }
        let moments = 2 * self.latent_channels;
        for layer in 0..2 {
            tensors.resnet(&format!("encoder.mid_block.resnets.{layer}"), inputs, inputs);
        }
        let attention = "encoder.mid_block.attentions.0";
        tensors.0.push((format!("{attention}.norm.gamma"), vec![inputs, 1, 1]));
        tensors.conv(&format!("{attention}.to_qkv"), inputs, 3 * inputs, &[1, 1]);
        tensors.conv(&format!("{attention}.proj"), inputs, inputs, &[1, 1]);
        tensors.norm("encoder.norm_out", inputs);
        tensors.conv("encoder.conv_out", inputs, moments, &[3, 3, 3]);
        tensors.conv("quant_conv", moments, moments, &[1, 1, 1]);
        tensors
    }
}

/// Names and shapes.
#[derive(Default)]
struct Tensors(Vec<(String, Vec<usize>)>);

impl Tensors {
    fn conv(&mut self, name: &str, inputs: usize, outputs: usize, kernel: &[usize]) {
        self.0.push((format!("{name}.bias"), vec![outputs]));
        self.0.push((format!("{name}.weight"), [&[outputs, inputs], kernel].concat()));
    }

    fn norm(&mut self, name: &str, channels: usize) {
        self.0.push((format!("{name}.gamma"), vec![channels, 1, 1, 1]));
    }

    fn resnet(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.norm(&format!("{name}.norm1"), inputs);
        self.conv(&format!("{name}.conv1"), inputs, outputs, &[3, 3, 3]);
        self.norm(&format!("{name}.norm2"), outputs);
        self.conv(&format!("{name}.conv2"), outputs, outputs, &[3, 3, 3]);
        if inputs != outputs {
            self.conv(&format!("{name}.conv_shortcut"), inputs, outputs, &[1, 1, 1]);
        }
    }
}
