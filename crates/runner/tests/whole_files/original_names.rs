//! The fixtures' tensors under the names of the models' makers, as whole checkpoints have them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};

pub(crate) type Tensors = HashMap<String, Tensor>;

/// A tensor of the makers and those of diffusers that are its rows, one after the other; `*` is the number of a block.
type Rule = (&'static str, &'static [&'static str]);

const FLUX: [Rule; 29] = [
    ("img_in", &["x_embedder"]),
    ("txt_in", &["context_embedder"]),
    ("time_in.in_layer", &["time_text_embed.timestep_embedder.linear_1"]),
    ("time_in.out_layer", &["time_text_embed.timestep_embedder.linear_2"]),
    ("vector_in.in_layer", &["time_text_embed.text_embedder.linear_1"]),
    ("vector_in.out_layer", &["time_text_embed.text_embedder.linear_2"]),
    ("guidance_in.in_layer", &["time_text_embed.guidance_embedder.linear_1"]),
    ("guidance_in.out_layer", &["time_text_embed.guidance_embedder.linear_2"]),
    ("double_blocks.*.img_mod.lin", &["transformer_blocks.*.norm1.linear"]),
    ("double_blocks.*.txt_mod.lin", &["transformer_blocks.*.norm1_context.linear"]),
    (
        "double_blocks.*.img_attn.qkv",
        &["transformer_blocks.*.attn.to_q", "transformer_blocks.*.attn.to_k", "transformer_blocks.*.attn.to_v"],
    ),
    (
        "double_blocks.*.txt_attn.qkv",
        &[
            "transformer_blocks.*.attn.add_q_proj",
            "transformer_blocks.*.attn.add_k_proj",
            "transformer_blocks.*.attn.add_v_proj",
        ],
    ),
    ("double_blocks.*.img_attn.norm.query_norm", &["transformer_blocks.*.attn.norm_q"]),
    ("double_blocks.*.img_attn.norm.key_norm", &["transformer_blocks.*.attn.norm_k"]),
    ("double_blocks.*.txt_attn.norm.query_norm", &["transformer_blocks.*.attn.norm_added_q"]),
    ("double_blocks.*.txt_attn.norm.key_norm", &["transformer_blocks.*.attn.norm_added_k"]),
    ("double_blocks.*.img_attn.proj", &["transformer_blocks.*.attn.to_out.0"]),
    ("double_blocks.*.txt_attn.proj", &["transformer_blocks.*.attn.to_add_out"]),
    ("double_blocks.*.img_mlp.0", &["transformer_blocks.*.ff.net.0.proj"]),
    ("double_blocks.*.img_mlp.2", &["transformer_blocks.*.ff.net.2"]),
    ("double_blocks.*.txt_mlp.0", &["transformer_blocks.*.ff_context.net.0.proj"]),
    ("double_blocks.*.txt_mlp.2", &["transformer_blocks.*.ff_context.net.2"]),
    ("single_blocks.*.modulation.lin", &["single_transformer_blocks.*.norm.linear"]),
    (
        "single_blocks.*.linear1",
        &[
            "single_transformer_blocks.*.attn.to_q",
            "single_transformer_blocks.*.attn.to_k",
            "single_transformer_blocks.*.attn.to_v",
            "single_transformer_blocks.*.proj_mlp",
        ],
    ),
    ("single_blocks.*.linear2", &["single_transformer_blocks.*.proj_out"]),
    ("single_blocks.*.norm.query_norm", &["single_transformer_blocks.*.attn.norm_q"]),
    ("single_blocks.*.norm.key_norm", &["single_transformer_blocks.*.attn.norm_k"]),
    ("final_layer.adaLN_modulation.1", &["norm_out.linear"]),
    ("final_layer.linear", &["proj_out"]),
];

const SD3: [Rule; 27] = [
    ("pos_embed", &["pos_embed.pos_embed"]),
    ("x_embedder.proj", &["pos_embed.proj"]),
    ("context_embedder", &["context_embedder"]),
    ("t_embedder.mlp.0", &["time_text_embed.timestep_embedder.linear_1"]),
    ("t_embedder.mlp.2", &["time_text_embed.timestep_embedder.linear_2"]),
    ("y_embedder.mlp.0", &["time_text_embed.text_embedder.linear_1"]),
    ("y_embedder.mlp.2", &["time_text_embed.text_embedder.linear_2"]),
    ("joint_blocks.*.x_block.adaLN_modulation.1", &["transformer_blocks.*.norm1.linear"]),
    ("joint_blocks.*.context_block.adaLN_modulation.1", &["transformer_blocks.*.norm1_context.linear"]),
    (
        "joint_blocks.*.x_block.attn.qkv",
        &["transformer_blocks.*.attn.to_q", "transformer_blocks.*.attn.to_k", "transformer_blocks.*.attn.to_v"],
    ),
    (
        "joint_blocks.*.context_block.attn.qkv",
        &[
            "transformer_blocks.*.attn.add_q_proj",
            "transformer_blocks.*.attn.add_k_proj",
            "transformer_blocks.*.attn.add_v_proj",
        ],
    ),
    (
        "joint_blocks.*.x_block.attn2.qkv",
        &["transformer_blocks.*.attn2.to_q", "transformer_blocks.*.attn2.to_k", "transformer_blocks.*.attn2.to_v"],
    ),
    ("joint_blocks.*.x_block.attn.ln_q", &["transformer_blocks.*.attn.norm_q"]),
    ("joint_blocks.*.x_block.attn.ln_k", &["transformer_blocks.*.attn.norm_k"]),
    ("joint_blocks.*.context_block.attn.ln_q", &["transformer_blocks.*.attn.norm_added_q"]),
    ("joint_blocks.*.context_block.attn.ln_k", &["transformer_blocks.*.attn.norm_added_k"]),
    ("joint_blocks.*.x_block.attn2.ln_q", &["transformer_blocks.*.attn2.norm_q"]),
    ("joint_blocks.*.x_block.attn2.ln_k", &["transformer_blocks.*.attn2.norm_k"]),
    ("joint_blocks.*.x_block.attn.proj", &["transformer_blocks.*.attn.to_out.0"]),
    ("joint_blocks.*.context_block.attn.proj", &["transformer_blocks.*.attn.to_add_out"]),
    ("joint_blocks.*.x_block.attn2.proj", &["transformer_blocks.*.attn2.to_out.0"]),
    ("joint_blocks.*.x_block.mlp.fc1", &["transformer_blocks.*.ff.net.0.proj"]),
    ("joint_blocks.*.x_block.mlp.fc2", &["transformer_blocks.*.ff.net.2"]),
    ("joint_blocks.*.context_block.mlp.fc1", &["transformer_blocks.*.ff_context.net.0.proj"]),
    ("joint_blocks.*.context_block.mlp.fc2", &["transformer_blocks.*.ff_context.net.2"]),
    ("final_layer.adaLN_modulation.1", &["norm_out.linear"]),
    ("final_layer.linear", &["proj_out"]),
];

const Z_IMAGE: [Rule; 15] = [
    ("x_embedder", &["all_x_embedder.2-1"]),
    ("final_layer.linear", &["all_final_layer.2-1.linear"]),
    ("final_layer.adaLN_modulation.1", &["all_final_layer.2-1.adaLN_modulation.1"]),
    ("layers.*.attention.qkv", &["layers.*.attention.to_q", "layers.*.attention.to_k", "layers.*.attention.to_v"]),
    ("layers.*.attention.out", &["layers.*.attention.to_out.0"]),
    ("layers.*.attention.q_norm", &["layers.*.attention.norm_q"]),
    ("layers.*.attention.k_norm", &["layers.*.attention.norm_k"]),
    (
        "noise_refiner.*.attention.qkv",
        &["noise_refiner.*.attention.to_q", "noise_refiner.*.attention.to_k", "noise_refiner.*.attention.to_v"],
    ),
    ("noise_refiner.*.attention.out", &["noise_refiner.*.attention.to_out.0"]),
    ("noise_refiner.*.attention.q_norm", &["noise_refiner.*.attention.norm_q"]),
    ("noise_refiner.*.attention.k_norm", &["noise_refiner.*.attention.norm_k"]),
    (
        "context_refiner.*.attention.qkv",
        &["context_refiner.*.attention.to_q", "context_refiner.*.attention.to_k", "context_refiner.*.attention.to_v"],
    ),
    ("context_refiner.*.attention.out", &["context_refiner.*.attention.to_out.0"]),
    ("context_refiner.*.attention.q_norm", &["context_refiner.*.attention.norm_q"]),
    ("context_refiner.*.attention.k_norm", &["context_refiner.*.attention.norm_k"]),
];

const SANA: [Rule; 22] = [
    ("x_embedder.proj", &["patch_embed.proj"]),
    ("t_embedder.mlp.0", &["time_embed.emb.timestep_embedder.linear_1"]),
    ("t_embedder.mlp.2", &["time_embed.emb.timestep_embedder.linear_2"]),
    ("t_block.1", &["time_embed.linear"]),
    ("y_embedder.y_proj.fc1", &["caption_projection.linear_1"]),
    ("y_embedder.y_proj.fc2", &["caption_projection.linear_2"]),
    ("attention_y_norm", &["caption_norm"]),
    ("blocks.*.scale_shift_table", &["transformer_blocks.*.scale_shift_table"]),
    (
        "blocks.*.attn.qkv",
        &["transformer_blocks.*.attn1.to_q", "transformer_blocks.*.attn1.to_k", "transformer_blocks.*.attn1.to_v"],
    ),
    ("blocks.*.attn.q_norm", &["transformer_blocks.*.attn1.norm_q"]),
    ("blocks.*.attn.k_norm", &["transformer_blocks.*.attn1.norm_k"]),
    ("blocks.*.attn.proj", &["transformer_blocks.*.attn1.to_out.0"]),
    ("blocks.*.cross_attn.q_linear", &["transformer_blocks.*.attn2.to_q"]),
    ("blocks.*.cross_attn.kv_linear", &["transformer_blocks.*.attn2.to_k", "transformer_blocks.*.attn2.to_v"]),
    ("blocks.*.cross_attn.q_norm", &["transformer_blocks.*.attn2.norm_q"]),
    ("blocks.*.cross_attn.k_norm", &["transformer_blocks.*.attn2.norm_k"]),
    ("blocks.*.cross_attn.proj", &["transformer_blocks.*.attn2.to_out.0"]),
    ("blocks.*.mlp.inverted_conv.conv", &["transformer_blocks.*.ff.conv_inverted"]),
    ("blocks.*.mlp.depth_conv.conv", &["transformer_blocks.*.ff.conv_depth"]),
    ("blocks.*.mlp.point_conv.conv", &["transformer_blocks.*.ff.conv_point"]),
    ("final_layer.linear", &["proj_out"]),
    ("final_layer.scale_shift_table", &["scale_shift_table"]),
];

pub(crate) fn load(path: &Path) -> Tensors {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// A transformer of this fixture under its makers' names.
pub(crate) fn transformer(fixture: &str, tensors: &Tensors) -> Tensors {
    match fixture.split(['-', '.']).next().unwrap() {
        "flux" => renamed(tensors, &FLUX, true),
        "sd3" => renamed(tensors, &SD3, false),
        "z" => renamed(tensors, &Z_IMAGE, false),
        "sana" => renamed(tensors, &SANA, false),
        // Its makers have diffusers' names.
        _ => tensors.clone(),
    }
}

/// What no rule knows keeps its name.
fn renamed(tensors: &Tensors, rules: &[Rule], norms_are_scales: bool) -> Tensors {
    let mut joined: BTreeMap<String, BTreeMap<usize, Tensor>> = BTreeMap::new();
    for (name, tensor) in tensors {
        let (stem, parameter) = match name.rsplit_once('.') {
            Some((stem, parameter @ ("weight" | "bias"))) => (stem, Some(parameter)),
            _ => (name.as_str(), None),
        };
        let place = rules.iter().find_map(|(theirs, ours)| {
            let place = ours.iter().enumerate();
            let (at, index) = place.into_iter().find_map(|(at, pattern)| Some((at, block(pattern, stem)?)))?;
            Some((theirs.replace('*', index), at))
        });
        let (theirs, at) = place.unwrap_or((stem.to_owned(), 0));
        let is_scale = norms_are_scales && theirs.ends_with("_norm");
        let parameter = parameter.map(|parameter| if is_scale { "scale" } else { parameter });
        let name = parameter.map_or(theirs.clone(), |parameter| format!("{theirs}.{parameter}"));
        joined.entry(name).or_default().insert(at, tensor.clone());
    }
    let last = joined.keys().filter_map(|name| name.strip_prefix("joint_blocks.")?.split('.').next()?.parse().ok());
    let last: usize = last.max().unwrap_or(0);
    let whole = |(name, parts): (String, BTreeMap<usize, Tensor>)| {
        let rows = Tensor::cat(&parts.into_values().collect::<Vec<_>>(), 0).unwrap();
        // Shift and scale are the other way round at the end, and where the last block ends the text.
        let ends_text = format!("joint_blocks.{last}.context_block.adaLN_modulation.1");
        let is_swapped = name.starts_with("final_layer.adaLN_modulation")
            && !rules.iter().any(|rule| rule.0.starts_with("layers."))
            || name.starts_with(&ends_text) && last > 0;
        (name, if is_swapped { swapped(&rows) } else { rows })
    };
    joined.into_iter().map(whole).collect()
}

fn swapped(rows: &Tensor) -> Tensor {
    let half = rows.dim(0).unwrap() / 2;
    Tensor::cat(&[rows.narrow(0, half, half).unwrap(), rows.narrow(0, 0, half).unwrap()], 0).unwrap()
}

fn block<'a>(pattern: &str, stem: &'a str) -> Option<&'a str> {
    match pattern.split_once('*') {
        None => (pattern == stem).then_some(""),
        Some((before, after)) => {
            let index = stem.strip_prefix(before)?.strip_suffix(after)?;
            index.bytes().all(|byte| byte.is_ascii_digit()).then_some(index)
        }
    }
}

/// A VAE's decoder as latent diffusion names it, or Wan's.
pub(crate) fn vae(tensors: &Tensors) -> Tensors {
    let is_wan = tensors.contains_key("decoder.mid_block.attentions.0.to_qkv.weight");
    let stages = numbers(tensors, "decoder.up_blocks.").max().unwrap() + 1;
    let renamed = tensors.iter().filter(|(name, _)| !name.starts_with("encoder.")).map(|(name, tensor)| {
        if is_wan {
            return (wan(name, numbers(tensors, "decoder.up_blocks.0.resnets.").max().unwrap() + 1), tensor.clone());
        }
        let name = latent_diffusion(name, stages);
        // Attention is made of convolutions.
        let is_kernel = name.contains(".attn_1.") && tensor.rank() == 2;
        let tensor = if is_kernel { tensor.unsqueeze(2).unwrap().unsqueeze(3).unwrap() } else { tensor.clone() };
        (name, tensor)
    });
    renamed.collect()
}

fn numbers(tensors: &Tensors, before: &str) -> impl Iterator<Item = usize> {
    tensors.keys().filter_map(move |name| name.strip_prefix(before)?.split('.').next()?.parse().ok())
}

fn latent_diffusion(name: &str, stages: usize) -> String {
    let name = name
        .replace("decoder.conv_norm_out", "decoder.norm_out")
        .replace("decoder.mid_block.resnets.0", "decoder.mid.block_1")
        .replace("decoder.mid_block.resnets.1", "decoder.mid.block_2")
        .replace("conv_shortcut", "nin_shortcut");
    if let Some(rest) = name.strip_prefix("decoder.mid_block.attentions.0.") {
        let rest = rest.replace("group_norm", "norm").replace("to_out.0", "proj_out").replace("to_", "");
        return format!("decoder.mid.attn_1.{rest}");
    }
    let Some((stage, rest)) = name.strip_prefix("decoder.up_blocks.").and_then(|rest| rest.split_once('.')) else {
        return name;
    };
    let stage = stages - 1 - stage.parse::<usize>().unwrap();
    format!("decoder.up.{stage}.{}", rest.replace("resnets.", "block.").replace("upsamplers.0.", "upsample."))
}

fn wan(name: &str, resnets: usize) -> String {
    let part = |name: &str| {
        name.replace("norm1.", "residual.0.")
            .replace("conv1.", "residual.2.")
            .replace("norm2.", "residual.3.")
            .replace("conv2.", "residual.6.")
            .replace("conv_shortcut.", "shortcut.")
    };
    for (ours, theirs) in [
        ("post_quant_conv.", "conv2."),
        ("quant_conv.", "conv1."),
        ("decoder.conv_in.", "decoder.conv1."),
        ("decoder.mid_block.attentions.0.", "decoder.middle.1."),
        ("decoder.norm_out.", "decoder.head.0."),
        ("decoder.conv_out.", "decoder.head.2."),
    ] {
        if let Some(rest) = name.strip_prefix(ours) {
            return format!("{theirs}{rest}");
        }
    }
    if let Some((resnet, rest)) = name.strip_prefix("decoder.mid_block.resnets.").and_then(|rest| rest.split_once('.'))
    {
        return format!("decoder.middle.{}.{}", 2 * resnet.parse::<usize>().unwrap(), part(rest));
    }
    let (stage, rest) = name.strip_prefix("decoder.up_blocks.").unwrap().split_once('.').unwrap();
    let first = stage.parse::<usize>().unwrap() * (resnets + 1);
    match rest.strip_prefix("resnets.").and_then(|rest| rest.split_once('.')) {
        Some((resnet, rest)) => {
            format!("decoder.upsamples.{}.{}", first + resnet.parse::<usize>().unwrap(), part(rest))
        }
        None => format!("decoder.upsamples.{}.{}", first + resnets, rest.strip_prefix("upsamplers.0.").unwrap()),
    }
}
