//! `start`: what happens between exec and the first poll of the Runtime API, and before the first byte asked of S3.
//!
//! Each sample is a fresh process whose Runtime API and S3 are listeners of this one, which tell when somebody
//! came. An empty function, `shared/lambda/examples/empty_function.rs`, is measured beside ours, in turn.

use crate::workspace;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A process that has not come by then will not come.
const LIMIT: Duration = Duration::from_secs(10);

/// What a process does first, and where it is heard.
struct Case {
    name: &'static str,
    binary: &'static str,
    /// What the process comes to: the Runtime API, or its S3.
    until: Until,
    /// More of its environment; `S3` in a value stands for the address of the listener that plays S3, `ROOTS` for
    /// the file of Amazon's roots.
    environment: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, PartialEq)]
enum Until {
    Poll,
    S3,
}

const STORE: [(&str, &str); 4] = [
    ("GLOWPLUG_STORE", "s3://models/packs"),
    ("GLOWPLUG_MODELS", "m:1"),
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "of-the-emulator"),
];

const CASES: [Case; 5] = [
    Case {
        name: "empty function, first poll",
        binary: "examples/empty_function",
        until: Until::Poll,
        environment: &[],
    },
    Case {
        name: "api, first poll",
        binary: "glowplug-api",
        until: Until::Poll,
        environment: &[("AWS_ENDPOINT_URL_S3", "http://S3")],
    },
    Case {
        name: "api, first request to S3 over http",
        binary: "glowplug-api",
        until: Until::S3,
        environment: &[("AWS_ENDPOINT_URL_S3", "http://S3")],
    },
    Case {
        name: "api, first byte to S3 over https, Amazon's roots",
        binary: "glowplug-api",
        until: Until::S3,
        environment: &[("AWS_ENDPOINT_URL_S3", "https://S3"), ("SSL_CERT_FILE", "ROOTS")],
    },
    Case {
        name: "api, first byte to S3 over https, the system's roots",
        binary: "glowplug-api",
        until: Until::S3,
        environment: &[("AWS_ENDPOINT_URL_S3", "https://S3")],
    },
];

#[derive(Serialize)]
struct Row {
    case: &'static str,
    min_ms: f64,
    p50_ms: f64,
}

/// Builds functions and example with `profile` and prints how long each case takes, over `runs` processes.
pub(crate) fn report(profile: &str, runs: u32, json: bool) -> Result<()> {
    build(profile)?;
    let bin = workspace::target_dir()?.join(profile);
    let mut samples = CASES.map(|_| Vec::new());
    for _ in 0..runs {
        for (case, samples) in CASES.iter().zip(&mut samples) {
            samples.push(sample(case, &bin).with_context(|| case.name)?);
        }
    }
    let rows: Vec<Row> =
        CASES.iter().zip(samples).map(|(case, samples)| Row::of(case.name, samples)).collect();
    match json {
        true => println!("{}", serde_json::to_string(&rows)?),
        false => rows
            .iter()
            .for_each(|r| println!("{:<56} min {:>7.2}  p50 {:>7.2} ms", r.case, r.min_ms, r.p50_ms)),
    }
    Ok(())
}

fn build(profile: &str) -> Result<()> {
    let functions = workspace::FUNCTIONS.into_iter().flat_map(|p| ["--package", p]);
    // With `fast`, as demo and tests build it, so that nothing is compiled twice.
    let what: Vec<&str> = match profile {
        workspace::PROFILE => vec!["--workspace", "--lib", "--bins", "--tests"],
        _ => functions.chain(["--bins", "--package", "glowplug-lambda"]).collect(),
    };
    let arguments = ["build", "--profile", profile, "--example", "empty_function"].into_iter().chain(what);
    workspace::run(&mut workspace::cargo(arguments)?)
}

impl Row {
    fn of(case: &'static str, mut samples: Vec<f64>) -> Row {
        samples.sort_by(f64::total_cmp);
        let at = |i: usize| samples.get(i).copied().unwrap_or(f64::NAN);
        Row { case, min_ms: at(0), p50_ms: at(samples.len() / 2) }
    }
}

/// Milliseconds from exec until the process came.
fn sample(case: &Case, bin: &Path) -> Result<f64> {
    let (api, s3) = (listener()?, listener()?);
    let address = s3.local_addr()?.to_string();
    let mut command = Command::new(bin.join(case.binary));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("AWS_LAMBDA_RUNTIME_API", api.local_addr()?.to_string());
    command.envs(LAMBDA).envs(STORE);
    let roots = workspace::root().join("shared/store-s3/src/amazon-roots.pem").display().to_string();
    let filled = |value: &str| value.replace("ROOTS", &roots).replace("S3", &address);
    command.envs(case.environment.iter().map(|(name, value)| (name, filled(value))));
    let started = Instant::now();
    let mut child =
        command.spawn().with_context(|| format!("starting {}", bin.join(case.binary).display()))?;
    let came = match case.until {
        Until::Poll => accept(&api, started).and_then(|stream| asked(&stream)),
        Until::S3 => accept(&s3, started).and_then(|stream| first_byte(&stream)),
    };
    let elapsed = started.elapsed();
    child.kill()?;
    child.wait()?;
    came?;
    Ok(elapsed.as_secs_f64() * 1000.0)
}

const LAMBDA: [(&str, &str); 4] = [
    ("AWS_LAMBDA_FUNCTION_NAME", "start"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769"),
    ("AWS_REGION", "eu-central-1"),
];

fn listener() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port to listen on")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The next connection, without waiting for ever for one.
fn accept(listener: &TcpListener, started: Instant) -> Result<TcpStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(LIMIT))?;
                return Ok(stream);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && started.elapsed() < LIMIT => {
                std::thread::sleep(Duration::from_micros(20));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => bail!("nobody came within {LIMIT:?}"),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Reads the line that asks for the next event.
fn asked(stream: &TcpStream) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    match line.starts_with("GET ") && line.contains("/runtime/invocation/next") {
        true => Ok(()),
        false => bail!("found {line:?}, expected a poll"),
    }
}

fn first_byte(mut stream: &TcpStream) -> Result<()> {
    stream.read_exact(&mut [0]).context("S3 was reached and not asked")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_poll_is_told_from_anything_else() {
        for (line, is_poll) in [
            ("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n", true),
            ("POST /2018-06-01/runtime/init/error HTTP/1.1\r\n", false),
        ] {
            let listener = listener().unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(line.as_bytes()).unwrap();
            let stream = accept(&listener, Instant::now()).unwrap();
            assert_eq!(asked(&stream).is_ok(), is_poll, "{line}");
        }
    }

    #[test]
    fn rows_tell_the_middle_of_the_samples() {
        let row = Row::of("x", vec![3.0, 1.0, 2.0]);
        assert!((row.min_ms - 1.0).abs() < 1e-9 && (row.p50_ms - 2.0).abs() < 1e-9);
    }
}
