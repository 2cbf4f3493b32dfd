//! An implementation in Rust, for targets that may have no C compiler: without unsafe code, and a twentieth of what a
//! browser would otherwise fetch.

use std::io::{self, Cursor, Read};

use zstd_rs::{CompressionConfig, Compressor, Decompressor, Error, FrameHeader};

use super::LEVEL;
use crate::codec::WINDOW_LOG;

pub(crate) fn encode(raw: &[u8]) -> Vec<u8> {
    let frame = CompressionConfig::HIGH;
    let frame =
        CompressionConfig { level: LEVEL, window_log: WINDOW_LOG, checksum: false, content_size: false, ..frame };
    let mut coded = Vec::new();
    let done = Compressor::new(frame).and_then(|mut c| c.compress(raw, None, &mut coded));
    done.expect("a level and a window that zstd has");
    coded
}

/// Decodes at most `cap` bytes.
pub(crate) fn decode(coded: &[u8], cap: usize) -> Result<Vec<u8>, String> {
    let wrong = |error| match error {
        Error::OutputLimit => "a longer stream".into(),
        error => format!("a malformed stream: {error}"),
    };
    let window = FrameHeader::parse(coded).map_err(wrong)?.window_size;
    if window > 1 << WINDOW_LOG {
        return Err(wrong(Error::WindowTooLarge));
    }
    let mut raw = Vec::new();
    let read = Decompressor::new().decompress_frame(coded, None, cap, &mut raw).map_err(wrong)?;
    match coded.len() - read {
        0 => Ok(raw),
        rest => Err(format!("{rest} bytes after the stream")),
    }
}

/// What a file of frames holds.
pub(crate) fn reader(mut file: impl Read) -> io::Result<impl Read> {
    let (mut coded, mut raw) = (Vec::new(), Vec::new());
    file.read_to_end(&mut coded)?;
    Decompressor::new().decompress(&coded, None, usize::MAX, &mut raw).map_err(io::Error::other)?;
    Ok(Cursor::new(raw))
}
