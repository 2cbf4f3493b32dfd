//! NVIDIA's driver: a device, its memory, and kernels on it. Everything here is queued on one stream, in order; others are in
//! `streams.rs`.
#![allow(unsafe_code, reason = "the driver's functions take pointers and addresses")]

use std::ffi::{CString, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cudarc::driver::result::{self, ctx, device, event, graph, module, primary_ctx, stream};
use cudarc::driver::sys;

use super::imagined::{Imagined, Nothing};
use super::libraries::{self, Places};
use crate::{Error, Result};

/// The oldest driver that has all functions that are used, as it tells its version: for CUDA 12.8.
const OLDEST: i32 = 12_080;

/// A device that is open.
#[derive(Debug)]
pub(super) struct Driver {
    ordinal: usize,
    context: sys::CUcontext,
    stream: sys::CUstream,
    facts: Facts,
    /// Whether it reads memory of the host's that is not pinned by itself, so that a copy may go on after it was queued.
    reads_pages: bool,
    /// Whether what is queued is written down instead.
    recording: AtomicBool,
    /// As in [`Stalls`].
    stalls: [AtomicU64; 3],
    /// The memory of a device that is not there: then no call of the driver's is made.
    imagined: Option<Imagined>,
}

/// How often the host did what holds up a GPU, or may: none of it belongs into a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// It waited for what was queued.
    pub waits: u64,
    /// It asked for memory, of the GPU or pinned, or gave it back.
    pub allocations: u64,
    /// It copied from or to memory that is not pinned.
    pub copies: u64,
}

// SAFETY: the driver's handles may be used from any thread that has made the context its own, which each method does.
unsafe impl Send for Driver {}
// SAFETY: as above; the driver has locks of its own.
unsafe impl Sync for Driver {}

/// What a GPU says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// What tells it from all others, of other machines too.
    pub uuid: String,
    /// Its compute capability, as 9.0.
    pub capability: [usize; 2],
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of its memory.
    pub memory: usize,
    /// The driver and the newest CUDA it knows.
    pub driver: String,
}

impl Facts {
    /// The architecture that kernels are compiled for.
    pub fn architecture(&self) -> String {
        match self.capability {
            [9, 0] => "sm_90a".into(),
            [major, minor] => format!("sm_{major}{minor}"),
        }
    }
}

/// A kernel on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function(sys::CUfunction);

// SAFETY: a handle that the driver takes from any thread. Modules are never unloaded.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// Work that was written down once, to be queued again at once.
#[derive(Debug)]
pub(super) struct Graph(pub(super) sys::CUgraphExec);

/// Opens the driver's library; the first time decides for as long as the program runs.
fn start() -> Result<&'static str> {
    static STARTED: OnceLock<Result<String, String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let (library, opened) = libraries::driver(&Places::usual())?;
        opened.keep();
        // SAFETY: it only asks whether the library is there, which cudarc finds by the name of one that is open.
        if !unsafe { sys::is_culib_present() } {
            return Err(format!("{} is not what its name says", library.path.display()));
        }
        result::init().map_err(words)?;
        let mut known = 0;
        // SAFETY: a valid place to write to.
        unsafe { sys::cuDriverGetVersion(&raw mut known) }.result().map_err(words)?;
        if known < OLDEST {
            let found = format!("{}.{}", known / 1000, known % 1000 / 10);
            return Err(format!("expected one for CUDA 12.8 or newer, found {found}"));
        }
        Ok(library.version)
    });
    started.as_deref().map_err(|reason| Error::Cuda { what: "the driver".into(), reason: reason.clone() })
}

/// What the driver says of a failure.
fn words(error: result::DriverError) -> String {
    let text = error.error_string().ok().map(|text| text.to_string_lossy().into_owned());
    text.unwrap_or_else(|| format!("code {:?}", error.0))
}

impl Driver {
    /// Names of the devices, in the driver's order.
    pub(super) fn devices() -> Result<Vec<Facts>> {
        let version = start()?;
        let failed = |e| Error::Cuda { what: "the driver".into(), reason: words(e) };
        let count = device::get_count().map_err(failed)?;
        (0..count).map(|ordinal| facts(ordinal, version).map_err(failed)).collect()
    }

    /// Opens a device.
    pub(super) fn open(ordinal: usize) -> Result<Self> {
        let version = start()?;
        let failed = |e| Error::Cuda { what: format!("GPU {ordinal}"), reason: words(e) };
        let number = i32::try_from(ordinal).unwrap_or(i32::MAX);
        let facts = facts(number, version).map_err(failed)?;
        let device = device::get(number).map_err(failed)?;
        // SAFETY: the device is there. Its context is kept for as long as the program runs.
        let context = unsafe { primary_ctx::retain(device) }.map_err(failed)?;
        // SAFETY: a context that was just retained.
        unsafe { ctx::set_current(context) }.map_err(failed)?;
        let stream = stream::create(stream::StreamKind::NonBlocking).map_err(failed)?;
        use sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS as PAGES;
        // SAFETY: the device is there.
        let reads_pages = unsafe { device::get_attribute(device, PAGES) }.map_err(failed)? != 0;
        Ok(Self {
            ordinal,
            context,
            stream,
            facts,
            reads_pages,
            recording: AtomicBool::new(false),
            stalls: Default::default(),
            imagined: None,
        })
    }

