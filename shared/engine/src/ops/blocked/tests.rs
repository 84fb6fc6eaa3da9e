//! Convolutions in blocks against the definition, at extents that leave every loop a rest.

use super::*;
use crate::expanded::{FloatPanels, Matrix};
use glowplug_pack::plan::{BinaryOp, CHANNEL_BLOCK, ConvStep, FILTER_PANEL, UnaryOp, Window};
use glowplug_pack::{Buffer, Region};
use std::sync::Arc;
use tract_core::internal::{IntoTValue, TValue, Tensor};
use tract_linalg::multithread::{Executor, multithread_tract_scope};

/// Numbers that repeat from run to run.
struct Random(u64);

impl Random {
    /// Below `n`.
    fn pick(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.pick(2001) as f32 / 1000.0 - 1.0).collect()
    }
}

/// A convolution and its operands.
struct Case {
    window: Window,
    /// `[N, C, H, W]`.
    image: [usize; 4],
    filters: usize,
    depthwise: bool,
    input: Vec<f32>,
    kernel: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
    steps: Vec<ConvStep>,
}

impl Case {
    fn random(random: &mut Random, depthwise: bool) -> Case {
        let kernel = (1 + random.pick(5), 1 + random.pick(5));
        let strides = (1 + random.pick(3), 1 + random.pick(3));
        let dilations = (1 + random.pick(2), 1 + random.pick(2));
        let pads = (random.pick(kernel.0 * dilations.0), random.pick(kernel.1 * dilations.1));
        let (h, w) = (1 + random.pick(13), 1 + random.pick(27));
        // Also outputs whose windows lie in the padding behind the image altogether.
        let output = (1 + h / strides.0, 1 + w / strides.1);
        let (images, channels) = (1 + random.pick(2), 1 + random.pick(21));
        let filters = if depthwise { channels } else { 1 + random.pick(50) };
        let depth = if depthwise { 1 } else { channels };
        let blocks = filters.div_ceil(CHANNEL_BLOCK);
        let size = images * blocks * output.0 * output.1 * CHANNEL_BLOCK;
        let all = [
            ConvStep::Scalar { op: BinaryOp::Max, value: -0.3 },
            ConvStep::Tensor { op: BinaryOp::Add, input: 2 },
            ConvStep::Scalar { op: BinaryOp::Min, value: 0.9 },
            ConvStep::Unary { op: UnaryOp::HardSwish },
            ConvStep::Tensor { op: BinaryOp::SubF, input: 2 },
            ConvStep::Unary { op: UnaryOp::Silu },
            ConvStep::Scalar { op: BinaryOp::Div, value: 1.5 },
            ConvStep::Unary { op: UnaryOp::Sigmoid },
        ];
        let steps = all.into_iter().filter(|_| random.pick(3) == 0).collect();
        Case {
            window: Window { kernel, strides, dilations, pads, output },
            image: [images, channels, h, w],
            filters,
            depthwise,
            input: random.values(images * channels * h * w),
            kernel: random.values(filters * depth * kernel.0 * kernel.1),
            bias: random.values(filters),
            residual: random.values(size),
            steps,
        }
    }

    fn shape(&self) -> [usize; 5] {
        let (oh, ow) = self.window.output;
        [self.image[0], self.filters.div_ceil(CHANNEL_BLOCK), oh, ow, CHANNEL_BLOCK]
    }

    fn image_blocks(&self) -> TValue {
        let [n, c, h, w] = self.image;
        let op =
            BlockChannels { channels: c, shape: vec![n, c.div_ceil(CHANNEL_BLOCK), h, w, CHANNEL_BLOCK] };
        op.output(&Tensor::from_shape(&self.image, &self.input).unwrap()).unwrap().into_tvalue()
    }

    fn operands(&self, image: TValue) -> Vec<TValue> {
        let bias = Tensor::from_shape(&[self.filters], &self.bias).unwrap();
        let residual = Tensor::from_shape(&self.shape(), &self.residual).unwrap();
        vec![image, bias.into_tvalue(), residual.into_tvalue()]
    }

