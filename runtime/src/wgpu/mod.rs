//! The interpreter on a GPU, by WebGPU: Vulkan, Metal, DirectX 12, or a browser's own.
//!
//! One file for each operation, its kernel beside it in WGSL, named as in [`cpu`](crate::cpu), where its plain twin is.
//! Commands are recorded and sent when a value is read. The base is f32 and nothing in it goes beyond what WebGPU
//! promises everywhere; weights are kept as their codes and unpacked in the kernels. Where a GPU has more, some kernels
//! are [specialised](Specialisations).

mod act;
mod adapter;
mod angles;
mod attend;
mod attention;
mod back;
mod cache;
mod cross_entropy;
mod decode;
mod embed;
mod exclude_self;
mod front;
mod head_norm_rope;
mod kernel;
mod linear;
mod machine;
mod narrow;
mod peak;
mod pointwise;
mod pool;
mod queue;
mod rms_norm;
mod sample;
#[cfg(not(target_family = "wasm"))]
mod saved;
mod special;
mod weight;

use std::sync::{Arc, Mutex};

use sixpack_formats::{Model, ModelConfig, TensorSpec};

pub use self::act::Act;
pub use self::adapter::{Adapter, Facts, adapters};
use self::angles::Angles;
use self::cache::Cache;
use self::front::Activation;
use self::machine::Machine;
pub use self::peak::Peak;
use self::pool::{Pool, Pooled};
pub use self::queue::Counts;
use self::queue::{Queue, Slice};
pub use self::special::Specialisations;
use self::weight::Loader;
pub use self::weight::Weight;
use crate::cpu::{self, Mat};
use crate::model::{Block, Inputs, Stream};
use crate::ops::{Batch, Heads, Ops, ReadBack, Remember, Rope, Site};
use crate::{Result, Sampler, Weights};

/// Bytes of the chunks of weights that are loaded one by one.
const CHUNK: u64 = 32 << 20;

/// What an interpreter is made with beside its GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Bytes a binding may have; what the device allows if this is not less.
    pub binding: Option<u64>,
    /// Whether there is a zone behind each activation that nothing may write. Whenever the host reads a value, those of
    /// all activations since it last did are checked.
    pub guarded: bool,
    /// Specialisations that may be on where the GPU has them.
    pub specialisations: Specialisations,
}

/// The interpreter on a GPU.
#[derive(Debug)]
pub struct Wgpu {
    machine: Arc<Machine>,
    pool: Arc<Mutex<Pool>>,
    queue: Queue,
    cache: Cache,
    angles: Angles,
    loader: Loader,
    settings: Settings,
    nothing: wgpu::Buffer,
    scratch: wgpu::Buffer,
}

impl Wgpu {
    /// An interpreter on `adapter`, without a session.
    ///
    /// # Errors
    /// If the adapter does not give a device.
    pub async fn new(adapter: &Adapter) -> Result<Self> {
        Self::with(adapter, Settings::default()).await
    }

    /// As [`Wgpu::new`].
    ///
    /// # Errors
    /// As [`Wgpu::new`].
    pub async fn with(adapter: &Adapter, settings: Settings) -> Result<Self> {
        Ok(Self::on(Arc::new(Machine::open(adapter, settings.binding, settings.specialisations).await?), settings))
    }

    fn on(machine: Arc<Machine>, settings: Settings) -> Self {
        let pool = Pool::new(settings.guarded);
        let unused = |label| {
            machine.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: 16,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        };
        Self {
            queue: Queue::new(Arc::clone(&machine), Arc::clone(&pool)),
            loader: Loader::new(Arc::clone(&machine), CHUNK),
            pool,
            cache: Cache::default(),
            angles: Angles::default(),
            settings,
            nothing: unused("nothing"),
            scratch: unused("scratch"),
            machine,
        }
    }

    /// Another interpreter on the same device, with the same pipelines; weights loaded by one serve both.
    pub fn fork(&self) -> Self {
        Self::on(Arc::clone(&self.machine), self.settings)
    }

    /// The model's tensors, quantised ones as their codes.
    ///
    /// # Errors
    /// Heads or rows of weights larger than the GPU has room for.
    pub fn load(&self, model: &Model) -> Result<Weights<Weight>> {
        self.check_heads(&model.config)?;
        Loader::model(&self.machine, model)
    }