    /// A device that is not there.
    pub(super) fn imagined() -> Self {
        Self {
            ordinal: 0,
            context: std::ptr::null_mut(),
            stream: std::ptr::null_mut(),
            facts: Imagined::facts(),
            reads_pages: false,
            recording: AtomicBool::new(false),
            stalls: Default::default(),
            imagined: Some(Imagined::default()),
        }
    }

    /// Its number.
    pub(super) fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Whether it is not there.
    pub(super) fn is_imagined(&self) -> bool {
        self.imagined.is_some()
    }

    /// Makes the device that of this thread.
    pub(super) fn bind(&self) -> Result<()> {
        self.with("taking the GPU", || Ok(()))
    }

    /// The stream that everything is queued on.
    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What has held it up so far.
    pub(super) fn stalls(&self) -> Stalls {
        let [waits, allocations, copies] = self.stalls.each_ref().map(|n| n.load(Ordering::Relaxed));
        Stalls { waits, allocations, copies }
    }

    pub(super) fn count_wait(&self) {
        self.stalls[0].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_allocation(&self) {
        self.stalls[1].fetch_add(1, Ordering::Relaxed);
    }

    fn count_copy(&self) {
        self.stalls[2].fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, what: &str, error: result::DriverError) -> Error {
        let (adapter, reason) = (self.facts.name.clone(), format!("{what}: {}", words(error)));
        match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::GpuFull { adapter, reason },
            // After these nothing works in this process any more.
            sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | sys::CUresult::CUDA_ERROR_LAUNCH_FAILED
            | sys::CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | sys::CUresult::CUDA_ERROR_ASSERT
            | sys::CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | sys::CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | sys::CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | sys::CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | sys::CUresult::CUDA_ERROR_INVALID_PC
            | sys::CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | sys::CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => Error::DeviceLost { adapter, reason },
            _ => Error::Gpu { adapter, reason },
        }
    }

    /// Makes the device that of this thread, and does something with it; nothing with one that is not there.
    pub(super) fn with<T: Nothing>(&self, what: &str, f: impl FnOnce() -> Result<T, result::DriverError>) -> Result<T> {
        if self.is_imagined() {
            return Ok(T::nothing());
        }
        // SAFETY: the context is kept for as long as the program runs.
        unsafe { ctx::set_current(self.context) }.and_then(|()| f()).map_err(|e| self.failed(what, e))
    }

    /// Bytes of memory that are taken; of a device that is not there the most that were.
    pub(super) fn taken(&self) -> Result<usize> {
        if let Some(imagined) = &self.imagined {
            return Ok(imagined.most());
        }
        let mut taken = 0;
        self.with("asking for memory", || result::mem_get_info().map(|(free, total)| taken = total - free))?;
        Ok(taken)
    }

    /// Memory with anything in it.
    pub(super) fn allocate(&self, bytes: usize) -> Result<u64> {
        self.count_allocation();
        if let Some(imagined) = &self.imagined {
            return Ok(imagined.take(bytes));
        }
        let mut address = 0;
        // SAFETY: nothing is read before it was written, which the interpreter sees to.
        self.with("allocating memory", || unsafe { result::malloc_sync(bytes) }.map(|at| address = at))?;
        Ok(address)
    }

    /// Gives memory back. The driver waits for what still uses it.
    pub(super) fn free(&self, address: u64) {
        self.count_allocation();
        if let Some(imagined) = &self.imagined {
            return imagined.give_back(address);
        }
        // SAFETY: it came from `allocate`, and its one owner ends. There is nothing to do about a failure.
        let _ = self.with("freeing memory", || unsafe { result::free_sync(address) });
    }

    /// Copies from the host; `data` may be dropped at once.
    pub(super) unsafe fn upload(&self, to: u64, data: &[u8]) -> Result<()> {
        self.count_copy();
        // SAFETY: the caller's memory at `to` has room. From pages that are not pinned the driver copies before it returns,
        // unless the GPU reads them by itself: then it is waited for.
        self.with("copying to the GPU", || unsafe { result::memcpy_htod_async(to, data, self.stream) })?;
        if self.reads_pages { self.wait() } else { Ok(()) }
    }

    /// Copies to the host, and waits for it.
    pub(super) unsafe fn download(&self, from: u64, data: &mut [u8]) -> Result<()> {
        self.count_copy();
        self.count_wait();
        self.with("copying from the GPU", || {
            // SAFETY: the caller's memory at `from` is as large; the copy has ended when `data` is used again.
            unsafe {
                result::memcpy_dtoh_async(data, from, self.stream)?;
                stream::synchronize(self.stream)
            }
        })
    }

