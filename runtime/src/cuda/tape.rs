//! The backward pass: what ran is written down, and gone through in reverse.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::act::{Act, Weight};
use super::gpu::Gpu;
use super::interpreter::{Cuda, tiles};
use super::kernels::{Lengths, Tile, Turn};
use super::memory::{Buffer, Kind};
use super::project_heads::ProjectHeads;
use super::recompute::{Again, Recompute};
use crate::{Heads, Result, Rope};

/// Memory of a part of a weight, and of its gradient.
type Part = (Buffer, Option<Buffer>);

/// An operation with what its gradient needs. Results that it does not need are known by their id.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Embed { table: Weight, y: Act },
    RmsNorm { x: Act, scale: f32, y: u64 },
    Mix { weights: Weight, x: Act, x0: Act, y: u64 },
    Linear { w: Weight, x: Act, y: u64 },
    ProjectHeads(Box<ProjectHeads>),
    HeadNormRope { x: Act, heads: usize, rope: Rope, gain: Option<Weight>, y: u64 },
    Attention { heads: Heads, q: Act, k: Act, v: Act, y: Act, lse: Buffer },
    ExcludeSelf { heads: Heads, y: Act, v: Act, out: u64 },
    LeakyReluSquared { x: Act, y: u64 },
    AddScaled { x: u64, weights: Weight, y: Act, sum: u64 },
    Scale { weights: Weight, x: Act, y: u64 },
    GatedSkip { weights: Part, gates: Option<Part>, x: Act, skip: Act, y: u64 },
    UpdateLane { keep: Part, post: Part, lane: Act, y: Act, out: u64 },
    Average { a: u64, b: u64, y: Act },
    Tail { x: u64, len: usize, y: Act },
    Softcap { x: Act, cap: f32, y: u64 },
    CrossEntropy { logits: Act, targets: Buffer, state: Buffer, nll: u64 },
    Nll { table: Weight, h: Act, cap: f32, targets: Buffer, state: Buffer, nll: u64 },
}

impl Call {
    /// The ids of its results.
    fn results(&self) -> &[u64] {
        match self {
            Self::ProjectHeads(call) => &call.results,
            Self::Embed { y, .. } | Self::Attention { y, .. } | Self::Average { y, .. } | Self::Tail { y, .. } => {
                std::slice::from_ref(&y.id)
            }
            Self::RmsNorm { y, .. }
            | Self::Mix { y, .. }
            | Self::Linear { y, .. }
            | Self::HeadNormRope { y, .. }
            | Self::LeakyReluSquared { y, .. }
            | Self::Scale { y, .. }
            | Self::GatedSkip { y, .. }
            | Self::Softcap { y, .. } => std::slice::from_ref(y),
            Self::ExcludeSelf { out, .. } | Self::UpdateLane { out, .. } => std::slice::from_ref(out),
            Self::AddScaled { sum, .. } => std::slice::from_ref(sum),
            Self::CrossEntropy { nll, .. } | Self::Nll { nll, .. } => std::slice::from_ref(nll),
        }
    }

    /// Activations that it keeps, but for its own result.
    fn inputs(&mut self) -> Vec<&mut Act> {
        match self {
            Self::RmsNorm { x, .. }
            | Self::Linear { x, .. }
            | Self::HeadNormRope { x, .. }
            | Self::LeakyReluSquared { x, .. }
            | Self::Scale { x, .. }
            | Self::Softcap { x, .. } => vec![x],
            Self::Mix { x, x0, .. } => vec![x, x0],
            Self::Attention { q, k, v, .. } => vec![q, k, v],
            Self::ExcludeSelf { y, v, .. } => vec![y, v],
            Self::AddScaled { y, .. } => vec![y],
            Self::GatedSkip { x, skip, .. } => vec![x, skip],
            Self::UpdateLane { lane, y, .. } => vec![lane, y],
            Self::CrossEntropy { logits, .. } => vec![logits],
            Self::Nll { h, .. } => vec![h],
            Self::ProjectHeads(call) => {
                let ProjectHeads { x, value_embedding, .. } = &mut **call;
                std::iter::once(x).chain(value_embedding.as_mut().map(|(_, ve)| ve)).collect()
            }
            Self::Embed { .. } | Self::Average { .. } | Self::Tail { .. } => Vec::new(),
        }
    }

    /// Results that can be computed again: all but values, which are part of a product.
    fn forgettable(&self) -> &[u64] {
        if let Self::ProjectHeads(call) = self { &call.results[..2] } else { self.results() }
    }

