//! The parts of FLUX.2 klein against diffusers and transformers in f32: token ids, states of the text encoder, one forward.

use afterimage_cache::{CacheBudget, CachePlan, ImageCache, Lane, ListShape};
use candle_core::{DType, Device, Tensor};

use super::config::TransformerConfig;
use super::transformer::Flux2Transformer;
use crate::LatentShape;
use crate::families::{ConditioningBatch, Rows, Transformer};
use crate::golden_fixture::{Fixture, assert_near, ids};
use crate::text::{ChatTemplate, DecoderKind, DecoderParts, DecoderTextEncoder};

/// Tokens of a prompt, and every which of its states is recorded.
const TEXT_TOKENS: usize = 512;
const RECORDED: usize = 8;

fn check_texts(name: &str, hidden_states: &[isize]) {
    let fixture = Fixture::open(name);
    let parts =
        DecoderParts { kind: DecoderKind::Qwen3, encoder: "text_encoder", tokenizer: "tokenizer", hidden_states };
    let encoder = DecoderTextEncoder::load(&fixture.text_encoders(), &parts).unwrap();
    for prompt in fixture.golden["prompts"].as_array().unwrap() {
        let name = prompt["name"].as_str().unwrap();
        let text = ChatTemplate::QWEN3_WITHOUT_THINKING.apply(prompt["text"].as_str().unwrap());
        let ours = encoder.tokenizer().padded_tokens(&text, TEXT_TOKENS).unwrap();
        assert_eq!(ours.ids, ids(&prompt["tokens"]["tokenizer"]["input_ids"]), "{name}");
        let encoded = encoder.encode_padded(&text, TEXT_TOKENS).unwrap();
        assert_eq!(encoded.cut.is_some(), name == "long", "{name}");
        let rows: Vec<u32> = (0..TEXT_TOKENS as u32).step_by(RECORDED).collect();
        let rows = encoded.states.index_select(&Tensor::new(rows, &Device::Cpu).unwrap(), 1).unwrap();
        assert_near(&rows, &fixture.tensors[&format!("prompt.{name}.states")], name);
    }
}

fn check_forward(name: &str) {
    let fixture = Fixture::open(name);
    let given = |name: &str| &fixture.tensors[&format!("forward.{name}")];
    let config = TransformerConfig::from_json(&fixture.folder.text("transformer/config.json").unwrap()).unwrap();
    let (tokens, states) = (given("hidden_states"), given("encoder_hidden_states"));
    let (rows, image_tokens, channels) = tokens.dims3().unwrap();
    let side = image_tokens.isqrt();
    let latents = |tokens: &Tensor| tokens.transpose(1, 2).unwrap().reshape((rows, channels, side, side)).unwrap();
    let weights = fixture.folder.weights("transformer").unwrap();
    let parameters = weights.parameters(DType::F32, &Device::Cpu);
    let shapes = [LatentShape::picture(channels, side, side)];
    let transformer = Flux2Transformer::new(&config, &shapes, states.dim(1).unwrap(), &parameters).unwrap();
    weights.finish(&Flux2Transformer::UNUSED_WEIGHTS).unwrap();

    let text = transformer.embed_text(states).unwrap();
    assert_near(&text, given("context_embedder"), "context_embedder");
    let timesteps: Vec<f32> = given("timestep").to_vec1::<f32>().unwrap().iter().map(|t| t * 1000.0).collect();
    let conditioning = ConditioningBatch { states: Some(text), ..Default::default() };
    let rows_given =
        Rows { latents: &latents(tokens), timesteps: &timesteps, guidance_scales: &[], conditioning: &conditioning };
    let list = ListShape { name: "blocks", blocks: config.num_layers + config.num_single_layers, stream_bytes: 0 };
    let mut cache = ImageCache::new(&CachePlan::None, &[list], &CacheBudget::unlimited());
    let output = transformer.forward(&rows_given, &mut [Lane::new(rows, &mut cache)]).unwrap();
    assert_near(&output, &latents(given("output")), "output");
}

#[test]
fn texts_of_the_distilled_model_equal_transformers() {
    check_texts("flux2-klein", &[9, 18, 27]);
}

#[test]
fn texts_of_the_base_model_equal_transformers() {
    check_texts("flux2-klein-base", &[1, 2, 3]);
}

#[test]
fn a_forward_equals_diffusers() {
    check_forward("flux2-klein");
    check_forward("flux2-klein-base");
}
