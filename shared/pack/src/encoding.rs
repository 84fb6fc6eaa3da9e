//! Encodings of weights: f32 in fewer bits. What a value is rounded to, and the scalar reference of how it is read back.
//!
//! *f16*: the nearest IEEE 754 binary16, ties to even. *int8*: symmetric, one scale for each channel (a row or column of
//! a matrix, a row of a table): `real = q * scale`, q in -127..=127, the nearest one, ties to even. A scale that values
//! are rounded with ([`int8_scale`]) has 16 significant bits, so that every product with a q is exact in f32: no CPU and no
//! order of operations can give another weight. It is `largest / 127` or more, so that nothing is clipped.
//!
//! What was rounded once is stored without any further loss, by whatever rule it was rounded: [`Encoding::encode_row`] and
//! [`EncodedPanel::encode`] find the scale in the values, of which it is the greatest common divisor, and give bytes only for
//! values that come back bit by bit. docs/quantization.md tells when to use which.

use crate::{wire_enum, wire_struct};
use std::fmt;

/// What q reaches.
const MOST: f32 = 127.0;
/// Bits of an f32's fraction that a scale does not use: 24 significant ones less 16.
const SCALE_CUT: u32 = 8;
/// Channels whose largest magnitude is below this are zeros: 2^-100, so that no scale comes near the subnormals.
const LEAST: f32 = 7.888_609e-31;
/// What the length of an encoded panel is a multiple of. No kernel reads one in place, so that a line of the cache does,
/// where panels of f32 take 512: panels of few rows would be half padding.
pub const PANEL_ALIGN: usize = 64;

/// How an f32 is stored in fewer bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// IEEE 754 binary16.
    F16,
    /// A signed byte and a scale for each channel.
    Int8,
}
wire_enum!(Encoding { 0 => F16 {}, 1 => Int8 {} });

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encoding::F16 => "f16",
            Encoding::Int8 => "int8",
        })
    }
}

/// A panel in an encoding: `[k, r]` values, behind a scale for each of the r where the encoding has scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EncodedPanel {
    /// How its values are stored.
    pub encoding: Encoding,
    /// Depth.
    pub k: usize,
    /// Height.
    pub r: usize,
}
wire_struct!(EncodedPanel { encoding, k, r });

impl EncodedPanel {
    /// Its bytes without padding. `None` where that overflows.
    #[must_use]
    pub fn byte_len(&self) -> Option<usize> {
        let values = self.k.checked_mul(self.r)?.checked_mul(self.encoding.value_bytes())?;
        self.r.checked_mul(self.encoding.scale_bytes())?.checked_add(values)
    }
}

impl Encoding {
    /// Bytes of one value.
    #[must_use]
    pub const fn value_bytes(self) -> usize {
        match self {
            Encoding::F16 => 2,
            Encoding::Int8 => 1,
        }
    }

    /// Bytes of what each channel has beside its values.
    #[must_use]
    pub const fn scale_bytes(self) -> usize {
        match self {
            Encoding::F16 => 0,
            Encoding::Int8 => size_of::<f32>(),
        }
    }

    /// Bytes of a row of `len` values: its scale, if it has one, then the values. `None` where that overflows.
    #[must_use]
    pub fn row_bytes(self, len: usize) -> Option<usize> {
        len.checked_mul(self.value_bytes())?.checked_add(self.scale_bytes())
    }

    /// The values of one channel, rounded to what the encoding holds. Errors: a value that it has no place for, and why.
    pub fn round(self, channel: &[f32]) -> Result<Vec<f32>, String> {
        if let Some(bad) = channel.iter().find(|v| !v.is_finite()) {
            return Err(format!("holds {bad}"));
        }
        match self {
            Encoding::F16 => {
                let rounded: Vec<f32> = channel.iter().map(|v| f32_of(f16_of(*v))).collect();
                match channel.iter().zip(&rounded).find(|(_, r)| r.is_infinite()) {
                    Some((value, _)) => Err(format!("holds {value:e}, f16 ends at 65504")),
                    None => Ok(rounded),
                }
            }
            Encoding::Int8 => {
                let scale = int8_scale(channel, 0.0)?;
                Ok(channel.iter().map(|v| int8_nearest(*v, scale)).collect())
            }
        }
    }

