//! `scale` and `normalize` steps folded into one `x * factor + offset` per channel, in binary64.

use super::misplaced;
use crate::error::Result;
use glowplug_pack::manifest::Step;

/// `x * factor + offset`, per channel of an image or column of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Affine {
    channels: Vec<(f64, f64)>,
    /// What a `normalize` that no `scale` came before multiplies with: 1/255 for images, 1 for tables.
    implied_factor: Option<f64>,
}

impl Affine {
    /// `x` itself, for `channels` channels.
    pub(super) fn identity(channels: usize, implied_factor: Option<f64>) -> Affine {
        Affine { channels: vec![(1.0, 0.0); channels], implied_factor }
    }

    /// Appends `step`; `false` where it is neither `scale` nor `normalize`. `index` is for the error.
    /// Errors: not one mean and std per channel; a value that is not finite; a std of 0.
    pub(super) fn push(&mut self, index: usize, step: &Step) -> Result<bool> {
        match step {
            Step::Scale { factor } if factor.is_finite() => self.scale(*factor),
            Step::Scale { factor } => {
                return Err(misplaced(index, step, &format!("factor is {factor}, expected a finite number")));
            }
            Step::Normalize { mean, std } => {
                let wanted = self.channels.len();
                if mean.len() != wanted || std.len() != wanted {
                    let (mean, std) = (mean.len(), std.len());
                    let why = format!("{mean} means and {std} stds, expected {wanted} each");
                    return Err(misplaced(index, step, &why));
                }
                let all_fit = mean.iter().all(|m| m.is_finite()) && std.iter().all(|s| s.is_normal());
                if !all_fit {
                    return Err(misplaced(index, step, "means and stds must be finite, and no std 0"));
                }
                self.normalize(mean, std);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn scale(&mut self, by: f64) {
        self.implied_factor = None;
        for (factor, offset) in &mut self.channels {
            *factor *= by;
            *offset *= by;
        }
    }

    fn normalize(&mut self, mean: &[f64], std: &[f64]) {
        if let Some(implied) = self.implied_factor {
            self.scale(implied);
        }
        for ((factor, offset), (mean, std)) in self.channels.iter_mut().zip(mean.iter().zip(std)) {
            *factor /= std;
            *offset = (*offset - mean) / std;
        }
    }

    /// Whether it changes nothing.
    pub(super) fn is_identity(&self) -> bool {
        self.channels.iter().all(|c| *c == (1.0, 0.0))
    }

    /// Channel `channel` of `x`, rounded once.
    #[allow(clippy::cast_possible_truncation, reason = "binary64 to binary32 is the rounding that is meant")]
    pub(super) fn apply(&self, channel: usize, x: f64) -> f32 {
        let (factor, offset) = self.channels[channel];
        (x * factor + offset) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalize_scales_to_one_unless_a_scale_came_before() {
        let normalize = Step::Normalize { mean: vec![0.5], std: vec![0.25] };
        let mut image = Affine::identity(1, Some(1.0 / 255.0));
        assert!(image.push(1, &normalize).unwrap());
        assert_eq!([image.apply(0, 0.0), image.apply(0, 255.0)], [-2.0, 2.0]);

        let mut scaled = Affine::identity(1, Some(1.0 / 255.0));
        scaled.push(1, &Step::Scale { factor: 2.0 }).unwrap();
        scaled.push(2, &normalize).unwrap();
        assert_eq!(scaled.apply(0, 1.0), 6.0);
    }

    #[test]
    fn what_cannot_be_applied_is_refused() {
        let one = |mean: f64, std: f64| Step::Normalize { mean: vec![mean], std: vec![std] };
        let three = Step::Normalize { mean: vec![0.0; 3], std: vec![1.0; 3] };
        for (step, text) in [
            (one(0.0, 0.0), "no std 0"),
            (one(f64::NAN, 1.0), "finite"),
            (three, "3 means and 3 stds, expected 1 each"),
            (Step::Scale { factor: f64::INFINITY }, "factor is inf"),
        ] {
            let e = Affine::identity(1, None).push(4, &step).unwrap_err().to_string();
            assert!(e.contains(text) && e.contains("step 4"), "{e}");
        }
        assert!(!Affine::identity(1, None).push(0, &Step::Csv {}).unwrap());
    }
}
