//! Raw requests through compiled pipelines: bad images, texts, rows, and manifests that contradict themselves.

use crate::{input, manifest, repository};
use glowplug_pack::manifest::{Channels, InputSpec, Layout, ResizeMode, Step, TokenField};
use glowplug_pack::{Dtype, Tensor};
use glowplug_processing::pipeline::{Limits, Pipeline};
use glowplug_processing::{ErrorKind, ProcessingError};

const RGB: Step = Step::Decode { channels: Channels::Rgb };
const GRAY: Step = Step::Decode { channels: Channels::Gray };

fn resize(size: [usize; 2]) -> Step {
    Step::Resize { size: Some(size), shorter: None, mode: ResizeMode::Bilinear }
}

fn tokenize(field: TokenField) -> Step {
    Step::Tokenize { tokenizer: "t.json".into(), field }
}

fn compile(inputs: Vec<InputSpec>, tokenizer: &[u8]) -> Result<Pipeline, ProcessingError> {
    Pipeline::compile(&manifest(inputs), |name| (name == "t.json").then_some(tokenizer))
}

fn refused(result: Result<impl std::fmt::Debug, ProcessingError>, kind: ErrorKind, text: &str) {
    let e = result.expect_err(text);
    assert!(e.kind() == kind && e.to_string().contains(text), "{:?} {e}\nis not: {kind:?} {text}", e.kind());
}

/// A pipeline of RGB images to f32[1,3,8,8].
fn to_8x8() -> Pipeline {
    compile(vec![input("image", Dtype::F32, &[1, 3, 8, 8], vec![RGB, resize([8, 8])])], b"").unwrap()
}

fn image(name: &str) -> Vec<u8> {
    std::fs::read(repository().join("shared/processing/tests/data").join(name)).unwrap()
}

#[test]
fn a_bad_image_is_told_for_what_it_is() {
    let [png, jpeg] = ["rgb.png", "jpeg444.jpg"].map(image);
    let mut flipped = png.clone();
    flipped[60] ^= 0x40;
    for (body, kind, text) in [
        (&b""[..], ErrorKind::InvalidInput, "the body is empty"),
        (b"hello", ErrorKind::InvalidInput, "the 5 bytes are no image, expected PNG or JPEG"),
        (b"GIF89a..........", ErrorKind::UnsupportedMedia, "the image is Gif, expected PNG or JPEG"),
        (b"RIFF....WEBPVP8 ", ErrorKind::UnsupportedMedia, "the image is WebP, expected PNG or JPEG"),
        (&png[..8], ErrorKind::InvalidInput, "the PNG does not decode"),
        (&png[..200], ErrorKind::InvalidInput, "the PNG does not decode"),
        (&flipped, ErrorKind::InvalidInput, "the PNG does not decode"),
        (&jpeg[..jpeg.len() - 2], ErrorKind::InvalidInput, "the JPEG is cut off after"),
        (&jpeg[..jpeg.len() / 2], ErrorKind::InvalidInput, "the JPEG is cut off after"),
        (b"\xFF\xD8\xFF\xE0junk", ErrorKind::InvalidInput, "the JPEG"),
    ] {
        refused(to_8x8().run(None, body, &Limits::default()), kind, text);
    }
}

#[test]
fn a_jpeg_is_whole_when_its_own_end_is_there() {
    for name in ["jpeg420.jpg", "progressive.jpg", "orientation6.jpg", "gray.jpg", "cmyk.jpg"] {
        let mut bytes = image(name);
        let whole = to_8x8().run(None, &bytes, &Limits::default()).unwrap();
        for cut in [bytes.len() - 2, bytes.len() * 9 / 10, bytes.len() / 2] {
            refused(
                to_8x8().run(None, &bytes[..cut], &Limits::default()),
                ErrorKind::InvalidInput,
                "the JPEG",
            );
        }
        // A phone's video behind the image, with bytes that look like the start of a scan.
        bytes.extend_from_slice(b"ftypmp42\xFF\xDA\x00\x08moov");
        assert_eq!(to_8x8().run(None, &bytes, &Limits::default()).unwrap(), whole, "{name}");
    }
}

