//! Streams beside a GPU's own, events that one waits for of another, and memory of the host that is pinned, so that copies
//! from and to it go on by themselves.
#![allow(unsafe_code, reason = "the driver's functions take handles and addresses")]

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::driver::Driver;
use super::gpu::Gpu;
use super::memory::Buffer;
use crate::Result;

/// A stream beside a GPU's own. What is queued on it comes neither before nor after what is queued elsewhere, unless one
/// [waits](Stream::after) for an event of the other.
#[derive(Debug)]
pub struct Stream {
    driver: Arc<Driver>,
    raw: sys::CUstream,
}

// SAFETY: the driver takes a stream from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above; the driver has locks of its own.
unsafe impl Sync for Stream {}

/// A place in a stream's line, which is reached when all that was queued before it is done.
#[derive(Debug)]
pub struct Event {
    driver: Arc<Driver>,
    raw: sys::CUevent,
}

// SAFETY: the driver takes an event from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

/// Words of 32 bits in memory of the host that is pinned. While a copy may be under way nothing reads or writes them: who
/// asks for them waits for the last one.
#[derive(Debug)]
pub struct Pinned {
    at: *mut u32,
    len: usize,
    /// Reached when the last copy is done.
    done: Event,
    copying: bool,
}

// SAFETY: the memory is this value's alone, and the driver takes its address from any thread.
unsafe impl Send for Pinned {}
// SAFETY: a shared reference gives no way to the words.
unsafe impl Sync for Pinned {}

/// A function that a stream calls when it gets there, on a thread of the driver's. It must not call CUDA.
type Call = Box<dyn FnOnce() + Send>;

impl Stream {
    pub(super) fn open(driver: &Arc<Driver>) -> Result<Self> {
        let raw =
            driver.with("opening a stream", || result::stream::create(result::stream::StreamKind::NonBlocking))?;
        Ok(Self { driver: Arc::clone(driver), raw })
    }

    /// One whose work goes first where the GPU has a choice.
    pub(super) fn open_ahead(driver: &Arc<Driver>) -> Result<Self> {
        let kind = result::stream::StreamKind::NonBlocking;
        // The driver takes the nearest priority that there is.
        let raw = driver.with("opening a stream", || result::stream::create_with_priority(kind, -16))?;
        Ok(Self { driver: Arc::clone(driver), raw })
    }

    /// The driver's handle.
    pub(super) fn raw(&self) -> sys::CUstream {
        self.raw
    }

    /// Marks the end of what is queued.
    ///
    /// # Errors
    /// What the driver says.
    pub fn mark(&self, event: &Event) -> Result<()> {
        event.record(self.raw)
    }

    /// Lets what is queued from now on come after an event. The host does not wait.
    ///
    /// # Errors
    /// What the driver says.
    pub fn after(&self, event: &Event) -> Result<()> {
        event.before(self.raw)
    }

    /// Waits for all that is queued.
    ///
    /// # Errors
    /// What the driver says of it.
    pub fn wait(&self) -> Result<()> {
        self.driver.wait_for(self.raw)
    }

    /// Calls a function when all that is queued is done; what is queued after it waits until it returns. Each time, if it is
    /// [recorded](Gpu::record): it must stay as long as the record.
    ///
    /// # Safety
    /// `function` is called with `argument` from another thread, as often as this is queued or replayed. It must not call
    /// CUDA, nor unwind.
    ///
    /// # Errors
    /// What the driver says.
    pub unsafe fn call(&self, function: unsafe extern "C" fn(*mut c_void), argument: *mut c_void) -> Result<()> {
        // SAFETY: the caller's.
        let queue = || unsafe { result::stream::launch_host_function(self.raw, function, argument) };
        self.driver.with("queueing a call", queue)
    }

