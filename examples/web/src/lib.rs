//! The runtime in a browser: what the page's worker calls.
//!
//! JavaScript holds a [`Model`] and asks one thing of it at a time. Text and figures cross as JSON. Whatever goes on for
//! long gives what it has to a function that says whether to go on, and lets the worker read its messages, such as "stop".

mod about;
mod failure;
mod machine;
mod reading;
mod turns;
mod writing;

use js_sys::Function;
use sixpack_formats::Artifact;
use sixpack_formats::tokenizer::{ByteTables, Tokenizer};
use sixpack_runtime::Engine;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::about::About;
use crate::failure::Failure;

/// A model that is ready to write and to read.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Model {
    engine: Engine,
    tokenizer: Tokenizer,
    bytes: ByteTables,
    about: String,
    turn: Function,
}

#[wasm_bindgen]
impl Model {
    /// Reads the bytes of a `.6pk` file, to be run on `device`: `auto`, `cpu` or `webgpu`. `turn` gives a promise of the
    /// event loop's next turn.
    ///
    /// # Errors
    /// An [`Error`](js_sys::Error) whose message a person can read.
    pub async fn open(file: Vec<u8>, device: String, turn: Function) -> Result<Model, JsValue> {
        Ok(Self::read_artifact(&file, &device, turn).await?)
    }

    /// What the model is, as JSON: [`About`].
    pub fn about(&self) -> String {
        self.about.clone()
    }

    /// What it runs on now, `cpu` or `webgpu`: a GPU that was not asked for and is lost is left for the processor.
    pub fn device(&self) -> String {
        machine::name(&self.engine).into()
    }

    /// Continues a prompt. `order` is JSON, [`writing::Order`]; `on_text` is given each piece of text and says whether
    /// to go on. The result is JSON, [`writing::Written`].
    ///
    /// # Errors
    /// As [`Model::open`].
    pub async fn write(&mut self, order: String, on_text: Function) -> Result<String, JsValue> {
        Ok(self.continue_prompt(&order, &on_text).await?)
    }

    /// Measures how well the model expects a text. `on_cells` is given JSON, a list of [`reading::Cell`], for each part
    /// that was read and says whether to go on. The result is JSON, [`reading::Read`].
    ///
    /// # Errors
    /// As [`Model::open`].
    pub async fn read(&mut self, text: String, on_cells: Function) -> Result<String, JsValue> {
        Ok(self.score_text(&text, &on_cells).await?)
    }
}

impl Model {
    async fn read_artifact(file: &[u8], device: &str, turn: Function) -> Result<Self, Failure> {
        if !Artifact::is_artifact(file) {
            return Err(Failure::NotAModel);
        }
        let artifact = Artifact::read(file)?;
        let tokenizer = artifact.model.tokenizer.as_deref().ok_or(Failure::NoTokenizer)?;
        let tokenizer = Tokenizer::from_model(tokenizer)?;
        if tokenizer.vocab_size() != artifact.model.config.vocab_size {
            let found = format!("its tokenizer has {} pieces, its tables another number", tokenizer.vocab_size());
            return Err(Failure::Damaged(found));
        }
        let opened = machine::open(&artifact.model, device).await?;
        let about = About::new(&artifact, &opened);
        Ok(Self { bytes: tokenizer.byte_tables(), about: json(&about), engine: opened.engine, tokenizer, turn })
    }

    /// The ids of `text` as a document begins.
    fn ids(&self, text: &str) -> Vec<u32> {
        let mut ids: Vec<u32> = self.tokenizer.bos_id().into_iter().collect();
        ids.extend(self.tokenizer.encode(text));
        ids
    }
}

/// Gives `value` to JavaScript, which says whether to go on.
fn tell(function: &Function, value: &str) -> Result<bool, JsValue> {
    Ok(function.call1(&JsValue::NULL, &JsValue::from_str(value))?.is_truthy())
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain structs of numbers and text are JSON")
}

/// The message of the panic that stopped this module, if it was one; a stop without a message is an allocation that
/// failed.
#[wasm_bindgen]
pub fn last_words() -> Option<String> {
    failure::last_words()
}

/// Keeps the message of a panic for [`last_words`].
#[wasm_bindgen(start)]
pub fn start() {
    failure::remember_panics();
}
