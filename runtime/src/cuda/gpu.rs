//! A GPU that is open: its memory, and its kernels, started with arguments that they take.
#![allow(unsafe_code, reason = "memory and kernels are the driver's; what is asked of them is checked here")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::blas::{Blas, Matrices, Shape};
use super::compile::Compiler;
use super::driver::{Driver, Facts, Function, Graph, Stalls};
use super::memory::{Buffer, Kind, Pool};
use super::recompute::Recompute;
use super::signature::{self, Takes};
use super::sources::Source;
use super::{kept, libraries};
use crate::{Error, Result};

/// How a GPU is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether memory that was given back is used again. Without, each buffer is an allocation of its own, which a
    /// checking tool can watch.
    pub reuse: bool,
    /// Whether products are cuBLASLt's where that is, and this project's own otherwise.
    pub library: bool,
    /// Whether several of its algorithms are timed for each product. What is fastest may differ from run to run, and with it
    /// the last bits.
    pub search: bool,
    /// What backward computes again instead of keeping it: less memory, more time.
    pub recompute: Recompute,
    /// Tokens of the vocabulary whose products are held at once.
    pub tile: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { reuse: true, library: true, search: true, recompute: Recompute::NONE, tile: 4096 }
    }
}

/// An open GPU.
#[derive(Debug)]
pub struct Gpu {
    driver: Arc<Driver>,
    pool: Arc<Pool>,
    /// None of a GPU that is not there.
    compiler: Option<Compiler>,
    /// None where the library is missing.
    blas: Option<Arc<Blas>>,
    /// With how often each was started.
    functions: Arc<Mutex<HashMap<&'static str, (Function, u64)>>>,
    /// The number 0.5, which the mean of two weighs them with.
    half: OnceLock<Buffer>,
    settings: Settings,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg<'a> {
    /// Memory that it reads, and how many elements of it.
    In(&'a Buffer, usize),
    /// Memory that it writes.
    Out(&'a Buffer, usize),
    /// No memory.
    Null,
    /// A count.
    Int(usize),
    /// A factor.
    Float(f32),
}

/// Work that was recorded, with the memory it uses.
#[derive(Debug)]
pub struct Recorded {
    graph: Graph,
    /// Its memory is not used again while it may run.
    _pool: Arc<Pool>,
}

/// The GPUs of this machine, in the driver's order.
///
/// # Errors
/// [`Error::Cuda`] where there is no driver, or it fails.
pub fn gpus() -> Result<Vec<Facts>> {
    Driver::devices()
}

impl Gpu {
    /// Opens GPU number `ordinal`. Its kernels are compiled when they are first needed, or were by an earlier run.
    ///
    /// # Errors
    /// [`Error::NoDevice`] where something that CUDA needs is missing; what the driver says.
    pub fn open(ordinal: usize, settings: Settings) -> Result<Arc<Self>> {
        let wanted = || format!("cuda:{ordinal}");
        if let Some(reason) = libraries::Libraries::find(&libraries::Places::usual()).why_not() {
            return Err(Error::NoDevice { wanted: wanted(), reason });
        }
        let count = Driver::devices()?.len();
        if ordinal >= count {
            let reason = format!("the driver has {count}, counted from 0");
            return Err(Error::NoDevice { wanted: wanted(), reason });
        }
        let driver = Arc::new(Driver::open(ordinal)?);
        let [major, minor] = driver.facts().capability;
        if major < 8 {
            let reason =
                format!("{} has compute capability {major}.{minor}, expected at least 8.0", driver.facts().name);
            return Err(Error::NoDevice { wanted: wanted(), reason });
        }
        let pool = Pool::new(Arc::clone(&driver), settings.reuse);
        let blas = if settings.library { Blas::open(&driver, settings.search)?.map(Arc::new) } else { None };
        Ok(Arc::new(Self {
            driver,
            pool,
            compiler: Some(Compiler::open()?),
            blas,
            functions: Arc::default(),
            half: OnceLock::new(),
            settings,
        }))
    }

    /// A GPU that is not there: whatever is asked of it is left out, and what is read is zeros. It tells what the same would
    /// [take](Gpu::taken) on one that is, without the driver's own, its kernels', and the libraries' memory.
    pub fn imagined(settings: Settings) -> Arc<Self> {
        let driver = Arc::new(Driver::imagined());
        let pool = Pool::new(Arc::clone(&driver), settings.reuse);
        let (functions, half) = (Arc::default(), OnceLock::new());
        Arc::new(Self { driver, pool, compiler: None, blas: None, functions, half, settings })
    }

    /// The same GPU with memory of its own: what a [recorded](Gpu::record) step uses is not given to others.
    pub fn apart(&self) -> Arc<Self> {
        Arc::new(Self {
            driver: Arc::clone(&self.driver),
            pool: Pool::new(Arc::clone(&self.driver), self.settings.reuse),
            compiler: self.compiler.clone(),
            blas: self.blas.clone(),
            functions: Arc::clone(&self.functions),
            half: OnceLock::new(),
            settings: self.settings,
        })
    }

    /// What it says of itself.
    pub fn facts(&self) -> &Facts {
        self.driver.facts()
    }

    /// Bytes of its memory that are taken, by this program and others; of an [imagined](Gpu::imagined) one the most that were.
    ///
    /// # Errors
    /// What the driver says.
    pub fn taken(&self) -> Result<usize> {
        self.driver.taken()
    }

    /// How often the host has held it up, or may have.
    pub fn stalls(&self) -> Stalls {
        self.driver.stalls()
    }

    pub(super) fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// Whether products are cuBLASLt's.
    pub fn has_library(&self) -> bool {
        self.blas.is_some()
    }

    /// From now on does not time algorithms of cuBLASLt for products that are new: for processes that must take the same.
    pub fn do_not_search(&self) {
        if let Some(blas) = &self.blas {
            blas.do_not_search();
        }
    }

    /// How it is used.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Memory for so many elements, with anything in it: a kernel is to write it first.
    ///
    /// # Errors
    /// [`Error::GpuFull`] where there is no room.
    pub fn empty(&self, kind: Kind, len: usize) -> Result<Buffer> {
        self.pool.take(kind, len)
    }

    /// Memory of zeros.
    ///
    /// # Errors
    /// As [`Gpu::empty`].
    pub fn zeros(&self, kind: Kind, len: usize) -> Result<Buffer> {
        let buffer = self.empty(kind, len)?;
        self.zero(&buffer)?;
        Ok(buffer)
    }

    /// Memory with these values, rounded if they are kept in bf16.
    ///
    /// # Errors
    /// As [`Gpu::empty`].
    pub fn floats(&self, kind: Kind, values: &[f32]) -> Result<Buffer> {
        let buffer = self.empty(kind, values.len())?;
        self.write(&buffer, values)?;
        Ok(buffer)
    }

    /// Memory with these counts, such as token ids.
    ///
    /// # Errors
    /// As [`Gpu::empty`].
    pub fn ints(&self, values: &[u32]) -> Result<Buffer> {
        let buffer = self.empty(Kind::Int, values.len())?;
        self.write_ints(&buffer, values)?;
        Ok(buffer)
    }

    /// Writes floats.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// If the buffer is not of floats, or of another length.
    pub fn write(&self, to: &Buffer, values: &[f32]) -> Result<()> {
        assert_eq!(to.len(), values.len(), "floats for {to:?}");
        match to.kind() {
            // SAFETY: the buffer is as long.
            Kind::F32 => unsafe { self.driver.upload(to.address(), bytemuck::cast_slice(values)) },
            Kind::Bf16 => {
                let bits: Vec<u16> = values.iter().map(|&x| upper_half(x)).collect();
                // SAFETY: as above.
                unsafe { self.driver.upload(to.address(), bytemuck::cast_slice(&bits)) }
            }
            Kind::Int => panic!("floats for {to:?}"),
        }
    }

    /// Writes counts.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// If the buffer is not of counts, or of another length.
    pub fn write_ints(&self, to: &Buffer, values: &[u32]) -> Result<()> {
        assert!(to.kind() == Kind::Int && to.len() == values.len(), "{} counts for {to:?}", values.len());
        // SAFETY: the buffer is as long.
        unsafe { self.driver.upload(to.address(), bytemuck::cast_slice(values)) }
    }

    /// The values, after all that is queued.
    ///
    /// # Errors
    /// What the driver says, also of what was queued before.
    ///
    /// # Panics
    /// If the buffer is not of floats.
    pub fn read(&self, from: &Buffer) -> Result<Vec<f32>> {
        match from.kind() {
            Kind::F32 => {
                let mut values = vec![0_f32; from.len()];
                // SAFETY: the buffer is as long.
                unsafe { self.driver.download(from.address(), bytemuck::cast_slice_mut(&mut values)) }?;
                Ok(values)
            }
            Kind::Bf16 => {
                let mut bits = vec![0_u16; from.len()];
                // SAFETY: as above.
                unsafe { self.driver.download(from.address(), bytemuck::cast_slice_mut(&mut bits)) }?;
                Ok(bits.into_iter().map(|b| f32::from_bits(u32::from(b) << 16)).collect())
            }
            Kind::Int => panic!("floats of {from:?}"),
        }
    }

    /// Copies.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// If the buffers differ in kind or length.
    pub fn copy(&self, from: &Buffer, to: &Buffer) -> Result<()> {
        assert!(from.kind() == to.kind() && from.len() == to.len(), "{from:?} to {to:?}");
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: the buffers are as long.
        unsafe { self.driver.copy(from.address(), to.address(), from.bytes()) }
    }

    /// Sets all elements to zero.
    ///
    /// # Errors
    /// What the driver says.
    pub fn zero(&self, buffer: &Buffer) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        // SAFETY: the buffer is as long.
        unsafe { self.driver.zero(buffer.address(), buffer.bytes()) }
    }

    /// A single 0.5.
    pub(super) fn half(&self) -> Result<Buffer> {
        if let Some(half) = self.half.get() {
            return Ok(half.clone());
        }
        // Of no pool: it stays.
        let half = Pool::new(Arc::clone(&self.driver), false).take(Kind::F32, 1)?;
        self.write(&half, &[0.5])?;
        Ok(self.half.get_or_init(|| half).clone())
    }

    /// Waits for all that is queued.
    ///
    /// # Errors
    /// What the driver says of it.
    pub fn wait(&self) -> Result<()> {
        self.driver.wait()
    }

    /// Milliseconds that the GPU takes for what `f` queues.
    ///
    /// # Errors
    /// Those of `f`, and what the driver says.
    pub fn time(&self, f: impl FnOnce() -> Result<()>) -> Result<f64> {
        self.driver.time(f)
    }

    /// Records what `f` queues, to be [replayed](Gpu::replay). It may take memory, copy and start kernels; reading and
    /// writing from the host are not recorded. What it uses must have been used once before, so that kernels are loaded
    /// and memory is there, and [apart](Gpu::apart) from others' memory.
    ///
    /// # Errors
    /// Those of `f`, and what the driver says.
    pub fn record(&self, f: impl FnOnce() -> Result<()>) -> Result<Recorded> {
        assert!(self.settings.reuse, "recorded work uses memory again");
        let graph = self.driver.record(f)?;
        self.pool.fix();
        Ok(Recorded { graph, _pool: Arc::clone(&self.pool) })
    }

    /// Queues what was recorded.
    ///
    /// # Errors
    /// What the driver says.
    pub fn replay(&self, recorded: &Recorded) -> Result<()> {
        // SAFETY: its pool still has all memory that was taken, and those who recorded hold what they use.
        unsafe { self.driver.replay(&recorded.graph) }
    }

    /// How often kernels of this name were started, or one instance as `rms_norm<bf16>`, by all that share this GPU; what was
    /// recorded counts once.
    pub fn starts(&self, name: &str) -> u64 {
        let of = |kernel: &str| kernel == name || kernel.split('<').next() == Some(name);
        self.lock().iter().filter(|(kernel, _)| of(kernel)).map(|(_, (_, starts))| starts).sum()
    }

    /// Loads all kernels now.
    ///
    /// # Errors
    /// What NVRTC or the driver say.
    pub fn prepare(&self) -> Result<()> {
        super::SOURCES.iter().try_for_each(|source| self.function(source, source.kernels[0]).map(drop))
    }

    /// Queues a product by cuBLASLt; whether it took it: where the library is missing, and where matrices begin at odd
    /// addresses, it does not. `c` is what is added, times the second factor.
    ///
    /// # Panics
    /// If a matrix has not the elements that the shape says.
    pub(super) fn product(
        &self,
        shape: Shape,
        factors: [f32; 2],
        [a, b]: [&Buffer; 2],
        c: Option<&Buffer>,
        y: &Buffer,
    ) -> Result<bool> {
        let Some(blas) = &self.blas else { return Ok(false) };
        let [stack, m, n, k] = shape.sizes;
        let fits = |x: &Buffer, kind, rows: usize, cols: usize| x.kind() == kind && x.len() >= stack * rows * cols;
        let results = std::iter::once(y).chain(c).all(|x| fits(x, shape.kinds[1], m, n));
        assert!(fits(a, shape.kinds[0], m, k) && fits(b, shape.kinds[0], k, n) && results, "{shape:?}");
        let addresses = [a.address(), b.address(), c.unwrap_or(y).address(), y.address()];
        // Of a stack also the later matrices.
        let stride = |x: &Buffer, rows: usize, cols: usize| if stack > 1 { rows * cols * x.kind().bytes() } else { 0 };
        let strides = [stride(a, m, k), stride(b, k, n), stride(y, m, n)].map(|bytes| bytes as u64);
        let all = addresses.into_iter().chain(strides).fold(1 << 8, |all, at| all | at);
        let alignment = 1 << all.trailing_zeros();
        if alignment < 16 {
            return Ok(false);
        }
        let shape = Shape { alignment, ..shape };
        let mut thrown_away = None;
        let scratch = || Ok(thrown_away.insert(self.empty(y.kind(), stack * m * n)?).address());
        let at = Matrices { a: a.address(), b: b.address(), c: c.unwrap_or(y).address(), y: y.address() };
        // SAFETY: the matrices have as many elements.
        unsafe { blas.product(shape, factors, at, scratch) }
    }

    /// Queues a kernel of this name, as `rms_norm<bf16>`.
    ///
    /// # Panics
    /// If it does not take these arguments, or they have too few elements: a mistake in the function that starts it.
    pub(super) fn start(&self, kernel: &str, blocks: [usize; 3], threads: u32, args: &[Arg<'_>]) -> Result<()> {
        let signature = signature::of(kernel).unwrap_or_else(|| panic!("there is no kernel {kernel}"));
        let fits = signature.takes.len() == args.len() && signature.takes.iter().zip(args).all(|(t, a)| fits(*t, a));
        assert!(fits, "{kernel} takes {:?}, found {args:?}", signature.takes);
        if blocks.contains(&0) || self.driver.is_imagined() {
            return Ok(());
        }
        let name =
            signature.source.kernels.iter().find(|name| **name == kernel).expect("the signature is this kernel's");
        let function = self.function(signature.source, name)?;
        self.lock().entry(name).and_modify(|(_, starts)| *starts += 1);
        let blocks = blocks.map(|n| u32::try_from(n).expect("a grid of 32 bits"));
        let mut slots: Vec<u64> = args.iter().map(slot).collect();
        // SAFETY: the types of arguments are the kernel's, and the functions that start kernels say how many elements of
        // memory each goes through, which were just checked to be there.
        unsafe { self.driver.launch(kernel, function, blocks, threads, &mut slots) }
    }

    fn function(&self, source: &'static Source, kernel: &'static str) -> Result<Function> {
        if let Some((function, _)) = self.lock().get(kernel) {
            return Ok(*function);
        }
        let loaded = self.loaded(source)?;
        let mut functions = self.lock();
        for (name, function) in source.kernels.iter().copied().zip(loaded) {
            functions.entry(name).or_insert((function, 0));
        }
        Ok(functions[kernel].0)
    }

    /// The kernels of a source on this device. They stay as long as the program runs, however often the device is opened.
    fn loaded(&self, source: &'static Source) -> Result<Vec<Function>> {
        type Loaded = HashMap<(usize, &'static str), Vec<Function>>;
        static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.get_or_insert_default();
        let key = (self.driver.ordinal(), source.name);
        if let Some(functions) = loaded.get(&key) {
            return Ok(functions.clone());
        }
        let compiler = self.compiler.as_ref().expect("a GPU that is there");
        let compiled = kept::compiled(compiler, source, &self.facts().architecture())?;
        let functions = self.driver.load(&compiled.code, &compiled.names)?;
        loaded.insert(key, functions.clone());
        Ok(functions)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, (Function, u64)>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an argument is what a kernel takes, and has as many elements as it goes through.
fn fits(takes: Takes, arg: &Arg<'_>) -> bool {
    match (takes, arg) {
        (Takes::In(kind), Arg::In(buffer, len)) | (Takes::Out(kind), Arg::Out(buffer, len)) => {
            buffer.kind() == kind && buffer.len() >= *len
        }
        (Takes::In(_) | Takes::Out(_), Arg::Null) | (Takes::Int, Arg::Int(_)) | (Takes::Float, Arg::Float(_)) => true,
        _ => false,
    }
}

/// The bytes of an argument.
fn slot(arg: &Arg<'_>) -> u64 {
    match *arg {
        Arg::In(buffer, _) | Arg::Out(buffer, _) => buffer.address(),
        Arg::Null => 0,
        Arg::Int(n) => u64::from(u32::try_from(n).ok().filter(|n| *n <= i32::MAX as u32).expect("counts of 31 bits")),
        Arg::Float(x) => u64::from(x.to_bits()),
    }
}

/// The nearest bf16, of two the even one.
fn upper_half(x: f32) -> u16 {
    let bits = x.to_bits();
    // What is no number stays none, also where its last bits would round to infinity.
    if x.is_nan() { 0x7fff } else { ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16 }
}
