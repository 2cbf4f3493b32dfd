//! Which rank this process is, by the environment that a launcher made: torchrun, `mpirun` or `srun`.

use std::fmt;

use super::{Alone, Collective, Limits, Tcp};
use crate::loader::Rank;
use crate::{Error, Result};

/// A launcher's names for the four numbers.
struct Launcher {
    rank: &'static str,
    world: &'static str,
    local_rank: &'static str,
    local_world: &'static str,
    /// What is only there if the launcher started this very process.
    sign: Option<&'static str>,
}

/// In the order in which they are believed: `torchrun` or `mpirun` may run within a Slurm job, not the other way around.
const LAUNCHERS: [Launcher; 4] = [
    Launcher {
        rank: "RANK",
        world: "WORLD_SIZE",
        local_rank: "LOCAL_RANK",
        local_world: "LOCAL_WORLD_SIZE",
        sign: None,
    },
    Launcher {
        rank: "OMPI_COMM_WORLD_RANK",
        world: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        local_world: "OMPI_COMM_WORLD_LOCAL_SIZE",
        sign: None,
    },
    // A batch script has the first two as well, but is no task of a step.
    Launcher {
        rank: "SLURM_PROCID",
        world: "SLURM_NTASKS",
        local_rank: "SLURM_LOCALID",
        local_world: "SLURM_STEP_TASKS_PER_NODE",
        sign: Some("SLURM_STEP_ID"),
    },
    Launcher {
        rank: "PMI_RANK",
        world: "PMI_SIZE",
        local_rank: "MPI_LOCALRANKID",
        local_world: "MPI_LOCALNRANKS",
        sign: None,
    },
];

/// Where rank 0 waits for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// Its machine's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How this process was launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Among all processes of the run.
    pub rank: Rank,
    /// Among those on this machine.
    pub local: Rank,
    /// Where they meet; nothing for a process that is alone.
    pub meeting: Option<Meeting>,
    /// Cores that the launcher set apart for this process, where it says so.
    cores: Option<usize>,
}

impl Launch {
    /// By the environment of this process. Without any of a launcher's variables it is alone.
    ///
    /// # Errors
    /// If variables are missing or contradict each other, naming the first.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned()))
    }

    /// By the variables that `get` knows.
    ///
    /// # Errors
    /// As [`Launch::from_env`].
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let started = |l: &&Launcher| {
            l.sign.is_none_or(|sign| get(sign).is_some()) && (get(l.rank).is_some() || get(l.world).is_some())
        };
        let alone = Self { rank: Rank::ALONE, local: Rank::ALONE, meeting: None, cores: None };
        let Some(by) = LAUNCHERS.iter().find(started) else { return Ok(alone) };
        let rank = pair(get, by.rank, by.world)?;
        if rank.world == 1 {
            return Ok(alone);
        }
        let local = local(get, by, rank)?;
        let slurm = by.sign.is_some();
        let cores = if slurm { number(get, "SLURM_CPUS_PER_TASK")? } else { None };
        Ok(Self { rank, local, meeting: Some(meeting(get, slurm)?), cores })
    }

    /// Meets the other processes, if there are any.
    ///
    /// # Errors
    /// As [`Tcp::join`].
    pub fn join(&self, limits: Limits) -> Result<Box<dyn Collective>> {
        match &self.meeting {
            Some(meeting) => Ok(Box::new(Tcp::join(self.rank, meeting, limits)?)),
            None => Ok(Box::new(Alone)),
        }
    }

    /// Threads for this process if it is to share its machine's cores with its neighbours.
    pub fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.cores.unwrap_or(cores / self.local.world).max(1)
    }
}

fn wrong<T>(variable: &str, expected: impl Into<String>, found: impl Into<String>) -> Result<T> {
    Err(Error::Environment { variable: variable.into(), expected: expected.into(), found: found.into() })
}

fn number(get: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<Option<usize>> {
    let Some(text) = get(name) else { return Ok(None) };
    match text.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => wrong(name, "a number", format!("`{text}`")),
    }
}

