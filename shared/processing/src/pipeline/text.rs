//! Text through a Hugging Face tokenizer to `input_ids`, `attention_mask` and `token_type_ids`.

use super::media::{self, Media};
use super::{Limits, check_shape, misplaced, place};
use crate::error::{ErrorKind, ProcessingError, Result, quote};
use glowplug_pack::manifest::{InputSpec, Step, TokenField};
use glowplug_pack::{Dtype, Tensor, TensorData};
use serde::Deserialize;
use std::borrow::Cow;
use tokenizers::{PaddingParams, PaddingStrategy, PostProcessor, Tokenizer, TruncationParams};

/// What a text becomes: for each input `[1, length]` or `[length]`.
pub(super) struct TextPipeline {
    tokenizer: Tokenizer,
    fields: Vec<Field>,
}

/// One input and what goes into it.
#[derive(Debug)]
struct Field {
    field: TokenField,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl std::fmt::Debug for TextPipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextPipeline").field("fields", &self.fields).finish_non_exhaustive()
    }
}

impl TextPipeline {
    /// All `inputs` take the same text, through the same tokenizer, to the same length: the input's own, or, where
    /// there are `buckets` (shapes of all inputs) and every input says what it may be filled up with, the text's own
    /// up to the longest bucket.
    pub(super) fn compile<'a>(
        inputs: &[InputSpec],
        buckets: &[Vec<Vec<usize>>],
        assets: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<TextPipeline> {
        let mut fields = Vec::with_capacity(inputs.len());
        let mut shared: Option<(&str, usize)> = None;
        let open = !buckets.is_empty() && inputs.iter().all(|i| i.pad.is_some());
        for (i, input) in inputs.iter().enumerate() {
            let lengths = buckets.iter().filter_map(|b| b.get(i)?.last().copied());
            let longest = lengths.max().filter(|_| open);
            let (name, length, field) = compile_field(input, longest).map_err(|e| e.within(place(input)))?;
            let (other, other_length) = *shared.get_or_insert((name, length));
            if (name, length) != (other, other_length) {
                return Err(ProcessingError::manifest(format!(
                    "tokenizer {} to length {length}, expected {} to length {other_length} as for the first input",
                    quote(name),
                    quote(other)
                ))
                .within(place(input)));
            }
            fields.push(field);
        }
        let (name, length) = shared
            .ok_or_else(|| ProcessingError::manifest("the model has no inputs, expected at least 1"))?;
        let bytes = assets(name).ok_or_else(|| {
            ProcessingError::manifest(format!("tokenizer {} is not in the pack", quote(name)))
        })?;
        let tokenizer =
            load(bytes, length, open).map_err(|e| e.within(format_args!("tokenizer {}", quote(name))))?;
        Ok(TextPipeline { tokenizer, fields })
    }

    pub(super) fn run(
        &self,
        content_type: Option<&str>,
        body: &[u8],
        limits: &Limits,
    ) -> Result<Vec<Tensor>> {
        let accepted = [Media::PlainText, Media::Json];
        let media = media::read(content_type, &accepted, "text/plain or application/json")?;
        let text = check_len(body, limits)?;
        let text = if media == Media::Json { text_of_json(text)? } else { Cow::Borrowed(text) };
        let encoding = self
            .tokenizer
            .encode(text, true)
            .map_err(|e| ProcessingError::invalid(format!("the text cannot be tokenized: {e}")))?;
        self.fields.iter().map(|f| f.tensor(&encoding)).collect()
    }
}

/// The asset's name, the length and what to fill.
fn compile_field(input: &InputSpec, longest: Option<usize>) -> Result<(&str, usize, Field)> {
    let (tokenizer, field) = match input.pipeline.as_slice() {
        [Step::Tokenize { tokenizer, field }] => (tokenizer, *field),
        [Step::Tokenize { .. }, step, ..] => return Err(misplaced(1, step, "nothing comes after tokenize")),
        [step, ..] => return Err(misplaced(0, step, "expected tokenize, as for the model's first input")),
        [] => {
            return Err(ProcessingError::manifest(
                "no steps, expected tokenize as for the model's first input",
            ));
        }
    };
    let shape = input.shape();
    let length = shape.last().copied().unwrap_or(0);
    check_shape(input, &[length])?;
    let length = longest.unwrap_or(length);
    if !(1..=MAX_LENGTH).contains(&length) {
        return Err(ProcessingError::manifest(format!("{length} tokens, expected 1 to {MAX_LENGTH}")));
    }
    match input.dtype {
        Dtype::I64 | Dtype::I32 => Ok((tokenizer, length, Field { field, dtype: input.dtype, shape })),
        other => Err(ProcessingError::manifest(format!("tokens are i64 or i32, the input is {other}"))),
    }
}