    /// Calls a closure once, when all that is queued is done; not while a step is recorded.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// While a step is recorded.
    pub fn call_once(&self, call: impl FnOnce() + Send + 'static) -> Result<()> {
        unsafe extern "C" fn run(argument: *mut c_void) {
            // SAFETY: it was leaked below, and the driver calls this once.
            let call = unsafe { Box::from_raw(argument.cast::<Call>()) };
            // The driver cannot take a panic; what it would have said is on stderr.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        }
        assert!(!self.driver.is_recording(), "a call that is made once cannot be recorded");
        let call: Box<Call> = Box::new(Box::new(call));
        // SAFETY: `run` takes what is leaked here. If it was not queued it stays leaked: the driver is lost then.
        unsafe { self.call(run, Box::into_raw(call).cast()) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: nothing queues on it after this; what is queued is still done. There is nothing to do about a failure.
        let _ = self.driver.with("ending a stream", || unsafe { result::stream::destroy(self.raw) });
    }
}

impl Event {
    pub(super) fn new(driver: &Arc<Driver>) -> Result<Self> {
        // Events that keep no time are cheaper to wait for.
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let raw = driver.with("making an event", || result::event::create(flags))?;
        Ok(Self { driver: Arc::clone(driver), raw })
    }

    /// Marks the end of what is queued on a stream.
    pub(super) fn record(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: both are there for as long as who has them.
        self.driver.with("marking a stream", || unsafe { result::event::record(self.raw, stream) })
    }

    /// Marks a place of what is being recorded: each replay reaches it anew, and streams that are not recorded may wait for
    /// that once the replay is queued.
    fn record_in_graph(&self, stream: sys::CUstream) -> Result<()> {
        let external = sys::CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32;
        // SAFETY: both are there for as long as who has them, and the graph is not replayed without its event.
        let record = || unsafe { sys::cuEventRecordWithFlags(self.raw, stream, external) }.result();
        self.driver.with("marking a recorded step", record)
    }

    /// Lets a stream wait.
    pub(super) fn before(&self, stream: sys::CUstream) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both are there for as long as who has them.
        self.driver.with("waiting for an event", || unsafe { result::stream::wait_event(stream, self.raw, flags) })
    }

    /// Whether it was reached, or never marked; does not wait.
    ///
    /// # Errors
    /// What the driver says of what was queued before it.
    pub fn is_reached(&self) -> Result<bool> {
        self.driver.with("asking for an event", || {
            // SAFETY: it lives as long as this value.
            match unsafe { result::event::query(self.raw) } {
                Err(result::DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
                asked => asked.map(|()| true),
            }
        })
    }

    /// Waits until it is reached.
    ///
    /// # Errors
    /// What the driver says of what was queued before it.
    pub fn wait(&self) -> Result<()> {
        self.driver.count_wait();
        // SAFETY: it lives as long as this value.
        self.driver.with("waiting for the GPU", || unsafe { result::event::synchronize(self.raw) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is not used after this; who waits for it goes on waiting. There is nothing to do about a failure.
        let _ = self.driver.with("ending an event", || unsafe { result::event::destroy(self.raw) });
    }
}

impl Pinned {
    pub(super) fn new(driver: &Arc<Driver>, len: usize) -> Result<Self> {
        driver.count_allocation();
        let at: *mut u32 = match driver.is_imagined() {
            true => Box::into_raw(vec![0_u32; len].into_boxed_slice()).cast(),
            // SAFETY: nothing is read before it was written, see below.
            false => driver
                .with("pinning memory", || unsafe { result::malloc_host(len.max(1) * size_of::<u32>(), 0) })?
                .cast(),
        };
        // SAFETY: as many words were just allocated.
        unsafe { at.write_bytes(0, len) };
        Ok(Self { at, len, done: Event::new(driver)?, copying: false })
    }

    /// Words.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The words, after the last copy.
    ///
    /// # Errors
    /// What the driver says of what was queued.
    pub fn words(&mut self) -> Result<&mut [u32]> {
        if self.copying {
            if !self.done.is_reached()? {
                self.done.wait()?;
            }
            self.copying = false;
        }
        // SAFETY: there are as many, all of which were written; no copy is under way, and none starts while they are
        // borrowed.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.at, self.len) })
    }

    /// Queues a copy of the first words to a GPU's memory, on a stream of the same one or on its own. Not while a step is
    /// recorded.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// If there are fewer words than the memory has bytes for, or a step is recorded.
    pub fn copy_to(&mut self, to: &Buffer, stream: Option<&Stream>) -> Result<()> {
        assert!(to.bytes() <= self.len * size_of::<u32>(), "{} words for {to:?}", self.len);
        let stream = self.begin(stream);
        let driver = &self.done.driver;
        // SAFETY: the words are there, and stay until the copy is done: whoever wants them waits for `done`.
        unsafe {
            let words = std::slice::from_raw_parts(self.at.cast::<u8>(), to.bytes());
            driver.with("copying to the GPU", || result::memcpy_htod_async(to.address(), words, stream))?;
        }
        self.done.record(stream)
    }

    /// Queues a copy of a GPU's memory to the words from `at` on, as [`Pinned::copy_to`].
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// As [`Pinned::copy_to`].
    pub fn copy_from(&mut self, from: &Buffer, at: usize, stream: Option<&Stream>) -> Result<()> {
        let Range { start, end } = at..at + from.bytes().div_ceil(size_of::<u32>());
        assert!(end <= self.len, "words {start} to {end} of {} from {from:?}", self.len);
        let stream = self.begin(stream);
        let driver = &self.done.driver;
        // SAFETY: as above.
        unsafe {
            let words = std::slice::from_raw_parts_mut(self.at.add(start).cast::<u8>(), from.bytes());
            driver.with("copying from the GPU", || result::memcpy_dtoh_async(words, from.address(), stream))?;
        }
        self.done.record(stream)
    }

    /// The stream of a copy that begins: from now on the words are not the host's.
    fn begin(&mut self, stream: Option<&Stream>) -> sys::CUstream {
        assert!(!self.done.driver.is_recording(), "copies from and to pinned memory are not recorded");
        self.copying = true;
        stream.map_or(self.done.driver.stream(), Stream::raw)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Where the driver is lost no copy is under way any more.
        let _ = self.words();
        let driver = &self.done.driver;
        if driver.is_imagined() {
            // SAFETY: it came from a box of as many words, see `new`.
            drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(self.at, self.len)) });
            return;
        }
        // SAFETY: it came from the driver, and its one owner ends. There is nothing to do about a failure.
        let _ = driver.with("freeing memory", || unsafe { result::free_host(self.at.cast()) });
    }
}

impl Gpu {
    /// A stream beside its own.
    ///
    /// # Errors
    /// What the driver says.
    pub fn stream(&self) -> Result<Stream> {
        Stream::open(self.driver())
    }

