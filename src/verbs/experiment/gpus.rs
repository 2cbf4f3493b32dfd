//! Which GPU each of several jobs sees.
//!
//! With `--device cuda` and several jobs, job `k` (from 0) sees the `k`-th GPU of `CUDA_VISIBLE_DEVICES`, or GPU `k` of
//! the machine where that is not set; with more jobs than there are in the list, they take turns. One job, or another
//! device, sees what the program sees.

use sixpack_runtime::Device;

/// The value of `CUDA_VISIBLE_DEVICES` for each job, if it is to be set.
pub(super) fn assigned(device: Device, jobs: usize, visible: Option<&str>) -> Vec<Option<String>> {
    let listed: Vec<&str> = visible.unwrap_or("").split(',').map(str::trim).filter(|s| !s.is_empty()).collect();
    let of_job = |k: usize| match device {
        Device::Cuda(None) if jobs > 1 => match listed[..] {
            [] => Some(k.to_string()),
            _ => Some(listed[k % listed.len()].to_owned()),
        },
        _ => None,
    };
    (0..jobs).map(of_job).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_take_the_gpus_in_turn() {
        let of = |device: &str, jobs, visible| {
            let all = assigned(device.parse().unwrap(), jobs, visible);
            all.into_iter().map(|gpu| gpu.unwrap_or_else(|| "-".into())).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("cuda", 3, None), "0 1 2");
        assert_eq!(of("cuda", 4, Some("5, GPU-7a")), "5 GPU-7a 5 GPU-7a");
        assert_eq!(of("cuda", 1, Some("5,6")), "-");
        assert_eq!(of("cuda:1", 2, None), "- -");
        assert_eq!(of("cpu", 2, Some("0,1")), "- -");
    }
}
