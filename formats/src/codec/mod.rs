//! Lossless codecs of byte streams: the one enum an artifact's streams name theirs by.

mod binary;
mod bytes;
pub mod halves;
pub mod matrix;
pub mod pairs;
pub(crate) mod zstd;

use brotli::enc::BrotliEncoderParams;
use brotli::enc::StandardAlloc;
use brotli::{BrotliCompress, BrotliDecompressStream, BrotliResult, BrotliState};

use crate::{Error, Result};

/// Base-2 logarithm of the window of both codecs. It bounds what a decoder allocates beside its output: 16 MiB.
const WINDOW_LOG: u32 = 24;
/// Output buffers start at most this large and grow with what the stream really yields.
const FIRST_OUTPUT: usize = 1 << 16;

/// How a stream of bytes is coded. The numbers stand in files: later codecs append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Stored = 0,
    /// Brotli, quality 11.
    Brotli = 1,
    /// Zstandard, level 22, one frame without checksum and content size.
    Zstd = 2,
    /// Brotli over pairs of signed bytes: smaller than [`Codec::Brotli`] for codes of weights, most of which are small.
    /// Two values within ±7 are the byte `(a + 7) · 15 + b + 7`, other pairs 255 and both bytes; an odd length is filled
    /// up with a 0.
    PairedBrotli = 3,
    /// Our own: an adaptive model and an arithmetic coder. What it is depends on what a stream holds: [`matrix`] for
    /// codes, [`halves`] for f16 values; of other bytes, each is coded bit by bit in the context of the one before.
    Context = 4,
}

impl Codec {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Stored, Self::Brotli, Self::Zstd, Self::PairedBrotli, Self::Context];

    /// The codec of this number in a file.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// The number that stands for it in a file.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// Its name in messages and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Brotli => "brotli",
            Self::Zstd => "zstd",
            Self::PairedBrotli => "brotli of pairs",
            Self::Context => "context",
        }
    }

    /// Codes `raw` as small as the codec can. The same bytes always give the same result.
    pub fn encode(self, raw: &[u8]) -> Vec<u8> {
        match self {
            Self::Stored => raw.to_vec(),
            Self::Brotli => encode_brotli(raw),
            Self::Zstd => zstd::encode(raw),
            Self::PairedBrotli => encode_brotli(&pairs::pack(raw)),
            Self::Context => bytes::encode(raw),
        }
    }

    /// The codec to use for signed codes when `self` is asked for: pairs instead of plain brotli where they pay.
    pub fn for_codes(self, codes: &[u8]) -> Self {
        if self == Self::Brotli && pairs::pays(codes) { Self::PairedBrotli } else { self }
    }

    /// The codec to use for text when `self` is asked for.
    pub fn for_text(self) -> Self {
        if self == Self::Context { Self::Brotli } else { self }
    }

    /// Decodes a stream of which the length is known; `stream` names it in errors.
    ///
    /// Allocates no more than `len` bytes and the codec's window, and `len` only as far as the stream yields bytes.
    ///
    /// # Errors
    /// A stream that is malformed, cut off, followed by other bytes, or not of `len` bytes when decoded.
    pub fn decode(self, coded: &[u8], len: usize, stream: &str) -> Result<Vec<u8>> {
        let fail = |found: String| {
            let expected = format!("{len} bytes coded by {}", self.name());
            Error::Stream { stream: stream.to_owned(), expected, found }
        };
        let exact = |raw: Vec<u8>| if raw.len() == len { Ok(raw) } else { Err(fail(format!("{} bytes", raw.len()))) };
        match self {
            Self::Stored if coded.len() == len => Ok(coded.to_vec()),
            Self::Stored => Err(fail(format!("{} bytes", coded.len()))),
            Self::Brotli => exact(decode_brotli(coded, len).map_err(fail)?),
            Self::Zstd => exact(zstd::decode(coded, len).map_err(fail)?),
            Self::PairedBrotli => {
                let packed = decode_brotli(coded, pairs::most(len)).map_err(fail)?;
                pairs::unpack(&packed, len).map_err(fail)
            }
            Self::Context => bytes::decode(coded, len).map_err(fail),
        }
    }
}

/// The most values that adaptive coding can get into so many bytes: every value costs more than 2^-11 bits.
fn most_values(coded: usize) -> usize {
    coded.saturating_add(8).saturating_mul(1 << 14)
}

fn encode_brotli(raw: &[u8]) -> Vec<u8> {
    let params = BrotliEncoderParams {
        quality: 11,
        lgwin: WINDOW_LOG as i32,
        size_hint: raw.len(),
        ..BrotliEncoderParams::default()
    };
    let mut coded = Vec::new();
    BrotliCompress(&mut &raw[..], &mut coded, &params).expect("vectors read and write without fail");
    coded
}

