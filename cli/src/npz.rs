//! npz files: named tensors in and out. Stored or deflated, C order, member names are the ONNX names.

use anyhow::{Context, Result, bail, ensure};
use glowplug_pack::{Dtype, Tensor, TensorData};
use glowplug_packer::{Dataset, Texts};
use glowplug_processing::v2::NamedTensor;
use npyz::{AutoSerialize, DType, NpyFile, Order, WriteOptions, WriterBuilder};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use zip::read::ZipFile;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

/// Largest npz member that is read, in bytes.
const MAX_MEMBER_BYTES: u64 = 4 << 30;

/// Every member of an npz file as a tensor, in file order. Errors: no npz; a dtype that no model takes;
/// Fortran order; a member whose bytes are not what its header says.
pub fn read(path: &Path) -> Result<Vec<NamedTensor>> {
    members(path, |name, member| {
        let tensor = NpyFile::new(member).map_err(anyhow::Error::from).and_then(tensor)?;
        Ok(NamedTensor { name, tensor })
    })
}

/// Samples of calibration or evaluation: tensors, of each of which the first axis numbers the samples, and `text` and
/// `alphabet`, which numpy has as arrays of strings. Errors: as [`read`]; as [`Dataset::new`].
pub fn read_dataset(path: &Path) -> Result<Dataset> {
    let mut texts = Texts::default();
    let read = members(path, |name, member| {
        let npy = NpyFile::new(member)?;
        let DType::Plain(plain) = npy.dtype() else { return Ok(Some((name, tensor(npy)?))) };
        let text = match (&*name, plain.to_string().starts_with("<U")) {
            ("text", true) => &mut texts.text,
            ("alphabet", true) => &mut texts.alphabet,
            _ => return Ok(Some((name, tensor(npy)?))),
        };
        *text = Some(strings(npy, plain.size_field())?);
        Ok(None)
    })?;
    let mut digest = blake3::Hasher::new();
    digest.update_reader(File::open(path)?)?;
    let digest = format!("blake3:{}", digest.finalize().to_hex());
    let members = read.into_iter().flatten().collect();
    Dataset::new(members, texts, digest).with_context(|| path.display().to_string())
}

/// The strings of an array of them, `<U`: `chars` times 32 bits for each, zeros behind the last.
fn strings<R: Read>(npy: NpyFile<R>, chars: u64) -> Result<Vec<String>> {
    let &[count] = npy.shape() else { bail!("has the shape {:?}, expected one axis", npy.shape()) };
    let len = count.checked_mul(chars).and_then(|n| n.checked_mul(size_of::<u32>() as u64));
    let len = len.filter(|len| *len <= MAX_MEMBER_BYTES).with_context(|| {
        format!("its {count} strings of {chars} characters are more than {MAX_MEMBER_BYTES} bytes")
    })?;
    ensure!(len > 0 || count == 0, "holds {count} strings of no characters");
    let mut bytes = Vec::new();
    npy.into_inner().take(len).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 == len, "ends before its last string");
    let string = |of: &[u8]| {
        let points = of.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b));
        let chars = points.take_while(|p| *p != 0).map(|p| char::from_u32(p).context("holds no character"));
        chars.collect::<Result<String>>()
    };
    let each = usize::try_from(chars)?.max(1) * size_of::<u32>();
    bytes.chunks(each).map(string).collect()
}

/// Every member of an npz file, as `read` makes it. Errors: no npz; those of `read`, with the member's name.
fn members<T>(
    path: &Path,
    mut read: impl FnMut(String, ZipFile<'_, BufReader<File>>) -> Result<T>,
) -> Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut archive = ZipArchive::new(BufReader::new(file))
        .with_context(|| format!("{} is not an npz file", path.display()))?;
    let mut members = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let member =
            archive.by_index(index).with_context(|| format!("{}: member {index}", path.display()))?;
        let name = member.name().with_context(|| format!("{}: name of member {index}", path.display()))?;
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        let read = read(name.clone(), member);
        members.push(read.with_context(|| format!("{}: member {name:?}", path.display()))?);
    }
    Ok(members)
}

fn tensor<R: Read>(npy: NpyFile<R>) -> Result<Tensor> {
    ensure!(npy.order() == Order::C || npy.shape().len() < 2, "is in Fortran order, expected C order");
    let dtype = dtype(&npy.dtype())?;
    let shape = npy.shape().iter().map(|d| Ok(usize::try_from(*d)?)).collect::<Result<Vec<_>>>()?;
    let bytes = npy.shape().iter().try_fold(dtype.size() as u64, |n, d| n.checked_mul(*d));
    ensure!(
        bytes.is_some_and(|n| n <= MAX_MEMBER_BYTES),
        "its shape {shape:?} is larger than {MAX_MEMBER_BYTES} bytes"
    );
    let data = match dtype {
        Dtype::F32 => TensorData::F32(npy.into_vec()?),
        Dtype::F16 => {
            TensorData::F16(npy.into_vec::<half::f16>()?.into_iter().map(half::f16::to_bits).collect())
        }
        Dtype::I64 => TensorData::I64(npy.into_vec()?),
        Dtype::I32 => TensorData::I32(npy.into_vec()?),
        Dtype::I8 => TensorData::I8(npy.into_vec()?),
        Dtype::U8 => TensorData::U8(npy.into_vec()?),
        Dtype::Bool => TensorData::Bool(npy.into_vec()?),
    };
    Ok(Tensor::new(shape, data)?)
}

