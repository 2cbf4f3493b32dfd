//! The merges of byte-pair encoding, learned from counted words.
//!
//! All words lie in one row of symbols. Each pair of neighbours knows its count and the places where it has stood; a
//! merge visits only the places of its pair and corrects the counts of the neighbours there. A heap gives the most
//! frequent pair; its entries may be out of date, and are put right when they come up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::rc::Rc;

use super::validity::is_valid;
use super::words::Word;
use super::{FIXED, SPECIAL};

/// Stands between words and for characters that have no piece: never part of a pair.
const WALL: u32 = 0;

/// The end of a chain of places.
const NOWHERE: u32 = u32::MAX;

/// Learns up to `count` merges: fewer where the text has no more pairs.
pub(super) fn learn(words: &[Word], alphabet: &[(char, u64)], count: usize, max_chars: usize) -> Vec<Rc<str>> {
    let mut learner = Learner::new(words, alphabet, max_chars);
    let mut merged = Vec::with_capacity(count);
    while merged.len() < count {
        let Some(pair) = learner.best() else { break };
        let piece = Rc::clone(&learner.pairs[&pair].piece);
        // "aaa" can be made in two ways, but is one piece. The second way is never taken.
        if learner.taken.insert(Rc::clone(&piece)) {
            learner.merge(pair);
            merged.push(piece);
        } else {
            learner.give_up(pair);
        }
    }
    merged
}

/// Two neighbouring symbols.
type Pair = (u32, u32);

/// What is known of a pair.
struct PairState {
    /// How often it stands in the text now.
    count: u64,
    /// Where it has been seen: the place of the left symbol.
    places: Vec<u32>,
    /// What it would become.
    piece: Rc<str>,
    chars: u32,
    /// False where it cannot be a piece, or is one already.
    open: bool,
}

/// An entry of the heap. The greatest is the most frequent; of these the one with the fewest characters; of these the
/// first by its bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    count: u64,
    chars: Reverse<u32>,
    piece: Reverse<Rc<str>>,
    pair: Pair,
}

struct Learner {
    /// The text of every symbol.
    symbols: Vec<Rc<str>>,
    /// The row of symbols: a wall, a word, a wall, a word, …, a wall. Merged-away places stay, out of the chain.
    row: Vec<u32>,
    next: Vec<u32>,
    previous: Vec<u32>,
    /// How often the word at each place occurs.
    weights: Vec<u64>,
    pairs: HashMap<Pair, PairState>,
    heap: BinaryHeap<Entry>,
    /// Pairs whose count has grown since they were last put on the heap.
    grown: HashSet<Pair>,
    taken: HashSet<Rc<str>>,
    max_chars: usize,
}

impl Learner {
    fn new(words: &[Word], alphabet: &[(char, u64)], max_chars: usize) -> Self {
        let mut symbols: Vec<Rc<str>> = vec!["".into()];
        let ids: HashMap<char, u32> = alphabet.iter().zip(1..).map(|(&(c, _), id)| (c, id)).collect();
        symbols.extend(alphabet.iter().map(|(c, _)| Rc::from(c.to_string())));
        let (mut row, mut weights) = (vec![WALL], vec![0]);
        for (word, count) in words {
            row.extend(word.chars().map(|c| ids.get(&c).copied().unwrap_or(WALL)));
            row.push(WALL);
            weights.resize(row.len(), *count);
        }
        let places = row.len() as u32;
        let mut learner = Self {
            symbols,
            row,
            next: (1..=places).map(|p| if p == places { NOWHERE } else { p }).collect(),
            previous: (0..places).map(|p| p.wrapping_sub(1)).collect(),
            weights,
            pairs: HashMap::new(),
            heap: BinaryHeap::new(),
            grown: HashSet::new(),
            taken: SPECIAL.iter().map(|&s| s.into()).collect(),
            max_chars,
        };
        learner.taken.extend((0..FIXED - SPECIAL.len()).map(|byte| Rc::from(format!("<0x{byte:02X}>"))));
        for place in 0..places - 1 {
            learner.add(place, place + 1);
        }
        learner.refill();
        learner
    }

    /// The most frequent pair that stands in the text, if any.
    fn best(&mut self) -> Option<Pair> {
        while let Some(entry) = self.heap.pop() {
            let Some(state) = self.pairs.get(&entry.pair).filter(|s| s.open && s.count > 0) else { continue };
            if state.count == entry.count {
                return Some(entry.pair);
            }
            if state.count < entry.count {
                let entry = state.entry(entry.pair);
                self.heap.push(entry);
            }
            // Where the count has grown, a newer entry has come up already or will.
        }
        None
    }

    /// Makes one symbol of a pair wherever it stands.
    fn merge(&mut self, pair: Pair) {
        let Some(state) = self.pairs.get_mut(&pair) else { return };
        let (mut places, piece) = (std::mem::take(&mut state.places), Rc::clone(&state.piece));
        self.give_up(pair);
        // From left to right, so that "aaa" becomes "aa" and "a".
        places.sort_unstable();
        let merged = self.symbols.len() as u32;
        self.symbols.push(piece);
        for left in places {
            let right = self.next[left as usize];
            if right == NOWHERE || (self.row[left as usize], self.row[right as usize]) != pair {
                continue;
            }
            let (before, after) = (self.previous[left as usize], self.next[right as usize]);
            self.subtract(before, left);
            self.subtract(right, after);
            self.row[left as usize] = merged;
            self.row[right as usize] = WALL;
            self.next[left as usize] = after;
            self.previous[after as usize] = left;
            self.add(before, left);
            self.add(left, after);
        }
        self.refill();
    }

    /// Takes a pair out of the race for good.
    fn give_up(&mut self, pair: Pair) {
        if let Some(state) = self.pairs.get_mut(&pair) {
            state.open = false;
            state.places = Vec::new();
        }
    }

    fn add(&mut self, left: u32, right: u32) {
        let pair = (self.row[left as usize], self.row[right as usize]);
        if pair.0 == WALL || pair.1 == WALL {
            return;
        }
        let (symbols, max_chars) = (&self.symbols, self.max_chars);
        let state = self.pairs.entry(pair).or_insert_with(|| PairState::new(symbols, pair, max_chars));
        if state.open {
            state.count += self.weights[left as usize];
            state.places.push(left);
            self.grown.insert(pair);
        }
    }

    fn subtract(&mut self, left: u32, right: u32) {
        let pair = (self.row[left as usize], self.row[right as usize]);
        if let Some(state) = self.pairs.get_mut(&pair).filter(|state| state.open) {
            state.count -= self.weights[left as usize];
        }
    }

    fn refill(&mut self) {
        for pair in self.grown.drain() {
            if let Some(state) = self.pairs.get(&pair) {
                self.heap.push(state.entry(pair));
            }
        }
    }
}

impl PairState {
    fn new(symbols: &[Rc<str>], pair: Pair, max_chars: usize) -> Self {
        let piece: Rc<str> = [&*symbols[pair.0 as usize], &*symbols[pair.1 as usize]].concat().into();
        let open = is_valid(&piece, max_chars);
        Self { count: 0, places: Vec::new(), chars: piece.chars().count() as u32, piece, open }
    }

    fn entry(&self, pair: Pair) -> Entry {
        Entry { count: self.count, chars: Reverse(self.chars), piece: Reverse(Rc::clone(&self.piece)), pair }
    }
}
