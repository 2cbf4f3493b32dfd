//! One file per verb.

pub(crate) mod codecs;
pub(crate) mod compress;
pub(crate) mod devices;
pub(crate) mod eval;
pub(crate) mod experiment;
pub(crate) mod inspect;
pub(crate) mod quickstart;
pub(crate) mod recipe;
pub(crate) mod run;
pub(crate) mod sensitivity;
pub(crate) mod serve;
pub(crate) mod sweep;
pub(crate) mod tokenize;
pub(crate) mod tokenizer;
pub(crate) mod train;
