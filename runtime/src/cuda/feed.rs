//! What each step brings to a GPU: copied from pinned memory on a stream of its own, while the step before still computes.

use std::sync::Arc;

use super::gpu::Gpu;
use super::memory::{Buffer, Kind};
use super::streams::{Event, Pinned, Stream};
use crate::Result;

/// Two places that steps bring words to in turn.
#[derive(Debug)]
pub struct Feed {
    /// With memory of its own, which two streams use.
    gpu: Arc<Gpu>,
    kind: Kind,
    stream: Stream,
    slots: [Option<Slot>; 2],
    /// The one that was used last.
    last: usize,
}

#[derive(Debug)]
struct Slot {
    words: Pinned,
    there: Buffer,
    copied: Event,
    /// Reached when what was queued after the copy, up to the next one, is done.
    read: Event,
}

impl Feed {
    /// A feed of elements of 32 bits.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// If the elements are of another size.
    pub fn new(gpu: &Gpu, kind: Kind) -> Result<Self> {
        assert_eq!(kind.bytes(), size_of::<u32>(), "words of 32 bits");
        let gpu = gpu.apart();
        let stream = gpu.stream()?;
        Ok(Self { gpu, kind, stream, slots: [None, None], last: 0 })
    }

    /// Brings so many words, which `fill` writes; they are there for what is queued next, until the second time after this.
    /// The host waits only where it is so far ahead that the copy before the last is not done.
    ///
    /// # Errors
    /// Those of `fill`, which leave all as it was, and what the driver says.
    pub fn bring(&mut self, words: usize, fill: impl FnOnce(&mut [u32]) -> Result<()>) -> Result<Buffer> {
        let (gpu, kind) = (&self.gpu, self.kind);
        if let Some(last) = &self.slots[self.last] {
            gpu.mark(&last.read)?;
        }
        let turn = 1 - self.last;
        if self.slots[turn].as_ref().is_none_or(|slot| slot.words.len() < words) {
            // Its memory may be read still.
            gpu.wait()?;
            let (pinned, there) = (gpu.pinned(words)?, gpu.empty(kind, words)?);
            self.slots[turn] = Some(Slot { words: pinned, there, copied: gpu.event()?, read: gpu.event()? });
        }
        let slot = self.slots[turn].as_mut().expect("it was just made");
        fill(&mut slot.words.words()?[..words])?;
        let there = slot.there.part(0..words);
        self.stream.after(&slot.read)?;
        slot.words.copy_to(&there, Some(&self.stream))?;
        self.stream.mark(&slot.copied)?;
        gpu.after(&slot.copied)?;
        self.last = turn;
        Ok(there)
    }
}
