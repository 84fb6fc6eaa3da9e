//! What follows a convolution, as what its kernel does after the sum.

use super::Scale;
use super::weights::Filters;
use glowplug_pack::int8::MOST;
use glowplug_pack::plan::{BinaryOp, ConvStep, Int8Function, Int8Tail, UnaryOp};
use tract_core::internal::*;

/// A convolution's steps, sorted: `x * factor + term` for each channel, a residual, a function, once more a factor and a
/// term, limits.
pub(super) struct Steps {
    factor: Vec<f64>,
    term: Vec<f64>,
    /// What is added, and its factor.
    pub(super) residual: Option<(OutletId, f64)>,
    function: Option<Int8Function>,
    /// After the function.
    after: (f64, f64),
    low: f64,
    high: f64,
    limited: bool,
}

impl Steps {
    /// The steps of `node`. `None` where their order or kind is another. `ranges`: what the file holds values to.
    pub(super) fn of(
        model: &TypedModel,
        node: &TypedNode,
        steps: &[ConvStep],
        ranges: &[(f32, f32)],
    ) -> TractResult<Option<Steps>> {
        let bias = model.outlet_fact(node.inputs[1])?;
        let Some(channels) = bias.konst.as_ref().map(|bias| bias.len()) else { return Ok(None) };
        let mut sorted = Steps {
            factor: vec![1.0; channels],
            term: vec![0.0; channels],
            residual: None,
            function: None,
            after: (1.0, 0.0),
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
            limited: false,
        };
        for step in steps {
            if !matches!(step, ConvStep::Scalar { op: BinaryOp::Max | BinaryOp::Min, .. }) {
                sorted.drop_range(ranges);
            }
            let known = match *step {
                ConvStep::Scalar { op, value } => sorted.scalar(op, f64::from(value)),
                ConvStep::Channel { op, input } => match &model.outlet_fact(node.inputs[input])?.konst {
                    Some(values) => sorted.channels(op, values.try_as_plain_ram()?.as_slice::<f32>()?),
                    None => false,
                },
                ConvStep::Tensor { op: BinaryOp::Add, input } => sorted.add(node.inputs[input]),
                ConvStep::Unary { op: UnaryOp::HardSwish } if sorted.is_linear() => {
                    sorted.function = Some(Int8Function::HardSwish);
                    true
                }
                ConvStep::Tensor { .. } | ConvStep::Unary { .. } => false,
            };
            if !known {
                return Ok(None);
            }
        }
        Ok((sorted.low <= sorted.high).then_some(sorted))
    }

    /// Whether no function and no limit was met so far.
    fn is_linear(&self) -> bool {
        self.function.is_none() && !self.limited
    }

    fn scalar(&mut self, op: BinaryOp, value: f64) -> bool {
        match op {
            BinaryOp::Max => {
                (self.low, self.high) = (self.low.max(value), self.high.max(value));
                self.limited = true;
                return true;
            }
            BinaryOp::Min => {
                (self.low, self.high) = (self.low.min(value), self.high.min(value));
                self.limited = true;
                return true;
            }
            _ if self.limited => return false,
            _ => {}
        }
        let Some((factor, term)) = linear(op, value) else { return false };
        if self.function.is_some() {
            self.after = (self.after.0 * factor, self.after.1 * factor + term);
            return true;
        }
        self.factor.iter_mut().for_each(|f| *f *= factor);
        self.term.iter_mut().for_each(|t| *t = *t * factor + term);
        self.residual.iter_mut().for_each(|(_, f)| *f *= factor);
        true
    }

    fn channels(&mut self, op: BinaryOp, values: &[f32]) -> bool {
        // A factor of each channel would be one of the residual's too.
        if !self.is_linear() || self.residual.is_some() || values.len() < self.factor.len() {
            return false;
        }
        for ((f, t), value) in self.factor.iter_mut().zip(&mut self.term).zip(values) {
            let Some((factor, term)) = linear(op, f64::from(*value)) else { return false };
            (*f, *t) = (*f * factor, *t * factor + term);
        }
        true
    }

