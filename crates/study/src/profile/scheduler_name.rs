//! Schedulers by their class names in diffusers, as all of JSON has them.

use afterimage_runner::schedulers::SchedulerKind;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(kind: &SchedulerKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SchedulerKind, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