/// A rank and how many there are: both, and in keeping.
fn pair(get: &dyn Fn(&str) -> Option<String>, rank_name: &str, world_name: &str) -> Result<Rank> {
    let Some(rank) = number(get, rank_name)? else {
        return wrong(rank_name, format!("a number, as {world_name} is set"), "nothing");
    };
    let Some(world) = number(get, world_name)? else {
        return wrong(world_name, format!("a number, as {rank_name} is set"), "nothing");
    };
    if !(1..=4096).contains(&world) {
        return wrong(world_name, "1 to 4096", world.to_string());
    }
    if rank >= world {
        return wrong(rank_name, format!("a number below {world_name} {world}"), rank.to_string());
    }
    Ok(Rank { rank, world })
}

/// The rank on this machine. Where nothing says how many are on it, all are taken to be.
fn local(get: &dyn Fn(&str) -> Option<String>, by: &Launcher, all: Rank) -> Result<Rank> {
    let rank = number(get, by.local_rank)?;
    let world = match get(by.local_world) {
        // Slurm's is a list by machine, such as `4(x2),3`: the first is as good as any.
        Some(list) if by.sign.is_some() => list.split(['(', ',']).next().and_then(|n| n.parse().ok()),
        _ => number(get, by.local_world)?,
    };
    let world = world.unwrap_or(all.world);
    if !(1..=all.world).contains(&world) {
        return wrong(by.local_world, format!("1 to {} {}", by.world, all.world), world.to_string());
    }
    // Machines of a Slurm job may have more tasks than the first one has.
    let most = if by.sign.is_some() { all.world } else { world };
    match rank {
        Some(rank) if rank >= most => wrong(by.local_rank, format!("a number below {most}"), rank.to_string()),
        rank => Ok(Rank { rank: rank.unwrap_or(all.rank % world), world: world.max(rank.map_or(0, |r| r + 1)) }),
    }
}

fn meeting(get: &dyn Fn(&str) -> Option<String>, slurm: bool) -> Result<Meeting> {
    let first_node = || get("SLURM_STEP_NODELIST").as_deref().and_then(first_of);
    let host = get("MASTER_ADDR")
        .or_else(|| slurm.then(first_node)?)
        .or_else(|| slurm.then(|| get("SLURM_LAUNCH_NODE_IPADDR"))?);
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return wrong("MASTER_ADDR", "the name or address of rank 0's machine", "nothing");
    };
    let Some(port) = number(get, "MASTER_PORT")? else {
        if !slurm {
            return wrong("MASTER_PORT", "a port of rank 0's machine", "nothing");
        }
        // One for each job and step, as several may share a machine.
        let id = number(get, "SLURM_JOB_ID")?.unwrap_or(0) * 7 + number(get, "SLURM_STEP_ID")?.unwrap_or(0);
        return Ok(Meeting { host, port: 20_000 + (id % 10_000) as u16 });
    };
    let Some(port) = u16::try_from(port).ok().filter(|&port| port > 0) else {
        return wrong("MASTER_PORT", "1 to 65535", port.to_string());
    };
    // torchrun's agent listens there itself.
    let taken = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    Ok(Meeting { host, port: if taken { port.checked_add(1).unwrap_or(port - 1) } else { port } })
}

