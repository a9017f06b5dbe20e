use std::sync::Arc;

use afterimage_cache::{CacheBudget, CachePlan, ImageCache, Lane, ListShape};
use afterimage_checkpoint::{ModelFolder, ModelIndex, Parameters, Quantization};
use candle_core::{DType, Device, Tensor};

use super::flux2::Flux2Variant;
use super::*;
use crate::families::{ConditioningBatch, FamilyParts, LoadedFamily, Rows, entry_of};
use crate::text::EncoderSource;
use crate::vae::Vae;
use crate::{Canvas, WantedCanvas};

fn written(seed: u64, precision: Precision) -> (tempfile::TempDir, ModelFolder) {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("tiny-dit");
    write_random_model(RandomModelKind::TinyDit, &out, seed, precision).unwrap();
    let folder = ModelFolder::open(&out).unwrap();
    (parent, folder)
}

fn values(folder: &ModelFolder, component: &str, name: &str) -> Vec<f32> {
    let builder = folder.weights(component).unwrap().var_builder(DType::F32, &Device::Cpu);
    let tensor = builder.get_unchecked(name).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_folder_opens_and_has_the_shapes_of_its_config() {
    let (_parent, folder) = written(0, Precision::F32);
    let transformer = folder.weights("transformer").unwrap();
    let table = "transformer_blocks.3.norm1.emb.class_embedder.embedding_table.weight";
    assert_eq!(transformer.shape(table), Some([1001, 32].as_slice()));
    assert_eq!(transformer.shape("proj_out_2.bias"), Some([32].as_slice()));
    // Per block 5 of the embedders, 2 of the modulation, 8 of the attention, 4 of the feed-forward.
    assert_eq!(transformer.names().count(), 2 + 4 * 19 + 4);
    let vae = folder.weights("vae").unwrap();
    let shortcut = "decoder.up_blocks.1.resnets.0.conv_shortcut.weight";
    assert_eq!(vae.shape(shortcut), Some([8, 16, 1, 1].as_slice()));
    assert!(folder.contains("scheduler/scheduler_config.json"));
}

#[test]
fn weights_are_spread_and_biases_zero() {
    let (_parent, folder) = written(0, Precision::F32);
    let weight = values(&folder, "transformer", "proj_out_1.weight");
    let bound = 1.0 / 32f32.sqrt();
    assert!(weight.iter().all(|value| value.abs() <= bound));
    let mean_square = weight.iter().map(|value| value * value).sum::<f32>() / weight.len() as f32;
    // A uniform distribution has a third of the bound's square; 2048 values come within 10 %.
    assert!((mean_square / (bound * bound / 3.0) - 1.0).abs() < 0.1);
    assert!(values(&folder, "transformer", "proj_out_1.bias").iter().all(|value| *value == 0.0));
    assert!(values(&folder, "vae", "decoder.conv_norm_out.weight").iter().all(|value| *value == 1.0));
}

#[test]
fn the_seed_decides() {
    let name = "transformer_blocks.0.attn1.to_q.weight";
    let of = |seed| values(&written(seed, Precision::F32).1, "transformer", name);
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn half_precision_rounds_the_same_values() {
    let name = "proj_out_2.weight";
    let full = values(&written(3, Precision::F32).1, "transformer", name);
    let half = values(&written(3, Precision::F16).1, "transformer", name);
    let rounded: Vec<f32> = full.iter().map(|value| half::f16::from_f32(*value).to_f32()).collect();
    assert_eq!(half, rounded);
    assert_eq!(written(3, Precision::Bf16).1.weights("vae").unwrap().bytes() * 2, {
        written(3, Precision::F32).1.weights("vae").unwrap().bytes()
    });
}

/// diffusers and transformers: `sum(t.numel() for t in model.state_dict().values())`
#[test]
fn models_have_their_published_sizes() {
    const T5_XXL: usize = 4_762_310_656;
    const QWEN3_4B: usize = 4_022_468_096;
    const GEMMA2_2B: usize = 2_614_341_888;
    const DC_AE: usize = 312_250_275;
    for (kind, sizes) in [
        (RandomModelKind::DitXl2At256, vec![749_826_464, 83_653_863]),
        (RandomModelKind::PixArtSigma, vec![610_856_096, 83_653_863, T5_XXL]),
        (RandomModelKind::Sd3Medium, vec![2_084_951_104, 83_819_683, 123_650_304, 694_659_840, T5_XXL]),
        (RandomModelKind::FluxDev, vec![11_901_408_320, 83_819_683, 123_060_480, T5_XXL]),
        (RandomModelKind::FluxSchnell, vec![11_891_178_560, 83_819_683, 123_060_480, T5_XXL]),
        // Of the text encoder without `vision_tower`, `multi_modal_projector` and `lm_head`.
        (RandomModelKind::Flux2Dev, vec![32_223_281_152, 84_046_372, 22_901_314_560]),
        (RandomModelKind::Flux2Klein4b, vec![3_875_544_576, 84_046_372, QWEN3_4B]),
        (RandomModelKind::Flux2Klein9b, vec![9_078_581_248, 84_046_372, 8_190_735_360]),
        (RandomModelKind::ZImageTurbo, vec![6_154_908_736, 83_819_683, QWEN3_4B]),
        (RandomModelKind::ZImage, vec![6_154_908_736, 83_819_683, QWEN3_4B]),
        (RandomModelKind::HunyuanDit, vec![1_499_952_032, 83_653_863, 352_035_840, 1_669_958_656]),
        // Of the text encoder without `visual` and `lm_head`.
        (RandomModelKind::QwenImage, vec![20_430_401_088, 126_892_531, 7_070_619_136]),
        (RandomModelKind::Sana15, vec![1_604_641_952, DC_AE, GEMMA2_2B]),
        (RandomModelKind::SanaSprint, vec![1_610_237_472, DC_AE, GEMMA2_2B]),
    ] {
        let found: Vec<_> =
            kind.recipe().components.iter().map(|component| component.tensors().unwrap().elements()).collect();
        assert_eq!(found, sizes, "{kind:?}");
    }
}

const TINY_T5: T5Config = T5Config { size: 256, heads: 2, head_size: 8, inner_size: 32, layers: 2, tokens: 128 };

fn tiny_clip(has_projection: bool) -> ClipConfig {
    ClipConfig { size: 256, heads: 2, inner_size: 32, layers: 2, has_projection, ..ClipConfig::large(true) }
}

/// Every tensor, configuration and tokenizer is one that the model reads.
fn assert_it_makes_pictures(recipe: &Recipe) {
    let place = tempfile::tempdir().unwrap();
    recipe.write(place.path(), 0, DType::F32).unwrap();
    let folder = ModelFolder::open(place.path()).unwrap();
    let index = Arc::new(ModelIndex::read(&folder).unwrap());
    let entry = entry_of(&index).unwrap();
    let vae = Vae::load(&folder, &index, entry.vae, DType::F32, &Device::Cpu).unwrap();
    let text_encoders = EncoderSource {
        folder: folder.clone(),
        index: Arc::clone(&index),
        device: Device::Cpu,
        dtype: DType::F32,
        states_device: Device::Cpu,
        states_dtype: DType::F32,
        offloaded_by: None,
    };
    let parts = FamilyParts {
        folder: &folder,
        index: &index,
        buckets: &[WantedCanvas::Exactly(Canvas::picture(64, 64))],
        max_pixels: usize::MAX,
        vae: &vae,
        max_sequence_length: None,
        dtype: DType::F32,
        quantization: Quantization::None,
        device: &Device::Cpu,
        text_encoders,
    };
    let LoadedFamily { prompts, denoiser, facts, .. } = (entry.load)(&parts).unwrap();
    let side = 64 / vae.scale();
    let latents = Tensor::ones((1, facts.latent_channels, side, side), DType::F32, &Device::Cpu).unwrap();
    let conditioning = ConditioningBatch::gather(&[&prompts.encode("A cat!").unwrap()]).unwrap();
    let rows = Rows { latents: &latents, timesteps: &[500.0], guidance_scales: &[3.5], conditioning: &conditioning };
    let transformer = &denoiser.phases()[0].transformer;
    let lists = transformer.block_lists();
    let lists: Vec<_> =
        lists.iter().map(|(name, blocks)| ListShape { name, blocks: *blocks, stream_bytes: 0 }).collect();
    let mut cache = ImageCache::new(&CachePlan::None, &lists, &CacheBudget::unlimited());
    cache.begin_forward(false);
    let prediction = transformer.forward(&rows, &mut [Lane::new(1, &mut cache)]).unwrap();
    let latents = prediction.narrow(1, 0, facts.latent_channels).unwrap();
    assert_eq!(vae.decode(&latents).unwrap().dims(), [1, 3, 64, 64]);
}

#[test]
fn pixart_sigma_runs() {
    let config = PixArtConfig { layers: 2, heads: 2, head_dim: 16, sample_size: 8, ..PixArtConfig::sigma_xl() };
    assert_it_makes_pictures(&config.model(&TINY_T5, &VaeConfig::tiny()));
}

#[test]
fn sd3_runs() {
    let config = Sd3Config { layers: 2, heads: 2, head_dim: 16, sample_size: 8, positions: 12 };
    let clips = [&tiny_clip(true), &tiny_clip(true)];
    // The larger CLIP fills texts up to the width of both.
    let t5 = T5Config { size: 512, ..TINY_T5 };
    assert_it_makes_pictures(&config.model(clips, &t5, &VaeConfig::tiny_with_16_channels()));
}

#[test]
fn hunyuan_dit_runs() {
    let config = HunyuanConfig { layers: 6, heads: 2, head_dim: 16, sample_size: 8, pooled_size: 16 };
    let bert = BertConfig { size: 32, heads: 2, inner_size: 48, layers: 2, tokens: 256 };
    // Positions are those of a VAE of four levels.
    assert_it_makes_pictures(&config.model(&bert, &TINY_T5, &VaeConfig::tiny_of_four_levels()));
}

#[test]
fn flux_runs_from_its_gguf_file() {
    for has_guidance in [true, false] {
        let config =
            FluxConfig { layers: 2, single_layers: 2, heads: 2, head_dim: 128, axes: [16, 56, 56], has_guidance };
        assert_it_makes_pictures(&config.model(&tiny_clip(false), &TINY_T5, &VaeConfig::tiny_with_16_channels()));
    }
}

#[test]
fn z_image_runs_as_diffusers_saves_it_and_from_its_gguf_file() {
    for is_quantised in [false, true] {
        let config = ZImageConfig {
            layers: 2,
            refiner_layers: 1,
            heads: 2,
            axes: [32, 48, 48],
            is_quantised,
            ..ZImageConfig::turbo()
        };
        let text_encoder = Qwen3Config {
            size: 64,
            inner_size: 96,
            layers: 2,
            heads: 2,
            key_value_heads: 1,
            head_size: 8,
            tokens: 261,
            has_head: false,
        };
        assert_it_makes_pictures(&config.model(&text_encoder, &VaeConfig::tiny_with_16_channels()));
    }
}

#[test]
fn flux2_klein_runs() {
    for (is_distilled, has_head) in [(true, false), (false, true)] {
        let variant = Flux2Variant::Klein { is_distilled };
        let config = Flux2Config { layers: 1, single_layers: 2, heads: 2, variant };
        let text_encoder = Qwen3Config {
            size: 64,
            inner_size: 96,
            layers: 4,
            heads: 2,
            key_value_heads: 1,
            head_size: 8,
            tokens: 261,
            has_head,
        };
        assert_it_makes_pictures(&config.klein_model(&text_encoder, &VaeConfig::tiny_flux2()));
    }
}

/// Hidden states 10, 20 and 30 of the text encoder are read.
#[test]
fn flux2_dev_runs_from_its_gguf_file() {
    let config = Flux2Config { layers: 1, single_layers: 2, heads: 2, variant: Flux2Variant::Dev };
    let text_encoder = MistralConfig {
        size: 256,
        inner_size: 64,
        layers: 30,
        heads: 2,
        key_value_heads: 1,
        head_size: 8,
        tokens: 276,
    };
    assert_it_makes_pictures(&config.dev_model(&text_encoder, &VaeConfig::tiny_flux2()));
}

#[test]
fn qwen_image_runs_from_its_gguf_file() {
    let config = QwenImageConfig { layers: 2, heads: 2, head_dim: 128, axes: [16, 56, 56] };
    let text = QwenVlConfig { size: 256, inner_size: 64, layers: 2, heads: 2, key_value_heads: 1, tokens: 300 };
    let vae = CausalVaeConfig { channels: 8, layers_per_stage: 1, ..CausalVaeConfig::qwen_image() };
    assert_it_makes_pictures(&config.model(&text, &vae));
}

#[test]
fn sana_runs() {
    for is_sprint in [false, true] {
        let config =
            SanaConfig { layers: 2, heads: 4, head_dim: 8, cross_heads: 2, sample_size: 8, ..SanaConfig::sprint() };
        let text_encoder = GemmaConfig {
            size: 32,
            inner_size: 48,
            layers: 2,
            heads: 2,
            key_value_heads: 1,
            head_size: 8,
            tokens: 300,
        };
        let vae = DeepVaeConfig {
            channels: vec![8, 8, 16, 32],
            attends_from: 2,
            encoder_layers: vec![1, 2, 1, 1],
            decoder_layers: 1,
            latent_channels: 32,
            head_dim: 8,
        };
        assert_it_makes_pictures(&SanaConfig { is_sprint, ..config }.model(&text_encoder, &vae));
    }
}

/// Quantised weights are spread like others.
#[test]
fn blocks_are_spread() {
    let (parameters, recorder) = Parameters::recording(DType::F32);
    parameters.matrix(64, 256, "transformer_blocks.0.x.weight").unwrap();
    let place = tempfile::tempdir().unwrap();
    recorder.tensors().write_gguf(&place.path().join("x.gguf"), "flux", 0).unwrap();
    std::fs::write(place.path().join("config.json"), "{}").unwrap();
    let weights = afterimage_checkpoint::Weights::open(place.path()).unwrap();
    assert_eq!(weights.bytes(), 64 * 144);
    let weight = weights.var_builder(DType::F32, &Device::Cpu).get((64, 256), "transformer_blocks.0.x.weight").unwrap();
    let weight: Vec<f32> = weight.flatten_all().unwrap().to_vec1().unwrap();
    let mean_square = weight.iter().map(|value| value * value).sum::<f32>() / weight.len() as f32;
    assert!((mean_square / (1.0 / 256.0 / 3.0) - 1.0).abs() < 0.15, "{mean_square}");
    let mean = weight.iter().sum::<f32>() / weight.len() as f32;
    assert!(mean.abs() < 0.05 * mean_square.sqrt(), "{mean}");
}

#[test]
fn names_are_parsed_and_typos_answered() {
    for kind in RandomModelKind::ALL {
        assert_eq!(kind.name().parse::<RandomModelKind>().unwrap(), kind);
    }
    let error = "dit-xl".parse::<RandomModelKind>().unwrap_err().to_string();
    assert_eq!(
        error,
        "no random model `dit-xl`; there are dit-xl-2-256, dit-xl-2-512, pixart-sigma, sd3-medium, flux-dev, flux-schnell, \
         flux2-dev, flux2-klein-4b, flux2-klein-9b, z-image-turbo, z-image, hunyuan-dit, qwen-image, sana-1.5, sana-sprint, \
         tiny-dit, tiny-dit-sd-vae"
    );
}

#[test]
fn nothing_is_overwritten() {
    let (_parent, folder) = written(0, Precision::F32);
    let path = folder.path().unwrap();
    assert!(write_random_model(RandomModelKind::TinyDit, path, 1, Precision::F32).is_err());
}
