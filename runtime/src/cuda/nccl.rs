//! NCCL, where it is: its functions, on a communicator that is open.
//!
//! Its library is loaded by this module and not by cudarc, which looks for it under names that it does not have.
#![allow(unsafe_code, reason = "NCCL's functions take pointers and addresses")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use super::libraries::{self, Library, Places};
use super::memory::{Buffer, Kind};
use super::streams::Stream;
use crate::{Error, Result};

/// Bytes of what rank 0 tells the others, by which they meet.
const ID: usize = 128;

/// The oldest version that is used, as it tells itself: communicators that do not block had their faults before.
const OLDEST: [u32; 2] = [2, 18];

/// NCCL's codes.
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;

/// Its kinds of numbers and of sums.
const FLOAT: c_int = 7;
const BFLOAT16: c_int = 9;
const SUM: c_int = 0;

/// `ncclComm_t`.
type Raw = *mut c_void;

/// `ncclUniqueId`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Id([c_char; ID]);

/// `ncclConfig_t` as it has been since 2.17: newer versions take it by its size.
#[repr(C)]
struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cluster: c_int,
    least_blocks: c_int,
    most_blocks: c_int,
    network: *const c_char,
    share: c_int,
}

/// The functions that are used.
struct Calls {
    get_unique_id: unsafe extern "C" fn(*mut Id) -> c_int,
    init: unsafe extern "C" fn(*mut Raw, c_int, Id, c_int, *mut Config) -> c_int,
    all_reduce: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Raw, *mut c_void) -> c_int,
    broadcast: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Raw, *mut c_void) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    async_error: unsafe extern "C" fn(Raw, *mut c_int) -> c_int,
    finalize: unsafe extern "C" fn(Raw) -> c_int,
    destroy: unsafe extern "C" fn(Raw) -> c_int,
    abort: unsafe extern "C" fn(Raw) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    last_error: unsafe extern "C" fn(Raw) -> *const c_char,
}

impl Calls {
    fn of(library: &'static libloading::Library) -> Result<Self, String> {
        /// A function by its name.
        fn find<F: Copy>(library: &'static libloading::Library, name: &str) -> Result<F, String> {
            // SAFETY: the fields of `Calls` are of the types that `nccl.h` declares under these names.
            unsafe { library.get::<F>(name.as_bytes()) }.map(|symbol| *symbol).map_err(|e| e.to_string())
        }
        Ok(Self {
            get_unique_id: find(library, "ncclGetUniqueId")?,
            init: find(library, "ncclCommInitRankConfig")?,
            all_reduce: find(library, "ncclAllReduce")?,
            broadcast: find(library, "ncclBroadcast")?,
            group_start: find(library, "ncclGroupStart")?,
            group_end: find(library, "ncclGroupEnd")?,
            async_error: find(library, "ncclCommGetAsyncError")?,
            finalize: find(library, "ncclCommFinalize")?,
            destroy: find(library, "ncclCommDestroy")?,
            abort: find(library, "ncclCommAbort")?,
            error_string: find(library, "ncclGetErrorString")?,
            last_error: find(library, "ncclGetLastError")?,
        })
    }

    /// What NCCL says of a failure.
    fn words(&self, code: c_int, comm: Raw) -> String {
        let text = |at: *const c_char| match at.is_null() {
            true => String::new(),
            // SAFETY: both functions return constant texts or ones that stay until the next failure.
            false => unsafe { CStr::from_ptr(at) }.to_string_lossy().trim().to_owned(),
        };
        // SAFETY: it takes any code.
        let what = text(unsafe { (self.error_string)(code) });
        // SAFETY: a communicator that is not ended, or none.
        let last = text(unsafe { (self.last_error)(comm) });
        if last.is_empty() || last == what { what } else { format!("{what}: {last}") }
    }

    fn done(&self, code: c_int, comm: Raw) -> Result<(), String> {
        if matches!(code, SUCCESS | IN_PROGRESS) { Ok(()) } else { Err(self.words(code, comm)) }
    }
}

/// The library and its functions; the first time decides for as long as the program runs.
fn opened() -> Result<&'static (Library, Calls), String> {
    static OPENED: OnceLock<Result<(Library, Calls), String>> = OnceLock::new();
    let opened = OPENED.get_or_init(|| {
        let (library, opened) = libraries::nccl(&Places::usual())?;
        let mut version = library.version.split('.').map_while(|part| part.parse::<u32>().ok());
        let version = [version.next().unwrap_or(0), version.next().unwrap_or(0)];
        if version < OLDEST {
            return Err(format!("expected {}.{} or newer, found {library}", OLDEST[0], OLDEST[1]));
        }
        let calls = Calls::of(opened.keep())?;
        Ok((library, calls))
    });
    opened.as_ref().map_err(Clone::clone)
}

pub(super) fn failed(reason: String) -> Error {
    Error::Cuda { what: "NCCL".into(), reason }
}

