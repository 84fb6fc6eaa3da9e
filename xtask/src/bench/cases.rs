//! The anchor models and the shapes that they are measured at: one table.

/// One model at pinned shapes.
pub(crate) struct Case {
    /// Its name in figures, and its folder in the cache.
    pub(crate) name: &'static str,
    /// The file in the models folder.
    pub(crate) file: &'static str,
    /// Its pinned inputs, as `glowplug pack --input` takes them.
    pub(crate) inputs: &'static [&'static str],
    /// Weights are random: the answers mean nothing, bytes and time do.
    pub(crate) random_weights: bool,
    /// Measured in a full Lambda invocation too.
    pub(crate) lambda: bool,
}

const fn case(name: &'static str, file: &'static str, inputs: &'static [&'static str]) -> Case {
    Case { name, file, inputs, random_weights: false, lambda: false }
}

impl Case {
    const fn random(self) -> Case {
        Case { random_weights: true, ..self }
    }

    const fn lambda(self) -> Case {
        Case { lambda: true, ..self }
    }
}

/// All cases, the large ones first.
pub(crate) const CASES: &[Case] = &[
    case("resnet50", "resnet50.onnx", &["input=f32[1,3,224,224]"]).random(),
    case(
        "minilm-128",
        "minilm-l6-v2-f32.onnx",
        &["input_ids=i64[1,128]", "attention_mask=i64[1,128]", "token_type_ids=i64[1,128]"],
    )
    .lambda(),
    case(
        "minilm-16",
        "minilm-l6-v2-f32.onnx",
        &["input_ids=i64[1,16]", "attention_mask=i64[1,16]", "token_type_ids=i64[1,16]"],
    ),
    case("efficientnet-lite0", "efficientnet-lite0.onnx", &["input=f32[1,3,224,224]"]).lambda(),
    case("mobilenetv2", "mobilenetv2.onnx", &["input=f32[1,3,224,224]"]).random().lambda(),
    case("ppocrv4-rec", "ppocrv4-rec.onnx", &["x=f32[1,3,48,320]"]),
    case("ppocrv4-det", "ppocrv4-det.onnx", &["x=f32[1,3,320,320]"]),
    case("magika", "magika-v3_3.onnx", &["bytes=i32[1,2048]"]),
    case("silero-openvino", "silero-vad-openvino-16k.onnx", &["input=f32[1,576]", "state=f32[2,1,128]"]),
    case(
        "silero-sequence",
        "silero-vad-16k-sequence.onnx",
        &["input=f32[6,576]", "h=f32[1,1,128]", "c=f32[1,1,128]"],
    ),
    case("ppocr-cls", "ppocr-cls.onnx", &["x=f32[1,3,48,192]"]),
    case("mnist-cnn", "mnist-cnn.onnx", &["image=f32[1,1,28,28]"]),
    case("tab-digits-mlp", "tab_digits_mlp.onnx", &["X=f32[8,64]"]),
];
