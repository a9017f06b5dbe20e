//! Writes a random model folder if there is none, loads all its weights and reports time and memory.
//!
//!     cargo run --release --example load_weights -- dit-xl-2-256 /tmp/dit-xl [f32|f16|bf16]

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use afterimage_runner::{ModelFolder, RandomModelKind, write_random_model};
use candle_core::{DType, Device};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(kind), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: load_weights KIND FOLDER [f32|f16|bf16]".into());
    };
    let kind: RandomModelKind = kind.parse()?;
    let folder = PathBuf::from(folder);
    let dtype = match arguments.next().as_deref() {
        None | Some("f32") => DType::F32,
        Some("f16") => DType::F16,
        Some("bf16") => DType::BF16,
        Some(other) => return Err(format!("`{other}` is none of f32, f16, bf16").into()),
    };
    let mut out = std::io::stdout();
    if !folder.join("model_index.json").exists() {
        let start = Instant::now();
        write_random_model(kind, &folder, 0, DType::F32)?;
        let seconds = start.elapsed().as_secs_f64();
        writeln!(out, "written in {seconds:.2} s, peak {}", peak_memory()?)?;
    }

    let model = ModelFolder::open(&folder)?;
    let mut loaded = Vec::new();
    for component in ["transformer", "vae"] {
        let start = Instant::now();
        let weights = model.weights(component)?;
        let builder = weights.var_builder(dtype, &Device::Cpu);
        for name in weights.names() {
            loaded.push(builder.get_unchecked(name)?);
        }
        let seconds = start.elapsed().as_secs_f64();
        let megabytes = weights.bytes() as f64 / 1e6;
        writeln!(out, "{component}: {megabytes:.0} MB stored, loaded in {seconds:.2} s")?;
    }
    let bytes: usize = loaded.iter().map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum();
    writeln!(out, "{:.0} MB in memory, peak {}", bytes as f64 / 1e6, peak_memory()?)?;
    Ok(())
}

/// The most memory this process has held, files mapped into it included.
fn peak_memory() -> Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.unwrap_or("unknown").trim().to_string())
}
