//! What was promised so far, and whether it is kept.
//!
//! ```text
//!   table a:   version 0 ── 1 ── 2 ── 3          a read sees one of seen ..= begun, and at
//!                   seen ^    ^ acknowledged     least what was acknowledged when it began
//!                                  ^ begun
//!   source s:  how far each partition is read, as the view `progress` tells; never back
//! ```
//!
//! Subscriptions tell the same, and what one has told every later read must have.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Message, Seen, Table, VIEWS, expected, groups};
use crate::outlet::SimOutlet;

/// Whether an object is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Present,
    /// A statement about it is under way, or was cut off.
    Unsure,
}

/// What was so when a read began.
pub(crate) struct Begun {
    acknowledged: usize,
    /// What sinks show then, reads must show, too.
    outlet: BTreeMap<String, String>,
    /// So must they what subscriptions have told.
    told: Told,
}

/// What subscriptions have told: messages read of each partition, and a version of `a`.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    read: Vec<usize>,
    version: usize,
}

pub(crate) struct Checks {
    topic: Vec<Vec<Message>>,
    read: Vec<usize>,
    versions: Vec<Table>,
    acknowledged: usize,
    seen: usize,
    told: Told,
    objects: BTreeMap<String, Presence>,
    sinks: u64,
    /// Messages that are no JSON.
    spoilt: usize,
    /// Values that a row of `a` was ever given.
    given: BTreeMap<i64, BTreeSet<i64>>,
    /// By key of a sink: the count that it showed last.
    shown: BTreeMap<String, i64>,
}

impl Checks {
    pub(crate) fn new(partitions: usize) -> Checks {
        Checks {
            topic: vec![vec![]; partitions],
            read: vec![0; partitions],
            versions: vec![Table::new()],
            acknowledged: 0,
            seen: 0,
            told: Told {
                read: vec![0; partitions],
                version: 0,
            },
            objects: BTreeMap::new(),
            sinks: 0,
            spoilt: 0,
            given: BTreeMap::new(),
            shown: BTreeMap::new(),
        }
    }

    /// The partition that the message belongs to: all of one key are in one, so in one order.
    pub(crate) fn produced(&mut self, message: Message) -> usize {
        let partition = message.k as usize % self.topic.len();
        self.topic[partition].push(message);
        partition
    }

    pub(crate) fn spoilt(&mut self) {
        self.spoilt += 1;
    }

    pub(crate) fn table(&self) -> Table {
        self.versions.last().cloned().unwrap_or_default()
    }

    pub(crate) fn begin_write(&mut self, table: Table) {
        for (id, w) in &table {
            self.given.entry(*id).or_default().insert(*w);
        }
        self.versions.push(table);
    }

    pub(crate) fn acknowledge(&mut self) {
        self.acknowledged = self.versions.len() - 1;
    }

    pub(crate) fn begin_read(&self, outlet: &SimOutlet) -> Begun {
        Begun {
            acknowledged: self.acknowledged,
            outlet: outlet.values(),
            told: self.told.clone(),
        }
    }

    /// Subscriptions begin: what was seen or acknowledged, they must tell.
    pub(crate) fn begin_following(&mut self) {
        self.told.version = self.told.version.max(self.acknowledged).max(self.seen);
        for (told, read) in self.told.read.iter_mut().zip(&self.read) {
            *told = (*told).max(*read);
        }
    }

    /// Holds what a subscription tells of `progress` or `a` against what must be there.
    pub(crate) fn told(&mut self, name: &str, rows: &[String]) -> Result<(), String> {
        if name == "progress" {
            self.told.read = self.positions(rows, &self.told.read)?;
            return Ok(());
        }
        let told = self.told.version;
        let Some(version) = self.find_version(told, rows) else {
            return Err(format!(
                "a subscription to a tells {rows:?}, but must one of {:?}",
                &self.versions[told..]
            ));
        };
        self.told.version = version;
        Ok(())
    }

    /// The first version of `a` that has these rows.
    fn find_version(&self, first: usize, rows: &[String]) -> Option<usize> {
        let same = |version: &usize| {
            expected("a", &self.topic, &self.read, &self.versions[*version]) == rows
        };
        (first..self.versions.len()).find(same)
    }

