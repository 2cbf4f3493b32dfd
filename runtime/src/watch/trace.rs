//! Where two backends part: every output recorded, and the first that differs.

use std::fmt;

use super::{Watch, Watched};
use crate::ops::{ReadBack, Site};

/// A decorator that records the output of each operation.
pub type Trace<'a, O> = Watched<'a, O, Records>;

/// One operation's output.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The operation, named as its method.
    pub op: &'static str,
    /// Which product, for `linear`.
    pub site: Option<Site>,
    /// The virtual layer it ran in, if it was in or after one.
    pub virtual_layer: Option<usize>,
    /// The values, row-major.
    pub values: Vec<f32>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op)?;
        if let Some(site) = self.site {
            write!(f, " {site}")?;
        }
        match self.virtual_layer {
            Some(layer) => write!(f, " of virtual layer {layer}"),
            None => f.write_str(" before the first layer"),
        }
    }
}

/// All outputs so far, in order.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// One for each operation.
    pub records: Vec<Record>,
    virtual_layer: Option<usize>,
}

impl<O: ReadBack> Watch<O> for Records {
    fn block(&mut self, virtual_layer: usize, _: usize) {
        self.virtual_layer = Some(virtual_layer);
    }

    fn output(&mut self, ops: &mut O, op: &'static str, site: Option<Site>, y: &O::Act) -> Result<(), O::Error> {
        let values = crate::now(ops.read(y))?;
        self.records.push(Record { op, site, virtual_layer: self.virtual_layer, values });
        Ok(())
    }
}

impl<'a, O: ReadBack> Watched<'a, O, Records> {
    /// Runs on `inner` and records.
    pub fn new(inner: &'a mut O) -> Self {
        Self::with(inner, Records::default())
    }

    /// What was recorded.
    pub fn into_records(self) -> Vec<Record> {
        self.into_watch().records
    }
}

/// The first operation whose outputs differ.
#[derive(Clone, Debug, PartialEq)]
pub enum Divergence {
    /// The backends did not run the same operations.
    Operation {
        /// Index of the operation.
        index: usize,
        /// What ran, as text; `None` if nothing did.
        found: Option<String>,
        /// What should have run.
        expected: Option<String>,
    },
    /// An output has other values.
    Value {
        /// Index of the operation.
        index: usize,
        /// Which operation, as text.
        op: String,
        /// The worst element.
        element: usize,
        /// Its value.
        found: f32,
        /// The value it should have.
        expected: f32,
    },
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation { index, found, expected } => {
                let name = |op: &Option<String>| op.clone().unwrap_or_else(|| "nothing".into());
                write!(f, "operation {index}: expected {}, found {}", name(expected), name(found))
            }
            Self::Value { index, op, element, found, expected } => {
                write!(f, "operation {index}, {op}: element {element}: expected {expected}, found {found}")
            }
        }
    }
}

/// The first operation of `found` that is not that of `expected`, or has an element further than
/// `tolerance · (1 + |expected|)` from it; two NaN are equal.
pub fn first_divergence(found: &[Record], expected: &[Record], tolerance: f32) -> Option<Divergence> {
    let key = |r: &Record| (r.op, r.site, r.virtual_layer, r.values.len());
    for index in 0..found.len().max(expected.len()) {
        let (f, e) = (found.get(index), expected.get(index));
        let (Some(f), Some(e)) = (f, e) else {
            let name = |r: Option<&Record>| r.map(Record::to_string);
            return Some(Divergence::Operation { index, found: name(f), expected: name(e) });
        };
        if key(f) != key(e) {
            let name = |r: &Record| Some(format!("{r} with {} values", r.values.len()));
            return Some(Divergence::Operation { index, found: name(f), expected: name(e) });
        }
        let errors = f.values.iter().zip(&e.values).map(|(f, e)| error(*f, *e));
        let worst = errors.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((element, error)) = worst
            && error > tolerance
        {
            let (found, expected) = (f.values[element], e.values[element]);
            return Some(Divergence::Value { index, op: e.to_string(), element, found, expected });
        }
    }
    None
}

fn error(found: f32, expected: f32) -> f32 {
    if found == expected || (found.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    let error = (found - expected).abs() / (1.0 + expected.abs());
    if error.is_nan() { f32::INFINITY } else { error }
}
