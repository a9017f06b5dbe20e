//! Loads a model, makes a few uncached steps of one guided picture and decodes it; reports seconds
//! and peak memory, beside what the weights alone take.
//!
//!     cargo run --release --example measure_model -- FOLDER [STEPS]

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use afterimage_cache::{CacheBudget, CachePlan};
use afterimage_runner::{ImageSpec, LoadOptions, ModelFolder, Pipeline};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: measure_model FOLDER [STEPS]")?;
    let steps = arguments.next().map_or(Ok(5), |steps| steps.parse())?;
    let mut out = std::io::stdout();

    let started = Instant::now();
    let folder = ModelFolder::open(&PathBuf::from(folder))?;
    let pipeline = Pipeline::load(&folder, &LoadOptions::default())?;
    writeln!(out, "loaded in {:.2} s, peak {}", started.elapsed().as_secs_f64(), peak_memory()?)?;
    let stored: u64 = ["transformer", "vae"]
        .map(|part| folder.weights(part).map(|weights| weights.bytes()))
        .into_iter()
        .sum::<Result<_, _>>()?;
    writeln!(out, "weights as stored: {} kB", stored / 1024)?;

    let info = pipeline.info();
    let spec = ImageSpec {
        prompt: "0".to_owned(),
        negative_prompt: None,
        size: info.buckets[0],
        steps,
        guidance: info.default_guidance(),
        scheduler: info.default_scheduler,
        cache: CachePlan::None,
    };
    let mut images = [pipeline.begin(spec, 0, &CacheBudget::unlimited())?];
    let mut seconds = Vec::new();
    for _ in 0..steps {
        let started = Instant::now();
        pipeline.denoise(&mut images)?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    writeln!(out, "{} steps of {}: median {:.3} s a step", steps, info.buckets[0], seconds[steps / 2])?;
    let started = Instant::now();
    pipeline.decode(images[0].latents())?;
    writeln!(out, "decoded in {:.2} s, peak {}", started.elapsed().as_secs_f64(), peak_memory()?)?;
    Ok(())
}

/// The most memory this process has held, files mapped into it included.
fn peak_memory() -> Result<String, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.unwrap_or("unknown").trim().to_string())
}
