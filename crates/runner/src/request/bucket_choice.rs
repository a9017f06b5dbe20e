//! What sizes a model is to serve: one by one, or a named set of the common aspect ratios.
//!
//! All sizes of the sets are multiples of 16, which is what patches of 2 x 2 latents of 8 x 8 pixels need.
//! Widths and heights are as near to the ratio and to the set's area as that allows. A model that needs multiples of more
//! serves the next smaller ones: of Sana's 512 pixels, 576x416 and 608x416, two of the sizes that it was trained for.

use std::str::FromStr;

use afterimage_diffusion::WantedCanvas;

use crate::request::Size;

/// Wide sizes of each set, the square first; each also stands upright.
const SET_512: [(usize, usize); 4] = [(512, 512), (576, 432), (624, 416), (672, 384)];
const SET_768: [(usize, usize); 4] = [(768, 768), (896, 672), (960, 640), (1024, 576)];
/// The last is a size of OpenAI's image API.
const SET_1024: [(usize, usize); 5] = [(1024, 1024), (1152, 864), (1248, 832), (1344, 768), (1536, 1024)];

/// A size, or a set of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketChoice {
    /// One size.
    Size(Size),
    /// 1:1, 4:3, 3:2 and 16:9, wide and upright, with about 512 x 512 pixels.
    Set512,
    /// The same with about 768 x 768 pixels.
    Set768,
    /// The same with about 1024 x 1024 pixels, and OpenAI's 1536x1024 and 1024x1536.
    Set1024,
}

/// A text that is no [`BucketChoice`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a size, WIDTHxHEIGHT in pixels such as 256x256, nor a set of sizes: 512, 768 or 1024")]
pub struct ParseBucketChoiceError(String);

impl BucketChoice {
    /// The sizes chosen, in order and each once.
    pub fn sizes(choices: &[Self]) -> Vec<Size> {
        let mut sizes = Vec::new();
        for size in choices.iter().flat_map(|choice| choice.own_sizes()) {
            if !sizes.contains(&size) {
                sizes.push(size);
            }
        }
        sizes
    }

    /// What a model is asked for: a size as it is, those of a set as near as it can.
    pub(crate) fn canvases(choices: &[Self]) -> Vec<WantedCanvas> {
        let wanted = |choice: &Self| {
            let kind = if matches!(choice, Self::Size(_)) { WantedCanvas::Exactly } else { WantedCanvas::UpTo };
            choice.own_sizes().into_iter().map(move |size| kind(size.canvas()))
        };
        choices.iter().flat_map(wanted).collect()
    }

    fn own_sizes(self) -> Vec<Size> {
        let set: &[(usize, usize)] = match self {
            Self::Size(size) => return vec![size],
            Self::Set512 => &SET_512,
            Self::Set768 => &SET_768,
            Self::Set1024 => &SET_1024,
        };
        let both_ways = |&(long, short)| [(long, short), (short, long)];
        set.iter().flat_map(both_ways).map(|(width, height)| Size { width, height }).collect()
    }
}

impl From<Size> for BucketChoice {
    fn from(size: Size) -> Self {
        Self::Size(size)
    }
}

impl FromStr for BucketChoice {
    type Err = ParseBucketChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "512" => Ok(Self::Set512),
            "768" => Ok(Self::Set768),
            "1024" => Ok(Self::Set1024),
            size => size.parse().map(Self::Size).map_err(|_| ParseBucketChoiceError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_near_their_area_and_fit_patches() {
        for (choice, side) in [(BucketChoice::Set512, 512), (BucketChoice::Set768, 768), (BucketChoice::Set1024, 1024)]
        {
            let sizes = BucketChoice::sizes(&[choice]);
            assert_eq!(sizes[0], Size { width: side, height: side }, "the square is the default");
            assert_eq!("1024".parse::<BucketChoice>().is_ok_and(|parsed| parsed == choice), side == 1024);
            for size in &sizes {
                assert!(size.width.is_multiple_of(16) && size.height.is_multiple_of(16), "{size}");
                let area = size.pixels() as f64 / (side * side) as f64;
                // OpenAI's sizes are half as large again.
                assert!((0.94..=1.06).contains(&area) || area == 1.5, "{size}: {area}");
                assert!(sizes.contains(&Size { width: size.height, height: size.width }), "{size}");
            }
            for ratio in [1.0, 4.0 / 3.0, 1.5, 16.0 / 9.0] {
                let is_near = |size: &Size| (size.width as f64 / size.height as f64 / ratio - 1.0).abs() < 0.02;
                assert!(sizes.iter().any(is_near), "{choice:?}: {ratio}");
            }
        }
    }

    /// As `ASPECT_RATIO_512_BIN` of diffusers has them.
    #[test]
    fn sizes_of_a_set_give_way_and_others_do_not() {
        let size = Size { width: 576, height: 432 };
        assert_eq!(BucketChoice::canvases(&[size.into()]), [WantedCanvas::Exactly(size.canvas())]);
        let set = BucketChoice::canvases(&[BucketChoice::Set512]);
        assert!(set.contains(&WantedCanvas::UpTo(size.canvas())), "{set:?}");
    }

    #[test]
    fn choices_add_up_without_repetition() {
        let choices = ["64x64", "512", "512x512", "64x64"].map(|text| text.parse().unwrap());
        let sizes = BucketChoice::sizes(&choices);
        assert_eq!(sizes.len(), 8);
        assert_eq!(sizes[..2], [Size { width: 64, height: 64 }, Size { width: 512, height: 512 }]);
        let error = "640".parse::<BucketChoice>().unwrap_err().to_string();
        assert!(error.contains("`640` is neither a size") && error.contains("512, 768 or 1024"), "{error}");
    }
}
