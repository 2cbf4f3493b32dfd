//! A model into one artifact and back, and what each byte of it is for.
//!
//! `cargo run --release --example 3_pack_and_read`

use sixpack_compress::{Options, Scheme, compress};
use sixpack_formats::artifact::{Artifact, Provenance};
use sixpack_formats::{Codec, ModelConfig};
use sixpack_train::{init, params};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = ModelConfig::small();
    let model = params::into_model(&config, init(&config, 42), None)?;
    let provenance = Provenance { tool: "example".into(), seed: Some(42), ..Provenance::default() };
    let options = Options {
        scheme: Scheme::Reference,
        sensitivity: None,
        int6_layers: None,
        target_bytes: None,
        codec: Codec::Brotli,
        provenance: &provenance,
        threads: 1,
    };
    // Without calibration text weights are rounded to their nearest codes.
    let packed = compress(&model, None, &options, &|_| {})?;
    let artifact = Artifact::read(&packed.file)?;
    for section in &artifact.ledger.sections {
        println!("{:>16}  {:>9} bytes of {:>9}", section.name(), section.bytes, section.raw);
    }
    let total = artifact.ledger.total();
    println!("{total} bytes in all, {} of them neither numbers nor tokenizer", artifact.ledger.overhead());
    assert_eq!(total, packed.file.len() as u64);
    Ok(())
}
