//! Products by cuBLASLt, where it is: algorithms are chosen by a short timed search the first time a product is needed.
#![allow(unsafe_code, reason = "cuBLASLt's functions take pointers and addresses")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use super::driver::Driver;
use super::libraries::{self, Library, Places};
use super::memory::Kind;
use super::opened;
use crate::{Error, Result};

/// Bytes that an algorithm may use beside its matrices.
const WORKSPACE: usize = 32 << 20;

/// Algorithms that are tried.
const TRIED: usize = 8;

/// Runs of each that are timed, after one that is not.
const RUNS: usize = 3;

/// cuBLASLt on a device.
#[derive(Debug)]
pub(super) struct Blas {
    driver: Arc<Driver>,
    /// Whether algorithms are timed.
    search: AtomicBool,
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    /// None where the library has no algorithm.
    plans: Mutex<HashMap<Shape, Option<Plan>>>,
}

// SAFETY: cuBLASLt's handle may be used from any thread; descriptions are only read after they were made.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

/// What fixes a product but for its numbers. Matrices are row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// What the factors are kept in, and what the result is.
    pub(super) kinds: [Kind; 2],
    /// Which factor lies transposed.
    pub(super) turned: Option<usize>,
    /// The number of products, and `m`, `n`, `k`.
    pub(super) sizes: [usize; 4],
    /// Whether something is added.
    pub(super) adds: bool,
    /// Bytes that all addresses are multiples of, at most 256: some algorithms count on it.
    pub(super) alignment: u32,
}

/// Addresses of a product's matrices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrices {
    pub(super) a: u64,
    pub(super) b: u64,
    pub(super) c: u64,
    pub(super) y: u64,
}

/// Descriptions of a product, and the algorithm that was the fastest.
#[derive(Clone, Copy, Debug)]
struct Plan {
    product: sys::cublasLtMatmulDesc_t,
    first: sys::cublasLtMatrixLayout_t,
    second: sys::cublasLtMatrixLayout_t,
    result: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

fn failed(error: CublasError) -> Error {
    Error::Cuda { what: "cuBLASLt".into(), reason: format!("{:?}", error.0) }
}

/// Opens the library; the first time decides for as long as the program runs.
fn library() -> Option<&'static Library> {
    static OPENED: OnceLock<Option<Library>> = OnceLock::new();
    let opened = OPENED.get_or_init(|| {
        let (library, opened) = libraries::cublaslt(&Places::usual()).ok()?;
        opened.keep();
        // SAFETY: it only asks whether the library is there, which cudarc finds by the name of one that is open.
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        // Under another of its names the loader may have another one.
        // SAFETY: it has no arguments.
        let called = opened::cublaslt_version(unsafe { sys::cublasLtGetVersion() });
        (called == library.version).then_some(library)
    });
    opened.as_ref()
}

impl Blas {
    /// cuBLASLt on a device, if the library is there.
    pub(super) fn open(driver: &Arc<Driver>, search: bool) -> Result<Option<Self>> {
        if library().is_none() {
            return Ok(None);
        }
        driver.bind()?;
        // One that does not start, for a newer driver for instance, is as good as none.
        let Ok(handle) = result::create_handle() else { return Ok(None) };
        let workspace = driver.allocate(WORKSPACE)?;
        let search = AtomicBool::new(search);
        Ok(Some(Self { driver: Arc::clone(driver), search, handle, workspace, plans: Mutex::default() }))
    }

    /// From now on takes the first algorithm for what is asked for the first time.
    pub(super) fn do_not_search(&self) {
        self.search.store(false, Ordering::Relaxed);
    }

