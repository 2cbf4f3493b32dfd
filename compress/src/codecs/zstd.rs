//! Zstandard at any level.

use sixpack_formats::Codec;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::ByteCodec;
use crate::Result;

/// As [`Codec::Zstd`] has it: the largest that its decoder takes.
const WINDOW_LOG: u32 = 24;

/// Zstandard of this level, 1 to 22, one frame without checksum and content size.
pub(super) struct Zstd(pub(super) i32);

impl ByteCodec for Zstd {
    fn name(&self) -> String {
        format!("zstd-{}", self.0)
    }

    fn encode(&self, raw: &[u8]) -> Vec<u8> {
        let encode = || {
            let mut compressor = Compressor::new(self.0)?;
            compressor.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
            compressor.set_parameter(CParameter::ChecksumFlag(false))?;
            compressor.set_parameter(CParameter::ContentSizeFlag(false))?;
            compressor.compress(raw)
        };
        encode().expect("a level and a window that zstd has")
    }

    fn decode(&self, coded: &[u8], len: usize) -> Result<Vec<u8>> {
        Ok(Codec::Zstd.decode(coded, len, &self.name())?)
    }
}
