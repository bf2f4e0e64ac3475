//! A folder on a disk that has a cache: what is written is there, what is synced stays.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use super::world::{Random, Step, World};
use crate::log::{LogFile, LogFolder};

#[derive(Clone, Default)]
struct Inode {
    cached: Vec<u8>,
    synced: Vec<u8>,
    /// What a sync that failed has dropped although it can still be read.
    dropped: Option<Range<usize>>,
}

#[derive(Clone)]
enum NameChange {
    Added(String, usize),
    Removed(String),
}

/// Files and the names they have.
#[derive(Default)]
pub(super) struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// Changes of names since the folder was synced.
    changes: Vec<NameChange>,
}

impl Disk {
    fn inode(&mut self, name: &str) -> io::Result<usize> {
        let found = self.names.get(name).copied();
        found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn create(&mut self, name: &str) -> usize {
        if let Some(&inode) = self.names.get(name) {
            self.truncate(inode, 0);
            return inode;
        }
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.names.insert(name.to_string(), inode);
        let change = NameChange::Added(name.to_string(), inode);
        self.changes.push(change);
        inode
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.inode(name)?;
        self.names.remove(name);
        self.changes.push(NameChange::Removed(name.to_string()));
        Ok(())
    }

    fn sync_names(&mut self) {
        self.synced_names = self.names.clone();
        self.changes.clear();
    }

    fn truncate(&mut self, inode: usize, bytes: usize) {
        let inode = &mut self.inodes[inode];
        inode.cached.truncate(bytes);
        let dropped = inode.dropped.take();
        let kept = dropped.map(|range| range.start.min(bytes)..range.end.min(bytes));
        inode.dropped = kept.filter(|range| !range.is_empty());
    }

    fn sync(&mut self, inode: usize) {
        let inode = &mut self.inodes[inode];
        inode.synced = inode.cached.clone();
        if let Some(range) = inode.dropped.clone() {
            inode.synced[range].fill(0);
        }
    }

    fn fail_sync(&mut self, inode: usize) {
        let inode = &mut self.inodes[inode];
        let start = inode.synced.len().min(inode.cached.len());
        inode.dropped = Some(start..inode.cached.len()).filter(|range| !range.is_empty());
    }

    /// Keeps what was synced, and anything or nothing of the rest.
    pub(super) fn lose_power(&mut self, random: &mut Random) {
        let mut names = std::mem::take(&mut self.synced_names);
        for change in std::mem::take(&mut self.changes) {
            if random.flip() {
                match change {
                    NameChange::Added(name, inode) => drop(names.insert(name, inode)),
                    NameChange::Removed(name) => drop(names.remove(&name)),
                }
            }
        }
        self.names = names.clone();
        self.synced_names = names;
        for inode in &mut self.inodes {
            let kept = inode.after_power_loss(random);
            *inode = Inode {
                cached: kept.clone(),
                synced: kept,
                dropped: None,
            };
        }
    }
}

impl Inode {
    fn after_power_loss(&self, random: &mut Random) -> Vec<u8> {
        if !self.cached.starts_with(&self.synced) {
            // It was cut: either state, and of what came after the cut only what was synced.
            let same = self.cached.iter().zip(&self.synced);
            let same = same.take_while(|(a, b)| a == b).count();
            return match random.flip() {
                true => self.synced.clone(),
                false => self.cached[..same].to_vec(),
            };
        }
        let tail = self.cached.len() - self.synced.len();
        let mut kept = self.synced.clone();
        let written = random.below(tail as u64 + 1) as usize;
        kept.extend(&self.cached[kept.len()..kept.len() + written]);
        if let Some(range) = self.dropped.clone() {
            let length = kept.len();
            kept[range.start.min(length)..range.end.min(length)].fill(0);
        }
        match random.below(3) {
            // The length was written, the content not.
            0 => kept.resize(self.cached.len(), 0),
            // Pages were written in another order.
            1 if written > 1 => {
                let from = self.synced.len();
                let to = from + random.below(written as u64) as usize;
                kept[from..to].fill(0);
            }
            _ => {}
        }
        kept
    }
}

/// A folder in a [`World`].
pub struct SimFolder(World);

impl SimFolder {
    pub fn new(world: &World) -> SimFolder {
        SimFolder(world.clone())
    }
}

/// Runs one step: `works` if nothing is wrong, `half` if it fails in the middle.
fn step<T>(
    world: &World,
    works: impl FnOnce(&mut Disk) -> io::Result<T>,
    half: impl FnOnce(&mut Disk, &mut Random),
) -> io::Result<T> {
    let state = &mut *world.lock();
    match state.step()? {
        Step::Works => works(&mut state.disk),
        failed => {
            half(&mut state.disk, &mut state.random);
            Err(state.error(failed))
        }
    }
}

impl LogFolder for SimFolder {
    fn name(&self) -> String {
        "sim".into()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        step(
            &self.0,
            |disk| Ok(disk.names.keys().cloned().collect()),
            |_, _| {},
        )
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let read = |disk: &mut Disk| {
            let inode = disk.inode(name)?;
            Ok(disk.inodes[inode].cached.clone())
        };
        step(&self.0, read, |_, _| {})
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let half = |disk: &mut Disk, random: &mut Random| {
            if random.flip() {
                disk.create(name);
            }
        };
        let inode = step(&self.0, |disk| Ok(disk.create(name)), half)?;
        Ok(Box::new(SimFile {
            world: self.0.clone(),
            inode,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let inode = step(&self.0, |disk| disk.inode(name), |_, _| {})?;
        Ok(Box::new(SimFile {
            world: self.0.clone(),
            inode,
        }))
    }

    fn rewrite(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let works = |disk: &mut Disk| {
            let inode = disk.inode(name)?;
            disk.inodes[inode].cached[..bytes.len()].copy_from_slice(bytes);
            disk.inodes[inode].dropped = None;
            disk.sync(inode);
            Ok(())
        };
        let half = |disk: &mut Disk, _: &mut Random| {
            if let Ok(inode) = disk.inode(name) {
                disk.fail_sync(inode);
            }
        };
        step(&self.0, works, half)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let half = |disk: &mut Disk, random: &mut Random| {
            if random.flip() {
                let _ = disk.remove(name);
            }
        };
        step(&self.0, |disk| disk.remove(name), half)
    }

    fn sync(&self) -> io::Result<()> {
        let works = |disk: &mut Disk| {
            disk.sync_names();
            Ok(())
        };
        step(&self.0, works, |_, _| {})
    }
}

struct SimFile {
    world: World,
    inode: usize,
}

impl LogFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let works = |disk: &mut Disk| {
            disk.inodes[self.inode].cached.extend(bytes);
            Ok(())
        };
        let half = |disk: &mut Disk, random: &mut Random| {
            let written = random.below(bytes.len() as u64 + 1) as usize;
            disk.inodes[self.inode].cached.extend(&bytes[..written]);
        };
        step(&self.world, works, half)
    }

    fn sync(&mut self) -> io::Result<()> {
        let works = |disk: &mut Disk| {
            disk.sync(self.inode);
            Ok(())
        };
        let half = |disk: &mut Disk, _: &mut Random| disk.fail_sync(self.inode);
        step(&self.world, works, half)
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let works = |disk: &mut Disk| {
            disk.truncate(self.inode, bytes);
            Ok(())
        };
        step(&self.world, works, |_, _| {})
    }
}
