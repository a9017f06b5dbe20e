//! Pictures side by side.

use afterimage_runner::RgbImage;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::PageError;
use super::text::{escaped, or_dash};
use crate::report::table::psnr;
use crate::row::{PictureRow, Report, Row};

/// Smaller pictures are shown with their pixels.
const SMALL: usize = 200;

/// For every picture that was kept, the uncached one and those of all settings.
pub(super) fn pictures(report: &Report) -> Result<String, PageError> {
    let Some(first) = report.rows.first() else { return Ok(String::new()) };
    let mut sets = String::new();
    for (index, uncached) in first.pictures.iter().enumerate().filter(|(_, picture)| picture.image.is_some()) {
        sets += &format!("<h3>{}, seed {}</h3>\n<div class=\"pictures\">\n", escaped(&uncached.prompt), uncached.seed);
        for row in &report.rows {
            if let Some(picture) = row.pictures.get(index) {
                sets += &figure(row, picture)?;
            }
        }
        sets += "</div>\n";
    }
    Ok(sets)
}

fn figure(row: &Row, picture: &PictureRow) -> Result<String, PageError> {
    let Some(image) = &picture.image else { return Ok(String::new()) };
    let class = if image.size.width.max(image.size.height) < SMALL { " class=\"small\"" } else { "" };
    let likeness = match (row.cache_backend, picture.psnr_db) {
        ("none", _) | (_, None) => String::new(),
        (_, Some(decibels)) => {
            let unit = if psnr(decibels) == "equal" { "" } else { " dB" };
            format!("<br>{}{unit}, SSIM {}", psnr(decibels), or_dash(picture.ssim, 3))
        }
    };
    let name = escaped(&row.name);
    let times = row.speedup.filter(|_| row.cache_backend != "none").map(|times| format!("<br>{times:.2} x"));
    Ok(format!(
        "<figure><img{class} alt=\"{}, {name}\" width=\"{}\" height=\"{}\" src=\"data:image/png;base64,{}\">\
         <figcaption><b>{name}</b>{}{likeness}</figcaption></figure>\n",
        escaped(&picture.prompt),
        image.size.width,
        image.size.height,
        STANDARD.encode(png(image)?),
        times.unwrap_or_default()
    ))
}

fn png(image: &RgbImage) -> Result<Vec<u8>, png::EncodingError> {
    let side = |pixels: usize| u32::try_from(pixels).map_err(|_| png::EncodingError::LimitsExceeded);
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side(image.size.width)?, side(image.size.height)?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&image.data)?;
    writer.finish()?;
    Ok(file)
}