/// The first machine of a Slurm list such as `login,gpu[007-012,20]`.
fn first_of(list: &str) -> Option<String> {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let Some(numbers) = rest.strip_prefix('[') else { return Some(name.to_owned()) };
    let (numbers, after) = numbers.split_once(']')?;
    let suffix = after.split(',').next()?;
    Some(format!("{name}{}{suffix}", numbers.split([',', '-']).next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Result<Launch, String> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Launch::from_variables(&get).map_err(|e| e.to_string())
    }

    fn at(rank: usize, world: usize, local: (usize, usize), meeting: &str) -> Launch {
        let (host, port) = meeting.split_once(':').unwrap();
        let meeting = Some(Meeting { host: host.into(), port: port.parse().unwrap() });
        Launch { rank: Rank { rank, world }, local: Rank { rank: local.0, world: local.1 }, meeting, cores: None }
    }

    const MASTER: [(&str, &str); 2] = [("MASTER_ADDR", "node1"), ("MASTER_PORT", "29500")];

    fn with_master(variables: &[(&'static str, &'static str)]) -> Result<Launch, String> {
        launch(&[variables, &MASTER].concat())
    }

    #[test]
    fn every_launcher() {
        let alone = Launch { rank: Rank::ALONE, local: Rank::ALONE, meeting: None, cores: None };
        assert_eq!(launch(&MASTER), Ok(alone.clone()));
        assert_eq!(launch(&[("RANK", "0"), ("WORLD_SIZE", "1")]), Ok(alone.clone()));
        let torch = [("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")];
        assert_eq!(with_master(&torch), Ok(at(3, 4, (1, 2), "node1:29500")));
        let agent = [&torch[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
        assert_eq!(with_master(&agent), Ok(at(3, 4, (1, 2), "node1:29501")));
        assert_eq!(with_master(&torch[..2]), Ok(at(3, 4, (3, 4), "node1:29500")));
        let mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_LOCAL_RANK", "0")];
        let mpi = [&mpi[..], &[("OMPI_COMM_WORLD_LOCAL_SIZE", "1"), ("SLURM_PROCID", "0"), ("SLURM_STEP_ID", "4")]];
        assert_eq!(with_master(&mpi.concat()), Ok(at(1, 2, (0, 1), "node1:29500")));
        assert_eq!(with_master(&[("PMI_RANK", "1"), ("PMI_SIZE", "2")]), Ok(at(1, 2, (1, 2), "node1:29500")));
        let script = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8"), ("SLURM_JOB_ID", "100")];
        assert_eq!(launch(&script), Ok(alone), "a batch script is no task");
        let step = [
            ("SLURM_STEP_ID", "2"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_TASKS_PER_NODE", "4(x2)"),
            ("SLURM_STEP_NODELIST", "gpu[007-008]"),
            ("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.9"),
        ];
        let step = [&script[..], &step].concat();
        assert_eq!(launch(&step), Ok(at(0, 8, (1, 4), "gpu007:20702")));
        let mut bound = step.clone();
        bound.push(("SLURM_CPUS_PER_TASK", "6"));
        assert_eq!(launch(&bound).unwrap().threads(), 6);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(launch(&step).unwrap().threads(), (cores / 4).max(1));
        let bare = [&script[..], &[("SLURM_STEP_ID", "0"), ("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.9")]].concat();
        assert_eq!(launch(&bare).unwrap().meeting.unwrap().host, "10.0.0.9");
    }

    #[test]
    fn what_is_missing_or_contradicts_itself_is_named() {
        let refused = |variables: &[(&'static str, &'static str)]| with_master(variables).unwrap_err();
        assert_eq!(
            refused(&[("RANK", "1")]),
            "environment variable WORLD_SIZE: expected a number, as RANK is set, found nothing"
        );
        assert!(refused(&[("WORLD_SIZE", "2")]).contains("RANK: expected a number, as WORLD_SIZE is set"));
        assert!(refused(&[("RANK", "2"), ("WORLD_SIZE", "2")]).contains("RANK: expected a number below WORLD_SIZE 2"));
        assert!(refused(&[("RANK", "x"), ("WORLD_SIZE", "2")]).contains("RANK: expected a number, found `x`"));
        assert!(refused(&[("RANK", "0"), ("WORLD_SIZE", "0")]).contains("WORLD_SIZE: expected 1 to 4096, found 0"));
        let two = [("RANK", "1"), ("WORLD_SIZE", "2")];
        let local = |more: &[(&'static str, &'static str)]| refused(&[&two[..], more].concat());
        assert!(local(&[("LOCAL_WORLD_SIZE", "3")]).contains("LOCAL_WORLD_SIZE: expected 1 to WORLD_SIZE 2, found 3"));
        assert!(
            local(&[("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "1")]).contains("LOCAL_RANK: expected a number below 1")
        );
        assert!(launch(&two).unwrap_err().contains("MASTER_ADDR: expected the name or address of rank 0's machine"));
        let half = [&two[..], &MASTER[..1]].concat();
        assert!(launch(&half).unwrap_err().contains("MASTER_PORT: expected a port of rank 0's machine, found nothing"));
        let far = [&two[..], &MASTER[..1], &[("MASTER_PORT", "70000")]].concat();
        assert!(launch(&far).unwrap_err().contains("MASTER_PORT: expected 1 to 65535, found 70000"));
    }

    #[test]
    fn first_machines_of_lists() {
        for (list, first) in
            [("n1", "n1"), ("login,gpu[1-2]", "login"), ("gpu[007-012,20]", "gpu007"), ("a[3,5]-ib,b1", "a3-ib")]
        {
            assert_eq!(first_of(list).as_deref(), Some(first));
        }
    }
}
