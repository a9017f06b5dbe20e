//! Configuration and tensors of diffusers' `AutoencoderKL`, encoder and decoder.

use serde_json::{Value, json};

use super::recipe::DIFFUSERS_VERSION;
use super::tensors::TensorList;

const IMAGE_CHANNELS: usize = 3;

pub(super) struct VaeConfig {
    /// Channels per level, from full resolution down.
    channels: Vec<usize>,
    layers_per_block: usize,
    latent_channels: usize,
    norm_groups: usize,
    sample_size: usize,
    scaling_factor: f64,
    /// Added to latents before the decoder.
    shift_factor: Option<f64>,
    /// 1x1 convolutions next to the latents.
    has_quant_convs: bool,
    force_upcast: bool,
}

impl VaeConfig {
    /// `stabilityai/sd-vae-ft-ema` and `-mse`, which the published DiT models use.
    pub(super) fn sd_vae_ft() -> Self {
        Self {
            channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 4,
            norm_groups: 32,
            sample_size: 256,
            scaling_factor: 0.18215,
            shift_factor: None,
            has_quant_convs: true,
            force_upcast: false,
        }
    }

    /// That of SDXL, which PixArt-Sigma uses.
    pub(super) fn sdxl() -> Self {
        Self { sample_size: 1024, scaling_factor: 0.13025, force_upcast: true, ..Self::sd_vae_ft() }
    }

    /// That of Stable Diffusion 3.
    pub(super) fn sd3() -> Self {
        Self {
            latent_channels: 16,
            scaling_factor: 1.5305,
            shift_factor: Some(0.0609),
            has_quant_convs: false,
            ..Self::sdxl()
        }
    }

    /// That of FLUX.1.
    pub(super) fn flux() -> Self {
        Self { scaling_factor: 0.3611, shift_factor: Some(0.1159), ..Self::sd3() }
    }

    pub(super) fn tiny() -> Self {
        Self { channels: vec![8, 16], layers_per_block: 1, norm_groups: 4, sample_size: 16, ..Self::sd_vae_ft() }
    }

    /// As many latent channels and levels as Stable Diffusion 3 and FLUX.1 have.
    #[cfg(test)]
    pub(super) fn tiny_with_16_channels() -> Self {
        Self { channels: vec![8, 8, 16, 16], layers_per_block: 1, norm_groups: 4, sample_size: 16, ..Self::flux() }
    }

    pub(super) fn parts(&self) -> (Value, TensorList) {
        (self.to_json(), self.tensors())
    }

    fn to_json(&self) -> Value {
        let levels = self.channels.len();
        json!({
            "_class_name": "AutoencoderKL",
            "_diffusers_version": DIFFUSERS_VERSION,
            "act_fn": "silu",
            "block_out_channels": self.channels,
            "down_block_types": vec!["DownEncoderBlock2D"; levels],
            "force_upcast": self.force_upcast,
            "in_channels": IMAGE_CHANNELS,
            "latent_channels": self.latent_channels,
            "layers_per_block": self.layers_per_block,
            "norm_num_groups": self.norm_groups,
            "out_channels": IMAGE_CHANNELS,
            "sample_size": self.sample_size,
            "scaling_factor": self.scaling_factor,
            "shift_factor": self.shift_factor,
            "up_block_types": vec!["UpDecoderBlock2D"; levels],
            "use_post_quant_conv": self.has_quant_convs,
            "use_quant_conv": self.has_quant_convs,
        })
    }

    pub(super) fn tensors(&self) -> TensorList {
        let mut list = TensorList::default();
        self.push_encoder(&mut list);
        self.push_decoder(&mut list);
        // The encoder gives mean and logarithm of the variance.
        let moments = 2 * self.latent_channels;
        if self.has_quant_convs {
            list.conv("quant_conv", moments, moments, 1);
            list.conv("post_quant_conv", self.latent_channels, self.latent_channels, 1);
        }
        list
    }

    fn push_encoder(&self, list: &mut TensorList) {
        let (first, last) = self.outer_channels();
        list.conv("encoder.conv_in", IMAGE_CHANNELS, first, 3);
        let mut inputs = first;
        for (level, &outputs) in self.channels.iter().enumerate() {
            let block = format!("encoder.down_blocks.{level}");
            push_resnets(list, &block, inputs, outputs, self.layers_per_block);
            if level + 1 < self.channels.len() {
                list.conv(&format!("{block}.downsamplers.0.conv"), outputs, outputs, 3);
            }
            inputs = outputs;
        }
        push_mid_block(list, "encoder.mid_block", last);
        list.norm("encoder.conv_norm_out", last);
        list.conv("encoder.conv_out", last, 2 * self.latent_channels, 3);
    }

    fn push_decoder(&self, list: &mut TensorList) {
        let (first, last) = self.outer_channels();
        list.conv("decoder.conv_in", self.latent_channels, last, 3);
        push_mid_block(list, "decoder.mid_block", last);
        let mut inputs = last;
        for (level, &outputs) in self.channels.iter().rev().enumerate() {
            let block = format!("decoder.up_blocks.{level}");
            push_resnets(list, &block, inputs, outputs, self.layers_per_block + 1);
            if level + 1 < self.channels.len() {
                list.conv(&format!("{block}.upsamplers.0.conv"), outputs, outputs, 3);
            }
            inputs = outputs;
        }
        list.norm("decoder.conv_norm_out", first);
        list.conv("decoder.conv_out", first, IMAGE_CHANNELS, 3);
    }

    /// Channels at full and at latent resolution.
    fn outer_channels(&self) -> (usize, usize) {
        let first = self.channels.first().copied().unwrap_or(0);
        (first, self.channels.last().copied().unwrap_or(first))
    }
}

fn push_resnets(list: &mut TensorList, block: &str, inputs: usize, outputs: usize, count: usize) {
    for layer in 0..count {
        let inputs = if layer == 0 { inputs } else { outputs };
        push_resnet(list, &format!("{block}.resnets.{layer}"), inputs, outputs);
    }
}

fn push_resnet(list: &mut TensorList, resnet: &str, inputs: usize, outputs: usize) {
    list.norm(&format!("{resnet}.norm1"), inputs);
    list.conv(&format!("{resnet}.conv1"), inputs, outputs, 3);
    list.norm(&format!("{resnet}.norm2"), outputs);
    list.conv(&format!("{resnet}.conv2"), outputs, outputs, 3);
    if inputs != outputs {
        list.conv(&format!("{resnet}.conv_shortcut"), inputs, outputs, 1);
    }
}

fn push_mid_block(list: &mut TensorList, block: &str, channels: usize) {
    let attention = format!("{block}.attentions.0");
    list.norm(&format!("{attention}.group_norm"), channels);
    for projection in ["to_q", "to_k", "to_v", "to_out.0"] {
        list.linear(&format!("{attention}.{projection}"), channels, channels);
    }
    for layer in 0..2 {
        push_resnet(list, &format!("{block}.resnets.{layer}"), channels, channels);
    }
}