    /// The bytes of a row. `None` where it would not come back bit by bit: it was not rounded before.
    #[must_use]
    pub fn encode_row(self, row: &[f32]) -> Option<Vec<u8>> {
        let panel = EncodedPanel { encoding: self, k: row.len(), r: 1 };
        panel.encode(row)
    }

    /// The values of a row of [`Encoding::row_bytes`]. Where lengths differ, the shorter one counts.
    pub fn decode_row(self, bytes: &[u8], row: &mut [f32]) {
        EncodedPanel { encoding: self, k: row.len(), r: 1 }.decode(bytes, row);
    }
}

impl EncodedPanel {
    /// The bytes of a panel of `[k, r]` values. `None` where they would not come back bit by bit.
    #[must_use]
    pub fn encode(&self, values: &[f32]) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.byte_len()?);
        match self.encoding {
            Encoding::F16 => bytes.extend(values.iter().flat_map(|v| f16_of(*v).to_le_bytes())),
            Encoding::Int8 => {
                let channel = |i: usize| values.iter().skip(i).step_by(self.r).copied();
                let scales = (0..self.r).map(|i| common_scale(channel(i))).collect::<Option<Vec<_>>>()?;
                bytes.extend(scales.iter().flat_map(|s| s.to_le_bytes()));
                let each = values.iter().zip(scales.iter().cycle());
                bytes.extend(each.map(|(v, scale)| quantized(*v, *scale).cast_unsigned()));
            }
        }
        // Pair assertion: what is written is what will be read.
        let mut found = vec![f32::NAN; values.len()];
        self.decode(&bytes, &mut found);
        let same = found.iter().zip(values).all(|(f, v)| f.to_bits() == v.to_bits());
        (same && values.len() == self.k * self.r).then_some(bytes)
    }

    /// The `[k, r]` values of a panel of [`EncodedPanel::byte_len`]. Where lengths differ, the shorter one counts.
    pub fn decode(&self, bytes: &[u8], values: &mut [f32]) {
        match self.encoding {
            Encoding::F16 => {
                for (value, bits) in values.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32_of(u16::from_le_bytes(*bits));
                }
            }
            Encoding::Int8 => {
                let Some((scales, quantized)) = bytes.split_at_checked(self.r * size_of::<f32>()) else {
                    return;
                };
                let scales = scales.as_chunks().0;
                if self.r == 0 {
                    return;
                }
                for (values, quantized) in values.chunks_mut(self.r).zip(quantized.chunks(self.r)) {
                    for ((value, q), scale) in values.iter_mut().zip(quantized).zip(scales) {
                        *value = f32::from(q.cast_signed()) * f32::from_le_bytes(*scale);
                    }
                }
            }
        }
    }
}

fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |most, v| most.max(v.abs()))
}

/// The scale that a channel is rounded with, at least `step`: the distance between two values that int8 has for it.
/// `max(largest magnitude / 127, step)` rounded up to 16 significant bits; 0 where all values become 0.
/// Errors: a value that is no number, or so large that 127 times the scale is none.
pub fn int8_scale(channel: &[f32], step: f32) -> Result<f32, String> {
    if let Some(bad) = channel.iter().find(|v| !v.is_finite()) {
        return Err(format!("holds {bad}"));
    }
    let largest = largest(channel.iter().copied());
    if largest < LEAST {
        return Ok(0.0);
    }
    let cut = (1u32 << SCALE_CUT) - 1;
    let wanted = (largest / MOST).max(step);
    let bits = wanted.to_bits();
    // The next number of 16 bits, if this one has more; the quotient itself lies closer to it than that.
    let scale = f32::from_bits(if bits & cut == 0 { bits } else { (bits | cut) + 1 });
    // The quotient may have been rounded down to such a number. The product is exact.
    let scale = if scale * MOST < largest { f32::from_bits(scale.to_bits() + cut + 1) } else { scale };
    if (scale * MOST).is_finite() { Ok(scale) } else { Err(format!("holds {largest:e}, too large to scale")) }
}

