//! The byte codec of the structured sections (weight table, plans): small, bounded, with explicit tags.
//!
//! Integers are unsigned LEB128, signed ones zigzagged first; floats are 4 bytes little-endian; text and
//! lists carry a count. A reader never allocates more elements than there are bytes left, because every
//! element takes at least one. Enum tags are written in the code, not derived from the order of variants,
//! so that a file stays readable when a variant is added or moved.

use crate::dtype::Dtype;
use crate::error::PackError;

/// Collects encoded bytes.
#[derive(Default)]
pub struct Writer {
    /// What was written so far.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// The encoding of one value.
    #[must_use]
    pub fn encode<T: Wire>(value: &T) -> Vec<u8> {
        let mut w = Writer::default();
        value.write(&mut w);
        w.bytes
    }

    /// Appends one byte.
    pub fn u8(&mut self, v: u8) {
        self.bytes.push(v);
    }

    /// Appends an unsigned LEB128 integer.
    #[allow(clippy::cast_possible_truncation, reason = "masked to seven bits")]
    pub fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.bytes.push((v as u8 & 0x7f) | 0x80);
            v >>= 7;
        }
        self.bytes.push(v as u8);
    }
}

/// Walks over encoded bytes; every read is checked against what is left.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// The value that `bytes` hold, all of them. Errors: as [`Wire::read`]; bytes left over.
    pub fn decode<T: Wire>(bytes: &'a [u8]) -> Result<T, PackError> {
        let mut r = Reader::new(bytes);
        let value = T::read(&mut r)?;
        match r.remaining() {
            0 => Ok(value),
            n => Err(r.error(format!("{n} bytes left over"))),
        }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], PackError> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.error(format!("{n} bytes wanted, {} left", self.remaining())));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, PackError> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned LEB128 integer. Errors: longer than 64 bits; not in its shortest form.
    pub fn varint(&mut self) -> Result<u64, PackError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.error("an integer of more than 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.error("an integer that is not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.error("an integer of more than 64 bits"))
    }

    /// A count of elements that follow, each of at least one byte.
    pub fn count(&mut self) -> Result<usize, PackError> {
        let n = self.varint()?;
        match usize::try_from(n) {
            Ok(n) if n <= self.remaining() => Ok(n),
            _ => Err(self.error(format!("a count of {n}, {} bytes left", self.remaining()))),
        }
    }

    /// An error at this reader's place.
    #[must_use]
    pub fn error(&self, text: impl std::fmt::Display) -> PackError {
        PackError::corrupt(format!("byte {}: {text}", self.at))
    }
}

