//! Configurations of diffusers' `AutoencoderKL` and `AutoencoderKLFlux2`, and the tensors of its encoder, which no model here reads.

use serde_json::{Value, json};

use super::recipe::{Component, DIFFUSERS_VERSION, Storage};

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
    /// Squares of latents are normalised, as `AutoencoderKLFlux2` does it; there is no factor then.
    is_normed: bool,
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
            is_normed: false,
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

    /// That of FLUX.2.
    pub(super) fn flux2() -> Self {
        Self { latent_channels: 32, is_normed: true, ..Self::sdxl() }
    }

    pub(super) fn tiny() -> Self {
        Self { channels: vec![8, 16], layers_per_block: 1, norm_groups: 4, sample_size: 16, ..Self::sd_vae_ft() }
    }

    /// As many levels as the published ones have.
    #[cfg(test)]
    pub(super) fn tiny_of_four_levels() -> Self {
        Self { channels: vec![8, 8, 16, 16], ..Self::tiny() }
    }

    /// As many latent channels and levels as Stable Diffusion 3 and FLUX.1 have.
    #[cfg(test)]
    pub(super) fn tiny_with_16_channels() -> Self {
        Self { channels: vec![8, 8, 16, 16], layers_per_block: 1, norm_groups: 4, sample_size: 16, ..Self::flux() }
    }

    /// As many latent channels and levels as FLUX.2 has.
    #[cfg(test)]
    pub(super) fn tiny_flux2() -> Self {
        Self { channels: vec![8, 8, 16, 16], layers_per_block: 1, norm_groups: 4, sample_size: 16, ..Self::flux2() }
    }

    fn class(&self) -> &'static str {
        if self.is_normed { "AutoencoderKLFlux2" } else { "AutoencoderKL" }
    }

    pub(super) fn component(&self) -> Component {
        let component = Component::new("vae", self.class(), Storage::Diffusers, self.to_json());
        let mut unread = self.encoder();
        if self.is_normed {
            unread.0.push(("bn.num_batches_tracked".to_owned(), Vec::new()));
        }
        Component { unread: unread.0, ..component }
    }

    fn to_json(&self) -> Value {
        let levels = self.channels.len();
        let mut config = json!({
            "_class_name": self.class(),
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
        });
        if let (true, Some(keys)) = (self.is_normed, config.as_object_mut()) {
            keys.retain(|key, _| !matches!(key.as_str(), "scaling_factor" | "shift_factor"));
            keys.insert("batch_norm_eps".to_owned(), json!(1e-4));
            keys.insert("patch_size".to_owned(), json!([2, 2]));
        }
        config
    }

    /// The half that makes latents.
    fn encoder(&self) -> Tensors {
        let (first, last) = self.outer_channels();
        // Mean and logarithm of the variance.
        let moments = 2 * self.latent_channels;
        let mut tensors = Tensors::default();
        tensors.conv("encoder.conv_in", IMAGE_CHANNELS, first, 3);
        let mut inputs = first;
        for (level, &outputs) in self.channels.iter().enumerate() {
            let block = format!("encoder.down_blocks.{level}");
            for layer in 0..self.layers_per_block {
                tensors.resnet(&format!("{block}.resnets.{layer}"), inputs, outputs);
                inputs = outputs;
            }
            if level + 1 < self.channels.len() {
                tensors.conv(&format!("{block}.downsamplers.0.conv"), outputs, outputs, 3);
            }
        }
        tensors.norm("encoder.mid_block.attentions.0.group_norm", last);
        for projection in ["to_q", "to_k", "to_v", "to_out.0"] {
            tensors.parameters(&format!("encoder.mid_block.attentions.0.{projection}"), vec![last, last]);
        }
        for layer in 0..2 {
            tensors.resnet(&format!("encoder.mid_block.resnets.{layer}"), last, last);
        }
        tensors.norm("encoder.conv_norm_out", last);
        tensors.conv("encoder.conv_out", last, moments, 3);
        if self.has_quant_convs {
            tensors.conv("quant_conv", moments, moments, 1);
        }
        tensors
    }

    /// Channels at full and at latent resolution.
    fn outer_channels(&self) -> (usize, usize) {
        let first = self.channels.first().copied().unwrap_or(0);
        (first, self.channels.last().copied().unwrap_or(first))
    }
}

/// Names and shapes.
#[derive(Default)]
struct Tensors(Vec<(String, Vec<usize>)>);

impl Tensors {
    /// Weight and bias.
    fn parameters(&mut self, name: &str, shape: Vec<usize>) {
        self.0.push((format!("{name}.bias"), shape[..1].to_vec()));
        self.0.push((format!("{name}.weight"), shape));
    }

    fn conv(&mut self, name: &str, inputs: usize, outputs: usize, kernel: usize) {
        self.parameters(name, vec![outputs, inputs, kernel, kernel]);
    }

    fn norm(&mut self, name: &str, channels: usize) {
        self.parameters(name, vec![channels]);
    }

    fn resnet(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.norm(&format!("{name}.norm1"), inputs);
        self.conv(&format!("{name}.conv1"), inputs, outputs, 3);
        self.norm(&format!("{name}.norm2"), outputs);
        self.conv(&format!("{name}.conv2"), outputs, outputs, 3);
        if inputs != outputs {
            self.conv(&format!("{name}.conv_shortcut"), inputs, outputs, 1);
        }
    }
}
