//! The interpreter: each operation by its kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use sixpack_formats::{Model, ModelConfig, OptimizerGroup, Part, TensorId, TensorSpec};

use super::act::{Act, Weight};
use super::gpu::Gpu;
use super::kernels::{self, Lengths, Tile, Turn, width};
use super::memory::{Buffer, Kind};
use super::project_heads::ProjectHeads;
use super::remembered::Remembered;
use super::tape::{Call, Tape};
use super::tokens::{Sections, Tokens};
use crate::cpu::{self, Dense};
use crate::{Batch, Error, Heads, Ops, Projection, ReadBack, Result, Rope, Site, Weights};

/// The model on a GPU of NVIDIA's. Operations are queued; [`ReadBack::read`] waits.
///
/// A recording one also keeps what [`Cuda::backward`] needs.
#[derive(Debug)]
pub struct Cuda {
    pub(super) gpu: Arc<Gpu>,
    /// For what stays from pass to pass, apart from what a recorded pass uses.
    kept: Arc<Gpu>,
    /// What activations and matrices are kept in; arithmetic is in f32.
    pub(super) storage: Kind,
    pub(super) tape: Option<Tape>,
    tokens: Tokens,
    pub(super) remembered: Remembered,
    angles: Option<(Rope, usize, Buffer)>,
    acts: u64,
}

impl Cuda {
    /// An interpreter that keeps activations and matrices as `storage`.
    ///
    /// # Panics
    /// If that is no kind of float.
    pub fn new(gpu: &Arc<Gpu>, storage: Kind) -> Self {
        assert!(storage != Kind::Int, "activations are floats");
        Self {
            gpu: Arc::clone(gpu),
            kept: gpu.apart(),
            storage,
            tape: None,
            tokens: Tokens::default(),
            remembered: Remembered::default(),
            angles: None,
            acts: 0,
        }
    }

    /// Another one on the same GPU, for another text at the same time.
    pub fn fork(&self) -> Self {
        Self::new(&self.gpu, self.storage)
    }

    /// The GPU.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// What activations and matrices are kept in.
    pub fn storage(&self) -> Kind {
        self.storage
    }

    /// A parameter, without a gradient.
    ///
    /// # Errors
    /// [`Error::GpuFull`] where there is no room.
    pub fn weight(&self, w: &Dense, is_control: bool) -> Result<Weight> {
        let kind = if is_control { Kind::F32 } else { self.storage };
        Ok(Weight::new(self.gpu.floats(kind, &w.data)?, None, [w.rows, w.cols]))
    }

    /// The parameters of a model.
    ///
    /// # Errors
    /// As [`Cuda::weight`].
    pub fn load(&self, model: &Model) -> Result<Weights<Weight>> {
        self.weights(&model.config, |spec| Dense::load(spec, &model.tensors[&spec.id]))
    }

    /// Parameters that the CPU has, on this GPU.
    ///
    /// # Errors
    /// As [`Cuda::weight`].
    pub fn bring_weights(&self, config: &ModelConfig, weights: &Weights<cpu::Weight>) -> Result<Weights<Weight>> {
        self.weights(config, |spec| weights[spec.id].to_dense())
    }

    /// Parameters as `make` gives them. A block's queries, keys and values follow each other, so that they are one product.
    ///
    /// # Errors
    /// As [`Cuda::weight`].
    pub fn weights(&self, config: &ModelConfig, make: impl Fn(&TensorSpec) -> Dense) -> Result<Weights<Weight>> {
        let widths = |layer| [Part::Query, Part::Key, Part::Value].map(|part| TensorId::Block(layer, part));
        let specs: BTreeMap<TensorId, TensorSpec> = config.tensors().into_iter().map(|spec| (spec.id, spec)).collect();
        let mut blocks: BTreeMap<u16, Buffer> = BTreeMap::new();
        Weights::build(config, |spec| {
            let w = make(spec);
            let TensorId::Block(layer, Part::Query | Part::Key | Part::Value) = spec.id else {
                return self.weight(&w, is_control(spec));
            };
            let elements = |id: &TensorId| specs[id].elements();
            let all = match blocks.get(&layer) {
                Some(all) => all,
                None => {
                    let all = self.gpu.empty(self.storage, widths(layer).iter().map(elements).sum())?;
                    blocks.entry(layer).or_insert(all)
                }
            };
            let start: usize = widths(layer).iter().take_while(|id| **id != spec.id).map(elements).sum();
            let value = all.part(start..start + w.data.len());
            self.gpu.write(&value, &w.data)?;
            Ok(Weight::new(value, None, [w.rows, w.cols]))
        })
    }