/// A bound on what a manifest can make us pad to.
const MAX_LENGTH: usize = 1 << 20;

/// The tokenizer, made to truncate to `length` and, unless it is `open`, pad to it; the side, strategy and token
/// are its own.
fn load(bytes: &[u8], length: usize, open: bool) -> Result<Tokenizer> {
    let bad = |e: tokenizers::Error| ProcessingError::manifest(format!("does not load: {e}"));
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(bad)?;
    let added = tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(false));
    if added >= length {
        let text = format!("adds {added} special tokens, which leaves none of {length} for text");
        return Err(ProcessingError::manifest(text));
    }
    let truncation = tokenizer.get_truncation().cloned().unwrap_or_default();
    let truncation = TruncationParams { max_length: length, stride: 0, ..truncation };
    tokenizer.with_truncation(Some(truncation)).map_err(bad)?;
    if open {
        tokenizer.with_padding(None);
        return Ok(tokenizer);
    }
    let padding = match tokenizer.get_padding() {
        Some(own) => own.clone(),
        None => find_padding(&tokenizer)?,
    };
    let padding =
        PaddingParams { strategy: PaddingStrategy::Fixed(length), pad_to_multiple_of: None, ..padding };
    tokenizer.with_padding(Some(padding));
    Ok(tokenizer)
}

/// A tokenizer.json without a padding section still has the token, by one of its usual names.
fn find_padding(tokenizer: &Tokenizer) -> Result<PaddingParams> {
    let known = ["[PAD]", "<pad>"].into_iter().find_map(|t| tokenizer.token_to_id(t).map(|id| (t, id)));
    let (token, pad_id) = known.ok_or_else(|| {
        ProcessingError::manifest("has no padding section and no token [PAD] or <pad>: add one of them")
    })?;
    Ok(PaddingParams { pad_id, pad_token: token.to_owned(), ..PaddingParams::default() })
}

impl Field {
    fn tensor(&self, encoding: &tokenizers::Encoding) -> Result<Tensor> {
        let tokens = match self.field {
            TokenField::InputIds => encoding.get_ids(),
            TokenField::AttentionMask => encoding.get_attention_mask(),
            TokenField::TokenTypeIds => encoding.get_type_ids(),
        };
        let data = match self.dtype {
            Dtype::I32 => {
                let narrow = |t: &u32| {
                    i32::try_from(*t).map_err(|_| {
                        ProcessingError::manifest(format!("token {t} does not fit an i32 input"))
                    })
                };
                TensorData::I32(tokens.iter().map(narrow).collect::<Result<_>>()?)
            }
            _ => TensorData::I64(tokens.iter().map(|t| i64::from(*t)).collect()),
        };
        let mut shape = self.shape.clone();
        if let Some(length) = shape.last_mut() {
            *length = tokens.len();
        }
        Tensor::new(shape, data)
            .map_err(|e| ProcessingError::manifest(format!("the tokenizer's output does not fit: {e}")))
    }
}

/// `body` as text within the limit. Errors: `TooLarge`; not UTF-8.
pub(super) fn check_len<'a>(body: &'a [u8], limits: &Limits) -> Result<&'a str> {
    let (found, limit) = (body.len(), limits.max_text_bytes);
    if found > limit {
        let text = format!("the text is {found} bytes, expected at most {limit}");
        return Err(ProcessingError::new(ErrorKind::TooLarge, text));
    }
    str::from_utf8(body)
        .map_err(|e| ProcessingError::invalid(format!("the text is not UTF-8 at byte {}", e.valid_up_to())))
}

fn text_of_json(json: &str) -> Result<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Document<'a> {
        #[serde(borrow)]
        text: Cow<'a, str>,
    }
    serde_json::from_str(json)
        .map(|d: Document<'_>| d.text)
        .map_err(|e| ProcessingError::invalid(format!("the body is not {{\"text\": \"..\"}}: {e}")))
}
