//! What has to be there before anything is measured: binaries, the rivals' libraries, every rival's form of every
//! model, and the packs. Versions are pinned, archives checked; all of it stays outside the clone.

use super::cases::Case;
use super::engines::{Engine, OURS, OURS_INT8, Program};
use crate::models;
use crate::venv::Venv;
use crate::workspace::{self, PROFILE};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The npm package that holds libonnxruntime, and the digest of its archive.
const ORT_PACKAGE: &str = "onnxruntime-node@1.30.0";
const ORT_ARCHIVE: &str = "onnxruntime-node-1.30.0.tgz";
const ORT_SHA256: &str = "6e3390d6b783e7be946fad629292799da28d0b42f84856e50d2c1b0383291e75";
const ORT_MEMBER: &str = "package/bin/napi-v6/linux/x64/libonnxruntime.so.1";
const SCRIPTS: &str = "benches/scripts";
/// The samples that ranges of activations are taken from.
const CALIBRATION: &str = "calibration.npz";
/// What ONNX Runtime writes of its own.
const OPTIMIZED: &str = "model.optimized.onnx";

/// Everything that measuring needs.
pub(crate) struct Setup {
    bin_dir: PathBuf,
    cases_dir: PathBuf,
    ort_library: PathBuf,
    openvino_library: PathBuf,
    venv: Venv,
    /// By case and engine: why there is no figure.
    refusals: BTreeMap<(String, String), String>,
}

impl Setup {
    /// Brings and builds what is missing for these engines. The first time takes minutes and the network, later
    /// times seconds.
    pub(crate) fn ensure(cases: &[&Case], engines: &[&Engine], build: bool) -> Result<Setup> {
        if build {
            build_all()?;
        }
        let dir = workspace::cache("GLOWPLUG_BENCH_DIR", "bench")?;
        let venv = Venv::ensure(
            workspace::cache("GLOWPLUG_VENVS", "venvs")?.join("bench"),
            &["requirements-bench.txt"],
        )?;
        let mut setup = Setup {
            bin_dir: workspace::bin_dir()?,
            cases_dir: dir.join("cases"),
            ort_library: ort_library(&dir, &venv)?,
            openvino_library: openvino_library(&venv)?,
            venv,
            refusals: BTreeMap::new(),
        };
        setup.prepare(cases, engines)?;
        for case in cases {
            if engines.iter().any(|e| e.file == OPTIMIZED) {
                setup.optimize(case);
            }
            for engine in engines.iter().filter(|e| [OURS, OURS_INT8].contains(&e.id)) {
                setup.pack(case, engine)?;
            }
            setup.read_refusals(case, engines);
        }
        Ok(setup)
    }

    /// The folder of the built binaries.
    pub(crate) fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// A case's folder.
    pub(crate) fn folder(&self, case: &Case) -> PathBuf {
        self.cases_dir.join(case.label())
    }

    /// Why this engine has no figure for this case; nothing where it has its file.
    pub(crate) fn refusal(&self, case: &Case, engine: &Engine) -> Option<&str> {
        self.refusals.get(&(case.label(), engine.id.to_owned())).map(String::as_str)
    }

    /// Bytes that the engine has to load.
    pub(crate) fn file_bytes(&self, case: &Case, engine: &Engine) -> Result<u64> {
        let folder = self.folder(case);
        let size = |name: &str| fs::metadata(folder.join(name)).map(|m| m.len());
        let beside = engine.beside.map_or(0, |name| size(name).unwrap_or(0));
        Ok(size(engine.file).with_context(|| format!("{}: {}", case.label(), engine.file))? + beside)
    }

    /// The command that measures one process of this engine.
    pub(crate) fn command(&self, case: &Case, engine: &Engine, threads: u32) -> Command {
        let folder = self.folder(case);
        let threads = threads.to_string();
        let mut command = self.program(engine.program);
        command.env("RTEN_NUM_THREADS", &threads);
        command.arg(folder.join(engine.file)).arg(folder.join("input.npz")).args(["--threads", &threads]);
        command
    }

    /// A program in the environment that all measured processes share.
    fn program(&self, program: Program) -> Command {
        let mut command = match program {
            Program::Binary(name) => workspace::command(self.bin_dir.join(name)),
            Program::Script(name) => self.python(name),
        };
        command.env("ORT_DYLIB_PATH", &self.ort_library).env("OPENVINO_C_LIBRARY", &self.openvino_library);
        command
    }

    /// A script of benches/scripts in the pinned environment.
    pub(crate) fn python(&self, script: &str) -> Command {
        let mut command = self.venv.command("python");
        command.arg("-B").arg(self.script(script));
        command
    }

    /// Python without a script.
    pub(crate) fn python_itself(&self) -> Command {
        self.venv.command("python")
    }

    /// Where a script is.
    pub(crate) fn script(&self, name: &str) -> PathBuf {
        workspace::root().join(SCRIPTS).join(name)
    }

