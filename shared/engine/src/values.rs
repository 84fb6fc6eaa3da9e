//! Tensors and facts between our vocabulary and tract's.

use glowplug_pack::plan::{Fact, PanelFormat};
use glowplug_pack::{Dtype, Tensor, TensorData, TensorError};
use tract_core::internal::{
    Datum, DatumType, DatumTypeExt, IntoTensor, TDim, Tensor as TractTensor, ToDim, TractResult, TypedFact,
    bail, ensure, f16,
};
use tract_core::ops::matmul::pack::DynPackedExoticFact;
use tract_linalg::mmm::PackedMatrixStorage;
use tract_linalg::pack::PackedFormat;

/// The tract type of a dtype.
#[must_use]
pub fn datum_type(dtype: Dtype) -> DatumType {
    match dtype {
        Dtype::F32 => DatumType::F32,
        Dtype::F16 => DatumType::F16,
        Dtype::I64 => DatumType::I64,
        Dtype::I32 => DatumType::I32,
        Dtype::I8 => DatumType::I8,
        Dtype::U8 => DatumType::U8,
        Dtype::Bool => DatumType::Bool,
    }
}

/// tract's name for a panel layout.
pub(crate) fn packed_format(format: &PanelFormat) -> PackedFormat {
    PackedFormat::new(datum_type(format.dtype), format.r, format.align)
        .with_end_padding_record(format.end_padding)
}

/// What tract's graph is told about an outlet.
pub(crate) fn typed_fact(fact: &Fact) -> TypedFact {
    match fact {
        Fact::Tensor { dtype, shape } => datum_type(*dtype).fact(shape),
        Fact::Panels { format, batch, k, mn } => {
            let packers = vec![Box::new(packed_format(format)) as Box<_>];
            let exotic = DynPackedExoticFact { k: dim(*k), mn: dim(*mn), packers };
            datum_type(format.dtype).fact(batch).with_exotic_fact(exotic)
        }
    }
}

fn dim(n: usize) -> TDim {
    n.to_dim()
}

/// Whether a value is what the plan says: dtype, extents, dense row-major bytes; for panels their count and
/// extents. The plan's geometry was validated against these facts, so this is what keeps kernels in bounds.
pub(crate) fn check(value: &TractTensor, fact: &Fact) -> TractResult<()> {
    match fact {
        Fact::Tensor { dtype, shape } => {
            let fits = value.is_plain() && value.datum_type() == datum_type(*dtype) && value.shape() == shape;
            ensure!(fits && is_dense(value), "gave {value:?}, the plan says {dtype} {shape:?}");
        }
        Fact::Panels { format, batch, k, mn } => {
            let panels = value.try_storage_as::<PackedMatrixStorage>()?;
            let fits = panels.batch_shape() == batch
                && panels.values().iter().all(|v| (v.k(), v.mn(), v.format().r()) == (*k, *mn, format.r));
            ensure!(fits, "gave {panels:?}, the plan says {fact:?}");
        }
    }
    Ok(())
}

/// Row-major without gaps. Strides of extents 1 say nothing.
fn is_dense(tensor: &TractTensor) -> bool {
    let mut wanted = 1isize;
    tensor.shape().iter().zip(tensor.strides()).rev().all(|(extent, stride)| {
        let fits = *extent == 1 || *stride == wanted;
        wanted = wanted.saturating_mul(extent.cast_signed());
        fits
    })
}

/// A tensor of tract's, for the packer's reference runs. One copy.
pub fn to_tract(tensor: &Tensor) -> TractResult<TractTensor> {
    let shape = tensor.shape();
    match tensor.data() {
        TensorData::F32(v) => TractTensor::from_shape(shape, v),
        TensorData::I64(v) => TractTensor::from_shape(shape, v),
        TensorData::I32(v) => TractTensor::from_shape(shape, v),
        TensorData::I8(v) => TractTensor::from_shape(shape, v),
        TensorData::U8(v) => TractTensor::from_shape(shape, v),
        TensorData::Bool(v) => TractTensor::from_shape(shape, v),
        TensorData::F16(v) => {
            let v: Vec<f16> = v.iter().map(|bits| f16::from_bits(*bits)).collect();
            TractTensor::from_shape(shape, &v)
        }
    }
}

/// A tensor of ours, for the packer's reference runs. Errors: a type that no dtype names. One copy.
pub fn from_tract(tensor: &TractTensor) -> TractResult<Tensor> {
    fn values<T: Datum + Copy>(tensor: &TractTensor) -> TractResult<Vec<T>> {
        Ok(tensor.try_as_plain_ram()?.as_slice::<T>()?.to_vec())
    }
    let data = match tensor.datum_type() {
        DatumType::F32 => TensorData::F32(values(tensor)?),
        DatumType::I64 => TensorData::I64(values(tensor)?),
        DatumType::I32 => TensorData::I32(values(tensor)?),
        DatumType::I8 => TensorData::I8(values(tensor)?),
        DatumType::U8 => TensorData::U8(values(tensor)?),
        DatumType::Bool => TensorData::Bool(values(tensor)?),
        DatumType::F16 => TensorData::F16(values::<f16>(tensor)?.into_iter().map(f16::to_bits).collect()),
        other => bail!("a result of type {other:?}"),
    };
    Tensor::new(tensor.shape(), data).map_err(|e: TensorError| tract_core::internal::anyhow!(e))
}

/// A weight's bytes as a tensor of tract's: one copy.
#[allow(unsafe_code, reason = "tract has no safe constructor from bytes of a dynamic type")]
pub(crate) fn from_bytes(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> TractResult<TractTensor> {
    ensure!(dtype != Dtype::Bool, "a bool weight");
    // SAFETY: the constructor checks the byte count against shape and type itself; every bit pattern is a
    // value of the types that are left once bool is excluded.
    let tensor = unsafe { TractTensor::from_raw_dt(datum_type(dtype), shape, bytes) }?;
    Ok(tensor.into_tensor())
}

/// Bytes of a pack as little-endian floats, in place. Errors: not aligned to 4.
#[allow(unsafe_code, reason = "std has no safe cast of bytes to floats")]
pub(crate) fn floats(bytes: &[u8]) -> TractResult<&[f32]> {
    // SAFETY: every bit pattern is an f32, and `align_to` splits off what is not aligned.
    let (before, floats, after) = unsafe { bytes.align_to::<f32>() };
    ensure!(before.is_empty() && after.is_empty(), "weights that are not aligned to 4 bytes");
    Ok(floats)
}