    /// The tensors of `config` that the CPU has.
    ///
    /// # Errors
    /// As [`Wgpu::load`].
    pub fn copy(&self, config: &ModelConfig, weights: &Weights<cpu::Weight>) -> Result<Weights<Weight>> {
        self.check_heads(config)?;
        let bytes = |spec: &TensorSpec| weight::size(&weights[spec.id]);
        Loader::all(&self.machine, config, bytes, |spec| weights[spec.id].clone())
    }

    fn check_heads(&self, config: &ModelConfig) -> Result<()> {
        match config.head_dim() {
            dim if dim > attention::WIDEST => {
                let most = attention::WIDEST;
                Err(self.machine.cannot(format!("heads of {dim} channels, at most {most} have room")))
            }
            _ => Ok(()),
        }
    }

    /// Sends what was recorded and waits until it is done.
    ///
    /// # Errors
    /// If the GPU failed, for example for want of memory.
    pub async fn settle(&mut self) -> Result<()> {
        let nothing = self.act(1, 1, 1);
        self.read(&nothing).await.map(drop)
    }

    /// Ends the device, as a driver does when it is reset. For tests.
    pub fn lose(&self) {
        self.machine.device.destroy();
    }

    /// Writes behind the values of a guarded activation, as a kernel that is wrong does. For tests.
    pub fn overrun(&mut self, x: &Act) {
        let zero = self.upload(&Mat::zeros(1, 1, 1));
        self.queue.copy((zero.buffer.buffer(), 0), (x.buffer.buffer(), x.buffer.room()), 4);
    }

    /// One parameter, for tests of operations: those of a model belong together, see [`Wgpu::load`].
    pub fn weight(&mut self, weight: &cpu::Weight) -> Weight {
        self.loader.weight(weight)
    }

    /// An activation of the host's.
    pub fn upload(&self, x: &Mat) -> Act {
        // Not one that was used before: commands that are still queued may read it.
        let buffer = Arc::new(Pooled::new(&self.pool, &self.machine, 4 * x.data.len() as u64));
        let y = Act { buffer, sequences: x.sequences, len: x.len, cols: x.cols, start: x.start };
        self.machine.queue.write_buffer(y.buffer.buffer(), 0, bytemuck::cast_slice(&x.data));
        y
    }

    /// What was sent so far.
    pub fn counts(&self) -> Counts {
        self.queue.counts()
    }

    /// Pipelines that were made.
    pub fn pipelines(&self) -> usize {
        self.machine.pipelines()
    }

    /// What its kernels make use of.
    pub fn specialisations(&self) -> Specialisations {
        self.machine.on
    }

    fn limit(&self) -> u64 {
        self.machine.limit
    }

    /// A buffer that no kernel looks at.
    fn nothing(&self) -> Slice {
        Slice::whole(&self.nothing)
    }

    fn take(&self, bytes: u64) -> Pooled {
        Pooled::take(&self.pool, &self.machine, bytes)
    }

    fn act(&self, sequences: usize, len: usize, cols: usize) -> Act {
        let buffer = Arc::new(self.take(4 * (sequences * len * cols) as u64));
        Act { buffer, sequences, len, cols, start: 0 }
    }

    /// The same sequences and positions with `cols` channels.
    fn like(&self, x: &Act, cols: usize) -> Act {
        Act { start: x.start, ..self.act(x.sequences, x.len, cols) }
    }

    fn angles(&mut self, rope: Rope, positions: usize) -> Slice {
        self.angles.of(&self.machine, rope, positions)
    }

    fn parts(&self, rows: usize, widest: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        act::parts(rows, widest, self.limit())
    }

    /// As [`Wgpu::parts`] for rows of `sequences` sequences of `len` that may not be torn.
    fn sequences(&self, sequences: usize, len: usize, widest: usize) -> Vec<(usize, usize)> {
        self.parts(sequences, len * widest).map(|(first, n)| (first * len, n * len)).collect()
    }
}

impl Ops for Wgpu {
    type Act = Act;
    type Weight = Weight;
    type Error = crate::Error;

    fn embed(&mut self, table: &Weight, batch: &Batch<'_>) -> Result<Act> {
        let start = self.cache.past();
        embed::embed(self, table, batch, start)
    }

    fn rms_norm(&mut self, x: &Act, scale: f32) -> Result<Act> {
        Ok(rms_norm::rms_norm(self, x, scale))
    }

    fn mix(&mut self, weights: &Weight, x: &Act, x0: &Act) -> Result<Act> {
        Ok(pointwise::mix(self, weights, x, x0))
    }

    fn linear(&mut self, _: Site, w: &Weight, x: &Act) -> Result<Act> {
        if x.rows() == 1 {
            return Ok(decode::product(self, w, x, Activation::None));
        }
        Ok(linear::linear(self, w, x))
    }

