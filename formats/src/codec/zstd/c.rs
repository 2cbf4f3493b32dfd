//! The reference implementation.

use std::io::{self, Read};

use zstd::zstd_safe::CParameter;

use super::LEVEL;
use crate::codec::WINDOW_LOG;

pub(crate) fn encode(raw: &[u8]) -> Vec<u8> {
    try_encode(raw).expect("a level and a window that zstd has")
}

fn try_encode(raw: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    compressor.set_parameter(CParameter::ChecksumFlag(false))?;
    compressor.set_parameter(CParameter::ContentSizeFlag(false))?;
    compressor.compress(raw)
}

/// Decodes at most `cap` bytes.
pub(crate) fn decode(coded: &[u8], cap: usize) -> Result<Vec<u8>, String> {
    let malformed = |e: io::Error| format!("a malformed stream: {e}");
    let mut decoder = zstd::stream::read::Decoder::with_buffer(coded).map_err(malformed)?.single_frame();
    decoder.window_log_max(WINDOW_LOG).map_err(malformed)?;
    let mut raw = Vec::new();
    // One byte more than allowed, so that a stream that goes on is told from one that ends.
    (&mut decoder).take((cap as u64).saturating_add(1)).read_to_end(&mut raw).map_err(malformed)?;
    if raw.len() > cap {
        return Err("a longer stream".into());
    }
    match decoder.finish() {
        [] => Ok(raw),
        rest => Err(format!("{} bytes after the stream", rest.len())),
    }
}

/// What a file of frames holds.
pub(crate) fn reader<'a>(file: impl Read + 'a) -> io::Result<impl Read + 'a> {
    zstd::Decoder::new(file)
}