    /// Queues `y = factor · A B + keep · C`; whether the library has an algorithm for it. `scratch` gives memory for a result
    /// that is thrown away.
    ///
    /// # Safety
    /// There must be matrices of the shape's sizes behind the addresses.
    pub(super) unsafe fn product(
        &self,
        shape: Shape,
        [factor, keep]: [f32; 2],
        at: Matrices,
        scratch: impl FnOnce() -> Result<u64>,
    ) -> Result<bool> {
        self.driver.bind()?;
        let known = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&shape).copied();
        let plan = match known {
            Some(plan) => plan,
            None => {
                // What is being recorded is not tried, and takes no memory for that.
                let y = if self.driver.is_recording() { at.y } else { scratch()? };
                // SAFETY: what is thrown away is as large as the result, and the rest is the caller's.
                let plan = unsafe { self.plan(shape, [factor, keep], Matrices { y, ..at }) }?;
                *self.plans.lock().unwrap_or_else(PoisonError::into_inner).entry(shape).or_insert(plan)
            }
        };
        let Some(plan) = plan else { return Ok(false) };
        // SAFETY: the caller's matrices are of the plan's sizes.
        unsafe { self.queue(&plan, &plan.algorithm, [factor, keep], at) }.map_err(|e| self.failed(e))?;
        Ok(true)
    }

    /// An error that the GPU does not recover from is told as one.
    fn failed(&self, error: CublasError) -> Error {
        match error.0 {
            sys::cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED | sys::cublasStatus_t::CUBLAS_STATUS_INTERNAL_ERROR => {
                let adapter = self.driver.facts().name.clone();
                Error::DeviceLost { adapter, reason: format!("cuBLASLt: {:?}", error.0) }
            }
            _ => failed(error),
        }
    }

    /// Queues a product by an algorithm.
    unsafe fn queue(
        &self,
        plan: &Plan,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        factors: [f32; 2],
        at: Matrices,
    ) -> Result<(), CublasError> {
        let pointer = |address: u64| address as *const c_void;
        // SAFETY: descriptions are of this product; the matrices are the caller's, the workspace is this value's; all
        // products are on one stream, one after the other.
        unsafe {
            result::matmul(
                self.handle,
                plan.product,
                (&raw const factors[0]).cast(),
                (&raw const factors[1]).cast(),
                pointer(at.b),
                plan.first,
                pointer(at.a),
                plan.second,
                pointer(at.c),
                plan.result,
                at.y as *mut c_void,
                plan.result,
                algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                self.driver.stream().cast(),
            )
        }
    }

    /// Describes a product and finds its fastest algorithm.
    unsafe fn plan(&self, shape: Shape, factors: [f32; 2], at: Matrices) -> Result<Option<Plan>> {
        let [stack, m, n, k] = shape.sizes;
        let [inputs, output] = shape.kinds;
        // cuBLASLt counts down columns, where these matrices are their own transposes: it computes `yᵀ = Bᵀ Aᵀ`.
        let (first_turned, second_turned) = (shape.turned == Some(1), shape.turned == Some(0));
        let product = described(first_turned, second_turned).map_err(failed)?;
        let layout = |kind, rows: usize, cols: usize| layout(kind, rows, cols, stack).map_err(failed);
        let mut plan = Plan {
            product,
            first: if first_turned { layout(inputs, k, n) } else { layout(inputs, n, k) }?,
            second: if second_turned { layout(inputs, m, k) } else { layout(inputs, k, m) }?,
            result: layout(output, n, m)?,
            algorithm: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
        };
        let algorithms = self.algorithms(&plan, shape.alignment).map_err(failed)?;
        // What is being recorded cannot be timed, nor tried.
        if self.driver.is_recording() {
            let first = algorithms.first().map(|&algorithm| Plan { algorithm, ..plan });
            return Ok(first);
        }
        let mut best = f64::INFINITY;
        for algorithm in algorithms {
            // SAFETY: the caller's matrices.
            let once = || unsafe { self.queue(&plan, &algorithm, factors, at) };
            if once().is_err() {
                continue;
            }
            let search = self.search.load(Ordering::Relaxed);
            let time = match search {
                true => self.driver.time(|| (0..RUNS).try_for_each(|_| once()).map_err(|e| self.failed(e)))?,
                false => 0.0,
            };
            if time < best {
                (best, plan.algorithm) = (time, algorithm);
            }
            if !search {
                break;
            }
        }
        Ok(best.is_finite().then_some(plan))
    }

    /// What the library holds best for a product.
    fn algorithms(&self, plan: &Plan, alignment: u32) -> Result<Vec<sys::cublasLtMatmulAlgo_t>, CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Of;
        let (preference, bytes) = (result::create_matmul_pref()?, WORKSPACE);
        let set = |attribute, value: *const c_void, size| {
            // SAFETY: the preference was just made; it copies the value, which is as large.
            unsafe { result::set_matmul_pref_attribute(preference, attribute, value, size) }
        };
        set(Of::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const bytes).cast(), size_of::<usize>())?;
        // Where a sum is shared out, its parts are added up in f32 and not as they are kept.
        let reduction = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        let scheme = Of::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK;
        set(scheme, (&raw const reduction).cast(), size_of::<u32>())?;
        for attribute in [
            Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            set(attribute, (&raw const alignment).cast(), size_of::<u32>())?;
        }
        // SAFETY: plain numbers, of which all zeros are some.
        let mut found: [sys::cublasLtMatmulHeuristicResult_t; TRIED] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        // SAFETY: descriptions are alive, and there is room for as many results as are asked for.
        let asked = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                plan.product,
                plan.first,
                plan.second,
                plan.result,
                plan.result,
                preference,
                TRIED as i32,
                found.as_mut_ptr(),
                &raw mut count,
            )
        };
        // SAFETY: it is not used after this.
        unsafe { result::destroy_matmul_pref(preference) }?;
        if asked == sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED {
            return Ok(Vec::new());
        }
        asked.result()?;
        let found = &found[..usize::try_from(count).unwrap_or(0).min(TRIED)];
        Ok(found.iter().filter(|f| f.state.result().is_ok()).map(|f| f.algo).collect())
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // Descriptions are few and small, and stay. There is nothing to do about a failure.
        // SAFETY: nothing uses it after this.
        let _ = unsafe { result::destroy_handle(self.handle) };
        self.driver.free(self.workspace);
    }
}

