//! Kernels against their definition, to the bit, in vectors and in plain code.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "numbers that are made to fit"
)]

use super::conv::Conv;
use super::depthwise::Depthwise;
use super::layout::{lay_out, lay_out_taps};
use super::planes::{Dequantize, Floats, Quantize, max_pool};
use super::slide::Slide;
use super::{Code, Output, Residual, Tail};
use crate::kernels::has_avx2;
use crate::ops::window::Axis;
use glowplug_pack::int8::{FEW, MOST, Runs, fits, pixel, tap_group, taps_bytes};
use glowplug_pack::plan::{CHANNEL_BLOCK, FILTER_PANEL, Int8Function, Int8Tail};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    fn activations(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| if self.below(4) == 0 { MOST } else { self.below(128) as u8 }).collect()
    }

    fn weight(&mut self) -> i8 {
        if self.below(3) == 0 { [127, -127][self.below(2)] } else { self.below(255) as u8 as i8 }
    }

    /// From -1 to 1.
    fn float(&mut self) -> f32 {
        self.below(1 << 16) as f32 / 32768.0 - 1.0
    }

    fn axis(&mut self, most: usize) -> Axis {
        let (input, kernel) = (1 + self.below(most), 1 + self.below(4));
        let (stride, dilation, pad) = (1 + self.below(2), 1 + self.below(2), self.below(3));
        let output = 1 + self.below(most);
        Axis { input, kernel, stride, dilation, pad, output }
    }
}

/// Constants of a tail, and what they are for.
struct Constants {
    multiplier: Vec<f32>,
    bias: Vec<f32>,
    residual: Option<(Vec<u8>, f32)>,
    last: Int8Tail,
}

impl Constants {
    fn random(random: &mut Random, channels: usize, values: usize) -> Constants {
        let function = [Int8Function::Identity, Int8Function::HardSwish][random.below(2)];
        let scale = match function {
            Int8Function::Identity => 0.004,
            Int8Function::HardSwish => 0.0004,
        };
        let low = [0.0, 20.0][random.below(2)];
        Constants {
            multiplier: (0..channels).map(|_| random.float() * scale).collect(),
            bias: (0..channels).map(|_| random.float() * scale * 15000.0).collect(),
            residual: (random.below(2) == 0).then(|| (random.activations(values), random.float())),
            last: Int8Tail { function, scale: 12.5, zero: 3.0, low, high: [127.0, 90.0][random.below(2)] },
        }
    }

    fn tail(&self) -> Tail<'_> {
        let residual = self.residual.as_ref().map(|(values, scale)| Residual { values, scale: *scale });
        let Constants { multiplier, bias, last, .. } = self;
        Tail { multiplier, bias, residual, last: *last }
    }

    /// The definition, written out.
    fn value(&self, sum: i32, channel: usize, place: usize) -> f32 {
        let mut x = sum as f32 * self.multiplier[channel];
        x += self.bias[channel];
        if let Some((values, scale)) = &self.residual {
            let y = f32::from(values[place]) * scale;
            x += y;
        }
        if self.last.function == Int8Function::HardSwish {
            let gate = (x * (1.0f32 / 6.0) + 0.5).clamp(0.0, 1.0);
            x = x * gate * self.last.scale;
            x += self.last.zero;
        }
        x.clamp(self.last.low, self.last.high)
    }
}

/// The byte of `image` in channel `channel` that tap `(ky, kx)` of output `(y, x)` sees.
fn seen(slide: &Slide, input: &[u8], image: usize, [y, x, ky, kx]: [usize; 4], channel: usize) -> i32 {
    let (v, h) = (&slide.vertical, &slide.horizontal);
    match v.at(y, ky).zip(h.at(x, kx)) {
        Some((y, x)) => i32::from(input[((image * v.input + y) * h.input + x) * slide.pixel + channel]),
        None => i32::from(slide.zero),
    }
}

