//! Zstandard: the reference implementation, which is C, and in a browser one in Rust. A frame of either is read by both.
//!
//! Frames are those of level 22, without checksum and content size, with a window of [`WINDOW_LOG`](super::WINDOW_LOG).

#[cfg(not(target_family = "wasm"))]
mod c;
#[cfg(any(test, target_family = "wasm"))]
mod rust;

#[cfg(not(target_family = "wasm"))]
pub(crate) use c::{decode, encode, reader};
#[cfg(target_family = "wasm")]
pub(crate) use rust::{decode, encode, reader};

/// The level of both: the highest.
const LEVEL: i32 = 22;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::WINDOW_LOG;
    use super::{c, rust};

    fn samples() -> Vec<Vec<u8>> {
        let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 28) as u8 ^ (i % 3) as u8;
        let text = include_str!("zstd.rs").as_bytes();
        vec![vec![], vec![b'a'], vec![0; 70_000], (0..30_000).map(noise).collect(), text.to_vec()]
    }

    #[test]
    fn each_reads_what_the_other_wrote() {
        for raw in samples() {
            let (by_c, by_rust) = (c::encode(&raw), rust::encode(&raw));
            assert_eq!(rust::decode(&by_c, raw.len()).unwrap(), raw);
            assert_eq!(c::decode(&by_rust, raw.len()).unwrap(), raw);
            assert_eq!(rust::decode(&by_rust, raw.len()).unwrap(), raw);
            let (most, found) = (by_c.len() + by_c.len() / 50 + 3, by_rust.len());
            assert!(found <= most, "{} bytes: {found} instead of {}", raw.len(), by_c.len());
        }
    }

    #[test]
    fn rust_refuses_what_is_not_one_frame_of_the_length() {
        let raw = &samples()[3];
        let coded = c::encode(raw);
        for cut in [0, 1, coded.len() / 2, coded.len() - 1] {
            assert!(rust::decode(&coded[..cut], raw.len()).is_err(), "cut at {cut}");
        }
        assert_eq!(rust::decode(&[&coded[..], b"?"].concat(), raw.len()).unwrap_err(), "1 bytes after the stream");
        let twice = rust::decode(&coded.repeat(2), 2 * raw.len()).unwrap_err();
        assert_eq!(twice, format!("{} bytes after the stream", coded.len()));
        assert_eq!(rust::decode(&coded, raw.len() - 1).unwrap_err(), "a longer stream");
        assert_eq!(rust::decode(&c::encode(&vec![0; 8 << 20]), 1000).unwrap_err(), "a longer stream");
        let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        wide.set_parameter(zstd::zstd_safe::CParameter::WindowLog(WINDOW_LOG + 3)).unwrap();
        wide.write_all(raw).unwrap();
        let wide = wide.finish().unwrap();
        assert!(rust::decode(&wide, raw.len()).unwrap_err().contains("malformed stream"));
    }

    #[test]
    fn both_read_a_file_of_several_frames() {
        let raw = &samples()[4];
        let file = [c::encode(raw), rust::encode(raw)].concat();
        let (mut by_c, mut by_rust) = (Vec::new(), Vec::new());
        c::reader(&file[..]).unwrap().read_to_end(&mut by_c).unwrap();
        rust::reader(&file[..]).unwrap().read_to_end(&mut by_rust).unwrap();
        assert_eq!(by_c, raw.repeat(2));
        assert_eq!(by_rust, by_c);
    }
}