    /// Copies within the device.
    pub(super) unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's memories are as large.
        self.with("copying on the GPU", || unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) })
    }

    /// Sets all bits to zero.
    pub(super) unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's memory is as large.
        self.with("filling memory", || unsafe { result::memset_d8_async(at, 0, bytes, self.stream) })
    }

    /// Takes compiled code, and finds kernels in it.
    pub(super) fn load(&self, code: &[u8], names: &[String]) -> Result<Vec<Function>> {
        self.with("loading kernels", || {
            // SAFETY: a cubin that NVRTC made, or one that was kept and whose digest agrees.
            let module = unsafe { module::load_data(code.as_ptr().cast()) }?;
            let function = |name: &String| {
                let name = CString::new(name.as_str()).expect("names have no zero bytes");
                // SAFETY: the module was just loaded, and is never unloaded.
                unsafe { module::get_function(module, name) }.map(Function)
            };
            names.iter().map(function).collect()
        })
    }

    /// Queues a kernel with the bytes of its arguments.
    pub(super) unsafe fn launch(
        &self,
        what: &str,
        function: Function,
        blocks: [u32; 3],
        threads: u32,
        slots: &mut [u64],
    ) -> Result<()> {
        let mut pointers: Vec<*mut c_void> = slots.iter_mut().map(|s| std::ptr::from_mut(s).cast()).collect();
        let [x, y, z] = blocks;
        self.with(what, || {
            // SAFETY: the caller has checked that the kernel takes these arguments, and that memory is behind them.
            unsafe { result::launch_kernel(function.0, (x, y, z), (threads, 1, 1), 0, self.stream, &mut pointers) }
        })
    }

    /// Waits for all that is queued.
    pub(super) fn wait(&self) -> Result<()> {
        self.wait_for(self.stream)
    }

    /// Waits for all that is queued on a stream of this device.
    pub(super) fn wait_for(&self, stream: sys::CUstream) -> Result<()> {
        self.count_wait();
        // SAFETY: the stream lives as long as who has it.
        self.with("waiting for the GPU", || unsafe { stream::synchronize(stream) })
    }

    /// Whether what is queued is written down instead: then nothing may wait for it.
    pub(super) fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    /// Writes down what `f` queues, instead of doing it.
    pub(super) fn record(&self, f: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as this value.
        self.with("recording", || unsafe { stream::begin_capture(self.stream, mode) })?;
        self.recording.store(true, Ordering::Relaxed);
        let done = f();
        self.recording.store(false, Ordering::Relaxed);
        // SAFETY: as above; it is capturing.
        let recorded = self.with("recording", || unsafe { stream::end_capture(self.stream) });
        done?;
        let recorded = recorded?;
        self.with("recording", || {
            // SAFETY: the graph was just made, and is not used after this.
            unsafe {
                let instance = graph::instantiate(recorded, sys::CUgraphInstantiate_flags(0));
                graph::destroy(recorded)?;
                instance.map(Graph)
            }
        })
    }

    /// Queues what was written down. The memory it uses must still be there.
    pub(super) unsafe fn replay(&self, graph: &Graph) -> Result<()> {
        // SAFETY: the graph is of this device, and the caller has kept its memory.
        self.with("a recorded step", || unsafe { graph::launch(graph.0, self.stream) })
    }

    /// Milliseconds that the GPU takes for what `f` queues.
    pub(super) fn time(&self, f: impl FnOnce() -> Result<()>) -> Result<f64> {
        let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
        let events = self.with("timing", || Ok([event::create(flags)?, event::create(flags)?]))?;
        // SAFETY: the events were just made, the stream lives.
        self.with("timing", || unsafe { event::record(events[0], self.stream) })?;
        f()?;
        self.count_wait();
        self.with("timing", || {
            // SAFETY: as above; they are not used after this.
            unsafe {
                event::record(events[1], self.stream)?;
                event::synchronize(events[1])?;
                let passed = event::elapsed(events[0], events[1]);
                event::destroy(events[0])?;
                event::destroy(events[1])?;
                passed.map(f64::from)
            }
        })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // SAFETY: nothing queues on it after this. There is nothing to do about a failure.
        let _ = self.with("ending", || unsafe { stream::destroy(self.stream) });
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.0.is_null() {
            return;
        }
        // SAFETY: it is not used after this. There is nothing to do about a failure.
        let _ = unsafe { graph::exec_destroy(self.0) };
    }
}

fn facts(ordinal: i32, driver: &str) -> Result<Facts, result::DriverError> {
    use sys::CUdevice_attribute_enum::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
    };
    let device = device::get(ordinal)?;
    // SAFETY: the device is there.
    let attribute = |which| unsafe { device::get_attribute(device, which) }.map(|n| n.max(0) as usize);
    Ok(Facts {
        name: device::get_name(device)?,
        uuid: device::get_uuid(device)?.bytes.iter().map(|byte| format!("{:02x}", *byte as u8)).collect(),
        capability: [attribute(MAJOR)?, attribute(MINOR)?],
        multiprocessors: attribute(MULTIPROCESSORS)?,
        // SAFETY: the device is there.
        memory: unsafe { device::total_mem(device) }?,
        driver: driver.to_owned(),
    })
}