    /// A stream whose work goes first where the GPU has a choice.
    pub(super) fn stream_ahead(&self) -> Result<Stream> {
        Stream::open_ahead(self.driver())
    }

    /// An event, which nothing waits for before it is marked.
    ///
    /// # Errors
    /// What the driver says.
    pub fn event(&self) -> Result<Event> {
        Event::new(self.driver())
    }

    /// Pinned words, all 0.
    ///
    /// # Errors
    /// What the driver says.
    pub fn pinned(&self, len: usize) -> Result<Pinned> {
        Pinned::new(self.driver(), len)
    }

    /// Marks the end of what is queued on its own stream.
    ///
    /// # Errors
    /// What the driver says.
    pub fn mark(&self, event: &Event) -> Result<()> {
        event.record(self.driver().stream())
    }

    /// As [`Gpu::mark`], and where a step is being recorded at each replay: for streams that are not recorded with it. The
    /// event must stay as long as the record.
    ///
    /// # Errors
    /// What the driver says.
    pub fn mark_for_others(&self, event: &Event) -> Result<()> {
        match self.driver().is_recording() {
            true => event.record_in_graph(self.driver().stream()),
            false => self.mark(event),
        }
    }

    /// Lets what is queued on its own stream from now on come after an event.
    ///
    /// # Errors
    /// What the driver says.
    pub fn after(&self, event: &Event) -> Result<()> {
        event.before(self.driver().stream())
    }
}