/// The multiple of `scale` that is nearest to `value`, ties to even, at most 127 times it. `scale` is an [`int8_scale`]:
/// the product is exact.
#[must_use]
pub fn int8_nearest(value: f32, scale: f32) -> f32 {
    f32::from(quantized(value, scale)) * scale
}

/// The largest number that all values are multiples of, where none is more than 127 times it; 0 for zeros. `None` for
/// values that were never rounded.
fn common_scale(values: impl Iterator<Item = f32>) -> Option<f32> {
    // An odd number and a power of two, which have divisors of their own.
    let (mut odd, mut exponent, mut most) = (0u32, i32::MAX, 0f32);
    for value in values.filter(|v| *v != 0.0) {
        if value.abs() < LEAST / MOST || !value.is_finite() {
            return None;
        }
        let bits = value.to_bits();
        let fraction = bits & 0x7f_ffff | 0x80_0000;
        let zeros = fraction.trailing_zeros();
        odd = common_divisor(odd, fraction >> zeros);
        exponent = exponent.min((bits >> 23 & 0xff).cast_signed() - 150 + zeros.cast_signed());
        most = most.max(value.abs());
    }
    if odd == 0 {
        return Some(0.0);
    }
    // At most 24 bits, and no smaller than a value's last one.
    #[allow(clippy::cast_possible_truncation, reason = "exact")]
    let scale = (f64::from(odd) * 2f64.powi(exponent)) as f32;
    (f64::from(most) <= f64::from(MOST) * f64::from(scale)).then_some(scale)
}

fn common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The nearest multiple of `scale`, ties to even.
#[allow(clippy::cast_possible_truncation, reason = "clamped")]
fn quantized(value: f32, scale: f32) -> i8 {
    if scale == 0.0 { 0 } else { (value / scale).round_ties_even().clamp(-MOST, MOST) as i8 }
}

