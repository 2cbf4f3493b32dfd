//! The data loader: batches that never hold neighbouring pieces of one document, determined by the seed and the names
//! of the shards.
//!
//! Each shard is cut, from a random phase, into blocks of one sequence, which are visited with a random stride coprime
//! to their number: every block once, in an order far from the text's. When all are used the shard is cut anew. A
//! batch draws its blocks from several shards, the fuller ones likelier. All randomness is a function of the seed, the
//! shard's name and a counter, so the state that a resumed run needs is two numbers for each shard.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::engine::Sequences;
use crate::schedule::{Progress, Schedule};
use crate::{Error, Result};

/// The tokens of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// File name without folders.
    pub name: &'a str,
    /// Hash of the file, or another word for its content; a resumed run must find the same.
    pub content: &'a str,
    /// Its tokens.
    pub tokens: &'a [u16],
}

/// How blocks are drawn from shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mixing {
    /// Shards of a batch, by batches drawn (in steps).
    pub shards: Schedule,
    /// A shard is drawn with weight `remaining^alpha`, by batches drawn (in steps).
    pub alpha: Schedule,
}

impl Default for Mixing {
    fn default() -> Self {
        Self { shards: Schedule::steps(&[(0, 8.0), (1800, 32.0)]), alpha: Schedule::steps(&[(0, 0.9), (1800, 0.5)]) }
    }
}

/// This process among those that share each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// From 0.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
}

impl Rank {
    /// A single process.
    pub const ALONE: Self = Self { rank: 0, world: 1 };
}

/// Where a loader is: what a resumed run needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Batches drawn.
    pub batches: u64,
    /// For each shard: how often it was cut, and blocks used of this cut.
    pub cursors: Vec<(u64, u64)>,
}

/// A block: one sequence and the token after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Index of the shard.
    pub shard: usize,
    /// Index of its first token.
    pub start: usize,
}

/// One cut of a shard.
#[derive(Clone, Debug)]
struct Cursor {
    /// How often the shard was cut before.
    cut: u64,
    used: u64,
    phase: usize,
    blocks: u64,
    first: u64,
    stride: u64,
}

/// Draws batches from shards.
#[derive(Clone, Debug)]
pub struct Loader<'a> {
    sources: Vec<Source<'a>>,
    len: usize,
    mixing: Mixing,
    seed: u64,
    rank: Rank,
    batches: u64,
    cursors: Vec<Cursor>,
}

impl<'a> Loader<'a> {
    /// A loader of sequences of `len` tokens.
    ///
    /// # Errors
    /// If there is no shard, or one is too short for a sequence and its last target.
    pub fn new(sources: Vec<Source<'a>>, len: usize, mixing: Mixing, seed: u64, rank: Rank) -> Result<Self> {
        if sources.is_empty() {
            return Err(Error::NoShards);
        }
        if let Some(short) = sources.iter().find(|s| s.tokens.len() <= len) {
            let (name, found) = (short.name.to_owned(), short.tokens.len());
            return Err(Error::ShortShard { name, expected: len + 1, found });
        }
        let cursors = sources.iter().map(|source| Cursor::cut(source, len, seed, 0)).collect();
        Ok(Self { sources, len, mixing, seed, rank, batches: 0, cursors })
    }

    /// The shards.
    pub fn sources(&self) -> &[Source<'a>] {
        &self.sources
    }

    /// Where the loader is.
    pub fn position(&self) -> Position {
        Position { batches: self.batches, cursors: self.cursors.iter().map(|c| (c.cut, c.used)).collect() }
    }

    /// Goes to a position of a loader with the same shards and seed.
    ///
    /// # Errors
    /// If the position is not one of these shards.
    pub fn seek(&mut self, position: &Position) -> Result<()> {
        if position.cursors.len() != self.sources.len() {
            let (expected, found) = (self.sources.len(), position.cursors.len());
            return Err(Error::Cursors { expected: format!("{expected} cursors"), found: format!("{found}") });
        }
        let shards = self.sources.iter().zip(&position.cursors);
        let cursors = shards.map(|(source, &(cut, used))| {
            let cursor = Cursor { used, ..Cursor::cut(source, self.len, self.seed, cut) };
            if used <= cursor.blocks {
                return Ok(cursor);
            }
            let expected = format!("at most {} blocks of {}", cursor.blocks, source.name);
            Err(Error::Cursors { expected, found: used.to_string() })
        });
        self.cursors = cursors.collect::<Result<_>>()?;
        self.batches = position.batches;
        Ok(())
    }

