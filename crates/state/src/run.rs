//! Run files: sorted updates of one collection as a plain Arrow IPC file.
//!
//! ```text
//!   "ARROW1" schema | batch | batch | … | footer     the footer's metadata has a checksum of
//!   └──── head ────┘ block 0  block 1                 each part; the manifest has the footer's
//! ```
//!
//! So every byte that is used is checked before it is, and a reader needs one block in memory.

use std::collections::VecDeque;
use std::ops::Range;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_ipc::{Block, CompressionType, root_as_footer};
use arrow_schema::{ArrowError, SchemaRef};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::order::unexpected;
use crate::store::{Store, Upload};

/// Names the checksums in the footer's metadata: CRC32C in hexadecimal, head first.
const CHECKSUMS: &str = "ruslo.crc32c";
/// A run whose first batch has fewer bytes is not worth the effort of compressing.
const COMPRESSED_BYTES_MIN: usize = 8 << 10;

/// A run as the manifest knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    /// The last so many bytes, with everything behind the last batch.
    pub(crate) footer_bytes: u64,
    pub(crate) footer_crc32c: u32,
}

/// Writes a run; nothing is there before it is finished.
pub(crate) struct RunWriter {
    file: String,
    encoder: FileWriter<Vec<u8>>,
    upload: Upload,
    checksums: Vec<String>,
    bytes: u64,
    rows: u64,
}

impl RunWriter {
    /// Starts a run whose first batch will be `first`, which is still to be written.
    pub(crate) fn new(
        store: &Store,
        file: String,
        schema: &SchemaRef,
        first: &RecordBatch,
    ) -> Result<RunWriter> {
        let compression = match first.get_array_memory_size() < COMPRESSED_BYTES_MIN {
            true => None,
            false => Some(CompressionType::LZ4_FRAME),
        };
        let options = IpcWriteOptions::default().try_with_compression(compression);
        let options = options.map_err(unexpected)?;
        let encoder = FileWriter::try_new_with_options(vec![], schema, options);
        Ok(RunWriter {
            upload: store.upload(file.clone()),
            file,
            encoder: encoder.map_err(unexpected)?,
            checksums: vec![],
            bytes: 0,
            rows: 0,
        })
    }

    pub(crate) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.checksums.is_empty() {
            self.drain().await?;
        }
        self.encoder.write(batch).map_err(unexpected)?;
        self.rows += batch.num_rows() as u64;
        self.drain().await
    }

    async fn drain(&mut self) -> Result<()> {
        let part = std::mem::take(self.encoder.get_mut());
        self.checksums
            .push(format!("{:08x}", crc32c::crc32c(&part)));
        self.bytes += part.len() as u64;
        self.upload.write(&part).await
    }

    /// The run and what is still to be finished before it is there.
    pub(crate) async fn finish(mut self) -> Result<(Run, Upload)> {
        if self.checksums.is_empty() {
            self.drain().await?;
        }
        let checksums = self.checksums.join(",");
        self.encoder.write_metadata(CHECKSUMS, checksums);
        self.encoder.finish().map_err(unexpected)?;
        let footer = std::mem::take(self.encoder.get_mut());
        self.upload.write(&footer).await?;
        let run = Run {
            file: self.file,
            bytes: self.bytes + footer.len() as u64,
            rows: self.rows,
            footer_bytes: footer.len() as u64,
            footer_crc32c: crc32c::crc32c(&footer),
        };
        Ok((run, self.upload))
    }

    /// Gives the file up.
    pub(crate) async fn abort(self) {
        self.upload.abort().await;
    }
}

/// A part of the file and its checksum.
struct Part {
    range: Range<u64>,
    checksum: u32,
    /// None for the head.
    block: Option<Block>,
}

/// Reads a run block by block, each byte checked.
pub(crate) struct RunReader {
    store: Store,
    run: Run,
    decoder: FileDecoder,
    head: Part,
    blocks: VecDeque<Part>,
    /// Blocks that one request has brought, and where they began.
    fetched: Bytes,
    fetched_at: u64,
    /// How many bytes one request brings, if a block is no larger.
    read_bytes: u64,
}

impl RunReader {
    /// Reads the footer. A file that is not what was written is an error that names it.
    pub(crate) async fn open(
        store: &Store,
        run: &Run,
        schema: &SchemaRef,
        read_bytes: u64,
    ) -> Result<RunReader> {
        let corrupt = |what: &str| corrupt(store, run, what);
        let start = run.bytes.checked_sub(run.footer_bytes);
        let start = start.ok_or_else(|| corrupt("its footer is larger than it"))?;
        let footer = store.get_range(&run.file, run.bytes, start..run.bytes);
        let footer = footer.await?;
        if crc32c::crc32c(&footer) != run.footer_crc32c {
            return Err(corrupt("its footer has another checksum"));
        }
        let (head, blocks, decoder) = parse_footer(&footer, start, schema)
            .map_err(|error| corrupt(&format!("its footer is broken: {error}")))?;
        Ok(RunReader {
            store: store.clone(),
            run: run.clone(),
            decoder,
            head,
            blocks,
            fetched: Bytes::new(),
            fetched_at: 0,
            read_bytes,
        })
    }

