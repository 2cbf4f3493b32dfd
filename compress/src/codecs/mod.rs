#![doc = include_str!("README.md")]

mod brotli;
mod bytes;
mod constriction;
pub mod floors;
mod layout;
mod measure;
mod ours;
mod registry;
mod source;
mod symbols;
mod zstd;

use sixpack_formats::QuantizedMatrix;

use crate::Result;

pub use bytes::{ByteCodec, Laid};
pub use layout::Layout;
pub use measure::{Measured, best, measure};
pub use registry::{all, find};
pub use source::{Class, Named, Streams, of_file, of_model};

/// A lossless coder of the codes of quantised matrices that share one stream.
///
/// What else a matrix has, its shape, `q_max`, scales and column factors, is known to the decoder and not counted: it is
/// the same for every codec.
pub trait MatrixCodec: Send + Sync {
    /// Its name in tables and on the command line, without the layout: "brotli-11".
    fn name(&self) -> String;

    /// How the codes stand in bytes before they are coded; none where the codec reads matrices as they are.
    fn layout(&self) -> Option<Layout> {
        None
    }

    /// Codes the matrices one after another into one stream; everything the decoder needs beside the outlines is in it.
    /// The same matrices always give the same bytes.
    ///
    /// # Errors
    /// [`crate::Error::NotAPath`] for a matrix that says it is a path of the trellis and is not.
    fn encode(&self, matrices: &[&QuantizedMatrix]) -> Result<Vec<u8>>;

    /// The codes of each matrix, row-major. `outlines` are the matrices without their codes, see [`outline`].
    ///
    /// # Errors
    /// A stream that is not one of these matrices. It never panics and allocates no more than a small multiple of what
    /// the outlines and `coded` take.
    fn decode(&self, coded: &[u8], outlines: &[QuantizedMatrix]) -> Result<Vec<Vec<i8>>>;

    /// Name and layout: "brotli-11/transposed".
    fn full_name(&self) -> String {
        match self.layout() {
            Some(layout) => format!("{}/{}", self.name(), layout.name()),
            None => self.name(),
        }
    }
}

/// A matrix without its codes: what a decoder knows.
pub fn outline(matrix: &QuantizedMatrix) -> QuantizedMatrix {
    QuantizedMatrix { codes: Vec::new(), scales: matrix.scales.clone(), columns: matrix.columns.clone(), ..*matrix }
}