    /// How many words [`Cuda::write_tokens`] writes for a pass over so many tokens; `vocab` is the tables' number of rows.
    pub fn words(tokens: usize, vocab: usize) -> usize {
        Sections::of(tokens, vocab).words()
    }

    /// Writes what a pass reads of its tokens, for a [`Feed`](super::Feed) to bring.
    ///
    /// # Errors
    /// [`Error::Token`].
    ///
    /// # Panics
    /// If there are not as many targets as inputs, or too few words.
    pub fn write_tokens(inputs: &[u32], targets: &[u32], vocab: usize, to: &mut [u32]) -> Result<()> {
        checked(inputs, vocab)?;
        checked(targets, vocab)?;
        Sections::of(inputs.len(), vocab).write(inputs, targets, to);
        Ok(())
    }

    /// Takes the tokens of the next pass from what was brought: those of as many go to the same memory, so that a pass that
    /// was [recorded](Gpu::record) runs on them.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// If `brought` is not what [`Cuda::write_tokens`] has written.
    pub fn take(&mut self, inputs: &[u32], targets: &[u32], vocab: usize, brought: &Buffer) -> Result<()> {
        self.tokens.take(&self.kept, [inputs, targets], &Sections::of(inputs.len(), vocab), brought)
    }

    /// An activation with these values.
    ///
    /// # Errors
    /// As [`Cuda::weight`].
    pub fn bring(&mut self, values: &crate::cpu::Mat) -> Result<Act> {
        let data = self.gpu.floats(self.storage, &values.data)?;
        Ok(self.named(data, values.sequences, values.len, values.cols, values.start))
    }

    fn named(&mut self, data: Buffer, sequences: usize, len: usize, cols: usize, start: usize) -> Act {
        self.acts += 1;
        Act { data, id: self.acts, sequences, len, cols, apart: cols, start }
    }

    /// Memory for an activation of the same rows with `cols` channels.
    pub(super) fn like(&mut self, x: &Act, cols: usize) -> Result<Act> {
        assert_eq!(x.apart, x.cols, "values that are part of a product are for attention only");
        let data = self.gpu.empty(self.storage, x.rows() * cols)?;
        Ok(self.named(data, x.sequences, x.len, cols, x.start))
    }

    /// The positions of the last pass by token.
    pub(super) fn by_token(&mut self, vocab: usize) -> Result<[Buffer; 2]> {
        self.tokens.by_token(&self.kept, vocab)
    }

    /// Writes down what was done, if it is.
    fn record(&mut self, call: impl FnOnce() -> Call) {
        if let Some(tape) = &mut self.tape {
            tape.push(call());
        }
    }

    /// The table of angles, computed by the host in f64.
    pub(super) fn angles(&mut self, rope: Rope, positions: usize) -> Result<Buffer> {
        if let Some((known, enough, angles)) = &self.angles
            && *known == rope
            && *enough >= positions
        {
            return Ok(angles.clone());
        }
        // A growing sequence asks for one more each time.
        let positions = positions.next_power_of_two().max(64);
        let angle = |t: usize, i: usize| t as f64 * rope.base.powf(-2.0 * i as f64 / rope.dims as f64);
        let angles = (0..positions).flat_map(|t| (0..rope.dims / 2).map(move |i| angle(t, i)));
        let values: Vec<f32> = angles.flat_map(|a| [a.cos() as f32, a.sin() as f32]).collect();
        let buffer = self.kept.floats(Kind::F32, &values)?;
        self.angles = Some((rope, positions, buffer.clone()));
        Ok(buffer)
    }

    /// `x Wᵀ` for rows of a matrix.
    fn product(&mut self, w: &Buffer, x: &Act) -> Result<Act> {
        let out = w.len() / x.cols;
        let y = self.like(x, out)?;
        self.gpu.linear(w, &x.data, &y.data, [x.rows(), x.cols, out])?;
        Ok(y)
    }

