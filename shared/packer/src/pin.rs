//! `--input NAME=DTYPE[dims]`: the shapes that plans are made for.

use crate::error::{ErrorKind, PackerError};
use glowplug_pack::{DisplayShape, Dtype, element_count};
use std::fmt;
use std::str::FromStr;

/// One input with its dtype and every extent fixed: `x=f32[1,3,48,192]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputPin {
    /// The ONNX name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Extents, outermost first, none of them 0.
    pub dims: Vec<usize>,
}

impl fmt::Display for InputPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}{}", self.name, self.dtype, DisplayShape(&self.dims))
    }
}

/// One input with one or several alternatives for its extents: `ids=i64[1,16|32|64]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputPins {
    /// One pin for each alternative, in the order given; the first is the default.
    pub pins: Vec<InputPin>,
}

impl From<InputPin> for InputPins {
    fn from(pin: InputPin) -> InputPins {
        InputPins { pins: vec![pin] }
    }
}

impl fmt::Display for InputPins {
    /// As the flag takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.pins.first() else { return Ok(()) };
        write!(f, "{}={}[", first.name, first.dtype)?;
        for axis in 0..first.dims.len() {
            let comma = if axis == 0 { "" } else { "," };
            let extents: Vec<_> = self.pins.iter().map(|p| p.dims[axis].to_string()).collect();
            let same = extents.iter().all(|e| *e == extents[0]);
            let extents = if same { extents[0].clone() } else { extents.join("|") };
            write!(f, "{comma}{extents}")?;
        }
        write!(f, "]")
    }
}

impl FromStr for InputPins {
    type Err = PackerError;

    fn from_str(text: &str) -> Result<InputPins, PackerError> {
        let bad = |why: String| PackerError::new(ErrorKind::Pin, format!("--input {text:?}: {why}"));
        let (name, spec) = text
            .rsplit_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| bad("expected NAME=DTYPE[dims], as in x=f32[1,3,48,192]".into()))?;
        let (dtype, dims) = spec
            .strip_suffix(']')
            .and_then(|s| s.split_once('['))
            .ok_or_else(|| bad(format!("found {spec:?}, expected DTYPE[dims], as in f32[1,3,48,192]")))?;
        let dtype = dtype.parse::<Dtype>().map_err(|e| bad(e.to_string()))?;
        let extent = |d: &str| match d.trim().parse() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(bad(format!("found the extent {d:?}, expected a whole number above 0"))),
        };
        let axes = dims
            .split(',')
            .filter(|_| !dims.is_empty())
            .map(|axis| axis.split('|').map(extent).collect::<Result<Vec<usize>, _>>())
            .collect::<Result<Vec<_>, _>>()?;
        let count = alternatives(axes.iter().map(Vec::len)).map_err(bad)?;
        let pin = |i: usize| {
            let dims: Vec<usize> = axes.iter().map(|a| a[i.min(a.len() - 1)]).collect();
            if element_count(&dims).and_then(|n| n.checked_mul(dtype.size())).is_none_or(|n| n > 1 << 40) {
                return Err(bad(format!("the shape {} is too large", DisplayShape(&dims))));
            }
            Ok(InputPin { name: name.to_owned(), dtype, dims })
        };
        Ok(InputPins { pins: (0..count).map(pin).collect::<Result<_, _>>()? })
    }
}

/// How many alternatives there are where each part has one or all of them.
fn alternatives(counts: impl Iterator<Item = usize>) -> Result<usize, String> {
    let counts: Vec<_> = counts.collect();
    let most = counts.iter().copied().max().unwrap_or(1);
    match counts.into_iter().find(|n| *n != 1 && *n != most) {
        Some(odd) => Err(format!("{odd} alternatives beside {most}, expected as many, or one")),
        None => Ok(most),
    }
}

/// The pins of each plan: the n-th alternatives of all inputs belong together.
///
/// Errors: inputs with different numbers of alternatives; one plan twice.
pub(crate) fn buckets(inputs: &[InputPins]) -> Result<Vec<Vec<InputPin>>, PackerError> {
    let bad = |text: String| PackerError::new(ErrorKind::Pin, format!("--input: {text}"));
    let count = alternatives(inputs.iter().map(|i| i.pins.len())).map_err(bad)?;
    let bucket = |i: usize| inputs.iter().map(|p| p.pins[i.min(p.pins.len() - 1)].clone()).collect();
    let buckets: Vec<Vec<InputPin>> = (0..count).map(bucket).collect();
    match buckets.iter().enumerate().find(|(i, b)| buckets[..*i].contains(b)) {
        Some((i, _)) => Err(bad(format!("alternative {} is there twice", i + 1))),
        None => Ok(buckets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_parse_and_print() {
        for text in ["x=f32[1,3,48,192]", "a=b=i64[1,16]", "scalar=bool[]", "ids=i64[1,16|32]"] {
            assert_eq!(text.parse::<InputPins>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn alternatives_belong_together() {
        let of = |text: &str| text.parse::<InputPins>();
        let both =
            [of("ids=i64[1,16|32]").unwrap(), of("mask=i64[1,16|32]").unwrap(), of("x=f32[4]").unwrap()];
        let dims: Vec<Vec<_>> =
            buckets(&both).unwrap().into_iter().map(|b| b.into_iter().map(|p| p.dims).collect()).collect();
        assert_eq!(dims, [[vec![1, 16], vec![1, 16], vec![4]], [vec![1, 32], vec![1, 32], vec![4]]]);
        let e = buckets(&[both[0].clone(), of("y=f32[1|2|3]").unwrap()]).unwrap_err();
        assert!(e.to_string().contains("2 alternatives beside 3"), "{e}");
        let e = buckets(&[of("x=f32[4|4]").unwrap()]).unwrap_err();
        assert!(e.to_string().contains("alternative 2 is there twice"), "{e}");
        assert!(of("x=f32[1|2,1|2|3]").unwrap_err().to_string().contains("2 alternatives beside 3"));
    }

    #[test]
    fn a_misspelled_pin_is_told_what_is_wrong() {
        let cases = [
            ("x", "expected NAME=DTYPE[dims]"),
            ("=f32[1]", "expected NAME=DTYPE[dims]"),
            ("x=f32", "found \"f32\", expected DTYPE[dims]"),
            ("x=f64[1]", "unknown dtype \"f64\""),
            ("x=f32[1,0]", "found the extent \"0\""),
            ("x=f32[1,-1]", "found the extent \"-1\""),
            ("x=f32[1,]", "found the extent \"\""),
            ("x=f32[9999999999,9999999999]", "too large"),
        ];
        for (text, wanted) in cases {
            let e = text.parse::<InputPins>().unwrap_err();
            assert!(e.to_string().contains(wanted) && e.kind() == ErrorKind::Pin, "{text}: {e}");
        }
    }
}
