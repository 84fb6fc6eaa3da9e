//! npz files: the inputs that all engines get, and the outputs that are compared.
//!
//! Inputs are stored, not deflated (scripts/prepare.py writes them), so that reading them costs the same small
//! part of a millisecond in every process.

use crate::Named;
use anyhow::{Context, Result, bail, ensure};
use glowplug_pack::{Dtype, Tensor, TensorData};
use npyz::{AutoSerialize, DType, NpyFile, Order, WriteOptions, WriterBuilder};
use std::fs::File;
use std::io::{BufWriter, Cursor, Read, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// numpy's type strings, as ours.
const DTYPES: [(&str, Dtype); 6] = [
    ("f4", Dtype::F32),
    ("i8", Dtype::I64),
    ("i4", Dtype::I32),
    ("i1", Dtype::I8),
    ("u1", Dtype::U8),
    ("b1", Dtype::Bool),
];

/// Every member, in file order. Errors: no npz, another dtype, Fortran order.
pub fn read(path: &Path) -> Result<Vec<Named>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut archive = ZipArchive::new(Cursor::new(bytes))
        .with_context(|| format!("{} is not an npz file", path.display()))?;
    let mut tensors = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let member = archive.by_index(index)?;
        let name = member.name()?;
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        let tensor = NpyFile::new(member).map_err(anyhow::Error::from).and_then(tensor);
        let tensor = tensor.with_context(|| format!("{}: member {name:?}", path.display()))?;
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

fn tensor<R: Read>(npy: NpyFile<R>) -> Result<Tensor> {
    ensure!(npy.order() == Order::C || npy.shape().len() < 2, "is in Fortran order, expected C order");
    let DType::Plain(plain) = npy.dtype() else { bail!("has a structured dtype, expected a plain one") };
    let text = plain.to_string();
    let known = DTYPES.iter().find(|(name, _)| text.get(1..) == Some(name)).map(|(_, dtype)| *dtype);
    let shape = npy.shape().iter().map(|d| Ok(usize::try_from(*d)?)).collect::<Result<Vec<_>>>()?;
    let data = match known {
        Some(Dtype::F32) => TensorData::F32(npy.into_vec()?),
        Some(Dtype::I64) => TensorData::I64(npy.into_vec()?),
        Some(Dtype::I32) => TensorData::I32(npy.into_vec()?),
        Some(Dtype::I8) => TensorData::I8(npy.into_vec()?),
        Some(Dtype::U8) => TensorData::U8(npy.into_vec()?),
        Some(Dtype::Bool) => TensorData::Bool(npy.into_vec()?),
        _ => bail!("has the dtype {text:?}, expected one of f32 i64 i32 i8 u8 bool"),
    };
    Ok(Tensor::new(shape, data)?)
}

/// Writes `tensors`, stored.
pub fn write(path: &Path, tensors: &[Named]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut archive = ZipWriter::new(BufWriter::new(file));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, tensor) in tensors {
        archive.start_file(format!("{name}.npy"), options)?;
        let shape: Vec<u64> = tensor.shape().iter().map(|d| *d as u64).collect();
        match tensor.data() {
            TensorData::F32(v) => member(&mut archive, &shape, v),
            TensorData::I64(v) => member(&mut archive, &shape, v),
            TensorData::I32(v) => member(&mut archive, &shape, v),
            TensorData::I8(v) => member(&mut archive, &shape, v),
            TensorData::U8(v) => member(&mut archive, &shape, v),
            TensorData::Bool(v) => member(&mut archive, &shape, v),
            TensorData::F16(_) => bail!("output {name:?} is f16, which no measured model has"),
        }
        .with_context(|| format!("cannot write member {name:?} of {}", path.display()))?;
    }
    archive.finish()?;
    Ok(())
}

fn member<T: AutoSerialize + Copy>(to: &mut impl Write, shape: &[u64], values: &[T]) -> Result<()> {
    let mut npy = WriteOptions::new().default_dtype().shape(shape).writer(to).begin_nd()?;
    npy.extend(values.iter().copied())?;
    npy.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_come_back_under_their_names() {
        let dir = std::env::temp_dir().join(format!("glowplug-benches-{}", std::process::id()));
        let tensors: Vec<Named> = DTYPES
            .iter()
            .map(|(_, dtype)| {
                let bytes: Vec<u8> = (0..6 * dtype.size()).map(|i| u8::from(i % 2 == 0)).collect();
                (format!("/a/{dtype}:0"), Tensor::from_le_bytes(*dtype, [2, 3], &bytes).unwrap())
            })
            .collect();
        write(&dir, &tensors).unwrap();
        let found = read(&dir);
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(found.unwrap(), tensors);
    }
}
