//! `Tensor`: what travels between a request, a plan and an answer. Owned, dense, row-major ("C order").

use crate::dtype::Dtype;
use std::fmt;

/// The elements of a tensor, by dtype. `F16` holds IEEE 754 binary16 bits.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "one variant per dtype, named as Dtype's")]
pub enum TensorData {
    F32(Vec<f32>),
    F16(Vec<u16>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    Bool(Vec<bool>),
}

/// Runs `$body` with `$v` bound to the vector of whichever variant `$data` is.
#[macro_export]
macro_rules! with_tensor_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::TensorData::F32($v) => $body,
            $crate::TensorData::F16($v) => $body,
            $crate::TensorData::I64($v) => $body,
            $crate::TensorData::I32($v) => $body,
            $crate::TensorData::I8($v) => $body,
            $crate::TensorData::U8($v) => $body,
            $crate::TensorData::Bool($v) => $body,
        }
    };
}

impl TensorData {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        with_tensor_data!(self, v => v.len())
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        match self {
            TensorData::F32(_) => Dtype::F32,
            TensorData::F16(_) => Dtype::F16,
            TensorData::I64(_) => Dtype::I64,
            TensorData::I32(_) => Dtype::I32,
            TensorData::I8(_) => Dtype::I8,
            TensorData::U8(_) => Dtype::U8,
            TensorData::Bool(_) => Dtype::Bool,
        }
    }
}

/// A dense tensor `[d0, d1, ..]` in row-major order; `shape.iter().product() == data.len()` always holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: TensorData,
}

/// What a tensor could not be made from, or taken as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The shape's element count is not the number of elements given.
    #[error("shape {shape:?} holds {wanted} elements, found {found}")]
    Length {
        /// The shape asked for.
        shape: Vec<usize>,
        /// Its element count.
        wanted: usize,
        /// How many elements there were.
        found: usize,
    },
    /// The shape's byte count does not fit the address space.
    #[error("shape {0:?} is too large for this machine")]
    TooLarge(Vec<usize>),
    /// A byte that is neither 0 nor 1 in a bool tensor.
    #[error("bool element {index} is {found}, expected 0 or 1")]
    NotBool {
        /// Its index in row-major order.
        index: usize,
        /// Its value.
        found: u8,
    },
    /// The tensor has another dtype than the caller needs.
    #[error("expected a tensor of dtype {wanted}, found {found}")]
    Dtype {
        /// What the caller needs.
        wanted: Dtype,
        /// What the tensor holds.
        found: Dtype,
    },
}

/// The number of elements in `shape`, or `None` where it overflows. The empty shape is a scalar: 1.
#[must_use]
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}

macro_rules! accessors {
    ($($variant:ident, $t:ty, $as_:ident, $from:ident;)*) => {
        $(
            #[doc = concat!("The elements as `", stringify!($t), "`. Errors: another dtype. No copy.")]
            pub fn $as_(&self) -> Result<&[$t], TensorError> {
                match &self.data {
                    TensorData::$variant(v) => Ok(v),
                    other => Err(TensorError::Dtype { wanted: Dtype::$variant, found: other.dtype() }),
                }
            }

            #[doc = concat!("A tensor of `", stringify!($t), "`. Errors: `shape` holds another number of elements. No copy.")]
            pub fn $from(shape: impl Into<Vec<usize>>, data: Vec<$t>) -> Result<Tensor, TensorError> {
                Tensor::new(shape, TensorData::$variant(data))
            }
        )*
    };
}

impl Tensor {
    /// A tensor of `shape` over `data`. Errors: element counts differ. No copy.
    pub fn new(shape: impl Into<Vec<usize>>, data: TensorData) -> Result<Tensor, TensorError> {
        let shape = shape.into();
        let wanted = element_count(&shape).ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
        if wanted != data.len() {
            return Err(TensorError::Length { shape, wanted, found: data.len() });
        }
        Ok(Tensor { shape, data })
    }