/// A random convolution in both codes, to bytes and to floats.
fn check(random: &mut Random, slide: Slide, channels: usize, filters: usize) {
    let (v, h) = (slide.vertical, slide.horizontal);
    let taps = v.kernel * h.kernel;
    let runs = Runs { channels, pixel: slide.pixel, kernel: (v.kernel, h.kernel), joined: h.dilation == 1 };
    let input = random.activations(slide.images * slide.image());
    // Each filter's weights fit: what does not is halved until it does.
    let mut weights = vec![0i8; filters * channels * taps];
    for filter in weights.chunks_exact_mut(channels * taps) {
        filter.iter_mut().for_each(|w| *w = random.weight());
        while !fits(filter.iter().enumerate().map(|(i, w)| (runs.group(i / taps, i % taps), *w))) {
            filter.iter_mut().for_each(|w| *w /= 2);
        }
    }
    let panels = filters.div_ceil(FILTER_PANEL);
    let mut panel = vec![0u8; channels * taps * FILTER_PANEL];
    let mut laid_out = vec![0i8; panels * runs.panel_bytes()];
    for (p, to) in laid_out.chunks_exact_mut(runs.panel_bytes()).enumerate() {
        panel.fill(0);
        for filter in p * FILTER_PANEL..filters.min((p + 1) * FILTER_PANEL) {
            for depth in 0..channels * taps {
                let weight = weights[filter * channels * taps + depth];
                panel[depth * FILTER_PANEL + filter % FILTER_PANEL] = weight.cast_unsigned();
            }
        }
        assert!(lay_out(&runs, &panel, to));
    }
    let outputs = slide.images * slide.outputs();
    let to_pixel = panels * FILTER_PANEL;
    let constants = Constants::random(random, to_pixel, outputs * to_pixel);
    let tail = constants.tail();
    let blocks = filters.div_ceil(CHANNEL_BLOCK);
    for &code in Code::usable() {
        let conv = Conv { slide, runs, filters, input: &input, weights: &laid_out, tail, code };
        let mut bytes = vec![0xeeu8; outputs * to_pixel + 5];
        let mut floats = vec![-99.0f32; outputs * blocks * CHANNEL_BLOCK + 5];
        conv.run(Output::Bytes(&mut bytes)).unwrap();
        conv.run(Output::Floats(&mut floats)).unwrap();
        assert!(bytes[outputs * to_pixel..].iter().all(|b| *b == 0xee));
        assert!(floats[outputs * blocks * CHANNEL_BLOCK..].iter().all(|f| *f == -99.0));
        for at in 0..outputs {
            let (image, y, x) =
                (at / slide.outputs(), at % slide.outputs() / h.output, at % slide.outputs() % h.output);
            for filter in 0..filters {
                let term = |i: usize| {
                    let (channel, tap) = (i / taps, i % taps);
                    let at = [y, x, tap / h.kernel, tap % h.kernel];
                    let weight = weights[filter * channels * taps + i];
                    seen(&slide, &input, image, at, channel) * i32::from(weight)
                };
                let sum = (0..channels * taps).map(term).sum();
                let place = at * to_pixel + filter;
                let wanted = constants.value(sum, filter, place);
                assert_eq!(
                    bytes[place],
                    wanted.round_ties_even() as u8,
                    "{slide:?} {runs:?} {code:?} {place}"
                );
                let plane =
                    (image * blocks + filter / CHANNEL_BLOCK) * slide.outputs() + at % slide.outputs();
                let found = floats[plane * CHANNEL_BLOCK + filter % CHANNEL_BLOCK];
                assert_eq!(found.to_bits(), wanted.to_bits(), "{slide:?} {runs:?} {code:?} {place}");
            }
        }
    }
}

