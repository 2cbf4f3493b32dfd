//! f16 values bit by bit: row scales, column factors, control tensors.
//!
//! Byte layout: one stream of the range coder of [`binary`](super::binary), without a head. For each list in turn and
//! each value in it:
//!
//! 1. if an earlier list of the same class has as many values: a bit, whether the value is that list's at this place;
//!    its context is whether the last two such bits were set;
//! 2. if not, and this is not the first value of the list: a bit, whether the value is the one before; its context is
//!    likewise the last two such bits;
//! 3. if not: the 16 bits from the sign down, each in the context of those above it. Of [`Class::Values`] the lowest 5
//!    are written as they are; of [`Class::Steps`] none: there are few of them, and they come again.
//!
//! The contexts are shared by the lists of a class.

use std::collections::BTreeMap;

use half::f16;

use super::binary::{Bit, Decoder, Encoder};

/// Bits at the end of a value that have no structure.
const EVEN_BITS: u32 = 5;

/// Lists with like values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Steps and factors: few different values.
    Steps(u8),
    /// Weights of the tensors of one role.
    Values(u8),
}

impl Class {
    fn even_bits(self) -> u32 {
        match self {
            Self::Steps(_) => 0,
            Self::Values(_) => EVEN_BITS,
        }
    }
}

/// What is known of the lists of a class.
#[derive(Debug)]
struct Model {
    /// By the bits above, with a leading 1.
    tree: Vec<Bit>,
    /// Of the two flags, by the last two of the same kind.
    flags: [[Bit; 4]; 2],
    history: [usize; 2],
    /// The last list of each length.
    last: BTreeMap<usize, Vec<f16>>,
}

impl Model {
    fn new(class: Class) -> Self {
        let tree = vec![Bit::NEW; 1 << (16 - class.even_bits())];
        Self { tree, flags: [[Bit::NEW; 4]; 2], history: [3, 0], last: BTreeMap::new() }
    }
}

/// One way through the coder.
trait Channel {
    fn bit(&mut self, context: &mut Bit, bit: bool) -> bool;
    fn even(&mut self, bit: bool) -> bool;
}

impl Channel for Encoder {
    fn bit(&mut self, context: &mut Bit, bit: bool) -> bool {
        Encoder::bit(self, context, bit);
        bit
    }

    fn even(&mut self, bit: bool) -> bool {
        Encoder::even(self, bit);
        bit
    }
}

impl Channel for Decoder<'_> {
    fn bit(&mut self, context: &mut Bit, _: bool) -> bool {
        Decoder::bit(self, context)
    }

    fn even(&mut self, _: bool) -> bool {
        Decoder::even(self)
    }
}

/// The lists, coded; bit by bit, whatever the values are.
pub fn encode<'a>(lists: impl IntoIterator<Item = (Class, &'a [f16])>) -> Vec<u8> {
    let (mut encoder, mut models) = (Encoder::new(), BTreeMap::new());
    for (class, list) in lists {
        pass(&mut encoder, &mut models, class, &mut list.to_vec());
    }
    encoder.finish()
}

/// The lists of these classes and lengths that `coded` holds. Fails, with what was found, if it holds others.
///
/// Allocates no more values than so many bytes can hold.
pub fn decode(coded: &[u8], lists: impl IntoIterator<Item = (Class, usize)>) -> Result<Vec<Vec<f16>>, String> {
    let (mut decoder, mut models) = (Decoder::new(coded), BTreeMap::new());
    let mut left = super::most_values(coded.len());
    let mut list = |(class, n)| {
        left = left.checked_sub(n).ok_or_else(|| format!("{} coded bytes, too few", coded.len()))?;
        let mut list = vec![f16::ZERO; n];
        pass(&mut decoder, &mut models, class, &mut list);
        Ok(list)
    };
    let lists = lists.into_iter().map(&mut list).collect::<Result<_, String>>()?;
    decoder.check()?;
    Ok(lists)
}

