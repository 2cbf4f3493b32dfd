//! Ranks over TCP: what they compute together, and how the loss of one ends the others.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use sixpack_train::collective::launch::Meeting;
use sixpack_train::collective::{Limits, Tcp};
use sixpack_train::loader::Rank;
use sixpack_train::{Alone, Collective, Error, Result};

/// A port that was free a moment ago.
fn meeting() -> Meeting {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    Meeting { host: "127.0.0.1".into(), port }
}

fn limits(milliseconds: u64) -> Limits {
    Limits::of(Duration::from_millis(milliseconds))
}

/// What `rank` does on each of several ranks.
fn ranks<T: Send>(world: usize, limits: Limits, rank: impl Fn(&Tcp, usize) -> T + Sync) -> Vec<T> {
    let meeting = meeting();
    std::thread::scope(|scope| {
        let start = |r| {
            let (meeting, rank) = (&meeting, &rank);
            scope.spawn(move || rank(&Tcp::join(Rank { rank: r, world }, meeting, limits).unwrap(), r))
        };
        // The last first: rank 0 is not there when the others look for it.
        let threads: Vec<_> = (0..world).rev().map(start).collect();
        let mut done: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        done.reverse();
        done
    })
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

/// Values whose sum depends on the order in which they are added.
fn values(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|i| ((i * 37 + rank * 101) % 113) as f32 * [1e-3, 1e4, 0.7, 33.3][rank % 4]).collect()
}

#[test]
fn sums_are_in_the_order_of_the_ranks_and_the_same_bits_everywhere() {
    // Odd sizes, nothing, and more than a socket holds.
    let lengths = [0, 1, 17, 1_000_003, 5];
    for world in [2, 3, 4] {
        let sums = ranks(world, Limits::default(), |all, rank| {
            // All are started before the first is waited for.
            let started: Vec<_> = lengths.iter().map(|&n| all.sum(values(rank, n)).unwrap()).collect();
            started.into_iter().map(|sum| sum.wait().unwrap()).collect::<Vec<_>>()
        });
        for (i, &length) in lengths.iter().enumerate() {
            let mut expected = values(0, length);
            for rank in 1..world {
                expected.iter_mut().zip(values(rank, length)).for_each(|(sum, x)| *sum += x);
            }
            assert!(sums.iter().all(|of_rank| of_rank[i] == expected), "{length} values on {world} ranks");
        }
    }
}

#[test]
fn broadcast_gather_and_exchange() {
    let done = ranks(3, Limits::default(), |all, rank| {
        let broadcast = all.broadcast(1, values(rank, 9)).unwrap();
        let mut of_ranks = vec![Vec::new(), vec![0.0; 2], vec![0.0; 4]];
        of_ranks[rank] = values(rank, 2 * rank);
        let gathered = all.gather(of_ranks).unwrap();
        let exchanged = all.exchange(format!("of {rank}").as_bytes()).unwrap();
        (broadcast.wait().unwrap(), gathered.wait().unwrap(), exchanged)
    });
    for (broadcast, gathered, exchanged) in done {
        assert_eq!(broadcast, values(1, 9));
        assert_eq!(gathered, (0..3).map(|r| values(r, 2 * r)).collect::<Vec<_>>());
        assert_eq!(exchanged, [b"of 0", b"of 1", b"of 2"]);
    }
    let alone: &dyn Collective = &Alone;
    assert_eq!(alone.sum(vec![1.5]).unwrap().wait().unwrap(), [1.5]);
    assert_eq!(alone.gather(vec![vec![1.5]]).unwrap().wait().unwrap(), [[1.5]]);
    assert_eq!(alone.exchange(b"x").unwrap(), [b"x"]);
}

#[test]
fn a_rank_that_goes_is_named_to_all_and_so_is_its_reason() {
    for (gone, reason) in [(2, None), (1, Some("no space left")), (0, None), (0, Some("no space left"))] {
        let done = ranks(3, Limits::default(), |all, rank| {
            all.exchange(&[]).unwrap();
            let (told, heard) = std::sync::mpsc::channel();
            let name = move |rank: usize, reason: &str| told.send(format!("rank {rank} was lost: {reason}")).unwrap();
            if rank == gone {
                reason.inspect(|reason| all.leave(reason));
                return None;
            }
            all.on_loss(Box::new(name.clone()));
            let first = message(all.sum(vec![1.0]).and_then(|sum| sum.wait()));
            assert_eq!(message(all.exchange(&[])), first, "nothing more is started");
            all.on_loss(Box::new(name));
            for when in ["when it was lost", "when it had been"] {
                assert_eq!(heard.recv().unwrap(), first, "{when}");
            }
            Some(first)
        });
        let expected = match reason {
            None => format!("rank {gone} was lost: its connection was closed"),
            Some(reason) => format!("rank {gone} was lost: it ended: {reason}"),
        };
        let survivors: Vec<_> = done.into_iter().flatten().collect();
        assert_eq!(survivors, [expected.as_str(), &expected]);
    }
}