/// Decodes at most `cap` bytes.
fn decode_brotli(coded: &[u8], cap: usize) -> Result<Vec<u8>, String> {
    let mut state = BrotliState::new(StandardAlloc::default(), StandardAlloc::default(), StandardAlloc::default());
    // One byte more than allowed, so that a stream that goes on is told from one that ends.
    let most = cap.saturating_add(1);
    let mut raw = vec![0; FIRST_OUTPUT.min(most)];
    let (mut unread, mut at, mut written, mut total) = (coded.len(), 0, 0, 0);
    loop {
        let mut room = raw.len() - written;
        let result = BrotliDecompressStream(
            &mut unread,
            &mut at,
            coded,
            &mut room,
            &mut written,
            &mut raw,
            &mut total,
            &mut state,
        );
        if written > cap {
            return Err("a longer stream".into());
        }
        match result {
            BrotliResult::ResultSuccess => break,
            BrotliResult::NeedsMoreOutput => raw.resize((raw.len() * 2).min(most), 0),
            BrotliResult::NeedsMoreInput => return Err(format!("its end after {} coded bytes", coded.len())),
            BrotliResult::ResultFailure => return Err(format!("a malformed stream before coded byte {at}")),
        }
    }
    if unread > 0 {
        return Err(format!("{unread} bytes after the stream"));
    }
    raw.truncate(written);
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        (0..30_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 28) as u8 ^ (i % 3) as u8).collect()
    }

    #[test]
    fn round_trip_of_every_codec() {
        let sample = sample();
        for codec in Codec::ALL {
            assert_eq!(Codec::from_id(codec.id()), Some(codec));
            for raw in [&[][..], b"a", &[0; 70_000], &sample] {
                let coded = codec.encode(raw);
                assert_eq!(coded, codec.encode(raw), "{codec:?} is deterministic");
                assert_eq!(codec.decode(&coded, raw.len(), "x").unwrap(), raw, "{codec:?} of {}", raw.len());
            }
        }
        assert_eq!(Codec::from_id(5), None);
        assert!(Codec::Brotli.encode(&sample).len() < 20_000);
        assert!(Codec::Zstd.encode(&sample).len() < 20_000);
    }

    #[test]
    fn another_length_is_an_error_that_names_the_stream() {
        let raw = [5; 1000];
        for codec in Codec::ALL {
            let coded = codec.encode(&raw);
            let message = |len| codec.decode(&coded, len, "scales").unwrap_err().to_string();
            assert!(message(1001).starts_with("stream `scales`: expected 1001 bytes coded by "), "{}", message(1001));
            assert!(message(1001).ends_with("found 1000 bytes"), "{}", message(1001));
            let plain = matches!(codec, Codec::Stored | Codec::PairedBrotli | Codec::Context);
            let found = if plain { "found 1000 bytes" } else { "found a longer stream" };
            assert!(message(999).ends_with(found), "{}", message(999));
            assert!(codec.decode(&coded, 0, "scales").is_err());
        }
    }

    #[test]
    fn a_cut_or_continued_stream_is_an_error() {
        let raw = sample();
        for codec in [Codec::Brotli, Codec::Zstd, Codec::PairedBrotli] {
            let coded = codec.encode(&raw);
            for cut in [0, 1, coded.len() / 2, coded.len() - 1] {
                assert!(codec.decode(&coded[..cut], raw.len(), "x").is_err(), "{codec:?} cut at {cut}");
            }
            let long = [&coded[..], b"?"].concat();
            let message = codec.decode(&long, raw.len(), "x").unwrap_err().to_string();
            assert!(message.ends_with("1 bytes after the stream"), "{message}");
        }
    }

    #[test]
    fn pairs_are_taken_for_small_codes_and_are_smaller() {
        // The sum of three dice of four sides, 2.7 bits a symbol: what a Huffman code of single symbols fits badly.
        let mut state = 1u64;
        let mut die = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 62) as u8
        };
        let codes: Vec<u8> = (0..100_000).map(|_| (die() + die() + die()).wrapping_sub(4)).collect();
        let paired = Codec::Brotli.for_codes(&codes);
        assert_eq!(paired, Codec::PairedBrotli);
        assert!(paired.encode(&codes).len() < Codec::Brotli.encode(&codes).len());
        assert_eq!(Codec::Brotli.for_codes(&sample()), Codec::Brotli);
        assert_eq!(Codec::Zstd.for_codes(&codes), Codec::Zstd);
    }

    #[test]
    fn a_bomb_stops_at_the_length() {
        let bomb = vec![0; 8 << 20];
        for codec in [Codec::Brotli, Codec::Zstd, Codec::PairedBrotli] {
            let coded = codec.encode(&bomb);
            assert!(coded.len() < 1000);
            assert!(codec.decode(&coded, 1000, "x").unwrap_err().to_string().ends_with("a longer stream"));
        }
    }

    #[test]
    fn a_large_window_is_refused() {
        let raw = sample();
        let mut stream = ::zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        stream.set_parameter(::zstd::zstd_safe::CParameter::WindowLog(27)).unwrap();
        std::io::Write::write_all(&mut stream, &raw).unwrap();
        let coded = stream.finish().unwrap();
        assert!(Codec::Zstd.decode(&coded, raw.len(), "x").unwrap_err().to_string().contains("malformed stream"));
    }
}