    /// Forgets limits that are the range of the integers between two operators that are one here: they cut off what the file's
    /// calibration has not seen. Where they begin at 0 they are a Relu.
    fn drop_range(&mut self, ranges: &[(f32, f32)]) {
        let are_range = ranges.iter().any(|(low, high)| {
            (f64::from(*low), f64::from(*high)) == (self.low, self.high) && *low < 0.0 && *high > 0.0
        });
        if are_range && self.function.is_none() {
            (self.low, self.high, self.limited) = (f64::NEG_INFINITY, f64::INFINITY, false);
        }
    }

    fn add(&mut self, outlet: OutletId) -> bool {
        let fits = self.is_linear() && self.residual.is_none();
        self.residual = Some((outlet, 1.0));
        fits
    }
}

/// `op(x, value)` as `x * factor + term`.
fn linear(op: BinaryOp, value: f64) -> Option<(f64, f64)> {
    match op {
        BinaryOp::Mul => Some((value, 0.0)),
        BinaryOp::Div if value != 0.0 => Some((value.recip(), 0.0)),
        BinaryOp::Add => Some((1.0, value)),
        BinaryOp::Sub => Some((1.0, -value)),
        BinaryOp::SubF => Some((-1.0, value)),
        _ => None,
    }
}

/// All that the constants of a convolution in bytes follow from.
pub(super) struct Parts<'a> {
    pub(super) x: Scale,
    pub(super) filters: &'a Filters,
    pub(super) bias: &'a [f32],
    pub(super) steps: &'a Steps,
    /// What is added, and its factor.
    pub(super) residual: Option<(Scale, f64)>,
    /// What it gives; floats where absent.
    pub(super) to: Option<Scale>,
}

/// What the kernel is given.
pub(super) struct Constants {
    pub(super) multiplier: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) residual: Option<f32>,
    pub(super) tail: Int8Tail,
}

impl Parts<'_> {
    /// Errors: numbers that f32 has no place for.
    #[allow(clippy::cast_possible_truncation, reason = "constants are rounded once, here")]
    pub(super) fn constants(&self) -> TractResult<Constants> {
        let Parts { x, filters, steps, .. } = self;
        let out = |scale: Scale| (f64::from(scale.scale).recip(), f64::from(scale.zero));
        let to = self.to.map_or((1.0, 0.0), out);
        let function = steps.function.unwrap_or(Int8Function::Identity);
        // Without a function, what it gives is a part of multiplier and bias.
        let (inner, after) = match steps.function {
            None => (to, (1.0, 0.0)),
            Some(_) => ((1.0, 0.0), (steps.after.0 * to.0, steps.after.1 * to.0 + to.1)),
        };
        let residual = self.residual.map(|(scale, factor)| {
            let factor = f64::from(scale.scale) * factor * inner.0;
            (factor, factor * f64::from(scale.zero))
        });
        let (mut multiplier, mut bias) = (Vec::new(), Vec::new());
        for (channel, (scale, sum)) in filters.scales.iter().zip(&filters.sums).enumerate() {
            let each = f64::from(*scale) * f64::from(x.scale);
            let zero = each * f64::from(*sum) * f64::from(x.zero);
            let own = self.bias.get(channel).copied().map(f64::from).context("a bias of another length")?;
            let (factor, term) = (steps.factor[channel], steps.term[channel]);
            multiplier.push((each * factor * inner.0) as f32);
            let real = (own - zero) * factor + term;
            bias.push((real * inner.0 + inner.1 - residual.map_or(0.0, |(_, zero)| zero)) as f32);
        }
        let limit = |value: f64, least: f64, most: f64| (value * to.0 + to.1).clamp(least, most) as f32;
        let (least, most) = match self.to {
            Some(_) => (0.0, f64::from(MOST)),
            None => (f64::from(f32::MIN), f64::from(f32::MAX)),
        };
        let tail = Int8Tail {
            function,
            scale: after.0 as f32,
            zero: after.1 as f32,
            low: limit(steps.low, least, most),
            high: limit(steps.high, least, most),
        };
        ensure!(
            multiplier.iter().chain(&bias).all(|v| v.is_finite()) && after.0.is_finite(),
            "constants that are no numbers"
        );
        Ok(Constants { multiplier, bias, residual: residual.map(|(factor, _)| factor as f32), tail })
    }
}