#[test]
fn random_convolutions_are_what_their_definition_says_to_the_bit() {
    let mut random = Random(1);
    for _ in 0..250 {
        let (channels, filters) = (1 + random.below(40), 1 + random.below(40));
        let few = channels <= FEW && random.below(2) == 0;
        let slide = Slide {
            vertical: random.axis(9),
            horizontal: random.axis(12),
            images: 1 + random.below(2),
            pixel: if few { FEW } else { pixel(channels).unwrap() },
            zero: random.below(128) as u8,
        };
        check(&mut random, slide, channels, filters);
    }
}

/// Every position by itself, in place; large enough for several pieces of work; and shared by threads.
#[test]
fn points_and_many_rows_are_cut_into_pieces_without_a_seam() {
    use tract_linalg::multithread::{Executor, multithread_tract_scope};
    let axis = |input, kernel, stride, pad, output| Axis { input, kernel, stride, dilation: 1, pad, output };
    let mut random = Random(2);
    for (vertical, horizontal, channels, filters) in [
        (axis(7, 1, 1, 0, 7), axis(9, 1, 1, 0, 9), 35, 33),
        (axis(8, 1, 2, 0, 4), axis(9, 1, 2, 0, 5), 64, 16),
        (axis(90, 3, 1, 1, 90), axis(70, 3, 1, 1, 70), 40, 5),
        (axis(90, 1, 1, 0, 90), axis(70, 1, 1, 0, 70), 40, 5),
        (axis(1, 1, 1, 0, 1), axis(1, 1, 1, 0, 1), 300, 70),
        (axis(40, 7, 2, 3, 20), axis(41, 7, 2, 3, 21), 3, 17),
    ] {
        let few = if channels <= FEW { FEW } else { pixel(channels).unwrap() };
        let slide = Slide { vertical, horizontal, images: 1, pixel: few, zero: 7 };
        check(&mut random, slide, channels, filters);
        multithread_tract_scope(Executor::multithread(3), || check(&mut random, slide, channels, filters));
    }
}

#[test]
fn random_depthwise_convolutions_are_what_their_definition_says_to_the_bit() {
    let mut random = Random(3);
    for round in 0..300 {
        let (mut vertical, mut horizontal) = (random.axis(11), random.axis(13));
        if round % 3 == 0 {
            (vertical.kernel, horizontal.kernel) = (5, 5);
        }
        let channels = 1 + random.below(40);
        let pixel = pixel(channels).unwrap();
        let slide =
            Slide { vertical, horizontal, images: 1 + random.below(2), pixel, zero: random.below(128) as u8 };
        let taps = vertical.kernel * horizontal.kernel;
        let input = random.activations(slide.images * slide.image());
        let mut weights = vec![0u8; channels * taps];
        let mut laid_out = vec![0i8; pixel / 16 * taps_bytes(taps)];
        for (channel, of_channel) in weights.chunks_exact_mut(taps).enumerate() {
            let mut found: Vec<i8> = (0..taps).map(|_| random.weight()).collect();
            while !fits(found.iter().enumerate().map(|(tap, w)| (tap_group(tap), *w))) {
                found.iter_mut().for_each(|w| *w /= 2);
            }
            of_channel.iter_mut().zip(found).for_each(|(to, w)| *to = w.cast_unsigned());
            let to = &mut laid_out[channel / 16 * taps_bytes(taps)..][..taps_bytes(taps)];
            assert!(lay_out_taps(of_channel, channel % 16, to));
        }
        let constants = Constants { residual: None, ..Constants::random(&mut random, pixel, 0) };
        let outputs = slide.images * slide.outputs();
        for vectors in [false, has_avx2()] {
            let tail = constants.tail();
            let conv = Depthwise { slide, input: &input, weights: &laid_out, tail, vectors };
            let mut found = vec![0xeeu8; outputs * pixel + 5];
            conv.run(&mut found).unwrap();
            assert!(found[outputs * pixel..].iter().all(|b| *b == 0xee));
            for at in 0..outputs * channels {
                let (at, channel) = (at / channels, at % channels);
                let (image, y, x) = (
                    at / slide.outputs(),
                    at % slide.outputs() / horizontal.output,
                    at % slide.outputs() % horizontal.output,
                );
                let term = |tap: usize| {
                    let place = [y, x, tap / horizontal.kernel, tap % horizontal.kernel];
                    let weight = i32::from(weights[channel * taps + tap].cast_signed());
                    seen(&slide, &input, image, place, channel) * weight
                };
                let wanted = constants.value((0..taps).map(term).sum(), channel, 0).round_ties_even() as u8;
                assert_eq!(found[at * pixel + channel], wanted, "{slide:?} {vectors} {at} {channel}");
            }
        }
    }
}

