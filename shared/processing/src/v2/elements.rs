//! A tensor's elements in JSON: `[1, 2]` or `[[1], [2]]` <-> `TensorData`, without a tree in between.
//!
//! serde_json first checks that the text is JSON and hands out the array as text (`RawValue`), because
//! the datatype may come after the data. What is left is to walk valid JSON once: brackets are counted
//! against the shape, each element goes straight into its vector, and an error can show the very
//! characters that were sent. Numbers are parsed by std: correctly rounded, so that the shortest decimal
//! of an `f32` gives that `f32` back.

use crate::error::{ProcessingError, Result, quote};
use glowplug_pack::{Dtype, TensorData, element_count};
use serde::{Serialize, Serializer};

/// What an element's text can be wrong about.
enum Refusal {
    NotA(&'static str),
    OutOfRange,
}

/// An element type that JSON text can be read into.
trait Element: Sized {
    fn read(text: &str) -> std::result::Result<Self, Refusal>;
}

/// JSON numbers alone begin with a digit or a minus.
fn is_number(text: &str) -> bool {
    text.as_bytes().first().is_some_and(|b| b.is_ascii_digit() || *b == b'-')
}

impl Element for f32 {
    fn read(text: &str) -> std::result::Result<f32, Refusal> {
        if !is_number(text) {
            return Err(Refusal::NotA("a number"));
        }
        text.parse().ok().filter(|x: &f32| x.is_finite()).ok_or(Refusal::OutOfRange)
    }
}

/// Binary16 as its bits. From the decimal to binary64 and then to binary16.
struct Half(u16);

impl Element for Half {
    fn read(text: &str) -> std::result::Result<Half, Refusal> {
        if !is_number(text) {
            return Err(Refusal::NotA("a number"));
        }
        let x = text.parse().ok().map(half::f16::from_f64).filter(|x| x.is_finite());
        x.map(|x| Half(x.to_bits())).ok_or(Refusal::OutOfRange)
    }
}

impl Element for bool {
    fn read(text: &str) -> std::result::Result<bool, Refusal> {
        text.parse().map_err(|_| Refusal::NotA("true or false"))
    }
}

macro_rules! integers {
    ($($t:ty)*) => {$(
        impl Element for $t {
            fn read(text: &str) -> std::result::Result<$t, Refusal> {
                match text.parse() {
                    Ok(x) => Ok(x),
                    Err(_) if !is_number(text) || text.contains(['.', 'e', 'E']) => {
                        Err(Refusal::NotA("a whole number"))
                    }
                    Err(_) => Err(Refusal::OutOfRange),
                }
            }
        }
    )*};
}

integers!(i64 i32 i8 u8);

/// The elements of `json`, a JSON array: flat, or nested exactly as `shape`.
///
/// `json` must be valid JSON already. Allocates no more than `json` has elements. Errors: an element
/// that `dtype` cannot hold exactly in kind and range, nesting or counts that are not `shape`'s.
pub(crate) fn parse(json: &str, dtype: Dtype, shape: &[usize]) -> Result<TensorData> {
    Ok(match dtype {
        Dtype::F32 => TensorData::F32(parse_as(json, dtype, shape)?),
        Dtype::F16 => {
            // `Half` is as large as `u16`: std collects into the same memory.
            TensorData::F16(parse_as::<Half>(json, dtype, shape)?.into_iter().map(|h| h.0).collect())
        }
        Dtype::I64 => TensorData::I64(parse_as(json, dtype, shape)?),
        Dtype::I32 => TensorData::I32(parse_as(json, dtype, shape)?),
        Dtype::I8 => TensorData::I8(parse_as(json, dtype, shape)?),
        Dtype::U8 => TensorData::U8(parse_as(json, dtype, shape)?),
        Dtype::Bool => TensorData::Bool(parse_as(json, dtype, shape)?),
    })
}

fn parse_as<T: Element>(json: &str, dtype: Dtype, shape: &[usize]) -> Result<Vec<T>> {
    let wanted = element_count(shape)
        .ok_or_else(|| ProcessingError::invalid(format!("shape {shape:?} is too large for this machine")))?;
    // An element and its comma are two characters at least: a claimed shape reserves nothing by itself.
    let mut elements = Vec::with_capacity(wanted.min(json.len() / 2 + 1));
    let mut nesting = Nesting { shape, counts: Vec::new(), leaf_depth: None };
    let mut found = 0;
    for token in (Tokens { text: json, at: 0 }) {
        match token {
            "[" => nesting.open()?,
            "]" => nesting.close()?,
            text => {
                nesting.element(text)?;
                let element = T::read(text).map_err(|r| refuse(&r, found, text, dtype))?;
                found += 1;
                if found <= wanted {
                    elements.push(element);
                }
            }
        }
    }
    if found != wanted {
        let text = format!("found {found} elements, expected {wanted} for shape {shape:?}");
        return Err(ProcessingError::invalid(text));
    }
    Ok(elements)
}

/// Why element `index`, spelled `text`, cannot be a `dtype`.
fn refuse(refusal: &Refusal, index: usize, text: &str, dtype: Dtype) -> ProcessingError {
    let bare = text.trim_matches('"');
    let name = dtype.v2_name();
    ProcessingError::invalid(match refusal {
        _ if NOT_FINITE.contains(&bare) => format!(
            "element {index} is {bare}, which JSON cannot hold: send finite numbers, or binary tensor data"
        ),
        Refusal::NotA(wanted) => format!("element {index} is {}, expected {wanted} for {name}", cut(text)),
        Refusal::OutOfRange => format!("element {index} is {}, out of range for {name}", cut(text)),
    })
}

fn cut(text: &str) -> String {
    quote(text.trim_matches('"')).trim_matches('"').to_owned()
}

/// Python's spelling of what JSON lacks.
const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// The open brackets so far, against the shape.
struct Nesting<'a> {
    shape: &'a [usize],
    /// Items met in each open array, outermost first.
    counts: Vec<usize>,
    /// How deep elements lie; known from the first one.
    leaf_depth: Option<usize>,
}

