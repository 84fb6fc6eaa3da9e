//! One child process: started with Lambda's environment only, its output forwarded, killed with all it started.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::spec::{FunctionSpec, Place, environment, task_root};

/// Longest line forwarded at once, as on CloudWatch; a longer one is cut into several.
const MAX_LINE_BYTES: u64 = 256 * 1024;

/// Which output a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line that a function printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The function.
    pub function: String,
    /// The process id.
    pub process: u32,
    /// Where it was printed.
    pub stream: LogStream,
    /// The text, without the line end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Where the lines of all functions go. Called on a runtime thread: it must not block for long.
pub type LogSink = Arc<dyn Fn(LogLine) + Send + Sync>;

/// A running function process. Dropping it kills the process and everything in its process group.
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
}

impl Process {
    pub(crate) fn spawn(
        spec: &FunctionSpec,
        place: &Place,
        api: SocketAddr,
        logs: &LogSink,
    ) -> std::io::Result<Self> {
        let mut command = Command::new(std::path::absolute(&spec.binary)?);
        command.args(&spec.args).env_clear().envs(environment(spec, place, api));
        command.current_dir(task_root(&spec.binary)).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let id = child.id().unwrap_or_default();
        let line = LogLine {
            function: spec.name.clone(),
            process: id,
            stream: LogStream::Stdout,
            text: String::new(),
        };
        if let Some(pipe) = child.stdout.take() {
            tokio::spawn(forward(pipe, line.clone(), Arc::clone(logs)));
        }
        if let Some(pipe) = child.stderr.take() {
            tokio::spawn(forward(pipe, LogLine { stream: LogStream::Stderr, ..line }, Arc::clone(logs)));
        }
        Ok(Self { child, group: i32::try_from(id).ok().and_then(Pid::from_raw) })
    }

    /// Waits for the process to end and says how it did: `exit status: 1`, `signal: 9 (SIGKILL)`.
    pub(crate) async fn wait(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => format!("lost: {error}"),
        }
    }

    /// Whether the process has ended by now.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Kills the process and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.kill_group();
        // Waiting can only fail for a process that is gone already.
        let _ = self.child.kill().await;
    }

    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            // Fails when the whole group has ended by itself: nothing is left to kill.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Forwards one pipe line by line until its end. Not tied to the process, so that last words are not lost.
async fn forward(pipe: impl AsyncRead + Unpin, line: LogLine, logs: LogSink) {
    let mut reader = BufReader::new(pipe);
    let mut bytes = Vec::new();
    while let Ok(1..) = (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes).await {
        let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
        logs(LogLine { text, ..line.clone() });
        bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn output_is_cut_into_lines_and_nothing_is_lost() {
        let long = "x".repeat(300 * 1024);
        let input = format!("one\r\n\ntwo \u{fe}\n{long}\nlast words");
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink: LogSink = {
            let seen = Arc::clone(&seen);
            Arc::new(move |line| seen.lock().unwrap().push(line.text))
        };
        let line =
            LogLine { function: "f".into(), process: 1, stream: LogStream::Stdout, text: String::new() };
        forward(input.as_bytes(), line, sink).await;
        let lines = seen.lock().unwrap().clone();
        assert_eq!(lines[..3], ["one", "", "two \u{fe}"]);
        assert_eq!((lines[3].len(), lines[4].len()), (256 * 1024, 44 * 1024));
        assert_eq!(lines[5], "last words");
    }
}
