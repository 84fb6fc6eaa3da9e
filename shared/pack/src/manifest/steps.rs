//! The steps of a pipeline as the manifest spells them: data only, `processing` gives them their meaning.

use serde::{Deserialize, Serialize};

/// Interpolation of `resize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the usual names")]
pub enum ResizeMode {
    #[default]
    Bilinear,
    Nearest,
    Bicubic,
}

/// Channel order of a decoded image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the usual names")]
pub enum Channels {
    #[default]
    Rgb,
    Bgr,
    Gray,
}

/// Axis order of an image tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the usual names")]
pub enum Layout {
    #[default]
    Nchw,
    Nhwc,
}

/// What `tokenize` puts into this input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "named as the transformers' inputs are")]
pub enum TokenField {
    InputIds,
    AttentionMask,
    TokenTypeIds,
}

/// One step from a raw request to a tensor: `{op = "resize", size = [224, 224], mode = "bilinear"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// PNG or JPEG bytes to an image of `channels`, 8 bits each, turned upright by its EXIF orientation.
    Decode {
        /// Channel order; gray is ITU-R BT.601 luma. An alpha channel is dropped.
        #[serde(default)]
        channels: Channels,
    },
    /// To `size` = `[height, width]`; where `shorter` is given instead, the shorter side becomes it.
    /// Exactly one of the two. Values are Pillow's (antialiased when it shrinks), as torchvision's are.
    Resize {
        /// `[height, width]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<[usize; 2]>,
        /// Pixels of the shorter side, aspect kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shorter: Option<usize>,
        /// Interpolation.
        #[serde(default)]
        mode: ResizeMode,
    },
    /// The middle `[height, width]`; a smaller image is an error.
    CenterCrop {
        /// `[height, width]`.
        size: [usize; 2],
    },
    /// Every value times `factor` (1/255 for 0..1).
    Scale {
        /// The factor.
        factor: f64,
    },
    /// `(x - mean[c]) / std[c]` per channel of an image, after scaling 0..255 to 0..1 unless a `scale` came
    /// before; per column of a `csv` row, which is never scaled by itself.
    Normalize {
        /// One per channel or column.
        mean: Vec<f64>,
        /// One per channel or column, none of them 0.
        std: Vec<f64>,
    },
    /// Axis order of the tensor; `nchw` where absent.
    Layout {
        /// The order.
        order: Layout,
    },
    /// Text through a tokenizer asset, padded or truncated to the input's last axis.
    Tokenize {
        /// The asset's name, a Hugging Face tokenizer.json.
        tokenizer: String,
        /// Which of the tokenizer's fields this input takes.
        field: TokenField,
    },
    /// Rows of numbers in column order, as CSV without a header or as a JSON array; one row per
    /// element of the leading axes.
    Csv {},
}

/// One step from an output tensor to an answer, spelled `softmax`, `topk:5`, `normalize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PostStep {
    /// `exp(x - max) / sum` over the last axis.
    Softmax,
    /// The k largest of the last axis, with labels where the output has them.
    TopK(usize),
    /// L2 normalization over the last axis, for embeddings.
    Normalize,
}

impl TryFrom<String> for PostStep {
    type Error = String;

    fn try_from(text: String) -> Result<PostStep, String> {
        match text.split_once(':') {
            None if text == "softmax" => Ok(PostStep::Softmax),
            None if text == "normalize" => Ok(PostStep::Normalize),
            Some(("topk", k)) => match k.parse() {
                Ok(k @ 1..=1000) => Ok(PostStep::TopK(k)),
                _ => Err(format!("topk takes a whole number from 1 to 1000, found {k:?}")),
            },
            _ => Err(format!("unknown post step {text:?}: expected softmax, normalize or topk:K")),
        }
    }
}

impl From<PostStep> for String {
    fn from(step: PostStep) -> String {
        match step {
            PostStep::Softmax => "softmax".into(),
            PostStep::Normalize => "normalize".into(),
            PostStep::TopK(k) => format!("topk:{k}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn post_steps_parse_and_print() {
        for text in ["softmax", "normalize", "topk:5"] {
            assert_eq!(String::from(PostStep::try_from(text.to_owned()).unwrap()), text);
        }
        for text in ["topk", "topk:0", "topk:x", "argmax"] {
            assert!(PostStep::try_from(text.to_owned()).unwrap_err().contains('"'), "{text}");
        }
    }

    #[test]
    fn steps_are_spelled_as_in_the_manifest_file() {
        let json = r#"{"op":"resize","size":[224,224],"mode":"bilinear"}"#;
        let step: Step = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&step).unwrap(), json);
        assert!(serde_json::from_str::<Step>(r#"{"op":"rotate"}"#).is_err());
        assert!(serde_json::from_str::<Step>(r#"{"op":"decode","chanels":"rgb"}"#).is_err());
    }
}
