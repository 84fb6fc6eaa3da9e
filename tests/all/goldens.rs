//! `glowplug pack` then `glowplug run` gives what ONNX Runtime gave, for every model that has a golden.

use anyhow::{Context, Result, ensure};
use glowplug_cli::npz;
use glowplug_predict::{Model, ModelOptions, Timings};
use glowplug_processing::v2::NamedTensor;
use glowplug_store::{
    FetchOptions, MemoryStore, ModelName, ModelStore, OpenedPack, PackCache, PackStore, Resolved, Version,
};
use glowplug_tests::{assert_close, glowplug_json, glowplug_ok, large_models, repo};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Floats may differ by this much of the largest value in the reference.
const TOLERANCE: f32 = 1e-4;

/// A model, which of its goldens (`-32` is input-32.npz and output-32.npz), and the shapes it is packed for.
#[derive(Clone, Copy)]
struct Case {
    model: &'static str,
    golden: &'static str,
    pins: &'static [&'static str],
}

/// One test per case, so that they run side by side and a failure names its model.
macro_rules! cases {
    ($($test:ident: $model:literal $golden:literal $pins:expr;)*) => {
        $(
            #[test]
            fn $test() -> Result<()> {
                check(Case { model: $model, golden: $golden, pins: &$pins })
            }
        )*

        #[test]
        fn every_golden_has_its_case() -> Result<()> {
            let cases = [$(($model.to_owned(), format!("input{}.npz", $golden))),*];
            ensure!(BTreeSet::from(cases) == on_disk()?, "the table and tests/data/goldens differ");
            Ok(())
        }
    };
}

cases! {
    mnist_cnn: "mnist-cnn" "" [];
    ppocr_cls: "ppocr-cls" "" ["x=f32[1,3,48,192]"];
    ppocrv4_rec: "ppocrv4-rec" "" ["x=f32[1,3,48,320]"];
    ppocrv4_det: "ppocrv4-det" "" ["x=f32[1,3,320,320]"];
    efficientnet_lite0: "efficientnet-lite0" "" ["input=f32[1,3,224,224]"];
    mobilenetv2: "mobilenetv2" "" ["input=f32[1,3,224,224]"];
    resnet50: "resnet50" "" ["input=f32[1,3,224,224]"];
    magika: "magika-v3_3" "" ["bytes=i32[1,2048]"];
    silero_sequence: "silero-vad-16k-sequence" "" ["input=f32[6,576]"];
    silero_openvino: "silero-vad-openvino-16k" "" [];
    tab_digits_mlp: "tab_digits_mlp" "" ["X=f32[8,64]"];
    minilm_of_16: "minilm-l6-v2-f32" ""
        ["input_ids=i64[1,16]", "attention_mask=i64[1,16]", "token_type_ids=i64[1,16]"];
    minilm_in_int8: "minilm-l6-v2-int8w" ""
        ["input_ids=i64[1,16]", "attention_mask=i64[1,16]", "token_type_ids=i64[1,16]"];
    minilm_of_24: "minilm-l6-v2-f32" "-24"
        ["input_ids=i64[1,24]", "attention_mask=i64[1,24]", "token_type_ids=i64[1,24]"];
    minilm_of_32: "minilm-l6-v2-f32" "-32"
        ["input_ids=i64[1,32]", "attention_mask=i64[1,32]", "token_type_ids=i64[1,32]"];
    minilm_of_64: "minilm-l6-v2-f32" "-64"
        ["input_ids=i64[1,64]", "attention_mask=i64[1,64]", "token_type_ids=i64[1,64]"];
    minilm_of_128: "minilm-l6-v2-f32" "-128"
        ["input_ids=i64[1,128]", "attention_mask=i64[1,128]", "token_type_ids=i64[1,128]"];
    minilm_of_256: "minilm-l6-v2-f32" "-256"
        ["input_ids=i64[1,256]", "attention_mask=i64[1,256]", "token_type_ids=i64[1,256]"];
}

/// Every golden's model and input file.
fn on_disk() -> Result<BTreeSet<(String, String)>> {
    let mut found = BTreeSet::new();
    for folder in std::fs::read_dir(repo("tests/data/goldens"))? {
        let folder = folder?;
        if folder.file_type()?.is_dir() {
            for file in std::fs::read_dir(folder.path())? {
                let name = file?.file_name().to_string_lossy().into_owned();
                if name.starts_with("input") {
                    found.insert((folder.file_name().to_string_lossy().into_owned(), name));
                }
            }
        }
    }
    Ok(found)
}

/// The folder with the model's file: the repository's, else that of the large models, if it is here.
fn folder(model: &str) -> Option<PathBuf> {
    let vendored = repo("tests/data/models");
    if vendored.join(format!("{model}.onnx")).is_file() { Some(vendored) } else { large_models() }
}

