//! NVIDIA's libraries: where they are, or that they are missing. They are no part of the program, which starts without.

use std::fmt;
use std::path::{Path, PathBuf};

use super::opened::{self, Opened};

/// The libraries of a GPU. Without the last two it computes all the same.
const NEEDED: [Needed; 4] = [
    Needed { what: "the driver", files: &["libcuda.so.1"], wheels: &[] },
    Needed {
        what: "NVRTC",
        files: &["libnvrtc.so.13", "libnvrtc.so.12"],
        wheels: &["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"],
    },
    Needed {
        what: "cuBLASLt",
        files: &["libcublasLt.so.13", "libcublasLt.so.12"],
        wheels: &["nvidia/cu13/lib", "nvidia/cublas/lib"],
    },
    Needed { what: "NCCL", files: &["libnccl.so.2"], wheels: &["nvidia/nccl/lib"] },
];

struct Needed {
    what: &'static str,
    /// File names, the one that is wanted most first.
    files: &'static [&'static str],
    /// Folders below a Python's packages.
    wheels: &'static [&'static str],
}

/// Where is looked beside the system's own places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// NVRTC itself, or a folder somewhere below which it is: what `SIXPACK_NVRTC` says.
    pub nvrtc: Option<PathBuf>,
    /// Folders of a toolkit: `lib64` or `lib` of them hold libraries.
    pub toolkits: Vec<PathBuf>,
    /// Folders of Python packages.
    pub packages: Vec<PathBuf>,
}

/// A library that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// What it is: `the driver`, `NVRTC`, `cuBLASLt` or `NCCL`.
    pub what: &'static str,
    /// Its file, or the name by which the system's loader has it.
    pub path: PathBuf,
    /// Its version as it says itself.
    pub version: String,
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.what, self.version, self.path.display())
    }
}

/// What of CUDA there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Libraries {
    /// What is there.
    pub found: Vec<Library>,
    /// What is not: its name, and why.
    pub missing: Vec<(&'static str, String)>,
}

impl Places {
    /// The usual ones, and those that the environment names.
    pub fn usual() -> Self {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let mut toolkits: Vec<PathBuf> = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(var).collect();
        toolkits.extend(below(Path::new("/usr/local"), "cuda"));
        let mut prefixes: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(var).collect();
        prefixes.extend(var("HOME").map(|home| home.join(".local")));
        prefixes.extend(["/usr/local", "/usr"].map(PathBuf::from));
        let pythons = prefixes.iter().flat_map(|p| below(&p.join("lib"), "python3"));
        let packages = pythons.flat_map(|p| ["site-packages", "dist-packages"].map(|name| p.join(name))).collect();
        Self { nvrtc: var("SIXPACK_NVRTC"), toolkits, packages }
    }

    /// Files to try for a library, best first; a bare name is looked up by the system's loader.
    fn candidates(&self, needed: &Needed) -> Vec<PathBuf> {
        let mut files = Vec::new();
        if let (Some(named), "NVRTC") = (&self.nvrtc, needed.what) {
            // Nothing else will do where one was named.
            let named = if named.is_dir() { anywhere_below(named, needed.files) } else { Some(named.clone()) };
            return named.into_iter().collect();
        }
        files.extend(needed.files.iter().map(PathBuf::from));
        let toolkits = self.toolkits.iter().flat_map(|t| ["lib64", "lib"].map(|lib| t.join(lib)));
        let wheels = self.packages.iter().flat_map(|p| needed.wheels.iter().map(move |w| p.join(w)));
        let folders: Vec<PathBuf> = toolkits.chain(wheels).collect();
        let in_folders = folders.iter().flat_map(|folder| needed.files.iter().map(move |file| folder.join(file)));
        files.extend(in_folders.filter(|file| file.is_file()));
        files
    }
}

impl Libraries {
    /// Looks for all of them.
    pub fn find(places: &Places) -> Self {
        let mut all = Self::default();
        for needed in &NEEDED {
            match open(places, needed) {
                Ok((library, _)) => all.found.push(library),
                Err(reason) => all.missing.push((needed.what, reason)),
            }
        }
        all
    }

    /// What is missing, in one line, if anything is.
    pub fn why_not(&self) -> Option<String> {
        // Without cuBLASLt products are this project's own, and slower; without NCCL gradients go by way of the host.
        let needed = self.missing.iter().filter(|(what, _)| !["cuBLASLt", "NCCL"].contains(what));
        let missing: Vec<String> = needed.map(|(what, why)| format!("{what} ({why})")).collect();
        (!missing.is_empty()).then(|| format!("CUDA needs what is not found here: {}", missing.join(", ")))
    }
}

/// The driver, opened: it stays so, and is then found by its name.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn driver(places: &Places) -> Result<(Library, Opened), String> {
    open(places, &NEEDED[0])
}

/// NVRTC, opened: it stays so, and is then found by its name.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn nvrtc(places: &Places) -> Result<(Library, Opened), String> {
    open(places, &NEEDED[1])
}

/// cuBLASLt, opened: it stays so, and is then found by its name.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn cublaslt(places: &Places) -> Result<(Library, Opened), String> {
    open(places, &NEEDED[2])
}

/// NCCL, opened.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn nccl(places: &Places) -> Result<(Library, Opened), String> {
    open(places, &NEEDED[3])
}

fn open(places: &Places, needed: &Needed) -> Result<(Library, Opened), String> {
    let mut reason = match &places.nvrtc {
        Some(named) if needed.what == "NVRTC" => format!("none at {}", named.display()),
        _ => format!("no {}", needed.files.join(", no ")),
    };
    // A driver does not take what a newer CUDA's libraries make. One that was named is taken at its word.
    let named = needed.what == "NVRTC" && places.nvrtc.is_some();
    let newest = if needed.what == "the driver" || named { None } else { driver_major(places) };
    let candidates = places.candidates(needed).into_iter().filter(|path| {
        // NCCL's number is its own.
        let numbered = path.extension().filter(|_| needed.what != "NCCL");
        let of = numbered.and_then(|major| major.to_str()).and_then(|major| major.parse::<u32>().ok());
        newest.zip(of).is_none_or(|(newest, of)| of <= newest)
    });
    for path in candidates {
        match opened::open(&path) {
            Ok(opened) => match opened.version(needed.what) {
                Ok(version) => return Ok((Library { what: needed.what, path, version }, opened)),
                Err(error) => reason = format!("{}: {error}", path.display()),
            },
            // A name that the loader does not know is what is said already.
            Err(error) if path.is_file() => reason = error,
            Err(_) => {}
        }
    }
    Err(reason)
}

/// The newest CUDA that the driver knows, if there is one.
fn driver_major(places: &Places) -> Option<u32> {
    let (library, _) = open(places, &NEEDED[0]).ok()?;
    library.version.strip_prefix("for CUDA ")?.split('.').next()?.parse().ok()
}

/// Entries of `folder` whose name starts with `prefix`, in order.
fn below(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let starts = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().starts_with(prefix);
    let mut found: Vec<PathBuf> = entries.filter(starts).map(|e| e.path()).collect();
    found.sort();
    found
}

/// The first of `files` that is somewhere below `folder`.
fn anywhere_below(folder: &Path, files: &[&str]) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    let own = files.iter().map(|file| folder.join(file)).find(|file| file.is_file());
    // Not through links, of which a Python environment has some that lead back up.
    let folders = entries.iter().filter(|e| e.is_dir() && !e.is_symlink());
    own.or_else(|| folders.filter_map(|f| anywhere_below(f, files)).next())
}