    /// What it is called where its result can be computed again.
    fn again(&self) -> Option<Again> {
        match self {
            Self::Mix { .. } => Some(Again::Mix),
            Self::RmsNorm { .. } => Some(Again::RmsNorm),
            Self::HeadNormRope { .. } | Self::ProjectHeads(_) => Some(Again::HeadNormRope),
            Self::ExcludeSelf { .. } => Some(Again::ExcludeSelf),
            Self::LeakyReluSquared { .. } => Some(Again::LeakyReluSquared),
            Self::GatedSkip { .. } => Some(Again::GatedSkip),
            _ => None,
        }
    }
}

impl Call {
    /// The gradients of weights that backward adds to.
    fn gradients(&self) -> Vec<&Buffer> {
        let all: Vec<Option<&Buffer>> = match self {
            Self::Embed { table: w, .. }
            | Self::Mix { weights: w, .. }
            | Self::Linear { w, .. }
            | Self::AddScaled { weights: w, .. }
            | Self::Scale { weights: w, .. }
            | Self::Nll { table: w, .. } => vec![w.gradient.as_ref()],
            Self::HeadNormRope { gain, .. } => vec![gain.as_ref().and_then(|gain| gain.gradient.as_ref())],
            Self::GatedSkip { weights, gates, .. } => {
                vec![weights.1.as_ref(), gates.as_ref().and_then(|gates| gates.1.as_ref())]
            }
            Self::UpdateLane { keep, post, .. } => vec![keep.1.as_ref(), post.1.as_ref()],
            Self::ProjectHeads(call) => call.gradients().to_vec(),
            Self::RmsNorm { .. }
            | Self::Attention { .. }
            | Self::ExcludeSelf { .. }
            | Self::LeakyReluSquared { .. }
            | Self::Average { .. }
            | Self::Tail { .. }
            | Self::Softcap { .. }
            | Self::CrossEntropy { .. } => Vec::new(),
        };
        all.into_iter().flatten().collect()
    }
}

/// Operations in the order they ran.
#[derive(Debug)]
pub(super) struct Tape {
    calls: Vec<Call>,
    recompute: Recompute,
    /// Results that are not kept.
    forgotten: HashSet<u64>,
    /// What is in their place.
    nothing: Buffer,
}

impl Tape {
    pub(super) fn push(&mut self, mut call: Call) {
        for act in call.inputs() {
            if self.forgotten.contains(&act.id) {
                act.data = self.nothing.clone();
            }
        }
        if call.again().is_some_and(|op| self.recompute.has(op)) {
            self.forgotten.extend(call.forgettable());
        }
        self.calls.push(call);
    }
}

/// Gradients of activations whose operations have not been gone through yet.
pub(super) struct Gradients {
    gpu: Arc<Gpu>,
    storage: Kind,
    of: HashMap<u64, Buffer>,
    /// Those whose operation adds up two by itself, with the second.
    pairs: HashMap<u64, Option<Buffer>>,
}

impl Gradients {
    /// Memory for the gradient of an activation of so many elements.
    pub(super) fn room(&self, len: usize) -> Result<Buffer> {
        self.gpu.empty(self.storage, len)
    }

    /// Adds a gradient: the first is moved, which nobody else may hold.
    pub(super) fn add(&mut self, id: u64, gradient: Buffer) -> Result<()> {
        match (self.of.get(&id), self.pairs.get_mut(&id)) {
            (Some(_), Some(second @ None)) => {
                *second = Some(gradient);
                Ok(())
            }
            (Some(sum), _) => self.gpu.add_to(&gradient, sum),
            (None, _) => {
                self.of.insert(id, gradient);
                Ok(())
            }
        }
    }

    /// Where the gradient of an activation of so many elements goes, and whether there is one already, to which it is added.
    fn place(&mut self, id: u64, len: usize) -> Result<(Buffer, bool)> {
        if let Some(sum) = self.of.get(&id) {
            return Ok((sum.clone(), true));
        }
        let own = self.room(len)?;
        self.of.insert(id, own.clone());
        Ok((own, false))
    }

    /// `weights ⊙ dy`.
    fn scaled(&self, weights: &Buffer, dy: &Buffer, extent: [usize; 2]) -> Result<Buffer> {
        let dx = self.room(dy.len())?;
        self.gpu.scale(weights, dy, &dx, extent)?;
        Ok(dx)
    }

    /// Backward of `weights ⊙ x`.
    fn weigh(&mut self, (weights, dweights): (&Buffer, Option<&Buffer>), x: &Act, dy: &Buffer) -> Result<()> {
        let (dx, keep) = self.place(x.id, x.data.len())?;
        self.gpu.scale_backward((weights, dweights), &x.data, dy, (&dx, keep), x.extent())
    }
}

