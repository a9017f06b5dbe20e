use super::*;
use candle_core::Device;

use crate::ModelFolder;

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

#[test]
fn dit_xl_has_its_published_size() {
    let (dit, vae) = RandomModelKind::DitXl2At256.configs();
    // diffusers: sum(p.numel() for p in model.parameters())
    assert_eq!(dit.tensors().elements(), 749_826_464);
    assert_eq!(vae.tensors().elements(), 83_653_863);
}

#[test]
fn names_are_parsed_and_typos_answered() {
    for kind in RandomModelKind::ALL {
        assert_eq!(kind.name().parse::<RandomModelKind>().unwrap(), kind);
    }
    let error = "dit-xl".parse::<RandomModelKind>().unwrap_err().to_string();
    assert_eq!(error, "no random model `dit-xl`; there are dit-xl-2-256, dit-xl-2-512, tiny-dit, tiny-dit-sd-vae");
}

#[test]
fn nothing_is_overwritten() {
    let (_parent, folder) = written(0, Precision::F32);
    let path = folder.path().unwrap();
    assert!(write_random_model(RandomModelKind::TinyDit, path, 1, Precision::F32).is_err());
}
