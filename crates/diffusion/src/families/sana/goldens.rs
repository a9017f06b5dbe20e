//! The parts of Sana against diffusers and transformers in f32: token ids, states of the text encoder, one forward.

use afterimage_cache::{CacheBudget, CachePlan, ImageCache, Lane, ListShape};
use candle_core::{DType, Device, Tensor};

use super::config::{TransformerConfig, Variant};
use super::family::{INSTRUCTION, SanaPrompts, caption, load};
use super::transformer::SanaTransformer;
use crate::LatentShape;
use crate::families::{Conditioning, ConditioningBatch, EncodedText, FamilyParts, PromptEncoder, Rows, Transformer};
use crate::golden_fixture::{Fixture, assert_near, ids};
use crate::layers::KnownRows;
use crate::text::{DecoderKind, DecoderParts, DecoderTextEncoder};
use crate::vae::{Vae, VaeClass};

const NAMES: [(&str, Variant); 3] =
    [("sana", Variant::Guided), ("sana-1.5", Variant::Guided), ("sana-sprint", Variant::Sprint)];
const TEXT_TOKENS: usize = 300;

fn text_encoder(fixture: &Fixture) -> DecoderTextEncoder {
    let parts = DecoderParts {
        kind: DecoderKind::Gemma2,
        encoder: "text_encoder",
        tokenizer: "tokenizer",
        hidden_states: &[-1],
    };
    DecoderTextEncoder::load(&fixture.text_encoders(), &parts).unwrap()
}

fn transformer(fixture: &Fixture, shape: LatentShape) -> SanaTransformer {
    let config = TransformerConfig::from_json(&fixture.folder.text("transformer/config.json").unwrap()).unwrap();
    let weights = fixture.folder.weights("transformer").unwrap();
    SanaTransformer::new(config, &[shape], &weights.parameters(DType::F32, &Device::Cpu)).unwrap()
}

#[test]
fn tokens_equal_transformers() {
    for (name, _) in NAMES {
        let fixture = Fixture::open(name);
        let encoder = text_encoder(&fixture);
        let tokens = |text: &str, most| encoder.tokenizer().tokens(text, most).unwrap();
        for text in fixture.golden["texts"]["tokenizer"].as_array().unwrap() {
            let ours = tokens(text["text"].as_str().unwrap(), usize::MAX);
            assert_eq!((ours.ids, ours.cut), (ids(&text["input_ids"]), 0), "{}", text["text"]);
        }
        let most = tokens(INSTRUCTION.before, usize::MAX).ids.len() + TEXT_TOKENS - 2;
        for prompt in fixture.golden["prompts"].as_array().unwrap() {
            let caption = caption(prompt["text"].as_str().unwrap());
            let plain = &prompt["tokens"]["tokenizer"];
            let words = ids(&plain["attention_mask"]).iter().sum::<u32>() as usize;
            assert_eq!(tokens(&caption, TEXT_TOKENS).ids, ids(&plain["input_ids"])[..words], "{}", prompt["name"]);
            let ours = tokens(&INSTRUCTION.apply(&caption), most);
            assert_eq!(ours.ids, ids(&prompt["instructed_ids"]), "{}", prompt["name"]);
            assert_eq!(ours.cut > 0, prompt["name"] == "long", "{}", prompt["name"]);
        }
    }
}

#[test]
fn text_states_equal_transformers() {
    for (name, _) in NAMES {
        let fixture = Fixture::open(name);
        let shape = LatentShape::of(&fixture.tensors["forward.hidden_states"]).unwrap();
        let prompts =
            SanaPrompts::new(transformer(&fixture, shape).into(), text_encoder(&fixture), TEXT_TOKENS, &Device::Cpu);
        let prompts = prompts.unwrap();
        for prompt in fixture.golden["prompts"].as_array().unwrap() {
            let (name, text) = (prompt["name"].as_str().unwrap(), prompt["text"].as_str().unwrap());
            let caption = caption(text);
            let expected = |part: &str| &fixture.tensors[&format!("prompt.{name}.{part}")];
            assert_near(&prompts.instructed(&caption).unwrap().states, expected("states"), name);
            assert_near(&prompts.plain(&caption).unwrap().states, expected("plain"), name);
            let Conditioning::Text(EncodedText { states, bias, cuts, .. }) = prompts.encode(text).unwrap() else {
                panic!("prompts are texts");
            };
            assert_eq!((states.dim(1).unwrap(), bias.unwrap().dims()), (TEXT_TOKENS, &[1, TEXT_TOKENS][..]));
            let said = cuts.iter().map(ToString::to_string).collect::<String>();
            assert_eq!(said.contains("takes 300 tokens"), name == "long", "{said}");
        }
    }
}

