//! What a local log asks of a folder, so that a simulation can stand in for the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A flat folder of files. All calls block.
pub trait LogFolder: Send + Sync {
    /// The folder as a user knows it.
    fn name(&self) -> String;
    fn list(&self) -> io::Result<Vec<String>>;
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Creates a file, or empties one that is there.
    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Opens a file that is there, to append to it.
    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Writes the bytes that a file begins with once more, and makes them durable.
    fn rewrite(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes created and removed names durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file that grows at its end. All calls block.
pub trait LogFile: Send {
    /// Writes at the end; after an error a part may be written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file; the next append goes there.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
}

/// A folder on disk.
#[derive(Debug)]
pub struct DiskFolder(PathBuf);

impl DiskFolder {
    /// Takes a folder, which is created if it is not there.
    pub fn new(path: &Path) -> io::Result<DiskFolder> {
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
            if let Some(parent) = path.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(DiskFolder(path.to_path_buf()))
    }
}

impl LogFolder for DiskFolder {
    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = vec![];
        for entry in std::fs::read_dir(&self.0)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.0.join(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let mut options = OpenOptions::new();
        // Append mode keeps the end right when the file is cut.
        let file = options.append(true).create(true).open(self.0.join(name))?;
        file.set_len(0)?;
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let file = OpenOptions::new().append(true).open(self.0.join(name))?;
        Ok(Box::new(file))
    }

    fn rewrite(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.0.join(name))?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}
