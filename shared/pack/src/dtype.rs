//! Element types. Names are those of the CLI (`f32`), of the V2 protocol (`FP32`) and of ONNX (`FLOAT`).

use std::fmt;
use std::str::FromStr;

/// The element type of a tensor.
///
/// The discriminants are the on-disk codes of docs/format.md and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32 = 0,
    /// IEEE 754 binary16, held as its bits.
    F16 = 1,
    /// Signed 64-bit integer.
    I64 = 2,
    /// Signed 32-bit integer.
    I32 = 3,
    /// Signed 8-bit integer.
    I8 = 4,
    /// Unsigned 8-bit integer.
    U8 = 5,
    /// One byte per element, 0 or 1.
    Bool = 6,
}

/// One row per dtype: CLI name, V2 protocol name, bytes per element.
const TABLE: [(Dtype, &str, &str, usize); 7] = [
    (Dtype::F32, "f32", "FP32", 4),
    (Dtype::F16, "f16", "FP16", 2),
    (Dtype::I64, "i64", "INT64", 8),
    (Dtype::I32, "i32", "INT32", 4),
    (Dtype::I8, "i8", "INT8", 1),
    (Dtype::U8, "u8", "UINT8", 1),
    (Dtype::Bool, "bool", "BOOL", 1),
];

impl Dtype {
    /// Every dtype, in code order.
    pub const ALL: [Dtype; 7] =
        [Dtype::F32, Dtype::F16, Dtype::I64, Dtype::I32, Dtype::I8, Dtype::U8, Dtype::Bool];

    /// The on-disk code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The dtype of an on-disk code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Dtype> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The name used by the CLI and by manifests: `f32`, `i64`, ...
    #[must_use]
    pub const fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// The name used by the Open Inference Protocol V2: `FP32`, `INT64`, ...
    #[must_use]
    pub const fn v2_name(self) -> &'static str {
        TABLE[self as usize].2
    }

    /// The dtype of a V2 protocol name.
    #[must_use]
    pub fn from_v2_name(name: &str) -> Option<Dtype> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// Bytes per element.
    #[must_use]
    pub const fn size(self) -> usize {
        TABLE[self as usize].3
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A dtype name that is none of `f32 f16 i64 i32 i8 u8 bool`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown dtype {0:?}: expected one of f32, f16, i64, i32, i8, u8, bool")]
pub struct UnknownDtype(pub String);

impl FromStr for Dtype {
    type Err = UnknownDtype;

    fn from_str(name: &str) -> Result<Dtype, UnknownDtype> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0).ok_or_else(|| UnknownDtype(name.to_owned()))
    }
}

impl serde::Serialize for Dtype {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for Dtype {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Dtype, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_code_order_and_names_round_trip() {
        for (code, dtype) in Dtype::ALL.into_iter().enumerate() {
            assert_eq!(TABLE[code].0, dtype);
            assert_eq!(usize::from(dtype.code()), code);
            assert_eq!(Dtype::from_code(dtype.code()), Some(dtype));
            assert_eq!(dtype.name().parse(), Ok(dtype));
            assert_eq!(Dtype::from_v2_name(dtype.v2_name()), Some(dtype));
        }
        assert_eq!(Dtype::from_code(7), None);
        assert!("f64".parse::<Dtype>().unwrap_err().to_string().contains("\"f64\""));
    }
}
