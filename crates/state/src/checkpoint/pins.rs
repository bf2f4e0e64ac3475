//! Which files are being read, and which may go.

use std::collections::{BTreeSet, HashMap};

/// Files by name.
#[derive(Default)]
pub(super) struct Pins {
    /// How many readers a file has.
    readers: HashMap<String, usize>,
    /// Files that no manifest names any more.
    garbage: BTreeSet<String>,
}

impl Pins {
    pub(super) fn pin<'a>(&mut self, files: impl Iterator<Item = &'a str>) {
        for file in files {
            *self.readers.entry(file.to_string()).or_default() += 1;
        }
    }

    pub(super) fn unpin<'a>(&mut self, files: impl Iterator<Item = &'a str>) {
        for file in files {
            if let Some(count) = self.readers.get_mut(file) {
                *count -= 1;
                if *count == 0 {
                    self.readers.remove(file);
                }
            }
        }
    }

    /// Lets files go once nobody reads them.
    pub(super) fn discard(&mut self, files: impl IntoIterator<Item = String>) {
        self.garbage.extend(files);
    }

    /// Garbage that nobody reads.
    pub(super) fn collectable(&self) -> Vec<String> {
        let garbage = self.garbage.iter();
        let free = garbage.filter(|file| !self.readers.contains_key(*file));
        free.cloned().collect()
    }

    pub(super) fn collected(&mut self, file: &str) {
        self.garbage.remove(file);
    }
}
