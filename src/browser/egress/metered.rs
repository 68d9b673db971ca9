//! A connection outwards that counts its bytes and gives up when nothing moves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::State;

/// A TCP stream with a counter and an idle deadline, which a byte in either direction puts off.
pub(super) struct Metered {
    stream: TcpStream,
    state: Arc<State>,
    idle: Pin<Box<Sleep>>,
}

impl Metered {
    pub(super) fn new(stream: TcpStream, state: Arc<State>) -> Self {
        let idle = Box::pin(sleep(state.limits.idle));
        Self { stream, state, idle }
    }

    fn moved(&mut self) {
        let until = Instant::now() + self.state.limits.idle;
        self.idle.as_mut().reset(until);
    }

    /// An error once the deadline is over; registers to be woken at it.
    fn overdue(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.idle.as_mut().poll(context));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "nothing moved on the connection"))
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.overdue(context).map(Err),
            Poll::Ready(result) => {
                let read = buffer.filled().len() - before;
                self.moved();
                Poll::Ready(result.and_then(|()| self.state.moved(0, read)))
            }
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.overdue(context).map(Err),
            Poll::Ready(result) => {
                self.moved();
                Poll::Ready(result.and_then(|written| self.state.moved(written, 0).map(|()| written)))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
