//! The promises of the data loader.

use std::collections::BTreeMap;

use sixpack_train::loader::{Block, Loader, Mixing, Rank, Source};
use sixpack_train::schedule::Schedule;

const LEN: usize = 16;

/// Shards of so many tokens, each token its own index.
fn shards(sizes: &[usize]) -> Vec<(String, Vec<u16>)> {
    let name = |i: usize| format!("train_{i:06}.bin");
    sizes.iter().enumerate().map(|(i, &n)| (name(i), (0..n).map(|t| t as u16).collect())).collect()
}

fn loader<'a>(shards: &'a [(String, Vec<u16>)], mixing: Mixing, seed: u64, rank: Rank) -> Loader<'a> {
    let sources = shards.iter().map(|(name, tokens)| Source { name, content: "", tokens }).collect();
    Loader::new(sources, LEN, mixing, seed, rank).unwrap()
}

#[test]
fn no_block_is_visited_twice_within_a_cut_and_all_are_visited() {
    let shards = shards(&[1000, 333, LEN + 1, 2 * LEN]);
    let mut loader = loader(&shards, Mixing::default(), 3, Rank::ALONE);
    let mut cuts: BTreeMap<(usize, u64), Vec<Block>> = BTreeMap::new();
    for _ in 0..400 {
        let block = loader.next_blocks(1)[0];
        let cut = loader.position().cursors[block.shard].0;
        cuts.entry((block.shard, cut)).or_default().push(block);
    }
    for ((shard, cut), mut blocks) in cuts.clone() {
        let count = blocks.len();
        blocks.sort();
        blocks.dedup();
        assert_eq!(blocks.len(), count, "shard {shard} repeats a block within cut {cut}");
        let phase = blocks[0].start % LEN;
        assert!(blocks.iter().all(|b| b.start % LEN == phase && b.start + LEN < shards[shard].1.len()));
        if cuts.contains_key(&(shard, cut + 1)) {
            assert_eq!(count, (shards[shard].1.len() - 1 - phase) / LEN, "all blocks of cut {cut} of shard {shard}");
        }
    }
    assert!(cuts.contains_key(&(0, 1)) && cuts.contains_key(&(2, 5)), "several cuts were seen");
}

#[test]
fn ranks_partition_the_global_batch() {
    let shards = shards(&[1000, 2000, 500]);
    let mut whole = loader(&shards, Mixing::default(), 9, Rank::ALONE);
    let ranks = (0..3).map(|rank| loader(&shards, Mixing::default(), 9, Rank { rank, world: 3 }));
    let mut ranks: Vec<_> = ranks.collect();
    for _ in 0..20 {
        let global = whole.next_blocks(12);
        let parts: Vec<_> = ranks.iter_mut().map(|r| r.next_blocks(12)).collect();
        for (i, block) in global.iter().enumerate() {
            assert_eq!(parts[i % 3][i / 3], *block);
        }
    }
}

#[test]
fn a_resumed_loader_goes_on_as_if_uninterrupted() {
    let shards = shards(&[700, 300, 90]);
    let mut straight = loader(&shards, Mixing::default(), 1, Rank::ALONE);
    for _ in 0..17 {
        straight.next_blocks(5);
    }
    let saved = serde_json::to_string(&straight.position()).unwrap();
    let mut resumed = loader(&shards, Mixing::default(), 1, Rank::ALONE);
    resumed.seek(&serde_json::from_str(&saved).unwrap()).unwrap();
    for _ in 0..40 {
        assert_eq!(straight.next_batch(5), resumed.next_batch(5));
    }
    let mut other = loader(&shards, Mixing::default(), 2, Rank::ALONE);
    assert_ne!(straight.next_blocks(5), other.next_blocks(5), "the seed decides");
    let mut wrong = straight.position();
    wrong.cursors[2].1 = 1000;
    assert!(other.seek(&wrong).unwrap_err().to_string().contains("blocks of train_000002.bin"));
    wrong.cursors.pop();
    assert!(other.seek(&wrong).unwrap_err().to_string().contains("expected 3 cursors, found 2"));
}

#[test]
fn batches_hold_the_tokens_of_their_blocks() {
    let shards = shards(&[1000]);
    let mut blocks = loader(&shards, Mixing::default(), 4, Rank::ALONE);
    let mut batches = blocks.clone();
    let (blocks, batch) = (blocks.next_blocks(7), batches.next_batch(7));
    assert_eq!(batch.count(), 7);
    for (i, block) in blocks.iter().enumerate() {
        for t in 0..LEN {
            assert_eq!(batch.inputs[i * LEN + t] as usize, block.start + t);
            assert_eq!(batch.targets[i * LEN + t] as usize, block.start + t + 1);
        }
    }
}

#[test]
fn shards_are_drawn_by_what_remains_and_more_of_them_later() {
    let shards = shards(&[16_000, 16_000, 16_000, 1_600]);
    let mixing = Mixing { shards: Schedule::steps(&[(0, 1.0), (100, 4.0)]), alpha: Schedule::constant(0.5) };
    let mut loader = loader(&shards, mixing, 8, Rank::ALONE);
    let mut counts = [0usize; 4];
    for batch in 0..200 {
        let blocks = loader.next_blocks(8);
        let mut used: Vec<_> = blocks.iter().map(|b| b.shard).collect();
        // Interleaved: the first blocks are of different shards.
        let expected = [1, 2, 3, 4][((batch as f64 * 0.03).round() as usize).min(3)];
        used.truncate(expected);
        used.sort();
        used.dedup();
        assert_eq!(used.len(), expected, "shards of batch {batch}");
        blocks.iter().for_each(|b| counts[b.shard] += 1);
    }
    // Three equal shards, and one with a tenth of the blocks, so about a third of the weight.
    for (i, &count) in counts[..3].iter().enumerate() {
        assert!((400..560).contains(&count), "shard {i} gave {count} of 1600 blocks");
    }
    assert!((150..350).contains(&counts[3]), "the small shard gave {} of 1600 blocks", counts[3]);
}

#[test]
fn one_tiny_shard_is_enough_and_a_shorter_one_is_refused() {
    let one = shards(&[LEN + 1]);
    let mut tiny = loader(&one, Mixing::default(), 0, Rank::ALONE);
    assert_eq!(tiny.next_blocks(5), vec![Block { shard: 0, start: 0 }; 5]);
    let tokens = [0; LEN];
    let refuse = |sources| Loader::new(sources, LEN, Mixing::default(), 0, Rank::ALONE).unwrap_err().to_string();
    let message = refuse(vec![Source { name: "short.bin", content: "", tokens: &tokens }]);
    assert_eq!(message, "shard `short.bin`: expected at least 17 tokens, found 16");
    assert!(refuse(vec![]).contains("expected at least one shard"));
}