#[test]
fn a_forward_equals_diffusers() {
    for (name, variant) in NAMES {
        let fixture = Fixture::open(name);
        let given = |name: &str| &fixture.tensors[&format!("forward.{name}")];
        let latents = given("hidden_states");
        let rows = latents.dim(0).unwrap();
        let transformer = transformer(&fixture, LatentShape::of(latents).unwrap());
        let captions = transformer.project_captions(given("encoder_hidden_states")).unwrap();
        assert_near(&captions, given("caption_norm"), "caption_norm");
        let mask = given("encoder_attention_mask").to_dtype(DType::F32).unwrap();
        let bias = mask.affine(10_000.0, -10_000.0).unwrap();
        let conditioning = ConditioningBatch { states: Some(captions), bias: Some(bias), ..Default::default() };
        let values = |name: &str| -> Vec<f32> {
            given(name).to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let scales: Vec<f32> = match variant {
            Variant::Guided => Vec::new(),
            Variant::Sprint => values("guidance").iter().map(|told| told / 0.1).collect(),
        };
        let timesteps = values("timestep");
        let rows_given = Rows { latents, timesteps: &timesteps, guidance_scales: &scales, conditioning: &conditioning };
        let blocks = transformer.block_lists()[0].1;
        let list = ListShape { name: SanaTransformer::BLOCK_LIST, blocks, stream_bytes: 0 };
        let mut cache = ImageCache::new(&CachePlan::None, &[list], &CacheBudget::unlimited());
        let mut lanes = [Lane::new(rows, &mut cache)];
        // As diffusers calls it: timesteps are scaled already, and samples are those of the line.
        let output = transformer.velocity(latents, &timesteps, &rows_given, &mut lanes).unwrap();
        assert_near(&output, given("output"), name);
    }
}

/// Of a folder whose scheduler is of this class, or whose transformer's configuration has another key.
fn refusal(name: &str, variant: Variant, scheduler: &str) -> String {
    let fixture = Fixture::open(name);
    let place = tempfile::tempdir().unwrap();
    let model = fixture.folder.path().unwrap();
    for entry in std::fs::read_dir(model).unwrap().map(Result::unwrap) {
        if entry.file_name() != "scheduler" {
            std::os::unix::fs::symlink(entry.path(), place.path().join(entry.file_name())).unwrap();
        }
    }
    std::fs::create_dir(place.path().join("scheduler")).unwrap();
    std::fs::write(place.path().join("scheduler/scheduler_config.json"), scheduler).unwrap();
    let folder = afterimage_checkpoint::ModelFolder::open(place.path()).unwrap();
    let index = std::fs::read_to_string(model.join("model_index.json")).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
    index.as_object_mut().unwrap().remove("scheduler");
    std::fs::remove_file(place.path().join("model_index.json")).unwrap();
    std::fs::write(place.path().join("model_index.json"), index.to_string()).unwrap();
    let index = afterimage_checkpoint::ModelIndex::read(&folder).unwrap();
    let vae = Vae::load(&folder, &index, VaeClass::DeepCompression, DType::F32, &Device::Cpu).unwrap();
    let parts = FamilyParts {
        folder: &folder,
        index: &index,
        buckets: &[],
        max_pixels: usize::MAX,
        vae: &vae,
        max_sequence_length: None,
        dtype: DType::F32,
        quantization: afterimage_checkpoint::Quantization::None,
        device: &Device::Cpu,
        text_encoders: fixture.text_encoders(),
    };
    load(&parts, variant).err().unwrap().to_string()
}

#[test]
fn pipelines_refuse_each_others_parts() {
    let scm = r#"{"_class_name": "SCMScheduler"}"#;
    let flow = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#;
    for (name, variant, scheduler, said) in [
        ("sana", Variant::Guided, scm, "not sampled with SCMScheduler"),
        ("sana-sprint", Variant::Sprint, flow, "sampled with SCMScheduler"),
        ("sana", Variant::Sprint, scm, "`guidance_embeds` is false"),
        ("sana-sprint", Variant::Guided, flow, "`guidance_embeds` is true"),
    ] {
        let error = refusal(name, variant, scheduler);
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn places_on_the_arc_are_shares_of_noise() {
    let places =
        super::arc::ArcPlaces::of(&[std::f32::consts::FRAC_PI_4, 0.0], &KnownRows::new(), &Device::Cpu).unwrap();
    assert!((places.shares[0] - 0.5).abs() < 1e-6 && places.shares[1] == 0.0);
    let ones = Tensor::ones((2, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
    let line = places.to_line(&ones).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!((line[0] - 0.5f32.sqrt()).abs() < 1e-6 && line[1] == 1.0, "{line:?}");
}