    /// Losses of rows from the state after all tiles, in f32 whatever activations are.
    fn losses(&mut self, state: &Buffer, x: &Act) -> Result<Act> {
        let data = self.gpu.empty(Kind::F32, x.rows())?;
        self.gpu.cross_entropy_end(state, &data, x.rows())?;
        Ok(self.named(data, x.sequences, x.len, 1, x.start))
    }
}

/// Whether a tensor is one of those that are f32 whatever activations are.
pub fn is_control(spec: &TensorSpec) -> bool {
    spec.group == OptimizerGroup::Scalar
}

/// The check that comes before a kernel reads rows by token.
pub(super) fn checked(ids: &[u32], vocab: usize) -> Result<()> {
    let foreign = ids.iter().position(|&id| id as usize >= vocab);
    foreign.map_or(Ok(()), |index| Err(Error::Token { index, id: ids[index], vocab }))
}

/// The tiles of a vocabulary: first tokens and ends.
pub(super) fn tiles(vocab: usize, tile: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..vocab).step_by(tile).map(move |first| (first, vocab.min(first + tile)))
}

impl Ops for Cuda {
    type Act = Act;
    type Weight = Weight;
    type Error = Error;

    fn embed(&mut self, table: &Weight, batch: &Batch<'_>) -> Result<Act> {
        checked(batch.ids, table.rows)?;
        let ids = self.tokens.inputs(&self.kept, batch.ids)?;
        let data = self.gpu.empty(self.storage, batch.ids.len() * table.cols)?;
        let y = self.named(data, batch.sequences, batch.len(), table.cols, self.remembered.past());
        self.gpu.embed(&table.value, &ids, &y.data, y.extent())?;
        self.record(|| Call::Embed { table: table.clone(), y: y.clone() });
        Ok(y)
    }

    fn rms_norm(&mut self, x: &Act, scale: f32) -> Result<Act> {
        let y = self.like(x, x.cols)?;
        self.gpu.rms_norm(&x.data, scale, &y.data, x.extent())?;
        self.record(|| Call::RmsNorm { x: x.clone(), scale, y: y.id });
        Ok(y)
    }

    fn mix(&mut self, weights: &Weight, x: &Act, x0: &Act) -> Result<Act> {
        let y = self.like(x, x.cols)?;
        self.gpu.mix(&weights.value, &x.data, &x0.data, &y.data, x.extent())?;
        self.record(|| Call::Mix { weights: weights.clone(), x: x.clone(), x0: x0.clone(), y: y.id });
        Ok(y)
    }

    fn linear(&mut self, _: Site, w: &Weight, x: &Act) -> Result<Act> {
        let y = self.product(&w.value, x)?;
        self.record(|| Call::Linear { w: w.clone(), x: x.clone(), y: y.id });
        Ok(y)
    }

    fn head_norm_rope(&mut self, x: &Act, heads: usize, rope: Rope, gain: Option<&Weight>) -> Result<Act> {
        let angles = self.angles(rope, x.start + x.len)?;
        let y = self.like(x, x.cols)?;
        let turn = Turn { angles: &angles, half: rope.dims / 2, len: x.len, start: x.start };
        let extent = [x.rows(), x.cols / heads];
        self.gpu.head_norm_rope(&x.data, heads, turn, gain.map(|g| &g.value), &y.data, extent)?;
        self.record(|| Call::HeadNormRope { x: x.clone(), heads, rope, gain: gain.cloned(), y: y.id });
        Ok(y)
    }

    fn attention(&mut self, pass: usize, heads: Heads, q: &Act, k: &Act, v: &Act) -> Result<Act> {
        if width(heads).is_none() {
            let (expected, found) = ("heads of at most 256 channels on CUDA".into(), heads.dim.to_string());
            return Err(Error::Option { field: "model.head_dim", expected, found });
        }
        let [k, v] = match self.remembered.is_on() {
            true => self.extend(pass, k, v)?,
            false => [k, v].map(Act::clone),
        };
        let y = self.like(q, q.cols)?;
        let at = Lengths { sequences: q.sequences, queries: q.len, keys: k.len, apart: Some(v.apart) };
        let lse = match self.tape {
            Some(_) => Some(self.gpu.empty(Kind::F32, q.sequences * heads.query * q.len)?),
            None => None,
        };
        self.gpu.attention(heads, [&q.data, &k.data, &v.data], None, (&y.data, lse.as_ref()), at)?;
        self.record(|| Call::Attention {
            heads,
            q: q.clone(),
            k,
            v,
            y: y.clone(),
            lse: lse.expect("taken where there is a tape"),
        });
        Ok(y)
    }