#[test]
fn weights_that_could_exceed_16_bits_are_found() {
    let runs = Runs { channels: 8, pixel: 16, kernel: (1, 1), joined: true };
    let mut panel = vec![0u8; 8 * FILTER_PANEL];
    // Bytes 0, 1, 4 and 5 are summed up together.
    for (depth, weight) in [(0, 127u8), (1, 127), (4, 4), (2, 127), (3, 127)] {
        panel[depth * FILTER_PANEL + 9] = weight;
    }
    let mut to = vec![0; runs.panel_bytes()];
    assert!(lay_out(&runs, &panel, &mut to));
    panel[5 * FILTER_PANEL + 9] = 1;
    assert!(!lay_out(&runs, &panel, &mut to));
    let mut to = vec![0; taps_bytes(9)];
    assert!(lay_out_taps(&[127, 127, 4, 0, 127, 0, 0, 127, 4], 3, &mut to));
    assert!(!lay_out_taps(&[127, 127, 4, 0, 127, 0, 0, 127, 5], 3, &mut to));
}

#[test]
fn operands_of_other_sizes_are_refused() {
    let axis = Axis { input: 4, kernel: 1, stride: 1, dilation: 1, pad: 0, output: 4 };
    let slide = Slide { vertical: axis, horizontal: axis, images: 1, pixel: 16, zero: 0 };
    let runs = Runs { channels: 16, pixel: 16, kernel: (1, 1), joined: true };
    let (input, weights, floats) = (vec![0u8; 256], vec![0i8; 512], vec![0f32; 32]);
    let last = Int8Tail { function: Int8Function::Identity, scale: 1.0, zero: 0.0, low: 0.0, high: 127.0 };
    let tail = Tail { multiplier: &floats, bias: &floats, residual: None, last };
    let run = |input: &[u8], weights: &[i8], tail: Tail<'_>, slide: Slide, len: usize| {
        let conv = Conv { slide, runs, filters: 20, input, weights, tail, code: Code::best() };
        conv.run(Output::Bytes(&mut vec![0; len]))
    };
    run(&input, &weights, tail, slide, 512).unwrap();
    run(&input[1..], &weights, tail, slide, 512).unwrap_err();
    run(&input, &weights[1..], tail, slide, 512).unwrap_err();
    run(&input, &weights, Tail { bias: &floats[1..], ..tail }, slide, 512).unwrap_err();
    let residual = Some(Residual { values: &input, scale: 1.0 });
    run(&input, &weights, Tail { residual, ..tail }, slide, 512).unwrap_err();
    run(&input, &weights, tail, Slide { pixel: 32, ..slide }, 512).unwrap_err();
    run(&input, &weights, tail, slide, 511).unwrap_err();
    let depthwise = |input: &[u8], weights: &[i8], len: usize| {
        Depthwise { slide, input, weights, tail, vectors: has_avx2() }.run(&mut vec![0; len])
    };
    depthwise(&input, &weights[..64], 256).unwrap();
    depthwise(&input[1..], &weights[..64], 256).unwrap_err();
    depthwise(&input, &weights[..63], 256).unwrap_err();
    depthwise(&input, &weights[..64], 255).unwrap_err();
}