    fn head_norm_rope(&mut self, x: &Act, heads: usize, rope: Rope, gain: Option<&Weight>) -> Result<Act> {
        Ok(head_norm_rope::head_norm_rope(self, x, heads, rope, gain))
    }

    fn attention(&mut self, pass: usize, heads: Heads, q: &Act, k: &Act, v: &Act) -> Result<Act> {
        if self.cache.is_on() {
            let [k, v] = cache::extend(self, pass, k, v);
            return Ok(attention::remembered(self, heads, q, &k, &v));
        }
        Ok(attention::attention(self, heads, q, k, v))
    }

    fn exclude_self(&mut self, heads: Heads, y: &Act, v: &Act) -> Result<Act> {
        Ok(exclude_self::exclude_self(self, heads, y, v))
    }

    fn leaky_relu_squared(&mut self, x: &Act) -> Result<Act> {
        Ok(pointwise::leaky_relu_squared(self, x))
    }

    fn add_scaled(&mut self, x: &Act, scale: &Weight, y: &Act) -> Result<Act> {
        Ok(pointwise::add_scaled(self, x, scale, y))
    }

    fn scale(&mut self, scale: &Weight, x: &Act) -> Result<Act> {
        Ok(pointwise::scale(self, scale, x))
    }

    fn gated_skip(&mut self, weights: &Weight, gates: Option<&Weight>, row: usize, x: &Act, skip: &Act) -> Result<Act> {
        Ok(pointwise::gated_skip(self, weights, gates, row, x, skip))
    }

    fn update_lane(&mut self, keep: (&Weight, usize), post: (&Weight, usize), lane: &Act, y: &Act) -> Result<Act> {
        Ok(pointwise::update_lane(self, keep, post, lane, y))
    }

    fn average(&mut self, a: &Act, b: &Act) -> Result<Act> {
        Ok(pointwise::average(self, a, b))
    }

    fn tail(&mut self, x: &Act, n: usize) -> Result<Act> {
        assert!((1..=x.len).contains(&n), "a tail of {n} positions of {}", x.len);
        if n == x.len {
            return Ok(x.clone());
        }
        let y = Act { start: x.start + x.len - n, ..self.act(x.sequences, n, x.cols) };
        let row = 4 * x.cols as u64;
        for sequence in 0..x.sequences {
            let from = ((sequence + 1) * x.len - n) as u64 * row;
            let to = (sequence * n) as u64 * row;
            self.queue.copy((x.buffer.buffer(), from), (y.buffer.buffer(), to), n as u64 * row);
        }
        Ok(y)
    }

    fn softcap(&mut self, x: &Act, cap: f32) -> Result<Act> {
        Ok(pointwise::softcap(self, x, cap))
    }

    fn cross_entropy(&mut self, logits: &Act, targets: &[u32]) -> Result<Act> {
        cross_entropy::cross_entropy(self, logits, targets)
    }

    fn logits(&mut self, table: &Weight, h: &Act, cap: f32) -> Result<Act> {
        if h.rows() == 1 {
            return Ok(decode::product(self, table, h, Activation::Softcap(cap)));
        }
        let logits = linear::linear(self, table, h);
        Ok(pointwise::softcap(self, &logits, cap))
    }

    fn run_block(
        &mut self,
        block: &Block<'_, Weight>,
        stream: Stream<Act>,
        inputs: &Inputs<'_, Act>,
    ) -> Result<Stream<Act>> {
        match decode::block(self, block, &stream, inputs) {
            Some(stream) => Ok(stream),
            None => block.run(self, stream, inputs),
        }
    }

    fn nll(&mut self, table: &Weight, h: &Act, cap: f32, targets: &[u32]) -> Result<Act> {
        cross_entropy::nll(self, table, h, cap, targets)
    }
}

impl ReadBack for Wgpu {
    async fn read(&mut self, x: &Act) -> Result<Vec<f32>> {
        let bytes = 4 * x.elements() as u64;
        let values = self.queue.read(x.buffer.buffer(), bytes).await?;
        Ok(bytemuck::pod_collect_to_vec(&values))
    }
}

impl Remember for Wgpu {
    fn begin(&mut self) {
        self.cache.begin();
    }

    fn advance(&mut self, len: usize) {
        self.cache.advance(len);
    }

    fn end(&mut self) {
        self.cache.end();
    }

    async fn sample(&mut self, logits: &Act, sampler: &mut Sampler) -> Result<u32> {
        sample::sample(self, logits, sampler).await
    }
}
