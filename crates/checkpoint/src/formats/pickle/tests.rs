use std::io::{Cursor, Write};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

/// A file that PyTorch could have saved, with this pickle and one storage of 16 bytes.
fn archive(pickle: &[u8]) -> Source {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in [("a/data.pkl", pickle), ("a/data/0", &[0; 16])] {
        archive.start_file(name, options).unwrap();
        archive.write_all(content).unwrap();
    }
    Source::memory("model.bin", archive.finish().unwrap().into_inner())
}

fn error(pickle: &[u8]) -> String {
    tensors(&archive(pickle)).unwrap_err().to_string()
}

fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(".to_vec(), items.concat(), b"t".to_vec()].concat()
}

fn numbers(numbers: &[i32]) -> Vec<u8> {
    tuple(&numbers.iter().map(|number| [b"J".as_slice(), &number.to_le_bytes()].concat()).collect::<Vec<_>>())
}

/// A tensor of the storage.
fn tensor(shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let key = tuple(&[text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text("0"), text("cpu"), b"K\x04".to_vec()]);
    let storage = [key, b"Q".to_vec()].concat();
    let arguments = tuple(&[storage, b"K\x00".to_vec(), numbers(shape), numbers(strides)]);
    [b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(), arguments, b"R".to_vec()].concat()
}

fn dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"\x80\x02}(".to_vec(), entries.concat(), b"u.".to_vec()].concat()
}

#[test]
fn tensors_are_found() {
    let found = tensors(&archive(&dictionary(&[("a", tensor(&[2, 2], &[2, 1])), ("b", tensor(&[2], &[2]))]))).unwrap();
    let shapes: Vec<_> = found.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())).collect();
    assert_eq!(shapes, [("a", &[2, 2][..]), ("b", &[2])]);
}

#[test]
fn a_tensor_inside_of_many_wrappers_is_none() {
    let wrapped = |times: usize| {
        let open = b"ctorch._utils\n_rebuild_parameter\n(".repeat(times);
        dictionary(&[("a", [open, tensor(&[4], &[1]), b"tR".repeat(times)].concat())])
    };
    assert_eq!(tensors(&archive(&wrapped(1))).unwrap().len(), 1);
    assert!(error(&wrapped(2)).contains("`a` is not a tensor but an object made by the class _rebuild_parameter"));
    assert!(error(&wrapped(50_000)).contains("`a` is not a tensor"));
}

#[test]
fn impossible_shapes_are_named() {
    for (shape, strides, expected) in [
        (&[5][..], &[1][..], "does not fit its storage of 16 bytes"),
        (&[2, 2], &[2], "does not fit its storage"),
        (&[-1], &[1], "a tensor with the impossible size -1"),
        (&[i32::MAX; 4], &[0; 4], "does not fit its storage"),
        (&[1; 9], &[1; 9], "a tensor of 9 dimensions"),
    ] {
        let message = error(&dictionary(&[("a", tensor(shape, strides))]));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_name_is_measured_before_it_is_copied() {
    let name = "x".repeat(1000);
    let message = error(&dictionary(&[(&name, tensor(&[2], &[2]))]));
    assert!(message.contains("a tensor has a name of 1000 bytes"), "{message}");
}

#[test]
fn names_and_keys_are_cut_in_messages() {
    let long = "x".repeat(100_000);
    let message = error(&dictionary(&[(&long, b"N".to_vec())]));
    assert!(message.len() < 300 && message.contains("is not a tensor but None"), "{message}");
    let message = error(&[b"cm\n".as_slice(), long.as_bytes(), b"\n."].concat());
    assert!(message.len() < 300 && message.contains("found the class xxx"), "{message}");
}
