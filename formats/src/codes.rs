//! Codes in a safetensors file, as the reference implementation writes what its GPTQ made: for each matrix `NAME.q`,
//! int8 `[rows, cols]`, and `NAME.scale`, f16 `[rows]`. Other tensors of the file are passed over.

use std::collections::BTreeMap;

use half::f16;
use safetensors::tensor::Dtype;

use crate::{Error, QuantizedMatrix, Result, state_dict};

/// The matrices of a file by name. Their `q_max` is not in it and taken as the least `2ⁿ − 1` that no code exceeds.
///
/// # Errors
/// A malformed file; codes without scales, of another dtype or shape, or a code of −128.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, QuantizedMatrix>> {
    let (header, data) = state_dict::parse(bytes)?;
    let mut tensors = header.tensors();
    let names: Vec<String> = tensors.keys().filter_map(|key| Some(key.strip_suffix(".q")?.to_owned())).collect();
    let mut matrices = BTreeMap::new();
    for name in names {
        let mut take = |suffix: &str, expected: &str, dtype: Dtype| {
            let key = format!("{name}.{suffix}");
            match tensors.remove(&key) {
                Some(info) if info.dtype == dtype => Ok(info),
                Some(info) => Err(wrong(&key, expected, format!("dtype {}", info.dtype))),
                None => Err(wrong(&key, expected, "no such tensor")),
            }
        };
        let codes = take("q", "int8 codes", Dtype::I8)?;
        let scales = take("scale", "f16 scales of the rows", Dtype::F16)?;
        let [rows, cols] = codes.shape[..] else {
            return Err(wrong(&name, "codes of shape [rows, cols]", format!("shape {:?}", codes.shape)));
        };
        if scales.shape != [rows] {
            return Err(wrong(&name, format!("scales of shape [{rows}]"), format!("shape {:?}", scales.shape)));
        }
        let part = |(start, end): (usize, usize)| &data[start..end];
        let codes: Vec<i8> = part(codes.data_offsets).iter().map(|&byte| byte as i8).collect();
        let scales = part(scales.data_offsets).as_chunks().0.iter().map(|&pair| f16::from_le_bytes(pair)).collect();
        let largest = codes.iter().map(|code| code.unsigned_abs()).max().unwrap_or(0).clamp(1, 127);
        let q_max = u8::MAX >> largest.leading_zeros();
        matrices.insert(name.clone(), QuantizedMatrix::new(&name, [rows, cols], q_max, codes, scales)?);
    }
    Ok(matrices)
}

fn wrong(name: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Tensor { name: name.to_owned(), expected: expected.into(), found: found.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    const SCALES: &str = r#""w.scale":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}"#;
    const CODES: &str = r#""w.q":{"dtype":"I8","shape":[2,3],"data_offsets":[4,10]}"#;

    #[test]
    fn codes_and_scales_by_name() {
        let data = [0, 0x3c, 0, 0x40, 1, 0xff, 0, 17, 2, 0xf0];
        let file = file(&format!("{{{SCALES},{CODES}}}"), &data);
        let matrix = &read(&file).unwrap()["w"];
        assert_eq!(matrix.codes, [1, -1, 0, 17, 2, -16]);
        assert_eq!(matrix.scales, [f16::ONE, f16::from_f32(2.0)]);
        assert_eq!((matrix.rows, matrix.cols, matrix.q_max), (2, 3, 31));
        assert!((0..file.len()).all(|cut| read(&file[..cut]).is_err()));
    }

    #[test]
    fn what_is_missing_or_another_is_named() {
        let message = |header: &str, data: &[u8]| read(&file(header, data)).unwrap_err().to_string();
        let alone = CODES.replace("[4,10]", "[0,6]");
        assert!(message(&format!("{{{alone}}}"), &[0; 6]).contains("tensor `w.scale`: expected f16 scales"));
        let data = [0; 10];
        let unsigned = CODES.replace("I8", "U8");
        assert!(message(&format!("{{{SCALES},{unsigned}}}"), &data).contains("tensor `w.q`: expected int8 codes"));
        let flat = CODES.replace("[2,3]", "[6]");
        assert!(message(&format!("{{{SCALES},{flat}}}"), &data).ends_with("found shape [6]"));
        let other = CODES.replace("[2,3]", "[3,2]");
        assert!(message(&format!("{{{SCALES},{other}}}"), &data).ends_with("found shape [2]"));
        let lowest = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];
        assert!(message(&format!("{{{SCALES},{CODES}}}"), &lowest).contains("codes within ±127"));
    }
}