    /// The next batch; None at the end. After an error it can be asked again for the same one.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(part) = self.blocks.pop_front() else {
            return Ok(None);
        };
        let bytes = match self.fetch(&part).await {
            Ok(bytes) => bytes,
            Err(error) => {
                self.blocks.push_front(part);
                return Err(error);
            }
        };
        let Some(block) = part.block else {
            return Ok(None);
        };
        let batch = self.decoder.read_record_batch(&block, &Buffer::from(bytes));
        let failed = |error: ArrowError| self.corrupt(&format!("a batch is broken: {error}"));
        let batch = batch.map_err(failed)?;
        batch
            .map(Some)
            .ok_or_else(|| self.corrupt("a block holds no batch"))
    }

    /// Checks every byte without decoding any.
    pub(crate) async fn verify(mut self) -> Result<()> {
        let range = self.head.range.clone();
        let head = self.store.get_range(&self.run.file, self.run.bytes, range);
        if crc32c::crc32c(&head.await?) != self.head.checksum {
            return Err(self.corrupt("its head has another checksum"));
        }
        while let Some(part) = self.blocks.pop_front() {
            self.fetch(&part).await?;
        }
        Ok(())
    }

    async fn fetch(&mut self, part: &Part) -> Result<Bytes> {
        let Range { start, end } = part.range;
        if self.fetched_at > start || self.fetched_at + (self.fetched.len() as u64) < end {
            let ends = self.blocks.iter().map(|next| next.range.end);
            let within = ends.take_while(|end| end - start <= self.read_bytes);
            let until = within.last().unwrap_or(end);
            let bytes = self
                .store
                .get_range(&self.run.file, self.run.bytes, start..until);
            self.fetched = bytes.await?;
            self.fetched_at = start;
        }
        let at = (start - self.fetched_at) as usize;
        let bytes = self.fetched.slice(at..at + (end - start) as usize);
        match crc32c::crc32c(&bytes) == part.checksum {
            true => Ok(bytes),
            false => {
                let what = format!("bytes {start} to {end} have another checksum");
                Err(self.corrupt(&what))
            }
        }
    }

    fn corrupt(&self, what: &str) -> Error {
        corrupt(&self.store, &self.run, what)
    }
}

fn corrupt(store: &Store, run: &Run, what: &str) -> Error {
    Error::Corrupt(format!("{}: {what}", store.locate(&run.file)))
}

/// Finds the parts of the file before `footer`, which begins at `footer_start`.
fn parse_footer(
    footer: &[u8],
    footer_start: u64,
    schema: &SchemaRef,
) -> Result<(Part, VecDeque<Part>, FileDecoder), String> {
    let (rest, tail) = footer.split_last_chunk::<10>().ok_or("it is too short")?;
    let length = read_footer_length(*tail).map_err(|error| error.to_string())?;
    let start = rest.len().checked_sub(length).ok_or("it is too long")?;
    let aligned = rest[start..].to_vec();
    let footer = root_as_footer(&aligned).map_err(|error| error.to_string())?;
    let found = footer.schema().map(fb_to_schema);
    if found.as_ref() != Some(schema.as_ref()) {
        return Err("it has another schema than its collection".into());
    }
    let metadata = footer.custom_metadata().unwrap_or_default();
    let checksums = metadata.iter().find(|pair| pair.key() == Some(CHECKSUMS));
    let checksums = checksums.and_then(|pair| pair.value()).unwrap_or_default();
    let checksums = checksums.split(',').map(|c| u32::from_str_radix(c, 16));
    let checksums: Vec<u32> = checksums
        .collect::<Result<_, _>>()
        .map_err(|_| "it has no checksums")?;
    let blocks = footer.recordBatches().unwrap_or_default();
    if checksums.len() != blocks.len() + 1 {
        return Err("it has another number of checksums".into());
    }
    let mut parts = VecDeque::new();
    for (block, checksum) in blocks.iter().zip(&checksums[1..]) {
        let range = block_range(block).filter(|range| range.end <= footer_start);
        parts.push_back(Part {
            range: range.ok_or("a block lies outside of the file")?,
            checksum: *checksum,
            block: Some(*block),
        });
    }
    let head = Part {
        range: 0..parts.front().map_or(footer_start, |part| part.range.start),
        checksum: checksums[0],
        block: None,
    };
    let decoder = FileDecoder::new(schema.clone(), footer.version());
    Ok((head, parts, decoder))
}

fn block_range(block: &Block) -> Option<Range<u64>> {
    let start = u64::try_from(block.offset()).ok()?;
    let head = u64::try_from(block.metaDataLength()).ok()?;
    let body = u64::try_from(block.bodyLength()).ok()?;
    Some(start..start.checked_add(head)?.checked_add(body)?)
}
