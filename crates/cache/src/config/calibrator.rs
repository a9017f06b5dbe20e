//! Which calibrator predicts what the skipped blocks would have added, and what it predicts.

use super::ConfigError;
use super::fields::Fields;
use super::in_force::InForce;

/// How the skipped blocks' contribution is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalibratorConfig {
    /// The method.
    pub kind: CalibratorKind,
    /// Predict the encoder stream as well, not only the hidden one.
    pub encoder: bool,
    /// Predict what the skipped blocks add (`true`) or their output itself (`false`).
    pub residual: bool,
}

/// Prediction methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalibratorKind {
    /// Taylor expansion of this order (TaylorSeer, arXiv 2503.06923).
    TaylorSeer(usize),
    /// Forecast and calibrate (FoCa, arXiv 2508.16211).
    FoCa,
}

impl CalibratorConfig {
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Option<Self>, ConfigError> {
        let taylorseer = fields.read("enable_taylorseer")?;
        let order = fields.read("taylorseer_order")?;
        let foca = fields.read("enable_foca")?;
        let encoder = fields.read("enable_encoder_calibrator")?;
        let predicted: String = fields.read("calibrator_cache_type")?;
        let kind = match (taylorseer, foca) {
            (false, false) => return Ok(None),
            (true, false) => CalibratorKind::TaylorSeer(order),
            (false, true) => CalibratorKind::FoCa,
            (true, true) => {
                let message = "`enable_foca` and `enable_taylorseer` are both true; at most one calibrator can be on";
                return Err(ConfigError::at("enable_foca", message));
            }
        };
        Ok(Some(Self { kind, encoder, residual: predicted == "residual" }))
    }

    /// Adds its keys. Without one, nothing is predicted of the text stream either.
    pub(super) fn show(calibrator: Option<Self>, keys: InForce) -> InForce {
        let kind = calibrator.map(|calibrator| calibrator.kind);
        let order = match kind {
            Some(CalibratorKind::TaylorSeer(order)) => Some(order),
            Some(CalibratorKind::FoCa) | None => None,
        };
        let predicted = calibrator.map(|calibrator| if calibrator.residual { "residual" } else { "hidden_states" });
        keys.with("enable_taylorseer", order.is_some())
            .with("taylorseer_order", order)
            .with("enable_foca", kind == Some(CalibratorKind::FoCa))
            .with("enable_encoder_calibrator", calibrator.is_some_and(|calibrator| calibrator.encoder))
            .with("calibrator_cache_type", predicted)
    }
}