impl Nesting<'_> {
    fn open(&mut self) -> Result<()> {
        if let Some(parent) = self.counts.last_mut() {
            *parent += 1;
        }
        self.counts.push(0);
        let deepest = self.leaf_depth.unwrap_or_else(|| self.shape.len().max(1));
        if self.counts.len() > deepest { Err(self.uneven()) } else { Ok(()) }
    }

    fn element(&mut self, text: &str) -> Result<()> {
        let depth = self.counts.len();
        let Some(count) = self.counts.last_mut() else {
            return Err(ProcessingError::invalid(format!("found {}, expected an array", cut(text))));
        };
        *count += 1;
        let flat_or_full = depth == 1 || depth == self.shape.len();
        if *self.leaf_depth.get_or_insert(depth) == depth && flat_or_full {
            Ok(())
        } else {
            Err(self.uneven())
        }
    }

    fn close(&mut self) -> Result<()> {
        let depth = self.counts.len();
        let found = self.counts.pop().unwrap_or(0);
        let is_flat = depth == 1 && (found == 0 || self.leaf_depth == Some(1));
        match self.shape.get(depth.saturating_sub(1)) {
            Some(wanted) if *wanted != found && !is_flat => Err(ProcessingError::invalid(format!(
                "an array at depth {depth} holds {found} items, expected {wanted} for shape {:?}",
                self.shape
            ))),
            _ => Ok(()),
        }
    }

    fn uneven(&self) -> ProcessingError {
        ProcessingError::invalid(format!(
            "the data's arrays are {} deep in places, expected 1 (flat) or {} everywhere for shape {:?}",
            self.counts.len(),
            self.shape.len(),
            self.shape
        ))
    }
}

/// Brackets and elements of valid JSON, in order. An object comes out in pieces, which no element accepts.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(|b| matches!(b, b',' | b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        let start = self.at;
        self.at += match bytes.get(start)? {
            b'[' | b']' => 1,
            b'"' => string_len(&bytes[start..]),
            _ => bytes[start..]
                .iter()
                .position(|b| matches!(b, b',' | b']' | b' ' | b'\n' | b'\r' | b'\t'))
                .unwrap_or(bytes.len() - start),
        };
        self.text.get(start..self.at)
    }
}

/// Bytes of the string that `bytes` begins with, quotes included; all of them where it does not end.
pub(crate) fn string_len(bytes: &[u8]) -> usize {
    let mut escaped = false;
    for (i, b) in bytes.iter().enumerate().skip(1) {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return i + 1,
            _ => {}
        }
    }
    bytes.len()
}

/// `text` with each bare `NaN`, `Infinity` and `-Infinity` made a string, or `None` where there is none.
///
/// Python's `json.dumps` writes them. No JSON parser reads them, so one that failed is asked again with
/// this text, and [`parse`] then names the tensor and the element. Costs a copy, on the error path only.
pub(crate) fn quote_not_finite(text: &str) -> Option<String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let word = NOT_FINITE.into_iter().find(|w| from.starts_with(w));
        let len = match word {
            Some(word) => word.len(),
            None if from.starts_with('"') => string_len(from.as_bytes()),
            None => 1,
        };
        let (piece, after) = from.split_at(len);
        if word.is_some() {
            out.push('"');
        }
        out.push_str(piece);
        if word.is_some() {
            out.push('"');
        }
        rest = after;
    }
    out.push_str(rest);
    (out.len() > text.len()).then_some(out)
}

/// The first element that JSON cannot hold, as `(index, value)`.
pub(crate) fn first_not_finite(data: &TensorData) -> Option<(usize, f32)> {
    match data {
        TensorData::F32(v) => v.iter().copied().enumerate().find(|(_, x)| !x.is_finite()),
        TensorData::F16(v) => {
            v.iter().map(|b| half::f16::from_bits(*b).to_f32()).enumerate().find(|(_, x)| !x.is_finite())
        }
        _ => None,
    }
}

/// The elements as a flat JSON array; floats as the shortest decimal that reads back as the same value.
/// NaN and infinities must have been refused before.
pub(crate) struct Elements<'a>(pub(crate) &'a TensorData);

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            TensorData::F32(v) => v.serialize(s),
            TensorData::F16(v) => s.collect_seq(v.iter().map(|b| half::f16::from_bits(*b).to_f32())),
            TensorData::I64(v) => v.serialize(s),
            TensorData::I32(v) => v.serialize(s),
            TensorData::I8(v) => v.serialize(s),
            TensorData::U8(v) => v.serialize(s),
            TensorData::Bool(v) => v.serialize(s),
        }
    }
}
