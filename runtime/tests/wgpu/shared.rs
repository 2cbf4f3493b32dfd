//! Many texts on one GPU that is lost.

use sixpack_runtime::generate::Limits;
use sixpack_runtime::shared::{Change, Shared};
use sixpack_runtime::wgpu::{Settings, Wgpu};
use sixpack_runtime::{Device, Engine, Error, Sampler, Sampling, now};

use crate::{golden, open, session};

fn text(engine: &mut Engine) -> Result<Vec<u32>, Error> {
    let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() })?;
    let mut said = Vec::new();
    let mut on_token = |token| {
        said.push(token);
        true
    };
    let limits = Limits { max_tokens: 4, context: 48, stop: &[] };
    now(engine.generate(&session::sequence("tiny")[..9], &limits, &mut sampler, &mut on_token))?;
    Ok(said)
}

/// What is known to all after the GPU was lost under two texts and a third has not noticed.
pub(crate) fn lost(_: Wgpu) {
    let model = golden::model("tiny");
    let expected = text(&mut Engine::cpu(&model, 1).unwrap()).unwrap();
    for spare in [None, Some(1)] {
        let gpu = open(Settings::default()).unwrap();
        let same = gpu.fork();
        let shared = Shared::new(Engine::gpu(&model, gpu, 0, spare).unwrap());
        let [mut first, mut second, unused] = [(); 3].map(|()| shared.fork(1).unwrap());
        let done = text(&mut first);
        assert_eq!((shared.give_back(first, done.as_ref().err()), done.unwrap()), (Change::None, expected.clone()));
        same.lose();
        let mut third = shared.fork(1).unwrap();
        let errors = [&mut second, &mut third].map(|fork| text(fork).err());
        let changes = [shared.give_back(second, errors[0].as_ref()), shared.give_back(third, errors[1].as_ref())];
        assert_eq!(shared.give_back(unused, None), Change::None);
        match spare {
            None => {
                assert_eq!(changes, [Change::Failed, Change::None]);
                assert!(shared.failed().is_some_and(|reason| reason.contains("was lost")), "{shared:?}");
            }
            Some(_) => {
                assert_eq!(changes, [Change::Moved(Device::Cpu), Change::None]);
                assert_eq!((shared.device(), shared.failed()), (Device::Cpu, None));
                assert_eq!(text(&mut shared.fork(1).unwrap()).unwrap(), expected);
            }
        }
    }
}
