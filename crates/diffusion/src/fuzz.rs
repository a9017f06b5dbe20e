//! What fuzzers call, and what the tests replay: each reads bytes of strangers as the program does.
//!
//! Whatever comes, the outcome is a value or an error. `fuzz/` has the targets and their seeds.

use afterimage_checkpoint::{ModelIndex, Parameters};
use candle_core::DType;
use serde_json::{Map, Value};

use crate::families::{FAMILIES, LabelPolicy, Labels, build_transformer, entry_of};
use crate::schedulers::{FlowSigmas, Schedule, SchedulerConfig, SchedulerKind};
use crate::text::{build_encoder, fuzz as text};
use crate::vae::build_decoder;

/// More layers ask for more of the same tensors.
const MAX_LAYERS: u64 = 3;
/// Keys with numbers of layers.
const LAYERS: [&str; 4] = ["num_layers", "num_single_layers", "num_hidden_layers", "layers_per_block"];
/// Names of classes that no family has of its own.
const ENCODERS: [&str; 4] = ["BertModel", "T5EncoderModel", "CLIPTextModel", "CLIPTextModelWithProjection"];

/// `tokenizer.json`, of any kind.
pub fn tokenizer(bytes: &[u8]) {
    text::tokenizer(bytes);
}

/// `spiece.model`
pub fn sentence_piece(bytes: &[u8]) {
    text::sentence_piece(bytes);
}

/// The configuration of any component, and what is built from it; no weights are there.
pub fn model_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    scheduler(text);
    // Whatever class it is of: the first one's defaults apply.
    let classes = FAMILIES.iter().flat_map(|entry| entry.transformers);
    let config = with_few_layers(text);
    for class in classes {
        let _ = build_transformer(class, &config, Parameters::recording(DType::F32).0);
    }
    for class in ENCODERS {
        let _ = build_encoder(class, &config, &Parameters::recording(DType::F32).0);
    }
    for class in ["AutoencoderKL", "AutoencoderKLQwenImage", "AutoencoderKLFlux2"] {
        let _ = build_decoder(class, &config, &Parameters::recording(DType::F32).0);
    }
}

/// `model_index.json`, and the labels in it.
pub fn model_index(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(index) = ModelIndex::parse("model_index.json".to_owned(), text) else { return };
    let _ = entry_of(&index);
    let labels = Labels::new(index.id2label, 1000);
    labels.ambiguities();
    for prompt in ["red apple", "class:7", "\u{df}"] {
        let _ = labels.choose(prompt, LabelPolicy::Nearest);
    }
}

fn scheduler(text: &str) {
    let Ok(config) = SchedulerConfig::from_json(text) else { return };
    let _ = (config.kind(), config.kinds());
    for kind in SchedulerKind::ALL {
        for (steps, sigmas) in [(1, FlowSigmas::Scheduler), (7, FlowSigmas::Even), (200, FlowSigmas::Scheduler)] {
            let _ = config.build(kind, &Schedule { steps, image_tokens: 1024, sigmas });
        }
    }
}

/// The same configuration with a few layers, however many it has.
fn with_few_layers(text: &str) -> String {
    let Ok(mut keys) = serde_json::from_str::<Map<String, Value>>(text) else { return text.to_owned() };
    for key in LAYERS {
        if let Some(layers) = keys.get(key).and_then(Value::as_u64).filter(|layers| *layers > MAX_LAYERS) {
            keys.insert(key.to_owned(), (layers % MAX_LAYERS + 1).into());
        } else if !keys.contains_key(key) {
            keys.insert(key.to_owned(), 1.into());
        }
    }
    Value::Object(keys).to_string()
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn seeds_are_read() {
        replay("tokenizer", super::tokenizer);
        replay("sentence_piece", super::sentence_piece);
        replay("model_config", super::model_config);
        replay("model_index", super::model_index);
    }
}
