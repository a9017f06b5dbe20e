//! CLIP and T5 as Stable Diffusion 3 and FLUX use them, against transformers in f32: token ids, states and
//! pooled outputs.

use candle_core::{DType, Device};

use super::{ClipTextEncoder, T5TextEncoder};
use crate::golden_fixture::{Fixture, assert_near, ids};

/// Tokens of every CLIP text.
const CLIP_TOKENS: usize = 77;

fn clip(fixture: &Fixture, encoder: &str, tokenizer: &str) -> ClipTextEncoder {
    ClipTextEncoder::load(&fixture.folder, encoder, tokenizer, DType::F32, &Device::Cpu).unwrap()
}

fn t5(fixture: &Fixture, encoder: &str, tokenizer: &str) -> T5TextEncoder {
    T5TextEncoder::load(&fixture.folder, encoder, tokenizer, DType::F32, &Device::Cpu).unwrap()
}

/// Unusual texts as they are, and the prompts padded and cut.
fn check_tokens(fixture: &Fixture, tokenizer: &str, tokenize: impl Fn(&str, Option<usize>) -> (Vec<u32>, usize)) {
    for text in fixture.golden["texts"][tokenizer].as_array().unwrap() {
        let ours = tokenize(text["text"].as_str().unwrap(), None);
        assert_eq!(ours, (ids(&text["input_ids"]), 0), "{tokenizer}: {}", text["text"]);
    }
    for prompt in fixture.golden["prompts"].as_array().unwrap() {
        let expected = &prompt["tokens"][tokenizer];
        let length = expected["max_length"].as_u64().unwrap() as usize;
        let (ours, cut) = tokenize(prompt["text"].as_str().unwrap(), Some(length));
        assert_eq!(ours, ids(&expected["input_ids"]), "{tokenizer}: {}", prompt["name"]);
        assert_eq!(cut > 0, prompt["name"] == "long", "{tokenizer}: {}", prompt["name"]);
    }
}

fn check_clip_tokens(fixture: &Fixture, encoder: &str, tokenizer: &str) {
    let clip = clip(fixture, encoder, tokenizer);
    assert_eq!(clip.limit().max_tokens, CLIP_TOKENS);
    check_tokens(fixture, tokenizer, |text, length| {
        let tokens = match length {
            Some(length) => clip.tokenizer().padded_tokens(text, length),
            None => clip.tokenizer().tokens(text, usize::MAX),
        };
        tokens.map(|tokens| (tokens.ids, tokens.cut)).unwrap()
    });
}

fn check_t5_tokens(fixture: &Fixture, encoder: &str, tokenizer: &str) {
    let t5 = t5(fixture, encoder, tokenizer);
    check_tokens(fixture, tokenizer, |text, length| {
        let tokens = match length {
            Some(length) => t5.tokenizer().padded_tokens(text, length),
            None => t5.tokenizer().tokens(text, usize::MAX),
        };
        tokens.map(|tokens| (tokens.ids, tokens.cut)).unwrap()
    });
}

/// Columns of the states and of the pooled output: first those of CLIP, then those of the larger one.
fn check_sd3_states(name: &str) {
    let fixture = Fixture::open(name);
    let clips = [clip(&fixture, "text_encoder", "tokenizer"), clip(&fixture, "text_encoder_2", "tokenizer_2")];
    let t5 = t5(&fixture, "text_encoder_3", "tokenizer_3");
    for prompt in fixture.golden["prompts"].as_array().unwrap() {
        let (name, text) = (prompt["name"].as_str().unwrap(), prompt["text"].as_str().unwrap());
        let states = &fixture.tensors[&format!("prompt.{name}.states")];
        let pooled = &fixture.tensors[&format!("prompt.{name}.pooled")];
        let (mut column, mut pooled_column) = (0, 0);
        for clip in &clips {
            let ours = clip.encode(text).unwrap();
            let expected = states.narrow(1, 0, CLIP_TOKENS).unwrap().narrow(2, column, clip.dim()).unwrap();
            assert_near(&ours.penultimate, &expected, name);
            assert_near(&ours.pooled, &pooled.narrow(1, pooled_column, clip.pooled_dim()).unwrap(), name);
            column += clip.dim();
            pooled_column += clip.pooled_dim();
        }
        assert_eq!(pooled_column, pooled.dim(1).unwrap());
        let t5_tokens = states.dim(1).unwrap() - CLIP_TOKENS;
        let expected = states.narrow(1, CLIP_TOKENS, t5_tokens).unwrap();
        assert_near(&t5.encode_padded(text, t5_tokens).unwrap().states, &expected, name);
    }
}

fn check_flux_states(name: &str) {
    let fixture = Fixture::open(name);
    let (clip, t5) = (clip(&fixture, "text_encoder", "tokenizer"), t5(&fixture, "text_encoder_2", "tokenizer_2"));
    for prompt in fixture.golden["prompts"].as_array().unwrap() {
        let (name, text) = (prompt["name"].as_str().unwrap(), prompt["text"].as_str().unwrap());
        let states = &fixture.tensors[&format!("prompt.{name}.states")];
        let pooled = &fixture.tensors[&format!("prompt.{name}.pooled")];
        assert_near(&clip.encode(text).unwrap().pooled, pooled, name);
        let ours = t5.encode_padded(text, states.dim(1).unwrap()).unwrap();
        assert_near(&ours.states, states, name);
    }
}

#[test]
fn clip_tokens_equal_transformers() {
    for name in ["sd3", "sd3.5"] {
        let fixture = Fixture::open(name);
        check_clip_tokens(&fixture, "text_encoder", "tokenizer");
        check_clip_tokens(&fixture, "text_encoder_2", "tokenizer_2");
    }
    for name in ["flux-dev", "flux-schnell"] {
        check_clip_tokens(&Fixture::open(name), "text_encoder", "tokenizer");
    }
}

#[test]
fn t5_tokens_equal_transformers() {
    for name in ["sd3", "sd3.5"] {
        check_t5_tokens(&Fixture::open(name), "text_encoder_3", "tokenizer_3");
    }
    for name in ["flux-dev", "flux-schnell"] {
        check_t5_tokens(&Fixture::open(name), "text_encoder_2", "tokenizer_2");
    }
}

#[test]
fn states_of_stable_diffusion_3_equal_diffusers() {
    check_sd3_states("sd3");
    check_sd3_states("sd3.5");
}

#[test]
fn states_of_flux_equal_diffusers() {
    check_flux_states("flux-dev");
    check_flux_states("flux-schnell");
}