/// numpy's type strings, as ours.
const DTYPES: [(&str, Dtype); 7] = [
    ("f4", Dtype::F32),
    ("f2", Dtype::F16),
    ("i8", Dtype::I64),
    ("i4", Dtype::I32),
    ("i1", Dtype::I8),
    ("u1", Dtype::U8),
    ("b1", Dtype::Bool),
];

fn dtype(found: &DType) -> Result<Dtype> {
    let DType::Plain(plain) = found else { bail!("has a structured dtype, expected a plain one") };
    let text = plain.to_string();
    let known = DTYPES.iter().find(|(name, _)| text.get(1..) == Some(name)).map(|(_, dtype)| *dtype);
    known.with_context(|| format!("has the dtype {text:?}, expected one of f32 f16 i64 i32 i8 u8 bool"))
}

/// Writes `tensors` as a deflated npz file.
pub fn write(path: &Path, tensors: &[NamedTensor]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut archive = ZipWriter::new(BufWriter::new(file));
    for NamedTensor { name, tensor } in tensors {
        archive.start_file(format!("{name}.npy"), SimpleFileOptions::default())?;
        let shape: Vec<u64> = tensor.shape().iter().map(|d| *d as u64).collect();
        match tensor.data() {
            TensorData::F32(v) => member(&mut archive, &shape, v.iter().copied()),
            TensorData::F16(v) => member(&mut archive, &shape, v.iter().map(|b| half::f16::from_bits(*b))),
            TensorData::I64(v) => member(&mut archive, &shape, v.iter().copied()),
            TensorData::I32(v) => member(&mut archive, &shape, v.iter().copied()),
            TensorData::I8(v) => member(&mut archive, &shape, v.iter().copied()),
            TensorData::U8(v) => member(&mut archive, &shape, v.iter().copied()),
            TensorData::Bool(v) => member(&mut archive, &shape, v.iter().copied()),
        }
        .with_context(|| format!("cannot write member {name:?} of {}", path.display()))?;
    }
    archive.finish()?;
    Ok(())
}

fn member<T: AutoSerialize>(
    to: &mut impl Write,
    shape: &[u64],
    values: impl Iterator<Item = T>,
) -> Result<()> {
    let mut npy = WriteOptions::new().default_dtype().shape(shape).writer(to).begin_nd()?;
    npy.extend(values)?;
    npy.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_round_trips_under_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.npz");
        let tensors: Vec<NamedTensor> = Dtype::ALL
            .into_iter()
            .map(|dtype| {
                let bytes: Vec<u8> = (0..6 * dtype.size()).map(|i| u8::from(i % 2 == 0)).collect();
                let tensor = Tensor::from_le_bytes(dtype, [2, 3], &bytes).unwrap();
                NamedTensor { name: format!("/a/{dtype}:0"), tensor }
            })
            .collect();
        write(&path, &tensors).unwrap();
        assert_eq!(read(&path).unwrap(), tensors);
    }

    #[test]
    fn strings_are_read_as_numpy_has_them() {
        let header = "{'descr': '<U3', 'fortran_order': False, 'shape': (2,), }";
        let mut npy = b"\x93NUMPY\x01\x00".to_vec();
        let header = format!("{header:117}\n");
        npy.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        npy.extend(header.as_bytes());
        npy.extend("a\u{4e2d}\0bcd".chars().flat_map(|c| u32::from(c).to_le_bytes()));
        let file = |bytes: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("t.npz");
            let mut archive = ZipWriter::new(File::create(&path).unwrap());
            for (name, bytes) in [("text.npy", bytes), ("x.npy", &npy_of_two())] {
                archive.start_file(name, SimpleFileOptions::default()).unwrap();
                archive.write_all(bytes).unwrap();
            }
            archive.finish().unwrap();
            read_dataset(&path)
        };
        assert_eq!(file(&npy).unwrap().text(), Some(&["a\u{4e2d}".to_owned(), "bcd".to_owned()][..]));
        let e = format!("{:#}", file(&npy[..npy.len() - 20]).unwrap_err());
        assert!(e.contains("member \"text\""), "{e}");
        *npy.last_mut().unwrap() = 0x7f;
        assert!(format!("{:#}", file(&npy).unwrap_err()).contains("holds no character"));
        // Numbers by that name are an input of the model.
        assert!(file(&npy_of_two()).unwrap().text().is_none());
        for (from, to) in [("<U3", "<U0"), ("(2,)", "(9999999999999999,)")] {
            let text = String::from_utf8_lossy(&npy[10..10 + 118]).replace(from, to);
            let header = text.trim_end();
            let mut hostile = b"\x93NUMPY\x01\x00".to_vec();
            hostile.extend(u16::try_from(header.len() + 1).unwrap().to_le_bytes());
            hostile.extend(format!("{header}\n").as_bytes());
            assert!(format!("{:#}", file(&hostile).unwrap_err()).contains("strings of"), "{to}");
        }
    }

    fn npy_of_two() -> Vec<u8> {
        let mut bytes = Vec::new();
        member(&mut bytes, &[2], [1.0f32, 2.0].into_iter()).unwrap();
        bytes
    }

    #[test]
    fn what_is_no_npz_is_told_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npz");
        std::fs::write(&path, b"not a zip").unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("x.npz is not an npz file"));
    }
}
