//! FLUX's transformer against diffusers in f32: one recorded forward.

use afterimage_cache::{CacheBudget, CachePlan, ImageCache, Lane, ListShape};
use candle_core::{DType, Device, Tensor};

use super::config::{PACK_SIDE, TransformerConfig};
use super::transformer::FluxTransformer;
use crate::LatentShape;
use crate::families::{ConditioningBatch, Rows, Transformer};
use crate::golden_fixture::{Fixture, assert_near};
use crate::layers::unpatchify_channels_first;

fn check_forward(fixture: &Fixture) {
    let given = |name: &str| &fixture.tensors[&format!("forward.{name}")];
    let config = TransformerConfig::from_json(&fixture.folder.text("transformer/config.json").unwrap()).unwrap();
    let (tokens, states) = (given("hidden_states"), given("encoder_hidden_states"));
    let (rows, image_tokens, _) = tokens.dims3().unwrap();
    let side = image_tokens.isqrt();
    let latents = |tokens: &Tensor| unpatchify_channels_first(tokens, (side, side), PACK_SIDE).unwrap();
    let shapes = [LatentShape::picture(config.latent_channels(), 2 * side, 2 * side)];
    let weights = fixture.folder.weights("transformer").unwrap();
    let parameters = weights.parameters(DType::F32, &Device::Cpu);
    let transformer = FluxTransformer::new(&config, &shapes, states.dim(1).unwrap(), parameters).unwrap();
    weights.finish(&[]).unwrap();

    let text = transformer.embed_text(states).unwrap();
    assert_near(&text, given("context_embedder"), "context_embedder");
    let timesteps: Vec<f32> = given("timestep").to_vec1::<f32>().unwrap().iter().map(|t| t * 1000.0).collect();
    let guidance = fixture.tensors.get("forward.guidance").map(|scales| scales.to_vec1::<f32>().unwrap());
    assert_eq!(guidance.is_some(), config.guidance_embeds);
    let pooled = transformer.project_pooled(given("pooled_projections")).unwrap();
    let conditioning = ConditioningBatch { states: Some(text), pooled: Some(pooled), ..Default::default() };
    let rows_given = Rows {
        latents: &latents(tokens),
        timesteps: &timesteps,
        guidance_scales: &guidance.unwrap_or(vec![0.0; rows]),
        conditioning: &conditioning,
    };
    let blocks = config.num_layers + config.num_single_layers;
    let list = ListShape { name: "blocks", blocks, stream_bytes: 0 };
    let mut cache = ImageCache::new(&CachePlan::None, &[list], &CacheBudget::unlimited());
    let lane = Lane::new(rows, &mut cache);
    let output = transformer.forward(&rows_given, &mut [lane]).unwrap();
    assert_near(&output, &latents(given("output")), "output");
}

#[test]
fn a_forward_equals_diffusers() {
    check_forward(&Fixture::open("flux-dev"));
    check_forward(&Fixture::open("flux-schnell"));
}

#[test]
fn a_forward_with_quantised_weights_equals_diffusers_with_dequantised_ones() {
    check_forward(&Fixture::open("flux-dev").with_single_file("single-files/flux-dev.gguf"));
}

/// Scaled matrices under original names, and everything in fp8 as it is.
#[test]
fn forwards_with_fp8_equal_diffusers_with_widened_weights() {
    for file in ["fp8/flux-dev.safetensors", "fp8/flux-dev-plain.safetensors"] {
        check_forward(&Fixture::open("flux-dev").with_single_file(file));
    }
}