impl Cuda {
    /// From now on writes down what it does, for [`Cuda::backward`].
    ///
    /// # Errors
    /// What the driver says.
    pub fn start_tape(&mut self) -> Result<()> {
        let (recompute, nothing) = (self.gpu.settings().recompute, self.gpu.empty(self.storage, 0)?);
        self.tape = Some(Tape { calls: Vec::new(), recompute, forgotten: HashSet::new(), nothing });
        Ok(())
    }

    /// Adds the gradients of `Σ dy ⊙ y` to those of the weights that want them; activations that are named get theirs
    /// returned, if they have any. Ends the tape.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// If there is no tape, or in a session.
    pub fn backward(&mut self, y: &Act, dy: Buffer, named: &[&Act]) -> Result<Vec<Option<Buffer>>> {
        self.backward_told(y, dy, named, &[], &mut |_| Ok(()))
    }

    /// As [`Cuda::backward`]; `told` hears the number of each of these gradients of weights when nothing more will be added
    /// to it by what is queued after that.
    ///
    /// # Errors
    /// As [`Cuda::backward`]; those of `told`.
    ///
    /// # Panics
    /// As [`Cuda::backward`].
    pub fn backward_told(
        &mut self,
        y: &Act,
        dy: Buffer,
        named: &[&Act],
        gradients_of_weights: &[Buffer],
        told: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Option<Buffer>>> {
        let mut calls = self.tape.take().expect("a tape was started").calls;
        // A weight that several operations used is added to by the first of them last.
        let first_use = |gradient: &Buffer| {
            let uses = |call: &Call| call.gradients().into_iter().any(|part| part.overlaps(gradient));
            calls.iter().position(uses)
        };
        let mut complete: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
        for (number, gradient) in gradients_of_weights.iter().enumerate() {
            complete.entry(first_use(gradient)).or_default().push(number);
        }
        let mut tell = |call| complete.remove(&call).unwrap_or_default().into_iter().try_for_each(&mut *told);
        tell(None)?;
        assert!(!self.remembered.is_on(), "a session has no gradients");
        // Values have a gradient from attention, and one from what excludes them.
        let pair = |call: &Call| if let Call::ProjectHeads(call) = call { Some((call.results[2], None)) } else { None };
        let mut gradients = Gradients {
            gpu: Arc::clone(&self.gpu),
            storage: self.storage,
            of: HashMap::from([(y.id, dy)]),
            pairs: calls.iter().filter_map(pair).filter(|(id, _)| named.iter().all(|act| act.id != *id)).collect(),
        };
        // Results that were not kept, from the last operation that reads them until their own.
        let mut again = HashMap::new();
        // What an operation kept is given back as soon as it was gone through.
        while let Some(mut call) = calls.pop() {
            let results = call.results();
            results.iter().for_each(|id| drop(again.remove(id)));
            // Of a result that nothing went on from there is nothing to say.
            let is_named = named.iter().any(|act| results.contains(&act.id));
            if !is_named && results.iter().any(|id| gradients.of.contains_key(id)) {
                self.bring_back(&mut call, &calls, &mut again)?;
                self.through(&mut gradients, call)?;
            }
            tell(Some(calls.len()))?;
        }
        Ok(named.iter().map(|act| gradients.of.remove(&act.id)).collect())
    }

    /// Computes what a call reads and was not kept, from the calls before it.
    fn bring_back(&mut self, call: &mut Call, before: &[Call], again: &mut HashMap<u64, Buffer>) -> Result<()> {
        for act in call.inputs().into_iter().filter(|act| act.is_forgotten()) {
            act.data = match again.get(&act.id) {
                Some(data) => data.clone(),
                None => {
                    let made = before.iter().rposition(|call| call.results().contains(&act.id));
                    let (before, made) = before.split_at(made.expect("a result has its call"));
                    let mut made = made[0].clone();
                    self.bring_back(&mut made, before, again)?;
                    if let Call::ProjectHeads(made) = &made {
                        again.extend(made.again(self)?);
                    } else {
                        let data = self.gpu.empty(self.storage, act.rows() * act.cols)?;
                        self.compute_again(&made, &data)?;
                        again.insert(act.id, data);
                    }
                    again[&act.id].clone()
                }
            };
        }
        Ok(())
    }

    /// The result of a call, as it was computed the first time.
    fn compute_again(&mut self, call: &Call, y: &Buffer) -> Result<()> {
        let gpu = Arc::clone(&self.gpu);
        match call {
            Call::Mix { weights, x, x0, .. } => gpu.mix(&weights.value, &x.data, &x0.data, y, x.extent()),
            Call::RmsNorm { x, scale, .. } => gpu.rms_norm(&x.data, *scale, y, x.extent()),
            Call::HeadNormRope { x, heads, rope, gain, .. } => {
                let angles = self.angles(*rope, x.start + x.len)?;
                let turn = Turn { angles: &angles, half: rope.dims / 2, len: x.len, start: x.start };
                let gain = gain.as_ref().map(|g| &g.value);
                gpu.head_norm_rope(&x.data, *heads, turn, gain, y, [x.rows(), x.cols / heads])
            }
            Call::ExcludeSelf { heads, y: of, v, .. } => {
                gpu.exclude_self(*heads, &of.data, (&v.data, v.apart), y, of.rows())
            }
            Call::LeakyReluSquared { x, .. } => gpu.leaky_relu_squared(&x.data, y),
            Call::GatedSkip { weights, gates, x, skip, .. } => {
                let gates = gates.as_ref().map(|(gates, _)| gates);
                gpu.gated_skip(&weights.0, gates, &x.data, &skip.data, y, x.extent())
            }
            _ => unreachable!("only what has a name can be forgotten"),
        }
    }

    /// The gradients of one operation.
    fn through(&mut self, to: &mut Gradients, call: Call) -> Result<()> {
        let gpu = Arc::clone(&self.gpu);
        if let Call::ProjectHeads(call) = call {
            let of = call.results.map(|id| to.of.remove(&id));
            let second = to.pairs.remove(&call.results[2]).flatten();
            return call.back(self, to, of, second);
        }
        let dy = to.of.remove(&call.results()[0]).expect("the gradient of its one result");
        match call {
            Call::ProjectHeads(_) => unreachable!("it has three results"),
            Call::Embed { table, y } => {
                let Some(gradient) = &table.gradient else { return Ok(()) };
                let [starts, order] = self.by_token(table.rows)?;
                gpu.embed_backward(&dy, [&starts, &order], gradient, [y.rows(), table.rows, table.cols])
            }
            Call::RmsNorm { x, scale, .. } => {
                let (dx, keep) = to.place(x.id, dy.len())?;
                gpu.rms_norm_backward(&x.data, scale, &dy, (&dx, keep), x.extent())
            }
            Call::Mix { weights, x, x0, .. } => {
                let (dx, keep) = to.place(x.id, dy.len())?;
                // The first layer mixes the embedding with itself.
                let (dx0, keep0) = if x.id == x0.id { (to.room(dy.len())?, false) } else { to.place(x0.id, dy.len())? };
                let w = (&weights.value, weights.gradient.as_ref());
                let (ins, extent) = ([&x.data, &x0.data, &dy], x.extent());
                gpu.mix_backward(w, ins, (&dx, keep), (&dx0, keep0), extent)?;
                if x.id == x0.id { gpu.add_to(&dx0, &dx) } else { Ok(()) }
            }
            Call::Linear { w, x, .. } => linear(&gpu, to, &w, &x, &dy),
            Call::HeadNormRope { x, heads, rope, gain, .. } => {
                let angles = self.angles(rope, x.start + x.len)?;
                let turn = Turn { angles: &angles, half: rope.dims / 2, len: x.len, start: x.start };
                let dx = to.room(x.data.len())?;
                let dgain = gain.as_ref().and_then(|g| g.gradient.as_ref());
                let parts = dgain.map(|_| gpu.gain_parts(x.rows() * heads, heads)).transpose()?;
                let extent = [x.rows(), x.cols / heads];
                let gain = gain.as_ref().map(|g| &g.value);
                gpu.head_norm_rope_backward((&x.data, &dy), heads, turn, gain, (&dx, parts.as_ref()), extent)?;
                if let (Some(parts), Some(dgain)) = (&parts, dgain) {
                    gpu.add_parts(parts, dgain, [parts.len() / heads, heads])?;
                }
                to.add(x.id, dx)
            }
            Call::Attention { heads, q, k, v, y, lse } => {
                let [dq, dk, dv] = [to.room(q.elements())?, to.room(k.elements())?, to.room(v.elements())?];
                let at = Lengths { sequences: q.sequences, queries: q.len, keys: k.len, apart: Some(v.apart) };
                let ins = [&q.data, &k.data, &v.data, &y.data, &lse, &dy];
                gpu.attention_backward(heads, ins, None, [&dq, &dk, &dv], at)?;
                to.add(q.id, dq)?;
                to.add(k.id, dk)?;
                to.add(v.id, dv)
            }
            Call::ExcludeSelf { heads, y, v, .. } => {
                let [dx, dv] = [to.room(y.elements())?, to.room(v.elements())?];
                gpu.exclude_self_backward(heads, [&y.data, &v.data, &dy], v.apart, [&dx, &dv], y.rows())?;
                to.add(y.id, dx)?;
                to.add(v.id, dv)
            }
            Call::LeakyReluSquared { x, .. } => {
                let dx = to.room(dy.len())?;
                gpu.leaky_relu_squared_backward(&x.data, &dy, &dx)?;
                to.add(x.id, dx)
            }
            Call::AddScaled { x, weights, y, .. } => {
                to.weigh((&weights.value, weights.gradient.as_ref()), &y, &dy)?;
                to.add(x, dy)
            }
            Call::Scale { weights, x, .. } => to.weigh((&weights.value, weights.gradient.as_ref()), &x, &dy),
            Call::GatedSkip { weights, gates, x, skip, .. } => {
                let [dx, dskip] = [to.room(dy.len())?, to.room(dy.len())?];
                let gates = gates.as_ref().map(|(gates, dgates)| (gates, dgates.as_ref()));
                let weights = (&weights.0, weights.1.as_ref());
                let ins = [&x.data, &skip.data, &dy];
                gpu.gated_skip_backward(weights, gates, ins, [&dx, &dskip], x.extent())?;
                to.add(x.id, dx)?;
                to.add(skip.id, dskip)
            }
            Call::UpdateLane { keep, post, lane, y, .. } => {
                for ((w, dw), x) in [(keep, lane), (post, y)] {
                    to.weigh((&w, dw.as_ref()), &x, &dy)?;
                }
                Ok(())
            }
            Call::Average { a, b, y } => {
                let half = gpu.half()?;
                for id in [a, b] {
                    let dx = to.scaled(&half, &dy, y.extent())?;
                    to.add(id, dx)?;
                }
                Ok(())
            }
            Call::Tail { x, len, y } => {
                let dx = to.room(y.sequences * len * y.cols)?;
                gpu.tail_backward(&dy, y.len, &dx, [y.sequences, len, y.cols])?;
                to.add(x, dx)
            }
            Call::Softcap { x, cap, .. } => {
                let dx = to.room(dy.len())?;
                gpu.softcap_backward(&x.data, cap, &dy, &dx)?;
                to.add(x.id, dx)
            }
            Call::CrossEntropy { logits, targets, state, .. } => {
                let (rows, cols) = (logits.rows(), logits.cols);
                let tile = Tile { products: &logits.data, cap: 0.0, targets: &targets, rows, cols, first: 0 };
                let dx = to.room(logits.data.len())?;
                gpu.cross_entropy_tile_backward(tile, &state, &dy, &dx)?;
                to.add(logits.id, dx)
            }
            Call::Nll { table, h, cap, targets, state, .. } => {
                let dh = to.room(h.data.len())?;
                for (first, end) in tiles(table.rows, gpu.settings().tile) {
                    let (rows, cols) = (h.rows(), end - first);
                    let some = first * table.cols..end * table.cols;
                    let (sizes, w) = ([rows, table.cols, cols], table.value.part(some.clone()));
                    // Products of a tile are computed again: all of them would be the largest thing there is.
                    let [products, dproducts] = [to.room(rows * cols)?, to.room(rows * cols)?];
                    gpu.linear(&w, &h.data, &products, sizes)?;
                    let tile = Tile { products: &products, cap, targets: &targets, rows, cols, first };
                    gpu.cross_entropy_tile_backward(tile, &state, &dy, &dproducts)?;
                    gpu.linear_backward(&w, &dproducts, first > 0, &dh, sizes)?;
                    if let Some(dtable) = &table.gradient {
                        gpu.linear_backward_weights(&h.data, &dproducts, &dtable.part(some), sizes)?;
                    }
                }
                to.add(h.id, dh)
            }
        }
    }
}

/// Backward of a product.
pub(super) fn linear(gpu: &Gpu, to: &mut Gradients, w: &Weight, x: &Act, dy: &Buffer) -> Result<()> {
    let sizes = [x.rows(), w.cols, w.rows];
    if let Some(dw) = &w.gradient {
        gpu.linear_backward_weights(&x.data, dy, dw, sizes)?;
    }
    // Products add for themselves.
    match to.of.get(&x.id) {
        Some(sum) => gpu.linear_backward(&w.value, dy, true, sum, sizes),
        None => {
            let dx = to.room(x.data.len())?;
            gpu.linear_backward(&w.value, dy, false, &dx, sizes)?;
            to.add(x.id, dx)
        }
    }
}
