//! The space of settings: for every backend some axes, and on each a few places in order. Next to each other are settings that differ
//! by one place on one axis.

use afterimage_cache::CacheBackend;
use afterimage_runner::ModelInfo;
use serde_json::{Map, Value, json};

use crate::error::StudyError;
use crate::setting::Setting;

/// A point of the space: a backend, and a place on each of its axes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    space: usize,
    places: Vec<usize>,
}

/// Places in order; each sets some keys.
type Axis = Vec<Map<String, Value>>;

/// All settings that are looked at.
pub(super) struct Spaces(Vec<Space>);

struct Space {
    backend: CacheBackend,
    axes: Vec<Axis>,
    /// Where the search begins.
    coarse: Vec<Vec<usize>>,
}

/// Of the distance below which a step is reused; at 1 it always is, as far as limits allow.
const THRESHOLDS: [f64; 15] = [0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.18, 0.21, 0.24, 0.28, 0.33, 0.4, 0.5, 0.7, 1.0];
const IN_A_ROW: [i64; 8] = [1, 2, 3, 4, 5, 6, 8, 12];
const WARM_UP_STEPS: [usize; 6] = [1, 2, 3, 4, 6, 8];
/// Those that the model has fewer blocks than are left out.
const FIRST_BLOCKS: [usize; 4] = [1, 2, 4, 8];
const TEA_THRESHOLDS: [f64; 11] = [0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.6];
const MAG_THRESHOLDS: [f64; 10] = [0.01, 0.02, 0.03, 0.045, 0.06, 0.09, 0.12, 0.18, 0.24, 0.36];
const MAG_RETENTION: [f64; 4] = [0.05, 0.1, 0.2, 0.3];

impl Spaces {
    pub(super) fn of(model: &ModelInfo) -> Self {
        Self(vec![cache_dit(model.blocks().iter().copied().max().unwrap_or(1)), tea_cache(), mag_cache()])
    }

    /// Where the search begins: all over the space.
    pub(super) fn coarse(&self) -> Vec<Candidate> {
        let of_space = |(space, of): (usize, &Space)| {
            of.coarse.iter().map(move |places| Candidate { space, places: places.clone() }).collect::<Vec<_>>()
        };
        self.0.iter().enumerate().flat_map(of_space).collect()
    }

    /// Those that differ by one place on one axis.
    pub(super) fn neighbours(&self, candidate: &Candidate) -> Vec<Candidate> {
        let mut neighbours = Vec::new();
        for (axis, places) in self.0[candidate.space].axes.iter().enumerate() {
            let place = candidate.places[axis];
            for next in
                [place.checked_sub(1), Some(place + 1).filter(|next| *next < places.len())].into_iter().flatten()
            {
                let mut moved = candidate.clone();
                moved.places[axis] = next;
                neighbours.push(moved);
            }
        }
        neighbours
    }

    /// Its backend, and the keys of its configuration.
    pub(super) fn keys(&self, candidate: &Candidate) -> (CacheBackend, Map<String, Value>) {
        let Space { backend, axes, .. } = &self.0[candidate.space];
        let chosen = axes.iter().zip(&candidate.places).flat_map(|(axis, place)| axis[*place].clone());
        (*backend, chosen.collect())
    }

    /// As it is measured.
    pub(super) fn setting(&self, candidate: &Candidate) -> Result<Setting, StudyError> {
        let (backend, keys) = self.keys(candidate);
        let words: Vec<_> = keys.iter().map(|(key, value)| word(key, value)).filter(|word| !word.is_empty()).collect();
        Ok(Setting::parse(format!("{backend} {}", words.join(" ")), backend, &keys)?)
    }
}

/// A key as names of settings have it: the letters of cache-dit's own tags, and words for what they lack.
fn word(key: &str, value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match key {
        "residual_diff_threshold" | "rel_l1_thresh" | "mag_threshold" => format!("R{text}"),
        "max_continuous_cached_steps" | "mag_max_skip_steps" => format!("MC{text}"),
        "max_warmup_steps" | "num_warmup_steps" => format!("W{text}"),
        "Fn_compute_blocks" => format!("F{text}"),
        "mag_retention_ratio" => format!("K{text}"),
        "taylorseer_order" => format!("T{text}"),
        "enable_foca" => "FoCa".to_owned(),
        "enable_taylorseer" => String::new(),
        _ => text,
    }
}

