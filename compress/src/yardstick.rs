//! What else could code a text: the figures a language model must be well below.
//!
//! Both take the text as bytes, give bits per byte, and are deterministic. An empty text takes 0.

/// Bits per byte of `validation` under an adaptive order-2 model of bytes that has read `training` before.
///
/// A byte's probability blends how often it followed the last two bytes, the last one, and none, by absolute
/// discounting: of each count that was seen in a context `½` is given to the next shorter one,
/// `p(c | s) = (n(s, c) − ½)⁺ / n(s) + ½ d(s) / n(s) · p(c | s′)`, with `d(s)` the number of different bytes seen in
/// context `s`, and below order 0 all 256 bytes alike. A shorter context counts a byte only where it was new in the
/// longer one. (The estimator D of prediction by partial matching with update exclusion, blended instead of escaped;
/// Howard 1993.) The model learns from each byte of the validation text after it was priced, as an adaptive
/// compressor would. Each text starts as if two zero bytes were before it.
pub fn order2<T: AsRef<[u8]>>(training: impl IntoIterator<Item = T>, validation: impl IntoIterator<Item = T>) -> f64 {
    let mut model = Order2::new();
    for text in training {
        model.read(text.as_ref(), |_| {});
    }
    let (mut bits, mut bytes) = (0.0, 0usize);
    for text in validation {
        bytes += text.as_ref().len();
        model.read(text.as_ref(), |p| bits -= p.log2());
    }
    bits / bytes.max(1) as f64
}

/// Bits per byte of `text` as zstd at level 19 compresses it alone, frame included.
///
/// # Errors
/// If there is no memory for the compressor.
pub fn zstd19(text: &[u8]) -> std::io::Result<f64> {
    if text.is_empty() {
        return Ok(0.0);
    }
    Ok(8.0 * zstd::bulk::compress(text, 19)?.len() as f64 / text.len() as f64)
}

/// How much of each count goes to the shorter context.
const DISCOUNT: f64 = 0.5;

/// Counts in the contexts of no, one and two bytes.
struct Order2 {
    orders: [Contexts; 3],
}

impl Order2 {
    fn new() -> Self {
        Self { orders: [0, 1, 2].map(|order| Contexts::new(1 << (8 * order))) }
    }

    /// Tells `price` the probability of each byte of `text` and learns from it.
    fn read(&mut self, text: &[u8], mut price: impl FnMut(f64)) {
        let mut context = 0usize;
        for &byte in text {
            let contexts = [0, context & 0xff, context & 0xffff];
            let uniform = 1.0 / 256.0;
            let steps = self.orders.iter().zip(contexts);
            price(steps.fold(uniform, |shorter, (order, context)| order.blend(context, byte, shorter)));
            for (order, context) in self.orders.iter_mut().zip(contexts).rev() {
                if !order.count(context, byte) {
                    break;
                }
            }
            context = context << 8 | usize::from(byte);
        }
    }
}

/// Counts of one order.
struct Contexts {
    /// How often each byte was seen, `[contexts, 256]`.
    counts: Vec<u32>,
    /// How many bytes, and how many different ones, were seen in each context.
    totals: Vec<(u32, u32)>,
}

impl Contexts {
    fn new(contexts: usize) -> Self {
        Self { counts: vec![0; contexts * 256], totals: vec![(0, 0); contexts] }
    }

    /// The probability of `byte` here, where it is `shorter` in the next shorter context.
    fn blend(&self, context: usize, byte: u8, shorter: f64) -> f64 {
        let (total, different) = self.totals[context];
        if total == 0 {
            return shorter;
        }
        let count = f64::from(self.counts[context * 256 + usize::from(byte)]);
        ((count - DISCOUNT).max(0.0) + DISCOUNT * f64::from(different) * shorter) / f64::from(total)
    }

    /// Counts `byte`. Returns whether it was new here.
    fn count(&mut self, context: usize, byte: u8) -> bool {
        let count = &mut self.counts[context * 256 + usize::from(byte)];
        let new = *count == 0;
        *count += 1;
        let (total, different) = &mut self.totals[context];
        *total += 1;
        *different += u32::from(new);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers below `n` from a linear congruential generator.
    fn random(seed: u64, n: u64) -> impl Iterator<Item = u8> {
        let next = |x: &u64| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        std::iter::successors(Some(seed), next).skip(1).map(move |x| (((x >> 32) * n) >> 32) as u8)
    }

    fn alone(text: &[u8]) -> f64 {
        order2([], [text])
    }

    #[test]
    fn a_known_string_by_hand() {
        // "a": uniform. Then "a" again, in a new context of two and one bytes: order 0 has it (1 − ½) / 1 + ½ · 1/256.
        let second = 0.5 + 0.5 / 256.0;
        assert!((alone(b"aa") - (8.0 - f64::log2(second)) / 2.0).abs() < 1e-12);
        assert_eq!(alone(b"x"), 8.0);
        assert_eq!(alone(b""), 0.0);
    }

    #[test]
    fn probabilities_sum_to_one() {
        let mut model = Order2::new();
        model.read(&random(1, 7).take(500).collect::<Vec<_>>(), |_| {});
        for contexts in [[0, 3, 0x0203], [0, 200, 0x0505], [0, 1, 0xff01]] {
            let p = |byte| {
                let steps = model.orders.iter().zip(contexts);
                steps.fold(1.0 / 256.0, |shorter, (order, context)| order.blend(context, byte, shorter))
            };
            let sum: f64 = (0..=255).map(p).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{contexts:?}: {sum}");
        }
    }

    #[test]
    fn an_independent_source_takes_its_entropy() {
        let text: Vec<u8> = random(2, 8).take(400_000).collect();
        let bits = alone(&text);
        assert!((3.0..3.02).contains(&bits), "{bits}");
        let text: Vec<u8> = random(3, 256).take(200_000).collect();
        assert!(alone(&text) >= 8.0, "noise does not compress: {}", alone(&text));
    }

    #[test]
    fn a_source_of_order_two_takes_its_entropy() {
        // Each byte is the sum of the last two and a random bit: one bit per byte, seen from two bytes back only.
        let mut text = vec![0u8, 0];
        for bit in random(4, 2).take(300_000) {
            text.push((text[text.len() - 1] + text[text.len() - 2] + bit) % 16);
        }
        let bits = alone(&text);
        assert!((1.0..1.02).contains(&bits), "{bits}");
    }

    #[test]
    fn what_repeats_takes_next_to_nothing() {
        let periodic: Vec<u8> = b"abcdefghij".iter().copied().cycle().take(100_000).collect();
        assert!(alone(&periodic) < 0.01, "{}", alone(&periodic));
        assert!(zstd19(&periodic).unwrap() < 0.01);
    }

    #[test]
    fn training_helps_where_it_is_alike() {
        let text: Vec<u8> = random(5, 16).map(|x| b'a' + x * x % 16).take(3000).collect();
        let (first, second) = text.split_at(2000);
        let trained = order2([first], [second]);
        assert!(trained < alone(second), "{trained} against {}", alone(second));
        assert!(order2([random(6, 256).take(2000).collect()], [second.to_vec()]) > trained);
    }

    #[test]
    fn zstd_does_not_compress_noise() {
        let noise: Vec<u8> = random(7, 256).take(50_000).collect();
        let bits = zstd19(&noise).unwrap();
        assert!((8.0..8.01).contains(&bits), "{bits}");
        assert_eq!(zstd19(b"").unwrap(), 0.0);
    }
}