    /// What the convolution gives at one place, by definition; then the steps.
    #[allow(clippy::cast_possible_truncation, reason = "summed up in f64, compared in f32")]
    fn wanted(&self, n: usize, o: usize, oy: usize, ox: usize) -> f32 {
        let Window { kernel: (kh, kw), strides, dilations, pads, output } = self.window;
        let [_, channels, h, w] = self.image;
        let depth = if self.depthwise { 1 } else { channels };
        let mut sum = f64::from(self.bias[o]);
        for i in 0..depth {
            let channel = if self.depthwise { o } else { i };
            for ky in 0..kh {
                for kx in 0..kw {
                    let y = (oy * strides.0 + ky * dilations.0).checked_sub(pads.0).filter(|y| *y < h);
                    let x = (ox * strides.1 + kx * dilations.1).checked_sub(pads.1).filter(|x| *x < w);
                    let Some((y, x)) = y.zip(x) else { continue };
                    let value = self.input[((n * channels + channel) * h + y) * w + x];
                    sum += f64::from(value) * f64::from(self.kernel[((o * depth + i) * kh + ky) * kw + kx]);
                }
            }
        }
        let [_, blocks, ..] = self.shape();
        let place = (((n * blocks + o / 8) * output.0 + oy) * output.1 + ox) * 8 + o % 8;
        let residual = f64::from(self.residual[place]);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let sum = self.steps.iter().fold(sum, |c, step| match *step {
            ConvStep::Scalar { op: BinaryOp::Max, value } => c.max(value.into()),
            ConvStep::Scalar { op: BinaryOp::Min, value } => c.min(value.into()),
            ConvStep::Scalar { op: BinaryOp::Div, value } => c / f64::from(value),
            ConvStep::Tensor { op: BinaryOp::Add, .. } => c + residual,
            ConvStep::Tensor { op: BinaryOp::SubF, .. } => residual - c,
            ConvStep::Unary { op: UnaryOp::HardSwish } => c * ((c + 3.0) / 6.0).clamp(0.0, 1.0),
            ConvStep::Unary { op: UnaryOp::Silu } => c * sigmoid(c),
            ConvStep::Unary { op: UnaryOp::Sigmoid } => sigmoid(c),
            other => panic!("{other:?} is not in the test"),
        });
        sum as f32
    }

    fn check(&self, what: &str, found: &Tensor) {
        let [images, blocks, oh, ow, _] = self.shape();
        let unblock = UnblockChannels { shape: vec![images, self.filters, oh, ow] };
        assert_eq!(found.shape(), [images, blocks, oh, ow, CHANNEL_BLOCK]);
        let found = unblock.output(found).unwrap();
        let found = found.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap();
        let mut found = found.iter();
        for n in 0..images {
            for o in 0..self.filters {
                for (oy, ox) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                    let (found, wanted) = (*found.next().unwrap(), self.wanted(n, o, oy, ox));
                    let close = (found - wanted).abs() <= 1e-4 * (1.0 + wanted.abs());
                    let Case { window, image, filters, steps, .. } = self;
                    assert!(
                        close,
                        "{what}: {found}, not {wanted}, at {n} {o} {oy} {ox} of {window:?} {image:?} {filters} {steps:?}"
                    );
                }
            }
        }
    }

    fn dense(&self, image: &TValue) -> BlockedConv {
        let depth = self.kernel.len() / self.filters;
        let panel = (depth + 1) * FILTER_PANEL;
        let mut panels = vec![0f32; self.filters.div_ceil(FILTER_PANEL) * panel];
        for (o, values) in self.kernel.chunks(depth).enumerate() {
            for (k, value) in values.iter().enumerate() {
                panels[o / FILTER_PANEL * panel + k * FILTER_PANEL + o % FILTER_PANEL] = *value;
            }
        }
        let (region, bytes) = region(&panels);
        let panels = FloatPanels::stored(region, bytes, panel * 4);
        let filters = Matrix { panels, depth, columns: self.filters };
        BlockedConv::new(&self.window, image.shape(), &self.shape(), filters, &self.steps).unwrap()
    }

    fn depthwise(&self) -> BlockedDepthwiseConv {
        let [.., h, w] = self.image;
        BlockedDepthwiseConv::new(&self.window, (h, w), &self.shape(), region(&self.kernel), &self.steps)
            .unwrap()
    }
}

fn region(values: &[f32]) -> (Arc<Region>, std::ops::Range<u64>) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let range = 0..bytes.len() as u64;
    (Arc::new(Region::complete(Buffer::copy_of(&bytes).unwrap())), range)
}

