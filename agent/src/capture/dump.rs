//! For tests and for the careful: writes every entry of the ring to a file as it came from the kernel, so that what the programs
//! copy can be looked at.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

/// Where entries are written to, if anywhere.
#[derive(Debug)]
pub struct Dump {
    file: Option<BufWriter<File>>,
}

impl Dump {
    /// Creates the file.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(File::create).transpose()?.map(BufWriter::new);
        Ok(Self { file })
    }

    /// Writes an entry, one record or several: its length (four bytes, little-endian), then its bytes. A file that cannot be
    /// written to is given up.
    pub fn write(&mut self, entry: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let length = (entry.len() as u32).to_le_bytes();
        let written = file.write_all(&length).and_then(|()| file.write_all(entry)).and_then(|()| file.flush());
        if let Err(error) = written {
            tracing::warn!(%error, "ring entries are no longer written to capture.dump_events");
            self.file = None;
        }
    }
}
