//! Compiles the kernels: with nvcc to one fatbin a file (feature `cuda`), with g++ to functions (feature `emulation`).

use std::error::Error;
#[cfg(feature = "cuda")]
use std::path::Path;
use std::path::PathBuf;

const KERNELS: &str = "src/cuda";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={KERNELS}");
    println!("cargo::rerun-if-changed=src/emulation");
    #[cfg(any(feature = "cuda", feature = "emulation"))]
    let sources = sources()?;
    #[cfg(feature = "emulation")]
    emulation(&sources)?;
    #[cfg(feature = "cuda")]
    for source in &sources {
        fatbin(source)?;
    }
    #[cfg(feature = "tuning")]
    fatbin(&Path::new(KERNELS).join("tuning/attention_variants.cu"))?;
    Ok(())
}

/// The files of kernels, one a family.
#[cfg_attr(not(any(feature = "cuda", feature = "emulation")), allow(dead_code))]
fn sources() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(KERNELS)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            sources.push(path);
        }
    }
    sources.sort();
    Ok(sources)
}

#[cfg(feature = "emulation")]
fn emulation(sources: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    let folder = "src/emulation";
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").include(folder).include(KERNELS).opt_level(2);
    // Jumps between fibers are no accident, and nvcc's pragmas mean nothing here.
    build.flag("-U_FORTIFY_SOURCE").flag("-Wno-unknown-pragmas").flag("-x").flag("c++");
    build.files(["memory.cpp", "threads.cpp", "machine.cpp", "planted.cu"].map(|file| format!("{folder}/{file}")));
    build.files(sources);
    build.try_compile("afterimage-emulated-kernels")?;
    Ok(())
}

/// Machine code for the two generations that are served, and PTX, of which drivers make that of later ones.
#[cfg(feature = "cuda")]
fn fatbin(source: &Path) -> Result<(), Box<dyn Error>> {
    let name = source.with_extension("fatbin");
    let output = PathBuf::from(std::env::var("OUT_DIR")?).join(name.file_name().ok_or("a source without a name")?);
    let nvcc = nvcc();
    let status = std::process::Command::new(&nvcc)
        .args(["-std=c++17", "-O3", "-fatbin", "-I", KERNELS])
        .args(["-gencode", "arch=compute_80,code=sm_80", "-gencode", "arch=compute_90,code=[sm_90,compute_90]"])
        .arg("-o")
        .args([&output, source])
        .status()
        .map_err(|error| format!("{} could not be run ({error}); NVCC or CUDA_HOME say where it is", nvcc.display()))?;
    if status.success() { Ok(()) } else { Err(format!("nvcc failed on {}", source.display()).into()) }
}

/// Where candle's kernels look for it, too.
#[cfg(feature = "cuda")]
fn nvcc() -> PathBuf {
    for variable in ["NVCC", "CUDA_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Some(path) = std::env::var_os("NVCC") {
        return path.into();
    }
    match std::env::var_os("CUDA_HOME") {
        Some(home) => Path::new(&home).join("bin/nvcc"),
        None => "nvcc".into(),
    }
}