#[test]
fn dense_convolutions_are_what_their_definition_says() {
    let mut random = Random(1);
    let pool = Executor::multithread(3);
    for _ in 0..400 {
        let mut case = Case::random(&mut random, false);
        if random.pick(3) == 0 {
            // Every output sees one position.
            let output = (
                case.image[2].div_ceil(case.window.strides.0),
                case.image[3].div_ceil(case.window.strides.1),
            );
            case.window = Window { kernel: (1, 1), pads: (0, 0), output, ..case.window };
            case.kernel = random.values(case.filters * case.image[1]);
            case.residual = random.values(case.shape().iter().product());
        }
        let plain = Tensor::from_shape(&case.image, &case.input).unwrap().into_tvalue();
        for (what, image) in [("plain", plain), ("blocked", case.image_blocks())] {
            let conv = case.dense(&image);
            let operands = case.operands(image);
            case.check(what, &conv.output(&operands).unwrap());
            case.check(
                "on threads",
                &multithread_tract_scope(pool.clone(), || conv.output(&operands)).unwrap(),
            );
            case.check("any CPU", &conv.for_any_cpu().output(&operands).unwrap());
        }
    }
}

#[test]
fn depthwise_convolutions_are_what_their_definition_says() {
    let mut random = Random(2);
    for _ in 0..400 {
        let case = Case::random(&mut random, true);
        let operands = case.operands(case.image_blocks());
        let conv = case.depthwise();
        case.check("vectors", &conv.output(&operands).unwrap());
        case.check("any CPU", &conv.for_any_cpu().output(&operands).unwrap());
    }
}

/// Large enough for several pieces of work and several parts of a panel.
#[test]
fn long_sums_and_many_rows_are_cut_into_pieces_without_a_seam() {
    let mut random = Random(3);
    for (image, filters, kernel, pads) in [
        ([1, 300, 9, 31], 40, (3, 3), (1, 1)),
        ([2, 700, 5, 26], 33, (1, 1), (0, 0)),
        ([1, 3, 40, 300], 17, (5, 3), (2, 1)),
    ] {
        let mut case = Case::random(&mut random, false);
        let output = (image[2], image[3]);
        case.window = Window { kernel, strides: (1, 1), dilations: (1, 1), pads, output };
        (case.image, case.filters) = (image, filters);
        case.input = random.values(image.iter().product());
        case.kernel =
            random.values(filters * image[1] * kernel.0 * kernel.1).iter().map(|v| v / 16.0).collect();
        case.bias = random.values(filters);
        case.residual = random.values(case.shape().iter().product());
        let plain = Tensor::from_shape(&case.image, &case.input).unwrap().into_tvalue();
        for (what, image) in [("plain", plain), ("blocked", case.image_blocks())] {
            let conv = case.dense(&image);
            case.check(what, &conv.output(&case.operands(image)).unwrap());
        }
    }
}

#[test]
fn planes_are_reduced_and_scaled_channel_by_channel() {
    let mut random = Random(4);
    for (plane, images) in [((1, 1), 1), ((7, 7), 2), ((3, 5), 1)] {
        let shape = [images, 3, plane.0, plane.1, CHANNEL_BLOCK];
        let x = random.values(shape.iter().product());
        let image = Tensor::from_shape(&shape, &x).unwrap();
        let at = |block: usize, lane: usize| {
            let values = x.as_chunks::<CHANNEL_BLOCK>().0.chunks(plane.0 * plane.1).nth(block).unwrap();
            values.iter().map(|v| v[lane]).collect::<Vec<_>>()
        };
        let reduced = vec![images, 3, 1, 1, CHANNEL_BLOCK];
        for reducer in [PlaneReducer::Sum, PlaneReducer::Max] {
            let found = PlaneReduce { reducer, shape: reduced.clone() }.output(&image).unwrap();
            let found = found.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap();
            for (i, found) in found.iter().enumerate() {
                let values = at(i / 8, i % 8);
                let wanted = match reducer {
                    PlaneReducer::Sum => values.iter().sum::<f32>(),
                    PlaneReducer::Max => values.iter().copied().fold(f32::MIN, f32::max),
                };
                assert!((found - wanted).abs() < 1e-4, "{reducer:?} of {values:?} is {found}");
            }
        }
        let y = random.values(images * 3 * CHANNEL_BLOCK);
        let y_tensor = Tensor::from_shape(&reduced, &y).unwrap().into_tvalue();
        let found = PerChannel { op: BinaryOp::Sub }.output(image.clone().into_tvalue(), &y_tensor).unwrap();
        let found = found.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap();
        for (i, found) in found.iter().enumerate() {
            let wanted = x[i] - y[i / (plane.0 * plane.1 * 8) * 8 + i % 8];
            assert!((found - wanted).abs() < 1e-6, "{found}, not {wanted}, at {i}");
        }
    }
}
