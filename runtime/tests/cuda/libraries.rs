//! Libraries of CUDA are found in the places where they usually are; played by small ones that only tell their version.

use std::path::Path;
use std::process::Command;

use sixpack_runtime::cuda::{Libraries, Places};

/// What the libraries are asked for, and what these answer.
const DRIVER: &str = "extern \"C\" int cuDriverGetVersion(int *v) { *v = 13010; return 0; }";
const NVRTC: &str = "extern \"C\" int nvrtcVersion(int *a, int *b) { *a = 12; *b = 9; return 0; }";
const CUBLASLT: &str = "extern \"C\" unsigned long cublasLtGetVersion() { return 130205; }";
const NCCL: &str = "extern \"C\" int ncclGetVersion(int *v) { *v = 22703; return 0; }";
const FAILING: &str = "extern \"C\" int nvrtcVersion(int *, int *) { return 7; }";

fn build(text: &str, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let source = to.with_extension("cpp");
    std::fs::write(&source, text).unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let built = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(to).arg(&source).status().unwrap();
    assert!(built.success());
}

pub(crate) fn are_found_where_they_are() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cuda_libraries.{}", std::process::id()));
    let (toolkit, packages, named) = (root.join("toolkit"), root.join("packages"), root.join("named"));
    let driver = toolkit.join("lib64/libcuda.so.1");
    build(DRIVER, &driver);
    let in_wheel = packages.join("nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
    build(NVRTC, &in_wheel);
    let cublas = packages.join("nvidia/cu13/lib/libcublasLt.so.13");
    build(CUBLASLT, &cublas);
    let nccl = packages.join("nvidia/nccl/lib/libnccl.so.2");
    build(NCCL, &nccl);
    let failing = named.join("somewhere/libnvrtc.so.13");
    build(FAILING, &failing);

    let none = Libraries::find(&Places { nvrtc: Some(root.join("nowhere")), ..Places::default() });
    let why = none.missing.iter().find(|(what, _)| *what == "NVRTC").map(|(_, why)| why.clone());
    assert!(why.unwrap().ends_with("/nowhere"), "{none:?}");
    // The system's own come first, where it has some.
    let places = Places { nvrtc: None, toolkits: vec![toolkit], packages: vec![packages] };
    let system: Vec<_> = Libraries::find(&Places::default()).found.iter().map(|l| l.what).collect();
    let found = Libraries::find(&places);
    let expected = [
        ("the driver", "for CUDA 13.1", &driver),
        ("NVRTC", "12.9", &in_wheel),
        ("cuBLASLt", "13.2.5", &cublas),
        ("NCCL", "2.27.3", &nccl),
    ];
    for (library, (what, version, path)) in found.found.iter().zip(expected) {
        let same = (library.what, library.version.as_str(), &library.path) == (what, version, path);
        assert!(same || system.contains(&what), "{library:?}");
    }
    assert_eq!((found.found.len(), found.why_not()), (4, None));
    // The one that is named is the one that is taken, also where it does not work.
    let found = Libraries::find(&Places { nvrtc: Some(named), ..places.clone() });
    let why = format!("NVRTC ({}: nvrtcVersion failed with code 7)", failing.display());
    assert!(found.why_not().unwrap().contains(&why), "{found:?}");
    let found = Libraries::find(&Places { nvrtc: Some(in_wheel.clone()), ..places });
    assert!(found.found.iter().any(|l| l.what == "NVRTC" && l.path == in_wheel), "{found:?}");
    std::fs::remove_dir_all(root).unwrap();
}
