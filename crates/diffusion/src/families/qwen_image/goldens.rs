//! The parts of Qwen-Image against diffusers and transformers in f32: token ids, states of the text encoder, a recorded
//! forward, and one of two texts of different lengths.

use afterimage_cache::{CacheBudget, CachePlan, ImageCache, Lane, ListShape};
use candle_core::{DType, Device, Tensor};

use super::config::{PACK_SIDE, TransformerConfig};
use super::family::{DROPPED_TOKENS, ENCODER, states};
use super::transformer::QwenImageTransformer;
use crate::LatentShape;
use crate::families::{ConditioningBatch, Rows, Transformer};
use crate::golden_fixture::{Fixture, assert_near, ids};
use crate::layers::unpatchify_channels_first;
use crate::text::{ChatTemplate, DecoderTextEncoder};

/// As the pipeline pads texts.
const TEXT_TOKENS: usize = 200;
const PADDING_BIAS: f64 = -10_000.0;

/// Latents of a transformer's tokens, which `short` runs have.
fn latents(fixture: &Fixture, tokens: &Tensor) -> Tensor {
    let run = &fixture.golden["runs"][0];
    let scale = if fixture.golden["runs"][0]["height"] == 64 { 8 } else { 4 };
    let tokens_of = |side: &str| run[side].as_u64().unwrap() as usize / scale / PACK_SIDE;
    unpatchify_channels_first(tokens, (tokens_of("height"), tokens_of("width")), PACK_SIDE).unwrap()
}

fn transformer(fixture: &Fixture, shape: LatentShape) -> QwenImageTransformer {
    let config = TransformerConfig::from_json(&fixture.folder.text("transformer/config.json").unwrap()).unwrap();
    let weights = fixture.folder.weights("transformer").unwrap();
    let parameters = weights.parameters(DType::F32, &Device::Cpu);
    let transformer = QwenImageTransformer::new(&config, &[shape], TEXT_TOKENS, &parameters).unwrap();
    weights.finish(&[]).unwrap();
    transformer
}

/// A text's states, and what hides those behind the last, as long as all texts are.
fn padded(transformer: &QwenImageTransformer, states: &Tensor, mask: &Tensor) -> ConditioningBatch {
    let more = TEXT_TOKENS - states.dim(1).unwrap();
    let states = transformer.embed_text(states).unwrap().pad_with_zeros(1, 0, more).unwrap();
    let bias = ((mask.pad_with_zeros(1, 0, more).unwrap() - 1.0).unwrap() * -PADDING_BIAS).unwrap();
    ConditioningBatch { states: Some(states), bias: Some(bias), ..Default::default() }
}

fn predicted(transformer: &QwenImageTransformer, rows: &Rows<'_>) -> Tensor {
    let [(name, blocks)] = transformer.block_lists()[..] else { panic!("one list") };
    let list = ListShape { name, blocks, stream_bytes: 0 };
    let mut cache = ImageCache::new(&CachePlan::None, &[list], &CacheBudget::unlimited());
    let lane = Lane::new(rows.timesteps.len(), &mut cache);
    transformer.forward(rows, &mut [lane]).unwrap()
}

fn check_forwards(name: &str) {
    let fixture = Fixture::open(name);
    let given = |name: &str| &fixture.tensors[name];
    let noisy = latents(&fixture, given("forward.hidden_states"));
    let transformer = transformer(&fixture, LatentShape::of(&noisy).unwrap());
    let timesteps: Vec<f32> = given("forward.timestep").to_vec1::<f32>().unwrap().iter().map(|t| t * 1000.0).collect();

    let states = given("forward.encoder_hidden_states");
    assert_near(&transformer.embed_text(states).unwrap(), given("forward.txt_in"), "txt_in");
    let mask = Tensor::ones(&states.dims()[..2], DType::F32, &Device::Cpu).unwrap();
    let conditioning = padded(&transformer, states, &mask);
    let rows = Rows { latents: &noisy, timesteps: &timesteps, guidance_scales: &[1.0], conditioning: &conditioning };
    assert_near(&predicted(&transformer, &rows), &latents(&fixture, given("forward.output")), "output");

    let conditioning =
        padded(&transformer, given("masked.encoder_hidden_states"), given("masked.encoder_hidden_states_mask"));
    let rows = Rows {
        latents: &Tensor::cat(&[&noisy, &noisy], 0).unwrap(),
        timesteps: &[timesteps[0]; 2],
        guidance_scales: &[1.0; 2],
        conditioning: &conditioning,
    };
    assert_near(&predicted(&transformer, &rows), &latents(&fixture, given("masked.output")), "masked output");
}

#[test]
fn forwards_equal_diffusers() {
    check_forwards("qwen-image");
    check_forwards("qwen-image-wide");
}

const NAMES: [&str; 2] = ["qwen-image", "qwen-image-wide"];
/// Of a prompt, without the template.
const PROMPT_TOKENS: usize = 512;

/// In one fixture the template is as long as published, in the other it is longer than what is dropped of it.
#[test]
fn tokens_equal_transformers() {
    for name in NAMES {
        let fixture = Fixture::open(name);
        let encoder = DecoderTextEncoder::load(&fixture.text_encoders(), &ENCODER).unwrap();
        let tokens = |text: &str, most| encoder.tokenizer().tokens(text, most).unwrap();
        for text in fixture.golden["texts"]["tokenizer"].as_array().unwrap() {
            let ours = tokens(text["text"].as_str().unwrap(), usize::MAX);
            assert_eq!((ours.ids, ours.cut), (ids(&text["input_ids"]), 0), "{}", text["text"]);
        }
        for prompt in fixture.golden["prompts"].as_array().unwrap() {
            let expected = &prompt["tokens"]["tokenizer"];
            let words = ids(&expected["attention_mask"]).iter().sum::<u32>() as usize;
            let in_chat = ChatTemplate::QWEN_IMAGE.apply(prompt["text"].as_str().unwrap());
            let ours = tokens(&in_chat, DROPPED_TOKENS + PROMPT_TOKENS);
            assert_eq!(ours.ids, ids(&expected["input_ids"])[..words], "{}", prompt["name"]);
            assert_eq!(ours.cut > 0, prompt["name"] == "long", "{}", prompt["name"]);
        }
        let before = tokens(ChatTemplate::QWEN_IMAGE.before, usize::MAX).ids.len();
        assert_eq!(before == DROPPED_TOKENS, name == "qwen-image", "{before}");
    }
}

#[test]
fn text_states_equal_transformers() {
    for name in NAMES {
        let fixture = Fixture::open(name);
        let encoder = DecoderTextEncoder::load(&fixture.text_encoders(), &ENCODER).unwrap();
        for prompt in fixture.golden["prompts"].as_array().unwrap() {
            let (name, text) = (prompt["name"].as_str().unwrap(), prompt["text"].as_str().unwrap());
            let found = states(&encoder, text, &encoder.limit(PROMPT_TOKENS)).unwrap();
            assert_near(&found.states, &fixture.tensors[&format!("prompt.{name}.states")], name);
            assert_eq!((found.length, found.cut.is_some()), (found.states.dim(1).unwrap(), name == "long"), "{name}");
        }
    }
}