/// The value of an f16. Exact; NaN becomes a quiet one, as the instruction does.
#[must_use]
pub fn f32_of(f16: u16) -> f32 {
    let sign = u32::from(f16 & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(f16 >> 10 & 0x1f), u32::from(f16 & 0x3ff));
    match (exponent, fraction) {
        // A multiple of 2^-24, which f32 has as a normal number.
        (0, _) => f32::from_bits(sign | (fraction as f32 * 2f32.powi(-24)).to_bits()),
        (0x1f, 0) => f32::from_bits(sign | 0x7f80_0000),
        (0x1f, _) => f32::from_bits(sign | 0x7fc0_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// The nearest f16, ties to even; infinite beyond its range.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "each part was brought into its range")]
pub fn f16_of(value: f32) -> u16 {
    let bits = value.to_bits();
    let (sign, magnitude) = ((bits >> 16 & 0x8000) as u16, bits & 0x7fff_ffff);
    let nearest = match magnitude {
        // NaN.
        0x7f80_0001.. => 0x7e00 | (magnitude >> 13 & 0x3ff) as u16,
        // 65520 and above is nearer to 65536 than to 65504, which is the last.
        0x477f_f000.. => 0x7c00,
        // From 2^-14 on: 13 bits fewer. A carry out of the fraction goes where it belongs, to the exponent.
        0x3880_0000.. => {
            let odd = magnitude >> 13 & 1;
            (((magnitude + 0xfff + odd) >> 13) - (112 << 10)) as u16
        }
        // Subnormal: a multiple of 2^-24.
        _ => (f32::from_bits(magnitude) * 2f32.powi(24)).round_ties_even() as u16,
    };
    sign | nearest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Encoding; 2] = [Encoding::F16, Encoding::Int8];

    #[test]
    fn every_f16_is_read_and_written_as_itself() {
        let mut last = f32::NEG_INFINITY;
        for bits in (0x8000..=0xfc00u16).rev().chain(0..=0x7c00) {
            let value = f32_of(bits);
            assert_eq!(f16_of(value), bits, "{value}");
            assert!(
                value > last || (bits == 0 && last == 0.0) || bits == 0xfc00,
                "{bits:#x}: {last} {value}"
            );
            last = value;
        }
        let known =
            [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (1, 5.960_464_5e-8), (0x0400, 6.103_515_6e-5)];
        for (bits, value) in known {
            assert_eq!(f32_of(bits), value);
        }
        assert!((0x7c01..0x8000).all(|bits| f32_of(bits).is_nan() && f32_of(bits | 0x8000).is_nan()));
        assert_eq!(f16_of(f32::NAN) & 0x7e00, 0x7e00);
    }

    #[test]
    fn an_f32_becomes_the_nearest_f16_and_the_even_one_between_two() {
        for bits in 0..0x7c00u16 {
            let (low, high) =
                (f64::from(f32_of(bits)), if bits == 0x7bff { 65536.0 } else { f64::from(f32_of(bits + 1)) });
            #[allow(clippy::cast_possible_truncation, reason = "eleven bits and one more are exact")]
            let middle = ((low + high) / 2.0) as f32;
            let even = bits + (bits & 1);
            for sign in [1.0, -1.0] {
                let sign_bit = if sign < 0.0 { 0x8000 } else { 0 };
                assert_eq!(f16_of(sign * middle), even | sign_bit, "{middle}");
                assert_eq!(f16_of(sign * middle.next_down()), bits | sign_bit, "below {middle}");
                assert_eq!(f16_of(sign * middle.next_up()), (bits + 1) | sign_bit, "above {middle}");
            }
        }
        assert_eq!(f16_of(f32::MAX), 0x7c00);
        assert_eq!(f16_of(1e-40), 0);
    }

    #[test]
    fn quantized_values_are_the_nearest_multiples_and_scales_are_short() {
        let channel = [1.0, -0.5, 0.0, 1.27, -1.27, 0.004, 0.006];
        let rounded = Encoding::Int8.round(&channel).unwrap();
        let scale = int8_scale(&channel, 0.0).unwrap();
        assert!((1.27 / 127.0..0.01 * (1.0 + 1.0 / 16384.0)).contains(&scale), "{scale}");
        assert_eq!(scale.to_bits() & 0xff, 0);
        assert_eq!(rounded, [100.0, -50.0, 0.0, 127.0, -127.0, 0.0, 1.0].map(|q| q * scale));
        // Halves go to the even side: the scale is exactly 1.
        assert_eq!(Encoding::Int8.round(&[127.0, 0.5, 1.5, -2.5]).unwrap(), [127.0, 0.0, 2.0, -2.0]);
        assert_eq!(Encoding::Int8.round(&[1e-38, -1e-40, 0.0]).unwrap(), [0.0; 3]);
    }

    #[test]
    fn a_scale_is_found_again_whatever_the_rule_was() {
        // Coarser than int8 has to be, and nothing near the largest multiple.
        let scale = int8_scale(&[1.0, -0.25, 0.75], 0.11).unwrap();
        assert!((0.11..0.111).contains(&scale), "{scale}");
        for multiples in [&[9i8, -2, 7, 0][..], &[6, -4, 2], &[126, -63], &[127, -127, 1], &[0, 0], &[-5]] {
            let row: Vec<f32> = multiples.iter().map(|q| f32::from(*q) * scale).collect();
            let bytes = Encoding::Int8.encode_row(&row).unwrap();
            let mut found = vec![0.0; row.len()];
            Encoding::Int8.decode_row(&bytes, &mut found);
            assert_eq!(found, row);
        }
        // One more than there are numbers for; a common divisor helps.
        let row = |multiples: [f32; 2]| multiples.map(|q| q * scale);
        assert_eq!(Encoding::Int8.encode_row(&row([128.0, 1.0])), None);
        assert!(Encoding::Int8.encode_row(&row([254.0, -2.0])).is_some());
        assert_eq!(Encoding::Int8.encode_row(&[f32::from_bits(1)]), None);
        assert_eq!(Encoding::Int8.encode_row(&[f32::INFINITY]), None);
    }

    #[test]
    fn what_has_no_place_is_told() {
        for (encoding, channel, text) in [
            (Encoding::F16, vec![1.0, 65520.0], "holds 6.552e4, f16 ends at 65504"),
            (Encoding::F16, vec![f32::INFINITY], "holds inf"),
            (Encoding::Int8, vec![0.0, f32::NAN], "holds NaN"),
            (Encoding::Int8, vec![f32::MAX], "too large to scale"),
        ] {
            let e = encoding.round(&channel).unwrap_err();
            assert!(e.contains(text), "{e}, expected {text:?}");
        }
        assert_eq!(Encoding::F16.round(&[65519.0]).unwrap(), [65504.0]);
        assert!(Encoding::Int8.round(&[f32::MAX / 1.01]).is_ok());
    }

    #[test]
    fn what_was_not_rounded_is_not_written() {
        for encoding in BOTH {
            assert_eq!(encoding.encode_row(&[0.1, 0.333_333_34]), None);
            let panel = EncodedPanel { encoding, k: 2, r: 2 };
            assert_eq!(panel.encode(&[0.0; 3]), None);
            assert_eq!(panel.encode(&[0.0; 4]).unwrap().len(), panel.byte_len().unwrap());
        }
        assert_eq!(Encoding::Int8.encode_row(&[-0.0]), None);
        assert_eq!(EncodedPanel { encoding: Encoding::F16, k: usize::MAX, r: 1 }.byte_len(), None);
    }

    /// Any finite f32, most of them of an ordinary size.
    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => -2f32..2.0,
            1 => any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |v| v.is_finite()),
            1 => Just(0.0f32),
        ]
    }

    proptest! {
        #[test]
        fn rounding_is_close_and_happens_once(channel in proptest::collection::vec(value(), 1..80)) {
            for encoding in BOTH {
                let Ok(rounded) = encoding.round(&channel) else { continue };
                let most = largest(channel.iter().copied());
                for (v, r) in channel.iter().zip(&rounded) {
                    let step = match encoding {
                        Encoding::F16 => (f64::from(v.abs()) / 2048.0).max(2f64.powi(-25)),
                        Encoding::Int8 => (f64::from(most) / 127.0 * 0.500_1).max(f64::from(LEAST)),
                    };
                    prop_assert!((f64::from(*v) - f64::from(*r)).abs() <= step, "{encoding} {v} {r}");
                }
                prop_assert_eq!(&encoding.round(&rounded).unwrap(), &rounded);
                let bytes = encoding.encode_row(&rounded).unwrap();
                prop_assert_eq!(bytes.len(), encoding.row_bytes(channel.len()).unwrap());
                let mut found = vec![0.0; rounded.len()];
                encoding.decode_row(&bytes, &mut found);
                prop_assert_eq!(found, rounded);
            }
        }

        #[test]
        fn a_panel_holds_its_channels(k in 1usize..9, r in 1usize..18, values in proptest::collection::vec(-3f32..3.0, 200)) {
            for encoding in BOTH {
                let mut panel = vec![0.0; k * r];
                for i in 0..r {
                    let channel: Vec<f32> = (0..k).map(|d| values[d * r + i]).collect();
                    for (d, value) in encoding.round(&channel).unwrap().into_iter().enumerate() {
                        panel[d * r + i] = value;
                    }
                }
                let layout = EncodedPanel { encoding, k, r };
                let bytes = layout.encode(&panel).unwrap();
                prop_assert_eq!(bytes.len(), layout.byte_len().unwrap());
                let mut found = vec![f32::NAN; k * r];
                layout.decode(&bytes, &mut found);
                prop_assert_eq!(found, panel);
            }
        }

        #[test]
        fn any_bytes_are_values(bytes in proptest::collection::vec(any::<u8>(), 0..100), k in 0usize..9, r in 0usize..9) {
            for encoding in BOTH {
                EncodedPanel { encoding, k, r }.decode(&bytes, &mut vec![0.0; k * r]);
                encoding.decode_row(&bytes, &mut vec![0.0; k]);
            }
        }
    }
}
