//! Connections: how many there may be, how long they may be silent or take nothing, how they end.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_io_timeout::TimeoutStream;

use super::app::App;

/// Open connections at most; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;

/// Time in which the head of a request must come, also of the next one on the same connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until `close` is ready, then ends connections as their answers end.
pub(super) async fn listen(app: Arc<App>, listener: TcpListener, router: Router, close: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let accept = async {
        loop {
            let permit = Arc::clone(&connections).acquire_owned().await;
            let stream = accepted(&listener).await;
            // Tokens are small and are wanted at once.
            let _ = stream.set_nodelay(true);
            let service = TowerToHyperService::new(router.clone());
            let stream = Box::pin(patient(stream, &app));
            let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            let app = Arc::clone(&app);
            tokio::spawn(async move {
                // A client that breaks off is no failure of the server's.
                if connection.await.is_err_and(|error| is_stall(&error)) {
                    app.metrics.stalled.inc();
                }
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = close => {}
    }
    drop(listener);
    graceful.shutdown().await;
}

/// A connection that fails when the client takes nothing for too long.
fn patient(stream: TcpStream, app: &App) -> TimeoutStream<TcpStream> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(Duration::from_secs_f64(app.limits.stall)));
    stream
}

/// Whether a connection failed for that reason.
fn is_stall(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// The next connection. Where the system has no more of them to give, those that end make room.
async fn accepted(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