    /// Holds a read against what must be there.
    pub(crate) fn read(&mut self, begun: &Begun, seen: &Seen) -> Result<(), String> {
        self.positions(&seen["progress"], &begun.told.read)?;
        self.read = self.positions(&seen["progress"], &self.read)?;
        let first = begun.acknowledged.max(self.seen).max(begun.told.version);
        let Some(version) = self.find_version(first, &seen["a"]) else {
            let must: Vec<&Table> = self.versions[first..].iter().collect();
            return Err(format!(
                "a has {:?} but must have one of {must:?}",
                seen["a"]
            ));
        };
        self.seen = version;
        for (name, rows) in seen {
            let must = expected(name, &self.topic, &self.read, &self.versions[version]);
            if must != *rows {
                return Err(format!(
                    "{name} has {rows:?} but must have {must:?}; read up to {:?}, a is {:?}",
                    self.read, self.versions[version]
                ));
            }
        }
        self.not_behind_sinks(begun)
    }

    /// How far each partition is read, which must not be behind `before`.
    fn positions(&self, rows: &[String], before: &[usize]) -> Result<Vec<usize>, String> {
        let mut read = vec![0; self.topic.len()];
        for row in rows {
            let mut texts = row.split('|').map(|text| text.parse::<usize>());
            let (Some(Ok(p)), Some(Ok(n))) = (texts.next(), texts.next()) else {
                return Err(format!("progress has a row {row}"));
            };
            read[p] = n;
        }
        for (p, (now, before)) in read.iter().zip(before).enumerate() {
            if now < before {
                return Err(format!(
                    "partition {p} was read up to {before}, now only {now}"
                ));
            }
            if *now > self.topic[p].len() {
                return Err(format!("partition {p} has {now} messages read of fewer"));
            }
        }
        Ok(read)
    }

    fn read_messages(&self) -> Vec<Message> {
        let parts = self.topic.iter().zip(&self.read);
        parts
            .flat_map(|(part, read)| part[..*read].iter().copied())
            .collect()
    }

    fn not_behind_sinks(&self, begun: &Begun) -> Result<(), String> {
        let groups = groups(&self.read_messages());
        for (key, value) in &begun.outlet {
            let (Some(k), Some((count, _))) = (key_of(key, "groups"), value.split_once('/')) else {
                continue;
            };
            let seen = groups.get(&k).map_or(0, |(count, _)| *count);
            if count.parse::<i64>().is_ok_and(|count| count > seen) {
                return Err(format!(
                    "{key} was {value} before a read that saw {seen} messages"
                ));
            }
        }
        Ok(())
    }

    /// After a restart and a read: what was cut off has happened, or never will.
    pub(crate) fn settle(&mut self) {
        self.versions = vec![self.versions[self.seen].clone()];
        (self.seen, self.acknowledged, self.told.version) = (0, 0, 0);
    }

    /// Holds what sinks have written since the last call against what views ever had.
    pub(crate) fn sinks(&mut self, outlet: &SimOutlet) -> Result<(), String> {
        for (key, value) in outlet.take_applied() {
            if let Some(k) = key_of(&key, "groups") {
                self.group_shown(&key, k, value)?;
            } else if let (Some(id), Some(value)) = (key_of(&key, "a"), value) {
                let known = value
                    .parse()
                    .is_ok_and(|w| self.given.get(&id).is_some_and(|g| g.contains(&w)));
                if !known {
                    return Err(format!("{key} was {value}, which was never written"));
                }
            }
        }
        Ok(())
    }

    fn group_shown(&mut self, key: &str, k: i64, value: Option<String>) -> Result<(), String> {
        let Some(value) = value else {
            return Err(format!("{key} was deleted, but groups never go"));
        };
        let all = self.topic.iter().flatten().filter(|message| message.k == k);
        let (mut count, mut sum, mut found) = (0, 0, None);
        for message in all {
            (count, sum) = (count + 1, sum + message.v);
            if format!("{count}/{sum}") == value {
                found = Some(count);
            }
        }
        let Some(count) = found else {
            return Err(format!("{key} was {value}, which the view never had"));
        };
        let before = self.shown.insert(key.to_string(), count).unwrap_or(0);
        match count < before {
            true => Err(format!("{key} was {value} after it had counted {before}")),
            false => Ok(()),
        }
    }

