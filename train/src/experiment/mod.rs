//! Experiments: changes to a recipe compared with a baseline over several seeds, and what that says beyond noise.
//!
//! A plan is what was typed and then what it means ([`Plan`]); a [`Record`] is what came of one run; [`Results`] are
//! all of them, and [`Summary`] what they say of each arm. Running is the program's.

mod place;
mod plan;
mod record;
mod resolve;
mod results;
pub mod statistics;
pub mod student;
mod summary;
mod typed;
mod verdict;

pub use plan::{Arm, BASELINE, Plan, Priority, Run};
pub use record::{Artifact, Conditions, CurvePoint, Log, Measured, Outcome, Record, Trained};
pub use results::{ArmHeader, JSON, Results, TABLE};
pub use summary::{Row, Summary};
pub use verdict::{Complexity, RULE, Verdict};
