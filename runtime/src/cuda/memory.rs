//! Memory of a GPU.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::driver::Driver;
use crate::Result;

/// What elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 32-bit floats.
    F32,
    /// Their upper halves.
    Bf16,
    /// 32-bit integers: token ids and the like.
    Int,
}

impl Kind {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        if self == Self::Bf16 { 2 } else { 4 }
    }
}

impl fmt::Display for Kind {
    /// As the kernels' C++ names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "float",
            Self::Bf16 => "bf16",
            Self::Int => "int",
        })
    }
}

/// Elements in a GPU's memory, or some of those; clones are the same memory.
#[derive(Clone)]
pub struct Buffer {
    memory: Arc<Memory>,
    kind: Kind,
    /// In elements.
    range: Range<usize>,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.len(), self.kind)
    }
}

impl Buffer {
    /// Its elements' kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.kind.bytes()
    }

    /// Some of its elements.
    ///
    /// # Panics
    /// If it does not have them.
    pub fn part(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {} elements", self.len());
        let start = self.range.start;
        Self { memory: Arc::clone(&self.memory), kind: self.kind, range: start + range.start..start + range.end }
    }

    /// Whether it has elements of another's.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let [a, b] = [&self.range, &other.range];
        Arc::ptr_eq(&self.memory, &other.memory) && a.start < b.end && b.start < a.end
    }

    /// Both as one, if the other one follows it in the same memory.
    pub(super) fn with(&self, next: &Self) -> Option<Self> {
        let follows =
            Arc::ptr_eq(&self.memory, &next.memory) && self.kind == next.kind && self.range.end == next.range.start;
        follows.then(|| Self { range: self.range.start..next.range.end, ..self.clone() })
    }

    /// Where it begins.
    pub(super) fn address(&self) -> u64 {
        self.memory.address + (self.range.start * self.kind.bytes()) as u64
    }
}

/// An allocation, which goes back to where it came from.
struct Memory {
    address: u64,
    bytes: usize,
    home: Arc<Pool>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.home.give_back(self.address, self.bytes);
    }
}

/// Memory that is used again: allocating it waits for the GPU. All work of a pool's memory is of one stream, so that who
/// takes memory that was given back comes after who had it.
#[derive(Debug)]
pub(super) struct Pool {
    driver: Arc<Driver>,
    /// Of each size those that nobody uses; `None` where nothing is used again.
    free: Option<Mutex<HashMap<usize, Vec<u64>>>>,
    /// Whether work was recorded that uses what is free.
    fixed: AtomicBool,
}

impl Pool {
    pub(super) fn new(driver: Arc<Driver>, reuse: bool) -> Arc<Self> {
        Arc::new(Self { driver, free: reuse.then(Mutex::default), fixed: AtomicBool::new(false) })
    }

    /// Memory with anything in it. Sizes are exact: those of a training step are the same in each.
    pub(super) fn take(self: &Arc<Self>, kind: Kind, len: usize) -> Result<Buffer> {
        // What has no elements has an address all the same.
        let exact = (len * kind.bytes()).max(16);
        let bytes = if self.free.is_some() { rounded(exact) } else { exact };
        let kept = self.free.as_ref().and_then(|free| lock(free).get_mut(&bytes)?.pop());
        let address = match kept {
            Some(address) => address,
            None => match self.driver.allocate(bytes) {
                Ok(address) => address,
                // What is kept of other sizes may be in the way.
                Err(_) if self.empty() => self.driver.allocate(bytes)?,
                Err(error) => return Err(error),
            },
        };
        let memory = Arc::new(Memory { address, bytes, home: Arc::clone(self) });
        Ok(Buffer { memory, kind, range: 0..len })
    }

    fn give_back(&self, address: u64, bytes: usize) {
        match &self.free {
            Some(free) => lock(free).entry(bytes).or_default().push(address),
            None => self.driver.free(address),
        }
    }

    /// From now on nothing goes back to the driver: work was recorded that uses it.
    pub(super) fn fix(&self) {
        self.fixed.store(true, Ordering::Relaxed);
    }

    /// Gives all that nobody uses back to the driver; whether there was any.
    fn empty(&self) -> bool {
        if self.fixed.load(Ordering::Relaxed) {
            return false;
        }
        let free = self.free.as_ref().map(|free| std::mem::take(&mut *lock(free))).unwrap_or_default();
        let addresses: Vec<u64> = free.into_values().flatten().collect();
        addresses.iter().for_each(|&address| self.driver.free(address));
        !addresses.is_empty()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.fixed.store(false, Ordering::Relaxed);
        self.empty();
    }
}

/// Texts of many lengths share memory; what is large, and in each step of a training the same, is as large as it is.
fn rounded(bytes: usize) -> usize {
    const LARGE: usize = 16 << 20;
    if bytes < LARGE { bytes.next_multiple_of((bytes.next_power_of_two() / 8).max(16)) } else { bytes }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
