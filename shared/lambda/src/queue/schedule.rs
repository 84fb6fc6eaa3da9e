//! Which records go to the handler next. Standard queues: all, in batches. FIFO queues: per batch one of each message
//! group, and none of a group that has had a failure, for SQS to deliver the rest of it again in order.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Record;
use crate::{Error, ErrorKind, Outcome};

/// The records that still wait, and the results so far.
pub(super) struct Schedule<'a> {
    records: &'a [Record],
    batch_size: usize,
    waiting: VecDeque<usize>,
    results: Vec<Option<Result<Outcome, Error>>>,
    /// Groups with a failed record, and that record's id.
    stopped: HashMap<&'a str, &'a str>,
}

impl<'a> Schedule<'a> {
    pub(super) fn new(records: &'a [Record], batch_size: usize) -> Self {
        Self {
            records,
            batch_size: batch_size.max(1),
            waiting: (0..records.len()).collect(),
            results: vec![None; records.len()],
            stopped: HashMap::new(),
        }
    }

    /// The next batch; `None` when no record waits.
    pub(super) fn next(&mut self) -> Option<Vec<usize>> {
        let (mut batch, mut groups) = (Vec::new(), HashSet::new());
        let mut later = VecDeque::new();
        for index in std::mem::take(&mut self.waiting) {
            let group = self.records[index].group.as_deref();
            match group.and_then(|group| self.stopped.get(group)) {
                Some(failed) => self.results[index] = Some(Err(behind(failed))),
                None if batch.len() < self.batch_size && group.is_none_or(|group| groups.insert(group)) => {
                    batch.push(index);
                }
                None => later.push_back(index),
            }
        }
        self.waiting = later;
        (!batch.is_empty()).then_some(batch)
    }

    /// Notes the result of one record.
    pub(super) fn done(&mut self, index: usize, result: Result<Outcome, Error>) {
        let record = &self.records[index];
        if let (Some(group), Err(_)) = (&record.group, &result) {
            self.stopped.insert(group, &record.id);
        }
        self.results[index] = Some(result);
    }

    /// One result per record. A record without one was never worked on, and that is a failure like any other.
    pub(super) fn results(self) -> Vec<Result<Outcome, Error>> {
        let lost = || Err(Error::internal("the record was not worked on"));
        self.results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }
}

fn behind(failed: &str) -> Error {
    Error::new(ErrorKind::NotReady, format!("record {failed} of the same message group failed first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records named a0, a1, b0..: the letter is the group, `-` means none.
    fn records(names: &[&str]) -> Vec<Record> {
        let record = |name: &&str| Record {
            id: (*name).to_owned(),
            body: String::new(),
            receive_count: 1,
            group: (!name.starts_with('-')).then(|| name[..1].to_owned()),
        };
        names.iter().map(record).collect()
    }

    /// The batches handed over when `bad` fail, and what is reported as failed.
    fn play(names: &[&str], batch_size: usize, bad: &[&str]) -> (Vec<Vec<String>>, Vec<String>) {
        let records = records(names);
        let mut schedule = Schedule::new(&records, batch_size);
        let mut batches = Vec::new();
        while let Some(batch) = schedule.next() {
            batches.push(batch.iter().map(|i| records[*i].id.clone()).collect::<Vec<_>>());
            for index in batch {
                let failed = bad.contains(&records[index].id.as_str());
                schedule
                    .done(index, if failed { Err(Error::invalid("bad")) } else { Ok(Outcome::default()) });
            }
        }
        let failed = records.iter().zip(schedule.results()).filter(|(_, result)| result.is_err());
        (batches, failed.map(|(record, _)| record.id.clone()).collect())
    }

    #[test]
    fn a_standard_queue_goes_in_batches_and_fails_one_by_one() {
        let (batches, failed) = play(&["-0", "-1", "-2", "-3", "-4"], 2, &["-1"]);
        assert_eq!(batches, [vec!["-0", "-1"], vec!["-2", "-3"], vec!["-4"]]);
        assert_eq!(failed, ["-1"]);
    }

    #[test]
    fn a_group_stops_at_its_first_failure_and_others_go_on() {
        let (batches, failed) = play(&["a0", "a1", "b0", "a2", "b1"], 16, &["a1"]);
        assert_eq!(batches, [vec!["a0", "b0"], vec!["a1", "b1"]]);
        assert_eq!(failed, ["a1", "a2"]);
    }

    #[test]
    fn order_within_a_group_holds_for_any_batch_size() {
        for batch_size in 0..4 {
            let (batches, failed) = play(&["a0", "b0", "a1", "b1", "a2"], batch_size, &["b0"]);
            let order: Vec<_> = batches.concat().into_iter().filter(|name| name.starts_with('a')).collect();
            assert_eq!(order, ["a0", "a1", "a2"], "batch size {batch_size}");
            assert_eq!(failed, ["b0", "b1"], "batch size {batch_size}");
        }
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(play(&[], 4, &[]), (vec![], vec![]));
    }
}
