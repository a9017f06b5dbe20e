//! The answer of `POST /v1/images/generations`: OpenAI's fields, what the cache did, and where the time
//! went.

use std::sync::Arc;
use std::time::Instant;

use afterimage_runner::{FinishedRequest, Timings};
use serde::Serialize;
use utoipa::ToSchema;

use super::cache::CacheAnswer;
use super::output::{Kept, Output, PictureData, PictureFacts};
use super::warning::{self, Warning};
use crate::api::blocking;
use crate::api::error::ApiError;
use crate::api::openapi::CacheReportSchema;
use crate::clock::unix_seconds;

/// Finished pictures
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct GenerationResponse<'a> {
    /// Unix seconds
    created: u64,
    data: Vec<ImageData>,
    output_format: &'static str,
    /// `WIDTHxHEIGHT`
    size: String,
    quality: &'static str,
    background: &'static str,
    usage: Usage,
    #[schema(value_type = CacheReportSchema)]
    cache: CacheAnswer<'a>,
    timings: StageSeconds,
    /// Parts of the request that were not done as asked; absent if there are none
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(min_items = 1)]
    warnings: Vec<Warning<'a>>,
}

/// A finished picture
#[derive(Debug, Serialize, ToSchema)]
struct ImageData {
    #[serde(flatten)]
    picture: PictureData,
    /// The seed that reproduces this picture by itself
    seed: u64,
}

/// Nothing here is billed by tokens; clients expect the keys
#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::api) struct Usage {
    input_tokens: u64,
    output_tokens: u64,
    total_tokens: u64,
    input_tokens_details: InputTokens,
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::api) struct InputTokens {
    image_tokens: u64,
    text_tokens: u64,
}

/// Where the time went, and in which precision
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct StageSeconds {
    queue_seconds: f64,
    encode_seconds: f64,
    denoise_seconds: f64,
    decode_seconds: f64,
    total_seconds: f64,
    /// Precision of the model: `f32`, `bf16` or `f16`
    dtype: &'static str,
    /// What the matrices of the transformer's blocks were quantised to (`--quantize`): `int8`; absent where they were not
    #[serde(skip_serializing_if = "Option::is_none")]
    quantize: Option<&'static str>,
}

impl StageSeconds {
    pub(super) fn new(finished: &FinishedRequest, total_seconds: f64) -> Self {
        let Timings { queue_seconds, encode_seconds, denoise_seconds, decode_seconds } = finished.timings;
        Self {
            queue_seconds,
            encode_seconds,
            denoise_seconds,
            decode_seconds,
            total_seconds,
            dtype: finished.dtype,
            quantize: finished.quantization.name(),
        }
    }
}

/// The response body of a request that arrived at `arrived`, once its pictures are encoded and, if they are to be, stored.
pub(in crate::api) async fn body(
    finished: FinishedRequest,
    output: Arc<Output>,
    arrived: Instant,
) -> Result<Vec<u8>, ApiError> {
    if !output.is_kept() {
        let write = move || write(&finished, &output, &output.files(&finished)?, Kept::default(), arrived);
        return blocking::run(write).await?;
    }
    let (finished, encoder) = (Arc::new(finished), Arc::clone(&output));
    let encode = {
        let finished = Arc::clone(&finished);
        move || encoder.files(&finished)
    };
    let files: Arc<[Vec<u8>]> = blocking::run(encode).await??.into();
    let kept = output.keep(Arc::clone(&files)).await?;
    blocking::run(move || write(&finished, &output, &files, kept, arrived)).await?
}

/// Blocks.
fn write(
    finished: &FinishedRequest,
    output: &Output,
    files: &[Vec<u8>],
    kept: Kept,
    arrived: Instant,
) -> Result<Vec<u8>, ApiError> {
    let data = output.pictures(files, &kept).into_iter().enumerate();
    let data = data.map(|(index, picture)| ImageData { picture, seed: finished.seeds.of(index) }).collect();
    let mut warnings = warning::of_request(finished);
    warnings.extend(kept.without_urls.map(Warning::not_stored));
    let PictureFacts { output_format, size, quality, background } = output.facts(finished.spec.size);
    let response = GenerationResponse {
        created: unix_seconds(),
        data,
        output_format,
        size,
        quality,
        background,
        usage: Usage::default(),
        cache: CacheAnswer::new(finished, output),
        timings: StageSeconds::new(finished, arrived.elapsed().as_secs_f64()),
        warnings,
    };
    serde_json::to_vec(&response).map_err(|error| ApiError::Internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use afterimage_cache::{CachePlan, CacheReport};
    use afterimage_runner::{RequestWarning, RgbImage, Size};
    use serde_json::Value;

    use super::*;
    use crate::finished_request::finished_request;

    fn finished_job() -> FinishedRequest {
        let image = RgbImage { size: Size { width: 2, height: 1 }, data: vec![9; 6] };
        let cache = CacheReport::new(&CachePlan::None, 25, vec![afterimage_cache::ImageReport::default()]);
        FinishedRequest {
            timings: Timings { denoise_seconds: 1.5, ..Timings::default() },
            warnings: vec![RequestWarning {
                param: "negative_prompt".to_owned(),
                code: "prompt_truncated",
                message: "the T5 text encoder (text_encoder) takes 120 tokens; 7 more had no effect".to_owned(),
            }],
            ..finished_request(42, vec![image], cache)
        }
    }

    #[tokio::test]
    async fn the_body_has_the_contracts_keys() {
        let body = super::body(finished_job(), Arc::new(Output::for_tests()), Instant::now()).await.unwrap();
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        body["created"] = "[unix seconds]".into();
        body["data"][0]["b64_json"] = "[png]".into();
        body["timings"]["total_seconds"] = "[seconds]".into();
        insta::assert_json_snapshot!(body, @r#"
        {
          "created": "[unix seconds]",
          "data": [
            {
              "b64_json": "[png]",
              "seed": 42
            }
          ],
          "output_format": "png",
          "size": "2x1",
          "quality": "auto",
          "background": "opaque",
          "usage": {
            "input_tokens": 0,
            "output_tokens": 0,
            "total_tokens": 0,
            "input_tokens_details": {
              "image_tokens": 0,
              "text_tokens": 0
            }
          },
          "cache": {
            "backend": "none",
            "config": {},
            "tag": null,
            "steps": 25,
            "hit_rate": 0.0,
            "images": [
              {
                "contexts": []
              }
            ]
          },
          "timings": {
            "queue_seconds": 0.0,
            "encode_seconds": 0.0,
            "denoise_seconds": 1.5,
            "decode_seconds": 0.0,
            "total_seconds": "[seconds]",
            "dtype": "f32"
          },
          "warnings": [
            {
              "param": "negative_prompt",
              "code": "prompt_truncated",
              "message": "the T5 text encoder (text_encoder) takes 120 tokens; 7 more had no effect"
            }
          ]
        }
        "#);
    }
}