    fn exclude_self(&mut self, heads: Heads, y: &Act, v: &Act) -> Result<Act> {
        let out = self.like(y, y.cols)?;
        self.gpu.exclude_self(heads, &y.data, (&v.data, v.apart), &out.data, y.rows())?;
        self.record(|| Call::ExcludeSelf { heads, y: y.clone(), v: v.clone(), out: out.id });
        Ok(out)
    }

    fn leaky_relu_squared(&mut self, x: &Act) -> Result<Act> {
        let y = self.like(x, x.cols)?;
        self.gpu.leaky_relu_squared(&x.data, &y.data)?;
        self.record(|| Call::LeakyReluSquared { x: x.clone(), y: y.id });
        Ok(y)
    }

    fn add_scaled(&mut self, x: &Act, weights: &Weight, y: &Act) -> Result<Act> {
        let sum = self.like(x, x.cols)?;
        self.gpu.add_scaled(&x.data, &weights.value, &y.data, &sum.data, x.extent())?;
        self.record(|| Call::AddScaled { x: x.id, weights: weights.clone(), y: y.clone(), sum: sum.id });
        Ok(sum)
    }

    fn scale(&mut self, scale: &Weight, x: &Act) -> Result<Act> {
        let y = self.like(x, x.cols)?;
        self.gpu.scale(&scale.value, &x.data, &y.data, x.extent())?;
        self.record(|| Call::Scale { weights: scale.clone(), x: x.clone(), y: y.id });
        Ok(y)
    }

    fn gated_skip(&mut self, weights: &Weight, gates: Option<&Weight>, row: usize, x: &Act, skip: &Act) -> Result<Act> {
        let (weights, gates) = (weights.row(row), gates.map(|gates| gates.row(row)));
        let y = self.like(x, x.cols)?;
        let gate = gates.as_ref().map(|(value, _)| value);
        self.gpu.gated_skip(&weights.0, gate, &x.data, &skip.data, &y.data, x.extent())?;
        self.record(|| Call::GatedSkip { weights, gates, x: x.clone(), skip: skip.clone(), y: y.id });
        Ok(y)
    }

    fn update_lane(&mut self, keep: (&Weight, usize), post: (&Weight, usize), lane: &Act, y: &Act) -> Result<Act> {
        let (keep, post) = (keep.0.element(keep.1), post.0.element(post.1));
        let out = self.like(lane, lane.cols)?;
        self.gpu.update_lane(&keep.0, &post.0, &lane.data, &y.data, &out.data)?;
        self.record(|| Call::UpdateLane { keep, post, lane: lane.clone(), y: y.clone(), out: out.id });
        Ok(out)
    }

    fn average(&mut self, a: &Act, b: &Act) -> Result<Act> {
        let y = self.like(a, a.cols)?;
        self.gpu.average(&a.data, &b.data, &y.data)?;
        self.record(|| Call::Average { a: a.id, b: b.id, y: y.clone() });
        Ok(y)
    }

    fn tail(&mut self, x: &Act, n: usize) -> Result<Act> {
        let data = self.gpu.empty(self.storage, x.sequences * n * x.cols)?;
        let y = self.named(data, x.sequences, n, x.cols, x.start + x.len - n);
        self.gpu.tail(&x.data, n, &y.data, [x.sequences, x.len, x.cols])?;
        self.record(|| Call::Tail { x: x.id, len: x.len, y: y.clone() });
        Ok(y)
    }

    fn softcap(&mut self, x: &Act, cap: f32) -> Result<Act> {
        let y = self.like(x, x.cols)?;
        self.gpu.softcap(&x.data, cap, &y.data)?;
        self.record(|| Call::Softcap { x: x.clone(), cap, y: y.id });
        Ok(y)
    }

    fn cross_entropy(&mut self, logits: &Act, targets: &[u32]) -> Result<Act> {
        checked(targets, logits.cols)?;
        let targets = self.tokens.targets(&self.kept, targets)?;
        let state = self.gpu.empty(Kind::F32, 3 * logits.rows())?;
        let (rows, cols) = (logits.rows(), logits.cols);
        let tile = Tile { products: &logits.data, cap: 0.0, targets: &targets, rows, cols, first: 0 };
        self.gpu.cross_entropy_tile(tile, &state)?;
        let nll = self.losses(&state, logits)?;
        self.record(|| Call::CrossEntropy { logits: logits.clone(), targets, state, nll: nll.id });
        Ok(nll)
    }

