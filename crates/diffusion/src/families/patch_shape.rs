//! Shapes that transformers over patches of latents can have.

use afterimage_checkpoint::CheckpointError;
use afterimage_checkpoint::component_config::unsupported;

use crate::dimension::{MAX_DIMENSION, MAX_LATENT_CHANNELS, check_dimensions, check_size};

/// Longest side of latents: with eight pixels for each, 8192 pixels.
const MAX_SAMPLE_SIZE: usize = 1024;

/// What the transformers over patches of latents have in common, as their configurations say it.
pub(crate) struct PatchShape {
    pub num_attention_heads: usize,
    pub attention_head_dim: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub num_layers: usize,
    pub patch_size: usize,
    pub sample_size: usize,
    /// What the hidden size must be a multiple of.
    pub hidden_multiple: usize,
}

impl PatchShape {
    /// Refuses a shape that no transformer can have.
    pub(crate) fn check(&self, path: &str) -> Result<(), CheckpointError> {
        let unsupported = |key: &str, found: usize, right: &str| Err(unsupported(path, key, &found.to_string(), right));
        let sizes = [
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("num_layers", self.num_layers),
            ("patch_size", self.patch_size),
        ];
        check_dimensions(path, &sizes)?;
        check_size(path, "in_channels", self.in_channels, MAX_LATENT_CHANNELS)?;
        check_size(path, "sample_size", self.sample_size, MAX_SAMPLE_SIZE)?;
        if !self.sample_size.is_multiple_of(self.patch_size) {
            let right = format!("a multiple of patch_size {}", self.patch_size);
            return unsupported("sample_size", self.sample_size, &right);
        }
        let hidden = self.num_attention_heads * self.attention_head_dim;
        check_size(path, "num_attention_heads * attention_head_dim", hidden, MAX_DIMENSION)?;
        if !hidden.is_multiple_of(self.hidden_multiple) {
            let right = format!("a multiple of {}", self.hidden_multiple);
            return unsupported("num_attention_heads * attention_head_dim", hidden, &right);
        }
        if self.out_channels != self.in_channels && self.out_channels != 2 * self.in_channels {
            let right = format!("in_channels {} or twice that", self.in_channels);
            return unsupported("out_channels", self.out_channels, &right);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_no_machine_holds_are_refused_by_key() {
        let shape = |heads, sample_size| PatchShape {
            num_attention_heads: heads,
            attention_head_dim: 8,
            in_channels: 4,
            out_channels: 4,
            num_layers: 1,
            patch_size: 2,
            sample_size,
            hidden_multiple: 2,
        };
        shape(2, 128).check("config.json").unwrap();
        let channels = PatchShape { in_channels: 1 << 10, ..shape(2, 128) };
        for (shape, key) in [
            (shape(1 << 62, 128), "num_attention_heads"),
            (shape(1 << 16, 128), "num_attention_heads * attention_head_dim"),
            (channels, "in_channels"),
            (shape(2, 1 << 40), "sample_size"),
            (shape(2, 2048), "sample_size"),
        ] {
            let message = shape.check("config.json").unwrap_err().to_string();
            assert!(message.starts_with(&format!("config.json: `{key}` is")), "{message}");
        }
    }
}
