//! The coder of this project: [`matrix`](sixpack_formats::codec::matrix) of the crate of formats, as artifacts have it.

use sixpack_formats::QuantizedMatrix;
use sixpack_formats::codec::matrix;

use super::MatrixCodec;
use super::bytes::{read_varint, varint};
use super::symbols::wrong;
use crate::Result;

/// Each matrix by itself: its coded length as a [`varint`], and what the coder makes of it.
pub(super) struct Ours;

const NAME: &str = "sixpack";

impl MatrixCodec for Ours {
    fn name(&self) -> String {
        NAME.into()
    }

    fn encode(&self, matrices: &[&QuantizedMatrix]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for m in matrices {
            let coded = matrix::encode(m, NAME)?;
            varint(coded.len(), &mut out);
            out.extend(coded);
        }
        Ok(out)
    }

    fn decode(&self, coded: &[u8], outlines: &[QuantizedMatrix]) -> Result<Vec<Vec<i8>>> {
        let mut rest = coded;
        let mut decoded = Vec::with_capacity(outlines.len());
        for outline in outlines {
            let own = read_varint(&mut rest).and_then(|length| rest.split_off(..length));
            let own = own.ok_or_else(|| wrong(NAME, "another matrix", "the end of the stream"))?;
            decoded.push(matrix::decode(own, outline.clone(), NAME)?.codes);
        }
        match rest {
            [] => Ok(decoded),
            more => Err(wrong(NAME, "the end of the stream", format!("{} more bytes", more.len()))),
        }
    }
}
