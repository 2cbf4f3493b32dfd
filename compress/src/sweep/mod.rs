//! The trade-off between bytes and loss: measured points, their Pareto front, and the files they are kept in.
//!
//! A point is one artifact: which checkpoint, how it was compressed, what it was scored on, and what came of it. Points
//! carry everything that decides them ([`Key`]), so that a sweep which was interrupted, or is asked for more, measures
//! only what it does not have.

mod pareto;
mod point;
mod store;

pub use pareto::front;
pub use point::{Key, Measure, Point, Refused, Settings};
pub use store::{Points, csv};