/// A value with one encoding.
pub trait Wire: Sized {
    /// Appends the encoding.
    fn write(&self, w: &mut Writer);
    /// Reads one value. Errors: too few bytes, an unknown tag, a number out of range; never panics.
    fn read(r: &mut Reader<'_>) -> Result<Self, PackError>;
}

macro_rules! wire_unsigned {
    ($($t:ty),*) => { $(
        impl Wire for $t {
            fn write(&self, w: &mut Writer) {
                w.varint(*self as u64);
            }
            fn read(r: &mut Reader<'_>) -> Result<Self, PackError> {
                let v = r.varint()?;
                <$t>::try_from(v).map_err(|_| r.error(format!("{v} is out of range for {}", stringify!($t))))
            }
        }
    )* };
}
wire_unsigned!(u16, u32, u64, usize);

impl Wire for i64 {
    fn write(&self, w: &mut Writer) {
        w.varint(((self << 1) ^ (self >> 63)).cast_unsigned());
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, PackError> {
        let v = r.varint()?;
        Ok((v >> 1).cast_signed() ^ -((v & 1).cast_signed()))
    }
}

impl Wire for f32 {
    fn write(&self, w: &mut Writer) {
        w.bytes.extend_from_slice(&self.to_le_bytes());
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, PackError> {
        let b = r.take(4)?;
        Ok(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }
}

impl Wire for u8 {
    fn write(&self, w: &mut Writer) {
        w.u8(*self);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, PackError> {
        r.u8()
    }
}

impl Wire for bool {
    fn write(&self, w: &mut Writer) {
        w.u8(u8::from(*self));
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, PackError> {
        match r.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            v => Err(r.error(format!("{v} is not a bool"))),
        }
    }
}

impl Wire for Dtype {
    fn write(&self, w: &mut Writer) {
        w.u8(self.code());
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, PackError> {
        let code = r.u8()?;
        Dtype::from_code(code).ok_or_else(|| r.error(format!("unknown dtype code {code}")))
    }
}

impl Wire for String {
    fn write(&self, w: &mut Writer) {
        self.len().write(w);
        w.bytes.extend_from_slice(self.as_bytes());
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, PackError> {
        let n = r.count()?;
        let bytes = r.take(n)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| r.error("text that is not UTF-8"))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, w: &mut Writer) {
        self.len().write(w);
        for item in self {
            item.write(w);
        }
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, PackError> {
        let n = r.count()?;
        // No `with_capacity(n)`: an element may be far larger than its one byte of encoding.
        let mut items = Vec::new();
        for _ in 0..n {
            items.push(T::read(r)?);
        }
        Ok(items)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, w: &mut Writer) {
        self.is_some().write(w);
        if let Some(v) = self {
            v.write(w);
        }
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, PackError> {
        Ok(if bool::read(r)? { Some(T::read(r)?) } else { None })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn write(&self, w: &mut Writer) {
        self.0.write(w);
        self.1.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, PackError> {
        Ok((A::read(r)?, B::read(r)?))
    }
}

/// `Wire` for a struct: its fields in the order given.
#[macro_export]
macro_rules! wire_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn write(&self, w: &mut $crate::wire::Writer) {
                $( $crate::wire::Wire::write(&self.$field, w); )*
            }
            fn read(r: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::PackError> {
                Ok($name { $( $field: $crate::wire::Wire::read(r)?, )* })
            }
        }
    };
}

/// `Wire` for an enum of struct-like variants: one tag byte, then the variant's fields in the order given.
#[macro_export]
macro_rules! wire_enum {
    ($name:ident { $($tag:literal => $variant:ident { $($field:ident),* $(,)? }),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn write(&self, w: &mut $crate::wire::Writer) {
                match self {
                    $( $name::$variant { $($field),* } => {
                        w.u8($tag);
                        $( $crate::wire::Wire::write($field, w); )*
                    } )*
                }
            }
            fn read(r: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::PackError> {
                match r.u8()? {
                    $( $tag => Ok($name::$variant { $( $field: $crate::wire::Wire::read(r)?, )* }), )*
                    tag => Err(r.error(format!("unknown {} tag {tag}", stringify!($name)))),
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Shape {
        Dot,
        Box { w: u32, names: Vec<String> },
    }
    wire_enum!(Shape { 0 => Dot {}, 7 => Box { w, names } });

    #[test]
    fn values_round_trip() {
        let v = vec![(Shape::Dot, -3i64), (Shape::Box { w: 300, names: vec!["é".into()] }, i64::MIN)];
        assert_eq!(Reader::decode::<Vec<(Shape, i64)>>(&Writer::encode(&v)).unwrap(), v);
        let v = (Some(1.5f32), (u64::MAX, Dtype::Bool));
        assert_eq!(Reader::decode::<(Option<f32>, (u64, Dtype))>(&Writer::encode(&v)).unwrap(), v);
    }

    #[test]
    fn hostile_bytes_get_an_error_that_says_where() {
        let cases: [(&[u8], &str); 6] = [
            (&[1, 3], "byte 2: unknown Shape tag 3"),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], "byte 5: a count of 4294967295, 0 bytes left"),
            (&[1, 7, 0xff, 0xff, 0xff, 0xff, 0x7f, 0], "out of range for u32"),
            (&[1, 7, 1, 1, 2, 0xff], "a count of 2, 1 bytes left"),
            (&[1, 7, 1, 1, 1, 0xff], "not UTF-8"),
            (&[0, 9], "1 bytes left over"),
        ];
        for (bytes, text) in cases {
            let e = Reader::decode::<Vec<Shape>>(bytes).unwrap_err();
            assert!(e.to_string().contains(text), "{bytes:?}: {e}");
        }
        assert!(Reader::decode::<u64>(&[0x80, 0]).unwrap_err().to_string().contains("shortest form"));
        assert!(Reader::decode::<u64>(&[0xff; 10]).unwrap_err().to_string().contains("more than 64 bits"));
    }
}
