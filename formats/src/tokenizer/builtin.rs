//! The character map `nmt_nfkc`, which the models of the reference use and those trained here get.

use std::io::Read;
use std::sync::LazyLock;

/// `assets/README.md` says where it comes from.
static COMPRESSED: &[u8] = include_bytes!("../../assets/nmt_nfkc.charsmap.br");

static CHARSMAP: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut charsmap = Vec::new();
    let mut reader = brotli::Decompressor::new(COMPRESSED, 1 << 16);
    reader.read_to_end(&mut charsmap).expect("the asset is part of this crate and is checked by its tests");
    charsmap
});

/// The name of the rule, as models give it.
pub(super) const NAME: &str = "nmt_nfkc";

/// The `precompiled_charsmap` of the rule: 240,007 bytes, decompressed on first use.
pub(super) fn charsmap() -> &'static [u8] {
    &CHARSMAP
}
