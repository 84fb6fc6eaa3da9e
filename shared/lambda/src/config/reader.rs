//! Reads variables one after the other and remembers every problem.

use std::fmt;

use crate::name::clip;

/// One variable that is missing or has a value outside its legal range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable's name.
    pub variable: &'static str,
    /// What it holds; `None` if it is missing.
    pub value: Option<String>,
    /// What it may hold.
    pub wanted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} is {:?}, wanted {}", self.variable, clip(value), self.wanted),
            None => write!(f, "{} is missing, wanted {}", self.variable, self.wanted),
        }
    }
}

/// Every problem of the environment at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The problems, in the order in which the variables are read.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub(super) fn missing(variable: &'static str, wanted: &str) -> Self {
        Self { problems: vec![Problem { variable, value: None, wanted: wanted.to_owned() }] }
    }
}

/// A closed range of whole numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range(pub(super) u64, pub(super) u64);

impl Range {
    pub(super) fn parse(self, text: &str) -> Option<u64> {
        text.parse().ok().filter(|n| (self.0..=self.1).contains(n))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.0, self.1)
    }
}

/// The environment and the problems found in it so far.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    /// `config`, if nothing was wrong.
    pub(super) fn finish<T>(self, config: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigError { problems: self.problems }) }
    }

    /// The parsed value, or `None` where it is missing or bad (a bad one is a problem).
    pub(super) fn optional<T>(
        &mut self,
        variable: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.text(variable)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            self.problem(variable, Some(value), wanted);
        }
        parsed
    }

    /// Like `optional`, but missing is a problem too.
    pub(super) fn required<T>(
        &mut self,
        variable: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        if self.text(variable).is_none() {
            self.problem(variable, None, wanted);
        }
        self.optional(variable, wanted, parse)
    }

    /// Like `optional`, with a default.
    pub(super) fn or<T>(
        &mut self,
        variable: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
        default: T,
    ) -> T {
        self.optional(variable, wanted, parse).unwrap_or(default)
    }

    pub(super) fn number(&mut self, variable: &'static str, default: u64, range: Range) -> u64 {
        self.or(variable, &range.to_string(), |text| range.parse(text), default)
    }

    pub(super) fn size(&mut self, variable: &'static str, default: usize, range: Range) -> usize {
        let parse = |text: &str| range.parse(text).and_then(|n| usize::try_from(n).ok());
        self.or(variable, &range.to_string(), parse, default)
    }

    fn text(&self, variable: &str) -> Option<String> {
        (self.lookup)(variable).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn problem(&mut self, variable: &'static str, value: Option<String>, wanted: &str) {
        self.problems.push(Problem { variable, value, wanted: wanted.to_owned() });
    }
}
