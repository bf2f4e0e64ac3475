//! `ruslo backup` and `ruslo restore`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use ruslo_engine::Backup;
use ruslo_repr::text::write_timestamp;

use super::settings::PlaceArgs;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The server may be running: what was acknowledged before the backup began is in it.

Examples:
  ruslo backup --data-dir ruslo-data --to /backups/monday
  ruslo backup --store s3://bucket/ruslo --to s3://backups/monday")]
pub(super) struct BackupArgs {
    #[command(flatten)]
    place: PlaceArgs,

    /// Where the backup goes: an empty or new folder, or s3://BUCKET/PREFIX
    #[arg(long, value_name = "TARGET")]
    to: String,

    /// Put the key that opens stored passwords into the backup, too; only into a folder
    #[arg(long)]
    with_key: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ruslo restore --from /backups/monday --data-dir ruslo-data
  ruslo restore --from s3://backups/monday --store s3://bucket/ruslo-2 --key-file secret.key")]
pub(super) struct RestoreArgs {
    /// The backup: a folder, or s3://BUCKET/PREFIX
    #[arg(long, value_name = "BACKUP")]
    from: String,

    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) async fn backup(args: BackupArgs) -> Result<()> {
    let (url, key_file) = args.place.place()?;
    let key = args.with_key.then_some(key_file.as_path());
    let done = ruslo_engine::backup(&url, &args.to, key).await?;
    println!(
        "{}",
        described(&format!("backed up {url} to {}", args.to), &done)
    );
    match done.key {
        Some(path) => println!(
            "The key is in the backup, as {}: whoever has it can read stored passwords.",
            path.display()
        ),
        None => println!(
            "The key file {} is not in the backup. Keep a copy of it in another place:\n\
             without it stored passwords cannot be read, and a server that has some does not start.",
            key_file.display()
        ),
    }
    Ok(())
}

pub(super) async fn restore(args: RestoreArgs) -> Result<()> {
    let (url, key_file) = args.place.place()?;
    let done = ruslo_engine::restore(&args.from, &url, &key_file).await?;
    println!(
        "{}",
        described(&format!("restored {url} from {}", args.from), &done)
    );
    println!("{}", about_key(&done, key_file));
    Ok(())
}

fn about_key(done: &Backup, key_file: PathBuf) -> String {
    let name = key_file.display();
    match &done.key {
        Some(_) => format!("The key was in the backup and is now in {name}."),
        None if key_file.exists() => format!("The key in {name} stays; the backup had none."),
        None => format!(
            "The backup has no key. Put the old server's key file at {name} before you start a \
             server:\nwithout it stored passwords cannot be read."
        ),
    }
}

fn described(what: &str, done: &Backup) -> String {
    let copied = &done.copied;
    let mut text = format!("{what}: everything up to ");
    let micros = i64::try_from(copied.last).unwrap_or(i64::MAX);
    write_timestamp(micros.saturating_mul(1000), &mut text);
    let _ = write!(
        text,
        " UTC\nfiles: {} with {:.1} MB; times after them, from the log: {}",
        copied.runs,
        copied.bytes as f64 / 1e6,
        copied.records
    );
    text
}