    /// What has yet to come before the history is at its end.
    pub(crate) fn missing(&self, outlet: &SimOutlet, undecoded: usize) -> Option<String> {
        let lengths: Vec<usize> = self.topic.iter().map(Vec::len).collect();
        if lengths != self.read {
            return Some(format!("read {:?} of {lengths:?} messages", self.read));
        }
        let told = (&self.told.read, &self.versions[self.told.version]);
        if told != (&lengths, &self.table()) {
            return Some(format!("subscriptions tell {told:?}"));
        }
        if undecoded != self.spoilt {
            return Some(format!(
                "{undecoded} decode errors, but must be {}",
                self.spoilt
            ));
        }
        let values = outlet.values();
        for (sink, _) in self
            .objects
            .iter()
            .filter(|(name, _)| name.starts_with("sink"))
        {
            let prefix = format!("{sink}:");
            let mine = values.iter().filter(|(key, _)| key.starts_with(&prefix));
            let mine: BTreeMap<String, String> =
                mine.map(|(k, v)| (k.clone(), v.clone())).collect();
            let must: BTreeMap<String, String> = match sink.ends_with("groups") {
                true => {
                    let groups = groups(&self.read_messages()).into_iter();
                    groups
                        .map(|(k, (n, t))| (format!("{prefix}{k}"), format!("{n}/{t}")))
                        .collect()
                }
                false => {
                    let rows = self.table().into_iter();
                    rows.map(|(id, w)| (format!("{prefix}{id}"), w.to_string()))
                        .collect()
                }
            };
            if mine != must {
                return Some(format!("{sink} has {mine:?} but must have {must:?}"));
            }
        }
        None
    }

    /// The first sink that is there.
    pub(crate) fn a_sink(&self) -> Option<String> {
        let mut there = self
            .objects
            .iter()
            .filter(|(_, p)| **p == Presence::Present);
        let sink = there.find(|(name, _)| name.starts_with("sink"));
        sink.map(|(name, _)| name.clone())
    }

    pub(crate) fn readable(&self) -> Vec<&'static str> {
        let views = VIEWS.iter().map(|view| view.name);
        let there = views.filter(|name| self.objects.get(*name) == Some(&Presence::Present));
        ["progress", "a"].into_iter().chain(there).collect()
    }

    pub(crate) fn unsure(&self) -> Vec<String> {
        let unsure = self.objects.iter().filter(|(_, p)| **p == Presence::Unsure);
        unsure.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn may_create(&self, name: &str, needs: &[&str]) -> bool {
        let is_there = |name: &str| self.objects.get(name) == Some(&Presence::Present);
        !self.objects.contains_key(name) && needs.iter().all(|name| is_there(name))
    }

    /// Views that are there and that nothing else reads.
    pub(crate) fn droppable(&self) -> Vec<&'static str> {
        let read = self
            .objects
            .keys()
            .any(|n| n == "upon" || n.ends_with("_groups"));
        let views = VIEWS.iter().map(|view| view.name);
        let there = views.filter(|name| self.objects.get(*name) == Some(&Presence::Present));
        there.filter(|name| *name != "groups" || !read).collect()
    }

    /// A name for a sink from `from`, with that in its end; each has keys of its own.
    pub(crate) fn new_sink(&mut self, from: &str) -> Option<String> {
        if from != "a" && self.objects.get(from) != Some(&Presence::Present) {
            return None;
        }
        self.sinks += 1;
        let name = format!("sink{}_{from}", self.sinks);
        self.set(&name, Presence::Unsure);
        Some(name)
    }

    pub(crate) fn set(&mut self, name: &str, presence: Presence) {
        self.objects.insert(name.to_string(), presence);
    }

    pub(crate) fn gone(&mut self, name: &str) {
        self.objects.remove(name);
        if name == "groups" {
            // By CASCADE.
            self.objects
                .retain(|n, _| n != "upon" && !n.ends_with("_groups"));
        }
    }
}

/// The key of a row that a sink of `from` has printed as `key`.
fn key_of(key: &str, from: &str) -> Option<i64> {
    let (sink, row) = key.split_once(':')?;
    sink.ends_with(&format!("_{from}"))
        .then(|| row.parse().ok())?
}