#[test]
fn images_become_bytes_and_floats_again() {
    let mut random = Random(4);
    let cases = [(3, 1), (3, 8), (24, 8), (5, 8), (17, 8), (40, 1)];
    // Of a plane of 35, what is done eight at a time leaves some; of one of 16, nothing.
    for ((channels, lanes), plane) in
        cases.into_iter().flat_map(|case| [6, 16, 35].map(|plane| (case, plane)))
    {
        let layout = Floats { channels, plane, lanes };
        let pixels = if channels == 3 { vec![4, 16] } else { vec![pixel(channels).unwrap()] };
        for pixel in pixels {
            let mut from: Vec<f32> = (0..2 * layout.len()).map(|_| random.float() * 2.0).collect();
            from[..3].copy_from_slice(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
            let quantize = Quantize { inverse: 64.0, zero: 40.0, most: 127.0 };
            let mut found = vec![0xee; 2 * plane * pixel];
            for vectors in [false, has_avx2()] {
                quantize.run(&from, &layout, &mut found, pixel, vectors).unwrap();
                for (at, q) in found.iter().enumerate() {
                    let (image, position, channel) = (at / pixel / plane, at / pixel % plane, at % pixel);
                    if channel >= channels {
                        assert!(lanes > 1 || *q == 0);
                        continue;
                    }
                    let place = (channel / lanes * plane + position) * lanes + channel % lanes;
                    let x = from[image * layout.len() + place];
                    let wanted = (x * 64.0 + 40.0).clamp(0.0, 127.0).round_ties_even();
                    assert_eq!(f32::from(*q), if x.is_nan() { 0.0 } else { wanted }, "{x}");
                }
            }
            let back = Floats { lanes: CHANNEL_BLOCK, ..layout };
            let mut floats = vec![-99.0; 2 * back.len()];
            let dequantize = Dequantize { scale: 1.0 / 64.0, zero: 40.0 };
            if pixel < 8 {
                dequantize.run(&found, pixel, &mut floats, &back).unwrap_err();
                continue;
            }
            dequantize.run(&found, pixel, &mut floats, &back).unwrap();
            for channel in 0..channels {
                let x = floats[back.len() + (channel / 8 * plane + 5) * 8 + channel % 8];
                assert_eq!(x, (f32::from(found[(plane + 5) * pixel + channel]) - 40.0) / 64.0);
            }
            quantize.run(&from[1..], &layout, &mut found, pixel, true).unwrap_err();
        }
    }
}

#[test]
fn the_largest_byte_under_a_window_is_found() {
    let mut random = Random(5);
    for _ in 0..100 {
        let (vertical, horizontal) = (random.axis(9), random.axis(9));
        let slide = Slide { vertical, horizontal, images: 2, pixel: 16, zero: 9 };
        let input = random.activations(2 * slide.image());
        let mut found = vec![0xee; 2 * slide.outputs() * 16];
        max_pool(&slide, &input, &mut found).unwrap();
        for (at, found) in found.iter().enumerate() {
            let (image, at, channel) = (at / 16 / slide.outputs(), at / 16 % slide.outputs(), at % 16);
            let outside = Slide { zero: 0, ..slide };
            let taps = (0..vertical.kernel).flat_map(|y| (0..horizontal.kernel).map(move |x| (y, x)));
            let bytes = taps.map(|(ky, kx)| {
                let at = [at / horizontal.output, at % horizontal.output, ky, kx];
                seen(&outside, &input, image, at, channel)
            });
            assert_eq!(i32::from(*found), bytes.max().unwrap());
        }
        max_pool(&slide, &input[1..], &mut vec![0; found.len()]).unwrap_err();
    }
    // In several pieces, which end within an image and go on into the next.
    let axis = Axis { input: 37, kernel: 1, stride: 1, dilation: 1, pad: 0, output: 37 };
    let slide = Slide { vertical: axis, horizontal: axis, images: 3, pixel: 16, zero: 0 };
    let input = random.activations(3 * slide.image());
    let mut found = vec![0xee; input.len()];
    max_pool(&slide, &input, &mut found).unwrap();
    assert!(found == input);
}