fn pass<C: Channel>(channel: &mut C, models: &mut BTreeMap<Class, Model>, class: Class, list: &mut [f16]) {
    let model = models.entry(class).or_insert_with(|| Model::new(class));
    let earlier = model.last.remove(&list.len());
    for i in 0..list.len() {
        let value = list[i].to_bits();
        let guesses = [earlier.as_ref().map(|list| list[i]), i.checked_sub(1).map(|before| list[before])];
        let mut known = None;
        for (kind, guess) in guesses.into_iter().enumerate() {
            let Some(guess) = guess.map(f16::to_bits).filter(|_| known.is_none()) else { continue };
            let history = &mut model.history[kind];
            let hit = channel.bit(&mut model.flags[kind][*history], guess == value);
            *history = (*history << 1 | usize::from(hit)) & 3;
            known = hit.then_some(guess);
        }
        let value = known.unwrap_or_else(|| tree(channel, &mut model.tree, value, class.even_bits()));
        list[i] = f16::from_bits(value);
    }
    model.last.insert(list.len(), list.to_vec());
}

/// The 16 bits of a value from the top down; the last `even` of them without a context.
fn tree<C: Channel>(channel: &mut C, contexts: &mut [Bit], value: u16, even: u32) -> u16 {
    let mut node = 1usize;
    for at in (0..16).rev() {
        let bit = value >> at & 1 == 1;
        let bit = if at < even { channel.even(bit) } else { channel.bit(&mut contexts[node], bit) };
        node = node << 1 | usize::from(bit);
    }
    node as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(lists: &[(Class, Vec<f16>)]) -> usize {
        let coded = encode(lists.iter().map(|(class, list)| (*class, &list[..])));
        let back = decode(&coded, lists.iter().map(|(class, list)| (*class, list.len()))).unwrap();
        for (back, (_, list)) in back.iter().zip(lists) {
            assert!(back.iter().zip(list).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
        coded.len()
    }

    fn steps(n: usize, seed: u32) -> Vec<f16> {
        let random = |i: usize| (i as u32 ^ seed).wrapping_mul(2_654_435_761) >> 29;
        (0..n).map(|i| f16::from_f32(0.03 * (random(i) as f32 / 4.0).exp2())).collect()
    }

    #[test]
    fn constant_steps_cost_nothing() {
        let lists = vec![(Class::Steps(0), vec![f16::from_f32(1.0 / 31.0); 320]); 24];
        assert!(round_trip(&lists) < 60, "{}", round_trip(&lists));
    }

    #[test]
    fn steps_of_a_coarse_grid_cost_their_entropy() {
        let size = round_trip(&[(Class::Steps(1), steps(4000, 0))]);
        assert!(size < 4000 * 3 / 8 + 200, "{size} bytes for 4000 values of 3 bits");
    }

    #[test]
    fn the_same_list_again_costs_nothing() {
        let twice = round_trip(&[(Class::Steps(1), steps(500, 0)), (Class::Steps(1), steps(500, 0))]);
        assert!(twice < round_trip(&[(Class::Steps(1), steps(500, 0))]) + 12);
    }

    #[test]
    fn a_cut_or_continued_stream_is_an_error() {
        let list = steps(300, 5);
        let coded = encode([(Class::Steps(0), &list[..])]);
        assert!(decode(&coded[..coded.len() - 1], [(Class::Steps(0), 300)]).is_err());
        assert!(decode(&[&coded[..], &[0]].concat(), [(Class::Steps(0), 300)]).is_err());
        assert_eq!(decode(&[0; 4], []).unwrap(), Vec::<Vec<f16>>::new());
    }

    proptest! {
        #[test]
        fn any_bits_come_back(lists in prop::collection::vec(
            (0u8..3, any::<bool>(), prop::collection::vec(any::<u16>().prop_map(f16::from_bits), 0..40)), 0..8,
        )) {
            let class = |c, steps| if steps { Class::Steps(c) } else { Class::Values(c) };
            let lists: Vec<_> = lists.into_iter().map(|(c, steps, list)| (class(c, steps), list)).collect();
            round_trip(&lists);
        }

        #[test]
        fn random_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, [(Class::Steps(0), 50), (Class::Values(0), 20), (Class::Steps(0), 50)]);
        }
    }
}