#[test]
fn a_rank_that_does_another_thing_is_refused() {
    let done = ranks(3, Limits::default(), |all, rank| match rank {
        1 => message(all.sum(vec![0.0; 3]).and_then(|sum| sum.wait())),
        _ => message(all.sum(vec![0.0; 2]).and_then(|sum| sum.wait())),
    });
    for text in [&done[0], &done[2]] {
        assert_eq!(text, "rank 1 was lost: it was expected to do Sum 0 of 8 bytes, found Sum 0 of 12 bytes");
    }
}

#[test]
fn an_idle_rank_is_alive_and_a_silent_one_is_not() {
    let begin = Instant::now();
    let done = ranks(2, limits(400), |all, rank| {
        if rank == 1 {
            std::thread::sleep(Duration::from_millis(1200));
        }
        all.exchange(&[]).map(drop)
    });
    assert!(done.iter().all(Result::is_ok) && begin.elapsed() > Duration::from_secs(1), "{done:?}");
    let impatient = Limits { patience: Duration::from_millis(300), ..Limits::default() };
    let done = ranks(3, impatient, |all, rank| {
        if rank == 2 {
            std::thread::sleep(Duration::from_millis(1000));
        }
        all.exchange(&[]).map(drop)
    });
    assert_eq!(message(done.into_iter().next().unwrap()), "rank 2 was lost: it did nothing for 0.3 s");
    // One that knows the handshake, and then says nothing.
    let meeting = meeting();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let all = Tcp::join(Rank { rank: 0, world: 2 }, &meeting, limits(400)).unwrap();
            assert_eq!(message(all.exchange(&[])), "rank 1 was lost: it was silent for 0.4 s");
        });
        let mut stream = loop {
            match TcpStream::connect((meeting.host.as_str(), meeting.port)) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let version = env!("CARGO_PKG_VERSION");
        let hello = format!(r#"{{"protocol":"sixpack ranks 1","version":"{version}","world":2}}"#);
        let mut frame = vec![1];
        frame.extend(1u64.to_le_bytes());
        frame.extend((hello.len() as u64).to_le_bytes());
        frame.extend(hello.as_bytes());
        stream.write_all(&frame).unwrap();
        std::thread::sleep(Duration::from_millis(1000));
    });
}

#[test]
fn who_does_not_come_or_takes_the_run_for_another_one_is_named() {
    let join = |at: &Meeting, rank, world, ms| message(Tcp::join(Rank { rank, world }, at, limits(ms)));
    let at = meeting();
    let text = join(&at, 1, 2, 100);
    assert!(text.starts_with(&format!("cannot meet the other ranks at {at}: rank 0 could not be reached")), "{text}");
    let at = &meeting();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| join(at, 1, 3, 2000));
        let text = join(at, 0, 3, 700);
        assert!(text.ends_with("rank 2 of 3 did not come within 0.7 s"), "{text}");
        assert!(other.join().unwrap().ends_with(&text), "the ranks that came are told");
    });
    let at = &meeting();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| join(at, 1, 3, 2000));
        let text = join(at, 0, 2, 2000);
        assert_eq!(text, "rank 1 differs from rank 0 in its number of ranks: expected 2, found 3");
        assert!(other.join().unwrap().ends_with(&text));
    });
    let at = &meeting();
    std::thread::scope(|scope| {
        let others = [scope.spawn(|| join(at, 1, 3, 2000)), scope.spawn(|| join(at, 1, 3, 2000))];
        let text = join(at, 0, 3, 2000);
        assert!(text.ends_with("expected a rank that is not there yet, found 1 a second time"), "{text}");
        assert!(others.into_iter().all(|other| other.join().unwrap().ends_with(&text)));
    });
    // A stranger at the door changes nothing.
    let at = &meeting();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| Tcp::join(Rank { rank: 0, world: 2 }, at, limits(5000)).map(drop));
        let mut stranger = loop {
            match TcpStream::connect((at.host.as_str(), at.port)) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        stranger.write_all(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").unwrap();
        Tcp::join(Rank { rank: 1, world: 2 }, at, limits(5000)).map(drop).unwrap();
        first.join().unwrap().unwrap();
    });
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = Meeting { host: "127.0.0.1".into(), port: taken.local_addr().unwrap().port() };
    let error = Tcp::join(Rank { rank: 0, world: 2 }, &at, limits(100)).unwrap_err();
    assert!(matches!(&error, Error::Join { reason, .. } if reason.starts_with("cannot listen")), "{error}");
}
