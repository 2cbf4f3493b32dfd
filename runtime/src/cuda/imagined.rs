//! A GPU that is not there: work on it is left out, and the memory that it would take is counted. The same code runs as on
//! one that is, so the count is what that would take.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys;

use super::driver::{Facts, Function, Graph};

/// The memory of a GPU that is not there.
#[derive(Debug, Default)]
pub(super) struct Imagined(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    /// Bytes at each address.
    at: HashMap<u64, usize>,
    /// Bytes of all of them.
    now: usize,
    /// The most that they ever were.
    most: usize,
    /// Where the next one begins.
    next: u64,
}

impl Imagined {
    /// An H100, as far as it matters.
    pub(super) fn facts() -> Facts {
        Facts {
            name: "an imagined GPU".into(),
            uuid: String::new(),
            capability: [9, 0],
            multiprocessors: 132,
            memory: usize::MAX,
            driver: "none".into(),
        }
    }

    /// Takes memory; addresses are aligned as a driver's.
    pub(super) fn take(&self, bytes: usize) -> u64 {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = taken.next.max(1 << 32);
        taken.next = (address + bytes as u64).next_multiple_of(256);
        taken.at.insert(address, bytes);
        taken.now += bytes;
        taken.most = taken.most.max(taken.now);
        address
    }

    /// Gives memory back.
    pub(super) fn give_back(&self, address: u64) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.now -= taken.at.remove(&address).expect("memory that was taken");
    }

    /// The most bytes that were taken at once.
    pub(super) fn most(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).most
    }
}

/// What comes of a call that is left out.
pub(super) trait Nothing {
    /// It.
    fn nothing() -> Self;
}

impl Nothing for () {
    fn nothing() {}
}

impl Nothing for bool {
    /// Whatever was waited for is done.
    fn nothing() -> Self {
        true
    }
}

impl Nothing for f64 {
    fn nothing() -> Self {
        0.0
    }
}

impl<T> Nothing for *mut T {
    fn nothing() -> Self {
        std::ptr::null_mut()
    }
}

impl<T: Nothing, const N: usize> Nothing for [T; N] {
    fn nothing() -> Self {
        std::array::from_fn(|_| T::nothing())
    }
}

impl Nothing for Graph {
    fn nothing() -> Self {
        Self(sys::CUgraphExec::nothing())
    }
}

impl Nothing for Vec<Function> {
    /// Kernels are never loaded.
    fn nothing() -> Self {
        Self::new()
    }
}
