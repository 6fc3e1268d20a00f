//! Records as JSON lines in a file. A batch is on the disk before it counts. Whoever rotates the
//! file may rename it, or send SIGHUP: the next batch goes into a new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;
use govern::audit::Record;
use govern::audit::export::write_json_line;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failed;

/// Read at a time when the end of the last whole line is looked for.
const STEP: u64 = 64 << 10;

/// A file.
pub(super) struct Lines {
    path: PathBuf,
    file: Option<File>,
    hangup: Signal,
}

impl Lines {
    /// It opens the file when it first writes.
    pub(super) fn new(path: PathBuf) -> Result<Self, String> {
        let hangup = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
        Ok(Self { path, file: None, hangup })
    }

    pub(super) async fn send(&mut self, records: &[Record]) -> Result<(), Failed> {
        if self.hangup.recv().now_or_never().is_some() {
            self.file = None;
        }
        let mut lines = Vec::new();
        for record in records {
            // Memory takes everything.
            let _ = write_json_line(&mut lines, record);
        }
        let (path, file) = (self.path.clone(), self.file.take());
        let written = tokio::task::spawn_blocking(move || append(&path, file, &lines)).await;
        let failed = |error: io::Error| Failed::new(error.to_string());
        let file = written.map_err(|error| failed(error.into()))?.map_err(failed)?;
        self.file = Some(file);
        Ok(())
    }
}

/// Appends lines and waits for the disk. After an error the file has to be opened again.
fn append(path: &Path, file: Option<File>, lines: &[u8]) -> io::Result<File> {
    let file = file.filter(|file| is_at(file, path));
    let mut file = match file {
        Some(file) => file,
        None => open(path)?,
    };
    file.write_all(lines)?;
    file.sync_data()?;
    Ok(file)
}

/// Whether a path still leads to a file.
fn is_at(file: &File, path: &Path) -> bool {
    let of = |found: io::Result<std::fs::Metadata>| found.map(|m| (m.dev(), m.ino())).ok();
    let ours = of(file.metadata());
    ours.is_some() && ours == of(std::fs::metadata(path))
}

/// Opens a file for lines. What follows its last line is half of a line that a killed process
/// wrote, or a full disk took: it goes, and comes again as a whole.
fn open(path: &Path) -> io::Result<File> {
    let new = !path.exists();
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    let whole = whole_lines(&mut file, length)?;
    if whole < length {
        tracing::warn!(path = %path.display(), bytes = length - whole, "half a line was removed");
        file.set_len(whole)?;
    }
    if new && let Some(folder) = path.parent() {
        // A new file's name is on the disk only when its folder is.
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

/// Length of a file up to the end of its last whole line.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut piece = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.take(end - start).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_goes() {
        let path = std::env::temp_dir().join(format!("hearth-lines-{}", std::process::id()));
        let long = "x".repeat(100_000);
        for (found, expect) in [
            ("", "new\n".to_owned()),
            ("{\"a\":1}\n", "{\"a\":1}\nnew\n".to_owned()),
            ("{\"a\":1}\n{\"b\":", "{\"a\":1}\nnew\n".to_owned()),
            ("{\"b\":", "new\n".to_owned()),
            (&format!("a\n{long}"), "a\nnew\n".to_owned()),
            (&format!("{long}\n{long}"), format!("{long}\nnew\n")),
        ] {
            std::fs::write(&path, found).expect("written");
            append(&path, None, b"new\n").expect("appended");
            assert!(std::fs::read_to_string(&path).expect("read") == expect, "{found:.20}");
        }
        std::fs::remove_file(&path).expect("removed");
        let first = append(&path, None, b"1\n").expect("appended");
        assert_eq!(first.metadata().expect("there").mode() & 0o777, 0o600);
        let moved = path.with_extension("1");
        std::fs::rename(&path, &moved).expect("renamed");
        let second = append(&path, Some(first), b"2\n").expect("appended");
        std::fs::remove_file(&path).expect("removed");
        append(&path, Some(second), b"3\n").expect("appended");
        assert_eq!(std::fs::read_to_string(&moved).expect("read"), "1\n");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "3\n");
        std::fs::remove_file(&path).expect("removed");
        std::fs::remove_file(&moved).expect("removed");
    }
}
