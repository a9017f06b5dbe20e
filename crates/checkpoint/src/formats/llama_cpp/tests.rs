//! Names; what the tensors give is tested with the models (`gguf_tests.rs` of `afterimage_diffusion`).

use super::*;
use crate::formats::gguf;
use crate::stored::encoding::Encoding;
use crate::stored::source::Source;

fn tensors(names: &[&str]) -> Vec<(String, StoredTensor)> {
    let tensor = StoredTensor::contiguous(Encoding::Plain(::safetensors::Dtype::F32), vec![8, 2], 0);
    names.iter().map(|name| ((*name).to_owned(), tensor.clone())).collect()
}

/// What a file without tensors says.
fn facts(architecture: &str, numbers: &[(&str, u32)]) -> GgufFacts {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend((numbers.len() as u64 + 1).to_le_bytes());
    bytes.extend([string("general.architecture"), 8u32.to_le_bytes().to_vec(), string(architecture)].concat());
    for (entry, number) in numbers {
        bytes.extend(string(&format!("{architecture}.{entry}")));
        bytes.extend(4u32.to_le_bytes());
        bytes.extend(number.to_le_bytes());
    }
    gguf::open(&Source::memory("facts.gguf", bytes)).unwrap().facts
}

fn names(architecture: &str, theirs: &[&str]) -> Vec<String> {
    let facts = facts(architecture, &[("attention.head_count", 2)]);
    let component = text_encoder(tensors(theirs), &facts, "").unwrap();
    component.entries.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn decoders_have_transformers_names() {
    let theirs =
        ["token_embd.weight", "output_norm.weight", "output.weight", "blk.11.attn_q.bias", "blk.0.ffn_norm.weight"];
    let ours = [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.11.self_attn.q_proj.bias",
        "model.layers.0.post_attention_layernorm.weight",
    ];
    assert_eq!(names("qwen2vl", &theirs), ours);
    let unknown =
        ["blk.x.attn_q.weight", "blk.0.attn_qkv.weight", "blk.0", "rope_freqs.weight", "v.blk.0.attn_q.weight"];
    assert_eq!(names("qwen3", &unknown), unknown);
    assert_eq!(
        names("gemma2", &["blk.3.ffn_norm.weight", "blk.3.post_ffw_norm.weight"]),
        ["model.layers.3.pre_feedforward_layernorm.weight", "model.layers.3.post_feedforward_layernorm.weight"]
    );
}

#[test]
fn the_first_matrix_of_t5_is_called_by_whether_there_is_a_gate() {
    let (up, gate) = ("enc.blk.0.ffn_up.weight", "enc.blk.0.ffn_gate.weight");
    let ours = |name: &str| format!("encoder.block.0.layer.1.DenseReluDense.{name}.weight");
    assert_eq!(names("t5", &[up]), [ours("wi")]);
    assert_eq!(names("t5encoder", &[up, gate]), [ours("wi_1"), ours("wi_0")]);
    // Of the decoder nothing is read.
    assert_eq!(
        names("t5", &["dec.blk.0.attn_q.weight", "output.weight"]),
        ["decoder.blk.0.attn_q.weight", "lm_head.weight"]
    );
}

#[test]
fn rows_are_in_pairs_where_neighbours_are_turned() {
    let theirs = ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"];
    let facts = facts("llama", &[("attention.head_count", 4), ("attention.head_count_kv", 2)]);
    let found = text_encoder(tensors(&theirs), &facts, "MistralModel").unwrap().arrangements;
    let pairs = |heads| Arrangement::PairedRows { heads };
    let expected = [("q", pairs(4)), ("k", pairs(2))];
    let expected = expected.map(|(part, pairs)| (format!("model.layers.0.self_attn.{part}_proj.weight"), pairs));
    assert_eq!(found, expected.into());
    assert!(text_encoder(tensors(&theirs), &self::facts("qwen3", &[]), "").unwrap().arrangements.is_empty());
}
