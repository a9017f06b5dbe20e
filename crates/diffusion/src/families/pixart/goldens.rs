//! The parts of PixArt against diffusers and transformers in f32: token ids, states of the text
//! encoder, one forward.

use afterimage_cache::{CacheBudget, CachePlan, ImageCache, Lane, ListShape};
use candle_core::{DType, Device};
use serde_json::Value;

use super::config::TransformerConfig;
use super::transformer::PixArtTransformer;
use crate::LatentShape;
use crate::families::{ConditioningBatch, Rows, Transformer};
use crate::golden_fixture::{Fixture, assert_near, ids};
use crate::text::T5TextEncoder;

fn text_encoder(fixture: &Fixture) -> T5TextEncoder {
    T5TextEncoder::load(&fixture.text_encoders(), "text_encoder", "tokenizer").unwrap()
}

fn check_tokens(name: &str) {
    let fixture = Fixture::open(name);
    let encoder = text_encoder(&fixture);
    for text in fixture.golden["texts"]["tokenizer"].as_array().unwrap() {
        let ours = encoder.tokenizer().tokens(text["text"].as_str().unwrap(), usize::MAX).unwrap();
        assert_eq!((ours.ids, ours.cut), (ids(&text["input_ids"]), 0), "{}", text["text"]);
    }
}

fn check_text_states(name: &str) {
    let fixture = Fixture::open(name);
    let encoder = text_encoder(&fixture);
    for prompt in fixture.golden["prompts"].as_array().unwrap() {
        let name = prompt["name"].as_str().unwrap();
        let tokens = &prompt["tokens"]["tokenizer"];
        let words = ids(&tokens["attention_mask"]).iter().sum::<u32>() as usize;
        let max_tokens = tokens["max_length"].as_u64().unwrap() as usize;
        let caption = prompt["text"].as_str().unwrap().to_lowercase();
        let ours = encoder.tokenizer().tokens(caption.trim(), max_tokens).unwrap();
        assert_eq!(ours.ids, ids(&tokens["input_ids"])[..words], "{name}");
        assert_eq!(ours.cut > 0, name == "long", "{name}");
        let expected = &fixture.tensors[&format!("prompt.{name}.states")].narrow(1, 0, words).unwrap();
        assert_near(&encoder.encode(caption.trim(), max_tokens).unwrap().states, expected, name);
    }
}

fn check_forward(name: &str) {
    let fixture = Fixture::open(name);
    let given = |name: &str| &fixture.tensors[&format!("forward.{name}")];
    let latents = given("hidden_states");
    let (rows, shape) = (latents.dim(0).unwrap(), LatentShape::of(latents).unwrap());
    let config = TransformerConfig::from_json(&fixture.folder.text("transformer/config.json").unwrap()).unwrap();
    let blocks = config.num_layers;
    let vae: Value = serde_json::from_str(&fixture.folder.text("vae/config.json").unwrap()).unwrap();
    let vae_scale = 1 << (vae["block_out_channels"].as_array().unwrap().len() - 1);
    let weights = fixture.folder.weights("transformer").unwrap();
    let parameters = weights.parameters(DType::F32, &Device::Cpu);
    let transformer = PixArtTransformer::new(config, &[shape], vae_scale, parameters).unwrap();

    let captions = transformer.project_captions(given("encoder_hidden_states")).unwrap();
    assert_near(&captions, given("caption_projection"), "caption_projection");
    let mask = given("encoder_attention_mask").to_dtype(DType::F32).unwrap();
    let timesteps = given("timestep").to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
    let bias = mask.affine(10_000.0, -10_000.0).unwrap();
    let conditioning = ConditioningBatch { states: Some(captions), bias: Some(bias), ..Default::default() };
    let rows_given = Rows { latents, timesteps: &timesteps, guidance_scales: &[], conditioning: &conditioning };
    let list = ListShape { name: PixArtTransformer::BLOCK_LIST, blocks, stream_bytes: 0 };
    let mut cache = ImageCache::new(&CachePlan::None, &[list], &CacheBudget::unlimited());
    let lane = Lane::new(rows, &mut cache);
    let output = transformer.forward(&rows_given, &mut [lane]).unwrap();
    assert_near(&output, given("output"), "output");
}

#[test]
fn tokens_of_a_sentence_piece_model_equal_transformers() {
    check_tokens("pixart-alpha");
}

#[test]
fn tokens_of_a_tokenizer_json_equal_transformers() {
    check_tokens("pixart-sigma");
}

#[test]
fn text_states_equal_transformers() {
    check_text_states("pixart-alpha");
    check_text_states("pixart-sigma");
}

#[test]
fn a_forward_equals_diffusers() {
    check_forward("pixart-alpha");
    check_forward("pixart-sigma");
}
