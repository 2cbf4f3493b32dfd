//! The runtime's checks.

#[path = "../../runtime/tests/cuda/documents.rs"]
pub(crate) mod documents;
#[path = "../../runtime/tests/cuda/gradients.rs"]
pub(crate) mod gradients;
#[path = "../../runtime/tests/cuda/heads.rs"]
pub(crate) mod heads;
#[path = "../../runtime/tests/cuda/packs.rs"]
pub(crate) mod packs;
#[path = "../../runtime/tests/cuda/suite.rs"]
pub(crate) mod suite;
