//! The parts of FLUX.2 against diffusers and transformers in f32: token ids, states of the text encoder, one forward.

use afterimage_cache::{CacheBudget, CachePlan, ImageCache, Lane, ListShape};
use afterimage_checkpoint::{GivenFile, TRANSFORMER};
use candle_core::{DType, Device, Tensor};

use super::config::TransformerConfig;
use super::family::Variant;
use super::transformer::Flux2Transformer;
use crate::LatentShape;
use crate::families::{ConditioningBatch, Rows, Transformer};
use crate::golden_fixture::{Fixture, assert_near, ids};
use crate::text::{DecoderKind, DecoderParts, DecoderTextEncoder};

/// Tokens of a prompt, and every which of its states is recorded.
const TEXT_TOKENS: usize = 512;
const RECORDED: usize = 8;

fn check_texts(name: &str, variant: Variant, kind: DecoderKind, hidden_states: &[isize]) {
    let fixture = Fixture::open(name);
    let parts = DecoderParts { kind, encoder: "text_encoder", tokenizer: "tokenizer", hidden_states };
    let encoder = DecoderTextEncoder::load(&fixture.text_encoders(), &parts).unwrap();
    for text in fixture.golden["texts"]["tokenizer"].as_array().unwrap() {
        let ours = encoder.tokenizer().tokens(text["text"].as_str().unwrap(), usize::MAX).unwrap();
        assert_eq!(ours.ids, ids(&text["input_ids"]), "{name}: {}", text["text"]);
    }
    for prompt in fixture.golden["prompts"].as_array().unwrap() {
        let name = prompt["name"].as_str().unwrap();
        let text = variant.text(prompt["text"].as_str().unwrap());
        let ours = encoder.tokenizer().padded_tokens(&text, TEXT_TOKENS).unwrap();
        assert_eq!(ours.ids, ids(&prompt["tokens"]["tokenizer"]["input_ids"]), "{name}");
        let encoded = encoder.encode_padded(&text, TEXT_TOKENS).unwrap();
        assert_eq!(encoded.cut.is_some(), name == "long", "{name}");
        let rows: Vec<u32> = (0..TEXT_TOKENS as u32).step_by(RECORDED).collect();
        let rows = encoded.states.index_select(&Tensor::new(rows, &Device::Cpu).unwrap(), 1).unwrap();
        assert_near(&rows, &fixture.tensors[&format!("prompt.{name}.states")], name);
    }
}

fn check_forward(fixture: &Fixture) {
    let given = |name: &str| &fixture.tensors[&format!("forward.{name}")];
    let config = TransformerConfig::from_json(&fixture.folder.text("transformer/config.json").unwrap()).unwrap();
    let (tokens, states) = (given("hidden_states"), given("encoder_hidden_states"));
    let (rows, image_tokens, channels) = tokens.dims3().unwrap();
    let side = image_tokens.isqrt();
    let latents = |tokens: &Tensor| tokens.transpose(1, 2).unwrap().reshape((rows, channels, side, side)).unwrap();
    let weights = fixture.folder.weights("transformer").unwrap();
    let parameters = weights.parameters(DType::F32, &Device::Cpu);
    let shapes = [LatentShape::picture(channels, side, side)];
    let guidance = fixture.tensors.get("forward.guidance").map(|scales| scales.to_vec1::<f32>().unwrap());
    let text_tokens = states.dim(1).unwrap();
    let transformer = Flux2Transformer::new(&config, &shapes, text_tokens, guidance.is_some(), &parameters).unwrap();
    weights.finish(if guidance.is_some() { &[] } else { &Flux2Transformer::GUIDANCE_WEIGHTS }).unwrap();

    let text = transformer.embed_text(states).unwrap();
    assert_near(&text, given("context_embedder"), "context_embedder");
    let timesteps: Vec<f32> = given("timestep").to_vec1::<f32>().unwrap().iter().map(|t| t * 1000.0).collect();
    let conditioning = ConditioningBatch { states: Some(text), ..Default::default() };
    let rows_given = Rows {
        latents: &latents(tokens),
        timesteps: &timesteps,
        guidance_scales: &guidance.unwrap_or_default(),
        conditioning: &conditioning,
    };
    let list = ListShape { name: "blocks", blocks: config.num_layers + config.num_single_layers, stream_bytes: 0 };
    let mut cache = ImageCache::new(&CachePlan::None, &[list], &CacheBudget::unlimited());
    let output = transformer.forward(&rows_given, &mut [Lane::new(rows, &mut cache)]).unwrap();
    assert_near(&output, &latents(given("output")), "output");
}

#[test]
fn texts_of_the_distilled_model_equal_transformers() {
    check_texts("flux2-klein", Variant::Klein, DecoderKind::Qwen3, &[9, 18, 27]);
}

#[test]
fn texts_of_the_base_model_equal_transformers() {
    check_texts("flux2-klein-base", Variant::Klein, DecoderKind::Qwen3, &[1, 2, 3]);
}

/// Padded at their beginning.
#[test]
fn texts_of_dev_equal_transformers() {
    check_texts("flux2-dev", Variant::Dev, DecoderKind::Mistral, &[10, 20, 30]);
}

#[test]
fn a_forward_equals_diffusers() {
    for name in ["flux2-klein", "flux2-klein-base", "flux2-dev"] {
        check_forward(&Fixture::open(name));
    }
}

#[test]
fn a_forward_with_weights_under_their_original_names_equals_diffusers() {
    let mut fixture = Fixture::open("flux2-klein");
    let files = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/single-files");
    fixture.folder =
        fixture.folder.with_files(&[GivenFile::new(TRANSFORMER, files.join("flux2-klein.safetensors"))]).unwrap();
    check_forward(&fixture);
}