#[test]
fn one_pipeline_serves_many_threads() {
    fn shared<T: Send + Sync>(value: T) -> T {
        value
    }
    let (pipeline, body) = (shared(to_8x8()), image("rgb.png"));
    let run = || pipeline.run(None, &body, &Limits::default()).unwrap();
    let alone = run();
    std::thread::scope(|s| {
        let threads: Vec<_> = (0..4).map(|_| s.spawn(run)).collect();
        assert!(threads.into_iter().all(|t| t.join().unwrap() == alone));
    });
}

#[test]
fn no_damage_to_an_image_panics() {
    let pipeline = to_8x8();
    for name in ["rgb.png", "palette.png", "jpeg420.jpg", "progressive.jpg", "orientation6.jpg"] {
        let bytes = image(name);
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let _ = pipeline.run(None, &damaged, &Limits::default());
            let _ = pipeline.run(None, &bytes[..at], &Limits::default());
        }
    }
}

/// A PNG header of `side` x `side` RGBA pixels, and nothing to decode behind it.
fn png_header(side: u32) -> Vec<u8> {
    let mut png = image("rgba.png");
    png[16..20].copy_from_slice(&side.to_be_bytes());
    png[20..24].copy_from_slice(&side.to_be_bytes());
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| (c >> 1) ^ (0xEDB8_8320 & (c & 1).wrapping_neg()))
    })
}

#[test]
fn more_pixels_than_the_limit_are_refused_before_they_are_decoded() {
    let limits = Limits { max_pixels: 30 * 22, ..Limits::default() };
    let text = "the image is 31x22 = 682 pixels, expected at most 660";
    refused(to_8x8().run(None, &image("rgb.png"), &limits), ErrorKind::TooLarge, text);
    refused(to_8x8().run(None, &image("jpeg444.jpg"), &limits), ErrorKind::TooLarge, "40x24 = 960 pixels");
    // 40,000 x 40,000: 6.4 GB, were it decoded.
    let text = "40000x40000 = 1600000000 pixels, expected at most 50000000";
    refused(to_8x8().run(None, &png_header(40_000), &Limits::default()), ErrorKind::TooLarge, text);
    // 61 x 45 is within the limit; its shorter side made 45,000 long is not.
    let steps = vec![RGB, Step::Resize { size: None, shorter: Some(45_000), mode: ResizeMode::Nearest }];
    let pipeline = compile(vec![input("image", Dtype::F32, &[1, 3, 9, 9], steps)], b"").unwrap();
    refused(pipeline.run(None, &image("photo.png"), &Limits::default()), ErrorKind::TooLarge, "61000x45000");
}

#[test]
fn an_image_of_another_size_is_refused_where_nothing_resizes_it() {
    let fixed = compile(vec![input("image", Dtype::F32, &[1, 1, 28, 28], vec![GRAY])], b"").unwrap();
    let text = "the image is 31x22, expected 28x28";
    refused(fixed.run(None, &image("gray.png"), &Limits::default()), ErrorKind::InvalidInput, text);
    let steps = vec![RGB, Step::CenterCrop { size: [30, 20] }];
    let crop = compile(vec![input("image", Dtype::F32, &[1, 3, 30, 20], steps)], b"").unwrap();
    let text = "the image is 31x22 where it is cropped, expected at least 20x30";
    refused(crop.run(None, &image("rgb.png"), &Limits::default()), ErrorKind::InvalidInput, text);
}

#[test]
fn the_vendored_digits_become_what_the_model_takes() {
    let steps = vec![GRAY, Step::Scale { factor: 1.0 / 255.0 }];
    let pipeline = compile(vec![input("image", Dtype::F32, &[1, 1, 28, 28], steps)], b"").unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(repository().join("tests/data/digits")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "png") {
            let body = std::fs::read(&path).unwrap();
            let tensor = pipeline.run(Some("image/png"), &body, &Limits::default()).unwrap().remove(0);
            let values = tensor.as_f32().unwrap();
            assert_eq!(tensor.shape(), [1, 1, 28, 28]);
            assert!(values.iter().all(|x| (0.0..=1.0).contains(x)) && values.iter().any(|x| *x > 0.5));
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} digits");
}

