//! Files that are either the old one or the new one, never half of each.
//!
//! The content goes to a temporary file in the same folder, is flushed to the disk, and takes the name of the target
//! by a rename. Until the rename the old file is whole; a failed write removes the temporary file.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// A file being written beside its target; dropped without [`AtomicFile::commit`] it leaves no trace.
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    buffer: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// Opens a temporary file in the folder of `target`, which must exist. A link is followed, so that it stays one; what
    /// is there and no regular file (a folder, a device) is refused, because the rename would replace it.
    pub fn create(target: impl Into<PathBuf>) -> Result<Self> {
        let mut target = target.into();
        if let Ok(found) = std::fs::canonicalize(&target) {
            if !found.is_file() {
                let kind = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
                return Err(Error::io(target, "write")(kind));
            }
            if target.is_symlink() {
                target = found;
            }
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".partial-").suffix(".tmp");
        #[cfg(unix)]
        {
            // A temporary file is private by default; this one becomes the user's file and follows the umask.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(folder(&target)).map_err(|e| Error::io(&target, "write")(e.kind().into()))?;
        Ok(Self { target, buffer: BufWriter::with_capacity(1 << 20, file) })
    }

    /// The name the file will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Makes the content durable and gives it the target's name, replacing what was there.
    pub fn commit(self) -> Result<()> {
        let Self { target, buffer } = self;
        let file = buffer.into_inner().map_err(|e| Error::io(&target, "write")(e.into_error()))?;
        file.as_file().sync_all().map_err(Error::io(&target, "flush"))?;
        file.persist(&target).map_err(|e| Error::io(&target, "rename")(e.error))?;
        // The rename itself is durable once the folder is; where a folder cannot be opened this is left to the system.
        if cfg!(unix) {
            let folder = File::open(folder(&target)).map_err(Error::io(&target, "flush"))?;
            folder.sync_all().map_err(Error::io(&target, "flush"))?;
        }
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.buffer.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.buffer.seek(position)
    }
}

/// Writes `content` as the file `path`.
pub fn write(path: impl AsRef<Path>, content: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let mut file = AtomicFile::create(path)?;
    file.write_all(content).map_err(Error::io(path, "write"))?;
    file.commit()
}

/// Writes the file `path` through `fill`; an error of `fill` leaves the old file as it was.
pub fn write_with(path: impl AsRef<Path>, fill: impl FnOnce(&mut AtomicFile) -> io::Result<()>) -> Result<()> {
    let path = path.as_ref();
    let mut file = AtomicFile::create(path)?;
    fill(&mut file).map_err(Error::io(path, "write"))?;
    file.commit()
}

/// The folder a file lies in; the current one for a bare name.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn replaces_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write(&path, b"old").unwrap();
        write(&path, b"new content").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new content");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write(&path, b"old").unwrap();
        let error = write_with(&path, |file| {
            file.write_all(&vec![7; 3 << 20])?;
            Err(io::Error::other("the lights went out"))
        })
        .unwrap_err();
        assert!(error.to_string().ends_with("a.bin: cannot write: the lights went out"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn an_interrupted_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half of the n").unwrap();
        assert_eq!(names(folder.path()).len(), 2, "the new content grows beside the target");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(file);
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn a_missing_folder_is_an_error_with_the_target() {
        let folder = tempfile::tempdir().unwrap();
        let error = write(folder.path().join("no/a.bin"), b"").unwrap_err().to_string();
        assert!(error.contains("a.bin: cannot write"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_follows_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (plain, atomic) = (folder.path().join("plain"), folder.path().join("atomic"));
        std::fs::write(&plain, b"").unwrap();
        write(&atomic, b"").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&plain), mode(&atomic));
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links_and_devices_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        for refused in [Path::new("/dev/null"), dir.path()] {
            let message = write(refused, b"x").unwrap_err().to_string();
            assert!(message.contains("not a regular file"), "{message}");
        }
    }
}
