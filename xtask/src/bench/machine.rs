//! Where and with what was measured: what a reader needs to judge a figure.

use crate::workspace;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// Instruction sets that decide which kernels run.
const TOLD_FLAGS: [&str; 6] = ["avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"];

/// Processor, cores, memory, kernel, and how busy the machine was.
pub(crate) fn describe() -> BTreeMap<String, String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let flags = field("flags").unwrap_or_default();
    let has = |flag: &&str| flags.split(' ').any(|f| f == *flag);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let family = field("cpu family")
        .zip(field("model"))
        .map_or(String::new(), |(f, m)| format!(", family {f} model {m}"));
    let told = [
        ("cpu", format!("{model}{family}")),
        ("cores", cores.to_string()),
        ("instruction_sets", TOLD_FLAGS.iter().filter(|f| has(f)).copied().collect::<Vec<_>>().join(" ")),
        ("memory", memory()),
        ("kernel", first_line("uname", &["-sr"])),
        (
            "load_average",
            fs::read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
        ),
        ("transparent_huge_pages", huge_pages()),
    ];
    told.map(|(key, value)| (key.to_owned(), value)).into()
}

/// A name for the archive's folder: the processor's, in small letters, and its cores.
pub(crate) fn slug(machine: &BTreeMap<String, String>) -> String {
    let cpu = machine.get("cpu").map_or("cpu", |c| c.split(',').next().unwrap_or(c));
    let letters = cpu.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let words: Vec<&str> = letters.split('-').filter(|w| !w.is_empty()).take(4).collect();
    format!("{}-{}", words.join("-"), machine.get("cores").map_or("1", String::as_str))
}

/// Compiler and Python; the engines' versions are in their titles.
pub(crate) fn versions(python: &mut Command) -> BTreeMap<String, String> {
    let python =
        python.arg("--version").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    [("rustc", first_line("rustc", &["--version"])), ("python", python.unwrap_or_default())]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
}

/// The commit, with `+` where the tree has changes.
pub(crate) fn commit() -> String {
    let commit = first_line("git", &["rev-parse", "--short", "HEAD"]);
    let changed = !first_line("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    format!("{commit}{}", if changed { "+" } else { "" })
}

/// Today in UTC.
pub(crate) fn date() -> String {
    first_line("date", &["-u", "+%Y-%m-%d"])
}

fn memory() -> String {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or(String::new(), |k| format!("{} MiB", k / 1024))
}

fn huge_pages() -> String {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    text.split(['[', ']']).nth(1).unwrap_or("unknown").to_owned()
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = workspace::command(program).args(arguments).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_a_folder_name() {
        let machine = [("cpu", "AMD EPYC, family 25 model 17"), ("cores", "2")];
        let machine = machine.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(slug(&machine), "amd-epyc-2");
        let machine = [("cpu", "Intel(R) Xeon(R) CPU @ 2.20GHz"), ("cores", "16")];
        assert_eq!(slug(&machine.map(|(k, v)| (k.to_owned(), v.to_owned())).into()), "intel-r-xeon-r-16");
    }
}