    /// A tensor from little-endian bytes, as in V2's binary extension and in npy files. One copy.
    /// Errors: byte count differs from `shape` x dtype size; a bool that is neither 0 nor 1.
    pub fn from_le_bytes(
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        bytes: &[u8],
    ) -> Result<Tensor, TensorError> {
        let shape = shape.into();
        let wanted = element_count(&shape)
            .filter(|n| n.checked_mul(dtype.size()).is_some())
            .ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
        if wanted * dtype.size() != bytes.len() {
            return Err(TensorError::Length { shape, wanted, found: bytes.len() / dtype.size() });
        }
        fn decode<const N: usize, T>(bytes: &[u8], f: fn([u8; N]) -> T) -> Vec<T> {
            bytes.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
        }
        let data = match dtype {
            Dtype::F32 => TensorData::F32(decode(bytes, f32::from_le_bytes)),
            Dtype::F16 => TensorData::F16(decode(bytes, u16::from_le_bytes)),
            Dtype::I64 => TensorData::I64(decode(bytes, i64::from_le_bytes)),
            Dtype::I32 => TensorData::I32(decode(bytes, i32::from_le_bytes)),
            Dtype::I8 => TensorData::I8(decode(bytes, i8::from_le_bytes)),
            Dtype::U8 => TensorData::U8(bytes.to_vec()),
            Dtype::Bool => TensorData::Bool(
                bytes
                    .iter()
                    .enumerate()
                    .map(|(index, b)| match b {
                        0 => Ok(false),
                        1 => Ok(true),
                        found => Err(TensorError::NotBool { index, found: *found }),
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Tensor { shape, data })
    }

    /// The elements as little-endian bytes, row-major. One copy.
    #[must_use]
    pub fn to_le_bytes(&self) -> Vec<u8> {
        fn encode<const N: usize, T: Copy>(v: &[T], f: fn(T) -> [u8; N]) -> Vec<u8> {
            v.iter().flat_map(|x| f(*x)).collect()
        }
        match &self.data {
            TensorData::F32(v) => encode(v, f32::to_le_bytes),
            TensorData::F16(v) => encode(v, u16::to_le_bytes),
            TensorData::I64(v) => encode(v, i64::to_le_bytes),
            TensorData::I32(v) => encode(v, i32::to_le_bytes),
            TensorData::I8(v) => encode(v, i8::to_le_bytes),
            TensorData::U8(v) => v.clone(),
            TensorData::Bool(v) => v.iter().map(|b| u8::from(*b)).collect(),
        }
    }

    /// A tensor of zeros (`false` for bool). Errors: `shape` overflows.
    pub fn zeros(dtype: Dtype, shape: impl Into<Vec<usize>>) -> Result<Tensor, TensorError> {
        let shape = shape.into();
        let n = element_count(&shape)
            .filter(|n| n.checked_mul(dtype.size()).is_some_and(|b| isize::try_from(b).is_ok()))
            .ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
        let data = match dtype {
            Dtype::F32 => TensorData::F32(vec![0.0; n]),
            Dtype::F16 => TensorData::F16(vec![0; n]),
            Dtype::I64 => TensorData::I64(vec![0; n]),
            Dtype::I32 => TensorData::I32(vec![0; n]),
            Dtype::I8 => TensorData::I8(vec![0; n]),
            Dtype::U8 => TensorData::U8(vec![0; n]),
            Dtype::Bool => TensorData::Bool(vec![false; n]),
        };
        Ok(Tensor { shape, data })
    }

    accessors! {
        F32, f32, as_f32, from_f32;
        F16, u16, as_f16_bits, from_f16_bits;
        I64, i64, as_i64, from_i64;
        I32, i32, as_i32, from_i32;
        I8, i8, as_i8, from_i8;
        U8, u8, as_u8, from_u8;
        Bool, bool, as_bool, from_bool;
    }

    /// The extents, outermost first; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.data.dtype()
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether an extent is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements.
    #[must_use]
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// Shape and elements, without a copy.
    #[must_use]
    pub fn into_parts(self) -> (Vec<usize>, TensorData) {
        (self.shape, self.data)
    }

    /// The same elements in another shape. Errors: element counts differ. No copy.
    pub fn reshape(self, shape: impl Into<Vec<usize>>) -> Result<Tensor, TensorError> {
        Tensor::new(shape, self.data)
    }
}

/// `f32[1,3,224,224]`, as the CLI's `--input` spells it.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype(), DisplayShape(&self.shape))
    }
}

/// `[1,3,224,224]`.
#[derive(Clone, Copy, Debug)]
pub struct DisplayShape<'a>(pub &'a [usize]);

impl fmt::Display for DisplayShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_for_every_dtype() {
        for dtype in Dtype::ALL {
            let bytes: Vec<u8> = (0..6 * dtype.size()).map(|i| u8::from(i % 3 == 0)).collect();
            let t = Tensor::from_le_bytes(dtype, [2, 3], &bytes).unwrap();
            assert_eq!((t.dtype(), t.shape(), t.len()), (dtype, &[2, 3][..], 6));
            assert_eq!(t.to_le_bytes(), bytes);
            assert_eq!(Tensor::zeros(dtype, [2, 3]).unwrap().dtype(), dtype);
        }
    }

    #[test]
    fn wrong_counts_are_told_with_both_numbers() {
        let e = Tensor::from_f32([2, 2], vec![0.0; 3]).unwrap_err();
        assert_eq!(e.to_string(), "shape [2, 2] holds 4 elements, found 3");
        assert!(matches!(Tensor::zeros(Dtype::F32, [usize::MAX, 2]), Err(TensorError::TooLarge(_))));
        assert!(matches!(
            Tensor::from_le_bytes(Dtype::Bool, [2], &[1, 2]),
            Err(TensorError::NotBool { index: 1, found: 2 })
        ));
    }

    #[test]
    fn a_scalar_has_one_element_and_an_empty_axis_none() {
        assert_eq!(element_count(&[]), Some(1));
        assert!(Tensor::zeros(Dtype::F32, [0, 4]).unwrap().is_empty());
        assert_eq!(Tensor::zeros(Dtype::I64, [1, 4]).unwrap().to_string(), "i64[1,4]");
    }
}
