//! The one table of tensors: name, shape, role, init, optimizer group, quantisation class.
//!
//! Init, optimizer, checkpoint, GPTQ and packing all walk [`ModelConfig::tensors`]; none of them lists names of its own.

use std::fmt;

use crate::ModelConfig;

/// A tensor within one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// `attn.c_q.weight [H·D, d]`.
    Query,
    /// `attn.c_k.weight [K·D, d]`.
    Key,
    /// `attn.c_v.weight [K·D, d]`.
    Value,
    /// `attn.proj.weight [d, H·D]`.
    AttnOut,
    /// `attn.q_gain [H]`.
    QueryGain,
    /// `mlp.fc.weight [m, d]`.
    MlpUp,
    /// `mlp.proj.weight [d, m]`.
    MlpDown,
    /// `attn_scale [d]`.
    AttnScale,
    /// `mlp_scale [d]`.
    MlpScale,
    /// `resid_mix [2, d]`: row 0 for the stream, row 1 for the embedding.
    ResidMix,
}

impl Part {
    /// Every part of a block, in the order of the tensor table.
    pub const ALL: [Self; 10] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::AttnOut,
        Self::QueryGain,
        Self::MlpUp,
        Self::MlpDown,
        Self::AttnScale,
        Self::MlpScale,
        Self::ResidMix,
    ];

    /// The name below `blocks.{i}.`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "attn.c_q.weight",
            Self::Key => "attn.c_k.weight",
            Self::Value => "attn.c_v.weight",
            Self::AttnOut => "attn.proj.weight",
            Self::QueryGain => "attn.q_gain",
            Self::MlpUp => "mlp.fc.weight",
            Self::MlpDown => "mlp.proj.weight",
            Self::AttnScale => "attn_scale",
            Self::MlpScale => "mlp_scale",
            Self::ResidMix => "resid_mix",
        }
    }
}

/// The identity of a tensor; displays as the reference's canonical name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TensorId {
    /// `tok_emb.weight [V, d]`, input embedding and head.
    TokenEmbedding,
    /// A tensor of block `.0`.
    Block(u16, Part),
    /// `skip_weights [S, d]`.
    SkipWeights,
    /// `skip_gates [S, d]`.
    SkipGates,
    /// `ve_shared.embed.weight [V, ve_dim]`.
    ValueEmbedding,
    /// `ve_shared.proj.weight [K·D, ve_dim]`; absent where `ve_dim` is the width of the keys and values already.
    ValueProj,
    /// `ve_shared.scale []`.
    ValueScale,
    /// `ve_layer_scales.{j} [1]`, `j` the index in `ve_layers`.
    ValueLayerScale(u16),
    /// `parallel_resid_lambdas [N, 2]`.
    LaneKeep,
    /// `parallel_post_lambdas [N, 2, 2]`.
    LanePost,
}

impl TensorId {
    /// A tensor of block `layer`.
    pub fn block(layer: usize, part: Part) -> Self {
        Self::Block(layer as u16, part)
    }
}

impl fmt::Display for TensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenEmbedding => f.write_str("tok_emb.weight"),
            Self::Block(layer, part) => write!(f, "blocks.{layer}.{}", part.name()),
            Self::SkipWeights => f.write_str("skip_weights"),
            Self::SkipGates => f.write_str("skip_gates"),
            Self::ValueEmbedding => f.write_str("ve_shared.embed.weight"),
            Self::ValueProj => f.write_str("ve_shared.proj.weight"),
            Self::ValueScale => f.write_str("ve_shared.scale"),
            Self::ValueLayerScale(j) => write!(f, "ve_layer_scales.{j}"),
            Self::LaneKeep => f.write_str("parallel_resid_lambdas"),
            Self::LanePost => f.write_str("parallel_post_lambdas"),
        }
    }
}

/// How a tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every element the same.
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// Row 0 ones, row 1 zeros.
    OnesThenZeros,
    /// Orthogonal with gain 1 where both sides are at least 64, else uniform in ±1/sqrt(columns).
    Orthogonal,
}

/// Which optimizer updates a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OptimizerGroup {
    /// The rule a recipe chooses for matrices: Muon, NorMuon or AdamW.
    Matrix,
    /// AdamW with the tables' learning rate.
    Token,
    /// AdamW with the control tensors' learning rate.
    Scalar,
}

