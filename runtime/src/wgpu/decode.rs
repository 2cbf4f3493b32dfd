//! A block for one token of a session, in five kernels: to queries, keys and values; attention; back to the residual
//! stream; to the MLP's hidden layer; back. And products of one row.

use std::rc::Rc;

use sixpack_formats::{Part as Tensor, TensorId};

use super::attend::{self, Attend};
use super::back::{Back, Other, back};
use super::front::{Activation, Front, Keep, Skip, front};
use super::weight::{Part, Weight};
use super::{Act, Wgpu};
use crate::model::{Block, Inputs, Stream};

/// What a block is made of, in one chunk of the weights.
struct Parts<'a> {
    block: &'a Block<'a, Weight>,
}

impl<'a> Parts<'a> {
    /// The block's, if its large ones are all in one chunk with the small ones.
    fn find(block: &'a Block<'a, Weight>) -> Option<Self> {
        let chunk = block.part(Tensor::ResidMix).parts.first()?;
        let parts = Self { block };
        let all = [
            Tensor::Query,
            Tensor::Key,
            Tensor::Value,
            Tensor::AttnOut,
            Tensor::AttnScale,
            Tensor::QueryGain,
            Tensor::MlpUp,
            Tensor::MlpDown,
            Tensor::MlpScale,
        ];
        let block = all.iter().map(|&part| parts.block.part(part));
        let shared = [TensorId::SkipWeights, TensorId::SkipGates, TensorId::LaneKeep, TensorId::LanePost];
        let shared = shared.into_iter().chain(parts.block.value_scale());
        let mut every = block.chain(shared.filter_map(|id| parts.block.weights.find(id)));
        every.all(|w| w.parts.len() == 1 && w.parts[0].chunk == chunk.chunk).then_some(parts)
    }

    fn part(&self, part: Tensor) -> &'a Part {
        self.block.part(part).only()
    }

    fn shared(&self, id: TensorId) -> &'a Part {
        self.block.weights[id].only()
    }

    fn skip(&self, skip: Option<&'a Act>) -> Option<Skip<'a>> {
        skip.map(|act| Skip {
            act,
            weights: self.shared(TensorId::SkipWeights),
            gates: self.block.weights.find(TensorId::SkipGates).map(Weight::only),
            row: self.block.skip_row,
        })
    }
}

/// The block in five kernels, where they can: one token of a session, all weights in one chunk.
pub(super) fn block(
    gpu: &mut Wgpu,
    block: &Block<'_, Weight>,
    stream: &Stream<Act>,
    inputs: &Inputs<'_, Act>,
) -> Option<Stream<Act>> {
    let heads = block.heads();
    if !gpu.cache.is_on() || inputs.x0.rows() != 1 || heads.dim > attend::WIDEST {
        return None;
    }
    let parts = Parts::find(block)?;
    let (first, second) = match stream {
        Stream::One(x) if !block.has_lanes() => (x, None),
        Stream::One(x) => (x, Some(x)),
        Stream::Two(a, b) => (a, Some(b)),
    };
    let norm = Some(block.norm());
    let mix = (parts.part(Tensor::ResidMix), inputs.x0);
    let skip = parts.skip(inputs.skip);
    // To queries, keys and values.
    let products = [Tensor::Query, Tensor::Key, Tensor::Value].map(|part| parts.part(part));
    let qkv = gpu.act(1, 1, products.iter().map(|part| part.rows).sum());
    let keep = if second.is_some() { Keep::Joined } else { Keep::Mixed };
    let kept = gpu.like(first, first.cols);
    let what = Front { products: &products, first: 0, skip, mix: Some(mix), norm, keep, activation: Activation::None };
    front(gpu, &what, first, Some(&kept), &qkv);
    // Attention, and back.
    let value_embedding = block.value_scale().zip(inputs.value_embedding);
    let what = Attend {
        pass: block.virtual_layer,
        heads,
        rope: block.rope,
        gain: parts.part(Tensor::QueryGain),
        value_embedding: value_embedding.map(|(id, act)| (parts.shared(id), act)),
        exclude_self: block.config.has_xsa(block.layer),
    };
    let (y, splits) = attend::attend(gpu, &what, &qkv);
    let other = |lane, skip, half| Other {
        lane,
        skip,
        keep: parts.shared(TensorId::LaneKeep),
        post: parts.shared(TensorId::LanePost),
        layer: block.layer,
        half,
    };
    let what = Back {
        w: parts.part(Tensor::AttnOut),
        scale: parts.part(Tensor::AttnScale),
        parts: Some((heads, splits)),
        lane: &kept,
        other: second.map(|lane| other(&**lane, skip, 0)),
    };
    let (lane, second) = back(gpu, &what, &y);
    // The MLP, and back.
    let up = parts.part(Tensor::MlpUp);
    let hidden = gpu.act(1, 1, up.rows);
    let what = Front {
        products: &[up],
        first: 0,
        skip: None,
        mix: second.as_ref().map(|_| mix),
        norm,
        keep: Keep::Nothing,
        activation: Activation::LeakyReluSquared,
    };
    front(gpu, &what, second.as_ref().unwrap_or(&lane), None, &hidden);
    let what = Back {
        w: parts.part(Tensor::MlpDown),
        scale: parts.part(Tensor::MlpScale),
        parts: None,
        lane: &lane,
        other: second.as_ref().map(|lane| other(lane, None, 1)),
    };
    Some(match back(gpu, &what, &hidden) {
        (x, None) => Stream::One(Rc::new(x)),
        (a, Some(b)) => Stream::Two(Rc::new(a), Rc::new(b)),
    })
}

/// The product of one row with a weight, which may be in several chunks, and what becomes of it.
pub(super) fn product(gpu: &mut Wgpu, w: &Weight, x: &Act, activation: Activation) -> Act {
    assert_eq!((x.rows(), x.cols), (1, w.cols), "a product of one row");
    let y = gpu.like(x, w.rows);
    for part in &w.parts {
        let what = Front {
            products: &[part],
            first: part.first,
            skip: None,
            mix: None,
            norm: None,
            keep: Keep::Nothing,
            activation,
        };
        front(gpu, &what, x, None, &y);
    }
    y
}
