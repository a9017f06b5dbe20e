//! The parts of HunyuanDiT against diffusers and transformers in f32: token ids, states of the text encoders, one forward.

use afterimage_cache::{CacheBudget, CachePlan, ImageCache, Lane, ListShape};
use candle_core::{DType, Device, Tensor};

use super::config::{BERT_TOKENS, T5_TOKENS, TransformerConfig};
use super::transformer::HunyuanTransformer;
use crate::LatentShape;
use crate::families::{ConditioningBatch, Rows, Transformer};
use crate::golden_fixture::{Fixture, assert_near, ids};
use crate::text::{BertTextEncoder, T5TextEncoder, TextTokenizer};

const VAE_SCALE: usize = 8;

struct Encoders {
    bert: BertTextEncoder,
    t5: T5TextEncoder,
}

fn encoders(fixture: &Fixture) -> Encoders {
    let source = fixture.text_encoders();
    Encoders {
        bert: BertTextEncoder::load(&source, "text_encoder", "tokenizer", BERT_TOKENS).unwrap(),
        t5: T5TextEncoder::load(&source, "text_encoder_2", "tokenizer_2").unwrap(),
    }
}

fn words(mask: &Tensor) -> usize {
    mask.sum_all().unwrap().to_scalar::<f32>().unwrap() as usize
}

fn check_tokens(name: &str) {
    let fixture = Fixture::open(name);
    let Encoders { bert, t5 } = encoders(&fixture);
    let check = |component: &str, tokenizer: &TextTokenizer| {
        for text in fixture.golden["texts"][component].as_array().unwrap() {
            let ours = tokenizer.tokens(text["text"].as_str().unwrap(), usize::MAX).unwrap();
            assert_eq!((ours.ids, ours.cut), (ids(&text["input_ids"]), 0), "{component}: {}", text["text"]);
        }
        for prompt in fixture.golden["prompts"].as_array().unwrap() {
            let expected = &prompt["tokens"][component];
            let length = expected["max_length"].as_u64().unwrap() as usize;
            let ours = tokenizer.padded_tokens(prompt["text"].as_str().unwrap(), length).unwrap();
            assert_eq!(ours.ids, ids(&expected["input_ids"]), "{component}: {}", prompt["name"]);
            assert_eq!(ours.cut > 0, prompt["name"] == "long", "{component}: {}", prompt["name"]);
        }
    };
    check("tokenizer", bert.tokenizer());
    check("tokenizer_2", t5.tokenizer());
}

fn check_text_states(name: &str) {
    let fixture = Fixture::open(name);
    let Encoders { bert, t5 } = encoders(&fixture);
    for prompt in fixture.golden["prompts"].as_array().unwrap() {
        let (name, text) = (prompt["name"].as_str().unwrap(), prompt["text"].as_str().unwrap());
        let expected = |part: &str| &fixture.tensors[&format!("prompt.{name}.{part}")];
        let own = expected("bert").narrow(1, 0, words(expected("bert_mask"))).unwrap();
        assert_near(&bert.encode(text).unwrap().states, &own, name);
        let ours = t5.encode_padded_under_mask(text, T5_TOKENS).unwrap();
        assert_eq!(ours.words, words(expected("t5_mask")));
        // Pooling takes the states of padding as well.
        assert_near(&ours.states, expected("t5"), name);
    }
}

fn transformer(fixture: &Fixture, shape: LatentShape) -> HunyuanTransformer {
    let config = TransformerConfig::from_json(&fixture.folder.text("transformer/config.json").unwrap()).unwrap();
    let weights = fixture.folder.weights("transformer").unwrap();
    let parameters = weights.parameters(DType::F32, &Device::Cpu);
    HunyuanTransformer::new(config, &[shape], VAE_SCALE, parameters).unwrap()
}

fn check_forward(name: &str) {
    let fixture = Fixture::open(name);
    let given = |name: &str| &fixture.tensors[&format!("forward.{name}")];
    let latents = given("hidden_states");
    let rows = latents.dim(0).unwrap();
    let transformer = transformer(&fixture, LatentShape::of(latents).unwrap());

    let row = |name: &str, row: usize| given(name).narrow(0, row, 1).unwrap().to_dtype(DType::F32).unwrap();
    let of_rows = |part: &dyn Fn(usize) -> Tensor| Tensor::cat(&(0..rows).map(part).collect::<Vec<_>>(), 0).unwrap();
    let states = of_rows(&|index| {
        let own = row("encoder_hidden_states", index).narrow(1, 0, words(&row("text_embedding_mask", index))).unwrap();
        let t5 = row("encoder_hidden_states_t5", index);
        transformer.text_states(&own, &t5, words(&row("text_embedding_mask_t5", index))).unwrap()
    });
    let pooled = transformer.pool_text(given("encoder_hidden_states_t5")).unwrap();
    assert_near(&pooled, given("pooler"), "pooler");
    let timesteps = given("timestep").to_vec1::<f32>().unwrap();
    let conditioning = ConditioningBatch { states: Some(states), pooled: Some(pooled), ..Default::default() };
    let rows_given = Rows { latents, timesteps: &timesteps, guidance_scales: &[], conditioning: &conditioning };
    let blocks = transformer.block_lists()[0].1;
    let list = ListShape { name: HunyuanTransformer::BLOCK_LIST, blocks, stream_bytes: 0 };
    let mut cache = ImageCache::new(&CachePlan::None, &[list], &CacheBudget::unlimited());
    let output = transformer.forward(&rows_given, &mut [Lane::new(rows, &mut cache)]).unwrap();
    assert_near(&output, given("output"), "output");
}

#[test]
fn tokens_equal_transformers() {
    check_tokens("hunyuan-1.2");
    check_tokens("hunyuan-1.1");
}

#[test]
fn text_states_equal_transformers() {
    check_text_states("hunyuan-1.2");
    check_text_states("hunyuan-1.1");
}

#[test]
fn a_forward_equals_diffusers() {
    check_forward("hunyuan-1.2");
    check_forward("hunyuan-1.1");
}
