//! CLIP and T5 as Stable Diffusion 3 and FLUX use them, against transformers in f32: token ids, states and
//! pooled outputs.

use std::sync::Arc;

use afterimage_checkpoint::ModelFolder;
use candle_core::Tensor;

use super::{ClipClass, ClipTextEncoder, EncoderSource, Residency, T5TextEncoder};
use crate::golden_fixture::{Fixture, assert_near, ids};

/// Tokens of every CLIP text.
const CLIP_TOKENS: usize = 77;

fn clip(fixture: &Fixture, encoder: &str, tokenizer: &str) -> ClipTextEncoder {
    let class = if fixture.golden["pipeline"] == "FluxPipeline" { ClipClass::Plain } else { ClipClass::WithProjection };
    ClipTextEncoder::load(&fixture.text_encoders(), encoder, tokenizer, class).unwrap()
}

fn t5(fixture: &Fixture, encoder: &str, tokenizer: &str) -> T5TextEncoder {
    T5TextEncoder::load(&fixture.text_encoders(), encoder, tokenizer).unwrap()
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
fn offloaded_encoders_give_the_same_states() {
    let fixture = Fixture::open("sd3");
    let residency = Arc::<Residency>::default();
    let always = fixture.text_encoders();
    let offloaded = EncoderSource { offloaded_by: Some(Arc::clone(&residency)), ..always.clone() };
    let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let states = |source: &EncoderSource| {
        let clip = ClipTextEncoder::load(source, "text_encoder_2", "tokenizer_2", ClipClass::WithProjection).unwrap();
        let t5 = T5TextEncoder::load(source, "text_encoder_3", "tokenizer_3").unwrap();
        let _stay = residency.stay();
        let clip = clip.encode("a red apple").unwrap();
        [clip.penultimate, clip.pooled, t5.encode("a red apple", 256).unwrap().states].map(values)
    };
    assert_eq!(states(&always), states(&offloaded));
}

#[test]
fn an_offloaded_encoder_that_could_not_be_loaded_is_refused_at_the_start() {
    let fixture = Fixture::open("sd3");
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("model_index.json"), "{}").unwrap();
    let source = EncoderSource {
        folder: ModelFolder::open(place.path()).unwrap(),
        offloaded_by: Some(Arc::default()),
        ..fixture.text_encoders()
    };
    let copy = |from: &str, to: &str| {
        let to = place.path().join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, fixture.folder.bytes(from).unwrap()).unwrap();
    };
    let load = || ClipTextEncoder::load(&source, "text_encoder", "tokenizer", ClipClass::WithProjection);
    let refusal = || load().err().unwrap().to_string();
    // That of the larger CLIP describes another model.
    copy("text_encoder_2/config.json", "text_encoder/config.json");
    assert!(refusal().contains("tokenizer.json"));
    for file in ["tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json"] {
        copy(file, file);
    }
    assert!(refusal().contains("text_encoder"));
    copy("text_encoder/model.safetensors", "text_encoder/model.safetensors");
    let error = refusal();
    assert!(error.contains("has shape [814, 16], but config.json describes a model that needs [814, 24]"), "{error}");
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

/// As `t5xxl_fp8_e4m3fn.safetensors` and its scaled form are shared.
#[test]
fn states_of_t5_in_fp8_equal_transformers_with_widened_weights() {
    for name in ["t5-plain", "t5-scaled"] {
        let fixture = Fixture::open("sd3").with_folder("text_encoder_3", &format!("fp8/{name}"));
        let t5 = t5(&fixture, "text_encoder_3", "tokenizer_3");
        for prompt in ["short", "long"] {
            let prompts = fixture.golden["prompts"].as_array().unwrap();
            let text = prompts.iter().find(|entry| entry["name"] == prompt).unwrap()["text"].as_str().unwrap();
            let expected = &fixture.tensors[&format!("forward.{prompt}")];
            let found = t5.encode_padded(text, expected.dim(1).unwrap()).unwrap().states;
            assert_near(&found, expected, &format!("{name}, {prompt}"));
        }
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
