//! Weights back from fewer bits. Every product and every conversion is exact, so that vectors and plain code give the
//! same bits.

use glowplug_pack::{EncodedPanel, Encoding};

/// The values of an encoded panel, as [`EncodedPanel::decode`] gives them. Where lengths differ, the shorter one counts.
pub(crate) fn panel(layout: &EncodedPanel, bytes: &[u8], values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if avx2::panel(layout, bytes, values) {
        return;
    }
    layout.decode(bytes, values);
}

/// The values of an encoded row, as [`Encoding::decode_row`] gives them. Where lengths differ, the shorter one counts.
pub(crate) fn row(encoding: Encoding, bytes: &[u8], values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if avx2::row(encoding, bytes, values) {
        return;
    }
    encoding.decode_row(bytes, values);
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::super::has_avx2;
    use super::super::vector::{LANES, load, store};
    use glowplug_pack::{EncodedPanel, Encoding};
    use std::arch::x86_64::*;

    /// Columns of the panels that there are vectors for.
    const WIDTH: usize = 2 * LANES;

    /// Whether it could be done.
    #[allow(unsafe_code, reason = "vector functions need their instruction sets")]
    pub(super) fn panel(layout: &EncodedPanel, bytes: &[u8], values: &mut [f32]) -> bool {
        match layout.encoding {
            Encoding::F16 => return halves(bytes, values),
            Encoding::Int8 if layout.r == WIDTH && has_avx2() => {}
            Encoding::Int8 => return false,
        }
        let Some((scales, quantized)) = bytes.split_first_chunk::<{ WIDTH * size_of::<f32>() }>() else {
            return false;
        };
        let mut of_columns = [0.0; WIDTH];
        of_columns.iter_mut().zip(scales.as_chunks().0).for_each(|(to, s)| *to = f32::from_le_bytes(*s));
        // SAFETY: the CPU has AVX2 and FMA.
        unsafe { scaled(&of_columns, quantized, values) };
        true
    }

    /// Whether it could be done.
    #[allow(unsafe_code, reason = "vector functions need their instruction sets")]
    pub(super) fn row(encoding: Encoding, bytes: &[u8], values: &mut [f32]) -> bool {
        let (Encoding::Int8, true) = (encoding, has_avx2()) else {
            return encoding == Encoding::F16 && halves(bytes, values);
        };
        let Some((scale, quantized)) = bytes.split_first_chunk() else { return false };
        let scale = f32::from_le_bytes(*scale);
        // SAFETY: the CPU has AVX2 and FMA.
        unsafe { scaled(&[scale; WIDTH], quantized, values) };
        true
    }

    /// Each byte times the scale of its column.
    #[target_feature(enable = "avx2,fma")]
    #[allow(unsafe_code, reason = "loads take pointers")]
    fn scaled(scales: &[f32; WIDTH], quantized: &[u8], values: &mut [f32]) {
        let (Some(low), Some(high)) = (scales.first_chunk(), scales.last_chunk()) else { return };
        let (low, high) = (load(low), load(high));
        let done = quantized.len().min(values.len()) / WIDTH * WIDTH;
        let records = quantized.as_chunks::<WIDTH>().0;
        for (q, values) in records.iter().zip(values.as_chunks_mut::<WIDTH>().0) {
            // SAFETY: sixteen bytes are there; the load asks for no alignment.
            let q = unsafe { _mm_loadu_si128(q.as_ptr().cast()) };
            let first = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
            let second = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(q, q)));
            if let [to_first, to_second] = values.as_chunks_mut::<LANES>().0 {
                store(to_first, _mm256_mul_ps(first, low));
                store(to_second, _mm256_mul_ps(second, high));
            }
        }
        let rest = values[done..].iter_mut().zip(&quantized[done..]).zip(scales);
        rest.for_each(|((value, q), scale)| *value = f32::from(q.cast_signed()) * scale);
    }

    /// f16, whatever they are. Whether it could be done.
    #[allow(unsafe_code, reason = "vector functions need their instruction sets")]
    fn halves(bytes: &[u8], values: &mut [f32]) -> bool {
        if !has_avx2() || !std::arch::is_x86_feature_detected!("f16c") {
            return false;
        }
        let (halves, whole) = (bytes.as_chunks().0, values.as_chunks_mut().0);
        let done = halves.len().min(whole.len()) * LANES;
        // SAFETY: the CPU has AVX2, FMA and F16C.
        unsafe { halves_of(halves, whole) };
        Encoding::F16.decode_row(&bytes[done * size_of::<u16>()..], &mut values[done..]);
        true
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[allow(unsafe_code, reason = "loads take pointers")]
    fn halves_of(halves: &[[u8; 2 * LANES]], values: &mut [[f32; LANES]]) {
        for (bits, values) in halves.iter().zip(values) {
            // SAFETY: sixteen bytes are there; the load asks for no alignment.
            let bits = unsafe { _mm_loadu_si128(bits.as_ptr().cast()) };
            store(values, _mm256_cvtph_ps(bits));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Encoding; 2] = [Encoding::F16, Encoding::Int8];

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from((i * 167 + i / 7 * 13 + 29) % 256).unwrap()).collect()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    /// Any bytes at all: scales and halves that are subnormal, infinite or no number among them.
    #[test]
    fn vectors_give_the_bits_that_plain_code_gives() {
        for encoding in BOTH {
            for n in (0..70).chain([384, 1000]) {
                let bytes = bytes(encoding.row_bytes(n).unwrap());
                let (mut found, mut wanted) = (vec![9.0; n], vec![9.0; n]);
                row(encoding, &bytes, &mut found);
                encoding.decode_row(&bytes, &mut wanted);
                assert_eq!(bits(&found), bits(&wanted), "{encoding} row of {n}");
            }
            for (k, r) in (0..20).flat_map(|k| [1, 8, 15, 16, 17, 32].map(|r| (k, r))) {
                let layout = EncodedPanel { encoding, k, r };
                let bytes = bytes(layout.byte_len().unwrap());
                let (mut found, mut wanted) = (vec![9.0; k * r], vec![9.0; k * r]);
                panel(&layout, &bytes, &mut found);
                layout.decode(&bytes, &mut wanted);
                assert_eq!(bits(&found), bits(&wanted), "{encoding} panel of {k} x {r}");
            }
        }
        let every: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let (mut found, mut wanted) = (vec![0.0; 1 << 16], vec![0.0; 1 << 16]);
        row(Encoding::F16, &every, &mut found);
        Encoding::F16.decode_row(&every, &mut wanted);
        assert_eq!(bits(&found), bits(&wanted));
    }

    #[test]
    fn the_shorter_side_counts() {
        for encoding in BOTH {
            let bytes = bytes(200);
            for (have, asked) in [(0, 20), (3, 20), (41, 100), (140, 30), (200, 17)] {
                let (mut found, mut wanted) = (vec![9.0; asked], vec![9.0; asked]);
                row(encoding, &bytes[..have], &mut found);
                encoding.decode_row(&bytes[..have], &mut wanted);
                assert_eq!(bits(&found), bits(&wanted), "{encoding} {asked} of {have} bytes");
                let layout = EncodedPanel { encoding, k: 9, r: 16 };
                panel(&layout, &bytes[..have], &mut found);
                layout.decode(&bytes[..have], &mut wanted);
                assert_eq!(bits(&found), bits(&wanted), "{encoding} panel, {asked} of {have} bytes");
            }
        }
    }
}