/// DBCache with its predictors, limits and masks.
fn cache_dit(blocks: usize) -> Space {
    let predictors = [
        json!({}),
        json!({"enable_foca": true}),
        json!({"enable_taylorseer": true, "taylorseer_order": 1}),
        json!({"enable_taylorseer": true, "taylorseer_order": 2}),
        json!({"enable_taylorseer": true, "taylorseer_order": 3}),
    ];
    let masks = [
        json!({}),
        json!({"scm_steps_mask_policy": "slow"}),
        json!({"scm_steps_mask_policy": "medium"}),
        json!({"scm_steps_mask_policy": "fast"}),
        json!({"scm_steps_mask_policy": "medium", "scm_steps_policy": "static"}),
        json!({"scm_steps_mask_policy": "fast", "scm_steps_policy": "static"}),
    ];
    let first_blocks: Vec<_> = FIRST_BLOCKS.into_iter().filter(|first| *first < blocks.max(2)).collect();
    let axes = vec![
        axis(THRESHOLDS.map(|value| json!({"residual_diff_threshold": value}))),
        axis(IN_A_ROW.map(|value| json!({"max_continuous_cached_steps": value}))),
        axis(predictors),
        axis(WARM_UP_STEPS.map(|value| json!({"max_warmup_steps": value}))),
        axis(first_blocks.iter().map(|value| json!({"Fn_compute_blocks": value}))),
        axis(masks),
    ];
    let mut coarse = Vec::new();
    // Thresholds 0.08, 0.24 and always; 1, 2 and 4 in a row; each repeated, and predicted in two ways; 2 steps of warm-up.
    for predictor in [0, 2, 3] {
        coarse.extend(
            [[2, 2], [8, 1], [8, 3], [14, 0], [14, 1]]
                .map(|[threshold, in_a_row]| vec![threshold, in_a_row, predictor, 3, 0, 0]),
        );
    }
    coarse.extend([vec![8, 2, 1, 3, 0, 0], vec![8, 2, 3, 1, 0, 0], vec![14, 2, 3, 3, 0, 4], vec![8, 2, 2, 3, 1, 0]]);
    coarse.retain(|places| places[4] < first_blocks.len());
    Space { backend: CacheBackend::CacheDit, axes, coarse }
}

fn tea_cache() -> Space {
    let axes = vec![
        axis(TEA_THRESHOLDS.map(|value| json!({"rel_l1_thresh": value}))),
        axis([0, 2, 4, 8].map(|value| json!({"num_warmup_steps": value}))),
    ];
    Space { backend: CacheBackend::TeaCache, axes, coarse: vec![vec![3, 0], vec![5, 0], vec![7, 0]] }
}

fn mag_cache() -> Space {
    let axes = vec![
        axis(MAG_THRESHOLDS.map(|value| json!({"mag_threshold": value}))),
        axis([1, 2, 3, 4, 5].map(|value| json!({"mag_max_skip_steps": value}))),
        axis(MAG_RETENTION.map(|value| json!({"mag_retention_ratio": value}))),
    ];
    Space { backend: CacheBackend::MagCache, axes, coarse: vec![vec![2, 0, 1], vec![4, 1, 1], vec![6, 2, 1]] }
}

fn axis(places: impl IntoIterator<Item = Value>) -> Axis {
    let keys = |place| match place {
        Value::Object(keys) => keys,
        _ => Map::new(),
    };
    places.into_iter().map(keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spaces(blocks: usize) -> Spaces {
        Spaces(vec![cache_dit(blocks), tea_cache(), mag_cache()])
    }

    #[test]
    fn every_place_can_be_parsed() {
        for blocks in [1, 3, 28] {
            let spaces = spaces(blocks);
            let coarse = spaces.coarse();
            assert!(coarse.len() > 20);
            let mut seen: Vec<_> = coarse.clone();
            for candidate in &coarse {
                seen.extend(spaces.neighbours(candidate));
            }
            seen.sort();
            seen.dedup();
            let mut names: Vec<_> = seen.iter().map(|candidate| spaces.setting(candidate).unwrap().name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), seen.len(), "every setting has a name of its own");
        }
    }

    #[test]
    fn neighbours_are_one_place_away() {
        let spaces = spaces(3);
        let candidate = Candidate { space: 1, places: vec![0, 1] };
        let places: Vec<_> = spaces.neighbours(&candidate).into_iter().map(|one| one.places).collect();
        assert_eq!(places, [vec![1, 1], vec![0, 0], vec![0, 2]]);
    }
}