#[test]
fn a_content_type_of_another_kind_names_the_right_ones() {
    for (content_type, ok) in [(None, true), (Some("binary/octet-stream"), true), (Some("image/jpeg"), true)]
    {
        assert_eq!(to_8x8().run(content_type, &image("rgb.png"), &Limits::default()).is_ok(), ok);
    }
    let text = r#"content type is "text/plain", expected image/png or image/jpeg"#;
    let result = to_8x8().run(Some("text/plain"), &image("rgb.png"), &Limits::default());
    refused(result, ErrorKind::UnsupportedMedia, text);
    let none = compile(vec![input("x", Dtype::F32, &[1], vec![])], b"").unwrap();
    let text = r#"model "m" has no pipeline for raw requests: send tensors to infer"#;
    refused(none.run(None, b"1", &Limits::default()), ErrorKind::UnsupportedMedia, text);
}

#[test]
fn steps_that_do_not_fit_are_told_when_the_model_is_loaded() {
    let normalize = |n: usize| Step::Normalize { mean: vec![0.0; n], std: vec![1.0; n] };
    let layout = Step::Layout { order: Layout::Nhwc };
    let both = Step::Resize { size: Some([8, 8]), shorter: Some(8), mode: ResizeMode::Bilinear };
    let image = |dtype, shape: &[usize], steps: &[Step]| vec![input("x", dtype, shape, steps.to_vec())];
    let f32_8x8 = |steps: &[Step]| image(Dtype::F32, &[1, 3, 8, 8], steps);
    let text_input = |shape: &[usize]| input("ids", Dtype::I64, shape, vec![tokenize(TokenField::InputIds)]);
    for (inputs, text) in [
        (f32_8x8(&[resize([8, 8])]), "the first input's first step must be decode, tokenize or csv"),
        (
            f32_8x8(&[RGB, resize([9, 8])]),
            r#"pipeline of input "x": the steps give [1,3,9,8], the input's axes are [1,3,8,8]"#,
        ),
        (f32_8x8(&[GRAY, resize([8, 8])]), "the steps give [1,1,8,8]"),
        (
            image(Dtype::F32, &[2, 3, 8, 8], &[RGB]),
            "the steps give [1,3,8,8], the input's axes are [2,3,8,8]",
        ),
        (image(Dtype::F32, &[64], &[RGB]), "the input has 1 axes, an image needs 3 or 4"),
        (f32_8x8(&[RGB, layout.clone()]), "the steps give [1,3,8,3]"),
        (f32_8x8(&[RGB, layout.clone(), layout.clone()]), "step 2 (layout): there is a layout before it"),
        (f32_8x8(&[RGB, normalize(1)]), "step 1 (normalize): 1 means and 1 stds, expected 3 each"),
        (
            f32_8x8(&[RGB, normalize(3), resize([8, 8])]),
            "step 2 (resize): must come before scale and normalize",
        ),
        (f32_8x8(&[RGB, both]), "step 1 (resize): takes one of size and shorter"),
        (f32_8x8(&[RGB, resize([0, 8])]), "step 1 (resize): a side of 0 pixels, expected 1 to 65536"),
        (f32_8x8(&[RGB, Step::Csv {}]), "step 1 (csv): is no step for images"),
        (image(Dtype::U8, &[1, 3, 8, 8], &[RGB, normalize(3)]), "need an f32 input, it is u8"),
        (image(Dtype::I64, &[1, 3, 8, 8], &[RGB]), "images become f32 or u8, the input is i64"),
        ([f32_8x8(&[RGB]), f32_8x8(&[])].concat(), "can feed 1 input, the model has 2"),
        (image(Dtype::I64, &[1, 4], &[Step::Csv {}]), "csv gives f32, the input is i64"),
        (image(Dtype::F32, &[], &[Step::Csv {}]), "it is a scalar"),
        (
            image(Dtype::F32, &[1, 1 << 40], &[Step::Csv {}]),
            "1099511627776 columns, expected at most 1048576",
        ),
        (image(Dtype::F32, &[1, 4], &[Step::Csv {}, RGB]), "step 1 (decode): is no step for csv rows"),
        (image(Dtype::F32, &[1, 4], &[Step::Csv {}, normalize(3)]), "3 means and 3 stds, expected 4 each"),
        (vec![text_input(&[2, 8])], "the steps give [1,8], the input's axes are [2,8]"),
        (vec![text_input(&[1, 2])], r#"tokenizer "t.json": adds 2 special tokens, which leaves none of 2"#),
        (vec![text_input(&[1, 1 << 40])], "1099511627776 tokens, expected 1 to 1048576"),
        (vec![text_input(&[1, 8]), text_input(&[1, 9])], "to length 9, expected \"t.json\" to length 8"),
        (
            vec![text_input(&[1, 8]), input("m", Dtype::I64, &[1, 8], vec![])],
            "input \"m\": no steps, expected tokenize",
        ),
        (
            image(Dtype::F32, &[1, 8], &[tokenize(TokenField::InputIds)]),
            "tokens are i64 or i32, the input is f32",
        ),
        (
            image(Dtype::I64, &[1, 8], &[tokenize(TokenField::InputIds), Step::Csv {}]),
            "nothing comes after tokenize",
        ),
    ] {
        refused(compile(inputs, &tokenizer()), ErrorKind::BadManifest, text);
    }
    refused(
        compile(vec![text_input(&[1, 8])], b"{}"),
        ErrorKind::BadManifest,
        r#"tokenizer "t.json": does not load"#,
    );
    let absent = Pipeline::compile(&manifest(vec![text_input(&[1, 8])]), |_| None);
    refused(absent, ErrorKind::BadManifest, r#"tokenizer "t.json" is not in the pack"#);
}

fn tokenizer() -> Vec<u8> {
    std::fs::read(repository().join("tests/data/tokenizer-small.json")).unwrap()
}

fn three_fields(dtype: Dtype, length: usize) -> Pipeline {
    let fields = [TokenField::InputIds, TokenField::AttentionMask, TokenField::TokenTypeIds];
    let inputs = fields.map(|f| input(&format!("{f:?}"), dtype, &[1, length], vec![tokenize(f)]));
    compile(inputs.into(), &tokenizer()).unwrap()
}

#[test]
fn text_becomes_the_reference_tokenizers_fields() {
    let path = repository().join("tests/data/tokenizer-small.encodings.json");
    let reference: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let length = usize::try_from(reference["fixed_length"].as_u64().unwrap()).unwrap();
    let pipeline = three_fields(Dtype::I64, length);
    let encodings = reference["encodings"].as_array().unwrap();
    assert!(encodings.len() > 5, "{} encodings", encodings.len());
    for encoding in encodings {
        let body = serde_json::json!({ "text": encoding["text"] }).to_string();
        let tensors = pipeline.run(Some("application/json"), body.as_bytes(), &Limits::default()).unwrap();
        for (tensor, field) in tensors.iter().zip(["input_ids", "attention_mask", "token_type_ids"]) {
            let expected: Vec<i64> = serde_json::from_value(encoding["fixed"][field].clone()).unwrap();
            assert_eq!(tensor.as_i64().unwrap(), expected, "{field} of {body}");
            assert_eq!(tensor.shape(), [1, length]);
        }
        let plain = encoding["text"].as_str().unwrap();
        if !plain.is_empty() {
            let again = pipeline.run(Some("text/plain"), plain.as_bytes(), &Limits::default()).unwrap();
            assert_eq!(again, tensors);
        }
    }
    let narrow = three_fields(Dtype::I32, length).run(None, b"hello world", &Limits::default()).unwrap();
    assert_eq!(narrow[0].as_i32().unwrap()[..4], [2, 99, 100, 3]);
}

#[test]
fn a_bad_text_is_told_for_what_it_is() {
    let pipeline = three_fields(Dtype::I64, 8);
    let limits = Limits { max_text_bytes: 32, ..Limits::default() };
    let json = Some("application/json");
    for (content_type, body, kind, text) in [
        (None, &b"ab\xFFc"[..], ErrorKind::InvalidInput, "the text is not UTF-8 at byte 2"),
        (None, &[b'a'; 33], ErrorKind::TooLarge, "the text is 33 bytes, expected at most 32"),
        (json, b"hello", ErrorKind::InvalidInput, r#"the body is not {"text": ".."}"#),
        (json, br#"{"txt":"a"}"#, ErrorKind::InvalidInput, "unknown field `txt`"),
        (json, br#"{"text":5}"#, ErrorKind::InvalidInput, "expected"),
        (Some("image/png"), b"hello", ErrorKind::UnsupportedMedia, "expected text/plain or application/json"),
    ] {
        refused(pipeline.run(content_type, body, &limits), kind, text);
    }
}

fn table(shape: &[usize], steps: &[Step]) -> Pipeline {
    let steps = [&[Step::Csv {}], steps].concat();
    compile(vec![input("x", Dtype::F32, shape, steps)], b"").unwrap()
}

fn rows(shape: &[usize], values: &[f32]) -> Vec<Tensor> {
    vec![Tensor::from_f32(shape, values.to_vec()).unwrap()]
}

#[test]
fn rows_are_read_from_csv_and_json() {
    let limits = Limits::default();
    for (content_type, body) in [
        (Some("text/csv"), "1, 2.5,-3e0"),
        (None, "1,2.5,-3\r\n"),
        (None, "[1,2.5,-3]"),
        (Some("application/json"), "[[1,2.5,-3]]"),
        (Some("text/plain"), "\n1,2.5,-3\n"),
    ] {
        let found = table(&[1, 3], &[]).run(content_type, body.as_bytes(), &limits).unwrap();
        assert_eq!(found, rows(&[1, 3], &[1.0, 2.5, -3.0]), "{body}");
    }
    let two = table(&[2, 2], &[Step::Normalize { mean: vec![1.0, 0.0], std: vec![1.0, 2.0] }]);
    assert_eq!(two.run(None, b"1,2\n3,4", &limits).unwrap(), rows(&[2, 2], &[0.0, 1.0, 2.0, 2.0]));
    assert_eq!(table(&[2], &[]).run(None, b"1,2", &limits).unwrap(), rows(&[2], &[1.0, 2.0]));
}

#[test]
fn a_bad_row_is_told_by_row_and_column() {
    let limits = Limits { max_text_bytes: 64, ..Limits::default() };
    for (body, kind, text) in [
        (&b"1,2"[..], ErrorKind::InvalidInput, "row 1 has 2 columns, expected 3"),
        (b"1,2,3\n4,5,6", ErrorKind::InvalidInput, "found 2 rows, expected 1"),
        (b"\n", ErrorKind::InvalidInput, "found 0 rows, expected 1"),
        (
            b"a,b,c\n1,2,3",
            ErrorKind::InvalidInput,
            "row 1 column 1 is \"a\", expected a finite number (and no header)",
        ),
        (b"1,,3", ErrorKind::InvalidInput, "row 1 column 2 is \"\""),
        (b"1,nan,3", ErrorKind::InvalidInput, "row 1 column 2 is \"nan\""),
        (b"1,2,1e99", ErrorKind::InvalidInput, "row 1 column 3 is \"1e99\""),
        (b"[1,2]", ErrorKind::InvalidInput, "rows: found 2 elements, expected 3"),
        (b"[1,2,NaN]", ErrorKind::InvalidInput, "rows: element 2 is NaN"),
        (b"[1,2,3", ErrorKind::InvalidInput, "the body is not a JSON array of numbers"),
        (b"1,2,\xFF", ErrorKind::InvalidInput, "not UTF-8 at byte 4"),
        (&[b'1'; 65], ErrorKind::TooLarge, "65 bytes, expected at most 64"),
    ] {
        refused(table(&[1, 3], &[]).run(None, body, &limits), kind, text);
    }
}