/// A product of floats, with its factors transposed or not.
fn described(first: bool, second: bool) -> Result<sys::cublasLtMatmulDesc_t, CublasError> {
    use sys::cublasLtMatmulDescAttributes_t::{
        CUBLASLT_MATMUL_DESC_TRANSA as FIRST, CUBLASLT_MATMUL_DESC_TRANSB as SECOND,
    };
    let product =
        result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType_t::CUDA_R_32F)?;
    for (attribute, turned) in [(FIRST, first), (SECOND, second)] {
        // `CUBLAS_OP_T` is 1, `CUBLAS_OP_N` 0.
        let operation = i32::from(turned);
        // SAFETY: the description was just made; the attribute is an `int32_t`, which it copies.
        unsafe {
            result::set_matmul_desc_attribute(product, attribute, (&raw const operation).cast(), size_of::<i32>())
        }?;
    }
    Ok(product)
}

/// A stack of matrices that count down columns, one after the other.
fn layout(kind: Kind, rows: usize, cols: usize, stack: usize) -> Result<sys::cublasLtMatrixLayout_t, CublasError> {
    use sys::cublasLtMatrixLayoutAttribute_t::{
        CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT as COUNT, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET as STRIDE,
    };
    let kind = match kind {
        Kind::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        _ => sys::cudaDataType_t::CUDA_R_32F,
    };
    let layout = result::create_matrix_layout(kind, rows as u64, cols as u64, rows as i64)?;
    if stack > 1 {
        let (count, stride) = (stack as i32, (rows * cols) as i64);
        // SAFETY: the layout was just made; the attributes are an `int32_t` and an `int64_t`, which it copies.
        unsafe {
            result::set_matrix_layout_attribute(layout, COUNT, (&raw const count).cast(), size_of::<i32>())?;
            result::set_matrix_layout_attribute(layout, STRIDE, (&raw const stride).cast(), size_of::<i64>())?;
        }
    }
    Ok(layout)
}
