//! Just enough of npz to read goldens: little-endian arrays in C order.

use glowplug_pack::{Dtype, Tensor};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Every array of a file, by name.
pub(crate) fn read(path: &Path) -> BTreeMap<String, Tensor> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let count = archive.len();
    let member = |i: usize| {
        let mut member = archive.by_index(i).unwrap();
        let mut bytes = vec![];
        member.read_to_end(&mut bytes).unwrap();
        (member.name().unwrap().strip_suffix(".npy").unwrap().to_owned(), array(&bytes))
    };
    (0..count).map(member).collect()
}

fn array(npy: &[u8]) -> Tensor {
    let len = usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    let header = std::str::from_utf8(&npy[10..10 + len]).unwrap();
    let after = |key: &str| header.split_once(key).unwrap().1;
    let dtype = match after("'descr': '").get(..3).unwrap() {
        "<f4" => Dtype::F32,
        "<i8" => Dtype::I64,
        other => panic!("dtype {other}"),
    };
    assert!(after("'fortran_order': ").starts_with("False"));
    let shape = after("'shape': (").split_once(')').unwrap().0;
    let shape: Vec<usize> =
        shape.split(',').filter(|d| !d.trim().is_empty()).map(|d| d.trim().parse().unwrap()).collect();
    Tensor::from_le_bytes(dtype, shape, &npy[10 + len..]).unwrap()
}
