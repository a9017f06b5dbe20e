//! Decoders against transformers in f32: token ids and hidden states.

use std::sync::Arc;

use candle_core::Tensor;

use super::{DecoderKind, DecoderParts, DecoderTextEncoder, EncoderSource, Residency};
use crate::golden_fixture::{Fixture, assert_near, ids};

/// Folder and kind.
const ALL: [(&str, DecoderKind); 5] = [
    ("qwen3", DecoderKind::Qwen3),
    ("qwen2.5-vl", DecoderKind::Qwen25Vl),
    ("gemma2", DecoderKind::Gemma2),
    ("mistral", DecoderKind::Mistral),
    ("llama", DecoderKind::Llama),
];

fn open(name: &str) -> Fixture {
    Fixture::open(&format!("decoders/{name}"))
}

fn load(source: &EncoderSource, kind: DecoderKind, hidden_states: &[isize]) -> DecoderTextEncoder {
    let parts = DecoderParts { kind, encoder: "text_encoder", tokenizer: "tokenizer", hidden_states };
    DecoderTextEncoder::load(source, &parts).unwrap()
}

struct Prompt<'a> {
    name: &'a str,
    text: &'a str,
    max_length: usize,
    ids: Vec<u32>,
    /// `[layers + 1, max length, hidden]`
    states: &'a Tensor,
}

fn prompts(fixture: &Fixture) -> Vec<Prompt<'_>> {
    let prompts = fixture.golden["prompts"].as_array().unwrap().iter();
    let prompt = prompts.map(|prompt| Prompt {
        name: prompt["name"].as_str().unwrap(),
        text: prompt["text"].as_str().unwrap(),
        max_length: prompt["max_length"].as_u64().unwrap() as usize,
        ids: ids(&prompt["input_ids"]),
        states: &fixture.tensors[&format!("{}.states", prompt["name"].as_str().unwrap())],
    });
    prompt.collect()
}

#[test]
fn tokens_equal_transformers() {
    for (name, kind) in ALL {
        let fixture = open(name);
        let encoder = load(&fixture.text_encoders(), kind, &[-1]);
        for text in fixture.golden["texts"].as_array().unwrap() {
            let ours = encoder.tokenizer().tokens(text["text"].as_str().unwrap(), usize::MAX).unwrap();
            assert_eq!((ours.ids, ours.cut), (ids(&text["input_ids"]), 0), "{name}: {}", text["text"]);
        }
        for prompt in prompts(&fixture) {
            let ours = encoder.tokenizer().tokens(prompt.text, prompt.max_length).unwrap();
            assert_eq!(ours.ids, prompt.ids, "{name}: {}", prompt.name);
            assert_eq!(ours.cut > 0, prompt.name == "long", "{name}: {}", prompt.name);
        }
    }
}

/// Padding attends to the text, so its states count as well.
#[test]
fn states_of_padded_texts_equal_transformers() {
    for (name, kind) in ALL {
        let fixture = open(name);
        let layers = fixture.tensors["short.states"].dim(0).unwrap() as isize - 1;
        let all: Vec<_> = (0..=layers).collect();
        let encoder = load(&fixture.text_encoders(), kind, &all);
        for prompt in prompts(&fixture) {
            let ours = encoder.encode_padded(prompt.text, prompt.max_length).unwrap();
            assert_eq!(ours.length, prompt.ids.len());
            let expected: Vec<_> = (0..=layers as usize).map(|state| prompt.states.get(state).unwrap()).collect();
            let expected = Tensor::cat(&expected, 1).unwrap().unsqueeze(0).unwrap();
            // Padding from which no text is in the window sees nothing, of which every implementation makes its own.
            let seen = if kind == DecoderKind::Gemma2 { prompt.ids.len() } else { prompt.max_length };
            let near = |states: &Tensor| states.narrow(1, 0, seen).unwrap();
            assert_near(&near(&ours.states), &near(&expected), &format!("{name}: {}", prompt.name));
        }
    }
}

#[test]
fn only_what_is_read_is_run_and_padding_changes_nothing() {
    for (name, kind) in ALL {
        let fixture = open(name);
        let encoder = load(&fixture.text_encoders(), kind, &[-2]);
        assert_eq!(encoder.dim(), 32);
        for prompt in prompts(&fixture) {
            let ours = encoder.encode(prompt.text, prompt.max_length).unwrap();
            let state = prompt.states.dim(0).unwrap() - 2;
            let expected = prompt.states.get(state).unwrap().narrow(0, 0, prompt.ids.len()).unwrap();
            assert_near(&ours.states, &expected.unsqueeze(0).unwrap(), &format!("{name}: {}", prompt.name));
        }
    }
}

#[test]
fn an_offloaded_decoder_gives_the_same_states() {
    let fixture = open("qwen3");
    let residency = Arc::<Residency>::default();
    let offloaded = EncoderSource { offloaded_by: Some(Arc::clone(&residency)), ..fixture.text_encoders() };
    let states = |source: &EncoderSource| {
        let _stay = residency.stay();
        let encoded = load(source, DecoderKind::Qwen3, &[1, 3]).encode("a red apple", 20).unwrap();
        encoded.states.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(states(&offloaded), states(&fixture.text_encoders()));
}

#[test]
fn states_that_a_model_has_not_are_refused() {
    let fixture = open("qwen3");
    let parts = DecoderParts {
        kind: DecoderKind::Qwen3,
        encoder: "text_encoder",
        tokenizer: "tokenizer",
        hidden_states: &[9, 18, 27],
    };
    let error = DecoderTextEncoder::load(&fixture.text_encoders(), &parts).err().unwrap().to_string();
    assert!(error.ends_with("text_encoder has 4 layers; states [9, 18, 27] are read"), "{error}");
    let parts = DecoderParts { kind: DecoderKind::Gemma2, ..parts };
    let error = DecoderTextEncoder::load(&fixture.text_encoders(), &parts).err().unwrap().to_string();
    assert!(error.contains("`text_encoder` is Qwen3Model; supported: Gemma2Model, Gemma2ForCausalLM"), "{error}");
}
