//! The command line of the measured programs: parsed by hand, because a parser's start would be counted too.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// `MODEL INPUT.npz [--output OUT.npz] [--warm N | --budget-ms N] [--threads N] [--save-optimized FILE]`
#[derive(Debug, PartialEq)]
pub struct Args {
    /// The model file, or whatever the engine takes in its place.
    pub model: String,
    /// Inputs by their ONNX names.
    pub input: PathBuf,
    /// Where to write the outputs.
    pub output: Option<PathBuf>,
    /// Timed runs after the first; three to ten untimed ones come before them.
    pub warm: usize,
    /// Timed runs for so long, every one of them told; a few untimed ones come before them.
    pub budget_ms: u64,
    /// Compute threads.
    pub threads: usize,
    /// ONNX Runtime only: write the optimized graph there.
    pub save_optimized: Option<PathBuf>,
}

impl Args {
    /// Errors: an unknown flag, a missing value, no number where one belongs, no model or input.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Args> {
        let mut words = words.into_iter();
        let mut places = Vec::new();
        let (mut output, mut save_optimized) = (None, None);
        let (mut warm, mut budget_ms, mut threads) = (0, 0, 1);
        while let Some(word) = words.next() {
            if !word.starts_with("--") {
                places.push(word);
                continue;
            }
            let value = words.next().with_context(|| format!("{word} has no value"))?;
            let wanted = || format!("{word} is {value:?}, wanted a number");
            match word.as_str() {
                "--output" => output = Some(value.into()),
                "--save-optimized" => save_optimized = Some(value.into()),
                "--warm" => warm = value.parse().with_context(wanted)?,
                "--budget-ms" => budget_ms = value.parse().with_context(wanted)?,
                "--threads" => threads = value.parse().with_context(wanted)?,
                _ => bail!("unknown flag {word}"),
            }
        }
        let [model, input]: [String; 2] = places
            .try_into()
            .map_err(|found: Vec<String>| anyhow::anyhow!("found {found:?}, wanted MODEL INPUT.npz"))?;
        Ok(Args { model, input: input.into(), output, warm, budget_ms, threads, save_optimized })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_and_places_are_told_apart() {
        let args = parse("m.onnx in.npz --warm 20 --output out.npz").unwrap();
        let expected = Args {
            model: "m.onnx".into(),
            input: "in.npz".into(),
            output: Some("out.npz".into()),
            warm: 20,
            budget_ms: 0,
            threads: 1,
            save_optimized: None,
        };
        assert_eq!(args, expected);
        let args = parse("m i --budget-ms 300 --threads 2").unwrap();
        assert_eq!((args.budget_ms, args.threads), (300, 2));
        for (line, wanted) in [
            ("m.onnx", "wanted MODEL INPUT.npz"),
            ("a b c", "wanted MODEL INPUT.npz"),
            ("m i --warm x", "--warm is \"x\""),
            ("m i --budget-ms 0.5", "--budget-ms is \"0.5\""),
            ("m i --warm", "--warm has no value"),
            ("m i --what 1", "unknown flag --what"),
        ] {
            let error = format!("{:#}", parse(line).unwrap_err());
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }
}