    fn mix_norm(&mut self, weights: &Weight, x: &Act, x0: &Act, scale: f32) -> Result<(Act, Act)> {
        let (mixed, normed) = (self.like(x, x.cols)?, self.like(x, x.cols)?);
        let outs = [&mixed.data, &normed.data];
        self.gpu.mix_norm(&weights.value, &x.data, &x0.data, scale, outs, x.extent())?;
        self.record(|| Call::Mix { weights: weights.clone(), x: x.clone(), x0: x0.clone(), y: mixed.id });
        self.record(|| Call::RmsNorm { x: mixed.clone(), scale, y: normed.id });
        Ok((mixed, normed))
    }

    fn add_scaled_norm(&mut self, x: &Act, weights: &Weight, y: &Act, scale: f32) -> Result<(Act, Act)> {
        let (sum, normed) = (self.like(x, x.cols)?, self.like(x, x.cols)?);
        let outs = [&sum.data, &normed.data];
        self.gpu.add_scaled_norm(&x.data, &weights.value, &y.data, scale, outs, x.extent())?;
        self.record(|| Call::AddScaled { x: x.id, weights: weights.clone(), y: y.clone(), sum: sum.id });
        self.record(|| Call::RmsNorm { x: sum.clone(), scale, y: normed.id });
        Ok((sum, normed))
    }

    fn project_heads(&mut self, x: &Act, by: &Projection<'_, Weight, Act>) -> Result<[Act; 3]> {
        let joined = if by.last.is_none() { Weight::joined(by.weights) } else { None };
        let Some(w) = joined else { return by.run(self, x) };
        let Heads { query, kv, dim } = by.heads;
        let angles = self.angles(by.rope, x.start + x.len)?;
        let product = self.product(&w.value, x)?;
        let [q, k] = [self.like(x, query * dim)?, self.like(x, kv * dim)?];
        // A session remembers values by themselves.
        let v = match self.remembered.is_on() {
            true => self.like(x, kv * dim)?,
            false => {
                let part = product.data.part((query + kv) * dim..product.data.len());
                Act { apart: product.cols, ..self.named(part, x.sequences, x.len, kv * dim, x.start) }
            }
        };
        let call = ProjectHeads {
            w,
            x: x.clone(),
            product,
            heads: by.heads,
            rope: by.rope,
            gain: by.gain.clone(),
            value_embedding: by.value_embedding.map(|(factor, ve)| (factor.clone(), ve.clone())),
            results: [q.id, k.id, v.id],
        };
        // Values that are part of the product, to which nothing is added, are there.
        let stay = v.apart != v.cols && call.value_embedding.is_none();
        let values = (!stay).then_some((&v.data, v.apart));
        let into = kernels::Projection { queries: &q.data, keys: &k.data, values };
        self.gpu.project_heads(call.projected(&angles), into)?;
        self.record(|| Call::ProjectHeads(Box::new(call)));
        Ok([q, k, v])
    }

    fn nll(&mut self, table: &Weight, h: &Act, cap: f32, targets: &[u32]) -> Result<Act> {
        checked(targets, table.rows)?;
        let targets = self.tokens.targets(&self.kept, targets)?;
        let state = self.gpu.empty(Kind::F32, 3 * h.rows())?;
        for (first, end) in tiles(table.rows, self.gpu.settings().tile) {
            let products = self.product(&table.value.part(first * table.cols..end * table.cols), h)?;
            let (rows, cols) = (h.rows(), end - first);
            let tile = Tile { products: &products.data, cap, targets: &targets, rows, cols, first };
            self.gpu.cross_entropy_tile(tile, &state)?;
        }
        let nll = self.losses(&state, h)?;
        self.record(|| Call::Nll { table: table.clone(), h: h.clone(), cap, targets, state, nll: nll.id });
        Ok(nll)
    }
}

impl ReadBack for Cuda {
    async fn read(&mut self, x: &Act) -> Result<Vec<f32>> {
        self.gpu.read(&x.data)
    }
}