/// Its version.
///
/// # Errors
/// Why it cannot be used, in words.
pub fn version() -> Result<&'static str, String> {
    opened().map(|(library, _)| library.version.as_str())
}

/// What all ranks must be given to meet; one of them makes it.
///
/// # Errors
/// What NCCL says.
pub fn unique_id() -> Result<Vec<u8>> {
    let (_, calls) = opened().map_err(failed)?;
    let mut id = Id([0; ID]);
    // SAFETY: a valid place to write to.
    let code = unsafe { (calls.get_unique_id)(&raw mut id) };
    calls.done(code, std::ptr::null_mut()).map_err(failed)?;
    Ok(id.0.iter().map(|&byte| byte as u8).collect())
}

/// A communicator that is open. It never blocks: what it was asked for is polled.
pub(super) struct Comm {
    calls: &'static Calls,
    raw: Raw,
}

// SAFETY: NCCL takes a communicator from any thread, one at a time: methods that use it are not given to two at once, as
// this is not `Sync`.
unsafe impl Send for Comm {}

impl Comm {
    /// Begins to meet the other ranks on the GPU whose context is this thread's.
    ///
    /// # Panics
    /// If the id is none of NCCL's.
    pub(super) fn start(id: &[u8], rank: usize, world: usize) -> Result<Self, String> {
        let (_, calls) = opened()?;
        let id = Id(<[u8; ID]>::try_from(id).expect("an id of NCCL's").map(|byte| byte as c_char));
        // All but what is chosen says that it is not.
        let unset = c_int::MIN;
        let mut config = Config {
            size: size_of::<Config>(),
            magic: 0xcafe_beef,
            version: 21_700,
            blocking: 0,
            cluster: unset,
            least_blocks: unset,
            most_blocks: unset,
            network: std::ptr::null(),
            share: unset,
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: valid places to write to and to read from.
        let code = unsafe { (calls.init)(&raw mut raw, number(world), id, number(rank), &raw mut config) };
        calls.done(code, raw)?;
        Ok(Self { calls, raw })
    }

    /// What it says of its work: whether it is all queued.
    pub(super) fn is_settled(&self) -> Result<bool, String> {
        let mut code = SUCCESS;
        // SAFETY: it is open, and the place to write to is valid.
        let asked = unsafe { (self.calls.async_error)(self.raw, &raw mut code) };
        self.done(asked)?;
        self.done(code)?;
        Ok(code == SUCCESS)
    }

    /// Does several things as one.
    pub(super) fn group(&self, f: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        // SAFETY: it has no arguments.
        self.done(unsafe { (self.calls.group_start)() })?;
        let done = f();
        // SAFETY: as above; a group that was started must be ended.
        let ended = self.done(unsafe { (self.calls.group_end)() });
        done.and(ended)
    }

    /// Queues the sum of a part of each rank, in its place. The part must be held until the stream is through with it.
    pub(super) fn sum(&self, part: &Buffer, stream: &Stream) -> Result<(), String> {
        let (at, stream) = (part.address() as *mut c_void, stream.raw().cast());
        // SAFETY: the part has as many elements, and the caller holds it.
        let code =
            unsafe { (self.calls.all_reduce)(at.cast_const(), at, part.len(), kind(part), SUM, self.raw, stream) };
        self.done(code)
    }

    /// Queues that all get the part of one rank, in its place. As with [`Comm::sum`].
    pub(super) fn broadcast(&self, from: usize, part: &Buffer, stream: &Stream) -> Result<(), String> {
        let (at, stream) = (part.address() as *mut c_void, stream.raw().cast());
        // SAFETY: as above.
        let code = unsafe {
            (self.calls.broadcast)(at.cast_const(), at, part.len(), kind(part), number(from), self.raw, stream)
        };
        self.done(code)
    }

    /// Begins to end, when all ranks do.
    pub(super) fn finalize(&self) -> Result<(), String> {
        // SAFETY: it is open.
        self.done(unsafe { (self.calls.finalize)(self.raw) })
    }

    /// Ends what was finalized.
    pub(super) fn destroy(self) {
        // SAFETY: it is not used after this. There is nothing to do about a failure.
        unsafe { (self.calls.destroy)(self.raw) };
    }

    /// Ends it and all its work, whatever the others do.
    pub(super) fn abort(self) {
        // SAFETY: as above.
        unsafe { (self.calls.abort)(self.raw) };
    }

    fn done(&self, code: c_int) -> Result<(), String> {
        self.calls.done(code, self.raw)
    }
}

fn number(n: usize) -> c_int {
    c_int::try_from(n).expect("ranks of 31 bits")
}

fn kind(part: &Buffer) -> c_int {
    match part.kind() {
        Kind::F32 => FLOAT,
        Kind::Bf16 => BFLOAT16,
        Kind::Int => panic!("floats for {part:?}"),
    }
}
