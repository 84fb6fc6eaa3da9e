//! The anchor models and the shapes that they are measured at: one table.

/// One model at pinned shapes.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// Its name in figures.
    pub(crate) name: &'static str,
    /// The file in the models folder.
    pub(crate) file: &'static str,
    /// Its pinned inputs, as `glowplug pack --input` takes them.
    inputs: &'static [&'static str],
    /// The first extent of every input, where it is not the pinned one.
    batch: Option<u32>,
    /// Why the first axis of the inputs is no batch, where it is none.
    single: Option<&'static str>,
    /// Weights are random: the answers mean nothing, bytes and time do.
    pub(crate) random_weights: bool,
    /// Measured in a full Lambda invocation too.
    pub(crate) lambda: bool,
}

const fn case(name: &'static str, file: &'static str, inputs: &'static [&'static str]) -> Case {
    Case { name, file, inputs, batch: None, single: None, random_weights: false, lambda: false }
}

impl Case {
    const fn random(self) -> Case {
        Case { random_weights: true, ..self }
    }

    const fn lambda(self) -> Case {
        Case { lambda: true, ..self }
    }

    const fn single(self, why: &'static str) -> Case {
        Case { single: Some(why), ..self }
    }

    /// The model with `batch` as the first extent of every input. Errors: why it takes one input at a time.
    pub(crate) fn at(&self, batch: u32) -> Result<Case, &'static str> {
        match self.single {
            Some(_) if batch == 1 => Ok(*self),
            Some(why) => Err(why),
            None => {
                let pinned = self.inputs.iter().all(|pin| resized(pin, batch) == **pin);
                Ok(Case { batch: (!pinned).then_some(batch), ..*self })
            }
        }
    }

    /// Model and batch in one word: its folder in the cache.
    pub(crate) fn label(&self) -> String {
        self.batch.map_or(self.name.to_owned(), |batch| format!("{}-b{batch}", self.name))
    }

    /// Its inputs at its batch, as `glowplug pack --input` takes them.
    pub(crate) fn pins(&self) -> Vec<String> {
        let at_batch = |pin: &&str| self.batch.map_or((*pin).to_owned(), |batch| resized(pin, batch));
        self.inputs.iter().map(at_batch).collect()
    }
}

/// `NAME=f32[8,..]` with another first extent.
fn resized(pin: &str, batch: u32) -> String {
    let first = pin.find('[').map_or(pin.len(), |at| at + 1);
    let rest = pin[first..].find([',', ']']).map_or("", |end| &pin[first + end..]);
    format!("{}{batch}{rest}", &pin[..first])
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
    case("silero-openvino", "silero-vad-openvino-16k.onnx", &["input=f32[1,576]", "state=f32[2,1,128]"])
        .single("takes one stream: its state has a batch axis of 1"),
    case(
        "silero-sequence",
        "silero-vad-16k-sequence.onnx",
        &["input=f32[6,576]", "h=f32[1,1,128]", "c=f32[1,1,128]"],
    )
    .single("takes one stream: its first axis is time"),
    case("ppocr-cls", "ppocr-cls.onnx", &["x=f32[1,3,48,192]"]),
    case("mnist-cnn", "mnist-cnn.onnx", &["image=f32[1,1,28,28]"]),
    case("tab-digits-mlp", "tab_digits_mlp.onnx", &["X=f32[8,64]"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> &'static Case {
        CASES.iter().find(|c| c.name == name).unwrap()
    }

    #[test]
    fn the_batch_is_the_first_extent_of_every_input() {
        let found = named("minilm-16").at(8).unwrap();
        let expected = ["input_ids=i64[8,16]", "attention_mask=i64[8,16]", "token_type_ids=i64[8,16]"];
        assert_eq!(
            (found.label().as_str(), found.pins()),
            ("minilm-16-b8", expected.map(str::to_owned).into())
        );
        let found = named("tab-digits-mlp").at(32).unwrap();
        assert_eq!(
            (found.label().as_str(), found.pins()),
            ("tab-digits-mlp-b32", vec!["X=f32[32,64]".into()])
        );
    }

    #[test]
    fn the_pinned_batch_shares_the_folder_of_the_cold_runs() {
        for (name, batch) in [("resnet50", 1), ("minilm-128", 1), ("tab-digits-mlp", 8)] {
            let found = named(name).at(batch).unwrap();
            assert_eq!((found.label().as_str(), found.pins()), (name, named(name).pins()));
        }
        assert_eq!(named("tab-digits-mlp").at(1).unwrap().pins(), ["X=f32[1,64]"]);
    }

    #[test]
    fn streams_are_taken_one_at_a_time() {
        let found = named("silero-sequence").at(1).unwrap();
        assert_eq!(
            (found.label().as_str(), found.pins()[0].as_str()),
            ("silero-sequence", "input=f32[6,576]")
        );
        assert!(named("silero-sequence").at(8).err().unwrap().contains("time"));
        assert!(named("silero-openvino").at(32).is_err());
    }
}
