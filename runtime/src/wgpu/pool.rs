//! Buffers of activations, used again: what one operation has left serves the next.
//!
//! Commands run in the order they were recorded, so that a buffer may be given out again while those that use it are
//! still queued.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::machine::Machine;

/// Bytes kept that are not in use, at most.
const KEPT: u64 = 256 << 20;

/// What is behind the values of a guarded buffer: a NaN that no arithmetic makes.
pub(super) const GUARD: u32 = 0x7fc0_5a5a;

/// Bytes of the zone behind the values of a guarded buffer.
pub(super) const ZONE: u64 = 256;

/// Buffers that are not in use, by size.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: BTreeMap<u64, Vec<wgpu::Buffer>>,
    bytes: u64,
    /// Where buffers have a zone behind their values that is filled with [`GUARD`]: those whose zones were not seen
    /// since they were last in use.
    guarded: Option<Vec<Arc<Guarded>>>,
}

/// A buffer with a zone behind its values.
#[derive(Debug)]
pub(super) struct Guarded {
    pub(super) buffer: wgpu::Buffer,
    /// Where the zone begins.
    pub(super) room: u64,
}

/// A buffer in use; it goes back to the pool when it is dropped.
#[derive(Debug)]
pub(super) struct Pooled {
    buffer: wgpu::Buffer,
    pool: Arc<Mutex<Pool>>,
    guarded: Option<Arc<Guarded>>,
}

impl Pool {
    pub(super) fn new(guarded: bool) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { guarded: guarded.then(Vec::new), ..Self::default() }))
    }

    /// All guarded buffers in use, and those that were since the last call.
    pub(super) fn to_check(pool: &Mutex<Self>) -> Vec<Arc<Guarded>> {
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        let all = pool.guarded.clone().unwrap_or_default();
        // Two are the lists here and there: nobody else will write to those again.
        pool.guarded.iter_mut().for_each(|kept| kept.retain(|guarded| Arc::strong_count(guarded) > 2));
        all
    }

    /// Whether more is kept than should be. Then everything is let go, and who refers to its buffers must forget them.
    pub(super) fn trim(pool: &Mutex<Self>) -> bool {
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        let too_much = pool.bytes > KEPT;
        if too_much {
            pool.free.clear();
            pool.bytes = 0;
        }
        too_much
    }
}

impl Pooled {
    /// A buffer of at least `bytes`, from the pool or new.
    pub(super) fn take(pool: &Arc<Mutex<Pool>>, machine: &Machine, bytes: u64) -> Self {
        let size = size_class(bytes);
        {
            let mut inner = pool.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(buffer) = inner.free.get_mut(&size).and_then(Vec::pop) {
                inner.bytes -= size;
                return Self { buffer, pool: Arc::clone(pool), guarded: None };
            }
        }
        Self::new(pool, machine, bytes)
    }

    /// A new buffer of at least `bytes`, that goes to the pool when it is dropped.
    pub(super) fn new(pool: &Arc<Mutex<Pool>>, machine: &Machine, bytes: u64) -> Self {
        let mut inner = pool.lock().unwrap_or_else(PoisonError::into_inner);
        let room = bytes.next_multiple_of(4);
        let buffer = machine.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("activation"),
            size: if inner.guarded.is_some() { room + ZONE } else { size_class(bytes) },
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let guarded = inner.guarded.as_mut().map(|all| {
            let words = vec![GUARD; buffer.size() as usize / 4];
            machine.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&words));
            let guarded = Arc::new(Guarded { buffer: buffer.clone(), room });
            all.push(Arc::clone(&guarded));
            guarded
        });
        Self { buffer, pool: Arc::clone(pool), guarded }
    }

    pub(super) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Bytes that may be written.
    pub(super) fn room(&self) -> u64 {
        self.guarded.as_ref().map_or(self.buffer.size(), |guarded| guarded.room)
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // A guarded buffer is not used again: its guard is written once.
        if self.guarded.is_none() {
            let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            let size = self.buffer.size();
            pool.bytes += size;
            pool.free.entry(size).or_default().push(self.buffer.clone());
        }
    }
}

/// The next of four sizes between powers of two, so that shapes that differ a little share buffers.
fn size_class(bytes: u64) -> u64 {
    let step = (bytes.max(1).next_power_of_two() / 8).max(256);
    bytes.max(1).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_wastes_a_quarter_at_most() {
        for bytes in (1..40_000).chain([1 << 27, (1 << 27) - 4, (1 << 27) + 4]) {
            let size = size_class(bytes);
            assert!(size >= bytes && size.is_multiple_of(256), "{bytes}: {size}");
            assert!(size <= (bytes + bytes / 4).max(256).next_multiple_of(256), "{bytes}: {size}");
            assert_eq!(size_class(size), size);
        }
    }
}
