//! `--input NAME=DTYPE[dims]`: the shape that a plan is made for.

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

impl FromStr for InputPin {
    type Err = PackerError;

    fn from_str(text: &str) -> Result<InputPin, PackerError> {
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
        let dims = dims
            .split(',')
            .filter(|_| !dims.is_empty())
            .map(|d| match d.trim().parse() {
                Ok(n) if n > 0 => Ok(n),
                _ => Err(bad(format!("found the extent {d:?}, expected a whole number above 0"))),
            })
            .collect::<Result<Vec<usize>, _>>()?;
        if element_count(&dims).and_then(|n| n.checked_mul(dtype.size())).is_none_or(|n| n > 1 << 40) {
            return Err(bad(format!("the shape {} is too large", DisplayShape(&dims))));
        }
        Ok(InputPin { name: name.to_owned(), dtype, dims })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_parse_and_print() {
        for text in ["x=f32[1,3,48,192]", "a=b=i64[1,16]", "scalar=bool[]"] {
            assert_eq!(text.parse::<InputPin>().unwrap().to_string(), text);
        }
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
            let e = text.parse::<InputPin>().unwrap_err();
            assert!(e.to_string().contains(wanted) && e.kind() == ErrorKind::Pin, "{text}: {e}");
        }
    }
}
