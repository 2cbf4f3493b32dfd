//! The kernels, as they are embedded.

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The operation, and the file's name without `.cu`.
    pub name: &'static str,
    /// What is in it.
    pub text: &'static str,
    /// The kernels it has, as C++ names them.
    pub kernels: &'static [&'static str],
}

macro_rules! sources {
    ($($name:literal:
        $(by_packs [$($packed:literal),* $(,)?],)? $(by_heads [$($headed:literal),* $(,)?],)? [$($kernel:literal),* $(,)?],
    )*) => {
        &[$(Source {
            name: $name,
            text: include_str!(concat!($name, ".cu")),
            kernels: &[
                $($(
                    concat!($packed, "<float, 4>"), concat!($packed, "<float, 1>"),
                    concat!($packed, "<bf16, 8>"), concat!($packed, "<bf16, 1>"),
                )*)?
                $($(
                    concat!($headed, "<float, 16>"), concat!($headed, "<float, 8>"), concat!($headed, "<float, 0>"),
                    concat!($headed, "<bf16, 16>"), concat!($headed, "<bf16, 8>"), concat!($headed, "<bf16, 0>"),
                )*)?
                $($kernel),*
            ],
        }),*]
    };
}

/// All kernels, in f32 and in bf16; those that are `by_packs` also for 16 bytes of them at once and for one number,
/// and those that are `by_heads` for heads that so many lanes read at once, or a warp one number after the other.
pub const SOURCES: &[Source] = sources! {
    "adamw": by_packs ["adamw"], [],
    "add_scaled": by_packs ["add_scaled", "add_scaled_norm"], [],
    "attention": [
        "attention<float, 32>", "attention<float, 64>", "attention<float, 128>", "attention<float, 256>",
        "attention<bf16, 32>", "attention<bf16, 64>", "attention<bf16, 128>", "attention<bf16, 256>",
    ],
    "attention_backward": [
        "attention_backward_queries<float, 32>", "attention_backward_queries<float, 64>",
        "attention_backward_queries<float, 128>", "attention_backward_queries<float, 256>",
        "attention_backward_queries<bf16, 32>", "attention_backward_queries<bf16, 64>",
        "attention_backward_queries<bf16, 128>", "attention_backward_queries<bf16, 256>",
        "attention_backward_keys<float, 32>", "attention_backward_keys<float, 64>",
        "attention_backward_keys<float, 128>", "attention_backward_keys<float, 256>",
        "attention_backward_keys<bf16, 32>", "attention_backward_keys<bf16, 64>",
        "attention_backward_keys<bf16, 128>", "attention_backward_keys<bf16, 256>",
    ],
    "attention_mma": ["attention_mma<64>", "attention_mma<128>"],
    "attention_mma_backward": [
        "attention_mma_backward_queries<64>", "attention_mma_backward_queries<128>",
        "attention_mma_backward_keys<64>", "attention_mma_backward_keys<128>",
    ],
    "average": by_packs ["average", "add_to"], [],
    "cross_entropy": by_packs ["cross_entropy_tile", "cross_entropy_tile_backward"], ["cross_entropy_end"],
    "ema": by_packs ["convert"], ["ema<4>", "ema<1>"],
    "embed": by_packs ["embed", "embed_backward"], [],
    "exclude_self": by_heads ["exclude_self", "exclude_self_backward"], [],
    "gated_skip": by_packs ["gated_skip", "gated_skip_backward"], [],
    "head_norm_rope": [
        "head_norm_rope<float>", "head_norm_rope<bf16>", "head_norm_rope_backward<float>", "head_norm_rope_backward<bf16>",
    ],
    "leaky_relu_squared": by_packs ["leaky_relu_squared", "leaky_relu_squared_backward"], [],
    "linear": [
        "product<float, float, 0>", "product<float, float, 1>", "product<float, float, 2>",
        "product<bf16, bf16, 0>", "product<bf16, bf16, 1>", "product<bf16, bf16, 2>",
        "product<bf16, float, 0>", "product<bf16, float, 1>", "product<bf16, float, 2>",
    ],
    "mix": by_packs ["mix", "mix_norm", "mix_backward"], [],
    "muon": by_packs ["muon_direction", "muon_normalize", "muon_apply"], [],
    "normuon": by_packs ["normuon_rows", "normuon_columns"], ["normuon_factors"],
    "project_heads": by_heads ["project_heads", "project_heads_backward"], [],
    "rms_norm": by_packs ["rms_norm", "rms_norm_backward"], [],
    "scale": by_packs ["scale", "scale_backward"], ["add_parts"],
    "softcap": by_packs ["softcap", "softcap_backward"], [],
    "sums": by_packs ["sum_of_squares"], ["add_columns", "clip_factor"],
    "tail": by_packs ["tail", "tail_backward"], [],
    "update_lane": by_packs ["update_lane"], [],
};

macro_rules! headers {
    ($($name:literal,)*) => {
        &[$(($name, include_str!($name))),*]
    };
}

/// What the kernels include: names and texts.
pub const HEADERS: &[(&str, &str)] = headers! {
    "attention.cuh",
    "attention_mma.cuh",
    "channel_sums.cuh",
    "head_norm_rope.cuh",
    "heads.cuh",
    "packs.cuh",
    "placed.cuh",
    "powers.cuh",
    "rms_norm.cuh",
    "softcap.cuh",
    "storage.cuh",
    "tensor_core.cuh",
    "threads.cuh",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_listed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if let Some(source) = name.strip_suffix(".cu") {
                assert!(SOURCES.iter().any(|s| s.name == source), "{name} is not among the sources");
            } else if name.ends_with(".cuh") {
                assert!(HEADERS.iter().any(|&(header, _)| header == name), "{name} is not among the headers");
            }
        }
    }

    #[test]
    fn every_kernel_is_listed() {
        for source in SOURCES {
            let listed = |name: &str| source.kernels.iter().any(|k| k.split('<').next() == Some(name));
            let kernels = source.text.split("__global__ void __launch_bounds__(").skip(1);
            let mut found = 0;
            for kernel in kernels {
                let signature = kernel.split_once(" {").unwrap().0;
                let name = signature.split_whitespace().find(|w| w.contains('(') && !w.ends_with(')')).unwrap();
                let name = name.split('(').next().unwrap();
                assert!(listed(name), "{}.cu: {name} is not listed", source.name);
                found += 1;
            }
            assert!(found > 0, "{}.cu has no kernel", source.name);
        }
    }
}
