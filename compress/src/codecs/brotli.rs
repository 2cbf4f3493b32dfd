//! Brotli at any quality.

use brotli::enc::BrotliEncoderParams;
use sixpack_formats::Codec;

use super::ByteCodec;
use crate::Result;

/// As [`Codec::Brotli`] has it: the largest that its decoder takes.
const WINDOW_LOG: i32 = 24;

/// Brotli of this quality, 0 to 11, with a window of 16 MiB.
pub(super) struct Brotli(pub(super) i32);

impl ByteCodec for Brotli {
    fn name(&self) -> String {
        format!("brotli-{}", self.0)
    }

    fn encode(&self, raw: &[u8]) -> Vec<u8> {
        let Self(quality) = *self;
        let params =
            BrotliEncoderParams { quality, lgwin: WINDOW_LOG, size_hint: raw.len(), ..BrotliEncoderParams::default() };
        let mut coded = Vec::new();
        brotli::BrotliCompress(&mut &raw[..], &mut coded, &params).expect("vectors read and write without fail");
        coded
    }

    fn decode(&self, coded: &[u8], len: usize) -> Result<Vec<u8>> {
        Ok(Codec::Brotli.decode(coded, len, &self.name())?)
    }
}
