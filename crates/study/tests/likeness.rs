//! Likeness of pictures against scikit-image's, and FLIP against NVIDIA's; `tests/reference/likeness.py` made the fixtures.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use afterimage_runner::{RgbImage, Size};
use afterimage_study::likeness::{LikenessError, MAX_PSNR_DB, flip, psnr_db, ssim};
use serde_json::Value;

const TOLERANCE: f64 = 1e-4;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/likeness")
}

fn picture(name: &str) -> RgbImage {
    let file = BufReader::new(File::open(folder().join(name)).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut data).unwrap();
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    RgbImage { size: Size { width: info.width as usize, height: info.height as usize }, data }
}

fn pairs() -> Vec<Value> {
    serde_json::from_reader(File::open(folder().join("likeness.json")).unwrap()).unwrap()
}

#[test]
fn figures_are_those_of_the_references() {
    let pairs = pairs();
    assert_eq!(pairs.len(), 11);
    for pair in &pairs {
        let [reference, other] = ["reference", "picture"].map(|key| picture(pair[key].as_str().unwrap()));
        let psnr = psnr_db(&reference, &other).unwrap();
        let expected = pair["psnr_db"].as_f64().unwrap_or(MAX_PSNR_DB);
        assert!((psnr - expected).abs() <= TOLERANCE, "{pair}: {psnr}");
        let similarity = ssim(&reference, &other).unwrap();
        assert!((similarity - pair["ssim"].as_f64().unwrap()).abs() <= TOLERANCE, "{pair}: {similarity}");
        let difference = flip(&reference, &other).unwrap();
        assert!((difference - pair["flip"].as_f64().unwrap()).abs() <= TOLERANCE, "{pair}: {difference}");
    }
}

#[test]
fn pictures_that_cannot_be_compared_are_refused() {
    let blank = |width, height| RgbImage { size: Size { width, height }, data: vec![0; width * height * 3] };
    let (square, wide, small) = (blank(8, 8), blank(9, 8), blank(8, 6));
    assert_eq!(psnr_db(&square, &wide), Err(LikenessError::Sizes(square.size, wide.size)));
    assert_eq!(flip(&square, &wide), Err(LikenessError::Sizes(square.size, wide.size)));
    assert_eq!(ssim(&square, &wide), Err(LikenessError::Sizes(square.size, wide.size)));
    assert_eq!(ssim(&small, &small), Err(LikenessError::TooSmall(small.size)));
    assert_eq!((psnr_db(&small, &small), flip(&small, &small)), (Ok(MAX_PSNR_DB), Ok(0.0)));
}
