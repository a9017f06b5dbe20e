//! Telling a LoRA from the model that it changes.
//!
//! A LoRA holds small factors of what is to be added to a model's matrices. Trainers name them in a handful of
//! ways, which diffusers' `lora_conversion_utils` lists.

/// Parts of names that only factors of LoRAs and their kin have: whole ones, and beginnings.
const PARTS: [&str; 5] = ["alpha", "diff", "diff_b", "dora_scale", "lora"];
const BEGINNINGS: [&str; 3] = ["hada_", "lokr_", "lora_"];

/// What to do about it.
pub(crate) const ADVICE: &str = "a LoRA, which changes a model and is none: give the model itself, or one that the LoRA \
     was merged into (diffusers: `pipe.fuse_lora()`, `pipe.unload_lora_weights()`, then `pipe.save_pretrained(..)`)";

/// The first tensor that shows that most of `names` are those of a LoRA.
pub(crate) fn sign<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let is_part = |part: &str| {
        PARTS.contains(&part) || BEGINNINGS.iter().any(|begin| part.starts_with(begin)) || part.ends_with("_lora")
    };
    let is_factor = |name: &&str| name.split('.').any(is_part);
    let factors = names.clone().filter(is_factor).count();
    if 2 * factors > names.clone().count() { names.clone().find(is_factor) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loras_of_every_trainer_are_known() {
        for names in [
            [
                "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
                "transformer.transformer_blocks.0.attn.to_q.lora_B.weight",
            ],
            ["base_model.model.blocks.0.q.lora_A.default.weight", "base_model.model.blocks.0.q.lora_B.default.weight"],
            ["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "lora_unet_double_blocks_0_img_attn_qkv.alpha"],
            ["unet.attn1.processor.to_q_lora.down.weight", "unet.attn1.processor.to_q_lora.up.weight"],
            ["double_blocks.0.img_attn.qkv.lokr_w1", "double_blocks.0.img_attn.qkv.alpha"],
        ] {
            assert_eq!(sign(names.into_iter()), Some(names[0]));
        }
        assert_eq!(sign(["blocks.0.q.weight", "blocks.0.q.bias", "blocks.0.q.lora_A.weight"].into_iter()), None);
        assert_eq!(sign(["flora.weight", "alpha_proj.weight"].into_iter()), None);
        assert_eq!(sign(std::iter::empty()), None);
    }
}
