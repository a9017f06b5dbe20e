//! The parts of Z-Image against diffusers and transformers in f32: token ids, states of the text encoder, one forward.

use afterimage_cache::{CacheBudget, CachePlan, ImageCache, Lane, ListShape};
use candle_core::{DType, Device, Tensor};

use super::config::TransformerConfig;
use super::transformer::ZImageTransformer;
use crate::families::{Conditioning, ConditioningBatch, EncodedText, Rows, Transformer};
use crate::golden_fixture::{Fixture, assert_near, ids};
use crate::text::{ChatTemplate, DecoderKind, DecoderParts, DecoderTextEncoder};

/// Tokens of a prompt.
const TEXT_TOKENS: usize = 512;

fn check_texts(name: &str) {
    let fixture = Fixture::open(name);
    let parts = DecoderParts {
        kind: DecoderKind::Qwen3,
        encoder: "text_encoder",
        tokenizer: "tokenizer",
        hidden_states: &[-2],
    };
    let encoder = DecoderTextEncoder::load(&fixture.text_encoders(), &parts).unwrap();
    for prompt in fixture.golden["prompts"].as_array().unwrap() {
        let name = prompt["name"].as_str().unwrap();
        let tokens = &prompt["tokens"]["tokenizer"];
        let words = ids(&tokens["attention_mask"]).iter().sum::<u32>() as usize;
        let text = ChatTemplate::QWEN3.apply(prompt["text"].as_str().unwrap());
        let ours = encoder.tokenizer().tokens(&text, TEXT_TOKENS).unwrap();
        assert_eq!(ours.ids, ids(&tokens["input_ids"])[..words], "{name}");
        let encoded = encoder.encode(&text, TEXT_TOKENS).unwrap();
        assert_eq!(encoded.cut.is_some(), name == "long", "{name}");
        let expected = fixture.tensors[&format!("prompt.{name}.states")].unsqueeze(0).unwrap();
        assert_near(&encoded.states, &expected, name);
    }
}

fn check_forward(fixture: &Fixture) {
    let given = |name: &str| &fixture.tensors[&format!("forward.{name}")];
    let latents = given("latents");
    let rows = latents.dim(0).unwrap();
    let config = TransformerConfig::from_json(&fixture.folder.text("transformer/config.json").unwrap()).unwrap();
    let blocks = config.n_layers;
    let weights = fixture.folder.weights("transformer").unwrap();
    let parameters = weights.parameters(DType::F32, &Device::Cpu);
    let transformer = ZImageTransformer::new(config, TEXT_TOKENS, &parameters).unwrap();
    weights.finish(&ZImageTransformer::UNUSED_WEIGHTS).unwrap();

    let caption = |row: usize| {
        let states = given(&format!("captions.{row}")).unsqueeze(0).unwrap();
        let states = transformer.refine_caption(&states).unwrap();
        let refined = given("context_refiner").narrow(0, row, 1).unwrap();
        let refined = refined.narrow(1, 0, states.dim(1).unwrap()).unwrap();
        assert_near(&states, &refined, &format!("caption {row}"));
        Conditioning::Text(EncodedText { states, bias: None, pooled: None, cuts: Vec::new() })
    };
    let captions: Vec<_> = (0..rows).map(caption).collect();
    let conditioning = ConditioningBatch::gather(&captions.iter().collect::<Vec<_>>()).unwrap();
    // The scheduler counts the other way.
    let timesteps = given("timestep").to_vec1::<f32>().unwrap();
    let timesteps: Vec<f32> = timesteps.iter().map(|time| 1000.0 - time * 1000.0).collect();
    let rows_given = Rows { latents, timesteps: &timesteps, guidance_scales: &[], conditioning: &conditioning };
    let list = ListShape { name: ZImageTransformer::BLOCK_LIST, blocks, stream_bytes: 0 };
    let mut cache = ImageCache::new(&CachePlan::None, &[list], &CacheBudget::unlimited());
    let lanes = &mut [Lane::new(rows, &mut cache)];
    let ours = transformer.forward(&rows_given, lanes).unwrap();
    assert_near(&ours, &given("output").neg().unwrap(), "output");
    check_alone(&transformer, list, &rows_given, &captions, &ours);
}

/// Every row by itself is as in the batch.
fn check_alone(
    transformer: &ZImageTransformer,
    list: ListShape<'_>,
    rows: &Rows<'_>,
    captions: &[Conditioning],
    together: &Tensor,
) {
    for (row, caption) in captions.iter().enumerate() {
        let one = |tensor: &Tensor| tensor.narrow(0, row, 1).unwrap();
        let conditioning = ConditioningBatch::gather(&[caption]).unwrap();
        let latents = one(rows.latents);
        let timesteps = &rows.timesteps[row..=row];
        let alone = Rows { latents: &latents, timesteps, guidance_scales: &[], conditioning: &conditioning };
        let mut cache = ImageCache::new(&CachePlan::None, &[list], &CacheBudget::unlimited());
        let alone = transformer.forward(&alone, &mut [Lane::new(1, &mut cache)]).unwrap();
        assert_near(&alone, &one(together), &format!("row {row}"));
    }
}

#[test]
fn texts_of_turbo_equal_transformers() {
    check_texts("z-image-turbo");
}

#[test]
fn texts_of_the_base_model_equal_transformers() {
    check_texts("z-image");
}

#[test]
fn a_forward_of_turbo_equals_diffusers() {
    check_forward(&Fixture::open("z-image-turbo"));
}

#[test]
fn a_forward_of_rows_with_captions_of_different_lengths_equals_diffusers() {
    check_forward(&Fixture::open("z-image"));
}

/// Joined projections under original names, with a scale for each row.
#[test]
fn a_forward_with_fp8_equals_diffusers_with_widened_weights() {
    check_forward(&Fixture::open("z-image").with_single_file("fp8/z-image.safetensors"));
}
