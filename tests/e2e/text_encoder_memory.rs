//! What `--offload text-encoders` takes and gives: memory and seconds with a T5 of T5-large's size.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::picture::Picture;
use crate::server::Server;

/// Size of T5-large, in f32.
const DIM: usize = 1024;
const FEED_FORWARD: usize = 2816;
const LAYERS: usize = 24;
const VOCABULARY: usize = 32_128;

type Shapes = BTreeMap<String, Vec<usize>>;

#[test]
#[ignore = "a measurement: `just text-encoder-memory`"]
fn text_encoder_memory() {
    let folder = tempfile::tempdir().unwrap();
    let encoder_bytes = write_model(folder.path());
    let model = folder.path().to_str().unwrap();
    let mib = |bytes: u64| bytes / (1 << 20);
    println!("T5: {} MiB", mib(encoder_bytes));
    println!("| --offload | ready | after a new prompt | peak | encode, new prompt | encode, kept prompt |");
    println!("|---|---|---|---|---|---|");
    let [always, offloaded] = ["none", "text-encoders"].map(|offload| {
        let server = Server::start(&["--model", model, "--buckets", "64x64", "--offload", offload]);
        let ready = server.resident_bytes();
        let request = |prompt: &str| json!({"prompt": prompt, "num_inference_steps": 2, "seed": 1});
        // The first prompt also brings its negative prompt, and what else comes once.
        server.generate(&request("a blue pear"));
        let new = server.generate(&request("a red apple"));
        let after = server.resident_bytes();
        let kept = server.generate(&request("a red apple"));
        assert_eq!(Picture::of(&new, 0), Picture::of(&kept, 0));
        let peak = server.peak_bytes();
        let seconds = |answer: &Value| answer["timings"]["encode_seconds"].as_f64().unwrap();
        let [ready, after_mib, peak] = [ready, after, peak].map(mib);
        let (new, kept) = (seconds(&new), seconds(&kept));
        println!("| {offload} | {ready} MiB | {after_mib} MiB | {peak} MiB | {new:.2} s | {kept:.4} s |");
        after
    });
    assert!(offloaded + encoder_bytes / 2 < always, "{offloaded} bytes with offloading, {always} without");
}

/// PixArt-Sigma's fixture around a large T5 of zeros. The T5's bytes.
fn write_model(folder: &Path) -> u64 {
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/pixart-sigma/model");
    copy(&fixture, folder);
    let change = |component: &str, changes: Value| {
        let path = folder.join(component).join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        fs::write(path, config.to_string()).unwrap();
    };
    change("transformer", json!({"caption_channels": DIM}));
    let transformer = folder.join("transformer/diffusion_pytorch_model.safetensors");
    let mut shapes = shapes(&transformer);
    shapes.get_mut("caption_projection.linear_1.weight").unwrap()[1] = DIM;
    write_zeros(&transformer, &shapes);
    let sizes = json!({
        "d_model": DIM, "d_ff": FEED_FORWARD, "d_kv": 64, "num_heads": DIM / 64, "num_layers": LAYERS,
        "vocab_size": VOCABULARY
    });
    change("text_encoder", sizes);
    write_zeros(&folder.join("text_encoder/model.safetensors"), &t5_shapes())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

fn t5_shapes() -> Shapes {
    let mut shapes = Shapes::from([
        ("shared.weight".to_owned(), vec![VOCABULARY, DIM]),
        ("encoder.final_layer_norm.weight".to_owned(), vec![DIM]),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight".to_owned(), vec![32, DIM / 64]),
    ]);
    for block in 0..LAYERS {
        let name = |name: &str| format!("encoder.block.{block}.layer.{name}.weight");
        for projection in ["q", "k", "v", "o"] {
            shapes.insert(name(&format!("0.SelfAttention.{projection}")), vec![DIM, DIM]);
        }
        for projection in ["wi_0", "wi_1"] {
            shapes.insert(name(&format!("1.DenseReluDense.{projection}")), vec![FEED_FORWARD, DIM]);
        }
        shapes.insert(name("1.DenseReluDense.wo"), vec![DIM, FEED_FORWARD]);
        for layer in ["0", "1"] {
            shapes.insert(name(&format!("{layer}.layer_norm")), vec![DIM]);
        }
    }
    shapes
}

/// The shapes of a safetensors file's tensors.
fn shapes(path: &Path) -> Shapes {
    let file = fs::read(path).unwrap();
    let (length, rest) = file.split_first_chunk().unwrap();
    let header: Value = serde_json::from_slice(&rest[..u64::from_le_bytes(*length) as usize]).unwrap();
    let tensors = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    tensors.map(|(name, tensor)| (name.clone(), serde_json::from_value(tensor["shape"].clone()).unwrap())).collect()
}

/// A safetensors file of f32 zeros, which the disk need not hold. Bytes of its tensors.
fn write_zeros(path: &Path, shapes: &Shapes) -> u64 {
    let mut end = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in shapes {
        let start = end;
        end += 4 * shape.iter().product::<usize>() as u64;
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
    end
}
