//! The transformer of Stable Diffusion 3 against diffusers in f32: one recorded forward.

use afterimage_cache::{CacheBudget, CachePlan, ImageCache, Lane, ListShape};
use candle_core::{DType, Device};

use super::config::TransformerConfig;
use super::transformer::Sd3Transformer;
use crate::LatentShape;
use crate::families::{ConditioningBatch, Rows, Transformer};
use crate::golden_fixture::{Fixture, assert_near};

fn check_forward(fixture: &Fixture) {
    let given = |name: &str| &fixture.tensors[&format!("forward.{name}")];
    let latents = given("hidden_states");
    let (rows, shape) = (latents.dim(0).unwrap(), LatentShape::of(latents).unwrap());
    let config = TransformerConfig::from_json(&fixture.folder.text("transformer/config.json").unwrap()).unwrap();
    let weights = fixture.folder.weights("transformer").unwrap();
    let parameters = weights.parameters(DType::F32, &Device::Cpu);
    let text_tokens = given("encoder_hidden_states").dim(1).unwrap();
    let transformer = Sd3Transformer::new(&config, &[shape], text_tokens, &parameters).unwrap();
    let unused = Sd3Transformer::unused_weights(&config);
    weights.finish(&unused.each_ref().map(String::as_str)).unwrap();

    let texts = transformer.embed_states(given("encoder_hidden_states")).unwrap();
    assert_near(&texts, given("context_embedder"), "context_embedder");
    let timesteps = given("timestep").to_vec1::<f32>().unwrap();
    let pooled = transformer.embed_pooled(given("pooled_projections")).unwrap();
    let conditioning = ConditioningBatch { states: Some(texts), pooled: Some(pooled), ..Default::default() };
    let rows_given = Rows { latents, timesteps: &timesteps, guidance_scales: &[], conditioning: &conditioning };
    let list = ListShape { name: Sd3Transformer::BLOCK_LIST, blocks: config.num_layers, stream_bytes: 0 };
    let mut cache = ImageCache::new(&CachePlan::None, &[list], &CacheBudget::unlimited());
    let lane = Lane::new(rows, &mut cache);
    assert_near(&transformer.forward(&rows_given, &mut [lane]).unwrap(), given("output"), "output");
}

#[test]
fn a_forward_of_sd3_equals_diffusers() {
    check_forward(&Fixture::open("sd3"));
}

#[test]
fn a_forward_with_normed_queries_and_second_attentions_equals_diffusers() {
    check_forward(&Fixture::open("sd3.5"));
}

#[test]
fn forwards_with_single_files_equal_diffusers() {
    check_forward(&Fixture::open("sd3").with_single_file("single-files/sd3.gguf"));
    check_forward(&Fixture::open("sd3.5").with_single_file("single-files/sd3.5.safetensors"));
}

/// E5M2 in diffusers' layout.
#[test]
fn a_forward_with_fp8_equals_diffusers_with_widened_weights() {
    check_forward(&Fixture::open("sd3").with_folder("transformer", "fp8/sd3"));
}
