//! What a codec makes of matrices, and how fast.

use std::time::Instant;

use sixpack_formats::QuantizedMatrix;

use super::{Layout, MatrixCodec, outline};
use crate::{Error, Result};

/// Size and speed of one codec on one set of matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The codec's name, without its layout.
    pub codec: String,
    /// Its layout, if it has one.
    pub layout: Option<Layout>,
    /// Coded bytes of each stream.
    pub streams: Vec<u64>,
    /// Number of weights of all streams.
    pub weights: u64,
    /// Seconds to encode all streams one after another on one thread, the best run.
    pub encode_seconds: f64,
    /// Seconds to decode them.
    pub decode_seconds: f64,
}

impl Measured {
    /// Coded bytes of all streams.
    pub fn bytes(&self) -> u64 {
        self.streams.iter().sum()
    }

    /// Coded bits a weight.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * self.bytes() as f64 / self.weights.max(1) as f64
    }

    /// Million weights encoded a second: as one byte holds one code, also MB/s of codes.
    pub fn encode_rate(&self) -> f64 {
        self.weights as f64 / self.encode_seconds.max(f64::MIN_POSITIVE) / 1e6
    }

    /// Million weights decoded a second.
    pub fn decode_rate(&self) -> f64 {
        self.weights as f64 / self.decode_seconds.max(f64::MIN_POSITIVE) / 1e6
    }
}

/// Codes each stream and decodes it again, for at least `seconds` each way; the best run counts.
///
/// # Errors
/// [`Error::NotLossless`] if what is decoded is not what was encoded; what the codec reports.
pub fn measure(codec: &dyn MatrixCodec, streams: &[Vec<&QuantizedMatrix>], seconds: f64) -> Result<Measured> {
    let outlines: Vec<Vec<QuantizedMatrix>> =
        streams.iter().map(|matrices| matrices.iter().map(|m| outline(m)).collect()).collect();
    let encode = || streams.iter().map(|matrices| codec.encode(matrices)).collect::<Result<Vec<_>>>();
    let (coded, encode_seconds) = best_run(seconds, encode)?;
    let decode = || coded.iter().zip(&outlines).map(|(c, o)| codec.decode(c, o)).collect::<Result<Vec<_>>>();
    let (decoded, decode_seconds) = best_run(seconds, decode)?;
    let lossless = |(matrices, decoded): (&Vec<&QuantizedMatrix>, &Vec<Vec<i8>>)| {
        matrices.len() == decoded.len() && matrices.iter().zip(decoded).all(|(m, codes)| m.codes == *codes)
    };
    if let Some(stream) = streams.iter().zip(&decoded).position(|pair| !lossless(pair)) {
        return Err(Error::NotLossless { codec: codec.full_name(), stream });
    }
    Ok(Measured {
        codec: codec.name(),
        layout: codec.layout(),
        streams: coded.iter().map(|c| c.len() as u64).collect(),
        weights: streams.iter().flatten().map(|m| m.codes.len() as u64).sum(),
        encode_seconds,
        decode_seconds,
    })
}

/// The same codec with the best layout for each stream, where it was measured with several: bytes of the best, times of
/// the slowest.
pub fn best(measured: &[Measured], codec: &str) -> Option<Measured> {
    let of_codec: Vec<_> = measured.iter().filter(|m| m.codec == codec).collect();
    let [first, _, ..] = of_codec[..] else { return None };
    let streams = (0..first.streams.len()).map(|i| of_codec.iter().map(|m| m.streams[i]).min().unwrap_or(0)).collect();
    let slowest = |of: fn(&Measured) -> f64| of_codec.iter().map(|m| of(m)).fold(0.0, f64::max);
    Some(Measured {
        layout: None,
        streams,
        encode_seconds: slowest(|m| m.encode_seconds),
        decode_seconds: slowest(|m| m.decode_seconds),
        ..first.clone()
    })
}

/// Runs for at least `seconds` and at least once. Returns what the last run gave and the time of the fastest.
fn best_run<T>(seconds: f64, mut run: impl FnMut() -> Result<T>) -> Result<(T, f64)> {
    let (start, mut best) = (Instant::now(), f64::MAX);
    loop {
        let begun = Instant::now();
        let result = run()?;
        best = best.min(begun.elapsed().as_secs_f64());
        if start.elapsed().as_secs_f64() >= seconds {
            return Ok((result, best));
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    /// Keeps codes as they are, or all but the last.
    struct Copying {
        faithful: bool,
    }

    impl MatrixCodec for Copying {
        fn name(&self) -> String {
            "copying".into()
        }

        fn encode(&self, matrices: &[&QuantizedMatrix]) -> Result<Vec<u8>> {
            Ok(matrices.iter().flat_map(|m| m.codes.iter().map(|&c| c as u8)).collect())
        }

        fn decode(&self, coded: &[u8], _: &[QuantizedMatrix]) -> Result<Vec<Vec<i8>>> {
            let mut codes: Vec<i8> = coded.iter().map(|&b| b as i8).collect();
            codes[0] ^= i8::from(!self.faithful);
            Ok(vec![codes])
        }
    }

    #[test]
    fn what_comes_back_otherwise_is_no_figure() {
        let m = QuantizedMatrix::new("m", [1, 3], 31, vec![1, 2, 3], vec![f16::ONE]).unwrap();
        let streams = [vec![&m], vec![&m]];
        let measured = measure(&Copying { faithful: true }, &streams, 0.0).unwrap();
        assert_eq!((measured.streams, measured.weights), (vec![3, 3], 6));
        let error = measure(&Copying { faithful: false }, &streams, 0.0).unwrap_err().to_string();
        assert_eq!(error, "codec `copying`: stream 0 was decoded to other codes than were encoded");
    }

    #[test]
    fn the_best_layout_of_each_stream() {
        let with = |layout, streams: &[u64]| Measured {
            codec: "c".into(),
            layout: Some(layout),
            streams: streams.to_vec(),
            weights: 80,
            encode_seconds: 1.0,
            decode_seconds: 0.5,
        };
        let all = [with(Layout::Plain, &[7, 4]), with(Layout::Transposed, &[8, 3])];
        let best = best(&all, "c").unwrap();
        assert_eq!((best.bytes(), best.bits_per_weight(), best.layout), (10, 1.0, None));
        assert_eq!(super::best(&all[..1], "c"), None);
    }
}