/// How a tensor is kept in an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuantClass {
    /// int5 or int6 by GPTQ, attention matrices.
    Attention,
    /// int5 or int6 by GPTQ, MLP matrices.
    Mlp,
    /// int8 per row.
    Embedding,
    /// f16: control tensors and everything of at most [`TensorSpec::SMALL`] elements.
    Half,
}

/// One row of the tensor table.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Which tensor.
    pub id: TensorId,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
    /// Who updates it.
    pub group: OptimizerGroup,
    /// How it is packed.
    pub class: QuantClass,
}

impl TensorSpec {
    /// Matrices with this many elements or fewer are never quantised.
    pub const SMALL: usize = 65_536;

    /// The canonical name.
    pub fn name(&self) -> String {
        self.id.to_string()
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl ModelConfig {
    /// The tensor table of this configuration, in a fixed order.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        use Init::{Constant, Normal, Orthogonal};
        use OptimizerGroup::{Matrix, Scalar, Token};
        let (d, kv, hidden, n) = (self.model_dim, self.kv_dim(), self.mlp_hidden(), self.num_layers);
        let mut table = Vec::new();
        let mut row = |id, shape: &[usize], init, group, class: QuantClass| {
            let shape = shape.to_vec();
            let small = shape.iter().product::<usize>() <= TensorSpec::SMALL;
            table.push(TensorSpec { id, shape, init, group, class: if small { QuantClass::Half } else { class } });
        };
        let (attention, mlp, embedding, half) =
            (QuantClass::Attention, QuantClass::Mlp, QuantClass::Embedding, QuantClass::Half);
        let emb_std = self.tied_embed_init_std as f32;
        row(TensorId::TokenEmbedding, &[self.vocab_size, d], Normal(emb_std), Token, embedding);
        for i in 0..n {
            for part in Part::ALL {
                let (shape, init, group, class): (&[usize], _, _, _) = match part {
                    Part::Query => (&[d, d], Orthogonal, Matrix, attention),
                    Part::Key | Part::Value => (&[kv, d], Orthogonal, Matrix, attention),
                    Part::AttnOut => (&[d, d], Constant(0.0), Matrix, attention),
                    Part::QueryGain => (&[self.num_heads], Constant(self.qk_gain_init as f32), Scalar, half),
                    Part::MlpUp => (&[hidden, d], Orthogonal, Matrix, mlp),
                    Part::MlpDown => (&[d, hidden], Constant(0.0), Matrix, mlp),
                    Part::AttnScale | Part::MlpScale => (&[d], Constant(1.0), Scalar, half),
                    Part::ResidMix => (&[2, d], Init::OnesThenZeros, Scalar, half),
                };
                row(TensorId::block(i, part), shape, init, group, class);
            }
        }
        if self.skips() > 0 {
            row(TensorId::SkipWeights, &[self.skips(), d], Constant(1.0), Scalar, half);
            if self.skip_gates {
                row(TensorId::SkipGates, &[self.skips(), d], Constant(0.0), Scalar, half);
            }
        }
        if !self.ve_layers.is_empty() {
            row(TensorId::ValueEmbedding, &[self.vocab_size, self.ve_dim], Normal(0.01), Token, embedding);
            if self.ve_dim != kv {
                row(TensorId::ValueProj, &[kv, self.ve_dim], Constant(0.0), Matrix, embedding);
            }
            row(TensorId::ValueScale, &[], Constant(0.1), Scalar, half);
            for j in 0..self.ve_layers.len() {
                row(TensorId::ValueLayerScale(j as u16), &[1], Constant(1.0), Scalar, half);
            }
        }
        if self.parallel_residual {
            row(TensorId::LaneKeep, &[n, 2], Constant(1.1f32.sqrt()), Scalar, half);
            row(TensorId::LanePost, &[n, 2, 2], Constant(1.0), Scalar, half);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_the_parameters_and_matrices_of_the_reference() {
        let table = ModelConfig::record().tensors();
        assert_eq!(table.iter().map(TensorSpec::elements).sum::<usize>(), 34_401_371);
        let matrices =
            table.iter().filter(|s| matches!(s.class, QuantClass::Attention | QuantClass::Mlp)).collect::<Vec<_>>();
        assert_eq!(matrices.len(), 66);
        let proj = table.iter().find(|s| s.id == TensorId::ValueProj).expect("record has a projection");
        assert_eq!(proj.class, QuantClass::Half);
    }

    #[test]
    fn every_tensor_appears_once() {
        let mut config = ModelConfig::record();
        config.parallel_residual = true;
        let table = config.tensors();
        let mut names: Vec<_> = table.iter().map(TensorSpec::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), table.len());
    }
}