    /// The next batch of `count` blocks over all ranks; returns those of this rank.
    pub fn next_blocks(&mut self, count: usize) -> Vec<Block> {
        let mut rng = generator(self.seed, "batch", self.batches);
        let shares = self.draw(count, &mut rng);
        let mut piles: Vec<Vec<Block>> = shares
            .into_iter()
            .map(|(shard, share)| {
                let mut pile: Vec<_> = (0..share).map(|_| self.next_block(shard)).collect();
                pile.shuffle(&mut rng);
                pile
            })
            .collect();
        self.batches += 1;
        let mut blocks = Vec::with_capacity(count);
        while blocks.len() < count {
            blocks.extend(piles.iter_mut().filter_map(Vec::pop));
        }
        blocks.into_iter().skip(self.rank.rank).step_by(self.rank.world).collect()
    }

    /// The tokens of [`Loader::next_blocks`].
    pub fn next_batch(&mut self, count: usize) -> Sequences {
        let mut batch = Sequences { len: self.len, ..Sequences::default() };
        for block in self.next_blocks(count) {
            let window = &self.sources[block.shard].tokens[block.start..=block.start + self.len];
            batch.inputs.extend(window[..self.len].iter().map(|&t| u32::from(t)));
            batch.targets.extend(window[1..].iter().map(|&t| u32::from(t)));
        }
        batch
    }

    /// Which shards a batch of `count` blocks takes, and how many blocks of each.
    fn draw(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<(usize, usize)> {
        let now = Progress { step: self.batches, fraction: 0.0 };
        let shards = (self.mixing.shards.value(now).round() as usize).clamp(1, self.cursors.len().min(count.max(1)));
        let alpha = self.mixing.alpha.value(now);
        // A used-up cursor will be cut anew, so it counts as full.
        let remaining = |c: &Cursor| if c.used == c.blocks { c.blocks } else { c.blocks - c.used };
        let weights: Vec<f64> = self.cursors.iter().map(|c| (remaining(c) as f64).powf(alpha)).collect();
        // Without replacement: the shards with the earliest of exponential times at these rates.
        let time = |w: &f64| -(1.0 - rng.random::<f64>()).ln() / w;
        let mut order: Vec<(f64, usize)> = weights.iter().map(time).zip(0..).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut shares: Vec<(usize, usize)> = order[..shards].iter().map(|&(_, shard)| (shard, 1)).collect();
        let total: f64 = shares.iter().map(|&(shard, _)| weights[shard]).sum();
        for _ in shards..count {
            let mut ticket = rng.random::<f64>() * total;
            let drawn = shares.iter().position(|&(shard, _)| {
                ticket -= weights[shard];
                ticket < 0.0
            });
            shares[drawn.unwrap_or(shards - 1)].1 += 1;
        }
        shares
    }

    fn next_block(&mut self, shard: usize) -> Block {
        let cursor = &mut self.cursors[shard];
        if cursor.used == cursor.blocks {
            *cursor = Cursor::cut(&self.sources[shard], self.len, self.seed, cursor.cut + 1);
        }
        let index = (cursor.first + cursor.used * cursor.stride) % cursor.blocks;
        cursor.used += 1;
        Block { shard, start: cursor.phase + index as usize * self.len }
    }
}

impl Cursor {
    /// Cut number `cut` of a shard that holds at least one block.
    fn cut(source: &Source<'_>, len: usize, seed: u64, cut: u64) -> Self {
        let mut rng = generator(seed, source.name, cut);
        let phase = rng.random_range(0..len.min(source.tokens.len() - len));
        let blocks = ((source.tokens.len() - 1 - phase) / len) as u64;
        let first = rng.random_range(0..blocks);
        let stride = loop {
            let stride = rng.random_range(0..blocks).max(1);
            if gcd(stride, blocks) == 1 {
                break stride;
            }
        };
        Self { cut, used: 0, phase, blocks, first, stride }
    }
}

/// A generator of its own for each name and counter.
fn generator(seed: u64, name: &str, counter: u64) -> ChaCha8Rng {
    // FNV-1a: it only has to tell names apart.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(counter);
    rng
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