    /// Each engine's largest difference from the reference over the largest output, by scripts/compare.py.
    pub(crate) fn compare<'a>(
        &self,
        case: &Case,
        outputs: impl Iterator<Item = (&'a str, PathBuf)>,
    ) -> Result<BTreeMap<String, Option<f64>>> {
        let mut compare = self.python("compare.py");
        compare.arg(self.folder(case).join("reference.npz"));
        for (engine, path) in outputs {
            compare.arg(format!("{engine}={}", path.display()));
        }
        let output = compare.output().context("starting compare.py")?;
        if !output.status.success() {
            bail!("compare.py: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("compare.py's answer")
    }

    /// The interpreter, for functions that are started by their binary.
    pub(crate) fn interpreter(&self) -> PathBuf {
        self.venv.program("python")
    }

    /// libonnxruntime.
    pub(crate) fn ort_library(&self) -> &Path {
        &self.ort_library
    }

    fn prepare(&self, cases: &[&Case], engines: &[&Engine]) -> Result<()> {
        let mut script = self.python("prepare.py");
        script.arg("--models").arg(models::default_dir()?).arg("--out").arg(&self.cases_dir);
        script.arg("--engines").args(engines.iter().map(|e| e.id));
        for case in cases {
            script.arg("--case").args([&case.label(), case.file]).args(case.pins());
        }
        workspace::run(&mut script).context("models come with `cargo xtask models --all`")
    }

    /// ONNX Runtime writes its optimized graph once, for this CPU; that is not timed.
    fn optimize(&self, case: &Case) {
        let folder = self.folder(case);
        let file = folder.join(OPTIMIZED);
        if file.is_file() {
            return;
        }
        let mut ort = self.program(Program::Binary("bench-ort"));
        ort.arg(folder.join("model.onnx")).arg(folder.join("input.npz")).arg("--save-optimized").arg(&file);
        workspace::succeeds(&mut ort);
    }

    /// Packs anew whenever the packer is another file than the one that made the pack. A refusal is kept in its own
    /// words.
    fn pack(&mut self, case: &Case, engine: &Engine) -> Result<()> {
        let folder = self.folder(case);
        let packer = self.bin_dir.join("glowplug");
        let (pack, maker) = (folder.join(engine.file), folder.join(format!("{}.by", engine.file)));
        let this = identity(&packer)?;
        if pack.is_file() && fs::read_to_string(&maker).is_ok_and(|noted| noted == this) {
            return Ok(());
        }
        // What a former packer made or said does not count.
        let _ = (fs::remove_file(&pack), fs::remove_file(folder.join(format!("{}.refused", engine.id))));
        let mut packing = workspace::command(&packer);
        packing.arg("pack").arg(folder.join("model.onnx")).arg("--output").arg(&pack);
        for pin in case.pins() {
            packing.args(["--input", &pin]);
        }
        if engine.id == OURS_INT8 {
            packing.args(["--weights", "int8", "--compute", "int8", "--calibrate"]);
            packing.arg(folder.join(CALIBRATION));
        }
        let output = packing.output().with_context(|| format!("starting {}", packer.display()))?;
        if output.status.success() {
            return fs::write(&maker, this).with_context(|| format!("writing {}", maker.display()));
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        eprintln!("{}: not packed: {said}", case.label());
        self.refuse(case, engine.id, &said);
        Ok(())
    }

    fn read_refusals(&mut self, case: &Case, engines: &[&Engine]) {
        let folder = self.folder(case);
        for engine in engines.iter().filter(|e| !folder.join(e.file).is_file()) {
            let said = fs::read_to_string(folder.join(format!("{}.refused", engine.id)));
            self.refuse(case, engine.id, said.unwrap_or_else(|_| "the file could not be made".into()).trim());
        }
    }

    fn refuse(&mut self, case: &Case, engine: &str, why: &str) {
        let why = why.trim_start_matches("error: ").chars().take(300).collect();
        self.refusals.entry((case.label(), engine.to_owned())).or_insert(why);
    }
}

/// What tells one build of a program from another: its length and when it was written.
fn identity(program: &Path) -> Result<String> {
    let told = fs::metadata(program).with_context(|| format!("reading {}", program.display()))?;
    let written = told.modified()?.duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(format!("{} {}", told.len(), written.as_nanos()))
}

/// All binaries of the workspace, the rivals' among them, in one selection, so that cargo resolves features once.
fn build_all() -> Result<()> {
    workspace::run(&mut workspace::cargo(["build", "--profile", PROFILE, "--workspace", "--bins"])?)
}

/// libonnxruntime out of the npm package, fetched by npm itself.
fn ort_library(dir: &Path, venv: &Venv) -> Result<PathBuf> {
    let library = dir.join("libonnxruntime.so.1.30.0");
    if library.is_file() {
        return Ok(library);
    }
    let downloads = dir.join("dl");
    fs::create_dir_all(&downloads).with_context(|| format!("making {}", downloads.display()))?;
    let archive = downloads.join(ORT_ARCHIVE);
    if !archive.is_file() {
        let mut npm = workspace::command("npm");
        workspace::run(npm.current_dir(&downloads).args(["pack", "--silent", ORT_PACKAGE]))?;
    }
    let mut unpack = venv.command("python");
    unpack.arg("-B").arg(workspace::root().join(SCRIPTS).join("unpack.py"));
    workspace::run(unpack.arg(&archive).args([ORT_SHA256, ORT_MEMBER]).arg(&library))?;
    Ok(library)
}

/// The C library inside the OpenVINO wheel.
fn openvino_library(venv: &Venv) -> Result<PathBuf> {
    let mut python = venv.command("python");
    let output = python
        .args(["-c", "import openvino, pathlib; print(next(pathlib.Path(openvino.__file__).parent.glob('libs/libopenvino_c.so*')))"])
        .output()
        .context("asking for OpenVINO's folder")?;
    if !output.status.success() {
        bail!("OpenVINO: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