fn check(case: Case) -> Result<()> {
    let Some(dir) = folder(case.model) else { return Ok(()) };
    let temp = tempfile::tempdir()?;
    let path = |name: &str| temp.path().join(name).display().to_string();
    let (pack, output) = (path("m.glow"), path("out.npz"));
    pack_it(case, &dir, &pack)?;

    let goldens = repo("tests/data/goldens").join(case.model);
    let golden = |stem: &str| goldens.join(format!("{stem}{}.npz", case.golden));
    let input = golden("input").display().to_string();
    let run = glowplug_ok(&["run", &pack, "--input", &input, "--output", &output, "--json"])?;
    let run: Value = serde_json::from_str(&run)?;
    ensure!(run["run_ms"].is_f64() && run["plan_ms"].is_f64(), "no timings in {run}");
    let wanted = npz::read(&golden("output"))?;
    let mut found = npz::read(Path::new(&output))?;
    // Of the longest texts a golden holds one output, the other is large.
    found.retain(|f| case.golden.is_empty() || wanted.iter().any(|w| w.name == f.name));
    assert_close(&found, &wanted, TOLERANCE).with_context(|| case.model)?;
    let portable =
        glowplug_ok(&["run", &pack, "--portable", "--input", &input, "--output", &output, "--json"])?;
    let portable: Value = serde_json::from_str(&portable)?;
    ensure!(run["source"] == "tuned" && portable["source"] == "portable", "{run} {portable}");
    let mut found = npz::read(Path::new(&output))?;
    found.retain(|f| case.golden.is_empty() || wanted.iter().any(|w| w.name == f.name));
    assert_close(&found, &wanted, TOLERANCE).with_context(|| format!("{}, portable", case.model))?;
    if !case.golden.is_empty() {
        return Ok(());
    }
    let inputs = npz::read(Path::new(&input))?;
    let streamed = streamed_and_cached(&pack, &inputs, temp.path());
    for (way, found) in tokio::runtime::Runtime::new()?.block_on(streamed)? {
        assert_close(&found, &wanted, TOLERANCE).with_context(|| format!("{}, {way}", case.model))?;
    }
    bench_and_verify(&pack)
}

/// What the pack answers while it arrives in small ranges, and from the cache that keeps what arrived.
async fn streamed_and_cached(
    pack: &str,
    inputs: &[NamedTensor],
    dir: &Path,
) -> Result<[(&'static str, Vec<NamedTensor>); 2]> {
    let cache = Arc::new(PackCache::new(dir.join("cache"), 1 << 30));
    let options = FetchOptions { part_bytes: 1, ..FetchOptions::default() };
    let store = PackStore::new(Arc::new(MemoryStore::new())).with_options(options).with_cache(cache);
    let model = Resolved::exact(ModelName::new("m")?, Version::new("1")?);
    store.publish(&model.name, &model.version, std::fs::read(pack)?.into()).await?;
    let answer = |opened: OpenedPack| -> Result<Vec<NamedTensor>> {
        // A run blocks while its bytes arrive.
        tokio::task::block_in_place(|| {
            let model = Model::open(opened, &ModelOptions::default())?;
            Ok(model.infer(inputs.to_vec(), None, &mut Timings::default())?)
        })
    };
    let streamed = answer(store.get(&model).await?)?;
    let opened = store.get(&model).await?;
    opened.fetch.finished().await?;
    opened.fetch.keep();
    let file = format!("cache/{}.glow", opened.pack.digest());
    for _ in 0..2000 {
        if !dir.join(&file).is_file() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let again = store.get(&model).await?;
    ensure!(again.fetch.outcome().is_some(), "the pack does not come from the cache");
    Ok([("streamed", streamed), ("cached", answer(again)?)])
}

/// Large models lie beside a copy of their manifest and its files; some models have none.
fn pack_it(case: Case, dir: &Path, pack: &str) -> Result<()> {
    let onnx = dir.join(format!("{}.onnx", case.model));
    ensure!(onnx.is_file(), "no {}: `cargo xtask models` brings it", onnx.display());
    let (onnx, manifest) = (onnx.display().to_string(), onnx.with_extension("toml"));
    let manifest = manifest.is_file().then(|| manifest.display().to_string());
    let mut args = vec!["pack", &onnx, "-o", pack, "--json"];
    args.extend(manifest.iter().flat_map(|m| ["--manifest", m]));
    args.extend(case.pins.iter().flat_map(|pin| ["--input", *pin]));
    let report: Value = glowplug_json(&args)?;
    ensure!(report["pack_bytes"].as_u64() == Some(std::fs::metadata(pack)?.len()), "{report}");
    Ok(())
}

fn bench_and_verify(pack: &str) -> Result<()> {
    let bench: Value = glowplug_json(&["bench", pack, "--runs", "10", "--json"])?;
    for stage in ["plan_ms", "first_run_ms", "run_ms"] {
        let s = &bench[stage];
        ensure!(s["min"].is_f64() && s["p50"].is_f64() && s["p99"].is_null(), "{stage} in {bench}");
    }
    ensure!(bench["bytes"].as_u64().is_some_and(|n| n > 0), "{bench}");
    // Steady state: arena and heap have all that a run needs. The heap has found its places after a dozen runs or so.
    ensure!(cfg!(not(target_os = "linux")) || bench["run_page_faults"] == 0, "{bench}");
    glowplug_ok(&["verify", pack])?;
    Ok(())
}
