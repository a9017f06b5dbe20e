//! VAEs as their makers name them: those of latent diffusion and, of Qwen-Image, Wan's.
//!
//! Follows diffusers 0.42.1, loaders/single_file_utils.py: `convert_ldm_vae_checkpoint` (lines 1510-1612) and
//! `convert_wan_vae_to_diffusers` (lines 3363-3560). Only decoders: encoders keep their names, below `encoder.`.

use std::collections::BTreeSet;

use crate::formats::prefix;
use crate::shown::check_names;
use crate::stored::entry::Entry;
use crate::stored::tensor::StoredTensor;

/// Beginnings of names that only one kind of files has.
const LATENT_DIFFUSION: &str = "decoder.mid.block_1.";
const WAN: &str = "decoder.middle.0.residual.";

/// Of latent diffusion, outside of the stages.
const LATENT_DIFFUSION_NAMES: [(&str, &str); 9] = [
    // FLUX.2's makers have it inside.
    ("decoder.post_quant_conv", "post_quant_conv"),
    ("decoder.norm_out", "decoder.conv_norm_out"),
    ("decoder.mid.block_1", "decoder.mid_block.resnets.0"),
    ("decoder.mid.block_2", "decoder.mid_block.resnets.1"),
    ("decoder.mid.attn_1.norm", "decoder.mid_block.attentions.0.group_norm"),
    ("decoder.mid.attn_1.q", "decoder.mid_block.attentions.0.to_q"),
    ("decoder.mid.attn_1.k", "decoder.mid_block.attentions.0.to_k"),
    ("decoder.mid.attn_1.v", "decoder.mid_block.attentions.0.to_v"),
    ("decoder.mid.attn_1.proj_out", "decoder.mid_block.attentions.0.to_out.0"),
];
/// Of an attention in a stage.
const ATTENTION: [(&str, &str); 5] =
    [("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")];

/// Of Wan, outside of the stages.
const WAN_NAMES: [(&str, &str); 8] = [
    ("conv1", "quant_conv"),
    ("conv2", "post_quant_conv"),
    ("decoder.conv1", "decoder.conv_in"),
    ("decoder.middle.0", "decoder.mid_block.resnets.0"),
    ("decoder.middle.1", "decoder.mid_block.attentions.0"),
    ("decoder.middle.2", "decoder.mid_block.resnets.1"),
    ("decoder.head.0", "decoder.norm_out"),
    ("decoder.head.2", "decoder.conv_out"),
];
/// Of a residual block of Wan's.
const WAN_BLOCK: [(&str, &str); 5] = [
    ("residual.0", "norm1"),
    ("residual.2", "conv1"),
    ("residual.3", "norm2"),
    ("residual.6", "conv2"),
    ("shortcut", "conv_shortcut"),
];

/// Whose names a file has, and what depends on all of them.
enum Named {
    LatentDiffusion {
        stages: usize,
    },
    /// Sorted.
    Wan {
        ends: Vec<usize>,
    },
    Diffusers,
}

impl Named {
    fn by<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let has = |beginning: &str| names.clone().any(|name| name.starts_with(beginning));
        if has(LATENT_DIFFUSION) {
            let stages = names.filter_map(|name| stage(name)?.0.checked_add(1)).max();
            return Self::LatentDiffusion { stages: stages.unwrap_or(0) };
        }
        if !has(WAN) {
            return Self::Diffusers;
        }
        let ends: BTreeSet<_> = names.filter_map(stage_end).collect();
        Self::Wan { ends: ends.into_iter().collect() }
    }

    /// diffusers' name; `None` for one that is not known.
    fn ours(&self, name: &str) -> Option<String> {
        match self {
            Self::LatentDiffusion { stages } => of_latent_diffusion(name, *stages),
            Self::Wan { ends } => of_wan(name, ends),
            Self::Diffusers => None,
        }
    }
}

/// The tensors of a VAE under diffusers' names, which it may have already. One that is not known keeps its name.
///
/// # Errors
/// A name is longer than any model's.
pub(crate) fn entries(tensors: Vec<(String, StoredTensor)>) -> Result<Vec<(String, Entry)>, String> {
    check_names(tensors.iter().map(|(name, _)| name.as_str()))?;
    let tensors: Vec<_> = tensors.into_iter().map(|(name, tensor)| (prefix::unwrapped(name), tensor)).collect();
    let names = Named::by(tensors.iter().map(|(name, _)| name.as_str()));
    let entry = |(name, tensor): (String, StoredTensor)| (names.ours(&name).unwrap_or(name), Entry::whole(tensor));
    Ok(tensors.into_iter().map(entry).collect())
}

/// The number of a stage and what follows it.
fn stage(name: &str) -> Option<(usize, &str)> {
    numbered(name, "decoder.up.")
}

fn numbered<'a>(name: &'a str, before: &str) -> Option<(usize, &'a str)> {
    let (number, rest) = name.strip_prefix(before)?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// What the longest of the names that `name` begins with stands for, with the rest behind it.
fn replaced(name: &str, names: &[(&str, &str)]) -> Option<String> {
    names.iter().find_map(|(theirs, ours)| {
        let rest = name.strip_prefix(theirs)?;
        rest.starts_with('.').then(|| format!("{ours}{rest}"))
    })
}

/// Stages are numbered from the finest.
fn of_latent_diffusion(name: &str, stages: usize) -> Option<String> {
    let Some((stage, rest)) = stage(name) else { return replaced(name, &LATENT_DIFFUSION_NAMES).map(with_shortcut) };
    let ours = format!("decoder.up_blocks.{}", stages.checked_sub(stage)?.checked_sub(1)?);
    if let Some((block, rest)) = numbered(rest, "block.") {
        return Some(with_shortcut(format!("{ours}.resnets.{block}.{rest}")));
    }
    if let Some((attention, rest)) = numbered(rest, "attn.") {
        return Some(format!("{ours}.attentions.{attention}.{}", replaced(rest, &ATTENTION)?));
    }
    rest.strip_prefix("upsample.").map(|rest| format!("{ours}.upsamplers.0.{rest}"))
}

fn with_shortcut(name: String) -> String {
    name.replace(".nin_shortcut.", ".conv_shortcut.")
}

/// Where a stage of Wan's ends: at what doubles the picture. Blocks of all stages are counted through.
fn stage_end(name: &str) -> Option<usize> {
    let (index, rest) = numbered(name, "decoder.upsamples.")?;
    rest.starts_with("resample.").then_some(index)
}

fn of_wan(name: &str, ends: &[usize]) -> Option<String> {
    let Some((index, rest)) = numbered(name, "decoder.upsamples.") else {
        let ours = replaced(name, &WAN_NAMES)?;
        let Some((before, (number, rest))) =
            ours.split_once("resnets.").and_then(|(before, behind)| Some((before, behind.split_once('.')?)))
        else {
            return Some(ours);
        };
        return Some(format!("{before}resnets.{number}.{}", replaced(rest, &WAN_BLOCK)?));
    };
    let stage = ends.partition_point(|end| *end < index);
    let first = ends[..stage].last().map_or(0, |end| end + 1);
    match replaced(rest, &WAN_BLOCK) {
        Some(rest) => Some(format!("decoder.up_blocks.{stage}.resnets.{}.{rest}", index - first)),
        None => Some(format!("decoder.up_blocks.{stage}.upsamplers.0.{rest}")),
    }
}
