//! Failures in words for someone who has never seen the program.

use std::sync::Mutex;

use sixpack_formats::Error as FormatError;
use sixpack_runtime::Error as MachineError;
use wasm_bindgen::JsValue;

/// What can go wrong with a file or a text someone gives.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A file of another kind.
    NotAModel,
    /// A model without a tokenizer.
    NoTokenizer,
    /// A model that cannot be read, and how.
    Damaged(String),
    /// Nothing to continue, in a model that cannot start by itself.
    NothingToContinue,
    /// Too little to measure.
    NothingToRead,
    /// No GPU, where one was asked for.
    NoGpu(MachineError),
    /// The machine refused.
    Machine(MachineError),
    /// A JavaScript function of ours threw.
    Thrown(JsValue),
}

impl Failure {
    fn words(&self) -> String {
        match self {
            Self::NotAModel => "This file is not a sixpack model. Pick one that ends in .6pk.".into(),
            Self::NoTokenizer => {
                "This model has no tokenizer in it, so it can neither write nor read text. Pack it again from a \
                 checkpoint that has one."
                    .into()
            }
            Self::Damaged(detail) => {
                format!("This model cannot be read: it is damaged, or of another version of sixpack. ({detail})")
            }
            Self::NothingToContinue => "Type a few words first: this model needs something to continue.".into(),
            Self::NothingToRead => "Paste a few words first: there is nothing to measure.".into(),
            Self::NoGpu(error) => {
                format!("This browser has no WebGPU that the model can run on. Choose the processor instead. ({error})")
            }
            Self::Machine(error) => format!("The model could not be run. ({error})"),
            Self::Thrown(value) => format!("The page failed. ({value:?})"),
        }
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<MachineError> for Failure {
    fn from(error: MachineError) -> Self {
        Self::Machine(error)
    }
}

impl From<JsValue> for Failure {
    fn from(value: JsValue) -> Self {
        Self::Thrown(value)
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> Self {
        js_sys::Error::new(&failure.words()).into()
    }
}

static LAST_WORDS: Mutex<Option<String>> = Mutex::new(None);

pub(crate) fn remember_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut words) = LAST_WORDS.lock() {
            *words = Some(panic.to_string());
        }
    }));
}

pub(crate) fn last_words() -> Option<String> {
    LAST_WORDS.lock().ok()?.clone()
}
