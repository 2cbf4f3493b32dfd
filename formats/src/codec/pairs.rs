//! Small signed bytes two at a time.
//!
//! A Huffman code spends whole bits, which costs a memoryless source of about three bits a symbol one part in a hundred.
//! Two codes together are a symbol of six bits, of which a whole-bit code wastes half as much.

/// Both values of a pair within ± this make one byte.
const SMALL: i8 = 7;
/// Values a small code can take.
const WIDTH: u8 = 2 * SMALL as u8 + 1;
/// The byte before a pair that is written out.
const ESCAPE: u8 = 255;

/// Packs signed bytes. Two values within ±7 give the byte `(a + 7) · 15 + b + 7`, other pairs 255 and both bytes; an odd
/// length is filled up with a 0.
pub fn pack(raw: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(raw.len() / 2 + 1);
    for pair in pairs(raw) {
        match small(pair) {
            Some(byte) => packed.push(byte),
            None => packed.extend([ESCAPE, pair[0], pair[1]]),
        }
    }
    packed
}

/// Undoes [`pack`] for `len` bytes, or says what is wrong.
pub fn unpack(packed: &[u8], len: usize) -> Result<Vec<u8>, String> {
    let mut raw = Vec::with_capacity(len.min(packed.len() * 2));
    let mut rest = packed.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            0..225 => raw.extend([byte / WIDTH, byte % WIDTH].map(|value| value.wrapping_sub(SMALL as u8))),
            ESCAPE => match (rest.next(), rest.next()) {
                (Some(&a), Some(&b)) => raw.extend([a, b]),
                _ => return Err("its end within a pair".into()),
            },
            _ => return Err(format!("pair {byte}, of which there is none")),
        }
    }
    if len % 2 == 1 && raw.len() == len + 1 && raw.last() == Some(&0) {
        raw.pop();
    }
    if raw.len() == len { Ok(raw) } else { Err(format!("{} bytes", raw.len())) }
}

/// The most bytes that [`pack`] makes of `len`.
pub fn most(len: usize) -> usize {
    len.div_ceil(2).saturating_mul(3)
}

/// Whether so few pairs of these bytes are large that packing pays: at most one in fifty.
pub fn pays(raw: &[u8]) -> bool {
    let large = pairs(raw).filter(|&pair| small(pair).is_none()).count();
    !raw.is_empty() && large * 50 <= raw.len().div_ceil(2)
}

fn pairs(raw: &[u8]) -> impl Iterator<Item = [u8; 2]> {
    raw.chunks(2).map(|chunk| [chunk[0], chunk.get(1).copied().unwrap_or(0)])
}

/// The byte of a pair of small values.
fn small(pair: [u8; 2]) -> Option<u8> {
    let [a, b] = pair.map(|byte| byte as i8);
    let fits = a.unsigned_abs() <= SMALL as u8 && b.unsigned_abs() <= SMALL as u8;
    fits.then(|| (a + SMALL) as u8 * WIDTH + (b + SMALL) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_comes_back() {
        let all: Vec<u8> = (0..=255).flat_map(|a| (0..=255).flat_map(move |b| [a, b])).collect();
        assert_eq!(unpack(&pack(&all), all.len()).unwrap(), all);
        assert!(pack(&all).len() <= most(all.len()));
        for raw in [&[][..], &[3], &[200], &[1, 2, 3], &[0, 0, 0]] {
            assert_eq!(unpack(&pack(raw), raw.len()).unwrap(), raw);
        }
        assert_eq!(pack(&[0, 0, 1, 255, 8, 0]), [112, 8 * 15 + 6, 255, 8, 0]);
    }

    #[test]
    fn what_is_no_packing_is_refused() {
        assert_eq!(unpack(&[225], 2).unwrap_err(), "pair 225, of which there is none");
        assert_eq!(unpack(&[255, 1], 2).unwrap_err(), "its end within a pair");
        assert_eq!(unpack(&[112], 4).unwrap_err(), "2 bytes");
        // An odd length whose filler is not 0 could not come from `pack`.
        assert_eq!(unpack(&[113], 1).unwrap_err(), "2 bytes");
    }

    #[test]
    fn packing_pays_for_small_codes_only() {
        let mut raw = vec![3; 100];
        assert!(pays(&raw));
        raw[0] = 8;
        assert!(pays(&raw), "one pair of fifty");
        raw[50] = 8;
        assert!(!pays(&raw));
        assert!(!pays(&[]));
    }
}
